//! Adding up increments (OTLP delta temporality) into totals.

use std::collections::BTreeMap;
use std::sync::Arc;

use tricord_model::{BucketSpan, CounterResetHint, FloatHistogram, Sample, Value, is_stale};

use super::registry::DeltaState;

/// What became of an increment.
pub(super) enum Added {
    /// The resulting total, as the sample to store.
    Total(Sample),
    /// The increment was counted before.
    Duplicate,
}

/// Adds an increment to a total. One that does not end after the last one was counted before.
pub(super) fn add(state: &mut Option<DeltaState>, increment: &Sample) -> Added {
    let Sample { t_ms, start_ms, value } = increment;
    if state.as_ref().is_some_and(|state| *t_ms <= state.end_ms) {
        return Added::Duplicate;
    }
    let next = match (state.take(), value) {
        // A marker that there is no value adds nothing.
        (Some(before), Value::Float(v)) if is_stale(*v) => {
            *state = Some(DeltaState { end_ms: *t_ms, ..before.clone() });
            return Added::Total(Sample { t_ms: *t_ms, start_ms: before.start_ms, value: value.clone() });
        }
        (None, Value::Float(v)) if is_stale(*v) => return Added::Total(increment.clone()),
        (Some(before), value) => match sum(&before.total, value) {
            Some(total) => DeltaState { start_ms: before.start_ms, end_ms: *t_ms, total },
            // Another layout of buckets begins a new total.
            None => DeltaState { start_ms: *start_ms, end_ms: *t_ms, total: value.clone() },
        },
        (None, value) => DeltaState { start_ms: *start_ms, end_ms: *t_ms, total: value.clone() },
    };
    let total = Sample { t_ms: *t_ms, start_ms: next.start_ms, value: next.total.clone() };
    *state = Some(next);
    Added::Total(total)
}

/// The state that the totals of an entry leave behind; `None` when it holds none but stale markers.
pub(super) fn state_after(totals: &[Sample]) -> Option<DeltaState> {
    let end_ms = totals.last()?.t_ms;
    let last = totals.iter().rev().find(|total| !matches!(total.value, Value::Float(v) if is_stale(v)))?;
    Some(DeltaState { start_ms: last.start_ms, end_ms, total: last.value.clone() })
}

fn sum(total: &Value, increment: &Value) -> Option<Value> {
    match (total, increment) {
        (Value::Float(total), Value::Float(increment)) => Some(Value::Float(total + increment)),
        (Value::Histogram(total), Value::Histogram(increment)) => {
            add_histograms(total, increment).map(|sum| Value::Histogram(Arc::new(sum)))
        }
        _ => None,
    }
}

/// The sum of two histograms of one layout.
fn add_histograms(left: &FloatHistogram, right: &FloatHistogram) -> Option<FloatHistogram> {
    let same = left.schema == right.schema
        && left.zero_threshold.to_bits() == right.zero_threshold.to_bits()
        && left.custom_values == right.custom_values;
    same.then_some(())?;
    let (positive_spans, positive_buckets) = add_buckets(
        (&left.positive_spans, &left.positive_buckets),
        (&right.positive_spans, &right.positive_buckets),
    );
    let (negative_spans, negative_buckets) = add_buckets(
        (&left.negative_spans, &left.negative_buckets),
        (&right.negative_spans, &right.negative_buckets),
    );
    Some(FloatHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: left.schema,
        zero_threshold: left.zero_threshold,
        zero_count: left.zero_count + right.zero_count,
        count: left.count + right.count,
        sum: left.sum + right.sum,
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values: left.custom_values.clone(),
    })
}

type Buckets<'a> = (&'a [BucketSpan], &'a [f64]);

fn add_buckets(left: Buckets<'_>, right: Buckets<'_>) -> (Vec<BucketSpan>, Vec<f64>) {
    if left.0 == right.0 && left.1.len() == right.1.len() {
        return (left.0.to_vec(), left.1.iter().zip(right.1).map(|(left, right)| left + right).collect());
    }
    let mut by_index = BTreeMap::<i64, f64>::new();
    for (spans, buckets) in [left, right] {
        let mut index = 0i64;
        let mut populations = buckets.iter();
        for span in spans {
            index += i64::from(span.offset);
            for population in populations.by_ref().take(span.length as usize) {
                *by_index.entry(index).or_insert(0.0) += population;
                index += 1;
            }
        }
    }
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut end = 0i64;
    for index in by_index.keys() {
        match spans.last_mut() {
            Some(span) if *index == end => span.length += 1,
            _ => spans.push(BucketSpan { offset: (index - end) as i32, length: 1 }),
        }
        end = index + 1;
    }
    (spans, by_index.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(sample: &Added) -> Option<(i64, i64, f64)> {
        match sample {
            Added::Total(Sample { t_ms, start_ms, value: Value::Float(value) }) => {
                Some((*start_ms, *t_ms, *value))
            }
            _ => None,
        }
    }

    #[test]
    fn increments_add_up_once() {
        let point = |start_ms, t_ms, value| Sample { t_ms, start_ms, value: Value::Float(value) };
        let mut state = None;
        assert_eq!(float(&add(&mut state, &point(10, 20, 1.0))), Some((10, 20, 1.0)));
        assert_eq!(float(&add(&mut state, &point(20, 30, 2.5))), Some((10, 30, 3.5)));
        assert!(matches!(add(&mut state, &point(20, 30, 2.5)), Added::Duplicate));
        assert!(matches!(add(&mut state, &point(0, 25, 9.0)), Added::Duplicate));
        assert_eq!(float(&add(&mut state, &point(30, 40, 1.0))), Some((10, 40, 4.5)));
    }

    #[test]
    fn histograms_of_other_spans_are_merged_bucket_by_bucket() {
        let histogram = |offset: i32, buckets: &[f64]| FloatHistogram {
            count: buckets.iter().sum(),
            positive_spans: vec![BucketSpan { offset, length: buckets.len() as u32 }],
            positive_buckets: buckets.to_vec(),
            ..FloatHistogram::default()
        };
        let sum = add_histograms(&histogram(-2, &[1.0, 2.0]), &histogram(1, &[4.0])).unwrap();
        assert_eq!(sum.positive_buckets, [1.0, 2.0, 4.0]);
        let spans = [BucketSpan { offset: -2, length: 2 }, BucketSpan { offset: 1, length: 1 }];
        assert_eq!((sum.positive_spans.as_slice(), sum.count), (&spans[..], 7.0));
        let other = FloatHistogram { schema: 3, ..FloatHistogram::default() };
        assert!(add_histograms(&sum, &other).is_none());
    }
}
