//! From states to series.

use std::sync::Arc;

use super::select::{keep_ranked, sort_instant};
use super::state::Sums;
use super::{GroupState, StateError, StepStates};
use crate::ast::{AggregateOp, Pos};
use crate::eval::PartialSpec;
use crate::eval::notes::{HistogramOp, Notes};
use crate::kernels::quantile::quantile;
use crate::value::{ABSENT, Column, Grid};

/// Turns the groups of a whole aggregation, merged over all nodes, into its series; they come sorted by labels, or for
/// an instant `topk` or `bottomk` by value within each group. Notes have the positions of the spec.
///
/// # Errors
/// [`StateError`] where a state belongs to another aggregation or grid.
pub fn finish(
    spec: &PartialSpec,
    groups: Vec<GroupState>,
    grid: Grid,
) -> Result<(Vec<Column>, Notes), StateError> {
    if !groups.iter().all(|group| group.steps.fits(spec.op, grid.steps())) {
        return Err(StateError);
    }
    let mut notes = Notes::default();
    notes.enter(spec.pos);
    let columns = finish_groups(spec, groups, grid.steps(), &mut notes);
    Ok((columns, notes))
}

pub(crate) fn finish_groups(
    spec: &PartialSpec,
    groups: Vec<GroupState>,
    steps: usize,
    notes: &mut Notes,
) -> Vec<Column> {
    let mut columns = Vec::with_capacity(groups.len());
    for group in groups {
        if let StepStates::Series(series) = group.steps {
            let params = spec.param.values(steps);
            let mut chosen = keep_ranked(spec.op, series, &params);
            if steps == 1 && matches!(spec.op, AggregateOp::Topk | AggregateOp::Bottomk) {
                sort_instant(spec.op, &mut chosen);
            }
            columns.extend(chosen);
            continue;
        }
        let column = finish_group(spec, group, steps, notes);
        if !column.is_empty() {
            columns.push(column);
        }
    }
    columns
}

fn finish_group(spec: &PartialSpec, group: GroupState, steps: usize, notes: &mut Notes) -> Column {
    let mut column = Column {
        labels: group.labels,
        drop_name: group.drop_name,
        floats: vec![ABSENT; steps],
        histograms: vec![],
    };
    let floats = &mut column.floats;
    match group.steps {
        StepStates::Sum(sums) => {
            let name = group.histogram_name.as_deref().unwrap_or("");
            finish_sums(spec.op == AggregateOp::Avg, &sums, &mut column, spec.expr_pos, name, notes);
        }
        StepStates::Count(counts) => {
            for (float, count) in floats.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
                *float = count as f64;
            }
        }
        StepStates::Value(values) => *floats = values,
        StepStates::Moments(moments) => {
            for (float, moments) in floats.iter_mut().zip(&moments).filter(|(_, moments)| !moments.is_empty())
            {
                *float =
                    if spec.op == AggregateOp::Stddev { moments.deviation() } else { moments.variance() };
            }
        }
        StepStates::Values(mut values) => {
            let params = spec.param.values(steps);
            for (step, values) in values.iter_mut().enumerate().filter(|(_, values)| !values.is_empty()) {
                floats[step] = quantile(params[step], values);
            }
        }
        StepStates::Series(_) => {}
    }
    column
}

fn finish_sums(is_mean: bool, sums: &Sums, column: &mut Column, pos: Pos, name: &str, notes: &mut Notes) {
    for step in (0..column.floats.len()).filter(|step| !sums.floats.is_empty_at(*step)) {
        let sum = sums.floats.sum(step);
        column.floats[step] = if is_mean { sum.mean(sums.floats.counts[step]) } else { sum.value() };
    }
    for (step, sum) in &sums.histograms {
        let at = *step as usize;
        if !sums.floats.is_empty_at(at) {
            column.floats[at] = ABSENT;
            notes.mixed_floats_histograms_aggregation(pos);
            continue;
        }
        let (total, sum_notes) = sum.finish(if is_mean { sums.floats.counts[at] } else { 1 });
        let Some(total) = total else {
            notes.mixed_schemas(pos, name);
            continue;
        };
        if sum_notes.bounds_reconciled {
            notes.mismatched_custom_buckets(pos, HistogramOp::Aggregate);
        }
        if sum_notes.reset_collision {
            notes.reset_collision(pos, HistogramOp::Aggregate);
        }
        column.histograms.push((*step, Arc::new(total)));
    }
}
