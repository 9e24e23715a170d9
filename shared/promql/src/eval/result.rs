//! What becomes of columns at the end of a query, and label sets that must be unique.

use std::collections::HashMap;

use tricord_model::Labels;

use super::naming::drop_metric_schema;
use super::{EvalError, EvalOptions, EvalStats, Result};
use crate::ast::{AggregateOp, Expr, ExprKind};
use crate::functions::Function;
use crate::value::{Column, Grid, QueryValue, is_absent};

/// The text of the error for two series of one label set.
pub const DUPLICATE_LABELSET: &str = "vector cannot contain metrics with the same labelset";

fn duplicate() -> EvalError {
    EvalError::Execution(DUPLICATE_LABELSET.to_owned())
}

/// Fails where two series have one label set, even if at no common step: after range functions.
///
/// # Errors
/// [`EvalError::Execution`] with [`DUPLICATE_LABELSET`].
pub fn require_unique_labels(columns: &[Column]) -> std::result::Result<(), EvalError> {
    // What comes from a store or from another node is sorted.
    if columns.is_sorted_by(|a, b| a.labels < b.labels) {
        return Ok(());
    }
    let hasher = foldhash::fast::RandomState::default();
    let mut seen = std::collections::HashSet::with_capacity_and_hasher(columns.len(), hasher);
    if columns.iter().all(|column| seen.insert(&column.labels)) { Ok(()) } else { Err(duplicate()) }
}

/// Joins series of one label set whose steps do not overlap.
///
/// # Errors
/// [`EvalError::Execution`] with [`DUPLICATE_LABELSET`] where two of them have a value at one step.
pub fn merge_same_labels(columns: Vec<Column>) -> std::result::Result<Vec<Column>, EvalError> {
    if require_unique_labels(&columns).is_ok() {
        return Ok(columns);
    }
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(columns.len());
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        match places.get(&column.labels) {
            Some(place) => merge_into(&mut merged[*place], column)?,
            None => {
                places.insert(column.labels.clone(), merged.len());
                merged.push(column);
            }
        }
    }
    Ok(merged)
}

fn merge_into(target: &mut Column, other: Column) -> Result<()> {
    for (step, value) in other.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
        if !is_absent(target.floats[step]) {
            return Err(duplicate());
        }
        target.floats[step] = *value;
    }
    if !other.histograms.is_empty() {
        target.histograms.extend(other.histograms);
        target.histograms.sort_by_key(|(step, _)| *step);
        if target.histograms.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(duplicate());
        }
    }
    match target.histograms.iter().any(|(step, _)| !is_absent(target.floats[*step as usize])) {
        true => Err(duplicate()),
        false => Ok(()),
    }
}

/// The last step of a query with delayed name removal, also over columns that several nodes sent: drops the names
/// that are marked, and joins what then has one label set.
///
/// # Errors
/// [`EvalError::Execution`] with [`DUPLICATE_LABELSET`] where two series then have a value at one step.
pub fn finish_names(mut columns: Vec<Column>) -> std::result::Result<Vec<Column>, EvalError> {
    for column in columns.iter_mut().filter(|column| column.drop_name) {
        column.labels = drop_metric_schema(&column.labels);
        column.drop_name = false;
    }
    merge_same_labels(columns)
}

/// The end of a part of a query.
pub(super) fn finish_part(columns: Vec<Column>, delayed: bool) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = columns.into_iter().filter(|column| !column.is_empty()).collect();
    if !delayed {
        require_unique_labels(&columns)?;
    }
    columns.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(columns)
}

/// The end of a query whose columns were all computed elsewhere, so that nothing is left to evaluate: what
/// [`super::evaluate`] makes of a `Remote` leaf alone, without a copy of the columns.
///
/// # Errors
/// [`EvalError`] where two series have one label set, or there are more values than may be held.
pub fn finish_columns(
    columns: Vec<Column>,
    expr: &Expr,
    grid: Grid,
    options: &EvalOptions,
) -> std::result::Result<(QueryValue, EvalStats), EvalError> {
    let peak_samples = columns.iter().map(super::held_by).sum();
    if peak_samples > options.max_samples {
        return Err(EvalError::TooManySamples("query execution"));
    }
    let value = finish(QueryValue::Vector(columns), expr, grid, options.delayed_name_removal)?;
    Ok((value, EvalStats { peak_samples, ..EvalStats::default() }))
}

pub(super) fn finish(value: QueryValue, expr: &Expr, grid: Grid, delayed: bool) -> Result<QueryValue> {
    match value {
        QueryValue::Vector(columns) => {
            let columns = if delayed { finish_names(columns)? } else { columns };
            let mut columns: Vec<Column> = columns.into_iter().filter(|column| !column.is_empty()).collect();
            require_unique_labels(&columns)?;
            if grid.steps() > 1 || !has_order(expr) {
                columns.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            Ok(QueryValue::Vector(columns))
        }
        QueryValue::Matrix(mut series) => {
            series.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(QueryValue::Matrix(series))
        }
        other => Ok(other),
    }
}

/// Whether the expression gives its series an order that an instant query keeps.
#[must_use]
pub fn has_order(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => has_order(inner),
        ExprKind::Binary(binary) => has_order(&binary.lhs) || has_order(&binary.rhs),
        ExprKind::Aggregate(aggregate) => matches!(aggregate.op, AggregateOp::Topk | AggregateOp::Bottomk),
        ExprKind::Call(call) => match call.func {
            Function::Sort | Function::SortDesc | Function::SortByLabel | Function::SortByLabelDesc => true,
            Function::Absent
            | Function::Scalar
            | Function::HistogramQuantile
            | Function::HistogramFraction => false,
            _ => call.args.iter().any(has_order),
        },
        // Its planner has put the columns into their order.
        ExprKind::Remote(_) => true,
        _ => false,
    }
}
