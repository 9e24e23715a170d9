//! Quantiles, fractions and variance of native histograms.

use tricord_model::FloatHistogram;

use super::buckets::{Bucket, all_buckets};
use crate::kernels::summation::Compensated;

/// What a result hides because NaN was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanNote {
    None,
    /// So many that the quantile falls among them.
    Result,
    /// They count, but are in no bucket.
    Skew,
}

/// Whether a side without buckets bounds the zero bucket at zero.
fn narrow_zero_bucket(histogram: &FloatHistogram, bucket: &mut Bucket) {
    let (negative, positive) = (&histogram.negative_buckets, &histogram.positive_buckets);
    if negative.is_empty() && !positive.is_empty() {
        bucket.lower = 0.0;
    } else if positive.is_empty() && !negative.is_empty() {
        bucket.upper = 0.0;
    }
}

/// The quantile, interpolated exponentially within a bucket (linearly in the zero bucket and with custom bounds).
pub(crate) fn quantile(q: f64, histogram: &FloatHistogram) -> (f64, NanNote) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, NanNote::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, NanNote::None);
    }
    if histogram.count == 0.0 || q.is_nan() {
        return (f64::NAN, NanNote::None);
    }
    let observed_nan = histogram.sum.is_nan();
    // Counted from the nearer end, for precision; NaN observations are in no bucket, as if above all others.
    let forward = observed_nan || q < 0.5;
    let mut buckets = all_buckets(histogram);
    if !forward {
        buckets.reverse();
    }
    let mut rank = if forward { q * histogram.count } else { (1.0 - q) * histogram.count };
    let mut count = 0.0;
    let mut bucket =
        Bucket { lower: 0.0, upper: 0.0, lower_inclusive: false, upper_inclusive: false, count: 0.0 };
    let mut rest = buckets.iter();
    for next in rest.by_ref() {
        bucket = *next;
        if bucket.count == 0.0 {
            continue;
        }
        count += bucket.count;
        if count >= rank {
            break;
        }
    }
    if histogram.uses_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, NanNote::None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, NanNote::None);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        narrow_zero_bucket(histogram, &mut bucket);
    }
    count = count.min(histogram.count);
    if count < rank {
        return if observed_nan { (f64::NAN, NanNote::Result) } else { (bucket.upper, NanNote::None) };
    }
    let mut note = NanNote::None;
    let in_bucket = if forward { rank - (count - bucket.count) } else { count - rank };
    rank = in_bucket;
    if observed_nan && count + rest.map(|bucket| bucket.count).sum::<f64>() < histogram.count {
        note = NanNote::Skew;
    }
    (within(histogram, &bucket, rank / bucket.count), note)
}

fn within(histogram: &FloatHistogram, bucket: &Bucket, fraction: f64) -> f64 {
    if histogram.uses_custom_buckets() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (lower + (upper - lower) * fraction).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - fraction)).exp2()
    }
}

/// The part of the observations between two values, and whether NaN was observed.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &FloatHistogram) -> (f64, bool) {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let buckets = all_buckets(histogram);
    let mut count = histogram.count;
    let mut nans = false;
    if histogram.sum.is_nan() {
        count = buckets.iter().map(|bucket| bucket.count).sum();
        nans = count < histogram.count;
    }
    let rank = |value: f64| rank_of(value, histogram, &buckets).map_or(count, |rank| rank.min(count));
    ((rank(upper) - rank(lower)) / histogram.count, nans)
}

/// How many observations lie below a value; `None` where it lies above all buckets.
fn rank_of(value: f64, histogram: &FloatHistogram, buckets: &[Bucket]) -> Option<f64> {
    let mut rank = 0.0;
    for bucket in buckets {
        let mut bucket = *bucket;
        let is_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        if is_zero {
            narrow_zero_bucket(histogram, &mut bucket);
        }
        if bucket.lower >= value {
            return Some(rank);
        }
        if bucket.lower < value && bucket.upper > value {
            let linear = histogram.uses_custom_buckets() || is_zero;
            if linear && bucket.lower == f64::NEG_INFINITY {
                return Some(bucket.count);
            }
            return Some(rank + bucket.count * bucket.fraction_below(value, linear));
        }
        rank += bucket.count;
    }
    None
}

/// The variance, with every observation in the middle of its bucket.
pub(crate) fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut sum = Compensated::default();
    for bucket in all_buckets(histogram).iter().filter(|bucket| bucket.count != 0.0) {
        let value = if histogram.uses_custom_buckets() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = value - mean;
        sum.add(bucket.count * delta * delta);
    }
    (sum.sum + sum.error) / histogram.count
}

#[cfg(test)]
mod tests {
    use tricord_model::BucketSpan;

    use super::*;

    fn example() -> FloatHistogram {
        FloatHistogram {
            count: 12.0,
            sum: 100.0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }, BucketSpan { offset: 1, length: 2 }],
            positive_buckets: vec![2.0, 3.0, 1.0, 4.0],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn quantiles_are_interpolated_exponentially() {
        assert_eq!(quantile(1.0, &example()).0, 16.0);
        let (median, _) = quantile(0.5, &example());
        assert!((median - 2f64.powf(2.0 / 3.0)).abs() < 1e-12, "{median}");
        assert!(quantile(0.0, &example()).0.abs() < 1e-12);
    }

    #[test]
    fn fractions_add_up() {
        assert_eq!(fraction(f64::NEG_INFINITY, f64::INFINITY, &example()), (1.0, false));
        assert_eq!(fraction(1.0, 2.0, &example()).0, 3.0 / 12.0);
    }
}
