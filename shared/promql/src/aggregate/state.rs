//! The state of one group: per step what has been folded so far.

use std::collections::HashMap;
use std::sync::Arc;

use tricord_model::codec::{CodecError, Reader, Writer};
use tricord_model::{FloatHistogram, Labels, METRIC_NAME};

use super::sums::ColumnSums;
use super::{HistogramSum, Moments};
use crate::ast::{AggregateOp, Grouping};
use crate::value::{ABSENT, Column, is_absent};

/// A group of series, folded.
#[derive(Clone, Debug)]
pub struct GroupState {
    /// The labels of the group's result; for `topk` and its kin those that make the group.
    pub labels: Labels,
    /// With delayed name removal: whether `__name__` goes when the query ends.
    pub drop_name: bool,
    /// The least name of a series whose histogram was folded, for notes.
    pub(crate) histogram_name: Option<String>,
    pub(crate) steps: StepStates,
}

/// Two states of different aggregations or grids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partial results of different aggregations cannot be merged")]
pub struct StateError;

/// States in columns of steps.
#[derive(Clone, Debug)]
pub(crate) enum StepStates {
    /// `sum` and `avg`.
    Sum(Sums),
    /// `count` and `count_values`.
    Count(Vec<u64>),
    /// `min`, `max` and `group`: a value or [`ABSENT`].
    Value(Vec<f64>),
    /// `stddev` and `stdvar`.
    Moments(Vec<Moments>),
    /// `quantile`: all values.
    Values(Vec<Vec<f64>>),
    /// `topk`, `bottomk`, `limitk`, `limit_ratio`: the series, with the steps alone at which they are chosen.
    Series(Vec<Column>),
}

/// The state of `sum` and `avg`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) floats: ColumnSums,
    /// The steps that hold histograms, ascending.
    pub(crate) histograms: Vec<(u32, HistogramSum)>,
}

impl Sums {
    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let floats = ColumnSums::decode(input)?;
        let mut histograms: Vec<(u32, HistogramSum)> = Vec::new();
        for _ in 0..input.count(2)? {
            let step = input.u32()?;
            if step as usize >= floats.len() || histograms.last().is_some_and(|(last, _)| *last >= step) {
                return Err(CodecError::Invalid("steps are not ascending"));
            }
            histograms.push((step, HistogramSum::decode(input)?));
        }
        Ok(Self { floats, histograms })
    }

    fn histogram_at(&mut self, step: u32) -> &mut HistogramSum {
        let at = match self.histograms.binary_search_by_key(&step, |(at, _)| *at) {
            Ok(at) => at,
            Err(at) => {
                self.histograms.insert(at, (step, HistogramSum::default()));
                at
            }
        };
        &mut self.histograms[at].1
    }
}

/// The labels of a series' group.
pub(crate) fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    let named = |name: &str| grouping.labels.iter().any(|label| label == name);
    match grouping.without {
        true => labels.filtered(|name| name != METRIC_NAME && !named(name)),
        false => labels.filtered(named),
    }
}

/// The labels of a series' group for `count_values`, which makes the value a label.
pub(crate) fn group_labels_of_value(
    labels: &Labels,
    grouping: &Grouping,
    label: &str,
    value: &str,
) -> Labels {
    let mut builder = labels.to_builder();
    builder.set(label, value);
    let named = |name: &str| grouping.labels.iter().any(|label| label == name);
    match grouping.without {
        true => builder.finish().filtered(|name| name != METRIC_NAME && !named(name)),
        false => builder.finish().filtered(|name| name == label || named(name)),
    }
}

impl StepStates {
    pub(crate) fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum | AggregateOp::Avg => {
                Self::Sum(Sums { floats: ColumnSums::new(steps), histograms: vec![] })
            }
            AggregateOp::Count | AggregateOp::CountValues => Self::Count(vec![0; steps]),
            AggregateOp::Min | AggregateOp::Max | AggregateOp::Group => Self::Value(vec![ABSENT; steps]),
            AggregateOp::Stddev | AggregateOp::Stdvar => Self::Moments(vec![Moments::default(); steps]),
            AggregateOp::Quantile => Self::Values(vec![vec![]; steps]),
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                Self::Series(vec![])
            }
        }
    }

    /// Whether the state is one of that aggregation over that many steps.
    pub(crate) fn fits(&self, op: AggregateOp, steps: usize) -> bool {
        let same_kind = std::mem::discriminant(self) == std::mem::discriminant(&Self::new(op, 0));
        same_kind
            && match self {
                Self::Sum(sums) => {
                    let histograms_fit = sums.histograms.iter().all(|(step, _)| (*step as usize) < steps);
                    sums.floats.len() == steps && histograms_fit
                }
                Self::Count(counts) => counts.len() == steps,
                Self::Value(values) => values.len() == steps,
                Self::Moments(moments) => moments.len() == steps,
                Self::Values(values) => values.len() == steps,
                Self::Series(columns) => columns.iter().all(|column| {
                    let histograms_fit = column.histograms.iter().all(|(step, _)| (*step as usize) < steps);
                    column.floats.len() == steps && histograms_fit
                }),
            }
    }

    /// Folds a float of a series that is not itself part of the result.
    #[inline]
    pub(crate) fn fold_float(&mut self, op: AggregateOp, step: usize, value: f64) {
        match self {
            Self::Sum(sums) => sums.floats.add(step, value),
            Self::Count(counts) => counts[step] += 1,
            Self::Value(values) => values[step] = extreme(op, values[step], value),
            Self::Moments(moments) => moments[step].add(value),
            Self::Values(values) => values[step].push(value),
            Self::Series(_) => {}
        }
    }

    /// Folds the floats of a series that is not itself part of the result.
    pub(crate) fn fold_floats(&mut self, op: AggregateOp, floats: &[f64]) {
        let present = || floats.iter().enumerate().filter(|(_, value)| !is_absent(**value));
        match self {
            Self::Sum(sums) => sums.floats.add_column(floats),
            Self::Count(counts) => {
                for (count, value) in counts.iter_mut().zip(floats) {
                    *count += u64::from(!is_absent(*value));
                }
            }
            _ => present().for_each(|(step, value)| self.fold_float(op, step, *value)),
        }
    }

    /// Folds a histogram; false where the aggregation passes histograms over.
    pub(crate) fn fold_histogram(
        &mut self,
        op: AggregateOp,
        step: usize,
        histogram: &Arc<FloatHistogram>,
    ) -> bool {
        match self {
            Self::Sum(sums) => {
                sums.histogram_at(step as u32).add(histogram);
                sums.floats.counts[step] += 1;
                true
            }
            Self::Count(counts) => {
                counts[step] += 1;
                true
            }
            Self::Value(values) if op == AggregateOp::Group => {
                values[step] = 1.0;
                true
            }
            _ => false,
        }
    }

    fn merge(&mut self, op: AggregateOp, other: Self) -> Result<(), StateError> {
        match (self, other) {
            (Self::Sum(own), Self::Sum(theirs)) if own.floats.len() == theirs.floats.len() => {
                own.floats.merge(&theirs.floats);
                theirs.histograms.iter().for_each(|(step, sum)| own.histogram_at(*step).merge(sum));
            }
            (Self::Count(own), Self::Count(theirs)) if own.len() == theirs.len() => {
                own.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
            }
            (Self::Value(own), Self::Value(theirs)) if own.len() == theirs.len() => {
                for (a, b) in own.iter_mut().zip(theirs).filter(|(_, b)| !is_absent(*b)) {
                    *a = extreme(op, *a, b);
                }
            }
            (Self::Moments(own), Self::Moments(theirs)) if own.len() == theirs.len() => {
                own.iter_mut().zip(&theirs).for_each(|(a, b)| a.merge(b));
            }
            (Self::Values(own), Self::Values(theirs)) if own.len() == theirs.len() => {
                own.iter_mut().zip(theirs).for_each(|(a, b)| a.extend(b));
            }
            // Chosen again at the end, among the series of all nodes.
            (Self::Series(own), Self::Series(theirs)) => own.extend(theirs),
            _ => return Err(StateError),
        }
        Ok(())
    }
}

/// The one of two values that `min` or `max` keeps: a number rather than NaN, and of two zeros the lesser or greater.
fn extreme(op: AggregateOp, old: f64, new: f64) -> f64 {
    if op == AggregateOp::Group {
        return 1.0;
    }
    if new.is_nan() {
        return if is_absent(old) { f64::NAN } else { old };
    }
    if old.is_nan() {
        return new;
    }
    let order = new.total_cmp(&old);
    let better = if op == AggregateOp::Max { order.is_gt() } else { order.is_lt() };
    if better { new } else { old }
}

impl GroupState {
    pub(crate) fn new(labels: Labels, op: AggregateOp, steps: usize) -> Self {
        Self { labels, drop_name: false, histogram_name: None, steps: StepStates::new(op, steps) }
    }

    pub(crate) fn note_histogram(&mut self, name: &str) {
        if self.histogram_name.as_ref().is_none_or(|known| name < known.as_str()) {
            self.histogram_name = Some(name.to_owned());
        }
    }

    /// Joins the state of the same group from another part of the series.
    ///
    /// # Errors
    /// [`StateError`] where the states belong to different aggregations or grids.
    pub fn merge(&mut self, op: AggregateOp, other: Self) -> Result<(), StateError> {
        self.drop_name |= other.drop_name;
        if let Some(name) = &other.histogram_name {
            self.note_histogram(name);
        }
        self.steps.merge(op, other.steps)
    }

    /// Joins the groups of several parts of the series; the result is sorted by labels.
    ///
    /// # Errors
    /// [`StateError`] where states belong to different aggregations or grids.
    pub fn merge_all(
        op: AggregateOp,
        parts: impl IntoIterator<Item = Vec<Self>>,
    ) -> Result<Vec<Self>, StateError> {
        let mut merged = MergedGroups::of_distinct(op, vec![]);
        parts.into_iter().try_for_each(|part| merged.add(part))?;
        Ok(merged.finish())
    }

    /// Appends the state to a buffer.
    pub fn encode(&self, out: &mut Writer<'_>) {
        self.labels.encode(out);
        out.u8(u8::from(self.drop_name) | (u8::from(self.histogram_name.is_some()) << 1));
        if let Some(name) = &self.histogram_name {
            out.str(name);
        }
        match &self.steps {
            StepStates::Sum(sums) => {
                out.u8(0);
                sums.floats.encode(out);
                out.u64(sums.histograms.len() as u64);
                for (step, sum) in &sums.histograms {
                    out.u64(u64::from(*step));
                    sum.encode(out);
                }
            }
            StepStates::Count(counts) => {
                out.u8(1);
                out.u64(counts.len() as u64);
                counts.iter().for_each(|count| out.u64(*count));
            }
            StepStates::Value(values) => {
                out.u8(2);
                out.u64(values.len() as u64);
                out.f64s(values);
            }
            StepStates::Moments(moments) => {
                out.u8(3);
                out.u64(moments.len() as u64);
                moments.iter().for_each(|moments| moments.encode(out));
            }
            StepStates::Values(values) => {
                out.u8(4);
                out.u64(values.len() as u64);
                for values in values {
                    out.u64(values.len() as u64);
                    out.f64s(values);
                }
            }
            StepStates::Series(columns) => {
                out.u8(5);
                out.u64(columns.len() as u64);
                columns.iter().for_each(|column| column.encode(out));
            }
        }
    }

    /// Reads what [`GroupState::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early or hold what no state has.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let labels = Labels::decode(input)?;
        let flags = input.u8()?;
        let histogram_name = if flags & 2 != 0 { Some(input.str()?.to_owned()) } else { None };
        Ok(Self { labels, drop_name: flags & 1 != 0, histogram_name, steps: decode_steps(input)? })
    }
}

/// Groups of parts of the series that come one after the other.
#[derive(Debug)]
pub struct MergedGroups {
    op: AggregateOp,
    groups: HashMap<Labels, GroupState, foldhash::fast::RandomState>,
}

impl MergedGroups {
    /// Begins with the groups of one part, each of which has labels of its own.
    #[must_use]
    pub fn of_distinct(op: AggregateOp, groups: Vec<GroupState>) -> Self {
        Self { op, groups: groups.into_iter().map(|group| (group.labels.clone(), group)).collect() }
    }

    /// Adds those of another part.
    ///
    /// # Errors
    /// [`StateError`] where states belong to different aggregations or grids.
    pub fn add(&mut self, part: Vec<GroupState>) -> Result<(), StateError> {
        for state in part {
            match self.groups.get_mut(&state.labels) {
                Some(group) => group.merge(self.op, state)?,
                None => drop(self.groups.insert(state.labels.clone(), state)),
            }
        }
        Ok(())
    }

    /// The groups, sorted by labels.
    #[must_use]
    pub fn finish(self) -> Vec<GroupState> {
        let mut groups: Vec<GroupState> = self.groups.into_values().collect();
        groups.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        groups
    }
}

fn decode_steps(input: &mut Reader<'_>) -> Result<StepStates, CodecError> {
    let kind = input.u8()?;
    if kind == 0 {
        return Ok(StepStates::Sum(Sums::decode(input)?));
    }
    let steps = input.count(1)?;
    let each = 0..steps;
    Ok(match kind {
        1 => StepStates::Count(each.map(|_| input.u64()).collect::<Result<_, _>>()?),
        2 => StepStates::Value(input.f64s(steps)?),
        3 => StepStates::Moments(each.map(|_| Moments::decode(input)).collect::<Result<_, _>>()?),
        4 => {
            let mut values = Vec::with_capacity(steps);
            for _ in each {
                let count = input.count(8)?;
                values.push(input.f64s(count)?);
            }
            StepStates::Values(values)
        }
        5 => StepStates::Series(each.map(|_| Column::decode(input)).collect::<Result<_, _>>()?),
        _ => return Err(CodecError::Invalid("unknown kind of aggregation state")),
    })
}
