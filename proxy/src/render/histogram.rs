//! Native histograms as Prometheus' JSON has them: count, sum and the populated buckets with their bounds.

use std::io::Write as _;

use tricord_model::{BucketSpan, FloatHistogram};

use super::number::write_float;

struct Bucket {
    lower: f64,
    upper: f64,
    lower_inclusive: bool,
    upper_inclusive: bool,
    count: f64,
}

/// Appends the object of one histogram.
pub(super) fn write_histogram(out: &mut Vec<u8>, histogram: &FloatHistogram) {
    let quoted = |out: &mut Vec<u8>, value: f64| {
        out.push(b'"');
        write_float(out, value);
        out.push(b'"');
    };
    out.extend_from_slice(b"{\"count\":");
    quoted(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    quoted(out, histogram.sum);
    let mut any = false;
    for bucket in buckets(histogram).iter().filter(|bucket| bucket.count != 0.0) {
        out.extend_from_slice(if any { b"," } else { b",\"buckets\":[" });
        any = true;
        let boundaries = match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        };
        let _ = write!(out, "[{boundaries},");
        quoted(out, bucket.lower);
        out.push(b',');
        quoted(out, bucket.upper);
        out.push(b',');
        quoted(out, bucket.count);
        out.push(b']');
    }
    out.extend_from_slice(if any { b"]}" } else { b"}" });
}

/// All buckets from the lowest to the highest.
fn buckets(histogram: &FloatHistogram) -> Vec<Bucket> {
    let side = |spans: &[BucketSpan], counts: &[f64], positive: bool| -> Vec<Bucket> {
        let indices = indices(spans);
        indices.zip(counts).map(|(index, count)| bucket(histogram, index, *count, positive)).collect()
    };
    let mut all = side(&histogram.negative_spans, &histogram.negative_buckets, false);
    all.reverse();
    if histogram.zero_count > 0.0 {
        let (lower, upper) = (-histogram.zero_threshold, histogram.zero_threshold);
        let count = histogram.zero_count;
        all.push(Bucket { lower, upper, lower_inclusive: true, upper_inclusive: true, count });
    }
    all.extend(side(&histogram.positive_spans, &histogram.positive_buckets, true));
    all
}

/// The indices of the buckets that spans name.
fn indices(spans: &[BucketSpan]) -> impl Iterator<Item = i32> + '_ {
    let mut next = 0i32;
    spans.iter().flat_map(move |span| {
        let first = next.wrapping_add(span.offset);
        next = first.wrapping_add(span.length as i32);
        first..next
    })
}

fn bucket(histogram: &FloatHistogram, index: i32, count: f64, positive: bool) -> Bucket {
    let (low, high) = (bound(histogram, index - 1), bound(histogram, index));
    let (lower, upper) = if positive { (low, high) } else { (-high, -low) };
    Bucket { lower, upper, lower_inclusive: lower < 0.0, upper_inclusive: upper > 0.0, count }
}

/// The upper bound of a positive bucket.
fn bound(histogram: &FloatHistogram, index: i32) -> f64 {
    if histogram.uses_custom_buckets() {
        return match usize::try_from(index) {
            Ok(at) => histogram.custom_values.get(at).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        };
    }
    let schema = histogram.schema;
    let bound = if schema < 0 {
        power_of_two(i64::from(index) << -schema)
    } else {
        let within = f64::from(index & ((1 << schema) - 1)) / f64::from(1 << schema);
        within.exp2() * power_of_two(i64::from(index >> schema))
    };
    // The bucket before the overflow bucket ends at the greatest float.
    let last = if schema < 0 { 1024 >> -schema } else { 1024 << schema };
    if index == last { f64::MAX } else { bound }
}

fn power_of_two(exponent: i64) -> f64 {
    (exponent.clamp(-1100, 1100) as f64).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(histogram: &FloatHistogram, expected: &str) {
        let mut out = Vec::new();
        write_histogram(&mut out, histogram);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn buckets_come_from_low_to_high_without_the_empty_ones() {
        let span = |offset, length| BucketSpan { offset, length };
        let histogram = FloatHistogram {
            schema: 0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            count: 7.0,
            sum: 3.5,
            positive_spans: vec![span(0, 2), span(1, 1)],
            positive_buckets: vec![1.0, 0.0, 2.0],
            negative_spans: vec![span(1, 1)],
            negative_buckets: vec![2.0],
            ..FloatHistogram::default()
        };
        let buckets = r#"[[1,"-2","-1","2"],[3,"-0.001","0.001","2"],[0,"0.5","1","1"],[0,"4","8","2"]]"#;
        check(&histogram, &format!(r#"{{"count":"7","sum":"3.5","buckets":{buckets}}}"#));
        check(&FloatHistogram::default(), r#"{"count":"0","sum":"0"}"#);
    }

    #[test]
    fn custom_bounds_reach_to_infinity() {
        let histogram = FloatHistogram {
            schema: tricord_model::CUSTOM_BUCKETS_SCHEMA,
            count: 2.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 1.0],
            custom_values: vec![5.0],
            ..FloatHistogram::default()
        };
        check(&histogram, r#"{"count":"2","sum":"0","buckets":[[3,"-Inf","5","1"],[0,"5","+Inf","1"]]}"#);
    }
}
