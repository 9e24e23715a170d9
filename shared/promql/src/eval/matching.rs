//! Binary operators between vectors: matching by labels, `group_left`, `group_right`, `fill`, and the set operators.

use std::collections::HashMap;

use smallvec::SmallVec;
use tricord_model::{Labels, METRIC_NAME};

use super::binary::{Cell, changes_schema, operate};
use super::naming::is_metric_schema_label;
use super::{DUPLICATE_LABELSET, EvalError, Evaluator, Result};
use crate::ast::{Binary, BinaryOp, Cardinality, Matching, Pos};
use crate::kernels::math::{compare, scalar_operator};
use crate::value::{ABSENT, Column, is_absent};

/// The labels by which a series is matched.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    match matching.on {
        true => labels.filtered(named),
        false => labels.filtered(|name| name != METRIC_NAME && !named(name)),
    }
}

/// The series of both sides that match one another.
#[derive(Debug, Default)]
struct Group {
    lhs: Places,
    rhs: Places,
}

/// Most groups have one series on each side.
type Places = SmallVec<[usize; 1]>;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

fn group(lhs: &[Column], rhs: &[Column], matching: &Matching) -> Vec<Group> {
    let mut places: FastMap<Labels, usize> = FastMap::default();
    places.reserve(lhs.len());
    let mut groups: Vec<Group> = Vec::with_capacity(lhs.len());
    for (columns, is_left) in [(lhs, true), (rhs, false)] {
        for (at, column) in columns.iter().enumerate() {
            let place = *places.entry(signature(&column.labels, matching)).or_insert_with(|| {
                groups.push(Group::default());
                groups.len() - 1
            });
            let side = if is_left { &mut groups[place].lhs } else { &mut groups[place].rhs };
            side.push(at);
        }
    }
    groups
}

fn has_value(column: &Column, step: usize) -> bool {
    !is_absent(column.floats[step]) || column.histogram_at(step).is_some()
}

fn presence(columns: &[Column], steps: usize) -> Vec<bool> {
    let mut present = vec![false; steps];
    for column in columns {
        for (step, flag) in present.iter_mut().enumerate() {
            *flag |= !is_absent(column.floats[step]);
        }
        column.histograms.iter().for_each(|(step, _)| present[*step as usize] = true);
    }
    present
}

/// Results by labels; each label set has at most one value per step.
pub(super) struct Output {
    steps: usize,
    places: FastMap<Labels, usize>,
    columns: Vec<Column>,
}

impl Output {
    pub(super) fn new(steps: usize) -> Self {
        Self { steps, places: FastMap::default(), columns: vec![] }
    }

    pub(super) fn place(&mut self, labels: &Labels, drop_name: bool) -> usize {
        if let Some(place) = self.places.get(labels) {
            return *place;
        }
        let floats = vec![ABSENT; self.steps];
        self.columns.push(Column { labels: labels.clone(), drop_name, floats, histograms: vec![] });
        self.places.insert(labels.clone(), self.columns.len() - 1);
        self.columns.len() - 1
    }

    pub(super) fn put(&mut self, place: usize, step: usize, cell: Cell) -> Result<()> {
        let column = &mut self.columns[place];
        let may_be_taken = column.histograms.last().is_some_and(|(at, _)| *at as usize >= step);
        let taken = may_be_taken && column.histograms.iter().any(|(at, _)| *at as usize == step);
        if taken || !is_absent(column.floats[step]) {
            return Err(EvalError::Execution(DUPLICATE_LABELSET.to_owned()));
        }
        cell.put(column, step);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Vec<Column> {
        for column in &mut self.columns {
            column.histograms.sort_by_key(|(step, _)| *step);
        }
        self.columns.retain(|column| !column.is_empty());
        self.columns
    }
}

/// A side of an operation at one step: a series' value or the value that fills its place.
struct Operand<'a> {
    /// The number of the series on its side, or [`FILLED`].
    number: usize,
    labels: &'a Labels,
    cell: Cell,
}

/// The number of what fills the place of a missing series; its labels follow from the other side's series.
const FILLED: usize = usize::MAX;

impl Evaluator<'_> {
    pub(super) fn vector_vector(
        &mut self,
        binary: &Binary,
        lhs: Vec<Column>,
        rhs: Vec<Column>,
        steps: usize,
        pos: Pos,
    ) -> Result<Vec<Column>> {
        let default = default_matching(binary.op);
        let matching = binary.matching.as_ref().unwrap_or(&default);
        let groups = group(&lhs, &rhs, matching);
        if binary.op.is_set() {
            return set_operation(binary.op, lhs, &rhs, &groups, steps);
        }
        let swapped = matching.card == Cardinality::OneToMany;
        // From here on the right side is the one of which each series of the left matches at most one.
        let (many, one) = if swapped { (&rhs, &lhs) } else { (&lhs, &rhs) };
        let (in_many, in_one) = (presence(many, steps), presence(one, steps));
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        let active: Vec<bool> = (0..steps)
            .map(|step| if fills { in_many[step] || in_one[step] } else { in_many[step] && in_one[step] })
            .collect();
        let mut join =
            Join { binary, matching, swapped, pos, output: Output::new(steps), results: FastMap::default() };
        // Prometheus goes step by step and looks at the "one" side first: of several errors, that one is shown.
        let mut refused: Option<(usize, bool, EvalError)> = None;
        for group in &groups {
            self.check_cancelled()?;
            let (of_many, of_one) = if swapped { (&group.rhs, &group.lhs) } else { (&group.lhs, &group.rhs) };
            if !fills
                && join.whole_columns((many, of_many), (one, of_one), self.options.delayed_name_removal)?
            {
                continue;
            }
            for (step, _) in active.iter().enumerate().filter(|(_, active)| **active) {
                if refused.as_ref().is_some_and(|(first, _, _)| step > *first) {
                    break;
                }
                if let Err(error) = self.join_step(&mut join, (many, of_many), (one, of_one), step) {
                    let ambiguous_one = of_one.iter().filter(|at| has_value(&one[**at], step)).count() > 1;
                    let place = (step, !ambiguous_one);
                    if refused.as_ref().is_none_or(|(step, later, _)| place < (*step, *later)) {
                        refused = Some((place.0, place.1, error));
                    }
                    break;
                }
            }
        }
        match refused {
            Some((_, _, error)) => Err(error),
            None => Ok(join.output.finish()),
        }
    }

    fn join_step(
        &mut self,
        join: &mut Join<'_>,
        (many, of_many): (&[Column], &[usize]),
        (one, of_one): (&[Column], &[usize]),
        step: usize,
    ) -> Result<()> {
        let matching = join.matching;
        let mut present = of_one.iter().filter(|at| has_value(&one[**at], step));
        let single = present.next().copied();
        if let (Some(first), Some(second)) = (single, present.next()) {
            return Err(duplicate_match(&one[first], &one[*second], matching));
        }
        // As in Prometheus, `group_right` does not swap what fills: `fill_left` always fills the "many" side.
        let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
        let matched = &mut Places::new();
        for at in of_many.iter().filter(|at| has_value(&many[**at], step)) {
            let left = operand(many, *at, step);
            let filled;
            let right = match (single, fill_one) {
                (Some(number), _) => operand(one, number, step),
                (None, Some(fill)) => {
                    filled = match_labels(left.labels, matching);
                    Operand { number: FILLED, labels: &filled, cell: Cell::Float(fill) }
                }
                (None, None) => continue,
            };
            self.join_pair(join, &left, &right, step, matched)?;
        }
        if let (Some(fill), Some(number), true) = (fill_many, single, matched.is_empty()) {
            let right = operand(one, number, step);
            let labels = match_labels(right.labels, matching);
            let left = Operand { number: FILLED, labels: &labels, cell: Cell::Float(fill) };
            self.join_pair(join, &left, &right, step, matched)?;
        }
        Ok(())
    }

    fn join_pair(
        &mut self,
        join: &mut Join<'_>,
        many: &Operand<'_>,
        one: &Operand<'_>,
        step: usize,
        matched: &mut Places,
    ) -> Result<()> {
        let binary = join.binary;
        let (lhs, rhs) = if join.swapped { (&one.cell, &many.cell) } else { (&many.cell, &one.cell) };
        let Some((cell, keep)) = operate(binary.op, lhs, rhs, join.pos, &mut self.notes) else {
            return Ok(());
        };
        let place = join.place(many, one, self.options.delayed_name_removal);
        let one_to_one = join.matching.card == Cardinality::OneToOne;
        if one_to_one && !matched.is_empty() {
            let text =
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
            return Err(EvalError::Execution(text.to_owned()));
        }
        if !one_to_one && matched.contains(&place) {
            let text = "multiple matches for labels: grouping labels must ensure unique matches";
            return Err(EvalError::Execution(text.to_owned()));
        }
        matched.push(place);
        match (binary.return_bool, keep) {
            (true, keep) => join.output.put(place, step, Cell::Float(f64::from(u8::from(keep)))),
            (false, true) => join.output.put(place, step, cell),
            (false, false) => Ok(()),
        }
    }
}

/// One operation between two vectors.
struct Join<'a> {
    binary: &'a Binary,
    matching: &'a Matching,
    /// Whether the "many" side is on the right.
    swapped: bool,
    pos: Pos,
    output: Output,
    /// The place of the result for each pair of series, by their numbers.
    results: FastMap<(usize, usize), usize>,
}

impl Join<'_> {
    /// Joins the series of a group in one pass over the steps each; false, with nothing done, where a step must be
    /// looked at by itself: for histograms, and where several series could yield one.
    fn whole_columns(
        &mut self,
        (many, of_many): (&[Column], &[usize]),
        (one, of_one): (&[Column], &[usize]),
        delayed: bool,
    ) -> Result<bool> {
        let [at_one] = *of_one else { return Ok(of_one.is_empty()) };
        let trims = matches!(self.binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        let ambiguous = self.matching.card == Cardinality::OneToOne && of_many.len() > 1;
        let of_floats = |column: &Column| column.histograms.is_empty();
        let one = &one[at_one];
        if trims || ambiguous || !of_floats(one) || !of_many.iter().all(|at| of_floats(&many[*at])) {
            return Ok(false);
        }
        let mut places: SmallVec<[(usize, usize); 4]> = SmallVec::new();
        for at in of_many.iter().copied().filter(|at| overlap(&many[*at], one)) {
            let left = Operand { number: at, labels: &many[at].labels, cell: Cell::Float(0.0) };
            let right = Operand { number: at_one, labels: &one.labels, cell: Cell::Float(0.0) };
            places.push((self.place(&left, &right, delayed), at));
        }
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Ok(false);
        }
        places.into_iter().try_for_each(|(place, at)| self.whole_column(place, &many[at], one)).map(|()| true)
    }

    fn whole_column(&mut self, place: usize, many: &Column, one: &Column) -> Result<()> {
        let op = self.binary.op;
        let (lhs, rhs) = if self.swapped { (one, many) } else { (many, one) };
        let pairs = lhs.floats.iter().zip(&rhs.floats).enumerate();
        for (step, (a, b)) in pairs.filter(|(_, (a, b))| !is_absent(**a) && !is_absent(**b)) {
            let value = match (op.is_comparison(), self.binary.return_bool) {
                (false, _) => scalar_operator(op, *a, *b),
                (true, true) => f64::from(u8::from(compare(op, *a, *b))),
                (true, false) if compare(op, *a, *b) => *a,
                (true, false) => continue,
            };
            self.output.put(place, step, Cell::Float(value))?;
        }
        Ok(())
    }

    fn place(&mut self, many: &Operand<'_>, one: &Operand<'_>, delayed: bool) -> usize {
        let key = (many.number, one.number);
        if let Some(place) = self.results.get(&key) {
            return *place;
        }
        let labels = self.result_labels(many.labels, one.labels, delayed);
        let place = self.output.place(&labels, self.binary.return_bool);
        self.results.insert(key, place);
        place
    }

    fn result_labels(&self, many: &Labels, one: &Labels, delayed: bool) -> Labels {
        let drops = changes_schema(self.binary.op) || (self.binary.return_bool && !delayed);
        let named = |name: &str| self.matching.labels.iter().any(|label| label == name);
        let one_to_one = self.matching.card == Cardinality::OneToOne;
        let kept = many.filtered(|name| {
            (!drops || !is_metric_schema_label(name)) && (!one_to_one || named(name) == self.matching.on)
        });
        if self.matching.include.is_empty() {
            return kept;
        }
        let mut builder = kept.to_builder();
        for name in &self.matching.include {
            builder.set(name, one.get(name).unwrap_or(""));
        }
        builder.finish()
    }
}

/// Whether two series have floats at one step.
fn overlap(left: &Column, right: &Column) -> bool {
    left.floats.iter().zip(&right.floats).any(|(a, b)| !is_absent(*a) && !is_absent(*b))
}

fn operand(columns: &[Column], number: usize, step: usize) -> Operand<'_> {
    let column = &columns[number];
    let cell = match column.histogram_at(step) {
        Some(histogram) => Cell::Histogram(histogram.clone()),
        None => Cell::Float(column.floats[step]),
    };
    Operand { number, labels: &column.labels, cell }
}

/// The labels that a filled-in operand has: those that are matched.
fn match_labels(labels: &Labels, matching: &Matching) -> Labels {
    signature(labels, matching)
}

fn duplicate_match(first: &Column, second: &Column, matching: &Matching) -> EvalError {
    let side = if matching.card == Cardinality::OneToMany { "left" } else { "right" };
    let group = match_labels(&second.labels, matching);
    EvalError::Execution(format!(
        "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{}, {}];\
         many-to-many matching not allowed: matching labels must be unique on one side",
        second.labels, first.labels,
    ))
}

fn default_matching(op: BinaryOp) -> Matching {
    Matching {
        card: if op.is_set() { Cardinality::ManyToMany } else { Cardinality::OneToOne },
        on: false,
        labels: vec![],
        include: vec![],
        fill_left: None,
        fill_right: None,
    }
}

fn set_operation(
    op: BinaryOp,
    lhs: Vec<Column>,
    rhs: &[Column],
    groups: &[Group],
    steps: usize,
) -> Result<Vec<Column>> {
    let of = |columns: &[Column], places: &[usize]| {
        let mut present = vec![false; steps];
        for at in places {
            let column = &columns[*at];
            (0..steps).filter(|step| has_value(column, *step)).for_each(|step| present[step] = true);
        }
        present
    };
    let mut group_of_lhs = vec![0; lhs.len()];
    let mut group_of_rhs = vec![0; rhs.len()];
    for (at, group) in groups.iter().enumerate() {
        group.lhs.iter().for_each(|i| group_of_lhs[*i] = at);
        group.rhs.iter().for_each(|i| group_of_rhs[*i] = at);
    }
    let masks: Vec<Vec<bool>> = groups
        .iter()
        .map(|group| if op == BinaryOp::Or { of(&lhs, &group.lhs) } else { of(rhs, &group.rhs) })
        .collect();
    let mut kept: Vec<Column> = Vec::with_capacity(lhs.len());
    for (column, group) in lhs.into_iter().zip(group_of_lhs) {
        let mask = &masks[group];
        match op {
            BinaryOp::And => kept.push(masked(column, |step| mask[step])),
            BinaryOp::Unless => kept.push(masked(column, |step| !mask[step])),
            _ => kept.push(column),
        }
    }
    if op == BinaryOp::Or {
        for (column, group) in rhs.iter().zip(group_of_rhs) {
            kept.push(masked(column.clone(), |step| !masks[group][step]));
        }
    }
    kept.retain(|column| !column.is_empty());
    if op == BinaryOp::Or { join_sides(kept) } else { Ok(kept) }
}

fn masked(mut column: Column, keep: impl Fn(usize) -> bool) -> Column {
    for (step, value) in column.floats.iter_mut().enumerate() {
        if !keep(step) {
            *value = ABSENT;
        }
    }
    column.histograms.retain(|(step, _)| keep(*step as usize));
    column
}

/// One series per label set; whether its name goes is decided by the side that has the first value.
fn join_sides(mut columns: Vec<Column>) -> Result<Vec<Column>> {
    let first_step = |column: &Column| {
        let float = column.floats.iter().position(|value| !is_absent(*value)).unwrap_or(usize::MAX);
        column.histograms.first().map_or(float, |(step, _)| float.min(*step as usize))
    };
    let mut earliest: HashMap<Labels, (usize, bool)> = HashMap::with_capacity(columns.len());
    for column in &columns {
        let new = (first_step(column), column.drop_name);
        let known = earliest.entry(column.labels.clone()).or_insert(new);
        if new.0 < known.0 {
            *known = new;
        }
    }
    for column in &mut columns {
        column.drop_name = earliest.get(&column.labels).is_some_and(|(_, drop_name)| *drop_name);
    }
    super::merge_same_labels(columns)
}
