//! Native histograms as a chunk of float histograms: one layout of buckets for the whole chunk, then per sample its
//! time and the differences of its numbers' bits.

use tricord_model::{BucketSpan, CounterResetHint, FloatHistogram, is_stale};
use tricord_promql::storage::stored_reset_hint;

use super::bits::{Bits, XorFloat};

/// What a chunk's header says of its first sample.
const HEADER_RESET: u8 = 0b1000_0000;
const HEADER_NO_RESET: u8 = 0b0100_0000;
const HEADER_GAUGE: u8 = 0b1100_0000;

/// A chunk in the making.
pub(super) struct HistogramChunk {
    out: Bits,
    count: u16,
    first: FloatHistogram,
    last: FloatHistogram,
    last_ms: i64,
    step: i64,
    numbers: [XorFloat; 3],
    buckets: Vec<XorFloat>,
}

impl HistogramChunk {
    /// A chunk with its first sample, which decides the layout.
    pub(super) fn new(t_ms: i64, histogram: &FloatHistogram) -> Self {
        let flags = match histogram.counter_reset_hint {
            CounterResetHint::Gauge => HEADER_GAUGE,
            CounterResetHint::Reset => HEADER_RESET,
            CounterResetHint::NotReset => HEADER_NO_RESET,
            CounterResetHint::Unknown => 0,
        };
        // Of a stale marker only the sum counts.
        let first = match is_stale(histogram.sum) {
            true => FloatHistogram { sum: histogram.sum, ..FloatHistogram::default() },
            false => histogram.clone(),
        };
        let mut out = Bits::after(&[0, 0, flags]);
        write_layout(&first, &mut out);
        out.varbit_int(t_ms);
        let numbers = [first.count, first.zero_count, first.sum];
        let buckets: Vec<f64> = buckets(&first).collect();
        numbers.iter().chain(&buckets).for_each(|value| out.float(*value));
        Self {
            out,
            count: 1,
            numbers: numbers.map(XorFloat::new),
            buckets: buckets.into_iter().map(XorFloat::new).collect(),
            last: first.clone(),
            first,
            last_ms: t_ms,
            step: 0,
        }
    }

    /// Whether a sample may follow: with the layout of the chunk, and without a counter reset, as readers take every
    /// sample but the first for one without.
    pub(super) fn takes(&self, histogram: &FloatHistogram) -> bool {
        let first = &self.first;
        let same_layout = histogram.schema == first.schema
            && histogram.zero_threshold == first.zero_threshold
            && histogram.positive_spans == first.positive_spans
            && histogram.negative_spans == first.negative_spans
            && histogram.custom_values == first.custom_values;
        if !same_layout || is_stale(histogram.sum) || is_stale(first.sum) {
            return false;
        }
        let gauge = CounterResetHint::Gauge;
        match (first.counter_reset_hint == gauge, histogram.counter_reset_hint == gauge) {
            (true, true) => true,
            (false, false) => stored_reset_hint(Some(&self.last), histogram) == CounterResetHint::NotReset,
            _ => false,
        }
    }

    /// Appends a sample that the chunk takes.
    pub(super) fn push(&mut self, t_ms: i64, histogram: &FloatHistogram) {
        let step = t_ms.wrapping_sub(self.last_ms);
        self.out.varbit_int(step.wrapping_sub(self.step));
        (self.last_ms, self.step) = (t_ms, step);
        let numbers = [histogram.count, histogram.zero_count, histogram.sum];
        for (known, next) in self.numbers.iter_mut().zip(numbers) {
            known.write(next, &mut self.out);
        }
        for (known, next) in self.buckets.iter_mut().zip(buckets(histogram)) {
            known.write(next, &mut self.out);
        }
        self.last.clone_from(histogram);
        self.count = self.count.saturating_add(1);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out.finish(self.count)
    }
}

fn buckets(histogram: &FloatHistogram) -> impl Iterator<Item = f64> + '_ {
    histogram.positive_buckets.iter().chain(&histogram.negative_buckets).copied()
}

fn write_layout(histogram: &FloatHistogram, out: &mut Bits) {
    write_zero_threshold(histogram.zero_threshold, out);
    out.varbit_int(i64::from(histogram.schema));
    write_spans(&histogram.positive_spans, out);
    write_spans(&histogram.negative_spans, out);
    if histogram.uses_custom_buckets() {
        out.varbit_uint(histogram.custom_values.len() as u64);
        histogram.custom_values.iter().for_each(|bound| write_bound(*bound, out));
    }
}

fn write_spans(spans: &[BucketSpan], out: &mut Bits) {
    out.varbit_uint(spans.len() as u64);
    for span in spans {
        out.varbit_uint(u64::from(span.length));
        out.varbit_int(i64::from(span.offset));
    }
}

/// Zero and powers of two from 2^-243 to 2^10 in one byte, others in nine.
fn write_zero_threshold(threshold: f64, out: &mut Bits) {
    if threshold == 0.0 {
        return out.bits(0, 8);
    }
    let bits = threshold.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let is_power = bits & ((1 << 52) - 1) == 0;
    if is_power && (-243..=10).contains(&exponent) {
        return out.bits((exponent + 244) as u64, 8);
    }
    out.bits(255, 8);
    out.float(threshold);
}

/// Bounds of whole thousandths up to 33554.43 as numbers, others as floats behind a zero.
fn write_bound(bound: f64, out: &mut Bits) {
    let thousandths = bound * 1000.0;
    let whole = thousandths.round() / 1000.0 == bound;
    if !whole || !(0.0..=33_554_430.0).contains(&thousandths) {
        out.bit(false);
        return out.float(bound);
    }
    out.varbit_uint(thousandths.round() as u64 + 1);
}
