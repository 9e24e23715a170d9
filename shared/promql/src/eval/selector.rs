//! Instant selectors: the latest sample at each step, its timestamp, or a value interpolated between samples.

use tricord_model::{Labels, Matcher, Points, is_stale};

use super::duration::{at_ms, resolve_duration_ms};
use super::{Evaluator, Result};
use crate::ast::{Pos, RangeMode, VectorSelector};
use crate::histogram;
use crate::kernels::extended;
use crate::storage::Selection;
use crate::value::{ABSENT, Column, Grid, QueryValue};

/// The time that a step reads at: the step's own or that of `@`, moved by the offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    pub(super) at_ms: Option<i64>,
    pub(super) offset_ms: i64,
}

impl Reference {
    #[inline]
    pub(super) fn time(&self, grid: Grid, step: usize) -> i64 {
        self.at_ms.unwrap_or_else(|| grid.time(step)).saturating_sub(self.offset_ms)
    }

    /// The earliest and the latest time over all steps.
    pub(super) fn span(&self, grid: Grid) -> (i64, i64) {
        (self.time(grid, 0), self.time(grid, grid.steps().saturating_sub(1)))
    }
}

/// Which facet of a sample an instant selection yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Facet {
    Value,
    Timestamp,
    StartTimestamp,
}

/// Whether the sample at a place is a stale marker, be it a float or a histogram.
pub(super) fn is_stale_at(points: &Points, at: usize) -> bool {
    match points.histogram_at(at) {
        Some(histogram) => is_stale(histogram.sum),
        None => is_stale(points.floats[at]),
    }
}

impl Evaluator<'_> {
    pub(super) fn reference(&self, selector: &VectorSelector) -> Result<Reference> {
        let offset_ms = resolve_duration_ms(&selector.offset, true, self.options)?;
        Ok(Reference { at_ms: at_ms(selector.at, self.options), offset_ms })
    }

    /// Reads the samples after `after_ms` up to `until_ms`.
    pub(super) fn select(
        &mut self,
        matchers: &[Matcher],
        after_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<(Labels, Points)>> {
        self.check_cancelled()?;
        let max_samples = self.options.max_samples.saturating_sub(self.live);
        let any_order = self.any_order;
        let selection = Selection { matchers, after_ms, until_ms, max_samples, any_order };
        let mut series = self.storage.select(&selection)?;
        if self.reading.stats_only() {
            series.iter_mut().for_each(|(_, points)| histogram::stats_only(points));
        }
        self.stats.series += series.len() as u64;
        self.stats.samples_read += series.iter().map(|(_, points)| points.len() as u64).sum::<u64>();
        Ok(series)
    }

    pub(super) fn vector_selector(
        &mut self,
        selector: &VectorSelector,
        pos: Pos,
        grid: Grid,
    ) -> Result<QueryValue> {
        if selector.mode == RangeMode::Smoothed {
            return self.smoothed_selector(selector, pos, grid);
        }
        self.instant(selector, grid, Facet::Value).map(QueryValue::Vector)
    }

    pub(super) fn instant(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
        facet: Facet,
    ) -> Result<Vec<Column>> {
        let reference = self.reference(selector)?;
        let (first, last) = reference.span(grid);
        let series = self.select(&selector.matchers, first.saturating_sub(self.options.lookback_ms), last)?;
        self.check_cells(series.len(), grid.steps())?;
        let mut columns = Vec::with_capacity(series.len());
        // What was read is held until its series is done.
        self.charge(series.iter().map(|(_, points)| points.len() as u64).sum())?;
        for (labels, points) in series {
            self.check_cancelled()?;
            self.live -= points.len() as u64;
            let mut column = self.latest(labels, &points, reference, grid, facet);
            column.drop_name = false;
            if !column.is_empty() {
                columns.push(column);
            }
        }
        self.tally.columns(&columns, reference.at_ms.is_some());
        Ok(columns)
    }

    /// The sample in force at each step.
    pub(super) fn latest(
        &self,
        labels: Labels,
        points: &Points,
        reference: Reference,
        grid: Grid,
        facet: Facet,
    ) -> Column {
        let steps = grid.steps();
        let mut column = Column { labels, drop_name: false, floats: vec![ABSENT; steps], histograms: vec![] };
        let mut next = 0;
        for step in 0..steps {
            let now = reference.time(grid, step);
            while next < points.len() && points.t_ms[next] <= now {
                next += 1;
            }
            let Some(at) = next.checked_sub(1) else { continue };
            let t_ms = points.t_ms[at];
            if t_ms <= now.saturating_sub(self.options.lookback_ms) || is_stale_at(points, at) {
                continue;
            }
            match facet {
                Facet::Timestamp => column.floats[step] = t_ms as f64 / 1000.0,
                Facet::StartTimestamp => {
                    column.floats[step] = points.start_ms.get(at).copied().unwrap_or(0) as f64 / 1000.0;
                }
                Facet::Value => match points.histogram_at(at) {
                    Some(histogram) => column.histograms.push((step as u32, histogram.clone())),
                    None => column.floats[step] = points.floats[at],
                },
            }
        }
        column
    }

    fn smoothed_selector(&mut self, selector: &VectorSelector, pos: Pos, grid: Grid) -> Result<QueryValue> {
        let reference = self.reference(selector)?;
        let lookback = self.options.lookback_ms;
        let (first, last) = reference.span(grid);
        let series =
            self.select(&selector.matchers, first.saturating_sub(lookback), last.saturating_add(lookback))?;
        self.check_cells(series.len(), grid.steps())?;
        let mut columns = Vec::with_capacity(series.len());
        for (labels, points) in series {
            let points: Points = clean(points);
            let mut column =
                Column { labels, drop_name: false, floats: vec![ABSENT; grid.steps()], histograms: vec![] };
            for step in 0..grid.steps() {
                let now = reference.time(grid, step);
                self.smooth(&points, now, pos, step, &mut column);
            }
            if !column.is_empty() {
                columns.push(column);
            }
        }
        Ok(QueryValue::Vector(columns))
    }

    fn smooth(&mut self, points: &Points, now: i64, pos: Pos, step: usize, column: &mut Column) {
        let lookback = self.options.lookback_ms;
        let from = points.t_ms.partition_point(|t| *t <= now.saturating_sub(lookback));
        let to = points.t_ms.partition_point(|t| *t <= now.saturating_add(lookback));
        let histograms = (from..to).filter(|at| points.histogram_at(*at).is_some()).count();
        if histograms > 0 && histograms < to - from {
            return self.notes.mixed_floats_histograms(pos, column.labels.name());
        }
        let at = from + points.t_ms[from..to].partition_point(|t| *t < now);
        let exact = at < to && points.t_ms[at] == now;
        if !exact && at == from {
            return;
        }
        if histograms == 0 {
            column.floats[step] = match (exact, at < to) {
                (true, _) => points.floats[at],
                (false, true) => {
                    let (left, right) =
                        ((points.t_ms[at - 1], points.floats[at - 1]), (points.t_ms[at], points.floats[at]));
                    extended::interpolate(left, right, now, false)
                }
                (false, false) => points.floats[at - 1],
            };
            return;
        }
        let histogram_at = |at: usize| points.histogram_at(at).cloned().unwrap_or_default();
        let value = match (exact, at < to) {
            (true, _) => Some(histogram_at(at)),
            (false, true) => {
                let (left, right) = (histogram_at(at - 1), histogram_at(at));
                if left.uses_custom_buckets() != right.uses_custom_buckets() {
                    self.notes.mixed_schemas(pos, column.labels.name());
                    return;
                }
                let gauge = tricord_model::CounterResetHint::Gauge;
                let counter = left.counter_reset_hint != gauge || right.counter_reset_hint != gauge;
                let times = (points.t_ms[at - 1], points.t_ms[at], now);
                let name = column.labels.name();
                extended::interpolate_histograms(&left, &right, times, counter, &mut self.notes, pos, name)
                    .map(std::sync::Arc::new)
            }
            (false, false) => {
                let mut last = (*histogram_at(at - 1)).clone();
                last.counter_reset_hint = tricord_model::CounterResetHint::Unknown;
                Some(std::sync::Arc::new(last))
            }
        };
        if let Some(value) = value {
            debug_assert!(histogram::is_well_formed(&value));
            column.histograms.push((step as u32, value));
        }
    }
}

/// The samples without stale markers.
pub(super) fn clean(points: Points) -> Points {
    // Looks at all of them: a loop without an early end is much faster.
    let stale = points.floats.iter().fold(false, |any, value| any | is_stale(*value))
        || points.histograms.iter().any(|(_, histogram)| is_stale(histogram.sum));
    if !stale {
        return points;
    }
    (0..points.len()).filter(|at| !is_stale_at(&points, *at)).filter_map(|at| points.get(at)).collect()
}
