//! Quantiles of values, and of classic histograms.

use std::cmp::Ordering;

/// The quantile of values, interpolated linearly between neighbours; NaN sorts first. The values are put into another
/// order on the way.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor() as usize).min(last);
    let weight = rank - rank.floor();
    // Two neighbours of the sorted values are wanted, not all of them sorted.
    let (_, below, above) = values.select_nth_unstable_by(lower, by_value);
    let below = *below;
    let above = above.iter().copied().min_by(by_value).unwrap_or(below);
    below * (1.0 - weight) + above * weight
}

fn by_value(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.total_cmp(b),
        (a, b) => b.cmp(&a),
    }
}

/// A bucket of a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClassicBucket {
    pub(crate) upper: f64,
    /// How many observations are at most `upper`.
    pub(crate) count: f64,
}

/// What was done to buckets so that their counts never fall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced {
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    pub(crate) max_diff: f64,
}

/// Counts that differ by less than this part of their sum are taken for equal: float sums of shards differ so.
const SMALL_DELTA_TOLERANCE: f64 = 1e-12;

/// Whether two numbers differ by less than their sum times `tolerance`.
pub(crate) fn almost_equal(a: f64, b: f64, tolerance: f64) -> bool {
    use tricord_model::is_stale;
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < tolerance * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < tolerance
}

fn sort_buckets(buckets: &mut [ClassicBucket]) -> bool {
    buckets.sort_by(|a, b| a.upper.partial_cmp(&b.upper).unwrap_or(std::cmp::Ordering::Equal));
    buckets.last().is_some_and(|bucket| bucket.upper == f64::INFINITY)
}

/// Adds up buckets of one bound.
fn coalesce(buckets: &mut Vec<ClassicBucket>) {
    buckets.dedup_by(|bucket, kept| {
        let same = bucket.upper == kept.upper;
        if same {
            kept.count += bucket.count;
        }
        same
    });
}

fn make_monotonic(buckets: &mut [ClassicBucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count, SMALL_DELTA_TOLERANCE) {
            bucket.count = previous;
            continue;
        }
        if count < previous {
            bucket.count = previous;
            let so_far = forced.unwrap_or(Forced {
                min_bucket: f64::INFINITY,
                max_bucket: f64::NEG_INFINITY,
                max_diff: 0.0,
            });
            forced = Some(Forced {
                min_bucket: so_far.min_bucket.min(bucket.upper),
                max_bucket: so_far.max_bucket.max(bucket.upper),
                max_diff: so_far.max_diff.max(previous - count),
            });
            continue;
        }
        previous = count;
    }
    forced
}

/// The quantile of a classic histogram, interpolated linearly within a bucket, and whether its counts had to be fixed.
pub(crate) fn bucket_quantile(q: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !sort_buckets(buckets) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let forced = make_monotonic(buckets);
    (monotonic_quantile(q, buckets), forced)
}

fn monotonic_quantile(q: f64, buckets: &[ClassicBucket]) -> f64 {
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if buckets.len() < 2 || observations == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * observations;
    // A NaN count never reaches the rank, as in a binary search for the first that does.
    let at = first_reaching(&buckets[..last], rank);
    if at == last {
        return buckets[last - 1].upper;
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return buckets[0].upper;
    }
    let mut start = 0.0;
    let mut count = buckets[at].count;
    if at > 0 {
        start = buckets[at - 1].upper;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    start + (buckets[at].upper - start) * (rank / count)
}

fn first_reaching(buckets: &[ClassicBucket], rank: f64) -> usize {
    let reaches = |bucket: &ClassicBucket| bucket.count >= rank;
    buckets.partition_point(|bucket| !reaches(bucket))
}

/// The part of a classic histogram's observations between two values.
pub(crate) fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if !sort_buckets(buckets) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank_of = |value: f64| {
        let mut rank = 0.0;
        let mut lower_bound = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
        for bucket in buckets.iter() {
            if lower_bound >= value {
                return rank;
            }
            if bucket.upper > value {
                if lower_bound == f64::NEG_INFINITY {
                    return f64::min(bucket.count, count);
                }
                let share = (value - lower_bound) / (bucket.upper - lower_bound);
                return f64::min(rank + (bucket.count - rank) * share, count);
            }
            rank = bucket.count;
            lower_bound = bucket.upper;
        }
        count
    };
    (rank_of(upper) - rank_of(lower)) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<ClassicBucket> {
        pairs.iter().map(|(upper, count)| ClassicBucket { upper: *upper, count: *count }).collect()
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let mut classic = buckets(&[(f64::INFINITY, 4.0), (1.0, 2.0), (2.0, 4.0)]);
        assert_eq!(bucket_quantile(0.75, &mut classic), (1.5, None));
        assert!(bucket_quantile(0.5, &mut buckets(&[(1.0, 2.0)])).0.is_nan());
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0, f64::NAN]), 1.5);
        assert_eq!((quantile(0.0, &mut [3.0, 1.0]), quantile(1.0, &mut [3.0, 1.0])), (1.0, 3.0));
        assert!(quantile(0.1, &mut [3.0, 1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn falling_counts_are_lifted() {
        let mut classic = buckets(&[(1.0, 10.0), (2.0, 8.0), (f64::INFINITY, 20.0)]);
        let (_, forced) = bucket_quantile(0.9, &mut classic);
        assert_eq!(forced, Some(Forced { min_bucket: 2.0, max_bucket: 2.0, max_diff: 2.0 }));
        assert_eq!(classic[1].count, 10.0);
    }

    #[test]
    fn fractions_are_shares_of_the_count() {
        let classic = [(1.0, 2.0), (2.0, 4.0), (f64::INFINITY, 8.0)];
        assert_eq!(bucket_fraction(1.0, 2.0, &mut buckets(&classic)), 0.25);
        assert_eq!(bucket_fraction(f64::NEG_INFINITY, f64::INFINITY, &mut buckets(&classic)), 1.0);
    }
}
