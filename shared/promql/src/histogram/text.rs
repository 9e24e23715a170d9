//! Histograms as texts: in labels of `count_values`, and as upstream's test files write them.

use tricord_model::{CounterResetHint, FloatHistogram};

use super::buckets::{Bucket, negative_bucket, positive_bucket, zero_bucket};
use super::{compact, sparse};
use crate::text::float_g;

/// `{count:2, sum:3, (1,2]:2}`
pub(crate) fn describe(histogram: &FloatHistogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", float_g(histogram.count), float_g(histogram.sum));
    let mut push = |bucket: Bucket| {
        if bucket.count == 0.0 {
            return;
        }
        let (open, close) =
            (if bucket.lower_inclusive { '[' } else { '(' }, if bucket.upper_inclusive { ']' } else { ')' });
        let (lower, upper, count) = (float_g(bucket.lower), float_g(bucket.upper), float_g(bucket.count));
        out.push_str(&format!(", {open}{lower},{upper}{close}:{count}"));
    };
    for (index, count) in sparse(&histogram.negative_spans, &histogram.negative_buckets).into_iter().rev() {
        push(negative_bucket(index, count, histogram));
    }
    if histogram.zero_count != 0.0 {
        push(zero_bucket(histogram));
    }
    for (index, count) in sparse(&histogram.positive_spans, &histogram.positive_buckets) {
        push(positive_bucket(index, count, histogram));
    }
    out.push('}');
    out
}

/// `{{schema:1 count:2 sum:3 buckets:[2]}}`, for messages of tests.
pub(crate) fn test_expression(histogram: &FloatHistogram) -> String {
    let mut histogram = histogram.clone();
    compact(&mut histogram);
    let h = &histogram;
    let mut parts = Vec::new();
    let numbers = [
        ("schema", f64::from(h.schema)),
        ("count", h.count),
        ("sum", h.sum),
        ("z_bucket", h.zero_count),
        ("z_bucket_w", h.zero_threshold),
    ];
    for (key, value) in numbers.iter().filter(|(_, value)| *value != 0.0) {
        parts.push(format!("{key}:{}", float_g(*value)));
    }
    let list = |values: &[f64]| values.iter().map(|value| float_g(*value)).collect::<Vec<_>>().join(" ");
    if h.uses_custom_buckets() {
        parts.push(format!("custom_values:[{}]", list(&h.custom_values)));
    }
    match h.counter_reset_hint {
        CounterResetHint::Unknown => {}
        CounterResetHint::Reset => parts.push("counter_reset_hint:reset".to_owned()),
        CounterResetHint::NotReset => parts.push("counter_reset_hint:not_reset".to_owned()),
        CounterResetHint::Gauge => parts.push("counter_reset_hint:gauge".to_owned()),
    }
    for (prefix, spans, buckets) in
        [("", &h.positive_spans, &h.positive_buckets), ("n_", &h.negative_spans, &h.negative_buckets)]
    {
        let all = sparse(spans, buckets);
        let (Some((first, _)), Some((last, _))) = (all.first(), all.last()) else { continue };
        if *first != 0 {
            parts.push(format!("{prefix}offset:{first}"));
        }
        let mut filled = vec![0.0; (last - first) as usize + 1];
        all.iter().for_each(|(index, value)| filled[(index - first) as usize] = *value);
        parts.push(format!("{prefix}buckets:[{}]", list(&filled)));
    }
    format!("{{{{{}}}}}", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use tricord_model::BucketSpan;

    use super::*;

    #[test]
    fn buckets_are_shown_with_their_borders() {
        let histogram = FloatHistogram {
            count: 3.0,
            sum: 4.5,
            positive_spans: vec![BucketSpan { offset: 1, length: 1 }],
            positive_buckets: vec![2.0],
            negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        assert_eq!(describe(&histogram), "{count:3, sum:4.5, [-1,-0.5):1, (1,2]:2}");
        assert_eq!(test_expression(&histogram), "{{count:3 sum:4.5 offset:1 buckets:[2] n_buckets:[1]}}");
    }
}
