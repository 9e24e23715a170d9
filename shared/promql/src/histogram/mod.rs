//! Arithmetic on native histograms: what Prometheus does with them in expressions.
//!
//! The data type itself, its checks and its encoding belong to the model. Layouts differ in resolution, in the width of
//! the zero bucket and in custom bounds; operations on two histograms bring both to a layout that can hold either.

mod arithmetic;
mod buckets;
mod compare;
mod hints;
mod quantile;
mod text;
mod trim;

use tricord_model::{BucketSpan, FloatHistogram};

pub(crate) use arithmetic::{Combined, Incompatible, add, divide, scale, subtract, to_schema};
pub use buckets::{Bucket, all_buckets};
pub(crate) use compare::{detect_reset, equals};
pub(crate) use hints::stats_only;
pub use hints::{set_reset_hints, stored_reset_hint};
pub(crate) use quantile::{NanNote, fraction, quantile, variance};
pub(crate) use text::{describe, test_expression};
pub(crate) use trim::trim;

/// Buckets by index, ascending.
pub(crate) type Sparse = Vec<(i32, f64)>;

/// The buckets of one side with their indexes.
pub(crate) fn sparse(spans: &[BucketSpan], buckets: &[f64]) -> Sparse {
    let mut out = Vec::with_capacity(buckets.len());
    let mut index = 0i32;
    let mut next = buckets.iter();
    for span in spans {
        index = index.wrapping_add(span.offset);
        for value in next.by_ref().take(span.length as usize) {
            out.push((index, *value));
            index = index.wrapping_add(1);
        }
    }
    out
}

/// Spans and populations of buckets.
pub(crate) fn dense(sparse: &[(i32, f64)]) -> (Vec<BucketSpan>, Vec<f64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut end = 0i32;
    for (index, _) in sparse {
        match spans.last_mut() {
            Some(span) if *index == end => span.length += 1,
            Some(_) => spans.push(BucketSpan { offset: index.wrapping_sub(end), length: 1 }),
            None => spans.push(BucketSpan { offset: *index, length: 1 }),
        }
        end = index.wrapping_add(1);
    }
    (spans, sparse.iter().map(|(_, value)| *value).collect())
}

/// Drops empty buckets.
pub(crate) fn compact(histogram: &mut FloatHistogram) {
    let tidy = |spans: &mut Vec<BucketSpan>, buckets: &mut Vec<f64>| {
        let mut all = sparse(spans, buckets);
        all.retain(|(_, population)| *population != 0.0);
        (*spans, *buckets) = dense(&all);
    };
    tidy(&mut histogram.positive_spans, &mut histogram.positive_buckets);
    tidy(&mut histogram.negative_spans, &mut histogram.negative_buckets);
}

/// How many float samples a histogram counts for: its size in bytes over the 16 of a float sample.
pub(crate) fn sample_weight(histogram: &FloatHistogram) -> u64 {
    let eights = histogram.positive_spans.len()
        + histogram.negative_spans.len()
        + histogram.positive_buckets.len()
        + histogram.negative_buckets.len()
        + histogram.custom_values.len();
    (168 + 8 * eights as u64 + 8) / 16
}

/// Whether spans and buckets agree in number, which everything here keeps up.
pub(crate) fn is_well_formed(histogram: &FloatHistogram) -> bool {
    let named = |spans: &[BucketSpan]| spans.iter().map(|span| span.length as usize).sum::<usize>();
    named(&histogram.positive_spans) == histogram.positive_buckets.len()
        && named(&histogram.negative_spans) == histogram.negative_buckets.len()
}
