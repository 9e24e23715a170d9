//! Sums of native histograms that do not depend on the order of their summands.
//!
//! Histograms of one layout add up bucket by bucket, exactly. Different layouts are summed apart and combined at the end
//! in the layouts' own order, since widening a zero bucket and coarsening a schema do not commute.

use std::collections::BTreeMap;

use tricord_model::codec::{CodecError, Reader, Writer};
use tricord_model::{CounterResetHint, FloatHistogram};

use super::exact::ExactSum;
use crate::histogram::{self, dense, sparse};

/// What makes two histograms add up bucket by bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Layout {
    schema: i32,
    zero_threshold_bits: u64,
    custom_bits: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
struct LayoutSum {
    count: ExactSum,
    sum: ExactSum,
    zero: ExactSum,
    positive: BTreeMap<i32, ExactSum>,
    negative: BTreeMap<i32, ExactSum>,
}

/// A sum of histograms.
#[derive(Clone, Debug, Default)]
pub struct HistogramSum {
    layouts: BTreeMap<Layout, LayoutSum>,
    /// A bit per counter reset hint that was seen.
    hints: u8,
}

/// What the reader of a sum should know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SumNotes {
    /// Counters after a reset met counters without one.
    pub(crate) reset_collision: bool,
    /// Custom bounds differed and were cut to those in common.
    pub(crate) bounds_reconciled: bool,
}

fn hint_bit(hint: CounterResetHint) -> u8 {
    1 << hint as u8
}

impl HistogramSum {
    pub(crate) fn add(&mut self, histogram: &FloatHistogram) {
        self.hints |= hint_bit(histogram.counter_reset_hint);
        let layout = Layout {
            schema: histogram.schema,
            zero_threshold_bits: histogram.zero_threshold.to_bits(),
            custom_bits: histogram.custom_values.iter().map(|bound| bound.to_bits()).collect(),
        };
        let sum = self.layouts.entry(layout).or_default();
        sum.count.add(histogram.count);
        sum.sum.add(histogram.sum);
        sum.zero.add(histogram.zero_count);
        for (index, population) in sparse(&histogram.positive_spans, &histogram.positive_buckets) {
            sum.positive.entry(index).or_default().add(population);
        }
        for (index, population) in sparse(&histogram.negative_spans, &histogram.negative_buckets) {
            sum.negative.entry(index).or_default().add(population);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.hints |= other.hints;
        for (layout, theirs) in &other.layouts {
            let own = self.layouts.entry(layout.clone()).or_default();
            own.count.merge(&theirs.count);
            own.sum.merge(&theirs.sum);
            own.zero.merge(&theirs.zero);
            for (index, population) in &theirs.positive {
                own.positive.entry(*index).or_default().merge(population);
            }
            for (index, population) in &theirs.negative {
                own.negative.entry(*index).or_default().merge(population);
            }
        }
    }

    fn hint(&self) -> CounterResetHint {
        if self.hints & hint_bit(CounterResetHint::Gauge) != 0 {
            return CounterResetHint::Gauge;
        }
        [CounterResetHint::Reset, CounterResetHint::NotReset]
            .into_iter()
            .find(|hint| self.hints == hint_bit(*hint))
            .unwrap_or_default()
    }

    /// The sum over a count (1 for the sum itself); `None` where exponential and custom buckets met.
    pub(crate) fn finish(&self, count: u64) -> (Option<FloatHistogram>, SumNotes) {
        let both = hint_bit(CounterResetHint::Reset) | hint_bit(CounterResetHint::NotReset);
        let mut notes = SumNotes { reset_collision: self.hints & both == both, bounds_reconciled: false };
        let mut total: Option<FloatHistogram> = None;
        for (layout, sum) in &self.layouts {
            let next = layout_total(layout, sum, count);
            match &mut total {
                None => total = Some(next),
                Some(total) => match histogram::add(total, &next) {
                    Ok(combined) => notes.bounds_reconciled |= combined.bounds_reconciled,
                    Err(histogram::Incompatible) => return (None, notes),
                },
            }
        }
        if let Some(total) = &mut total {
            total.counter_reset_hint = self.hint();
            histogram::compact(total);
        }
        (total, notes)
    }

    pub(super) fn encode(&self, out: &mut Writer<'_>) {
        out.u8(self.hints);
        out.u64(self.layouts.len() as u64);
        for (layout, sum) in &self.layouts {
            out.i64(i64::from(layout.schema));
            out.f64(f64::from_bits(layout.zero_threshold_bits));
            out.u64(layout.custom_bits.len() as u64);
            layout.custom_bits.iter().for_each(|bits| out.f64(f64::from_bits(*bits)));
            sum.count.encode(out);
            sum.sum.encode(out);
            sum.zero.encode(out);
            for side in [&sum.positive, &sum.negative] {
                out.u64(side.len() as u64);
                for (index, population) in side {
                    out.i64(i64::from(*index));
                    population.encode(out);
                }
            }
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let signed = |value: i64| {
            i32::try_from(value).map_err(|_| CodecError::Invalid("number is longer than 32 bits"))
        };
        let mut out = Self { hints: input.u8()?, ..Self::default() };
        for _ in 0..input.count(17)? {
            let schema = signed(input.i64()?)?;
            if schema != tricord_model::CUSTOM_BUCKETS_SCHEMA && !(-4..=8).contains(&schema) {
                return Err(CodecError::Invalid("unknown histogram schema"));
            }
            let zero_threshold_bits = input.f64()?.to_bits();
            let mut custom_bits = Vec::new();
            for _ in 0..input.count(8)? {
                custom_bits.push(input.f64()?.to_bits());
            }
            let mut sum = LayoutSum {
                count: ExactSum::decode(input)?,
                sum: ExactSum::decode(input)?,
                zero: ExactSum::decode(input)?,
                ..LayoutSum::default()
            };
            for side in [&mut sum.positive, &mut sum.negative] {
                for _ in 0..input.count(3)? {
                    let index = signed(input.i64()?)?;
                    side.insert(index, ExactSum::decode(input)?);
                }
            }
            out.layouts.insert(Layout { schema, zero_threshold_bits, custom_bits }, sum);
        }
        Ok(out)
    }
}

fn layout_total(layout: &Layout, sum: &LayoutSum, count: u64) -> FloatHistogram {
    let side = |side: &BTreeMap<i32, ExactSum>| {
        let values: Vec<(i32, f64)> = side.iter().map(|(index, sum)| (*index, sum.mean(count))).collect();
        dense(&values)
    };
    let (positive_spans, positive_buckets) = side(&sum.positive);
    let (negative_spans, negative_buckets) = side(&sum.negative);
    FloatHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: layout.schema,
        zero_threshold: f64::from_bits(layout.zero_threshold_bits),
        zero_count: sum.zero.mean(count),
        count: sum.count.mean(count),
        sum: sum.sum.mean(count),
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values: layout.custom_bits.iter().map(|bits| f64::from_bits(*bits)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tricord_model::BucketSpan;

    use super::*;

    fn any_histogram() -> impl Strategy<Value = FloatHistogram> {
        (0i32..3, 0usize..3, prop::collection::vec(0.0f64..10.0, 1..6), -4i32..4).prop_map(
            |(schema, zero, buckets, offset)| FloatHistogram {
                schema,
                zero_threshold: [0.0, 0.001, 0.5][zero],
                zero_count: zero as f64,
                count: buckets.iter().sum::<f64>() + zero as f64,
                sum: buckets.iter().sum(),
                positive_spans: vec![BucketSpan { offset, length: buckets.len() as u32 }],
                positive_buckets: buckets,
                ..FloatHistogram::default()
            },
        )
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_histogram(
            histograms in prop::collection::vec(any_histogram(), 1..12),
            at in 0usize..12,
        ) {
            let of = |histograms: &[FloatHistogram]| {
                let mut sum = HistogramSum::default();
                histograms.iter().for_each(|histogram| sum.add(histogram));
                sum
            };
            let whole = of(&histograms);
            let (left, right) = histograms.split_at(at.min(histograms.len()));
            let mut merged = of(right);
            let mut bytes = Vec::new();
            of(left).encode(&mut Writer::new(&mut bytes));
            merged.merge(&HistogramSum::decode(&mut Reader::new(&bytes)).unwrap());
            prop_assert_eq!(whole.finish(1).0, merged.finish(1).0);
            prop_assert_eq!(whole.finish(3).0, merged.finish(3).0);
        }
    }
}
