//! Range functions: a window slides over each series' samples, and a kernel turns it into one value per step.

use std::sync::Arc;

use tricord_model::{FloatHistogram, Labels, Points, Sample, Value};

use super::naming::drop_metric_schema;
use super::selector::{Reference, clean};
use super::tally::Around;
use super::{EvalError, Evaluator, Result, require_unique_labels, unwrap_parens};
use crate::ast::{Call, Expr, ExprKind, MatrixSelector, Pos, RangeMode};
use crate::eval::duration::{at_ms, resolve_duration_ms};
use crate::functions::Function;
use crate::histogram::sample_weight;
use crate::kernels::rate_columns::{RateColumns, Shape};
use crate::kernels::sliding::Sliding;
use crate::kernels::{self, KernelContext, Out, Window, extended};
use crate::value::{ABSENT, Column, Grid, QueryValue};

/// Samples of one kind in columns, ascending by time.
#[derive(Clone, Debug)]
pub(super) struct Track<T> {
    pub(super) t_ms: Vec<i64>,
    pub(super) values: Vec<T>,
    /// Start timestamps: empty, or one per sample.
    pub(super) start_ms: Vec<i64>,
}

impl<T> Default for Track<T> {
    fn default() -> Self {
        Self { t_ms: vec![], values: vec![], start_ms: vec![] }
    }
}

/// A series as range functions read it: floats and histograms apart, without stale markers.
#[derive(Clone, Debug)]
pub(super) struct RangeSeries {
    pub(super) labels: Labels,
    pub(super) drop_name: bool,
    pub(super) floats: Track<f64>,
    pub(super) histograms: Track<Arc<FloatHistogram>>,
}

impl RangeSeries {
    fn new(labels: Labels, points: Points) -> Self {
        let points = clean(points);
        let mut series =
            Self { labels, drop_name: false, floats: Track::default(), histograms: Track::default() };
        if points.histograms.is_empty() {
            series.floats = Track { t_ms: points.t_ms, values: points.floats, start_ms: points.start_ms };
            return series;
        }
        let with_start = !points.start_ms.is_empty();
        for sample in points.iter() {
            match sample.value {
                Value::Float(value) => {
                    push(&mut series.floats, sample.t_ms, value, sample.start_ms, with_start)
                }
                Value::Histogram(h) => {
                    push(&mut series.histograms, sample.t_ms, h, sample.start_ms, with_start)
                }
            }
        }
        series
    }

    /// How many samples the series counts for.
    fn held(&self) -> u64 {
        let histograms = self.histograms.values.iter().map(|histogram| sample_weight(histogram));
        self.floats.t_ms.len() as u64 + histograms.sum::<u64>()
    }

    /// The samples in order of time.
    pub(super) fn into_points(self) -> Points {
        let mut samples: Vec<Sample> =
            Vec::with_capacity(self.floats.t_ms.len() + self.histograms.t_ms.len());
        for (t_ms, value) in self.floats.t_ms.iter().zip(self.floats.values) {
            samples.push(Sample::float(*t_ms, value));
        }
        for (t_ms, histogram) in self.histograms.t_ms.iter().zip(self.histograms.values) {
            samples.push(Sample { t_ms: *t_ms, start_ms: 0, value: Value::Histogram(histogram) });
        }
        samples.sort_by_key(|sample| sample.t_ms);
        samples.into_iter().collect()
    }
}

fn push<T>(track: &mut Track<T>, t_ms: i64, value: T, start_ms: i64, with_start: bool) {
    track.t_ms.push(t_ms);
    track.values.push(value);
    if with_start {
        track.start_ms.push(start_ms);
    }
}

/// What a range argument covers.
#[derive(Clone, Copy, Debug)]
struct RangeSpec {
    reference: Reference,
    range_ms: i64,
    mode: RangeMode,
    lookback_ms: i64,
}

impl RangeSpec {
    /// The samples that the window of a step holds: after the first time, up to the second.
    #[inline]
    fn bounds(&self, grid: Grid, step: usize) -> (i64, i64) {
        let end = self.reference.time(grid, step);
        let start = end.saturating_sub(self.range_ms);
        match self.mode {
            RangeMode::Default => (start, end),
            RangeMode::Anchored => (start.saturating_sub(self.lookback_ms), end),
            RangeMode::Smoothed => {
                (start.saturating_sub(self.lookback_ms), end.saturating_add(self.lookback_ms))
            }
        }
    }
}

/// Room that is kept from one series to the next.
#[derive(Default)]
struct Scratch {
    floats: Vec<f64>,
    rates: Option<RateColumns>,
}

/// Where a window lies in a track.
#[derive(Clone, Copy, Debug, Default)]
struct Slide {
    from: usize,
    to: usize,
}

impl Slide {
    #[inline]
    fn advance(&mut self, t_ms: &[i64], after: i64, until: i64) {
        while self.to < t_ms.len() && t_ms[self.to] <= until {
            self.to += 1;
        }
        while self.from < self.to && t_ms[self.from] <= after {
            self.from += 1;
        }
    }

    #[inline]
    fn of<'a, T>(&self, values: &'a [T]) -> &'a [T] {
        if values.is_empty() { values } else { &values[self.from..self.to] }
    }
}

#[inline]
fn window<'a>(series: &'a RangeSeries, floats: Slide, histograms: Slide) -> Window<'a> {
    Window {
        t_ms: floats.of(&series.floats.t_ms),
        floats: floats.of(&series.floats.values),
        start_ms: floats.of(&series.floats.start_ms),
        histogram_t_ms: histograms.of(&series.histograms.t_ms),
        histograms: histograms.of(&series.histograms.values),
        histogram_start_ms: histograms.of(&series.histograms.start_ms),
    }
}

fn whole(series: &RangeSeries) -> Window<'_> {
    let all = |len| Slide { from: 0, to: len };
    window(series, all(series.floats.t_ms.len()), all(series.histograms.t_ms.len()))
}

impl Evaluator<'_> {
    fn range_spec(&self, matrix: &MatrixSelector) -> Result<RangeSpec> {
        Ok(RangeSpec {
            reference: self.reference(&matrix.selector)?,
            range_ms: resolve_duration_ms(&matrix.range, false, self.options)?,
            mode: matrix.selector.mode,
            lookback_ms: self.options.lookback_ms,
        })
    }

    fn matrix_series(
        &mut self,
        matrix: &MatrixSelector,
        spec: RangeSpec,
        grid: Grid,
    ) -> Result<Vec<RangeSeries>> {
        let (after, _) = spec.bounds(grid, 0);
        let (_, until) = spec.bounds(grid, grid.steps().saturating_sub(1));
        let series = self.select(&matrix.selector.matchers, after, until)?;
        Ok(series.into_iter().map(|(labels, points)| RangeSeries::new(labels, points)).collect())
    }

    /// A range selector at the top of an instant query.
    pub(super) fn matrix(&mut self, matrix: &MatrixSelector, grid: Grid) -> Result<QueryValue> {
        let spec = self.range_spec(matrix)?;
        let mut out = Vec::new();
        for mut series in self.matrix_series(matrix, spec, grid)? {
            if spec.mode != RangeMode::Default {
                let mode = if spec.mode == RangeMode::Anchored { "anchored" } else { "smoothed" };
                if !series.histograms.t_ms.is_empty() {
                    let text = format!("{mode} modifier is not supported with histograms");
                    return Err(EvalError::Execution(text));
                }
                let end = spec.reference.time(grid, 0);
                let start = end.saturating_sub(spec.range_ms);
                let floats = &series.floats;
                let smoothed = spec.mode == RangeMode::Smoothed;
                let (t_ms, values) = extended::extend(&floats.t_ms, &floats.values, start, end, smoothed);
                series.floats = Track { t_ms, values, start_ms: vec![] };
            }
            let labels = series.labels.clone();
            let points = series.into_points();
            if !points.is_empty() {
                out.push((labels, points));
            }
        }
        Ok(QueryValue::Matrix(out))
    }

    /// A function over ranges.
    pub(super) fn range_call(&mut self, call: &Call, at: usize, pos: Pos, grid: Grid) -> Result<QueryValue> {
        let mut scalars = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            if i != at {
                scalars.push(self.eval_scalar(arg, grid)?);
            }
        }
        let arg = unwrap_parens(&call.args[at]);
        let (spec, series) = self.range_input(call, arg, grid)?;
        if self.tally.is_on() {
            let reads = matches!(arg.kind, ExprKind::MatrixSelector(_));
            series.iter().for_each(|series| self.tally_windows(series, spec, grid, reads));
        }
        if call.func == Function::AbsentOverTime {
            return Ok(QueryValue::Vector(absent(arg, &series, spec, grid)));
        }
        self.check_cells(series.len(), grid.steps())?;
        let mut columns = Vec::with_capacity(series.len());
        let mut scratch = Scratch::default();
        // What was read is held until its series is done.
        self.charge(series.iter().map(RangeSeries::held).sum())?;
        for series in series {
            self.check_cancelled()?;
            let column = self.slide(call, arg, pos, &series, spec, grid, &scalars, &mut scratch)?;
            self.live -= series.held();
            if !column.is_empty() {
                self.charge(super::held_by(&column))?;
                columns.push(column);
            }
        }
        if !self.options.delayed_name_removal {
            require_unique_labels(&columns)?;
        }
        Ok(QueryValue::Vector(columns))
    }

    fn range_input(&mut self, call: &Call, arg: &Expr, grid: Grid) -> Result<(RangeSpec, Vec<RangeSeries>)> {
        match &arg.kind {
            ExprKind::MatrixSelector(matrix) => {
                let spec = self.range_spec(matrix)?;
                check_mode(call.func, spec.mode)?;
                let series = self.matrix_series(matrix, spec, grid)?;
                Ok((spec, series))
            }
            ExprKind::Subquery(subquery) => {
                let offset_ms = resolve_duration_ms(&subquery.offset, true, self.options)?;
                let spec = RangeSpec {
                    reference: Reference { at_ms: at_ms(subquery.at, self.options), offset_ms },
                    range_ms: resolve_duration_ms(&subquery.range, false, self.options)?,
                    mode: RangeMode::Default,
                    lookback_ms: self.options.lookback_ms,
                };
                let around = Around {
                    grid,
                    offset_ms,
                    range_ms: spec.range_ms,
                    fixed: spec.reference.at_ms.is_some(),
                };
                let series = self.subquery_series(subquery, around)?;
                Ok((spec, series))
            }
            _ => Err(EvalError::BadData("expected a range vector".to_owned())),
        }
    }

    /// Counts the samples of each step's window, and those that the step before has not read.
    fn tally_windows(&mut self, series: &RangeSeries, spec: RangeSpec, grid: Grid, reads: bool) {
        let (mut floats, mut histograms) = (Slide::default(), Slide::default());
        for step in 0..grid.steps() {
            let (after, until) = spec.bounds(grid, step);
            floats.advance(&series.floats.t_ms, after, until);
            histograms.advance(&series.histograms.t_ms, after, until);
            let window = window(series, floats, histograms);
            let weights =
                |from: usize| window.histograms[from..].iter().map(|h| sample_weight(h)).sum::<u64>();
            let all = window.floats.len() as u64 + weights(0);
            let new = match (reads, step) {
                (false, _) => 0,
                (true, 0) => all,
                (true, _) if spec.reference.at_ms.is_some() => 0,
                (true, _) => {
                    let known = until.saturating_sub(grid.step_ms);
                    let later = |t_ms: &[i64]| t_ms.partition_point(|t| *t <= known);
                    let floats = window.t_ms.len() - later(window.t_ms);
                    floats as u64 + weights(later(window.histogram_t_ms))
                }
            };
            self.tally.note(step, all, new);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the inputs of one series' pass, all of them borrowed")]
    fn slide(
        &mut self,
        call: &Call,
        arg: &Expr,
        pos: Pos,
        series: &RangeSeries,
        spec: RangeSpec,
        grid: Grid,
        scalars: &[Vec<f64>],
        scratch: &mut Scratch,
    ) -> Result<Column> {
        let steps = grid.steps();
        let keeps_name = matches!(call.func, Function::LastOverTime | Function::FirstOverTime);
        let drop_name = !keeps_name || series.drop_name;
        let labels = match drop_name && !self.options.delayed_name_removal {
            true => drop_metric_schema(&series.labels),
            false => series.labels.clone(),
        };
        let name = series.labels.name();
        let shape = Shape::of(call.func, spec.range_ms).filter(|_| {
            let starts = self.options.start_timestamps && !series.floats.start_ms.is_empty();
            spec.mode == RangeMode::Default && series.histograms.t_ms.is_empty() && !starts
        });
        if let Some(shape) = shape {
            let windows = || (0..steps).map(|step| spec.bounds(grid, step)).collect();
            let rates = scratch.rates.get_or_insert_with(|| RateColumns::new(shape, windows()));
            let floats = rates.of(&series.floats.t_ms, &series.floats.values);
            let column = Column { labels, drop_name, floats, histograms: vec![] };
            self.note_non_counter(call.func, name, arg.pos, &column);
            return Ok(column);
        }
        let mut column = Column { labels, drop_name, floats: vec![ABSENT; steps], histograms: vec![] };
        let (mut floats, mut histograms) = (Slide::default(), Slide::default());
        let whole = whole(series);
        // A single window has nothing to keep for another.
        let (mut sliding, mut looked) = (None, steps == 1);
        for step in 0..steps {
            let (after, until) = spec.bounds(grid, step);
            floats.advance(&series.floats.t_ms, after, until);
            histograms.advance(&series.histograms.t_ms, after, until);
            let window = window(series, floats, histograms);
            if window.is_empty() {
                continue;
            }
            let end_ms = spec.reference.time(grid, step);
            let mut context = KernelContext {
                function: call.func,
                start_ms: end_ms.saturating_sub(spec.range_ms),
                end_ms,
                range_ms: spec.range_ms,
                eval_ms: grid.time(step),
                mode: spec.mode,
                params: [param(scalars, 0, step), param(scalars, 1, step)],
                start_timestamps: self.options.start_timestamps,
                name,
                pos: arg.pos,
                first_arg_pos: call.args[0].pos,
                args_pos: args_pos(call, pos),
                notes: &mut self.notes,
                scratch: &mut scratch.floats,
            };
            if !looked {
                sliding = Sliding::new(&context, &whole);
                looked = true;
            }
            let value = match &mut sliding {
                Some(sliding) => sliding.value(&mut context, &window, floats.from, whole.floats),
                None => kernels::apply(&mut context, &window)?,
            };
            match value {
                Some(Out::Float(value)) => column.floats[step] = value,
                Some(Out::Histogram(histogram)) => column.histograms.push((step as u32, Arc::new(histogram))),
                Some(Out::Shared(histogram)) => column.histograms.push((step as u32, histogram)),
                None => {}
            }
        }
        self.note_non_counter(call.func, name, arg.pos, &column);
        Ok(column)
    }

    fn note_non_counter(&mut self, function: Function, name: &str, pos: Pos, column: &Column) {
        let counts = matches!(function, Function::Rate | Function::Increase);
        let suffixes = ["_total", "_sum", "_count", "_bucket"];
        if !counts || name.is_empty() || suffixes.iter().any(|suffix| name.ends_with(suffix)) {
            return;
        }
        if column.floats.iter().any(|value| !crate::value::is_absent(*value)) {
            self.notes.possible_non_counter(pos, name);
        }
    }
}

fn param(scalars: &[Vec<f64>], which: usize, step: usize) -> f64 {
    scalars.get(which).and_then(|values| values.get(step)).copied().unwrap_or(f64::NAN)
}

fn args_pos(call: &Call, pos: Pos) -> Pos {
    match (call.args.first(), call.args.last()) {
        (Some(first), Some(last)) => Pos { start: first.pos.start, end: last.pos.end },
        _ => pos,
    }
}

fn check_mode(function: Function, mode: RangeMode) -> Result<()> {
    let (word, allowed): (_, &[&str]) = match mode {
        RangeMode::Default => return Ok(()),
        RangeMode::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        RangeMode::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&function.as_str()) {
        return Ok(());
    }
    let (list, function) = (allowed.join(", "), function.as_str());
    Err(EvalError::Execution(format!("{word} modifier can only be used with: {list} - not with {function}")))
}

/// One at the steps where no series has a sample in the window.
fn absent(arg: &Expr, series: &[RangeSeries], spec: RangeSpec, grid: Grid) -> Vec<Column> {
    let mut floats = vec![1.0; grid.steps()];
    for series in series {
        let (mut of_floats, mut of_histograms) = (Slide::default(), Slide::default());
        for (step, value) in floats.iter_mut().enumerate() {
            let (after, until) = spec.bounds(grid, step);
            of_floats.advance(&series.floats.t_ms, after, until);
            of_histograms.advance(&series.histograms.t_ms, after, until);
            if !window(series, of_floats, of_histograms).is_empty() {
                *value = ABSENT;
            }
        }
    }
    let column = Column {
        labels: super::relabel::labels_of_absence(arg),
        drop_name: true,
        floats,
        histograms: vec![],
    };
    if column.is_empty() { vec![] } else { vec![column] }
}
