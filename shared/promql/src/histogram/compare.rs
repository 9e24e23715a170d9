//! Counter resets between histograms, and equality.

use tricord_model::{CounterResetHint, FloatHistogram};

use super::arithmetic::zero_count_within;
use super::buckets::{bound, coarser_index, exponential_bound};
use super::sparse;

/// Whether a counter was reset between `previous` and `current`: it must never fall, in any bucket.
pub(crate) fn detect_reset(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    match current.counter_reset_hint {
        CounterResetHint::Reset => return true,
        CounterResetHint::NotReset => return false,
        _ => {}
    }
    if current.count < previous.count {
        return true;
    }
    if current.uses_custom_buckets() {
        if !previous.uses_custom_buckets() {
            return true;
        }
        if current.custom_values != previous.custom_values {
            return custom_buckets_fell(current, previous);
        }
    }
    if current.schema > previous.schema || current.zero_threshold < previous.zero_threshold {
        return true;
    }
    let (previous_zero, threshold) = zero_count_within(previous, current.zero_threshold);
    if threshold != current.zero_threshold || current.zero_count < previous_zero {
        return true;
    }
    let side = |h: &FloatHistogram, positive: bool| match positive {
        true => above_zero(sparse(&h.positive_spans, &h.positive_buckets), h.schema, current),
        false => above_zero(sparse(&h.negative_spans, &h.negative_buckets), h.schema, current),
    };
    [true, false]
        .into_iter()
        .any(|positive| buckets_fell(&side(current, positive), &side(previous, positive)))
}

/// Buckets at the resolution of `layout`, without those within its zero bucket.
fn above_zero(buckets: Vec<(i32, f64)>, schema: i32, layout: &FloatHistogram) -> Vec<(i32, f64)> {
    let mut out: Vec<(i32, f64)> = Vec::with_capacity(buckets.len());
    for (index, population) in buckets {
        let index =
            if layout.uses_custom_buckets() { index } else { coarser_index(index, schema, layout.schema) };
        match out.last_mut() {
            Some((last, sum)) if *last == index => *sum += population,
            _ => out.push((index, population)),
        }
    }
    if !layout.uses_custom_buckets() && layout.zero_threshold != 0.0 {
        out.retain(|(index, _)| exponential_bound(*index, layout.schema) > layout.zero_threshold);
    }
    out
}

fn buckets_fell(current: &[(i32, f64)], previous: &[(i32, f64)]) -> bool {
    let mut current = current.iter().peekable();
    for (index, before) in previous {
        while current.peek().is_some_and(|(i, _)| i < index) {
            current.next();
        }
        let fell = match current.peek() {
            Some((i, now)) if i == index => now < before,
            _ => *before != 0.0,
        };
        if fell {
            return true;
        }
    }
    false
}

/// Compares the sums between bounds that both have in common.
fn custom_buckets_fell(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    let rolled_up = |h: &FloatHistogram, after: f64, until: f64| {
        sparse(&h.positive_spans, &h.positive_buckets)
            .into_iter()
            .filter(|(index, _)| {
                let upper = bound(*index, h.schema, &h.custom_values);
                upper > after && upper <= until
            })
            .map(|(_, population)| population)
            .sum::<f64>()
    };
    let common = current.custom_values.iter().filter(|bound| previous.custom_values.contains(bound));
    let mut after = f64::NEG_INFINITY;
    for until in common.copied().chain([f64::INFINITY]) {
        if rolled_up(current, after, until) < rolled_up(previous, after, until) {
            return true;
        }
        after = until;
    }
    false
}

/// Whether two histograms hold the same, to the bit; hints do not count, and neither does how buckets are cut to spans.
pub(crate) fn equals(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let bits = |values: &[(i32, f64)]| values.iter().map(|(i, v)| (*i, v.to_bits())).collect::<Vec<_>>();
    let side = |h: &FloatHistogram| {
        let positive = sparse(&h.positive_spans, &h.positive_buckets);
        let negative = sparse(&h.negative_spans, &h.negative_buckets);
        (bits(&positive), bits(&negative))
    };
    a.schema == b.schema
        && a.count.to_bits() == b.count.to_bits()
        && a.sum.to_bits() == b.sum.to_bits()
        && a.zero_threshold == b.zero_threshold
        && a.zero_count.to_bits() == b.zero_count.to_bits()
        && (!a.uses_custom_buckets() || a.custom_values == b.custom_values)
        && side(a) == side(b)
}

#[cfg(test)]
mod tests {
    use tricord_model::BucketSpan;

    use super::*;

    fn counter(offset: i32, buckets: &[f64]) -> FloatHistogram {
        FloatHistogram {
            count: buckets.iter().sum(),
            positive_spans: vec![BucketSpan { offset, length: buckets.len() as u32 }],
            positive_buckets: buckets.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn a_falling_bucket_is_a_reset() {
        assert!(!detect_reset(&counter(0, &[1.0, 3.0]), &counter(0, &[1.0, 2.0])));
        assert!(detect_reset(&counter(0, &[4.0, 1.0]), &counter(0, &[1.0, 2.0])));
        assert!(detect_reset(&counter(5, &[9.0]), &counter(0, &[1.0])));
        assert!(!detect_reset(&counter(0, &[9.0]), &counter(-1, &[0.0, 1.0])));
        let told = FloatHistogram { counter_reset_hint: CounterResetHint::NotReset, ..counter(0, &[0.0]) };
        assert!(!detect_reset(&told, &counter(0, &[1.0])));
    }
}
