//! `</` and `>/`: the part of a histogram below or above a bound.

use tricord_model::FloatHistogram;

use super::buckets::{Bucket, negative_bucket, positive_bucket, zero_bucket};
use super::{compact, sparse};

/// Which part stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Below,
    Above,
}

/// Counts and sums that are left.
struct Kept {
    count: f64,
    sum: f64,
    changed: bool,
}

/// Keeps the observations below or above a bound; buckets that it splits are interpolated, and the sum is estimated
/// from the middles of what is left.
pub(crate) fn trim(histogram: &mut FloatHistogram, bound: f64, upper: bool) {
    let keep = if upper { Keep::Below } else { Keep::Above };
    let custom = histogram.uses_custom_buckets();
    let mut kept = Kept { count: 0.0, sum: 0.0, changed: false };
    let positive = sparse(&histogram.positive_spans, &histogram.positive_buckets);
    let negative = sparse(&histogram.negative_spans, &histogram.negative_buckets);
    let has = |side: &[(i32, f64)]| side.iter().any(|(_, population)| *population != 0.0);
    let (has_positive, has_negative) = (has(&positive), has(&negative));
    for (at, (index, population)) in positive.iter().enumerate() {
        let bucket = positive_bucket(*index, *population, histogram);
        histogram.positive_buckets[at] = trim_bucket(&bucket, bound, keep, true, custom, &mut kept);
    }
    for (at, (index, population)) in negative.iter().enumerate() {
        let bucket = negative_bucket(*index, *population, histogram);
        histogram.negative_buckets[at] = trim_bucket(&bucket, bound, keep, false, custom, &mut kept);
    }
    if histogram.zero_count > 0.0 {
        let (count, middle) = trim_zero(&zero_bucket(histogram), bound, has_negative, has_positive, keep);
        kept.changed |= histogram.zero_count != count;
        histogram.zero_count = count;
        kept.sum += middle * count;
        kept.count += count;
    }
    if kept.changed {
        histogram.count = kept.count;
        histogram.sum = kept.sum;
        compact(histogram);
    }
}

/// What is left of a bucket.
fn trim_bucket(
    bucket: &Bucket,
    bound: f64,
    keep: Keep,
    positive: bool,
    custom: bool,
    kept: &mut Kept,
) -> f64 {
    if bucket.count == 0.0 {
        return bucket.count;
    }
    let (whole, part) = match keep {
        Keep::Below => (bucket.upper <= bound, bucket.lower < bound),
        Keep::Above => (bucket.lower >= bound, bucket.upper > bound),
    };
    if whole {
        kept.count += bucket.count;
        kept.sum += middle(bucket.lower, bucket.upper, positive, custom) * bucket.count;
        return bucket.count;
    }
    if !part {
        kept.changed = true;
        return 0.0;
    }
    let (count, middle) = split(bucket, bound, keep, positive, custom);
    kept.count += count;
    kept.sum += middle * count;
    kept.changed |= count != bucket.count;
    count
}

fn split(bucket: &Bucket, bound: f64, keep: Keep, positive: bool, custom: bool) -> (f64, f64) {
    if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
        return split_infinite(bucket, bound, keep);
    }
    let below = if bound <= bucket.lower {
        0.0
    } else if bound >= bucket.upper {
        bucket.count
    } else {
        bucket.count * bucket.fraction_below(bound, custom)
    };
    match keep {
        Keep::Below => (below, middle(bucket.lower, bound, positive, custom)),
        Keep::Above => (bucket.count - below, middle(bound, bucket.upper, positive, custom)),
    }
}

fn finite_or_zero(value: f64) -> f64 {
    if value.is_infinite() { 0.0 } else { value }
}

/// Nothing is known about where the observations of an infinite bucket lie but for its finite border.
fn split_infinite(bucket: &Bucket, bound: f64, keep: Keep) -> (f64, f64) {
    let Bucket { lower, upper, count, .. } = *bucket;
    if lower != f64::NEG_INFINITY {
        return match keep {
            Keep::Above if bound >= lower => (count, bound),
            _ => (0.0, finite_or_zero(lower)),
        };
    }
    let finite_upper = upper != f64::INFINITY;
    match keep {
        Keep::Below if bound >= upper => (count, 0.0),
        // The lowest bucket is taken to start at zero where its border is above.
        Keep::Below if bound > 0.0 && upper > 0.0 && finite_upper => (count * bound / upper, bound / 2.0),
        Keep::Below if upper <= 0.0 => (count, bound),
        Keep::Above if bound <= lower => (count, 0.0),
        Keep::Above if bound >= 0.0 && upper > bound && finite_upper => {
            (count * (1.0 - bound / upper), (bound + upper) / 2.0)
        }
        _ => (0.0, finite_or_zero(upper)),
    }
}

fn trim_zero(bucket: &Bucket, bound: f64, has_negative: bool, has_positive: bool, keep: Keep) -> (f64, f64) {
    let upper = if has_negative && !has_positive { 0.0 } else { bucket.upper };
    let lower = if has_positive && !has_negative { 0.0 } else { bucket.lower };
    let whole = (bucket.count, (lower + upper) / 2.0);
    match keep {
        Keep::Below if bound <= lower => (0.0, 0.0),
        Keep::Below if bound >= upper => whole,
        Keep::Below => (bucket.count * (bound - lower) / (upper - lower), (lower + bound) / 2.0),
        Keep::Above if bound <= lower => whole,
        Keep::Above if bound >= upper => (0.0, 0.0),
        Keep::Above => (bucket.count * (upper - bound) / (upper - lower), (bound + upper) / 2.0),
    }
}

/// The middle of what is left: arithmetic with custom bounds, else geometric.
fn middle(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    if lower.is_infinite() {
        return match upper {
            upper if upper.is_infinite() => 0.0,
            upper if upper > 0.0 => upper / 2.0,
            upper => upper,
        };
    }
    if upper.is_infinite() {
        return lower;
    }
    if linear {
        return (lower + upper) / 2.0;
    }
    let middle = (lower * upper).abs().sqrt();
    if positive { middle } else { -middle }
}

#[cfg(test)]
mod tests {
    use tricord_model::BucketSpan;

    use super::*;

    #[test]
    fn buckets_beyond_the_bound_go() {
        let mut histogram = FloatHistogram {
            count: 7.0,
            sum: 20.0,
            positive_spans: vec![BucketSpan { offset: 1, length: 3 }],
            positive_buckets: vec![1.0, 2.0, 4.0],
            ..FloatHistogram::default()
        };
        trim(&mut histogram, 4.0, true);
        assert_eq!((histogram.count, histogram.positive_buckets.clone()), (3.0, vec![1.0, 2.0]));
        trim(&mut histogram, 2.0, false);
        assert_eq!(histogram.positive_spans, [BucketSpan { offset: 2, length: 1 }]);
    }
}
