//! Samples and what comes with them: values, exemplars, metadata.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{FloatHistogram, Labels};

/// The NaN that marks a series as stale, by its bits: Prometheus' `0x7ff0000000000002`.
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether a float is the stale marker (any other NaN is a value).
#[must_use]
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}

/// What a sample holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A float; the stale marker included.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One value of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When the counter behind the sample started, in milliseconds; 0 where unknown.
    pub start_ms: i64,
    /// The value.
    pub value: Value,
}

impl Sample {
    /// A float sample without a start timestamp.
    #[must_use]
    pub fn float(t_ms: i64, value: f64) -> Self {
        Self { t_ms, start_ms: 0, value: Value::Float(value) }
    }
}

/// The samples of one series in columns, ascending by time, at most one per millisecond.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// Milliseconds since the Unix epoch.
    pub t_ms: Vec<i64>,
    /// The floats; 0 at the places that hold a histogram.
    pub floats: Vec<f64>,
    /// Places in the columns that hold a histogram, ascending.
    pub histograms: Vec<(u32, Arc<FloatHistogram>)>,
    /// Start timestamps in milliseconds: empty when none is known, else one per sample with 0 for unknown.
    pub start_ms: Vec<i64>,
}

impl Points {
    /// How many samples there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.t_ms.len()
    }

    /// Whether there is no sample.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.t_ms.is_empty()
    }

    /// Appends a sample, which must be later than the last.
    pub fn push(&mut self, sample: Sample) {
        let at = self.t_ms.len();
        self.t_ms.push(sample.t_ms);
        match sample.value {
            Value::Float(value) => self.floats.push(value),
            Value::Histogram(histogram) => {
                self.floats.push(0.0);
                self.histograms.push((at as u32, histogram));
            }
        }
        if sample.start_ms != 0 || !self.start_ms.is_empty() {
            self.start_ms.resize(at, 0);
            self.start_ms.push(sample.start_ms);
        }
    }

    /// The sample at a place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Sample> {
        let t_ms = *self.t_ms.get(at)?;
        let start_ms = self.start_ms.get(at).copied().unwrap_or(0);
        let value = match self.histogram_at(at) {
            Some(histogram) => Value::Histogram(Arc::clone(histogram)),
            None => Value::Float(self.floats[at]),
        };
        Some(Sample { t_ms, start_ms, value })
    }

    /// The histogram at a place, where there is one.
    #[must_use]
    #[inline]
    pub fn histogram_at(&self, at: usize) -> Option<&Arc<FloatHistogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let found = self.histograms.binary_search_by_key(&at, |(place, _)| *place as usize).ok()?;
        Some(&self.histograms[found].1)
    }

    /// The samples in order of time.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

impl FromIterator<Sample> for Points {
    fn from_iter<T: IntoIterator<Item = Sample>>(samples: T) -> Self {
        let mut points = Self::default();
        samples.into_iter().for_each(|sample| points.push(sample));
        points
    }
}

/// An example of what a sample counted, with the labels that lead to it (`trace_id`, `span_id`, …).
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The exemplar's own labels.
    pub labels: Labels,
    /// Milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// The exemplified value.
    pub value: f64,
}

/// The type of a metric family, as in OpenMetrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum MetricKind {
    /// Not told.
    #[default]
    Unknown = 0,
    /// Only goes up, or resets.
    Counter = 1,
    /// Goes both ways.
    Gauge = 2,
    /// Classic or native histogram.
    Histogram = 3,
    /// Histogram of a state rather than of events.
    #[serde(rename = "gaugehistogram")]
    GaugeHistogram = 4,
    /// Quantiles computed by the client.
    Summary = 5,
    /// Constant 1 with labels that inform.
    Info = 6,
    /// One of several named states.
    #[serde(rename = "stateset")]
    StateSet = 7,
}

impl MetricKind {
    /// The kind with this number (the numbers are those of remote write 2.0).
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Counter,
            2 => Self::Gauge,
            3 => Self::Histogram,
            4 => Self::GaugeHistogram,
            5 => Self::Summary,
            6 => Self::Info,
            7 => Self::StateSet,
            _ => Self::Unknown,
        }
    }

    /// The word for the kind in the exposition format and in the HTTP API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// What is known of a metric family beside its series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetricMetadata {
    /// The type.
    pub kind: MetricKind,
    /// The unit, or empty.
    pub unit: String,
    /// The help text, or empty.
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stale_marker_is_stale() {
        assert!(is_stale(STALE_NAN));
        assert!(!is_stale(f64::NAN));
    }

    #[test]
    fn start_timestamps_cost_nothing_until_one_is_known() {
        let mut points: Points = [Sample::float(1, 1.0)].into_iter().collect();
        assert!(points.start_ms.is_empty());
        points.push(Sample { t_ms: 2, start_ms: 1, value: Value::Float(2.0) });
        assert_eq!(points.start_ms, [0, 1]);
        assert_eq!(points.get(1).map(|s| s.start_ms), Some(1));
    }

    #[test]
    fn histograms_keep_their_place_between_floats() {
        let histogram = Arc::new(FloatHistogram { count: 3.0, ..FloatHistogram::default() });
        let samples = [
            Sample::float(1, 1.0),
            Sample { t_ms: 2, start_ms: 0, value: Value::Histogram(histogram) },
            Sample::float(3, 3.0),
        ];
        let points: Points = samples.iter().cloned().collect();
        assert_eq!(points.iter().collect::<Vec<_>>(), samples);
    }
}
