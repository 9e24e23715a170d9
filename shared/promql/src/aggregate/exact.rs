//! Sums that do not depend on the order or the grouping of their summands.
//!
//! A sum is kept exactly, as an expansion of floats that do not overlap (Shewchuk 1997), and rounded once at the end.
//! So any split of the series over shards and nodes, merged in any order, gives the same bits.

use smallvec::SmallVec;
use tricord_model::codec::{CodecError, Reader, Writer};

use super::big::BigSum;

/// From this magnitude on summands are kept apart, scaled down, so that no partial sum overflows.
const HUGE: f64 = f64::from_bits((1023 + 900) << 52);
/// The power of two by which huge summands are scaled down.
pub(super) const HUGE_SHIFT: i32 = 200;
const SCALE_DOWN: f64 = f64::from_bits((1023 - 200) << 52);

/// Sums of parts stay far below this, whatever is added.
const LARGEST_PART: f64 = f64::from_bits((1023 + 1010) << 52);

const NAN: u8 = 1;
const POSITIVE_INFINITY: u8 = 2;
const NEGATIVE_INFINITY: u8 = 4;
/// A negative zero was added.
const NEGATIVE_ZERO: u8 = 8;
/// Anything else was added.
const OTHER: u8 = 16;

/// An exact sum of floats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExactSum {
    /// Ascending by magnitude, without overlap.
    parts: SmallVec<[f64; 2]>,
    /// The same for huge summands, each times `2^-HUGE_SHIFT`.
    #[expect(clippy::box_collection, reason = "there is a sum per step, and nearly none has huge summands")]
    huge: Option<Box<Vec<f64>>>,
    flags: u8,
}

/// `a + b` as the rounded sum and its error.
#[inline]
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

/// `a * b` as the rounded product and its error.
#[inline]
pub(super) fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    (product, a.mul_add(b, -product))
}

/// Where the expansion of a sum is kept.
trait Expansion {
    fn parts(&mut self) -> &mut [f64];
    fn replace_tail(&mut self, kept: usize, last: f64);
}

impl Expansion for SmallVec<[f64; 2]> {
    #[inline]
    fn parts(&mut self) -> &mut [f64] {
        self
    }

    #[inline]
    fn replace_tail(&mut self, kept: usize, last: f64) {
        self.truncate(kept);
        if last != 0.0 {
            self.push(last);
        }
    }
}

impl Expansion for Vec<f64> {
    #[inline]
    fn parts(&mut self) -> &mut [f64] {
        self
    }

    #[inline]
    fn replace_tail(&mut self, kept: usize, last: f64) {
        self.truncate(kept);
        if last != 0.0 {
            self.push(last);
        }
    }
}

#[inline]
fn grow(expansion: &mut impl Expansion, mut value: f64) {
    let parts = expansion.parts();
    let mut kept = 0;
    for i in 0..parts.len() {
        let (sum, error) = two_sum(value, parts[i]);
        if error != 0.0 {
            parts[kept] = error;
            kept += 1;
        }
        value = sum;
    }
    expansion.replace_tail(kept, value);
}

/// The float nearest to the value of an expansion, ties to even.
fn round(parts: &[f64]) -> f64 {
    let Some((last, rest)) = parts.split_last() else { return 0.0 };
    let mut sum = *last;
    let mut rest = rest.iter().rev();
    while let Some(part) = rest.next() {
        let (rounded, error) = two_sum(sum, *part);
        sum = rounded;
        if error != 0.0 {
            // The error is exactly half a unit in the last place: what comes after it decides.
            if rest.next().is_some_and(|next| (*next < 0.0) == (error < 0.0)) {
                let twice = error * 2.0;
                let moved = sum + twice;
                if moved - sum == twice {
                    sum = moved;
                }
            }
            break;
        }
    }
    sum
}

impl ExactSum {
    /// The kinds of a sum to which ordinary values alone were added.
    pub(super) const ORDINARY: u8 = OTHER;

    /// Whether a value can be added without a look at its kind: it is finite, far from overflow and no negative zero.
    #[inline]
    pub(super) fn is_ordinary(value: f64) -> bool {
        (value.abs() < HUGE) & (value.to_bits() != 1 << 63)
    }

    /// Whether a float can be a part of a sum.
    #[inline]
    pub(super) fn is_part(value: f64) -> bool {
        value.abs() < LARGEST_PART
    }

    /// The sum of some parts, to which values of some kinds were added.
    pub(super) fn of_parts<const N: usize>(kinds: u8, parts: [f64; N]) -> Self {
        let mut sum = Self { flags: kinds, ..Self::default() };
        parts.into_iter().filter(|part| *part != 0.0).for_each(|part| grow(&mut sum.parts, part));
        sum
    }

    /// Adds a float.
    #[inline]
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.flags |= if value.is_nan() {
                NAN
            } else if value > 0.0 {
                POSITIVE_INFINITY
            } else {
                NEGATIVE_INFINITY
            };
            return;
        }
        self.flags |= if value == 0.0 && value.is_sign_negative() { NEGATIVE_ZERO } else { OTHER };
        if value.abs() >= HUGE {
            grow(self.huge.get_or_insert_default().as_mut(), value * SCALE_DOWN);
        } else {
            self.add_part(value);
        }
    }

    /// Adds a float that is known to be far from overflow.
    #[inline]
    pub(super) fn add_part(&mut self, value: f64) {
        self.flags |= OTHER * u8::from(value != 0.0);
        grow(&mut self.parts, value);
    }

    #[inline]
    pub(super) fn parts(&self) -> &[f64] {
        &self.parts
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.flags |= other.flags;
        other.parts.iter().for_each(|part| grow(&mut self.parts, *part));
        if let Some(huge) = &other.huge {
            let own = self.huge.get_or_insert_default();
            huge.iter().for_each(|part| grow(own.as_mut(), *part));
        }
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flags == 0
    }

    /// Whether NaN or an infinity was added.
    pub(super) fn is_special(&self) -> bool {
        self.flags & (NAN | POSITIVE_INFINITY | NEGATIVE_INFINITY) != 0
    }

    fn special(&self) -> Option<f64> {
        match self.flags & (NAN | POSITIVE_INFINITY | NEGATIVE_INFINITY) {
            0 => None,
            POSITIVE_INFINITY => Some(f64::INFINITY),
            NEGATIVE_INFINITY => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    /// The sum, rounded once.
    #[must_use]
    pub fn value(&self) -> f64 {
        if let Some(special) = self.special() {
            return special;
        }
        let value = match &self.huge {
            None => round(&self.parts),
            Some(huge) => BigSum::of(&self.parts, huge).to_float(0),
        };
        // Negative zeros alone stay what they are.
        if value == 0.0 { if self.flags == NEGATIVE_ZERO { -0.0 } else { 0.0 } } else { value }
    }

    /// The sum over a count, also where the sum alone is past the largest float.
    #[must_use]
    pub fn mean(&self, count: u64) -> f64 {
        let value = self.value();
        if value.is_finite() || self.is_special() {
            return value / count as f64;
        }
        let huge = self.huge.as_ref().map_or(&[][..], |huge| huge.as_slice());
        let scaled = BigSum::of(&self.parts, huge).to_float(-64);
        scaled / count as f64 * 2f64.powi(64)
    }

    /// Appends the sum to a buffer.
    pub fn encode(&self, out: &mut Writer<'_>) {
        out.u8(self.flags | (u8::from(self.huge.is_some()) << 7));
        out.u64(self.parts.len() as u64);
        self.parts.iter().for_each(|part| out.f64(*part));
        if let Some(huge) = &self.huge {
            out.u64(huge.len() as u64);
            huge.iter().for_each(|part| out.f64(*part));
        }
    }

    /// Reads what [`ExactSum::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, or hold what no sum has.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let head = input.u8()?;
        let mut sum = Self { flags: head & 0x7f, ..Self::default() };
        let part = |input: &mut Reader<'_>| match input.f64()? {
            part if Self::is_part(part) => Ok(part),
            _ => Err(CodecError::Invalid("part of a sum is out of range")),
        };
        for _ in 0..input.count(8)? {
            sum.parts.push(part(input)?);
        }
        if head & 0x80 != 0 {
            let huge = sum.huge.get_or_insert_default();
            for _ in 0..input.count(8)? {
                huge.push(part(input)?);
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum
    }

    #[test]
    fn cancellation_is_exact() {
        assert_eq!(sum(&[1e100, 1.0, -1e100]).value(), 1.0);
        assert_eq!(sum(&[0.1; 10]).value(), 1.0);
        assert_eq!(sum(&[1e308, 1e308, -1e308, 3.0, -1e308]).value(), 3.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).mean(2), f64::MAX);
        assert_eq!(sum(&[-0.0, -0.0]).value().to_bits(), (-0.0f64).to_bits());
        assert_eq!(sum(&[-0.0, 0.0]).value().to_bits(), 0);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).value().is_nan());
        assert_eq!(sum(&[f64::INFINITY, 1.0]).value(), f64::INFINITY);
    }

    #[test]
    fn halves_are_rounded_by_what_follows() {
        let ulp = f64::EPSILON;
        assert_eq!(sum(&[1.0, ulp / 2.0]).value(), 1.0);
        assert_eq!(sum(&[1.0, ulp / 2.0, 1e-300]).value(), 1.0 + ulp);
        assert_eq!(sum(&[1.0 + ulp, ulp / 2.0, -1e-300]).value(), 1.0 + ulp);
    }

    /// Floats of all magnitudes, signs and kinds.
    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => any::<f64>().prop_filter("finite", |value| value.is_finite()),
            6 => -1e6..1e6,
            1 => Just(f64::MAX),
            1 => Just(-f64::MAX),
            1 => Just(f64::MIN_POSITIVE / 8.0),
            1 => Just(-0.0),
        ]
    }

    proptest! {
        #[test]
        fn any_order_and_split_give_the_same_bits(
            values in prop::collection::vec(any_float(), 1..40),
            seed in prop::collection::vec(0usize..5, 40),
        ) {
            let whole = sum(&values);
            let mut shards = vec![ExactSum::default(); 5];
            for (value, shard) in values.iter().zip(&seed).rev() {
                shards[*shard].add(*value);
            }
            let mut merged = ExactSum::default();
            for shard in shards.iter().rev() {
                let mut bytes = Vec::new();
                shard.encode(&mut Writer::new(&mut bytes));
                merged.merge(&ExactSum::decode(&mut Reader::new(&bytes)).unwrap());
            }
            prop_assert_eq!(whole.value().to_bits(), merged.value().to_bits());
            prop_assert_eq!(whole.mean(7).to_bits(), merged.mean(7).to_bits());
        }

        #[test]
        fn the_big_sum_agrees_with_the_expansion(values in prop::collection::vec(-1e200f64..1e200, 1..20)) {
            let sum = sum(&values);
            prop_assert_eq!(sum.value().to_bits(), BigSum::of(&sum.parts, &[]).to_float(0).to_bits());
        }
    }
}
