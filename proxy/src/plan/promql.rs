//! Splits an expression into parts that data nodes compute and a rest that the proxy evaluates over their results.
//!
//! What may be pushed is decided by the rules in [`super::pushdown`]; here the largest legal subtrees are taken out and
//! replaced by [`ExprKind::Remote`] leaves. What is left and still names a selector (range selectors under a parameter
//! that is not constant, `info`, a bare range selector) reads raw samples through the proxy's storage.

use tricord_fragment::{AggregateSpec, PromqlFragment};
use tricord_model::{Labels, LabelsBuilder, MatchOp};
use tricord_promql::ast::{
    Aggregate, AggregateOp, Binary, Call, Expr, ExprKind, Grouping, Pos, Remote, Subquery, ValueType,
    VectorSelector,
};
use tricord_promql::eval::{
    EvalError, EvalOptions, NoSources, evaluate, first_selector, is_fixed, reads_stats_only, subquery_grid,
};
use tricord_promql::functions::Function;
use tricord_promql::storage::{Selection, Storage, StorageError};
use tricord_promql::value::{Grid, QueryValue};

use super::pushdown::{self, Place};

/// A query, split.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the proxy evaluates; its `Remote` leaves name parts.
    pub rest: Expr,
    /// What data nodes compute, by the leaves' ids.
    pub parts: Vec<Part>,
}

/// One fragment and what becomes of its partials.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What each data node runs.
    pub fragment: PromqlFragment,
    /// How many nodes its expression has.
    pub nodes: u32,
    /// How the partials become columns.
    pub finish: Finish,
}

/// How partials become columns.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// Series of all shards side by side.
    Concatenate {
        /// Whether labels were rewritten, so that two shards may have made one label set.
        relabelled: bool,
    },
    /// States merged group by group, then finished.
    States,
    /// A series with these labels where no shard has any.
    Absent(Labels),
}

/// Plans a query.
///
/// # Errors
/// [`EvalError`] where a duration or a constant parameter cannot be resolved.
pub fn plan(expr: &Expr, grid: Grid, options: &EvalOptions) -> Result<Plan, EvalError> {
    let mut planner = Planner { options, path: Vec::new(), parts: Vec::new() };
    let rest = planner.split(expr, grid)?;
    Ok(Plan { rest, parts: planner.parts })
}

struct Planner<'a> {
    options: &'a EvalOptions,
    /// The nodes from the root to the one at hand.
    path: Vec<&'a Expr>,
    parts: Vec<Part>,
}

impl<'a> Planner<'a> {
    /// The expression with everything that can be pushed replaced by leaves.
    fn split(&mut self, expr: &'a Expr, grid: Grid) -> Result<Expr, EvalError> {
        self.path.push(expr);
        let rest = self.split_node(expr, grid);
        self.path.pop();
        rest
    }

    fn split_node(&mut self, expr: &'a Expr, grid: Grid) -> Result<Expr, EvalError> {
        match pushdown::place(expr) {
            Place::Anywhere => return Ok(expr.clone()),
            place @ (Place::Shard | Place::ShardRelabelled) if !is_range(expr) => {
                let finish = Finish::Concatenate { relabelled: place == Place::ShardRelabelled };
                return Ok(self.part(expr, expr, expr.places(), grid, None, finish));
            }
            _ => {}
        }
        let kind = match &expr.kind {
            ExprKind::Paren(inner) => ExprKind::Paren(Box::new(self.split(inner, grid)?)),
            ExprKind::Unary(op, inner) => ExprKind::Unary(*op, Box::new(self.split(inner, grid)?)),
            ExprKind::Binary(binary) => ExprKind::Binary(Box::new(Binary {
                lhs: self.split(&binary.lhs, grid)?,
                rhs: self.split(&binary.rhs, grid)?,
                ..(**binary).clone()
            })),
            ExprKind::Aggregate(aggregate) => return self.aggregate(aggregate, expr, grid),
            ExprKind::Call(call) => return self.call(call, expr, grid),
            ExprKind::Subquery(subquery) => ExprKind::Subquery(Box::new(self.subquery(subquery, grid)?)),
            other => other.clone(),
        };
        Ok(Expr { pos: expr.pos, kind })
    }

    /// A subquery at the proxy: its body is a distributed query over a grid of its own.
    fn subquery(&mut self, subquery: &'a Subquery, grid: Grid) -> Result<Subquery, EvalError> {
        let inner = subquery_grid(subquery, grid, self.options)?;
        Ok(Subquery { expr: self.split(&subquery.expr, inner)?, ..subquery.clone() })
    }

    fn aggregate(&mut self, aggregate: &'a Aggregate, expr: &'a Expr, grid: Grid) -> Result<Expr, EvalError> {
        if pushdown::pushes_states(aggregate) {
            let param = self.constants(aggregate.param.as_ref(), grid)?;
            let spec = AggregateSpec { op: aggregate.op, grouping: aggregate.grouping.clone(), param };
            let pushed = aggregate.expr.without_parens();
            let param_pos = aggregate.param.as_ref().map(|param| param.without_parens().pos);
            let mut places = pushed.places();
            places.extend([expr.pos, param_pos.unwrap_or_default()]);
            return Ok(self.part(expr, pushed, places, grid, Some(spec), Finish::States));
        }
        let param = aggregate.param.as_ref().map(|param| self.split(param, grid)).transpose()?;
        let inner = self.split(&aggregate.expr, grid)?;
        let rest = Aggregate { param, expr: inner, ..aggregate.clone() };
        Ok(Expr { pos: expr.pos, kind: ExprKind::Aggregate(Box::new(rest)) })
    }

    fn call(&mut self, call: &'a Call, expr: &'a Expr, grid: Grid) -> Result<Expr, EvalError> {
        if let Some((present, selector)) = pushdown::presence(call) {
            let spec = AggregateSpec { op: AggregateOp::Group, grouping: Grouping::default(), param: vec![] };
            let finish = Finish::Absent(selector.map_or_else(Labels::empty, absent_labels));
            return Ok(self.part(expr, &present, present.places(), grid, Some(spec), finish));
        }
        let mut args = Vec::with_capacity(call.args.len());
        for (at, arg) in call.args.iter().enumerate() {
            // The second argument of info() only looks like a selector: it chooses labels.
            let stays = call.func == Function::Info && at == 1;
            args.push(if stays { arg.clone() } else { self.split(arg, grid)? });
        }
        Ok(Expr { pos: expr.pos, kind: ExprKind::Call(Call { func: call.func, args }) })
    }

    /// A leaf for a part, whose nodes stand at `places` in the query; equal parts are computed once.
    fn part(
        &mut self,
        original: &Expr,
        pushed: &Expr,
        places: Vec<Pos>,
        grid: Grid,
        aggregate: Option<AggregateSpec>,
        finish: Finish,
    ) -> Expr {
        let fragment = PromqlFragment {
            expr: pushed.to_string(),
            grid,
            query: self.options.query,
            lookback_ms: self.options.lookback_ms,
            default_subquery_step_ms: self.options.default_subquery_step_ms,
            delayed_name_removal: self.options.delayed_name_removal,
            start_timestamps: self.options.start_timestamps,
            count_steps: self.options.count_steps,
            histogram_stats: reads_stats_only(self.path.iter().copied()),
            aggregate,
        };
        let nodes = pushed.places().len() as u32;
        let part = Part { fragment, nodes, finish };
        let id = self.parts.iter().position(|known| *known == part).unwrap_or_else(|| {
            self.parts.push(part);
            self.parts.len() - 1
        });
        let (value_type, fixed) = (ValueType::Vector, is_fixed(original));
        let selector = first_selector(original).cloned().map(Box::new);
        let remote = Remote { id, value_type, fixed, selector, places: places.into() };
        Expr { pos: original.pos, kind: ExprKind::Remote(remote) }
    }

    /// The values of a parameter that depends on time alone: one where all steps agree.
    fn constants(&self, param: Option<&Expr>, grid: Grid) -> Result<Vec<f64>, EvalError> {
        let Some(param) = param else { return Ok(vec![]) };
        match evaluate(param, grid, &NoSamples, &NoSources, self.options)?.value {
            QueryValue::Scalar(values) => {
                let same = values.windows(2).all(|pair| pair[0].to_bits() == pair[1].to_bits());
                Ok(if same { values.into_iter().take(1).collect() } else { values })
            }
            _ => Err(EvalError::BadData("expected a scalar parameter".to_owned())),
        }
    }
}

/// A storage for expressions that read none.
struct NoSamples;

impl Storage for NoSamples {
    fn select(
        &self,
        _selection: &Selection<'_>,
    ) -> Result<Vec<(Labels, tricord_model::Points)>, StorageError> {
        Err(StorageError::Failed("a constant parameter reads samples".to_owned()))
    }
}

fn is_range(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Paren(inner) => is_range(inner),
        ExprKind::MatrixSelector(_) | ExprKind::Subquery(_) => true,
        _ => false,
    }
}

/// The labels of an `absent` series: those that the selector pins to one value. A label with several matchers is left
/// out, as in Prometheus.
fn absent_labels(selector: &VectorSelector) -> Labels {
    let mut labels = LabelsBuilder::new();
    let mut seen = std::collections::HashSet::new();
    for matcher in selector.matchers.iter().filter(|matcher| matcher.name != tricord_model::METRIC_NAME) {
        if matcher.op == MatchOp::Equal && seen.insert(matcher.name.as_str()) {
            labels.set(&matcher.name, &matcher.value);
        } else {
            labels.remove(&matcher.name);
        }
    }
    labels.finish()
}

#[cfg(test)]
mod tests;
