//! How often a series changes, or falls back.

use std::sync::Arc;

use tricord_model::FloatHistogram;

use super::rate::is_start_reset;
use super::{KernelContext, Out, Window};
use crate::ast::RangeMode;
use crate::histogram;

enum Seen<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

struct Point<'a> {
    t_ms: i64,
    start_ms: i64,
    value: Seen<'a>,
}

/// Floats and histograms in order of time.
struct Merged<'a> {
    window: &'a Window<'a>,
    float: usize,
    histogram: usize,
}

impl<'a> Iterator for Merged<'a> {
    type Item = Point<'a>;

    fn next(&mut self) -> Option<Point<'a>> {
        let w = self.window;
        let (float, histogram) = (w.t_ms.get(self.float), w.histogram_t_ms.get(self.histogram));
        if float.is_some_and(|t| histogram.is_none_or(|other| t <= other)) {
            let at = self.float;
            self.float += 1;
            let start_ms = w.start_ms.get(at).copied().unwrap_or(0);
            return Some(Point { t_ms: w.t_ms[at], start_ms, value: Seen::Float(w.floats[at]) });
        }
        let at = self.histogram;
        let t_ms = *histogram?;
        self.histogram += 1;
        let start_ms = w.histogram_start_ms.get(at).copied().unwrap_or(0);
        Some(Point { t_ms, start_ms, value: Seen::Histogram(&w.histograms[at]) })
    }
}

/// The points that count: with `anchored` from the last one at or before the range's start on.
fn points<'a>(context: &KernelContext<'_>, window: &'a Window<'a>) -> Option<Merged<'a>> {
    if context.mode != RangeMode::Anchored {
        return Some(Merged { window, float: 0, histogram: 0 });
    }
    let float = window.t_ms.partition_point(|t| *t <= context.start_ms);
    let histogram = window.histogram_t_ms.partition_point(|t| *t <= context.start_ms);
    if float >= window.t_ms.len() && histogram >= window.histogram_t_ms.len() {
        return None;
    }
    let before = |times: &[i64], next: usize| next.checked_sub(1).map(|at| times[at]);
    let (last_float, last_histogram) = (before(window.t_ms, float), before(window.histogram_t_ms, histogram));
    Some(match (last_float, last_histogram) {
        (None, None) => Merged { window, float: 0, histogram: 0 },
        (Some(f), h) if h.is_none_or(|h| f >= h) => Merged { window, float: float - 1, histogram },
        (_, _) => Merged { window, float, histogram: histogram - 1 },
    })
}

fn count(merged: Merged<'_>, counts: impl Fn(&Point<'_>, &Point<'_>) -> bool) -> Option<Out> {
    let mut total = 0u64;
    let mut previous: Option<Point<'_>> = None;
    for point in merged {
        if previous.as_ref().is_some_and(|previous| counts(previous, &point)) {
            total += 1;
        }
        previous = Some(point);
    }
    Some(Out::Float(total as f64))
}

pub(crate) fn resets(context: &KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    let with_start = context.start_timestamps;
    count(points(context, window)?, |previous, current| {
        let reset_by_start =
            || with_start && is_start_reset(previous.start_ms, previous.t_ms, current.start_ms, current.t_ms);
        match (&previous.value, &current.value) {
            (Seen::Float(a), Seen::Float(b)) => b < a || reset_by_start(),
            (Seen::Histogram(a), Seen::Histogram(b)) => reset_by_start() || histogram::detect_reset(b, a),
            _ => true,
        }
    })
}

pub(crate) fn changes(context: &KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    count(points(context, window)?, |previous, current| match (&previous.value, &current.value) {
        (Seen::Float(a), Seen::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Seen::Histogram(a), Seen::Histogram(b)) => !histogram::equals(a, b),
        _ => true,
    })
}
