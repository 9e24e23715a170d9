//! Aggregations along the time of one series.

use std::sync::Arc;

use super::summation::Compensated;
use super::{KernelContext, Out, Window};
use crate::aggregate::HistogramSum;
use crate::eval::notes::HistogramOp;
use crate::functions::Function;

pub(crate) fn sum(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if window.is_mixed() {
        return context.mixed();
    }
    if window.floats.is_empty() {
        return histogram_total(context, window, false);
    }
    let mut sum = Compensated::default();
    window.floats.iter().for_each(|value| sum.add(*value));
    Some(Out::Float(sum.value()))
}

pub(crate) fn avg(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if window.is_mixed() {
        return context.mixed();
    }
    if window.floats.is_empty() {
        return histogram_total(context, window, true);
    }
    Some(Out::Float(mean(window.floats)))
}

/// The mean; where the sum passes the largest float, a mean that is moved from value to value.
fn mean(values: &[f64]) -> f64 {
    let mut sum = Compensated { sum: values[0], error: 0.0 };
    let mut moving: Option<Compensated> = None;
    let mut count = 1.0;
    for (i, value) in values.iter().enumerate().skip(1) {
        count = (i + 1) as f64;
        let mut mean = match moving {
            Some(mean) => mean,
            None => {
                let mut next = sum;
                next.add(*value);
                if !next.sum.is_infinite() {
                    sum = next;
                    continue;
                }
                Compensated { sum: sum.sum / (count - 1.0), error: sum.error / (count - 1.0) }
            }
        };
        let keep = (count - 1.0) / count;
        mean = Compensated { sum: keep * mean.sum, error: keep * mean.error };
        mean.add(value / count);
        moving = Some(mean);
    }
    match moving {
        Some(mean) => mean.sum + mean.error,
        None => sum.sum / count + sum.error / count,
    }
}

fn histogram_total(context: &mut KernelContext<'_>, window: &Window<'_>, mean: bool) -> Option<Out> {
    let mut sum = HistogramSum::default();
    window.histograms.iter().for_each(|histogram| sum.add(histogram));
    let (value, notes) = sum.finish(if mean { window.histograms.len() as u64 } else { 1 });
    if value.is_none() {
        context.notes.mixed_schemas(context.pos, context.name);
        return None;
    }
    if notes.reset_collision {
        context.notes.reset_collision(context.pos, HistogramOp::Aggregate);
    }
    if notes.bounds_reconciled {
        context.notes.mismatched_custom_buckets(context.pos, HistogramOp::Aggregate);
    }
    value.map(Out::Histogram)
}

pub(crate) fn first(window: &Window<'_>) -> Option<Out> {
    match (window.t_ms.first(), window.histogram_t_ms.first()) {
        (Some(float), Some(histogram)) if float < histogram => Some(Out::Float(window.floats[0])),
        (_, Some(_)) => Some(Out::Shared(Arc::clone(&window.histograms[0]))),
        (Some(_), None) => Some(Out::Float(window.floats[0])),
        (None, None) => None,
    }
}

pub(crate) fn last(window: &Window<'_>) -> Option<Out> {
    let float = || window.floats.last().map(|value| Out::Float(*value));
    match (window.t_ms.last(), window.histogram_t_ms.last()) {
        (Some(of_float), Some(of_histogram)) if of_histogram < of_float => float(),
        (_, Some(_)) => window.histograms.last().map(|histogram| Out::Shared(Arc::clone(histogram))),
        (_, None) => float(),
    }
}

pub(crate) fn time_of(window: &Window<'_>, last: bool) -> Option<Out> {
    let both = [window.t_ms, window.histogram_t_ms];
    let t_ms = match last {
        true => both.iter().filter_map(|times| times.last()).max(),
        false => both.iter().filter_map(|times| times.first()).min(),
    };
    t_ms.map(|t_ms| Out::Float(*t_ms as f64 / 1000.0))
}

/// Whether functions over floats alone have any, with a note where they pass histograms over.
fn floats_only(context: &mut KernelContext<'_>, window: &Window<'_>) -> bool {
    if window.is_mixed() {
        context.notes.histograms_ignored_in_range(context.pos, context.name);
    }
    !window.floats.is_empty()
}

pub(crate) fn extreme(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if !floats_only(context, window) {
        return None;
    }
    let best = match context.function {
        Function::MaxOverTime => best_of(window.floats, |new, old| new > old),
        Function::MinOverTime => best_of(window.floats, |new, old| new < old),
        // Of equal values the latest counts.
        Function::TsOfMaxOverTime => best_of(window.floats, |new, old| new >= old),
        _ => best_of(window.floats, |new, old| new <= old),
    };
    Some(Out::Float(match context.function {
        Function::MaxOverTime | Function::MinOverTime => window.floats[best],
        _ => window.t_ms[best] as f64 / 1000.0,
    }))
}

/// The place of the value that is better than those before it; anything is better than NaN.
#[inline]
fn best_of(values: &[f64], better: impl Fn(f64, f64) -> bool) -> usize {
    let (mut best, mut at_best) = (f64::NAN, 0);
    for (at, value) in values.iter().enumerate() {
        if better(*value, best) || best.is_nan() {
            (best, at_best) = (*value, at);
        }
    }
    at_best
}

pub(crate) fn variance(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if !floats_only(context, window) {
        return None;
    }
    let (mut mean, mut squares) = (Compensated::default(), Compensated::default());
    let mut count = 0.0;
    for value in window.floats {
        count += 1.0;
        let delta = value - (mean.sum + mean.error);
        mean.add(delta / count);
        squares.add(delta * (value - (mean.sum + mean.error)));
    }
    let variance = (squares.sum + squares.error) / count;
    Some(Out::Float(if context.function == Function::StddevOverTime { variance.sqrt() } else { variance }))
}

pub(crate) fn quantile(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if window.floats.is_empty() {
        return None;
    }
    let q = context.params[0];
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        context.notes.invalid_quantile(context.first_arg_pos, q);
    }
    if window.is_mixed() {
        context.notes.histograms_ignored_in_range(context.first_arg_pos, context.name);
    }
    context.scratch.clear();
    context.scratch.extend_from_slice(window.floats);
    Some(Out::Float(super::quantile::quantile(q, context.scratch)))
}

pub(crate) fn median_absolute_deviation(context: &mut KernelContext<'_>, window: &Window<'_>) -> Option<Out> {
    if !floats_only(context, window) {
        return None;
    }
    if window.floats.iter().any(|value| value.is_nan()) {
        return Some(Out::Float(f64::NAN));
    }
    context.scratch.clear();
    context.scratch.extend_from_slice(window.floats);
    let median = super::quantile::quantile(0.5, context.scratch);
    context.scratch.iter_mut().for_each(|value| *value = (*value - median).abs());
    Some(Out::Float(super::quantile::quantile(0.5, context.scratch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_does_not_overflow() {
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(mean(&[1e100, 1.0, -1e100]), 1.0 / 3.0);
    }
}
