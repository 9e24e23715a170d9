//! The samples of one series in one window, in the order of the log.

use std::sync::Arc;

use tricord_model::{Exemplar, FloatHistogram, Points, Sample, Value};

/// Samples as they arrived: times may go back, and may repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    /// Times as offsets from the window's start, in milliseconds.
    offsets_ms: Vec<u32>,
    floats: Vec<f64>,
    histograms: Vec<(u32, Arc<FloatHistogram>)>,
    /// Empty until a start timestamp is known, then one per sample.
    start_ms: Vec<i64>,
    /// Whether times do not ascend strictly.
    unsorted: bool,
    pub(crate) exemplars: Vec<Exemplar>,
}

impl Column {
    /// Appends a sample; answers the bytes that it takes.
    pub(crate) fn push(&mut self, window_ms: i64, sample: Sample) -> usize {
        let at = self.offsets_ms.len();
        let offset = (sample.t_ms - window_ms) as u32;
        self.unsorted |= self.offsets_ms.last().is_some_and(|last| *last >= offset);
        self.offsets_ms.push(offset);
        let mut bytes = 12;
        match sample.value {
            Value::Float(value) => self.floats.push(value),
            Value::Histogram(histogram) => {
                self.floats.push(0.0);
                bytes += histogram_bytes(&histogram);
                self.histograms.push((at as u32, histogram));
            }
        }
        if sample.start_ms != 0 || !self.start_ms.is_empty() {
            self.start_ms.resize(at, 0);
            self.start_ms.push(sample.start_ms);
            bytes += 8;
        }
        bytes
    }

    /// How many samples arrived.
    pub(crate) fn len(&self) -> usize {
        self.offsets_ms.len()
    }

    /// Whether any sample is a histogram.
    pub(crate) fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    /// Whether the times of two columns are the same, so that they can be stored once.
    pub(crate) fn span(&self) -> Option<(u32, u32)> {
        let min = self.offsets_ms.iter().min()?;
        Some((*min, *self.offsets_ms.iter().max()?))
    }

    /// The samples in `[from_ms, until_ms]`, sorted; of several for one time the first that arrived stays.
    pub(crate) fn points(&self, window_ms: i64, from_ms: i64, until_ms: i64) -> Points {
        if !self.unsorted {
            return self.sorted_points(window_ms, from_ms, until_ms);
        }
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|at| self.offsets_ms[*at as usize]);
        order.dedup_by_key(|at| self.offsets_ms[*at as usize]);
        let samples = order.into_iter().map(|at| self.sample(window_ms, at as usize));
        samples.filter(|sample| (from_ms..=until_ms).contains(&sample.t_ms)).collect()
    }

    fn sorted_points(&self, window_ms: i64, from_ms: i64, until_ms: i64) -> Points {
        let time = |offset: &u32| window_ms + i64::from(*offset);
        let from = self.offsets_ms.partition_point(|offset| time(offset) < from_ms);
        let to = self.offsets_ms.partition_point(|offset| time(offset) <= until_ms).max(from);
        let places = self.histograms.iter().filter(|(at, _)| (from..to).contains(&(*at as usize)));
        Points {
            t_ms: self.offsets_ms[from..to].iter().map(time).collect(),
            floats: self.floats[from..to].to_vec(),
            histograms: places.map(|(at, histogram)| (at - from as u32, Arc::clone(histogram))).collect(),
            start_ms: self.start_ms.get(from..to).map(<[i64]>::to_vec).unwrap_or_default(),
        }
    }

    fn sample(&self, window_ms: i64, at: usize) -> Sample {
        let place = self.histograms.binary_search_by_key(&at, |(place, _)| *place as usize);
        let value = match place {
            Ok(place) => Value::Histogram(Arc::clone(&self.histograms[place].1)),
            Err(_) => Value::Float(self.floats[at]),
        };
        let start_ms = self.start_ms.get(at).copied().unwrap_or(0);
        Sample { t_ms: window_ms + i64::from(self.offsets_ms[at]), start_ms, value }
    }
}

fn histogram_bytes(histogram: &FloatHistogram) -> usize {
    let buckets =
        histogram.positive_buckets.len() + histogram.negative_buckets.len() + histogram.custom_values.len();
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    192 + 8 * (buckets + spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_values_for_one_time_stays() {
        let mut column = Column::default();
        for (t, v) in [(1030, 3.0), (1010, 1.0), (1030, 9.0), (1020, 2.0)] {
            column.push(1000, Sample::float(t, v));
        }
        let points = column.points(1000, 1000, 1030);
        assert_eq!((points.t_ms, points.floats), (vec![1010, 1020, 1030], vec![1.0, 2.0, 3.0]));
        assert_eq!(column.points(1000, 1011, 1029).t_ms, [1020]);
    }

    #[test]
    fn histograms_and_starts_move_with_their_samples() {
        let histogram = Arc::new(FloatHistogram { count: 2.0, ..FloatHistogram::default() });
        let mut column = Column::default();
        column.push(0, Sample { t_ms: 20, start_ms: 5, value: Value::Histogram(Arc::clone(&histogram)) });
        column.push(0, Sample::float(10, 1.0));
        let points = column.points(0, 0, 100);
        assert_eq!(points.histograms, [(1, histogram)]);
        assert_eq!(points.start_ms, [0, 5]);
    }
}
