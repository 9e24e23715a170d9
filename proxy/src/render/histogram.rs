//! Native histograms as Prometheus' JSON has them: count, sum and the populated buckets with their bounds.

use std::io::Write as _;

use tricord_model::FloatHistogram;
use tricord_promql::histogram::all_buckets;

use super::number::write_float;

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
    for bucket in all_buckets(histogram).iter().filter(|bucket| bucket.count != 0.0) {
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

#[cfg(test)]
mod tests {
    use tricord_model::BucketSpan;

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

    #[test]
    fn buckets_end_at_the_zero_bucket() {
        let histogram = FloatHistogram {
            zero_threshold: 0.75,
            zero_count: 1.0,
            count: 3.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 1 }],
            positive_buckets: vec![1.0],
            negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        let buckets = r#"[[1,"-1","-0.75","1"],[3,"-0.75","0.75","1"],[0,"0.75","1","1"]]"#;
        check(&histogram, &format!(r#"{{"count":"3","sum":"0","buckets":{buckets}}}"#));
    }

    #[test]
    fn custom_buckets_are_closed_above() {
        let histogram = FloatHistogram {
            schema: tricord_model::CUSTOM_BUCKETS_SCHEMA,
            count: 2.0,
            positive_spans: vec![BucketSpan { offset: 1, length: 1 }],
            positive_buckets: vec![2.0],
            custom_values: vec![-5.0, -1.0],
            ..FloatHistogram::default()
        };
        check(&histogram, r#"{"count":"2","sum":"0","buckets":[[0,"-5","-1","2"]]}"#);
    }
}
