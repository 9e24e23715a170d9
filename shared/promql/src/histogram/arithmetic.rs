//! Sums, differences and multiples of histograms.

use tricord_model::{CounterResetHint, FloatHistogram};

use super::buckets::{coarser_index, exponential_bound, negative_bucket, positive_bucket};
use super::{Sparse, compact, dense, sparse};
use crate::kernels::summation::Compensated;

/// One histogram has exponential buckets, the other custom ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// What had to be done to combine two histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Combined {
    /// One was a counter after a reset, the other one without.
    pub(crate) reset_collision: bool,
    /// Custom bounds differed and were cut to those in common.
    pub(crate) bounds_reconciled: bool,
}

/// Multiplies everything.
pub(crate) fn scale(histogram: &mut FloatHistogram, factor: f64) {
    histogram.zero_count *= factor;
    histogram.count *= factor;
    histogram.sum *= factor;
    histogram.positive_buckets.iter_mut().for_each(|population| *population *= factor);
    histogram.negative_buckets.iter_mut().for_each(|population| *population *= factor);
    if factor < 0.0 {
        histogram.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Divides everything; division by zero leaves no buckets.
pub(crate) fn divide(histogram: &mut FloatHistogram, divisor: f64) {
    histogram.zero_count /= divisor;
    histogram.count /= divisor;
    histogram.sum /= divisor;
    if divisor == 0.0 {
        histogram.positive_buckets.clear();
        histogram.negative_buckets.clear();
        histogram.positive_spans.clear();
        histogram.negative_spans.clear();
        return;
    }
    histogram.positive_buckets.iter_mut().for_each(|population| *population /= divisor);
    histogram.negative_buckets.iter_mut().for_each(|population| *population /= divisor);
    if divisor < 0.0 {
        histogram.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Buckets of a coarser schema.
fn reduce(buckets: Sparse, from: i32, to: i32) -> Sparse {
    if from == to {
        return buckets;
    }
    let mut out: Sparse = Vec::with_capacity(buckets.len());
    for (index, population) in buckets {
        let index = coarser_index(index, from, to);
        match out.last_mut() {
            Some((last, sum)) if *last == index => *sum += population,
            _ => out.push((index, population)),
        }
    }
    out
}

/// A copy with a coarser schema; the schema must not be finer.
pub(crate) fn to_schema(histogram: &FloatHistogram, schema: i32) -> FloatHistogram {
    let mut copy = histogram.clone();
    if schema == histogram.schema || histogram.uses_custom_buckets() {
        return copy;
    }
    let reduced =
        |spans: &[_], buckets: &[f64]| dense(&reduce(sparse(spans, buckets), histogram.schema, schema));
    (copy.positive_spans, copy.positive_buckets) =
        reduced(&histogram.positive_spans, &histogram.positive_buckets);
    (copy.negative_spans, copy.negative_buckets) =
        reduced(&histogram.negative_spans, &histogram.negative_buckets);
    copy.schema = schema;
    copy.counter_reset_hint = CounterResetHint::Unknown;
    copy
}

/// Adds `other` to `sum`.
pub(crate) fn add(sum: &mut FloatHistogram, other: &FloatHistogram) -> Result<Combined, Incompatible> {
    combine(sum, other, 1.0)
}

/// Subtracts `other` from `difference`.
pub(crate) fn subtract(
    difference: &mut FloatHistogram,
    other: &FloatHistogram,
) -> Result<Combined, Incompatible> {
    combine(difference, other, -1.0)
}

fn combine(target: &mut FloatHistogram, other: &FloatHistogram, sign: f64) -> Result<Combined, Incompatible> {
    if target.uses_custom_buckets() != other.uses_custom_buckets() {
        return Err(Incompatible);
    }
    let (hint, reset_collision) = combine_hints(target.counter_reset_hint, other.counter_reset_hint);
    target.counter_reset_hint = hint;
    if !target.uses_custom_buckets() {
        let other_zero = reconcile_zero_buckets(target, other);
        target.zero_count += sign * other_zero;
    }
    target.count += sign * other.count;
    target.sum += sign * other.sum;
    if target.uses_custom_buckets() {
        let bounds_reconciled = combine_custom(target, other, sign);
        return Ok(Combined { reset_collision, bounds_reconciled });
    }
    let schema = target.schema.min(other.schema);
    let side = |own: Sparse, others: Sparse| {
        let own = reduce(own, target.schema, schema);
        let mut others = reduce(others, other.schema, schema);
        // What lies within the zero bucket has been counted there.
        let inside =
            others.iter().take_while(|(i, _)| exponential_bound(*i, schema) <= target.zero_threshold).count();
        others.drain(..inside);
        dense(&merge(own, others, sign))
    };
    let positive = side(
        sparse(&target.positive_spans, &target.positive_buckets),
        sparse(&other.positive_spans, &other.positive_buckets),
    );
    let negative = side(
        sparse(&target.negative_spans, &target.negative_buckets),
        sparse(&other.negative_spans, &other.negative_buckets),
    );
    (target.positive_spans, target.positive_buckets) = positive;
    (target.negative_spans, target.negative_buckets) = negative;
    target.schema = schema;
    Ok(Combined { reset_collision, bounds_reconciled: false })
}

/// The hint of a combination, and whether a reset met the lack of one.
pub(crate) fn combine_hints(a: CounterResetHint, b: CounterResetHint) -> (CounterResetHint, bool) {
    use CounterResetHint as H;
    match (a, b) {
        (a, b) if a == b => (a, false),
        (H::Gauge, _) | (_, H::Gauge) => (H::Gauge, false),
        (H::Unknown, _) | (_, H::Unknown) => (H::Unknown, false),
        _ => (H::Unknown, true),
    }
}

fn merge(own: Sparse, others: Sparse, sign: f64) -> Sparse {
    let mut out: Sparse = Vec::with_capacity(own.len() + others.len());
    let (mut own, mut others) = (own.into_iter().peekable(), others.into_iter().peekable());
    loop {
        match (own.peek().copied(), others.peek().copied()) {
            (Some((i, a)), Some((j, b))) if i == j => {
                out.push((i, a + sign * b));
                own.next();
                others.next();
            }
            (Some((i, a)), other) if other.is_none_or(|(j, _)| i < j) => {
                out.push((i, a));
                own.next();
            }
            (_, Some((j, b))) => {
                out.push((j, sign * b));
                others.next();
            }
            (_, None) => return out,
        }
    }
}

/// The population of a wider zero bucket, and its width: it grows to the border of a bucket that it would split.
pub(crate) fn zero_count_within(histogram: &FloatHistogram, mut threshold: f64) -> (f64, f64) {
    if threshold == histogram.zero_threshold {
        return (histogram.zero_count, threshold);
    }
    let positive = sparse(&histogram.positive_spans, &histogram.positive_buckets);
    let negative = sparse(&histogram.negative_spans, &histogram.negative_buckets);
    'wider: loop {
        let mut count = Compensated { sum: histogram.zero_count, error: 0.0 };
        for (index, population) in &positive {
            let bucket = positive_bucket(*index, *population, histogram);
            if bucket.lower >= threshold {
                break;
            }
            count.add(*population);
            if bucket.upper > threshold {
                if *population != 0.0 {
                    threshold = bucket.upper;
                }
                break;
            }
        }
        for (index, population) in &negative {
            let bucket = negative_bucket(*index, *population, histogram);
            if bucket.upper <= -threshold {
                break;
            }
            count.add(*population);
            if bucket.lower < -threshold {
                if *population != 0.0 {
                    threshold = -bucket.lower;
                    continue 'wider;
                }
                break;
            }
        }
        return (count.sum, threshold);
    }
}

/// Empties the buckets that lie within the zero bucket.
fn trim_zero_bucket(histogram: &mut FloatHistogram) {
    let mut positive = sparse(&histogram.positive_spans, &histogram.positive_buckets);
    positive.retain(|(index, _)| positive_bucket(*index, 0.0, histogram).lower >= histogram.zero_threshold);
    let mut negative = sparse(&histogram.negative_spans, &histogram.negative_buckets);
    negative.retain(|(index, _)| negative_bucket(*index, 0.0, histogram).upper <= -histogram.zero_threshold);
    (histogram.positive_spans, histogram.positive_buckets) = dense(&positive);
    (histogram.negative_spans, histogram.negative_buckets) = dense(&negative);
    compact(histogram);
}

/// Widens the target's zero bucket until both have one width; returns the other's population of it.
fn reconcile_zero_buckets(target: &mut FloatHistogram, other: &FloatHistogram) -> f64 {
    let (mut other_count, mut other_threshold) = (other.zero_count, other.zero_threshold);
    while other_threshold != target.zero_threshold {
        if target.zero_threshold > other_threshold {
            (other_count, other_threshold) = zero_count_within(other, target.zero_threshold);
        }
        if other_threshold > target.zero_threshold {
            (target.zero_count, target.zero_threshold) = zero_count_within(target, other_threshold);
            trim_zero_bucket(target);
        }
        if other_threshold.is_nan() || target.zero_threshold.is_nan() {
            break;
        }
    }
    other_count
}

/// Adds custom buckets; returns whether the bounds had to be cut to those in common.
fn combine_custom(target: &mut FloatHistogram, other: &FloatHistogram, sign: f64) -> bool {
    let own = sparse(&target.positive_spans, &target.positive_buckets);
    let others = sparse(&other.positive_spans, &other.positive_buckets);
    if target.custom_values == other.custom_values {
        (target.positive_spans, target.positive_buckets) = dense(&merge(own, others, sign));
        return false;
    }
    let common: Vec<f64> =
        target.custom_values.iter().filter(|bound| other.custom_values.contains(bound)).copied().collect();
    let mut totals = vec![Compensated::default(); common.len() + 1];
    for (buckets, bounds, sign) in [(own, &target.custom_values, 1.0), (others, &other.custom_values, sign)] {
        for (index, population) in buckets {
            let bound = usize::try_from(index).ok().and_then(|at| bounds.get(at));
            let at = bound.map_or(common.len(), |bound| common.partition_point(|c| c < bound));
            totals[at].add(sign * population);
        }
    }
    let kept: Sparse = totals
        .iter()
        .enumerate()
        .filter(|(_, total)| total.sum != 0.0 || total.error != 0.0)
        .map(|(at, total)| (at as i32, total.sum))
        .collect();
    (target.positive_spans, target.positive_buckets) = dense(&kept);
    target.custom_values = common;
    true
}

#[cfg(test)]
mod tests {
    use tricord_model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA};

    use super::*;

    fn exponential(schema: i32, offset: i32, buckets: &[f64]) -> FloatHistogram {
        let total = buckets.iter().sum();
        FloatHistogram {
            schema,
            count: total,
            sum: total,
            positive_spans: vec![BucketSpan { offset, length: buckets.len() as u32 }],
            positive_buckets: buckets.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn the_coarser_schema_wins() {
        let mut sum = exponential(1, 1, &[1.0, 2.0, 3.0]);
        assert_eq!(add(&mut sum, &exponential(0, 1, &[10.0])), Ok(Combined::default()));
        assert_eq!((sum.schema, sum.positive_buckets), (0, vec![13.0, 3.0]));
    }

    #[test]
    fn a_wider_zero_bucket_swallows_buckets() {
        let mut sum = exponential(0, 0, &[1.0, 2.0, 4.0]);
        let wide =
            FloatHistogram { zero_threshold: 1.5, zero_count: 5.0, count: 5.0, ..FloatHistogram::default() };
        add(&mut sum, &wide).unwrap();
        assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 8.0));
        assert_eq!(sum.positive_buckets, [4.0]);
        assert_eq!(sum.positive_spans, [BucketSpan { offset: 2, length: 1 }]);
    }

    #[test]
    fn custom_bounds_are_cut_to_those_in_common() {
        let custom = |bounds: &[f64], buckets: &[f64]| FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: bounds.to_vec(),
            ..exponential(0, 0, buckets)
        };
        let mut sum = custom(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]);
        let combined = add(&mut sum, &custom(&[1.0, 3.0], &[10.0, 20.0, 30.0])).unwrap();
        assert!(combined.bounds_reconciled);
        assert_eq!(
            (sum.custom_values.clone(), sum.positive_buckets.clone()),
            (vec![1.0, 3.0], vec![11.0, 25.0, 34.0])
        );
        assert_eq!(add(&mut sum, &exponential(0, 0, &[1.0])), Err(Incompatible));
    }
}
