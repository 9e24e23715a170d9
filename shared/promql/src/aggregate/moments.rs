//! Variance that does not depend on the order of its values: count, exact sum, exact sum of squares.

use tricord_model::codec::{CodecError, Reader, Writer};

use super::exact::{ExactSum, two_product};

/// From this magnitude on squares come near overflow; such values are kept as they are.
const EXTREME: f64 = f64::from_bits((1023 + 450) << 52);
/// Brings extreme values back to where their squares fit.
const SCALE: f64 = f64::from_bits((1023 - 600) << 52);

/// What variance and standard deviation need to know of a group at one step.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    count: u64,
    sum: ExactSum,
    squares: ExactSum,
    /// Values whose squares would overflow; rare.
    #[expect(clippy::box_collection, reason = "there is a state per step, and nearly none has extremes")]
    extremes: Option<Box<Vec<f64>>>,
}

impl Moments {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, value: f64) {
        self.count += 1;
        if value.is_finite() && value.abs() >= EXTREME {
            self.extremes.get_or_insert_default().push(value);
            return;
        }
        self.sum.add(value);
        if value.is_finite() {
            let (square, error) = two_product(value, value);
            self.squares.add_part(square);
            self.squares.add_part(error);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
        if let Some(extremes) = &other.extremes {
            self.extremes.get_or_insert_default().extend_from_slice(extremes);
        }
    }

    /// The population variance as `value * factor^2`.
    fn scaled_variance(&self) -> (f64, f64) {
        if self.sum.is_special() {
            return (f64::NAN, 1.0);
        }
        if let Some(extremes) = &self.extremes {
            return (self.extreme_variance(extremes), 1.0 / SCALE);
        }
        // count * squares - sum^2, exactly; only then rounded.
        let count = self.count as f64;
        let mut numerator = ExactSum::default();
        for square in self.squares.parts() {
            let (product, error) = two_product(*square, count);
            numerator.add_part(product);
            numerator.add_part(error);
        }
        for a in self.sum.parts() {
            for b in self.sum.parts() {
                let (product, error) = two_product(-a, *b);
                numerator.add_part(product);
                numerator.add_part(error);
            }
        }
        (numerator.value().max(0.0) / count / count, 1.0)
    }

    fn extreme_variance(&self, extremes: &[f64]) -> f64 {
        let mut sorted: Vec<f64> = extremes.iter().map(|value| value * SCALE).collect();
        sorted.sort_by(f64::total_cmp);
        let mut total = ExactSum::default();
        sorted.iter().for_each(|value| total.add_part(*value));
        let rest = self.sum.value() * SCALE;
        total.add_part(rest);
        let count = self.count as f64;
        let mean = total.value() / count;
        let mut squares = ExactSum::default();
        sorted.iter().for_each(|value| squares.add_part((value - mean) * (value - mean)));
        let others = (self.count - sorted.len() as u64) as f64;
        squares.add_part(self.squares.value() * SCALE * SCALE - 2.0 * mean * rest + others * mean * mean);
        squares.value().max(0.0) / count
    }

    pub(super) fn variance(&self) -> f64 {
        let (variance, factor) = self.scaled_variance();
        variance * factor * factor
    }

    pub(super) fn deviation(&self) -> f64 {
        let (variance, factor) = self.scaled_variance();
        variance.sqrt() * factor
    }

    pub(super) fn encode(&self, out: &mut Writer<'_>) {
        out.u64(self.count);
        self.sum.encode(out);
        self.squares.encode(out);
        let extremes = self.extremes.as_ref().map_or(&[][..], |extremes| extremes.as_slice());
        out.u64(extremes.len() as u64);
        extremes.iter().for_each(|value| out.f64(*value));
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut moments = Self {
            count: input.u64()?,
            sum: ExactSum::decode(input)?,
            squares: ExactSum::decode(input)?,
            extremes: None,
        };
        let extremes = input.count(8)?;
        if extremes as u64 > moments.count {
            return Err(CodecError::Invalid("more extreme values than values"));
        }
        for _ in 0..extremes {
            moments.extremes.get_or_insert_default().push(input.f64()?);
        }
        Ok(moments)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.add(*value));
        moments
    }

    #[test]
    fn variance_keeps_its_digits_far_from_zero() {
        assert_eq!(of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).deviation(), 2.0);
        assert_eq!(of(&[1e9 + 1.0, 1e9 + 3.0]).variance(), 1.0);
        assert_eq!(of(&[0.1, 0.1, 0.1]).variance(), 0.0);
        assert_eq!(of(&[1e300, 1e300]).variance(), 0.0);
        assert!((of(&[1e300, 3e300]).deviation() / 1e300 - 1.0).abs() < 1e-12);
        assert!(of(&[1.0, f64::INFINITY]).variance().is_nan());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_bits(values in prop::collection::vec(any::<f64>(), 1..30), at in 0usize..30) {
            let whole = of(&values);
            let (left, right) = values.split_at(at.min(values.len()));
            let mut merged = of(right);
            merged.merge(&of(left));
            prop_assert_eq!(whole.variance().to_bits(), merged.variance().to_bits());
            prop_assert_eq!(whole.deviation().to_bits(), merged.deviation().to_bits());
        }
    }
}
