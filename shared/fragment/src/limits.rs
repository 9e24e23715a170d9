//! Bounds that travel with a fragment, and the counts that come back.

use serde::{Deserialize, Serialize};
use tricord_promql::eval::StepSamples;

/// What a fragment may use on one data node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryLimits {
    /// Raw samples read.
    pub max_samples: u64,
    /// Series matched.
    pub max_series: u64,
    /// Bytes of an encoded partial.
    pub max_bytes: u64,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { max_samples: 50_000_000, max_series: 2_000_000, max_bytes: 512 << 20 }
    }
}

/// What reading would cost, as the index knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Series that match.
    pub series: u64,
    /// Their samples in the range, if they have as many as others.
    pub samples: u64,
}

impl Estimate {
    /// Adds what other shards would cost.
    pub fn add(&mut self, other: &Self) {
        self.series += other.series;
        self.samples += other.samples;
    }
}

/// What a fragment has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentStats {
    /// Series matched by all selectors.
    pub series: u64,
    /// Raw samples read.
    pub samples: u64,
    /// Spans looked at.
    pub spans: u64,
    /// Stored bytes decoded.
    pub bytes: u64,
    /// Time spent on the data node, in microseconds.
    pub micros: u64,
    /// The most samples held at once.
    #[serde(default)]
    pub peak_samples: u64,
    /// Samples by the steps of the fragment's grid, where it asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<StepSamples>,
}

impl FragmentStats {
    /// Adds another fragment's costs but for the steps, which lie on that fragment's own grid. Fragments run at the
    /// same time, so what they hold adds up.
    pub fn add(&mut self, other: &Self) {
        self.series += other.series;
        self.samples += other.samples;
        self.spans += other.spans;
        self.bytes += other.bytes;
        self.micros += other.micros;
        self.peak_samples += other.peak_samples;
    }
}
