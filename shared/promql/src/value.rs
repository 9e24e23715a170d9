//! What evaluation yields: columns of steps per series.

use std::sync::Arc;

use tricord_model::{FloatHistogram, Labels, STALE_NAN};

/// The evaluation times of a query: `start`, `start + step`, … up to `end`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Grid {
    /// First evaluation time, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// Last evaluation time at the latest.
    pub end_ms: i64,
    /// Distance between evaluation times; at least 1, and without meaning where start equals end.
    pub step_ms: i64,
}

impl Grid {
    /// One evaluation time.
    #[must_use]
    pub fn instant(t_ms: i64) -> Self {
        Self { start_ms: t_ms, end_ms: t_ms, step_ms: 1 }
    }

    /// How many evaluation times there are.
    #[must_use]
    #[inline]
    pub fn steps(&self) -> usize {
        if self.end_ms < self.start_ms {
            return 0;
        }
        (self.end_ms.abs_diff(self.start_ms) / self.step_ms.max(1) as u64) as usize + 1
    }

    /// The evaluation time of a step.
    #[must_use]
    #[inline]
    pub fn time(&self, step: usize) -> i64 {
        self.start_ms + self.step_ms * step as i64
    }
}

/// The mark of a step without a value: the stale marker, which no evaluation yields.
pub const ABSENT: f64 = STALE_NAN;

/// Whether a step of a float column holds no float.
#[must_use]
#[inline]
pub fn is_absent(value: f64) -> bool {
    tricord_model::is_stale(value)
}

/// A series over the steps of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The series' labels.
    pub labels: Labels,
    /// With delayed name removal: whether `__name__` goes when the query ends.
    pub drop_name: bool,
    /// One float per step, [`ABSENT`] where there is none.
    pub floats: Vec<f64>,
    /// The steps that hold a histogram, ascending; their float is [`ABSENT`].
    pub histograms: Vec<(u32, Arc<FloatHistogram>)>,
}

impl Column {
    /// Whether no step has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.floats.iter().all(|v| is_absent(*v))
    }

    /// The histogram at a step.
    #[must_use]
    pub fn histogram_at(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let found = self.histograms.binary_search_by_key(&step, |(at, _)| *at as usize).ok()?;
        Some(&self.histograms[found].1)
    }
}

/// What an expression yields over a grid.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// One number per step.
    Scalar(Vec<f64>),
    /// A text.
    String(String),
    /// Series over the steps.
    Vector(Vec<Column>),
    /// Raw samples of a range selector or subquery at the top of an instant query.
    Matrix(Vec<(Labels, tricord_model::Points)>),
}

/// Notes on an answer that is nevertheless given, in the texts of Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Annotations {
    /// The answer may be wrong.
    pub warnings: std::collections::BTreeSet<String>,
    /// The query may not mean what its writer thinks.
    pub infos: std::collections::BTreeSet<String>,
}

impl Annotations {
    /// Adds another set of notes.
    pub fn merge(&mut self, other: Self) {
        self.warnings.extend(other.warnings);
        self.infos.extend(other.infos);
    }

    /// The notes with at most `max` of each kind and, as Prometheus has it, a count of those left out.
    #[must_use]
    pub fn limited(self, max: usize) -> Self {
        let limit = |texts: std::collections::BTreeSet<String>, kind: &str| {
            let more = texts.len().saturating_sub(max);
            let rest = (more > 0).then(|| format!("{more} more {kind} annotations omitted"));
            texts.into_iter().take(max).chain(rest).collect()
        };
        Self { warnings: limit(self.warnings, "warning"), infos: limit(self.infos, "info") }
    }
}
