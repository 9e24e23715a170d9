//! Native histograms as samples hold them: exponential buckets in spans, or custom bounds.

use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader, Writer};

/// The schema number of histograms with custom bounds (classic buckets stored natively).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known about a counter reset between a histogram and the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum CounterResetHint {
    /// Nothing is known: compare the buckets.
    #[default]
    Unknown = 0,
    /// A reset happened.
    Reset = 1,
    /// No reset happened.
    NotReset = 2,
    /// A gauge histogram, which has no resets.
    Gauge = 3,
}

impl CounterResetHint {
    /// The hint with this number; an unknown number tells nothing.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Reset,
            2 => Self::NotReset,
            3 => Self::Gauge,
            _ => Self::Unknown,
        }
    }
}

/// A run of neighbouring buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Gap to the previous span's end; for the first span the index of its first bucket.
    pub offset: i32,
    /// How many buckets follow one another.
    pub length: u32,
}

/// A native histogram with absolute bucket populations as floats.
///
/// Integer histograms are stored as floats too: populations are exact up to 2^53.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FloatHistogram {
    /// Whether the counter was reset before this sample.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution: bucket `i` ends at `2^(i * 2^-schema)`, for -4 to 8; [`CUSTOM_BUCKETS_SCHEMA`] for custom bounds.
    pub schema: i32,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Population of the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Runs of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Runs of negative buckets.
    pub negative_spans: Vec<Span>,
    /// Population of each positive bucket in the spans.
    pub positive_buckets: Vec<f64>,
    /// Population of each negative bucket in the spans.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds, ascending, without +Inf; only with [`CUSTOM_BUCKETS_SCHEMA`].
    pub custom_values: Vec<f64>,
}

/// Why a histogram is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// The schema is neither -4 to 8 nor the custom one.
    #[error("histogram schema {0} is not supported: use -4 to 8, or -53 for custom buckets")]
    Schema(i32),
    /// The spans name another number of buckets than are given.
    #[error("histogram spans need {spans} buckets, got {buckets}")]
    SpanMismatch {
        /// Sum of the spans' lengths.
        spans: u64,
        /// Buckets given.
        buckets: usize,
    },
    /// A span after the first goes backwards.
    #[error("histogram span number {0} has a negative offset")]
    NegativeOffset(usize),
    /// A population is negative.
    #[error("histogram bucket population {0} is negative")]
    NegativePopulation(String),
    /// Custom bounds are not ascending, infinite, or too few.
    #[error("histogram custom bounds are invalid: {0}")]
    CustomBounds(&'static str),
}

impl FloatHistogram {
    /// Whether the buckets have custom bounds.
    #[must_use]
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Checks what Prometheus checks before it stores a histogram.
    ///
    /// # Errors
    /// [`HistogramError`] with the first rule that is broken.
    pub fn validate(&self) -> Result<(), HistogramError> {
        if self.uses_custom_buckets() {
            self.validate_custom()?;
        } else if !(-4..=8).contains(&self.schema) {
            return Err(HistogramError::Schema(self.schema));
        } else if !self.custom_values.is_empty() {
            return Err(HistogramError::CustomBounds("given with an exponential schema"));
        }
        check_spans(&self.positive_spans, self.positive_buckets.len())?;
        check_spans(&self.negative_spans, self.negative_buckets.len())?;
        let populations = self.positive_buckets.iter().chain(&self.negative_buckets);
        match populations.chain([&self.zero_count, &self.count]).find(|population| **population < 0.0) {
            Some(population) => Err(HistogramError::NegativePopulation(population.to_string())),
            None => Ok(()),
        }
    }

    fn validate_custom(&self) -> Result<(), HistogramError> {
        let invalid = |why| Err(HistogramError::CustomBounds(why));
        if self
            .custom_values
            .windows(2)
            .any(|pair| pair[0].partial_cmp(&pair[1]) != Some(std::cmp::Ordering::Less))
        {
            return invalid("they must ascend");
        }
        if self.custom_values.iter().any(|bound| !bound.is_finite()) {
            return invalid("they must be finite");
        }
        if !self.negative_spans.is_empty() || !self.negative_buckets.is_empty() || self.zero_count != 0.0 {
            return invalid("negative buckets and a zero bucket are not allowed beside them");
        }
        let mut end = 0i64;
        for span in &self.positive_spans {
            end += i64::from(span.offset) + i64::from(span.length);
        }
        if end > self.custom_values.len() as i64 + 1 {
            return invalid("there are more buckets than bounds");
        }
        Ok(())
    }

    /// Appends the histogram to a buffer, to the bit.
    pub fn encode(&self, out: &mut Writer<'_>) {
        out.u8(self.counter_reset_hint as u8);
        out.i64(i64::from(self.schema));
        for value in [self.zero_threshold, self.zero_count, self.count, self.sum] {
            out.f64(value);
        }
        for spans in [&self.positive_spans, &self.negative_spans] {
            out.u64(spans.len() as u64);
            for span in spans {
                out.i64(i64::from(span.offset));
                out.u64(u64::from(span.length));
            }
        }
        for values in [&self.positive_buckets, &self.negative_buckets, &self.custom_values] {
            out.u64(values.len() as u64);
            values.iter().for_each(|value| out.f64(*value));
        }
    }

    /// Reads what [`FloatHistogram::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early or a number is out of range.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let signed = |value: i64| {
            i32::try_from(value).map_err(|_| CodecError::Invalid("number is longer than 32 bits"))
        };
        let mut histogram = Self {
            counter_reset_hint: CounterResetHint::from_number(input.u8()?),
            schema: signed(input.i64()?)?,
            zero_threshold: input.f64()?,
            zero_count: input.f64()?,
            count: input.f64()?,
            sum: input.f64()?,
            ..Self::default()
        };
        for spans in [&mut histogram.positive_spans, &mut histogram.negative_spans] {
            for _ in 0..input.count(2)? {
                spans.push(Span { offset: signed(input.i64()?)?, length: input.u32()? });
            }
        }
        for values in
            [&mut histogram.positive_buckets, &mut histogram.negative_buckets, &mut histogram.custom_values]
        {
            for _ in 0..input.count(8)? {
                values.push(input.f64()?);
            }
        }
        Ok(histogram)
    }
}

fn check_spans(spans: &[Span], buckets: usize) -> Result<(), HistogramError> {
    if let Some(at) = spans.iter().skip(1).position(|span| span.offset < 0) {
        return Err(HistogramError::NegativeOffset(at + 2));
    }
    let named = spans.iter().map(|span| u64::from(span.length)).sum();
    if named == buckets as u64 { Ok(()) } else { Err(HistogramError::SpanMismatch { spans: named, buckets }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> FloatHistogram {
        FloatHistogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: 1.0,
            count: 7.0,
            sum: -0.0,
            positive_spans: vec![Span { offset: -2, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            negative_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 4, length: 1 }],
            negative_buckets: vec![1.0, 2.0],
            custom_values: vec![],
        }
    }

    #[test]
    fn encoding_is_lossless() {
        let mut bytes = Vec::new();
        example().encode(&mut Writer::new(&mut bytes));
        let decoded = FloatHistogram::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(decoded, example());
        assert!(decoded.sum.is_sign_negative());
    }

    #[test]
    fn broken_histograms_are_refused() {
        assert_eq!(example().validate(), Ok(()));
        let broken = FloatHistogram { schema: 9, ..example() };
        assert_eq!(broken.validate(), Err(HistogramError::Schema(9)));
        let broken = FloatHistogram { positive_buckets: vec![1.0], ..example() };
        assert_eq!(broken.validate(), Err(HistogramError::SpanMismatch { spans: 2, buckets: 1 }));
        let broken = FloatHistogram { negative_buckets: vec![1.0, -1.0], ..example() };
        assert!(matches!(broken.validate(), Err(HistogramError::NegativePopulation(_))));
    }
}
