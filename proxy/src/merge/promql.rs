//! From partials to columns: series side by side, or states merged group by group and finished.

use tricord_fragment::{Partial, PartialBody, PromqlFragment};
use tricord_model::Labels;
use tricord_promql::aggregate::{GroupState, finish};
use tricord_promql::ast::AggregateOp;
use tricord_promql::eval::{AggregateParam, Notes, PartialSpec, Sources, StepSamples, merge_same_labels};
use tricord_promql::value::{ABSENT, Column, Grid, is_absent};

use crate::error::Error;
use crate::plan::promql::{Finish, Part};

/// The merged parts of a plan, by their ids.
#[derive(Debug, Default)]
pub struct Columns(Vec<Merged>);

/// A merged part.
#[derive(Debug, Default)]
pub struct Merged {
    /// Its series.
    pub columns: Vec<Column>,
    /// Notes of the data nodes and of finishing.
    pub notes: Notes,
    /// What its steps have taken, where that was counted.
    pub steps: Option<StepSamples>,
}

impl Columns {
    /// Adds the next part.
    pub fn push(&mut self, part: Merged) {
        self.0.push(part);
    }

    /// Whether one part is nothing but its series: no notes, and no steps that were counted.
    #[must_use]
    pub fn is_plain(&self, id: usize) -> bool {
        self.0.get(id).is_some_and(|part| part.notes.is_empty() && part.steps.is_none())
    }

    /// The series of one part; none where there is no such part.
    #[must_use]
    pub fn into_part(mut self, id: usize) -> Vec<Column> {
        if id < self.0.len() { self.0.swap_remove(id).columns } else { vec![] }
    }

    /// How many series each part has.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|part| part.columns.len())
    }
}

impl Sources for Columns {
    fn columns(&self, id: usize) -> Option<&[Column]> {
        self.0.get(id).map(|part| part.columns.as_slice())
    }

    fn notes(&self, id: usize) -> Option<&Notes> {
        self.0.get(id).map(|part| &part.notes)
    }

    fn steps(&self, id: usize) -> Option<&StepSamples> {
        self.0.get(id).and_then(|part| part.steps.as_ref())
    }
}

/// The columns of a part, with the notes of the data nodes and of finishing.
///
/// # Errors
/// [`Error::Execution`] where two shards yield one label set, [`Error::Internal`] where a partial is of another kind.
pub fn columns(part: &Part, partials: Vec<Partial>) -> Result<(Vec<Column>, Notes), Error> {
    let mut notes = Notes::default();
    let mut bodies = Vec::with_capacity(partials.len());
    for partial in partials {
        notes.merge(partial.notes);
        bodies.push(partial.body);
    }
    let columns = match &part.finish {
        Finish::Concatenate { .. } => concatenate(bodies)?,
        Finish::States => {
            let groups = merged(&part.fragment, bodies)?;
            finished(part, groups, &mut notes)?
        }
        Finish::Absent(labels) => {
            let groups = merged(&part.fragment, bodies)?;
            let present = finished(part, groups, &mut notes)?;
            absent(labels, &present, part.fragment.grid)
        }
    };
    Ok((columns, notes))
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

fn finished(part: &Part, groups: Vec<GroupState>, notes: &mut Notes) -> Result<Vec<Column>, Error> {
    let fragment = &part.fragment;
    let Some(spec) = &fragment.aggregate else { return Ok(vec![]) };
    let param = match spec.param.as_slice() {
        [] => AggregateParam::None,
        [value] => AggregateParam::Constant(*value),
        values => AggregateParam::Steps(values.to_vec()),
    };
    let spec = PartialSpec::numbered(spec.op, spec.grouping.clone(), param, part.nodes);
    let finished = finish(&spec, groups, fragment.grid);
    let (columns, more) = finished.map_err(|error| Error::Internal(error.to_string()))?;
    notes.merge(more);
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
