//! `rate`, `increase` and `delta` of series of floats at all steps at once: first what each window begins and ends with,
//! then the arithmetic of all steps in one loop without branches. The values are those of [`super::rate`], to the
//! bit.

use super::rate::{Span, is_reset};
use super::rate_layout::{Layout, Layouts};
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

/// The rates of many series over the same windows.
pub(crate) struct RateColumns {
    shape: Shape,
    layouts: Layouts,
    /// What the windows of the series at hand begin with, and the last value less the first one with what resets have
    /// taken away.
    first: Vec<f64>,
    difference: Vec<f64>,
    /// Where a counter began anew.
    resets: Vec<u32>,
}

impl RateColumns {
    /// For windows that each begin after one time and end with another, in milliseconds, neither of which ever goes
    /// back.
    pub(crate) fn new(shape: Shape, windows: Vec<(i64, i64)>) -> Self {
        let (first, difference) = (vec![0.0; windows.len()], vec![0.0; windows.len()]);
        Self { shape, layouts: Layouts::new(windows), first, difference, resets: Vec::new() }
    }

    /// The value of each window, or [`ABSENT`]; `values` are as many as times.
    pub(crate) fn of(&mut self, t_ms: &[i64], values: &[f64]) -> Vec<f64> {
        let Self { shape, layouts, first, difference, resets } = self;
        let layout = layouts.of(t_ms);
        for ((first, difference), (from, last)) in first.iter_mut().zip(&mut *difference).zip(layout.places())
        {
            // A series without samples has no windows with any, but still as many windows.
            *first = values.get(from).copied().unwrap_or_default();
            *difference = values.get(last).copied().unwrap_or_default() - *first;
        }
        if shape.is_counter {
            find_resets(t_ms, values, resets);
            add_resets(layout, values, resets, difference);
        }
        shape.extrapolate(layout, first, difference)
    }
}

fn find_resets(t_ms: &[i64], values: &[f64], resets: &mut Vec<u32>) {
    resets.clear();
    let falls = values.iter().zip(values.iter().skip(1)).fold(false, |any, (a, b)| any | (b < a));
    if falls {
        let places = (1..values.len()).filter(|at| is_reset(t_ms, values, &[], *at));
        resets.extend(places.map(|at| at as u32));
    }
}

/// Adds to each window's difference what its resets have taken away: a reset counts between two samples of the window.
fn add_resets(layout: &Layout, values: &[f64], resets: &[u32], difference: &mut [f64]) {
    if resets.is_empty() {
        return;
    }
    let (mut first, mut end) = (0, 0);
    for (difference, (from, last)) in difference.iter_mut().zip(layout.places()) {
        while resets.get(end).is_some_and(|at| *at as usize <= last) {
            end += 1;
        }
        while first < end && resets[first] as usize <= from {
            first += 1;
        }
        for at in &resets[first..end] {
            *difference += values[*at as usize - 1];
        }
    }
}

impl Shape {
    fn extrapolate(self, layout: &Layout, first: &[f64], difference: &[f64]) -> Vec<f64> {
        let Self { is_counter, is_rate, range_s } = self;
        let steps = layout.sampled_s.len();
        let mut out = vec![ABSENT; steps];
        // Slices of one length, so that the loop needs no checks.
        let (first, difference) = (&first[..steps], &difference[..steps]);
        let (sampled_s, to_start_s) = (&layout.sampled_s[..steps], &layout.to_start_s[..steps]);
        let to_end_s = &layout.to_end_s[..steps];
        for at in 0..steps {
            let span = Span { sampled_s: sampled_s[at], to_start_s: to_start_s[at], to_end_s: to_end_s[at] };
            let share = first[at] / difference[at];
            let to_zero = is_counter & (difference[at] > 0.0) & (first[at] >= 0.0);
            let value = difference[at] * span.factor(range_s, is_rate, to_zero.then_some(share));
            out[at] = if sampled_s[at] > 0.0 { value } else { ABSENT };
        }
        out
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
            let shape = Shape::of(function, range_ms).unwrap();
            let mut columns = RateColumns::new(shape, windows.clone());
            let twice: Vec<f64> = values.iter().map(|value| value * 2.0).collect();
            let bits = |value: f64| if value.is_nan() && value.to_bits() != ABSENT.to_bits() { 1 } else { value.to_bits() };
            // A later pass finds nothing of an earlier one, be its times the same or others.
            for (t_ms, values) in [(&*t_ms, &*values), (&*t_ms, &*twice), (&[], &[]), (&*t_ms, &*values)] {
                let out = columns.of(t_ms, values);
                prop_assert_eq!(out.len(), steps);
                for (window, value) in windows.iter().zip(&out) {
                    let expected = plain(function, range_ms, (t_ms, values), *window);
                    prop_assert_eq!(bits(*value), bits(expected), "{:?}: {} and {}", window, value, expected);
                }
            }
        }
    }
}
