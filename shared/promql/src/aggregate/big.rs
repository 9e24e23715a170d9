//! A fixed-point number wide enough for any sum of floats: the slow path where a plain float would overflow.

use super::exact::HUGE_SHIFT;

/// Bit 0 is `2^-1074`, the smallest float.
const LOWEST: i32 = -1074;
/// Room up to `2^1200`, far above any sum of floats.
const LIMBS: usize = (1074 + 1200 + HUGE_SHIFT as usize).div_ceil(64) + 1;

/// The positive and the negative summands, each summed up as a magnitude.
pub(super) struct BigSum {
    positive: [u64; LIMBS],
    negative: [u64; LIMBS],
}

impl BigSum {
    /// The sum of floats and of scaled huge floats.
    pub(super) fn of(parts: &[f64], huge: &[f64]) -> Self {
        let mut sum = Self { positive: [0; LIMBS], negative: [0; LIMBS] };
        parts.iter().for_each(|part| sum.add(*part, 0));
        huge.iter().for_each(|part| sum.add(*part, HUGE_SHIFT));
        sum
    }

    /// Adds `value * 2^shift` of a finite value.
    fn add(&mut self, value: f64, shift: i32) {
        let bits = value.to_bits();
        let biased = ((bits >> 52) & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) =
            if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        let at = (exponent + shift - LOWEST).max(0) as usize;
        let limbs = if value < 0.0 { &mut self.negative } else { &mut self.positive };
        let wide = u128::from(mantissa) << (at % 64);
        let mut carry = add_limb(limbs, at / 64, wide as u64, false);
        carry = add_limb(limbs, at / 64 + 1, (wide >> 64) as u64, carry);
        let mut next = at / 64 + 2;
        while carry {
            carry = add_limb(limbs, next, 0, true);
            next += 1;
        }
    }

    /// The float nearest to the number times `2^shift`, ties to even.
    pub(super) fn to_float(&self, shift: i32) -> f64 {
        let is_negative = self.negative.iter().rev().gt(self.positive.iter().rev());
        let (larger, smaller) =
            if is_negative { (&self.negative, &self.positive) } else { (&self.positive, &self.negative) };
        let mut limbs = *larger;
        let mut borrow = false;
        for (limb, subtrahend) in limbs.iter_mut().zip(smaller) {
            let (first, under) = limb.overflowing_sub(*subtrahend);
            let (second, under_again) = first.overflowing_sub(u64::from(borrow));
            *limb = second;
            borrow = under || under_again;
        }
        let magnitude = magnitude(&limbs, shift);
        if is_negative { -magnitude } else { magnitude }
    }
}

fn add_limb(limbs: &mut [u64; LIMBS], at: usize, value: u64, carry: bool) -> bool {
    let Some(limb) = limbs.get_mut(at) else { return false };
    let (first, over) = limb.overflowing_add(value);
    let (second, over_again) = first.overflowing_add(u64::from(carry));
    *limb = second;
    over || over_again
}

fn bit(limbs: &[u64; LIMBS], at: usize) -> bool {
    limbs[at / 64] >> (at % 64) & 1 == 1
}

fn magnitude(limbs: &[u64; LIMBS], shift: i32) -> f64 {
    let Some(top_limb) = limbs.iter().rposition(|limb| *limb != 0) else { return 0.0 };
    let top = top_limb * 64 + 63 - limbs[top_limb].leading_zeros() as usize;
    let low = top.saturating_sub(52);
    let mut mantissa = 0u64;
    for at in (low..=top).rev() {
        mantissa = mantissa << 1 | u64::from(bit(limbs, at));
    }
    if low > 0 && bit(limbs, low - 1) {
        let sticky = (0..low - 1).any(|at| bit(limbs, at));
        mantissa += u64::from(sticky || mantissa & 1 == 1);
    }
    // Two factors, as the power alone may be out of range; the product is exact but for overflow to infinity.
    let exponent = low as i32 + LOWEST + shift;
    let half = exponent / 2;
    mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
}
