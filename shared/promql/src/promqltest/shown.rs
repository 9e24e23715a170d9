//! Histograms as the HTTP API shows them: count, sum and the populated buckets with their borders. Layout and counter
//! reset hint cannot be seen in it, so that answers over HTTP are compared in this form.

use std::sync::Arc;

use tricord_model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Points, Sample, Value};

use super::script::Eval;
use crate::histogram::{Bucket, all_buckets};
use crate::value::QueryValue;

/// A histogram that stands for one as it is shown: the borders of its populated buckets are its custom bounds, whether
/// or not they ascend.
#[must_use]
pub fn as_shown(count: f64, sum: f64, buckets: &[Bucket]) -> FloatHistogram {
    let populated = || buckets.iter().filter(|bucket| bucket.count != 0.0);
    let flag = |inclusive: bool| f64::from(u8::from(inclusive));
    let borders = |bucket: &Bucket| {
        [flag(bucket.lower_inclusive), bucket.lower, bucket.upper, flag(bucket.upper_inclusive)]
    };
    FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum,
        positive_spans: vec![BucketSpan { offset: 0, length: populated().count() as u32 }],
        positive_buckets: populated().map(|bucket| bucket.count).collect(),
        custom_values: populated().flat_map(borders).collect(),
        ..FloatHistogram::default()
    }
}

/// A histogram as the API shows it.
#[must_use]
pub fn histogram_as_shown(histogram: &FloatHistogram) -> FloatHistogram {
    as_shown(histogram.count, histogram.sum, &all_buckets(histogram))
}

fn shared(histogram: &FloatHistogram) -> Arc<FloatHistogram> {
    Arc::new(histogram_as_shown(histogram))
}

/// An answer as the API shows it.
#[must_use]
pub fn value_as_shown(mut value: QueryValue) -> QueryValue {
    match &mut value {
        QueryValue::Vector(columns) => {
            for (_, histogram) in columns.iter_mut().flat_map(|column| &mut column.histograms) {
                *histogram = shared(histogram);
            }
        }
        QueryValue::Matrix(series) => {
            for (_, points) in series {
                // Start timestamps are not shown either.
                *points = points.iter().map(|sample| Sample { start_ms: 0, ..sample }).collect::<Points>();
                for (_, histogram) in &mut points.histograms {
                    *histogram = shared(histogram);
                }
            }
        }
        QueryValue::Scalar(_) | QueryValue::String(_) => {}
    }
    value
}

impl Eval {
    /// The same question with what the API shows of the expected histograms.
    #[must_use]
    pub fn as_shown(&self) -> Self {
        let mut eval = self.clone();
        for value in eval.series.iter_mut().flat_map(|(_, values)| values) {
            value.hint_is_set = false;
            if let Some(Value::Histogram(histogram)) = &mut value.value {
                *histogram = shared(histogram);
            }
        }
        eval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_that_show_the_same_are_the_same() {
        let span = |offset: i32| vec![BucketSpan { offset, length: 2 }];
        let one = FloatHistogram {
            count: 3.0,
            positive_spans: span(0),
            positive_buckets: vec![0.0, 3.0],
            ..FloatHistogram::default()
        };
        let other =
            FloatHistogram { positive_spans: span(1), positive_buckets: vec![3.0, 0.0], ..one.clone() };
        assert_eq!(histogram_as_shown(&one), histogram_as_shown(&other));
        let more = FloatHistogram { positive_buckets: vec![3.0, 1.0], ..other.clone() };
        assert_ne!(histogram_as_shown(&more), histogram_as_shown(&other));
        let elsewhere = FloatHistogram { positive_spans: span(2), ..other.clone() };
        assert_ne!(histogram_as_shown(&elsewhere), histogram_as_shown(&other));
    }
}
