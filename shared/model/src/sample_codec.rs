//! Samples and exemplars as bytes: in batches, in log entries and in blocks.

use std::sync::Arc;

use crate::codec::{CodecError, Reader, Writer};
use crate::{Exemplar, FloatHistogram, Labels, Sample, Value};

/// Appends samples: times as differences, values tagged by their kind.
pub fn encode_samples(samples: &[Sample], out: &mut Writer<'_>) {
    out.u64(samples.len() as u64);
    let mut previous = 0;
    for sample in samples {
        out.i64(sample.t_ms.wrapping_sub(previous));
        previous = sample.t_ms;
        let tag = u8::from(matches!(sample.value, Value::Histogram(_))) | u8::from(sample.start_ms != 0) << 1;
        out.u8(tag);
        if sample.start_ms != 0 {
            out.i64(sample.t_ms.wrapping_sub(sample.start_ms));
        }
        match &sample.value {
            Value::Float(value) => out.f64(*value),
            Value::Histogram(histogram) => histogram.encode(out),
        }
    }
}

/// Reads what [`encode_samples`] wrote.
///
/// # Errors
/// [`CodecError`] when the bytes end early or are malformed.
pub fn decode_samples(input: &mut Reader<'_>) -> Result<Vec<Sample>, CodecError> {
    let mut samples = Vec::new();
    decode_samples_into(input, &mut samples)?;
    Ok(samples)
}

/// As [`decode_samples`], behind what `samples` holds.
///
/// # Errors
/// As [`decode_samples`].
#[inline]
pub fn decode_samples_into(input: &mut Reader<'_>, samples: &mut Vec<Sample>) -> Result<(), CodecError> {
    let count = input.count(10)?;
    samples.reserve(count);
    let mut previous = 0i64;
    for _ in 0..count {
        let t_ms = previous.wrapping_add(input.i64()?);
        previous = t_ms;
        let tag = input.u8()?;
        let start_ms = if tag & 2 != 0 { t_ms.wrapping_sub(input.i64()?) } else { 0 };
        let value = match tag & 1 {
            0 => Value::Float(input.f64()?),
            _ => Value::Histogram(Arc::new(FloatHistogram::decode(input)?)),
        };
        samples.push(Sample { t_ms, start_ms, value });
    }
    Ok(())
}

/// Appends exemplars.
pub fn encode_exemplars(exemplars: &[Exemplar], out: &mut Writer<'_>) {
    out.u64(exemplars.len() as u64);
    for exemplar in exemplars {
        exemplar.labels.encode(out);
        out.i64(exemplar.t_ms);
        out.f64(exemplar.value);
    }
}

/// Reads what [`encode_exemplars`] wrote.
///
/// # Errors
/// [`CodecError`] when the bytes end early or are malformed.
pub fn decode_exemplars(input: &mut Reader<'_>) -> Result<Vec<Exemplar>, CodecError> {
    let count = input.count(10)?;
    (0..count)
        .map(|_| Ok(Exemplar { labels: Labels::decode(input)?, t_ms: input.i64()?, value: input.f64()? }))
        .collect()
}
