//! From partials to columns: series side by side, or states merged group by group and finished.

use tricord_fragment::{Partial, PartialBody, PromqlFragment};
use tricord_model::Labels;
use tricord_promql::aggregate::{GroupState, finish};
use tricord_promql::ast::{AggregateOp, Pos};
use tricord_promql::eval::{AggregateParam, EvalOptions, PartialSpec, Sources, merge_same_labels};
use tricord_promql::value::{ABSENT, Annotations, Column, Grid, is_absent};

use crate::error::Error;
use crate::plan::promql::{Finish, Part};

/// The merged parts of a plan, by their ids.
#[derive(Debug, Default)]
pub struct Columns(Vec<Vec<Column>>);

impl Columns {
    /// Adds the next part.
    pub fn push(&mut self, columns: Vec<Column>) {
        self.0.push(columns);
    }

    /// The series of one part; none where there is no such part.
    #[must_use]
    pub fn into_part(mut self, id: usize) -> Vec<Column> {
        if id < self.0.len() { self.0.swap_remove(id) } else { vec![] }
    }

    /// How many series each part has.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(Vec::len)
    }
}

impl Sources for Columns {
    fn columns(&self, id: usize) -> Option<&[Column]> {
        self.0.get(id).map(Vec::as_slice)
    }
}

/// The columns of a part; notes of the data nodes and of finishing are added to `annotations`.
///
/// # Errors
/// [`Error::Execution`] where two shards yield one label set, [`Error::Internal`] where a partial is of another kind.
pub fn columns(
    part: &Part,
    partials: Vec<Partial>,
    annotations: &mut Annotations,
) -> Result<Vec<Column>, Error> {
    let mut bodies = Vec::with_capacity(partials.len());
    for partial in partials {
        annotations.merge(partial.annotations);
        bodies.push(partial.body);
    }
    match &part.finish {
        Finish::Concatenate { .. } => concatenate(bodies),
        Finish::States => {
            let groups = merged(&part.fragment, bodies)?;
            finished(&part.fragment, groups, annotations)
        }
        Finish::Absent(labels) => {
            let groups = merged(&part.fragment, bodies)?;
            let present = finished(&part.fragment, groups, annotations)?;
            Ok(absent(labels, &present, part.fragment.grid))
        }
    }
}

fn mismatch() -> Error {
    Error::Internal("a data node answered with something other than what its fragment asks for".to_owned())
}

fn concatenate(bodies: Vec<PartialBody>) -> Result<Vec<Column>, Error> {
    let mut all = Vec::new();
    for body in bodies {
        let PartialBody::Columns(columns) = body else { return Err(mismatch()) };
        all.extend(columns);
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(merge_same_labels(all)?)
}

/// The groups of all nodes, sorted by labels.
fn merged(fragment: &PromqlFragment, bodies: Vec<PartialBody>) -> Result<Vec<GroupState>, Error> {
    let op = fragment.aggregate.as_ref().map_or(AggregateOp::Group, |spec| spec.op);
    let mut lists = Vec::with_capacity(bodies.len());
    for body in bodies {
        let PartialBody::Groups(states) = body else { return Err(mismatch()) };
        lists.push(states);
    }
    GroupState::merge_all(op, lists).map_err(|error| Error::Internal(error.to_string()))
}

fn finished(
    fragment: &PromqlFragment,
    groups: Vec<GroupState>,
    annotations: &mut Annotations,
) -> Result<Vec<Column>, Error> {
    let Some(spec) = &fragment.aggregate else { return Ok(vec![]) };
    let param = match spec.param.as_slice() {
        [] => AggregateParam::None,
        [value] => AggregateParam::Constant(*value),
        values => AggregateParam::Steps(values.to_vec()),
    };
    let spec = PartialSpec {
        op: spec.op,
        grouping: spec.grouping.clone(),
        param,
        pos: Pos::default(),
        expr_pos: Pos::default(),
        param_pos: Pos::default(),
    };
    let finished = finish(&spec, groups, fragment.grid, &EvalOptions::new(fragment.query));
    let (columns, notes) = finished.map_err(|error| Error::Internal(error.to_string()))?;
    annotations.merge(notes);
    Ok(columns)
}

/// One series that is 1 where no shard has any.
fn absent(labels: &Labels, present: &[Column], grid: Grid) -> Vec<Column> {
    let has = |step: usize| {
        present.iter().any(|column| !is_absent(column.floats[step]) || column.histogram_at(step).is_some())
    };
    let floats: Vec<f64> = (0..grid.steps()).map(|step| if has(step) { ABSENT } else { 1.0 }).collect();
    let column = Column { labels: labels.clone(), drop_name: false, floats, histograms: vec![] };
    if column.is_empty() { vec![] } else { vec![column] }
}
