//! Rates and differences: extrapolated to the range's borders, or between the last two samples.

use std::sync::Arc;

use tricord_model::{CounterResetHint, FloatHistogram};

use super::{KernelContext, Out, Window, extended};
use crate::ast::RangeMode;
use crate::eval::notes::HistogramOp;
use crate::histogram::{self, Combined};

/// Whether a start timestamp tells that the counter began anew between two samples.
#[inline]
pub(crate) fn is_start_reset(previous_start: i64, previous_t: i64, start: i64, t: i64) -> bool {
    if start == 0 || start >= t || start < previous_t {
        return false;
    }
    if start > previous_t {
        return true;
    }
    // The start equals the previous sample's time: a reset, unless the previous sample says that it is its own.
    previous_start <= previous_t && previous_start != 0 && previous_start != previous_t
}

fn overlaps(previous_start: i64, previous_t: i64, start: i64) -> bool {
    start != 0 && start < previous_t && start != previous_start
}

/// Start timestamps, where they are used and known.
#[inline]
pub(super) fn starts<'a>(context: &KernelContext<'_>, start_ms: &'a [i64]) -> &'a [i64] {
    if context.start_timestamps { start_ms } else { &[] }
}

#[inline]
fn reset_at(starts: &[i64], t_ms: &[i64], at: usize) -> bool {
    at < starts.len() && is_start_reset(starts[at - 1], t_ms[at - 1], starts[at], t_ms[at])
}

#[inline]
fn note_overlap(context: &mut KernelContext<'_>, starts: &[i64], t_ms: &[i64]) {
    let found = (1..starts.len()).any(|at| overlaps(starts[at - 1], t_ms[at - 1], starts[at]));
    if found {
        context.notes.start_overlap(context.pos, context.name);
    }
}

/// `rate`, `increase` and `delta`.
pub(crate) fn extrapolated(
    context: &mut KernelContext<'_>,
    window: &Window<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Out> {
    if window.is_mixed() {
        return context.mixed();
    }
    if context.mode != RangeMode::Default {
        return match window.floats.is_empty() {
            true => extended::histogram_rate(context, window, is_counter, is_rate),
            false => extended::float_rate(context, window, is_counter, is_rate),
        };
    }
    if window.floats.is_empty() {
        return extrapolated_histogram(context, window, is_counter, is_rate);
    }
    let (t_ms, values) = (window.t_ms, window.floats);
    let starts = starts(context, window.start_ms);
    let resets = (1..values.len()).filter(|at| is_reset(t_ms, values, starts, *at));
    extrapolated_floats(context, window, is_counter, is_rate, resets)
}

/// Whether a counter began anew right before a sample.
#[inline]
pub(super) fn is_reset(t_ms: &[i64], values: &[f64], starts: &[i64], at: usize) -> bool {
    values[at] < values[at - 1] || reset_at(starts, t_ms, at)
}

/// `rate`, `increase` and `delta` of a window of floats; `resets` are the places where the counter began anew.
#[inline]
pub(super) fn extrapolated_floats(
    context: &mut KernelContext<'_>,
    window: &Window<'_>,
    is_counter: bool,
    is_rate: bool,
    resets: impl Iterator<Item = usize>,
) -> Option<Out> {
    let (t_ms, values) = (window.t_ms, window.floats);
    let starts = starts(context, window.start_ms);
    let mut difference = values[values.len() - 1] - values[0];
    if is_counter {
        note_overlap(context, starts, t_ms);
        resets.for_each(|at| difference += values[at - 1]);
    }
    let first_start = starts.first().copied().filter(|_| is_counter);
    let (span, from_start) = span(context, t_ms, first_start);
    if from_start {
        difference += values[0];
    } else if values.len() < 2 {
        return None;
    }
    let to_zero = (is_counter && difference > 0.0 && values[0] >= 0.0).then(|| values[0] / difference);
    Some(Out::Float(difference * span.factor(context.range_seconds(), is_rate, to_zero)))
}

fn extrapolated_histogram(
    context: &mut KernelContext<'_>,
    window: &Window<'_>,
    is_counter: bool,
    is_rate: bool,
) -> Option<Out> {
    let (t_ms, values) = (window.histogram_t_ms, window.histograms);
    let starts = starts(context, window.histogram_start_ms);
    let mut difference = match values.len() {
        1 => None,
        _ => Some(histogram_difference(context, t_ms, values, starts, is_counter)?),
    };
    let first_start = starts.first().copied().filter(|_| is_counter);
    let (span, from_start) = span(context, t_ms, first_start);
    if from_start {
        difference = Some(match difference {
            None => (*values[0]).clone(),
            Some(mut sum) => {
                add(context, &mut sum, &values[0])?;
                sum
            }
        });
    }
    let mut difference = difference?;
    let to_zero = (is_counter && difference.count > 0.0 && values[0].count >= 0.0)
        .then(|| values[0].count / difference.count);
    let factor = span.factor(context.range_seconds(), is_rate, to_zero);
    histogram::scale(&mut difference, factor);
    Some(Out::Histogram(difference))
}

/// The samples' part of the range.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) sampled_s: f64,
    /// How far the series is taken to go on before the first sample and behind the last one.
    pub(super) to_start_s: f64,
    pub(super) to_end_s: f64,
}

impl Span {
    /// The span of samples at these times, in milliseconds, within a range that begins after `start_ms` and ends with
    /// `end_ms`: the series is taken to go on to the range's borders where they are near, and by half a sample distance
    /// where they are far.
    #[inline(always)]
    pub(super) fn new(t_ms: &[i64], start_ms: i64, end_ms: i64) -> Self {
        let (first, last) = (t_ms[0], t_ms[t_ms.len() - 1]);
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let sampled_s = seconds(last - first);
        let average_s = if t_ms.len() > 1 { sampled_s / (t_ms.len() - 1) as f64 } else { 0.0 };
        let reach = |border_s: f64| if border_s >= average_s * 1.1 { average_s / 2.0 } else { border_s };
        Self {
            sampled_s,
            to_start_s: reach(seconds(first - start_ms)),
            to_end_s: reach(seconds(end_ms - last)),
        }
    }

    /// The same with a counter that started within the range, at `counted_ms`, and counts from zero there.
    fn counted_from(self, counted_ms: i64, t_ms: &[i64]) -> Self {
        Self { sampled_s: (t_ms[t_ms.len() - 1] - counted_ms) as f64 / 1000.0, to_start_s: 0.0, ..self }
    }

    /// What the difference is multiplied with. `to_zero` is the part of the difference that a counter had at the first
    /// sample: it is never taken to have been below zero.
    #[inline(always)]
    pub(super) fn factor(&self, range_s: f64, is_rate: bool, to_zero: Option<f64>) -> f64 {
        let zero_s = to_zero.map_or(self.to_start_s, |share| self.sampled_s * share);
        let to_start_s = if zero_s < self.to_start_s { zero_s } else { self.to_start_s };
        let mut factor = 1.0;
        if self.sampled_s != 0.0 {
            factor = (self.sampled_s + to_start_s + self.to_end_s) / self.sampled_s;
        }
        if is_rate { factor / range_s } else { factor }
    }
}

/// The span of a window's samples, and whether their counter started within the range.
fn span(context: &KernelContext<'_>, t_ms: &[i64], first_start: Option<i64>) -> (Span, bool) {
    let span = Span::new(t_ms, context.start_ms, context.end_ms);
    match first_start {
        Some(start) if start != 0 && start > context.start_ms && start < t_ms[0] => {
            (span.counted_from(start, t_ms), true)
        }
        _ => (span, false),
    }
}

/// Adds to a histogram, with the notes that it brings; `None` where the schemas do not go together.
pub(crate) fn add(
    context: &mut KernelContext<'_>,
    sum: &mut FloatHistogram,
    other: &FloatHistogram,
) -> Option<()> {
    let combined = histogram::add(sum, other);
    note_combination(context, combined, HistogramOp::Add)
}

/// Subtracts from a histogram, as [`add`].
pub(crate) fn subtract(
    context: &mut KernelContext<'_>,
    difference: &mut FloatHistogram,
    other: &FloatHistogram,
) -> Option<()> {
    let combined = histogram::subtract(difference, other);
    note_combination(context, combined, HistogramOp::Sub)
}

fn note_combination(
    context: &mut KernelContext<'_>,
    combined: Result<Combined, histogram::Incompatible>,
    op: HistogramOp,
) -> Option<()> {
    match combined {
        Ok(combined) => {
            if combined.bounds_reconciled {
                context.notes.mismatched_custom_buckets(context.pos, op);
            }
            Some(())
        }
        Err(histogram::Incompatible) => {
            context.notes.mixed_schemas(context.pos, context.name);
            None
        }
    }
}

/// The increase between the first and the last of at least two histograms.
fn histogram_difference(
    context: &mut KernelContext<'_>,
    t_ms: &[i64],
    values: &[Arc<FloatHistogram>],
    starts: &[i64],
    is_counter: bool,
) -> Option<FloatHistogram> {
    let (first, last) = (&values[0], &values[values.len() - 1]);
    let is_gauge = |histogram: &FloatHistogram| histogram.counter_reset_hint == CounterResetHint::Gauge;
    if is_counter && values.iter().any(|histogram| is_gauge(histogram)) {
        context.notes.not_a_counter(context.pos, context.name);
    }
    let mut previous = Arc::clone(first);
    // A reset right after the first sample makes the first one meaningless, even its bucket layout.
    if is_counter && (reset_at(starts, t_ms, 1) || histogram::detect_reset(&values[1], first)) {
        previous = Arc::new(FloatHistogram {
            schema: values[1].schema,
            custom_values: values[1].custom_values.clone(),
            ..FloatHistogram::default()
        });
    }
    let custom = previous.uses_custom_buckets();
    let inner = if is_counter { &values[1..values.len() - 1] } else { &[] };
    if last.uses_custom_buckets() != custom || inner.iter().any(|h| h.uses_custom_buckets() != custom) {
        context.notes.mixed_schemas(context.pos, context.name);
        return None;
    }
    let schema =
        inner.iter().map(|histogram| histogram.schema).fold(last.schema.min(previous.schema), i32::min);
    let mut difference = histogram::to_schema(last, schema);
    subtract(context, &mut difference, &previous)?;
    if is_counter {
        note_overlap(context, starts, t_ms);
        for (at, value) in values.iter().enumerate().skip(1) {
            if reset_at(starts, t_ms, at) || histogram::detect_reset(value, &previous) {
                add(context, &mut difference, &previous)?;
            }
            previous = Arc::clone(value);
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        context.notes.not_a_gauge(context.pos, context.name);
    }
    difference.counter_reset_hint = CounterResetHint::Gauge;
    histogram::compact(&mut difference);
    Some(difference)
}

/// One of the last two samples of a window.
#[derive(Clone)]
struct Point {
    t_ms: i64,
    start_ms: i64,
    float: f64,
    histogram: Option<Arc<FloatHistogram>>,
}

fn last_two(context: &KernelContext<'_>, window: &Window<'_>) -> Option<[Point; 2]> {
    let mut points: Vec<Point> = Vec::with_capacity(4);
    let starts_of = |starts: &[i64], at: usize| {
        if context.start_timestamps { starts.get(at).copied().unwrap_or(0) } else { 0 }
    };
    for at in window.floats.len().saturating_sub(2)..window.floats.len() {
        let start_ms = starts_of(window.start_ms, at);
        points.push(Point { t_ms: window.t_ms[at], start_ms, float: window.floats[at], histogram: None });
    }
    for at in window.histograms.len().saturating_sub(2)..window.histograms.len() {
        let start_ms = starts_of(window.histogram_start_ms, at);
        let histogram = Some(Arc::clone(&window.histograms[at]));
        points.push(Point { t_ms: window.histogram_t_ms[at], start_ms, float: 0.0, histogram });
    }
    points.sort_by_key(|point| point.t_ms);
    let last = points.pop()?;
    Some([points.pop()?, last])
}

/// `irate` and `idelta`.
pub(crate) fn instant(context: &mut KernelContext<'_>, window: &Window<'_>, is_rate: bool) -> Option<Out> {
    let [before, last] = last_two(context, window)?;
    let distance_ms = last.t_ms - before.t_ms;
    if distance_ms == 0 {
        return None;
    }
    let seconds = distance_ms as f64 / 1000.0;
    let start_reset = is_start_reset(before.start_ms, before.t_ms, last.start_ms, last.t_ms);
    match (before.histogram, last.histogram) {
        (None, None) => {
            let reset = is_rate && (last.float < before.float || start_reset);
            let difference = if reset { last.float } else { last.float - before.float };
            Some(Out::Float(if is_rate { difference / seconds } else { difference }))
        }
        (Some(before), Some(last)) => {
            // Notes of these two functions stand at all their arguments.
            let pos = context.pos;
            context.pos = context.args_pos;
            let out = instant_histogram(context, &before, &last, is_rate, start_reset, seconds);
            context.pos = pos;
            out
        }
        _ => {
            context.notes.mixed_floats_histograms(context.args_pos, context.name);
            None
        }
    }
}

fn instant_histogram(
    context: &mut KernelContext<'_>,
    before: &FloatHistogram,
    last: &FloatHistogram,
    is_rate: bool,
    start_reset: bool,
    seconds: f64,
) -> Option<Out> {
    let gauges = [before, last].map(|histogram| histogram.counter_reset_hint == CounterResetHint::Gauge);
    if is_rate && gauges.contains(&true) {
        context.notes.not_a_counter(context.pos, context.name);
    }
    if !is_rate && gauges.contains(&false) {
        context.notes.not_a_gauge(context.pos, context.name);
    }
    let mut difference = last.clone();
    if !is_rate || !(start_reset || histogram::detect_reset(last, before)) {
        subtract(context, &mut difference, before)?;
    }
    difference.counter_reset_hint = CounterResetHint::Gauge;
    histogram::compact(&mut difference);
    if is_rate {
        histogram::divide(&mut difference, seconds);
    }
    Some(Out::Histogram(difference))
}
