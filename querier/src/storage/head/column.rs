//! The samples of one series in one window, in the order of the log.

use std::sync::Arc;

use tricord_model::{Exemplar, FloatHistogram, Points, Sample, Value};

use super::stream::Stream;

/// Samples as they arrived: times may go back, and may repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    /// Times as offsets from the window's start, in milliseconds, and floats; 0 where a histogram is.
    floats: Stream,
    /// What few series have.
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Debug, Default)]
struct Rest {
    /// Histograms with their places.
    histograms: Vec<(u32, Arc<FloatHistogram>)>,
    /// Start timestamps where they change, with their places: they repeat until a counter is reset. Before the first one
    /// none is known.
    starts: Vec<(u32, i64)>,
    exemplars: Vec<Exemplar>,
}

impl Column {
    /// Appends a sample; answers the bytes that it takes.
    #[inline]
    pub(crate) fn push(&mut self, window_ms: i64, sample: &Sample) -> usize {
        let before = self.floats.heap_bytes();
        let mut bytes = 0;
        let value = match &sample.value {
            Value::Float(value) if sample.start_ms == 0 && self.rest.is_none() => *value,
            _ => {
                bytes += self.push_rest(sample);
                if let Value::Float(value) = sample.value { value } else { 0.0 }
            }
        };
        self.floats.push((sample.t_ms - window_ms) as u32, value);
        bytes + self.floats.heap_bytes() - before
    }

    /// Appends a float without a start timestamp; answers the bytes that it takes.
    #[inline]
    pub(crate) fn push_float(&mut self, window_ms: i64, t_ms: i64, value: f64) -> usize {
        if self.rest.is_some() {
            return self.push(window_ms, &Sample::float(t_ms, value));
        }
        let before = self.floats.heap_bytes();
        self.floats.push((t_ms - window_ms) as u32, value);
        self.floats.heap_bytes() - before
    }

    /// Notes what a sample has beside a float.
    fn push_rest(&mut self, sample: &Sample) -> usize {
        let at = self.floats.len();
        let rest = self.rest.get_or_insert_default();
        let mut bytes = 0;
        if let Value::Histogram(histogram) = &sample.value {
            bytes += histogram_bytes(histogram);
            rest.histograms.push((at as u32, Arc::clone(histogram)));
        }
        if sample.start_ms != rest.starts.last().map_or(0, |(_, start_ms)| *start_ms) {
            rest.starts.push((at as u32, sample.start_ms));
            bytes += size_of::<(u32, i64)>();
        }
        bytes
    }

    /// Appends an exemplar; answers about how many bytes it takes.
    pub(crate) fn push_exemplar(&mut self, exemplar: Exemplar) -> usize {
        let bytes = exemplar_bytes(&exemplar);
        self.rest.get_or_insert_default().exemplars.push(exemplar);
        bytes
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        self.floats.len()
    }

    /// About how many bytes it takes beside the struct itself: what its pushes have answered.
    pub(crate) fn bytes(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| {
            rest.histograms.iter().map(|(_, one)| histogram_bytes(one)).sum::<usize>()
                + rest.starts.len() * size_of::<(u32, i64)>()
                + rest.exemplars.iter().map(exemplar_bytes).sum::<usize>()
        });
        self.floats.heap_bytes() + rest
    }

    /// The column without the samples and exemplars between two times, both included, in the order of arrival; `None`
    /// where there are none.
    pub(crate) fn without(&self, window_ms: i64, from_ms: i64, until_ms: i64) -> Option<Self> {
        let goes = |t_ms: i64| (from_ms..=until_ms).contains(&t_ms);
        let mut kept = Self::default();
        let mut at = 0;
        self.floats.read(|offset, value| {
            let t_ms = window_ms + i64::from(offset);
            if !goes(t_ms) {
                kept.push(window_ms, &self.sample(t_ms, at, value));
            }
            at += 1;
            true
        });
        for exemplar in self.exemplars().iter().filter(|exemplar| !goes(exemplar.t_ms)) {
            kept.push_exemplar(exemplar.clone());
        }
        let is_same = kept.len() == self.len() && kept.exemplars().len() == self.exemplars().len();
        (!is_same).then_some(kept)
    }

    /// The exemplars in the order of the log.
    pub(crate) fn exemplars(&self) -> &[Exemplar] {
        self.rest.as_ref().map_or(&[], |rest| &rest.exemplars)
    }

    /// Whether any sample is a histogram.
    pub(crate) fn has_histograms(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.histograms.is_empty())
    }

    /// The offsets of the earliest and of the latest sample.
    pub(crate) fn span(&self) -> Option<(u32, u32)> {
        let mut span = None;
        self.floats.read(|offset, _| {
            let (min, max) = span.unwrap_or((offset, offset));
            span = Some((offset.min(min), offset.max(max)));
            true
        });
        span
    }

    /// The samples in `[from_ms, until_ms]`, sorted; of several for one time the first that arrived stays.
    pub(crate) fn points(&self, window_ms: i64, from_ms: i64, until_ms: i64) -> Points {
        if self.floats.is_unsorted() {
            return self.unsorted_points(window_ms, from_ms, until_ms);
        }
        let mut points = Points::default();
        points.t_ms.reserve_exact(self.floats.len());
        points.floats.reserve_exact(self.floats.len());
        let mut from = 0;
        self.floats.read(|offset, value| {
            let t_ms = window_ms + i64::from(offset);
            if t_ms > until_ms {
                return false;
            }
            if t_ms < from_ms {
                from += 1;
            } else {
                points.t_ms.push(t_ms);
                points.floats.push(value);
            }
            true
        });
        if let Some(rest) = &self.rest {
            let to = from + points.t_ms.len();
            let places = rest.histograms.iter().filter(|(at, _)| (from..to).contains(&(*at as usize)));
            points.histograms = places.map(|(at, one)| (at - from as u32, Arc::clone(one))).collect();
            if !rest.starts.is_empty() {
                points.start_ms = (from..to).map(|at| rest.start_at(at)).collect();
            }
        }
        points
    }

    fn unsorted_points(&self, window_ms: i64, from_ms: i64, until_ms: i64) -> Points {
        let mut samples = Vec::with_capacity(self.floats.len());
        self.floats.read(|offset, value| {
            samples.push((offset, samples.len(), value));
            true
        });
        // By time, and by place where it is equal.
        samples.sort_unstable_by_key(|(offset, at, _)| (*offset, *at));
        samples.dedup_by_key(|(offset, ..)| *offset);
        let sample =
            |(offset, at, value): (u32, usize, f64)| self.sample(window_ms + i64::from(offset), at, value);
        let within = |sample: &Sample| (from_ms..=until_ms).contains(&sample.t_ms);
        samples.into_iter().map(sample).filter(within).collect()
    }

    fn sample(&self, t_ms: i64, at: usize, float: f64) -> Sample {
        let Some(rest) = &self.rest else { return Sample::float(t_ms, float) };
        let place = rest.histograms.binary_search_by_key(&at, |(place, _)| *place as usize);
        let value = match place {
            Ok(place) => Value::Histogram(Arc::clone(&rest.histograms[place].1)),
            Err(_) => Value::Float(float),
        };
        Sample { t_ms, start_ms: rest.start_at(at), value }
    }
}

impl Rest {
    /// The start timestamp of the sample at a place; 0 where none is known.
    fn start_at(&self, at: usize) -> i64 {
        let after = self.starts.partition_point(|(place, _)| *place as usize <= at);
        after.checked_sub(1).and_then(|last| self.starts.get(last)).map_or(0, |(_, start_ms)| *start_ms)
    }
}

fn exemplar_bytes(exemplar: &Exemplar) -> usize {
    96 + exemplar.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
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
            column.push(1000, &Sample::float(t, v));
        }
        let points = column.points(1000, 1000, 1030);
        assert_eq!((points.t_ms, points.floats), (vec![1010, 1020, 1030], vec![1.0, 2.0, 3.0]));
        assert_eq!(column.points(1000, 1011, 1029).t_ms, [1020]);
        assert_eq!(column.span(), Some((10, 30)));
    }

    #[test]
    fn a_range_is_cut_out_of_ascending_samples() {
        let mut column = Column::default();
        (0..10).for_each(|n| {
            let start_ms = if n == 7 { 3 } else { 0 };
            column.push(0, &Sample { t_ms: n * 10, start_ms, value: Value::Float(n as f64) });
        });
        let points = column.points(0, 65, 80);
        assert_eq!((points.t_ms, points.floats, points.start_ms), (vec![70, 80], vec![7.0, 8.0], vec![3, 0]));
        assert_eq!(column.points(0, 91, 200), Points::default());
        assert_eq!(Column::default().span(), None);
    }

    #[test]
    fn starts_are_kept_where_they_change() {
        let starts = [0, 5, 5, 5, 0, 0, 9, 9];
        let mut column = Column::default();
        for (at, start_ms) in starts.into_iter().enumerate() {
            column.push(0, &Sample { start_ms, ..Sample::float(at as i64, 1.0) });
        }
        assert_eq!(column.points(0, 0, 7).start_ms, starts);
        assert_eq!(column.points(0, 3, 6).start_ms, starts[3..7]);
        assert_eq!(column.rest.as_ref().map(|rest| rest.starts.len()), Some(3));
    }

    #[test]
    fn histograms_and_starts_move_with_their_samples() {
        let histogram = Arc::new(FloatHistogram { count: 2.0, ..FloatHistogram::default() });
        let mut column = Column::default();
        column.push(0, &Sample { t_ms: 20, start_ms: 5, value: Value::Histogram(Arc::clone(&histogram)) });
        column.push(0, &Sample::float(10, 1.0));
        let points = column.points(0, 0, 100);
        assert_eq!(points.histograms, [(1, histogram)]);
        assert_eq!(points.start_ms, [0, 5]);
    }

    #[test]
    fn a_delete_leaves_the_others_as_they_came() {
        let histogram = Arc::new(FloatHistogram { count: 2.0, ..FloatHistogram::default() });
        let (mut column, mut bytes) = (Column::default(), 0);
        for (t_ms, start_ms) in [(10, 0), (30, 5), (20, 5), (30, 7), (40, 7)] {
            let value =
                if t_ms == 20 { Value::Histogram(Arc::clone(&histogram)) } else { Value::Float(t_ms as f64) };
            bytes += column.push(0, &Sample { t_ms, start_ms, value });
        }
        for t_ms in [12, 31] {
            bytes += column.push_exemplar(Exemplar { labels: Default::default(), t_ms, value: 1.0 });
        }
        assert_eq!(column.bytes(), bytes);
        assert!(column.without(0, 41, 90).is_none() && column.without(0, 13, 19).is_none());
        let kept = column.without(0, 25, 35).unwrap();
        let points = kept.points(0, 0, 100);
        assert_eq!((&points.t_ms[..], &points.start_ms[..]), (&[10, 20, 40][..], &[0, 5, 7][..]));
        assert_eq!((points.histograms, kept.exemplars().len()), (vec![(1, histogram)], 1));
        let none = column.without(0, 0, 100).unwrap();
        assert_eq!((none.len(), none.exemplars().len(), none.bytes()), (0, 0, 0));
    }
}
