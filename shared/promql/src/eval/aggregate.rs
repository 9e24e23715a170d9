//! Aggregations: folding series into groups, here or on the node that holds them.

use std::collections::HashMap;

use tricord_model::Labels;

use super::{EvalError, Evaluator, Result, string_arg, unwrap_parens};
use crate::aggregate::{
    GroupState, StepStates, finish_groups, group_labels, group_labels_of_value, keep_ranked,
};
use crate::ast::{Aggregate, AggregateOp, Expr, ExprKind, Grouping, Pos};
use crate::text::float_f;
use crate::value::{Column, Grid, QueryValue, is_absent};

/// The parameter of an aggregation.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregateParam {
    /// It takes none.
    None,
    /// One number for all steps.
    Constant(f64),
    /// A number per step.
    Steps(Vec<f64>),
    /// The label of `count_values`.
    Label(String),
}

impl AggregateParam {
    /// The number at each step; NaN where there is none.
    pub(crate) fn values(&self, steps: usize) -> Vec<f64> {
        match self {
            Self::Constant(value) => vec![*value; steps],
            Self::Steps(values) if values.len() == steps => values.clone(),
            _ => vec![f64::NAN; steps],
        }
    }
}

/// An aggregation without what it is over: enough to fold a part of the series.
#[derive(Clone, Debug, PartialEq)]
pub struct PartialSpec {
    /// The operator.
    pub op: AggregateOp,
    /// Which labels make a group.
    pub grouping: Grouping,
    /// The parameter.
    pub param: AggregateParam,
    /// Where the aggregation stands in the query, for notes.
    pub pos: Pos,
    /// Where that stands which it is over.
    pub expr_pos: Pos,
    /// Where the parameter stands.
    pub param_pos: Pos,
}

impl PartialSpec {
    /// The spec of an aggregation whose parameter, if any, is a literal; `None` for others.
    #[must_use]
    pub fn of(aggregate: &Aggregate) -> Option<Self> {
        let param = match aggregate.param.as_ref().map(|param| &unwrap_parens(param).kind) {
            None => AggregateParam::None,
            Some(ExprKind::Number(number)) => AggregateParam::Constant(number.value),
            Some(ExprKind::String(label)) => AggregateParam::Label(label.clone()),
            Some(_) => return None,
        };
        Some(Self::with_param(aggregate, Pos::default(), param))
    }

    /// The spec of the first phase of an aggregation over an expression whose nodes have numbers
    /// ([`Expr::number_nodes`]) and which no parentheses enclose: the aggregation has the number after them, and its
    /// parameter the one after that.
    #[must_use]
    pub fn numbered(op: AggregateOp, grouping: Grouping, param: AggregateParam, nodes: u32) -> Self {
        let at = |number: u32| Pos { start: number, end: number };
        let (pos, param_pos) = (at(nodes), at(nodes + 1));
        Self { op, grouping, param, pos, expr_pos: at(nodes.saturating_sub(1)), param_pos }
    }

    fn with_param(aggregate: &Aggregate, pos: Pos, param: AggregateParam) -> Self {
        Self {
            op: aggregate.op,
            grouping: aggregate.grouping.clone(),
            param,
            pos,
            expr_pos: unwrap_parens(&aggregate.expr).pos,
            param_pos: aggregate.param.as_ref().map(|param| unwrap_parens(param).pos).unwrap_or_default(),
        }
    }
}

type Groups = HashMap<Labels, GroupState, foldhash::fast::RandomState>;

impl Evaluator<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, pos: Pos, grid: Grid) -> Result<QueryValue> {
        let param = match &aggregate.param {
            None => AggregateParam::None,
            Some(param) if aggregate.op == AggregateOp::CountValues => {
                AggregateParam::Label(string_arg(Some(param))?.to_owned())
            }
            Some(param) => AggregateParam::Steps(self.eval_scalar(param, grid)?),
        };
        let spec = PartialSpec::with_param(aggregate, pos, param);
        let groups = self.fold_groups(&spec, &aggregate.expr, grid)?;
        Ok(QueryValue::Vector(finish_groups(&spec, groups, grid.steps(), &mut self.notes)))
    }

    /// The groups of an aggregation over the series at hand, sorted by labels.
    pub(super) fn fold_groups(
        &mut self,
        spec: &PartialSpec,
        expr: &Expr,
        grid: Grid,
    ) -> Result<Vec<GroupState>> {
        let steps = grid.steps();
        self.notes.enter(spec.pos);
        // What is aggregated may fail though nothing of it is kept; a label is looked at before.
        let label = matches!(spec.param, AggregateParam::Label(_));
        let wanted = !label || self.check_param(spec, steps)?;
        self.any_order = folds_in_any_order(spec.op) && reads_once(expr);
        let columns = self.eval_columns(expr, grid);
        self.any_order = false;
        let columns = columns?;
        if !wanted || (!label && !self.check_param(spec, steps)?) {
            return Ok(vec![]);
        }
        let mut groups = Groups::default();
        for column in columns {
            self.check_cancelled()?;
            match &spec.param {
                AggregateParam::Label(label) => fold_values(spec, label, &column, steps, &mut groups),
                _ => self.fold_column(spec, column, steps, &mut groups),
            }
            // `count_values` may make a group of every value.
            self.check_cells(groups.len(), steps)?;
        }
        let mut groups: Vec<GroupState> = groups.into_values().collect();
        groups.sort_by(|a, b| a.labels.cmp(&b.labels));
        let params = spec.param.values(steps);
        for group in &mut groups {
            if let StepStates::Series(series) = &mut group.steps {
                *series = keep_ranked(spec.op, std::mem::take(series), &params);
            }
        }
        Ok(groups)
    }

    fn fold_column(&mut self, spec: &PartialSpec, column: Column, steps: usize, groups: &mut Groups) {
        let labels = group_labels(&column.labels, &spec.grouping);
        let group =
            groups.entry(labels).or_insert_with_key(|labels| GroupState::new(labels.clone(), spec.op, steps));
        if let StepStates::Series(series) = &mut group.steps {
            let ranks = matches!(spec.op, AggregateOp::Topk | AggregateOp::Bottomk);
            if ranks && !column.histograms.is_empty() {
                self.notes.histogram_ignored(spec.pos, spec.op.as_str());
            }
            let histograms = if ranks { vec![] } else { column.histograms };
            series.push(Column { histograms, ..column });
            return;
        }
        group.drop_name |= column.drop_name;
        group.steps.fold_floats(spec.op, &column.floats);
        for (step, histogram) in &column.histograms {
            if group.steps.fold_histogram(spec.op, *step as usize, histogram) {
                group.note_histogram(column.labels.name());
            } else {
                self.notes.histogram_ignored(spec.expr_pos, spec.op.as_str());
            }
        }
    }

    /// Checks the parameter as Prometheus does; false where nothing can come out.
    fn check_param(&mut self, spec: &PartialSpec, steps: usize) -> Result<bool> {
        let values = match &spec.param {
            AggregateParam::None => return Ok(true),
            AggregateParam::Label(label) if label.is_empty() => {
                return Err(EvalError::Execution(format!(
                    "invalid label name {}",
                    crate::text::quoted(label)
                )));
            }
            AggregateParam::Label(_) => return Ok(true),
            other => other.values(steps),
        };
        let has_nan = values.iter().any(|value| value.is_nan());
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let fail = |text: String| Err(EvalError::Execution(text));
        match spec.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                if has_nan {
                    return fail("Parameter value is NaN".to_owned());
                }
                if max < 1.0 {
                    return Ok(false);
                }
                if min <= i64::MIN as f64 {
                    return fail(format!("Scalar value {} underflows int64", crate::text::float_g(min)));
                }
                if max >= i64::MAX as f64 {
                    return fail(format!("Scalar value {} overflows int64", crate::text::float_g(max)));
                }
            }
            AggregateOp::LimitRatio => {
                if has_nan {
                    return fail("Ratio value is NaN".to_owned());
                }
                if max == 0.0 && min == 0.0 {
                    return Ok(false);
                }
                if max > 1.0 {
                    self.notes.invalid_ratio(spec.param_pos, max, 1.0);
                }
                if min < -1.0 {
                    self.notes.invalid_ratio(spec.param_pos, min, -1.0);
                }
            }
            AggregateOp::Quantile => {
                if has_nan {
                    self.notes.invalid_quantile(spec.param_pos, f64::NAN);
                }
                if max > 1.0 {
                    self.notes.invalid_quantile(spec.param_pos, max);
                }
                if min < 0.0 {
                    self.notes.invalid_quantile(spec.param_pos, min);
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// Whether the order in which series are folded does not matter, not even for which of them stay.
fn folds_in_any_order(op: AggregateOp) -> bool {
    use AggregateOp as Op;
    matches!(op, Op::Sum | Op::Avg | Op::Count | Op::Min | Op::Max | Op::Group | Op::Stddev | Op::Stdvar)
}

/// Whether an expression is a selector, or a function over a range of one.
fn reads_once(expr: &Expr) -> bool {
    match &unwrap_parens(expr).kind {
        ExprKind::VectorSelector(_) => true,
        ExprKind::Call(call) => {
            let is_range = |arg: &Expr| matches!(unwrap_parens(arg).kind, ExprKind::MatrixSelector(_));
            call.args.iter().any(is_range) && expr.selectors().len() == 1
        }
        _ => false,
    }
}

fn fold_values(spec: &PartialSpec, label: &str, column: &Column, steps: usize, groups: &mut Groups) {
    let mut fold = |step: usize, text: &str| {
        let labels = group_labels_of_value(&column.labels, &spec.grouping, label, text);
        let new = |labels: &Labels| GroupState::new(labels.clone(), spec.op, steps);
        groups.entry(labels).or_insert_with_key(new).steps.fold_float(spec.op, step, 1.0);
    };
    for (step, value) in column.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
        fold(step, &float_f(*value));
    }
    for (step, histogram) in &column.histograms {
        fold(*step as usize, &crate::histogram::describe(histogram));
    }
}
