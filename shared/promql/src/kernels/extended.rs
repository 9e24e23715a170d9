//! `anchored` and `smoothed` ranges: values on the range's borders are taken over or interpolated, instead of
//! extrapolated.

use std::sync::Arc;

use tricord_model::{CounterResetHint, FloatHistogram};

use super::rate::{add, subtract};
use super::{KernelContext, Out, Window};
use crate::ast::{Pos, RangeMode};
use crate::eval::notes::{HistogramOp, Notes};
use crate::histogram;

/// The value at `t` on the line between two samples; a counter that fell starts from zero.
pub(crate) fn interpolate(left: (i64, f64), right: (i64, f64), t: i64, is_counter: bool) -> f64 {
    let start = if is_counter && right.1 < left.1 { 0.0 } else { left.1 };
    start + (right.1 - start) * (t - left.0) as f64 / (right.0 - left.0) as f64
}

/// The histogram at a time between those of two histograms; `times` are those of both and the one in question.
pub(crate) fn interpolate_histograms(
    left: &FloatHistogram,
    right: &FloatHistogram,
    times: (i64, i64, i64),
    is_counter: bool,
    notes: &mut Notes,
    pos: Pos,
    name: &str,
) -> Option<FloatHistogram> {
    let (left_t, right_t, t) = times;
    if t == left_t {
        return Some(left.clone());
    }
    if t == right_t {
        return Some(right.clone());
    }
    let share = (t - left_t) as f64 / (right_t - left_t) as f64;
    let mut value = right.clone();
    if is_counter && histogram::detect_reset(right, left) {
        histogram::scale(&mut value, share);
        return Some(value);
    }
    let mut note = |combined: Result<histogram::Combined, histogram::Incompatible>, op| match combined {
        Ok(combined) => {
            if combined.bounds_reconciled {
                notes.mismatched_custom_buckets(pos, op);
            }
            Some(())
        }
        Err(histogram::Incompatible) => {
            notes.mixed_schemas(pos, name);
            None
        }
    };
    note(histogram::subtract(&mut value, left), HistogramOp::Sub)?;
    histogram::scale(&mut value, share);
    note(histogram::add(&mut value, left), HistogramOp::Add)?;
    Some(value)
}

/// The first and the last sample that count; `None` where none lies in the range.
fn borders(context: &KernelContext<'_>, t_ms: &[i64]) -> Option<(usize, usize)> {
    let mut last = t_ms.len() - 1;
    let first = t_ms[..last].partition_point(|t| *t <= context.start_ms).saturating_sub(1);
    let smoothed = context.mode == RangeMode::Smoothed;
    if smoothed {
        last = t_ms[..last].partition_point(|t| *t < context.end_ms);
    }
    if t_ms[last] <= context.start_ms || (smoothed && t_ms[first] > context.end_ms) {
        return None;
    }
    Some((first, last))
}

fn left_value(
    t_ms: &[i64],
    values: &[f64],
    first: usize,
    start: i64,
    smoothed: bool,
    is_counter: bool,
) -> f64 {
    if smoothed && t_ms[first] < start {
        let (left, right) = ((t_ms[first], values[first]), (t_ms[first + 1], values[first + 1]));
        return interpolate(left, right, start, is_counter);
    }
    values[first]
}

fn right_value(t_ms: &[i64], values: &[f64], last: usize, end: i64, smoothed: bool, is_counter: bool) -> f64 {
    if smoothed && last > 0 && t_ms[last] > end {
        let (left, right) = ((t_ms[last - 1], values[last - 1]), (t_ms[last], values[last]));
        return interpolate(left, right, end, is_counter);
    }
    values[last]
}

pub(crate) fn float_rate(
    context: &mut KernelContext<'_>,
    window: &Window<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Out> {
    let (t_ms, values) = (window.t_ms, window.floats);
    let (first, last) = borders(context, t_ms)?;
    let smoothed = context.mode == RangeMode::Smoothed;
    let left = left_value(t_ms, values, first, context.start_ms, smoothed, is_counter);
    let right = right_value(t_ms, values, last, context.end_ms, smoothed, is_counter);
    let mut difference = right - left;
    if is_counter {
        let from = if t_ms[first] <= context.start_ms { first + 1 } else { first };
        let to = if t_ms[last] >= context.end_ms { last } else { last + 1 };
        let mut previous = left;
        for value in values.get(from..to).unwrap_or(&[]).iter().chain([&right]) {
            if *value < previous {
                difference += previous;
            }
            previous = *value;
        }
    }
    Some(Out::Float(if is_rate { difference / context.range_seconds() } else { difference }))
}

/// The samples of a range selector by itself: one on each border, and those in between.
pub(crate) fn extend(
    t_ms: &[i64],
    values: &[f64],
    start: i64,
    end: i64,
    smoothed: bool,
) -> (Vec<i64>, Vec<f64>) {
    let Some(mut last) = t_ms.len().checked_sub(1) else { return (vec![], vec![]) };
    let first = t_ms[..last].partition_point(|t| *t <= start).saturating_sub(1);
    if smoothed {
        last = t_ms[..last].partition_point(|t| *t < end);
    }
    if t_ms[last] <= start {
        return (vec![], vec![]);
    }
    let left = left_value(t_ms, values, first, start, smoothed, false);
    let right = right_value(t_ms, values, last, end, smoothed, false);
    let from = if t_ms[first] <= start { first + 1 } else { first };
    let to = if t_ms[last] >= end { last } else { last + 1 };
    let between = from..to.max(from);
    let out_t = [&[start], &t_ms[between.clone()], &[end]].concat();
    (out_t, [&[left], &values[between], &[right]].concat())
}

pub(crate) fn histogram_rate(
    context: &mut KernelContext<'_>,
    window: &Window<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Out> {
    let (t_ms, values) = (window.histogram_t_ms, window.histograms);
    let (first, last) = borders(context, t_ms)?;
    let used = values.get(first..=last)?;
    let custom = used[0].uses_custom_buckets();
    for histogram in used {
        if histogram.uses_custom_buckets() != custom {
            context.notes.mixed_schemas(context.pos, context.name);
            return None;
        }
        if is_counter && is_gauge(histogram) {
            context.notes.not_a_counter(context.pos, context.name);
        }
    }
    let smoothed = context.mode == RangeMode::Smoothed;
    let (pos, name) = (context.pos, context.name);
    let left = if smoothed && t_ms[first] < context.start_ms {
        let times = (t_ms[first], t_ms[first + 1], context.start_ms);
        interpolate_histograms(
            &values[first],
            &values[first + 1],
            times,
            is_counter,
            context.notes,
            pos,
            name,
        )?
    } else {
        (*values[first]).clone()
    };
    let right = if smoothed && last > 0 && t_ms[last] > context.end_ms {
        let times = (t_ms[last - 1], t_ms[last], context.end_ms);
        interpolate_histograms(&values[last - 1], &values[last], times, is_counter, context.notes, pos, name)?
    } else {
        (*values[last]).clone()
    };
    let gauges = is_gauge(&left) && is_gauge(&right);
    if !is_counter && !gauges {
        context.notes.not_a_gauge(pos, name);
    }
    let mut difference = right.clone();
    subtract(context, &mut difference, &left)?;
    if is_counter {
        correct_for_resets(context, window, (first, last), left, &right, &mut difference)?;
    }
    if is_rate {
        let seconds = context.range_seconds();
        histogram::divide(&mut difference, seconds);
    }
    difference.counter_reset_hint = CounterResetHint::Gauge;
    histogram::compact(&mut difference);
    Some(Out::Histogram(difference))
}

fn is_gauge(histogram: &FloatHistogram) -> bool {
    histogram.counter_reset_hint == CounterResetHint::Gauge
}

/// Adds what a counter had reached before each reset between the borders.
fn correct_for_resets(
    context: &mut KernelContext<'_>,
    window: &Window<'_>,
    (first, last): (usize, usize),
    left: FloatHistogram,
    right: &FloatHistogram,
    difference: &mut FloatHistogram,
) -> Option<()> {
    let (t_ms, values) = (window.histogram_t_ms, window.histograms);
    let mut from = first + 1;
    let mut previous = Arc::new(left);
    let smoothed = context.mode == RangeMode::Smoothed;
    let before = smoothed && t_ms[first] < context.start_ms;
    if before && histogram::detect_reset(&values[first + 1], &values[first]) {
        // The left border was interpolated as if the counter had begun at zero: that reset is in it.
        previous = Arc::clone(&values[first + 1]);
        from += 1;
    }
    if from > last {
        return Some(());
    }
    let mut correction: Option<FloatHistogram> = None;
    let mut reset = |context: &mut KernelContext<'_>, lost: &FloatHistogram| match &mut correction {
        None => {
            correction = Some(lost.clone());
            Some(())
        }
        Some(sum) => add(context, sum, lost),
    };
    for value in &values[from..last] {
        if histogram::detect_reset(value, &previous) {
            reset(context, &previous)?;
        }
        previous = Arc::clone(value);
    }
    if histogram::detect_reset(right, &previous) {
        reset(context, &previous)?;
    }
    match correction {
        Some(correction) => add(context, difference, &correction),
        None => Some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_interpolated_or_taken_over() {
        let (t_ms, values) = ([0, 10, 20, 30], [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(extend(&t_ms, &values, 5, 25, true), (vec![5, 10, 20, 25], vec![0.5, 1.0, 2.0, 2.5]));
        assert_eq!(
            extend(&t_ms[..3], &values[..3], 5, 25, false),
            (vec![5, 10, 20, 25], vec![0.0, 1.0, 2.0, 2.0])
        );
        assert_eq!(extend(&t_ms[..1], &values[..1], 5, 25, false), (vec![], vec![]));
        assert_eq!(interpolate((0, 10.0), (10, 4.0), 5, true), 2.0);
    }
}
