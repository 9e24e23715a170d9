//! From OTLP metrics to Prometheus series: names, units, labels, targets, and the five kinds of metrics.
//!
//! It follows what Prometheus does with the same request, so that a dashboard made for one works with the other.

mod histogram;
mod labels;
mod metrics;
mod names;
mod sent;
mod target;
mod walk;

pub use names::{MetricShape, label_name, metric_name};
pub use walk::translate;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

/// How OTLP names become metric and label names: Prometheus' four strategies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Characters other than letters, digits, `_` and `:` become `_`; units and `_total` are appended.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Characters are replaced, nothing is appended.
    UnderscoreEscapingWithoutSuffixes,
    /// Names stay as they are; units and `_total` are appended.
    NoUTF8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl Strategy {
    /// Whether characters are replaced.
    #[must_use]
    pub fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    /// Whether units and types are appended.
    #[must_use]
    pub fn adds_suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUTF8EscapingWithSuffixes)
    }
}

/// How OTLP metrics are translated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Translation {
    /// How names are made.
    pub strategy: Strategy,
    /// Resource attributes that become labels of every series.
    pub promote_resource_attributes: Vec<String>,
    /// Whether all resource attributes become labels of every series.
    pub promote_all_resource_attributes: bool,
    /// Whether `target_info` keeps `service.name`, `service.namespace` and `service.instance.id`.
    pub keep_identifying_resource_attributes: bool,
    /// Whether the scope's name, version, schema URL and attributes become `otel_scope_…` labels.
    pub promote_scope_metadata: bool,
}

#[cfg(test)]
pub(crate) mod tests;
