//! Exact sums of many series at the steps of a grid, in columns.
//!
//! What is added goes through three running sums per step, each of which takes the rounding error of the one before it;
//! the error of the last, which is mostly nothing, goes to an [`ExactSum`] of its step. So nothing is ever lost, and the
//! loop over the steps has no branches.

use std::collections::BTreeMap;

use tricord_model::codec::{CodecError, Reader, Writer};

use super::exact::{ExactSum, two_sum};
use crate::value::is_absent;

/// A sum and a count at each step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ColumnSums {
    /// The running sums; the exact sum of a step is that of all three and of what is in `rest`.
    high: Vec<f64>,
    middle: Vec<f64>,
    low: Vec<f64>,
    /// The kinds of what was added, as [`ExactSum`] has them.
    kinds: Vec<u8>,
    /// How many values were added, be they floats or histograms.
    pub(crate) counts: Vec<u64>,
    /// What does not fit, by step.
    rest: BTreeMap<u32, ExactSum>,
}

/// Steps that are added to at once: their errors fit the stack.
const CHUNK: usize = 64;

impl ColumnSums {
    pub(crate) fn new(steps: usize) -> Self {
        Self {
            high: vec![0.0; steps],
            middle: vec![0.0; steps],
            low: vec![0.0; steps],
            kinds: vec![0; steps],
            counts: vec![0; steps],
            rest: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Adds a series: a float per step, or [`crate::value::ABSENT`].
    pub(crate) fn add_column(&mut self, floats: &[f64]) {
        let is_ordinary = |value: f64| ExactSum::is_ordinary(value) | is_absent(value);
        if !floats.iter().fold(true, |all, value| all & is_ordinary(*value)) || floats.len() != self.len() {
            for (step, value) in floats.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
                self.add(step, *value);
            }
            return;
        }
        self.add_ordinary(floats);
        for ((kinds, count), value) in self.kinds.iter_mut().zip(&mut self.counts).zip(floats) {
            let present = !is_absent(*value);
            *kinds |= ExactSum::ORDINARY * u8::from(present);
            *count += u64::from(present);
        }
    }

    /// Adds a float at a step.
    pub(crate) fn add(&mut self, step: usize, value: f64) {
        self.counts[step] += 1;
        if ExactSum::is_ordinary(value) {
            self.kinds[step] |= ExactSum::ORDINARY;
            let (high, error) = two_sum(self.high[step], value);
            let (middle, error) = two_sum(self.middle[step], error);
            let (low, error) = two_sum(self.low[step], error);
            (self.high[step], self.middle[step], self.low[step]) = (high, middle, low);
            if error != 0.0 {
                self.rest_at(step).add(error);
            }
        } else {
            self.rest_at(step).add(value);
        }
    }

    fn rest_at(&mut self, step: usize) -> &mut ExactSum {
        self.rest.entry(step as u32).or_default()
    }

    /// Adds floats of which each is ordinary, a sum or an error of such, or absent.
    fn add_ordinary(&mut self, floats: &[f64]) {
        let mut errors = [0.0; CHUNK];
        let sums =
            self.high.chunks_mut(CHUNK).zip(self.middle.chunks_mut(CHUNK)).zip(self.low.chunks_mut(CHUNK));
        let mut lost = Vec::new();
        for (chunk, (((high, middle), low), floats)) in sums.zip(floats.chunks(CHUNK)).enumerate() {
            // Slices of one length, so that the loop needs no checks.
            let len = floats.len();
            let (high, middle, low) = (&mut high[..len], &mut middle[..len], &mut low[..len]);
            let errors = &mut errors[..len];
            for at in 0..len {
                let value = if is_absent(floats[at]) { 0.0 } else { floats[at] };
                let (sum, error) = two_sum(high[at], value);
                high[at] = sum;
                let (sum, error) = two_sum(middle[at], error);
                middle[at] = sum;
                let (sum, error) = two_sum(low[at], error);
                low[at] = sum;
                errors[at] = error;
            }
            if errors.iter().fold(false, |any, error| any | (*error != 0.0)) {
                let found = errors.iter().enumerate().filter(|(_, error)| **error != 0.0);
                lost.extend(found.map(|(at, error)| (chunk * CHUNK + at, *error)));
            }
        }
        lost.into_iter().for_each(|(step, error)| self.rest_at(step).add_part(error));
    }

    /// Adds sums over the same steps.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.add_ordinary(&other.high);
        self.add_ordinary(&other.middle);
        self.add_ordinary(&other.low);
        self.kinds.iter_mut().zip(&other.kinds).for_each(|(own, theirs)| *own |= theirs);
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, theirs)| *own += theirs);
        other.rest.iter().for_each(|(step, sum)| self.rest_at(*step as usize).merge(sum));
    }

    /// The sum of the floats at a step.
    pub(crate) fn sum(&self, step: usize) -> ExactSum {
        let parts = [self.low[step], self.middle[step], self.high[step]];
        let mut sum = ExactSum::of_parts(self.kinds[step], parts);
        if let Some(rest) = self.rest.get(&(step as u32)) {
            sum.merge(rest);
        }
        sum
    }

    /// Whether no float was added at a step.
    pub(crate) fn is_empty_at(&self, step: usize) -> bool {
        self.kinds[step] == 0 && !self.rest.contains_key(&(step as u32))
    }

    /// Appends the sums to a buffer.
    pub(crate) fn encode(&self, out: &mut Writer<'_>) {
        out.u64(self.len() as u64);
        self.counts.iter().for_each(|count| out.u64(*count));
        out.raw(&self.kinds);
        out.f64s(&self.high);
        // Integers need but one sum.
        for sums in [&self.middle, &self.low] {
            let is_used = sums.iter().any(|sum| *sum != 0.0);
            out.u8(u8::from(is_used));
            if is_used {
                out.f64s(sums);
            }
        }
        out.u64(self.rest.len() as u64);
        for (step, sum) in &self.rest {
            out.u64(u64::from(*step));
            sum.encode(out);
        }
    }

    /// Reads what [`ColumnSums::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, or hold what no sums have.
    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let steps = input.count(10)?;
        let counts = (0..steps).map(|_| input.u64()).collect::<Result<_, _>>()?;
        let kinds = input.raw(steps)?.to_vec();
        let high = sums(input, steps)?;
        let optional = |input: &mut Reader<'_>| match input.u8()? {
            0 => Ok(vec![0.0; steps]),
            _ => sums(input, steps),
        };
        let (middle, low) = (optional(input)?, optional(input)?);
        let mut rest = BTreeMap::new();
        for _ in 0..input.count(2)? {
            let step = input.u32()?;
            if step as usize >= steps {
                return Err(CodecError::Invalid("a sum lies outside its grid"));
            }
            rest.insert(step, ExactSum::decode(input)?);
        }
        if kinds.iter().any(|kinds| *kinds & !ExactSum::ORDINARY != 0) {
            return Err(CodecError::Invalid("unknown kind of summand"));
        }
        Ok(Self { high, middle, low, kinds, counts, rest })
    }
}

fn sums(input: &mut Reader<'_>, steps: usize) -> Result<Vec<f64>, CodecError> {
    let sums = input.f64s(steps)?;
    match sums.iter().all(|sum| ExactSum::is_part(*sum)) {
        true => Ok(sums),
        false => Err(CodecError::Invalid("part of a sum is out of range")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::ABSENT;

    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => any::<f64>(),
            12 => -1e6..1e6,
            6 => (-1000i32..1000).prop_map(f64::from),
            2 => Just(ABSENT),
            1 => Just(f64::MAX),
            1 => Just(-f64::MAX),
            1 => Just(f64::MIN_POSITIVE / 8.0),
            1 => Just(-0.0),
            1 => Just(f64::NEG_INFINITY),
        ]
    }

    fn bits(sum: &ExactSum, count: u64) -> (u64, u64) {
        let bits = |value: f64| if value.is_nan() { 1 } else { value.to_bits() };
        (bits(sum.value()), bits(sum.mean(count)))
    }

    proptest! {
        #[test]
        fn columns_add_up_as_single_sums_do(
            series in prop::collection::vec((prop::collection::vec(any_float(), 70), 0usize..3), 1..12),
        ) {
            let mut single = vec![ExactSum::default(); 70];
            let mut parts = vec![ColumnSums::new(70); 3];
            for (floats, part) in &series {
                parts[*part].add_column(floats);
                for (sum, value) in single.iter_mut().zip(floats).filter(|(_, value)| !is_absent(**value)) {
                    sum.add(*value);
                }
            }
            let mut merged = ColumnSums::new(70);
            for part in parts.iter().rev() {
                let mut bytes = Vec::new();
                part.encode(&mut Writer::new(&mut bytes));
                let back = ColumnSums::decode(&mut Reader::new(&bytes)).unwrap();
                prop_assert_eq!(part, &back);
                merged.merge(&back);
            }
            for (step, sum) in single.iter().enumerate() {
                prop_assert_eq!(merged.is_empty_at(step), sum.is_empty());
                prop_assert_eq!(bits(&merged.sum(step), 3), bits(sum, 3));
                let present = series.iter().filter(|(floats, _)| !is_absent(floats[step])).count();
                prop_assert_eq!(merged.counts[step], present as u64);
            }
        }

        #[test]
        fn garbage_is_an_error_or_sums_but_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(sums) = ColumnSums::decode(&mut Reader::new(&bytes)) {
                prop_assert!((0..sums.len()).all(|step| sums.sum(step).mean(1).to_bits() < u64::MAX));
            }
        }
    }
}
