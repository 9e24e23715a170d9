//! What is kept from one window of a series to the next, so that a step costs what it adds and not what its window
//! holds. The values are those of the plain kernels, to the bit.

use std::collections::VecDeque;

use super::rate::{extrapolated_floats, is_reset, starts};
use super::{KernelContext, Out, Window};
use crate::ast::RangeMode;
use crate::functions::Function;

/// The state of one pass over a series' floats. Windows only move forward.
pub(crate) enum Sliding {
    /// `rate` and `increase`: where the counter began anew.
    Resets {
        /// Places in the series, ascending.
        places: Vec<u32>,
        /// Those in the window.
        from: usize,
        to: usize,
        is_rate: bool,
    },
    /// `min_over_time` and `max_over_time`: what may still become the extreme, best first.
    Extreme {
        queue: VecDeque<u32>,
        /// The first place not looked at yet.
        next: usize,
        is_max: bool,
    },
}

impl Sliding {
    /// The state for a function over a series, whose samples are all in `series`; `None` where the function gains
    /// nothing by it.
    pub(crate) fn new(context: &KernelContext<'_>, series: &Window<'_>) -> Option<Self> {
        if context.mode != RangeMode::Default || !series.histograms.is_empty() {
            return None;
        }
        match context.function {
            Function::Rate | Function::Increase => {
                let starts = starts(context, series.start_ms);
                let places =
                    (1..series.floats.len()).filter(|at| is_reset(series.t_ms, series.floats, starts, *at));
                let places = places.map(|at| at as u32).collect();
                Some(Self::Resets { places, from: 0, to: 0, is_rate: context.function == Function::Rate })
            }
            Function::MinOverTime | Function::MaxOverTime => {
                let is_max = context.function == Function::MaxOverTime;
                Some(Self::Extreme { queue: VecDeque::new(), next: 0, is_max })
            }
            _ => None,
        }
    }

    /// The value of a window that is not empty; it begins at a place of the series.
    #[inline]
    pub(crate) fn value(
        &mut self,
        context: &mut KernelContext<'_>,
        window: &Window<'_>,
        begin: usize,
        floats: &[f64],
    ) -> Option<Out> {
        let end = begin + window.floats.len();
        match self {
            Self::Resets { places, from, to, is_rate } => {
                while places.get(*to).is_some_and(|at| (*at as usize) < end) {
                    *to += 1;
                }
                // A reset counts between two samples of the window.
                while *from < *to && places[*from] as usize <= begin {
                    *from += 1;
                }
                let within = places[*from..*to].iter().map(|at| *at as usize - begin);
                extrapolated_floats(context, window, true, *is_rate, within)
            }
            Self::Extreme { queue, next, is_max } => {
                for at in (*next).max(begin)..end {
                    let value = floats[at];
                    if value.is_nan() {
                        continue;
                    }
                    // Of equal values the earliest stays, as zeros have signs.
                    let beats = |old: f64| if *is_max { value > old } else { value < old };
                    while queue.back().is_some_and(|old| beats(floats[*old as usize])) {
                        queue.pop_back();
                    }
                    queue.push_back(at as u32);
                }
                *next = (*next).max(end);
                while queue.front().is_some_and(|at| (*at as usize) < begin) {
                    queue.pop_front();
                }
                let best = queue.front().map_or(end - 1, |at| *at as usize);
                Some(Out::Float(floats[best]))
            }
        }
    }
}
