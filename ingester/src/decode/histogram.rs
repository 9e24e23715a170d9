//! Native histograms of remote write: one message for versions 1.0 and 2.0.

use tricord_model::{BucketSpan, CounterResetHint, FloatHistogram, is_stale};

use super::Allowance;
use super::wire::{Field, Message, WireError, unzigzag};
use crate::Error;

/// A decoded histogram with its times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timed {
    /// The populations, absolute.
    pub histogram: FloatHistogram,
    /// Milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When counting began, or 0.
    pub start_ms: i64,
    /// Whether populations were sent as integers, whose sum must then be the count.
    integer: bool,
}

/// Reads a histogram message.
///
/// # Errors
/// [`Error::Invalid`] for what is not such a message, [`Error::TooLarge`] when the allowance is spent.
pub fn decode(bytes: &[u8], allowance: &mut Allowance) -> Result<Timed, Error> {
    // Deltas of one byte become floats of eight.
    allowance.charge(size_of::<FloatHistogram>() + 8 * bytes.len())?;
    let mut timed = Timed::default();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        let histogram = &mut timed.histogram;
        match number {
            1 => {
                histogram.count = field.varint(number)? as f64;
                timed.integer = true;
            }
            2 => histogram.count = field.double(number)?,
            3 => histogram.sum = field.double(number)?,
            4 => histogram.schema = field.zigzag(number)? as i32,
            5 => histogram.zero_threshold = field.double(number)?,
            6 => histogram.zero_count = field.varint(number)? as f64,
            7 => histogram.zero_count = field.double(number)?,
            8 => histogram.negative_spans.push(span(field.bytes(number)?)?),
            9 => deltas(number, field, &mut histogram.negative_buckets)?,
            10 => doubles(number, field, &mut histogram.negative_buckets)?,
            11 => histogram.positive_spans.push(span(field.bytes(number)?)?),
            12 => deltas(number, field, &mut histogram.positive_buckets)?,
            13 => doubles(number, field, &mut histogram.positive_buckets)?,
            14 => histogram.counter_reset_hint = CounterResetHint::from_number(field.varint(number)? as u8),
            15 => timed.t_ms = field.varint(number)? as i64,
            16 => doubles(number, field, &mut histogram.custom_values)?,
            17 => timed.start_ms = field.varint(number)? as i64,
            _ => {}
        }
    }
    Ok(timed)
}

impl Timed {
    /// Checks what Prometheus checks before it stores a histogram. A stale marker has nothing to check.
    ///
    /// # Errors
    /// A reason for people.
    pub fn check(&self) -> Result<(), String> {
        let histogram = &self.histogram;
        if is_stale(histogram.sum) {
            return Ok(());
        }
        histogram.validate().map_err(|error| error.to_string())?;
        if !self.integer {
            return Ok(());
        }
        let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
        let observed = buckets.sum::<f64>() + histogram.zero_count;
        // Observations of NaN are in the count and in no bucket.
        let fits =
            if histogram.sum.is_nan() { observed <= histogram.count } else { observed == histogram.count };
        if fits {
            Ok(())
        } else {
            Err(format!("histogram buckets hold {observed} observations, its count says {}", histogram.count))
        }
    }
}

fn span(bytes: &[u8]) -> Result<BucketSpan, WireError> {
    let mut span = BucketSpan::default();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => span.offset = field.zigzag(number)? as i32,
            2 => span.length = field.varint(number)? as u32,
            _ => {}
        }
    }
    Ok(span)
}

/// Differences between neighbouring populations, packed or one by one.
fn deltas(number: u32, field: Field<'_>, out: &mut Vec<f64>) -> Result<(), WireError> {
    // Populations of integer histograms fit a float exactly up to 2^53, so the last one can be read back from it.
    let mut population = out.last().map_or(0, |last| *last as i64);
    let mut push = |delta: i64| {
        population = population.wrapping_add(delta);
        out.push(population as f64);
    };
    match field {
        Field::Varint(value) => push(unzigzag(value)),
        Field::Bytes(packed) => {
            let mut packed = Message::new(packed);
            while !packed.is_empty() {
                push(unzigzag(packed.varint()?));
            }
        }
        _ => return Err(WireError::WrongType(number)),
    }
    Ok(())
}

fn doubles(number: u32, field: Field<'_>, out: &mut Vec<f64>) -> Result<(), WireError> {
    match field {
        Field::Fixed64(bits) => out.push(f64::from_bits(bits)),
        Field::Bytes(packed) => {
            let mut packed = Message::new(packed);
            while !packed.is_empty() {
                out.push(f64::from_bits(packed.fixed64()?));
            }
        }
        _ => return Err(WireError::WrongType(number)),
    }
    Ok(())
}
