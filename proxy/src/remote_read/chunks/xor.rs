//! Floats as an XOR chunk: a count, the first time and value, then differences of differences of times and differences
//! of the values' bits.

use super::bits::{Bits, XorFloat, fits};

/// Sizes for a difference of two steps in time, with the prefix of each.
const STEPS: [(u64, u32, u32); 3] = [(0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)];

/// Samples, ascending by time, at most 65,535 of them, as the bytes of a chunk.
pub(super) fn encode(t_ms: &[i64], values: &[f64]) -> Vec<u8> {
    let mut out = Bits::after(&[0, 0]);
    let mut samples = t_ms.iter().zip(values);
    let Some((first_ms, first)) = samples.next() else { return out.finish(0) };
    out.varint(*first_ms);
    out.float(*first);
    let (mut last_ms, mut value, mut step, mut count) = (*first_ms, XorFloat::new(*first), None, 1u16);
    for (t_ms, next) in samples {
        let delta = t_ms.wrapping_sub(last_ms);
        match step {
            None => out.uvarint(delta as u64),
            Some(step) => write_step(delta.wrapping_sub(step), &mut out),
        }
        value.write(*next, &mut out);
        (last_ms, step) = (*t_ms, Some(delta));
        count = count.saturating_add(1);
    }
    out.finish(count)
}

fn write_step(change: i64, out: &mut Bits) {
    if change == 0 {
        return out.bit(false);
    }
    match STEPS.iter().find(|(_, _, size)| fits(change, *size)) {
        Some((prefix, length, size)) => {
            out.bits(*prefix, *length);
            out.bits(change as u64, *size);
        }
        None => {
            out.bits(0b1111, 4);
            out.bits(change as u64, 64);
        }
    }
}
