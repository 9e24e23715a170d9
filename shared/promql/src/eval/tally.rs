//! Counts the samples that a query takes, step by step, as Prometheus' `stats` tells them.
//!
//! A sample is taken at a step when it is in force there or lies in the step's window, and read at the first of the
//! steps that take it. A histogram counts by its size.

use serde::{Deserialize, Serialize};
use tricord_model::Points;

use super::Evaluator;
use crate::histogram::sample_weight;
use crate::value::{Column, Grid, QueryValue, is_absent};

/// Samples by the steps of a grid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSamples {
    /// What each step takes: as much as an instant query at its time would.
    pub queryable: Vec<u64>,
    /// What each step reads anew.
    pub read: Vec<u64>,
}

impl StepSamples {
    /// No samples at so many steps.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        Self { queryable: vec![0; steps], read: vec![0; steps] }
    }

    /// Adds what another part of the query takes at the same steps; what lies on another grid is left out.
    pub fn add(&mut self, other: &Self) {
        if other.queryable.len() != self.queryable.len() || other.read.len() != self.read.len() {
            return;
        }
        self.queryable.iter_mut().zip(&other.queryable).for_each(|(sum, more)| *sum += more);
        self.read.iter_mut().zip(&other.read).for_each(|(sum, more)| *sum += more);
    }

    fn note(&mut self, step: usize, samples: u64, read: u64) {
        if let (Some(queryable), Some(known)) = (self.queryable.get_mut(step), self.read.get_mut(step)) {
            *queryable += samples;
            *known += read;
        }
    }
}

/// How a subquery's steps belong to those of the query around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// The steps of the query around.
    pub(super) grid: Grid,
    /// How much earlier the subquery's steps lie.
    pub(super) offset_ms: i64,
    /// How far back a step looks at the subquery; 0 where all of it is the result.
    pub(super) range_ms: i64,
    /// Whether all steps look at the same time.
    pub(super) fixed: bool,
}

impl Around {
    /// The step that looks at a time first; none where the time lies in a gap between windows.
    fn step_of(&self, t_ms: i64) -> Option<usize> {
        let last = self.grid.steps().saturating_sub(1);
        if last == 0 || self.fixed {
            return Some(0);
        }
        let after = t_ms.saturating_add(self.offset_ms).saturating_sub(self.grid.start_ms);
        let step_ms = self.grid.step_ms.max(1);
        let step = if after > 0 { (after as u64).div_ceil(step_ms as u64) as usize } else { 0 }.min(last);
        let window_ms = self.grid.time(step).saturating_sub(self.range_ms);
        let in_gap = self.range_ms > 0 && t_ms.saturating_add(self.offset_ms) <= window_ms;
        (!in_gap).then_some(step)
    }
}

/// The counts of the grid at hand; nothing is counted where nobody asks.
#[derive(Debug, Default)]
pub(super) struct Tally(Option<StepSamples>);

impl Tally {
    pub(super) fn new(asked: bool, steps: usize) -> Self {
        Self(asked.then(|| StepSamples::new(steps)))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn into_samples(self) -> Option<StepSamples> {
        self.0
    }

    pub(super) fn note(&mut self, step: usize, samples: u64, read: u64) {
        if let Some(known) = &mut self.0 {
            known.note(step, samples, read);
        }
    }

    /// The samples in force at each step, read at the first one alone where `@` fixes their time.
    pub(super) fn columns(&mut self, columns: &[Column], fixed: bool) {
        let Some(known) = &mut self.0 else { return };
        for column in columns {
            let floats = column.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value));
            let floats = floats.map(|(step, _)| (step, 1));
            let histograms = column.histograms.iter().map(|(step, h)| (*step as usize, sample_weight(h)));
            for (step, weight) in floats.chain(histograms) {
                known.note(step, weight, if fixed && step > 0 { 0 } else { weight });
            }
        }
    }

    /// Adds what a part that was computed elsewhere takes.
    pub(super) fn part(&mut self, part: Option<&StepSamples>) {
        if let (Some(known), Some(part)) = (&mut self.0, part) {
            known.add(part);
        }
    }

    /// Adds what a subquery has read; what it takes is counted by whoever looks at its steps.
    fn subquery(&mut self, inner: &StepSamples, grid: Grid, around: Around) {
        let Some(known) = &mut self.0 else { return };
        for (step, read) in inner.read.iter().enumerate().filter(|(_, read)| **read > 0) {
            if let Some(at) = around.step_of(grid.time(step)) {
                known.note(at, 0, *read);
            }
        }
    }
}

impl Evaluator<'_> {
    /// Evaluates something over one step that stands for all of them, and counts it so.
    pub(super) fn tally_once<T>(&mut self, steps: usize, run: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::take(&mut self.tally);
        self.tally = Tally::new(outer.is_on(), 1);
        let result = run(self);
        let once = std::mem::replace(&mut self.tally, outer).into_samples().unwrap_or_default();
        let (samples, read) = (once.queryable.iter().sum(), once.read.iter().sum());
        for step in 0..steps {
            self.tally.note(step, samples, if step == 0 { read } else { 0 });
        }
        result
    }

    /// Evaluates a subquery's body over its own grid, and counts what it reads for the query around.
    pub(super) fn tally_subquery<T>(
        &mut self,
        grid: Grid,
        around: Around,
        run: impl FnOnce(&mut Self) -> T,
    ) -> (T, u64) {
        let outer = std::mem::take(&mut self.tally);
        self.tally = Tally::new(outer.is_on(), grid.steps());
        let result = run(self);
        let inner = std::mem::replace(&mut self.tally, outer).into_samples().unwrap_or_default();
        self.tally.subquery(&inner, grid, around);
        (result, inner.queryable.iter().sum())
    }
}

fn weight(points: &Points) -> u64 {
    let floats = points.len().saturating_sub(points.histograms.len()) as u64;
    floats + points.histograms.iter().map(|(_, histogram)| sample_weight(histogram)).sum::<u64>()
}

/// How many samples a value of ranges has for the statistics.
pub(super) fn weight_of(value: &QueryValue) -> u64 {
    match value {
        QueryValue::Matrix(series) => series.iter().map(|(_, points)| weight(points)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_subquery_belong_to_the_first_that_looks_at_them() {
        let grid = Grid { start_ms: 100, end_ms: 400, step_ms: 100 };
        let around = Around { grid, offset_ms: 0, range_ms: 50, fixed: false };
        assert_eq!(around.step_of(50), None, "before the first window");
        assert_eq!(around.step_of(51), Some(0));
        assert_eq!(around.step_of(100), Some(0));
        assert_eq!(around.step_of(150), None, "a gap");
        assert_eq!(around.step_of(151), Some(1));
        assert_eq!(around.step_of(500), Some(3), "behind the last step");
        assert_eq!(Around { offset_ms: 30, ..around }.step_of(170), Some(1));
        assert_eq!(Around { range_ms: 0, ..around }.step_of(150), Some(1));
        assert_eq!(Around { fixed: true, ..around }.step_of(350), Some(0));
        assert_eq!(Around { grid: Grid::instant(7), ..around }.step_of(350), Some(0));
    }

    #[test]
    fn another_grid_is_not_added() {
        let mut sum = StepSamples::new(2);
        sum.add(&StepSamples { queryable: vec![1, 2], read: vec![1, 0] });
        sum.add(&StepSamples { queryable: vec![9], read: vec![9] });
        assert_eq!(sum, StepSamples { queryable: vec![1, 2], read: vec![1, 0] });
    }
}
