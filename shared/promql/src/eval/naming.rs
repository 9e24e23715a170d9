//! Which labels describe a metric's schema and go when its values change meaning.

use tricord_model::{Labels, METRIC_NAME};

use crate::value::Column;

/// Whether a label belongs to the metric's schema: its name, type or unit.
#[must_use]
pub fn is_metric_schema_label(name: &str) -> bool {
    name == METRIC_NAME || name == "__type__" || name == "__unit__"
}

/// The labels without name, type and unit.
#[must_use]
pub fn drop_metric_schema(labels: &Labels) -> Labels {
    labels.filtered(|name| !is_metric_schema_label(name))
}

/// Drops a column's name now, or marks it to go at the query's end.
pub(crate) fn drop_name(column: &mut Column, delayed: bool) {
    column.drop_name = true;
    if !delayed {
        column.labels = drop_metric_schema(&column.labels);
    }
}
