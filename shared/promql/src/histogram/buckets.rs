//! The borders of buckets, and buckets in order of their values.

use std::sync::LazyLock;

use tricord_model::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

use super::sparse;

/// A bucket with its borders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The lower border.
    pub lower: f64,
    /// The upper border.
    pub upper: f64,
    /// Whether an observation of the lower border itself is in it.
    pub lower_inclusive: bool,
    /// Whether an observation of the upper border itself is in it.
    pub upper_inclusive: bool,
    /// How many observations there are.
    pub count: f64,
}

impl Bucket {
    /// Which part of the bucket lies below a value, interpolated linearly or exponentially.
    pub(crate) fn fraction_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let at = value.abs().log2();
        if value > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
    }
}

/// `2^(i/256) / 2` for the finest schema; coarser ones take every 2nd, 4th, … of them.
static FRACTIONS: LazyLock<Vec<f64>> =
    LazyLock::new(|| (0..256).map(|i| (f64::from(i) / 256.0).exp2() / 2.0).collect());

/// `fraction * 2^exponent`, also where the power alone is out of range.
fn scale_by_power(fraction: f64, exponent: i32) -> f64 {
    let half = exponent.clamp(-2400, 2400) / 2;
    fraction * 2f64.powi(half) * 2f64.powi(exponent.clamp(-2400, 2400) - half)
}

/// The upper border of an exponential bucket.
pub(crate) fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema < 0 {
        let exponent = i64::from(index) << -schema;
        if exponent == 1024 {
            return f64::MAX;
        }
        return scale_by_power(1.0, exponent.clamp(-4000, 4000) as i32);
    }
    let mask = (1i32 << schema) - 1;
    let fraction = FRACTIONS[((index & mask) << (8 - schema)) as usize];
    let exponent = (index >> schema).saturating_add(1);
    if fraction == 0.5 && exponent == 1025 {
        return f64::MAX;
    }
    scale_by_power(fraction, exponent)
}

/// The upper border of a bucket on the positive side.
pub(crate) fn bound(index: i32, schema: i32, custom_values: &[f64]) -> f64 {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        return exponential_bound(index, schema);
    }
    match usize::try_from(index) {
        Err(_) => f64::NEG_INFINITY,
        Ok(at) => custom_values.get(at).copied().unwrap_or(f64::INFINITY),
    }
}

/// The index that a bucket gets in a coarser schema.
pub(crate) fn coarser_index(index: i32, from: i32, to: i32) -> i32 {
    (index.wrapping_sub(1) >> (from - to).clamp(0, 31)).wrapping_add(1)
}

pub(crate) fn positive_bucket(index: i32, count: f64, histogram: &FloatHistogram) -> Bucket {
    let upper = bound(index, histogram.schema, &histogram.custom_values);
    let lower = bound(index.wrapping_sub(1), histogram.schema, &histogram.custom_values);
    let custom = histogram.uses_custom_buckets();
    Bucket {
        lower,
        upper,
        lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
        upper_inclusive: custom || upper > 0.0,
        count,
    }
}

pub(crate) fn negative_bucket(index: i32, count: f64, histogram: &FloatHistogram) -> Bucket {
    let lower = -bound(index, histogram.schema, &[]);
    let upper = -bound(index.wrapping_sub(1), histogram.schema, &[]);
    Bucket { lower, upper, lower_inclusive: lower < 0.0, upper_inclusive: upper > 0.0, count }
}

pub(crate) fn zero_bucket(histogram: &FloatHistogram) -> Bucket {
    Bucket {
        lower: -histogram.zero_threshold,
        upper: histogram.zero_threshold,
        lower_inclusive: true,
        upper_inclusive: true,
        count: histogram.zero_count,
    }
}

/// All buckets from the lowest values to the highest; those that reach into the zero bucket end at its border.
#[must_use]
pub fn all_buckets(histogram: &FloatHistogram) -> Vec<Bucket> {
    let zero = histogram.zero_threshold;
    let mut out = Vec::with_capacity(histogram.positive_buckets.len() + histogram.negative_buckets.len() + 1);
    for (index, count) in sparse(&histogram.negative_spans, &histogram.negative_buckets).into_iter().rev() {
        let mut bucket = negative_bucket(index, count, histogram);
        if bucket.upper < 0.0 && bucket.upper > -zero {
            bucket.upper = -zero;
        }
        out.push(bucket);
    }
    if histogram.zero_count > 0.0 {
        out.push(zero_bucket(histogram));
    }
    for (index, count) in sparse(&histogram.positive_spans, &histogram.positive_buckets) {
        let mut bucket = positive_bucket(index, count, histogram);
        if bucket.lower > 0.0 && bucket.lower < zero {
            bucket.lower = zero;
        }
        out.push(bucket);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_two() {
        assert_eq!(
            [exponential_bound(0, 0), exponential_bound(1, 0), exponential_bound(-3, 0)],
            [1.0, 2.0, 0.125]
        );
        assert_eq!(exponential_bound(1, -1), 4.0);
        assert_eq!(exponential_bound(1, 1), std::f64::consts::SQRT_2);
        assert_eq!(exponential_bound(1024, 0), f64::MAX);
        assert_eq!(exponential_bound(-1074, 0), f64::from_bits(1));
        assert_eq!([coarser_index(1, 1, 0), coarser_index(2, 1, 0), coarser_index(3, 1, 0)], [1, 1, 2]);
    }
}
