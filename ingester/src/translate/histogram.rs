//! Exponential histograms as native ones, and summaries and explicit buckets as classic series.

use opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use tricord_model::{BucketSpan, FloatHistogram};

/// The finest resolution that native histograms have; finer ones are merged down to it.
const MAX_SCALE: i32 = 8;
/// The coarsest one.
const MIN_SCALE: i32 = -4;
/// Half the width of the zero bucket where the sender names none.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;
/// Gaps of so few empty buckets are kept as zeros, as a span costs more.
const MAX_GAP: i64 = 2;

/// A native histogram from an exponential one.
///
/// # Errors
/// A reason for people when the scale or an offset is out of range.
pub(super) fn native(point: &ExponentialHistogramDataPoint) -> Result<FloatHistogram, String> {
    if point.scale < MIN_SCALE {
        return Err(format!("exponential histogram with scale {}: use {MIN_SCALE} or finer", point.scale));
    }
    let coarser = (point.scale - MAX_SCALE).max(0) as u32;
    let (positive_spans, positive_buckets) = buckets(point.positive.as_ref(), coarser)?;
    let (negative_spans, negative_buckets) = buckets(point.negative.as_ref(), coarser)?;
    let histogram = FloatHistogram {
        schema: point.scale.min(MAX_SCALE),
        zero_threshold: if point.zero_threshold > 0.0 {
            point.zero_threshold
        } else {
            DEFAULT_ZERO_THRESHOLD
        },
        zero_count: point.zero_count as f64,
        count: point.count as f64,
        sum: point.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..FloatHistogram::default()
    };
    histogram.validate().map_err(|error| error.to_string())?;
    Ok(histogram)
}

/// Spans and populations; `coarser` halvings of the resolution merge neighbours.
fn buckets(buckets: Option<&Buckets>, coarser: u32) -> Result<(Vec<BucketSpan>, Vec<f64>), String> {
    let (mut spans, mut populations): (Vec<BucketSpan>, Vec<f64>) = (Vec::new(), Vec::new());
    let Some(buckets) = buckets else { return Ok((spans, populations)) };
    // The index behind the last bucket written.
    let mut end: i64 = 0;
    for (at, count) in buckets.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        // OTLP numbers buckets by their lower bound, native histograms by their upper.
        let index = ((i64::from(buckets.offset) + at as i64) >> coarser.min(63)) + 1;
        let gap = index - end;
        match spans.last_mut() {
            Some(_) if gap == -1 => {
                if let Some(last) = populations.last_mut() {
                    *last += *count as f64;
                }
                continue;
            }
            Some(span) if gap <= MAX_GAP => {
                span.length += gap as u32 + 1;
                populations.resize(populations.len() + gap as usize, 0.0);
            }
            _ => {
                let offset = i32::try_from(gap)
                    .map_err(|_| format!("bucket offset {} is out of range", buckets.offset))?;
                spans.push(BucketSpan { offset, length: 1 });
            }
        }
        populations.push(*count as f64);
        end = index + 1;
    }
    Ok((spans, populations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(offset: i32, counts: &[u64], coarser: u32, spans: &[(i32, u32)], populations: &[f64]) {
        let given = Buckets { offset, bucket_counts: counts.to_vec() };
        let (read, counted) = buckets(Some(&given), coarser).unwrap();
        assert_eq!(read.iter().map(|span| (span.offset, span.length)).collect::<Vec<_>>(), spans);
        assert_eq!(counted, populations);
    }

    #[test]
    fn buckets_become_spans() {
        check(0, &[1, 2], 0, &[(1, 2)], &[1.0, 2.0]);
        check(-3, &[1, 0, 0, 1], 0, &[(-2, 4)], &[1.0, 0.0, 0.0, 1.0]);
        check(4, &[0, 1, 0, 0, 0, 1, 0], 0, &[(6, 1), (3, 1)], &[1.0, 1.0]);
        check(-1, &[1, 1, 1, 1], 1, &[(0, 3)], &[1.0, 2.0, 1.0]);
        check(-4, &[1, 1, 1, 1, 1], 2, &[(0, 2)], &[4.0, 1.0]);
        check(5, &[], 0, &[], &[]);
        check(5, &[0, 0], 0, &[], &[]);
    }

    #[test]
    fn scales_are_bounded() {
        let point = |scale| ExponentialHistogramDataPoint {
            scale,
            count: 4,
            sum: Some(5.0),
            positive: Some(Buckets { offset: 8, bucket_counts: vec![1, 1, 1, 1] }),
            ..ExponentialHistogramDataPoint::default()
        };
        let fine = native(&point(10)).unwrap();
        assert_eq!((fine.schema, fine.positive_buckets, fine.zero_threshold), (8, vec![4.0], 1e-128));
        assert_eq!(fine.positive_spans, [BucketSpan { offset: 3, length: 1 }]);
        assert!(native(&point(-5)).is_err_and(|reason| reason.contains("scale -5")));
        assert!(native(&point(i32::MAX)).is_ok());
        let far = ExponentialHistogramDataPoint {
            positive: Some(Buckets { offset: i32::MAX, bucket_counts: vec![1, 1] }),
            ..point(0)
        };
        assert!(native(&far).is_err());
    }
}
