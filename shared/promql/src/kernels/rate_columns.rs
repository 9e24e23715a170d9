//! `rate`, `increase` and `delta` of a series of floats at all steps at once: first what each window begins and ends
//! with, then the arithmetic of all steps in one loop without branches. The values are those of [`super::rate`], to the
//! bit.

use super::rate::{Span, is_reset};
use crate::functions::Function;
use crate::value::ABSENT;

/// Which of the functions, and over how much time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    is_counter: bool,
    is_rate: bool,
    range_s: f64,
}

impl Shape {
    /// The shape of a function over a range in milliseconds; `None` for functions of another kind.
    pub(crate) fn of(function: Function, range_ms: i64) -> Option<Self> {
        let (is_counter, is_rate) = match function {
            Function::Rate => (true, true),
            Function::Increase => (true, false),
            Function::Delta => (false, false),
            _ => return None,
        };
        Some(Self { is_counter, is_rate, range_s: range_ms as f64 / 1000.0 })
    }
}

/// Where a window that only moves forward lies.
#[derive(Clone, Copy, Default)]
struct Sweep {
    from: usize,
    to: usize,
    /// How many samples came with the last step that was looked for.
    stride: usize,
}

impl Sweep {
    #[inline]
    fn advance(&mut self, t_ms: &[i64], after: i64, until: i64) {
        // Samples at a steady distance: as many come and go as at the step before.
        let leapt = self.to + self.stride;
        if leapt < t_ms.len() && leapt > 0 && t_ms[leapt - 1] <= until && t_ms[leapt] > until {
            self.to = leapt;
        } else {
            let before = self.to;
            while self.to < t_ms.len() && t_ms[self.to] <= until {
                self.to += 1;
            }
            self.stride = self.to - before;
        }
        let leapt = self.from + self.stride;
        if leapt < self.to && leapt > 0 && t_ms[leapt - 1] <= after && t_ms[leapt] > after {
            self.from = leapt;
        } else {
            while self.from < self.to && t_ms[self.from] <= after {
                self.from += 1;
            }
        }
    }
}

/// What the windows of all steps hold, in columns; kept from one series to the next.
#[derive(Default)]
pub(crate) struct RateColumns {
    /// The first value.
    first: Vec<f64>,
    /// The last value less the first one, with what resets have taken away.
    difference: Vec<f64>,
    /// Distances between the first and the last sample in milliseconds, and in samples; 0 where there is no rate.
    sampled_ms: Vec<f64>,
    gaps: Vec<f64>,
    /// From the window's begin to its first sample, and from its last sample to its end, in milliseconds.
    to_start_ms: Vec<f64>,
    to_end_ms: Vec<f64>,
    /// Where a counter began anew.
    resets: Vec<u32>,
}

impl RateColumns {
    /// Writes the value of each window, or [`ABSENT`], for windows that each begin after one time and end with another,
    /// in milliseconds, neither of which ever goes back.
    pub(crate) fn fill(
        &mut self,
        shape: Shape,
        (t_ms, values): (&[i64], &[f64]),
        windows: impl ExactSizeIterator<Item = (i64, i64)>,
        out: &mut Vec<f64>,
    ) {
        self.clear(windows.len());
        if shape.is_counter {
            self.find_resets(t_ms, values);
        }
        let steps = windows.len();
        let (first, difference) = (&mut self.first[..steps], &mut self.difference[..steps]);
        let (sampled_ms, gaps) = (&mut self.sampled_ms[..steps], &mut self.gaps[..steps]);
        let (to_start_ms, to_end_ms) = (&mut self.to_start_ms[..steps], &mut self.to_end_ms[..steps]);
        let resets = self.resets.as_slice();
        let mut sweep = Sweep::default();
        let (mut first_reset, mut end_reset) = (0, 0);
        for (step, (after, until)) in windows.enumerate() {
            sweep.advance(t_ms, after, until);
            let Sweep { from, to, .. } = sweep;
            if to - from < 2 {
                continue;
            }
            let mut increase = values[to - 1] - values[from];
            if !resets.is_empty() {
                while resets.get(end_reset).is_some_and(|at| (*at as usize) < to) {
                    end_reset += 1;
                }
                // A reset counts between two samples of the window.
                while first_reset < end_reset && resets[first_reset] as usize <= from {
                    first_reset += 1;
                }
                for at in &resets[first_reset..end_reset] {
                    increase += values[*at as usize - 1];
                }
            }
            first[step] = values[from];
            difference[step] = increase;
            sampled_ms[step] = (t_ms[to - 1] - t_ms[from]) as f64;
            gaps[step] = (to - from - 1) as f64;
            to_start_ms[step] = (t_ms[from] - after) as f64;
            to_end_ms[step] = (until - t_ms[to - 1]) as f64;
        }
        self.extrapolate(shape, out);
    }

    fn clear(&mut self, steps: usize) {
        self.resets.clear();
        for column in [
            &mut self.first,
            &mut self.difference,
            &mut self.sampled_ms,
            &mut self.gaps,
            &mut self.to_start_ms,
            &mut self.to_end_ms,
        ] {
            column.clear();
            column.resize(steps, 0.0);
        }
    }

    fn find_resets(&mut self, t_ms: &[i64], values: &[f64]) {
        let falls = values.iter().zip(values.iter().skip(1)).fold(false, |any, (a, b)| any | (b < a));
        if falls {
            let places = (1..values.len()).filter(|at| is_reset(t_ms, values, &[], *at));
            self.resets.extend(places.map(|at| at as u32));
        }
    }

    fn extrapolate(&self, shape: Shape, out: &mut Vec<f64>) {
        let Shape { is_counter, is_rate, range_s } = shape;
        let steps = self.gaps.len();
        out.clear();
        out.resize(steps, ABSENT);
        // Slices of one length, so that the loop needs no checks.
        let (first, difference) = (&self.first[..steps], &self.difference[..steps]);
        let (sampled_ms, gaps) = (&self.sampled_ms[..steps], &self.gaps[..steps]);
        let (to_start_ms, to_end_ms) = (&self.to_start_ms[..steps], &self.to_end_ms[..steps]);
        let out = &mut out[..steps];
        for at in 0..steps {
            let sampled_s = sampled_ms[at] / 1000.0;
            let span = Span {
                to_start_s: to_start_ms[at] / 1000.0,
                to_end_s: to_end_ms[at] / 1000.0,
                sampled_s,
                average_s: sampled_s / gaps[at],
                from_start: false,
            };
            let share = first[at] / difference[at];
            let to_zero = is_counter & (difference[at] > 0.0) & (first[at] >= 0.0);
            let factor = span.factor(range_s, is_counter, is_rate, to_zero.then_some(share));
            let value = difference[at] * factor;
            out[at] = if gaps[at] > 0.0 { value } else { ABSENT };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ast::{Pos, RangeMode};
    use crate::eval::notes::Notes;
    use crate::kernels::{KernelContext, Out, Window, apply};

    /// The value of one window as the plain kernel has it.
    fn plain(
        function: Function,
        range_ms: i64,
        (t_ms, values): (&[i64], &[f64]),
        (after, until): (i64, i64),
    ) -> f64 {
        let from = t_ms.partition_point(|t| *t <= after);
        let to = t_ms.partition_point(|t| *t <= until).max(from);
        if from == to {
            return ABSENT;
        }
        let context = &mut KernelContext {
            function,
            start_ms: after,
            end_ms: until,
            range_ms,
            eval_ms: until,
            mode: RangeMode::Default,
            params: [f64::NAN; 2],
            start_timestamps: false,
            name: "x",
            pos: Pos::default(),
            first_arg_pos: Pos::default(),
            args_pos: Pos::default(),
            notes: &mut Notes::default(),
            scratch: &mut vec![],
        };
        let window = Window {
            t_ms: &t_ms[from..to],
            floats: &values[from..to],
            start_ms: &[],
            histogram_t_ms: &[],
            histograms: &[],
            histogram_start_ms: &[],
        };
        match apply(context, &window).unwrap() {
            Some(Out::Float(value)) => value,
            _ => ABSENT,
        }
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => (0u32..1000).prop_map(f64::from),
            2 => -1e9..1e9,
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
            1 => Just(-0.0),
        ]
    }

    proptest! {
        #[test]
        fn every_step_is_what_the_plain_kernel_says(
            samples in prop::collection::vec((prop_oneof![4 => Just(15_000i64), 1 => 1i64..90_000], any_value()), 0..60),
            step_ms in 1i64..120_000,
            range_ms in 1i64..300_000,
            steps in 1usize..40,
            function in prop::sample::select(vec![Function::Rate, Function::Increase, Function::Delta]),
        ) {
            let mut now = 0;
            let (t_ms, values): (Vec<i64>, Vec<f64>) = samples
                .into_iter()
                .map(|(gap, value)| {
                    now += gap;
                    (now, value)
                })
                .unzip();
            let windows: Vec<_> = (0..steps as i64).map(|step| (step * step_ms - range_ms, step * step_ms)).collect();
            let mut out = vec![1.0; 3];
            let mut columns = RateColumns::default();
            // A second pass finds nothing of the first.
            for _ in 0..2 {
                let shape = Shape::of(function, range_ms).unwrap();
                columns.fill(shape, (&t_ms, &values), windows.iter().copied(), &mut out);
            }
            let bits = |value: f64| if value.is_nan() && value.to_bits() != ABSENT.to_bits() { 1 } else { value.to_bits() };
            for (window, value) in windows.iter().zip(&out) {
                let expected = plain(function, range_ms, (&t_ms, &values), *window);
                prop_assert_eq!(bits(*value), bits(expected), "{:?}: {} and {}", window, value, expected);
            }
            prop_assert_eq!(out.len(), steps);
        }
    }
}
