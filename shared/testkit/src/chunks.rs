//! Reads the chunks of Prometheus: XOR chunks and chunks of float histograms. Written for itself and not beside the
//! code that writes them, so that a mistake is not made twice.

use anyhow::{Result, bail, ensure};

use crate::remote_read::{ReadHistogram, buckets};

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<bool> {
        let Some(byte) = self.bytes.get(self.at / 8) else { bail!("the chunk is cut off") };
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    fn bits(&mut self, count: u32) -> Result<u64> {
        (0..count).try_fold(0, |value, _| Ok(value << 1 | u64::from(self.bit()?)))
    }

    /// Bits that stand for numbers on both sides of zero, one more above it.
    fn signed(&mut self, count: u32) -> Result<i64> {
        let value = self.bits(count)?;
        if count == 64 || value <= 1 << (count - 1) {
            return Ok(value as i64);
        }
        Ok(value as i64 - (1i64 << count))
    }

    fn float(&mut self) -> Result<f64> {
        Ok(f64::from_bits(self.bits(64)?))
    }

    fn uvarint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bits(8)?;
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number without an end")
    }

    fn varint(&mut self) -> Result<i64> {
        let value = self.uvarint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// How many ones stand before a zero, at most so many.
    fn ones(&mut self, most: usize) -> Result<usize> {
        for ones in 0..most {
            if !self.bit()? {
                return Ok(ones);
            }
        }
        Ok(most)
    }

    fn varbit_size(&mut self) -> Result<u32> {
        Ok([0, 3, 6, 9, 12, 18, 25, 56, 64][self.ones(8)?])
    }

    fn varbit_int(&mut self) -> Result<i64> {
        match self.varbit_size()? {
            0 => Ok(0),
            size => self.signed(size),
        }
    }

    fn varbit_uint(&mut self) -> Result<u64> {
        let size = self.varbit_size()?;
        self.bits(size)
    }
}

/// A float after another one.
struct Xor {
    value: f64,
    leading: u32,
    significant: u32,
}

impl Xor {
    fn new(value: f64) -> Self {
        Self { value, leading: 0, significant: 0 }
    }

    fn next(&mut self, bits: &mut Bits<'_>) -> Result<f64> {
        if bits.bit()? {
            if bits.bit()? {
                self.leading = bits.bits(5)? as u32;
                self.significant = match bits.bits(6)? as u32 {
                    0 => 64,
                    some => some,
                };
            }
            ensure!(self.significant > 0, "a difference without bounds");
            let trailing = 64 - self.leading - self.significant;
            let delta = bits.bits(self.significant)? << trailing;
            self.value = f64::from_bits(self.value.to_bits() ^ delta);
        }
        Ok(self.value)
    }
}

fn count(data: &[u8], header: usize) -> Result<(usize, Bits<'_>)> {
    ensure!(data.len() >= header, "a chunk of {} bytes", data.len());
    Ok((usize::from(u16::from_be_bytes([data[0], data[1]])), Bits { bytes: &data[header..], at: 0 }))
}

/// The samples of an XOR chunk.
///
/// # Errors
/// When the chunk is broken.
pub fn floats(data: &[u8]) -> Result<Vec<(i64, f64)>> {
    let (count, mut bits) = count(data, 2)?;
    let mut samples = Vec::with_capacity(count);
    let (mut t_ms, mut step, mut value) = (0i64, 0i64, Xor::new(0.0));
    for at in 0..count {
        match at {
            0 => {
                t_ms = bits.varint()?;
                value = Xor::new(bits.float()?);
                samples.push((t_ms, value.value));
                continue;
            }
            1 => step = bits.uvarint()? as i64,
            _ => {
                let change = match bits.ones(4)? {
                    0 => 0,
                    ones => bits.signed([14, 17, 20, 64][ones - 1])?,
                };
                step = step.wrapping_add(change);
            }
        }
        t_ms = t_ms.wrapping_add(step);
        samples.push((t_ms, value.next(&mut bits)?));
    }
    Ok(samples)
}

fn zero_threshold(bits: &mut Bits<'_>) -> Result<f64> {
    Ok(match bits.bits(8)? {
        0 => 0.0,
        255 => bits.float()?,
        exponent => 0.5 * f64::powi(2.0, exponent as i32 - 243),
    })
}

fn spans(bits: &mut Bits<'_>) -> Result<Vec<(i32, u32)>> {
    let count = bits.varbit_uint()?;
    let mut spans = Vec::new();
    for _ in 0..count {
        let length = bits.varbit_uint()? as u32;
        spans.push((bits.varbit_int()? as i32, length));
    }
    Ok(spans)
}

fn custom_bounds(bits: &mut Bits<'_>) -> Result<Vec<f64>> {
    let count = bits.varbit_uint()?;
    let bound = |bits: &mut Bits<'_>| match bits.varbit_uint()? {
        0 => bits.float(),
        thousandths => Ok((thousandths - 1) as f64 / 1000.0),
    };
    (0..count).map(|_| bound(bits)).collect()
}

/// The samples of a chunk of float histograms; hints as readers tell them from the chunk.
///
/// # Errors
/// When the chunk is broken.
pub fn float_histograms(data: &[u8]) -> Result<Vec<(i64, ReadHistogram)>> {
    let (count, mut bits) = count(data, 3)?;
    let bits = &mut bits;
    let gauge = data[2] >> 6 == 3;
    let zero_threshold = zero_threshold(bits)?;
    let schema = bits.varbit_int()? as i32;
    let (positive, negative) = (spans(bits)?, spans(bits)?);
    let custom_values = if schema == -53 { custom_bounds(bits)? } else { vec![] };
    let populations = positive.iter().chain(&negative).map(|(_, length)| *length as usize).sum::<usize>();
    let split = positive.iter().map(|(_, length)| *length as usize).sum();
    let (mut t_ms, mut step) = (bits.varbit_int()?, 0);
    let mut values = (0..3 + populations).map(|_| Ok(Xor::new(bits.float()?))).collect::<Result<Vec<_>>>()?;
    let mut samples = Vec::with_capacity(count);
    for at in 0..count {
        if at > 0 {
            step += bits.varbit_int()?;
            t_ms += step;
            for value in &mut values {
                value.next(bits)?;
            }
        }
        let (numbers, populations) = values.split_at(3);
        let (of_positive, of_negative) = populations.split_at(split);
        let values = |of: &[Xor]| of.iter().map(|xor| xor.value).collect::<Vec<_>>();
        let histogram = ReadHistogram {
            hint: if gauge { 3 } else { i32::from(at > 0) * 2 },
            schema,
            zero_threshold,
            zero_count: numbers[1].value,
            count: numbers[0].value,
            sum: numbers[2].value,
            positive: buckets(positive.iter().copied(), values(of_positive)),
            negative: buckets(negative.iter().copied(), values(of_negative)),
            custom_values: custom_values.clone(),
        };
        samples.push((t_ms, histogram));
    }
    Ok(samples)
}
