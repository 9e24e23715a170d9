//! A plan as a tree of steps, for `explain`: what the proxy evaluates, what data nodes run, and what they read.

use parking_lot::Mutex;
use serde::Serialize;
use tricord_fragment::{Estimate, LabelQuery};
use tricord_model::{Labels, Points};
use tricord_promql::ast::{BinaryOp, Expr, ExprKind, UnaryOp};
use tricord_promql::eval::{EvalOptions, Sources, evaluate, evaluate_part};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::storage::{Selection, Storage, StorageError};
use tricord_promql::value::{Column, Grid};

use super::explain::{describe, merge};
use super::promql::{Part, Plan};

/// Where a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// In the proxy, over what data nodes have answered.
    Proxy,
    /// On the data nodes, each over the shards that it is asked for.
    DataNodes,
}

/// One step and what it takes its input from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Where it runs.
    pub at: At,
    /// What it does, in the words of PromQL where it has any.
    pub does: String,
    /// The part of the plan that comes from the data nodes here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<usize>,
    /// What is read, for a step that reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<Read>,
    /// What it takes its input from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// A selection of samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Read {
    /// From, in milliseconds (inclusive).
    pub from_ms: i64,
    /// To, in milliseconds (inclusive).
    pub until_ms: i64,
    /// What the index says that it will cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated: Option<Estimate>,
    /// What data nodes are asked for.
    #[serde(skip)]
    pub query: LabelQuery,
}

/// The tree of a plan over a grid.
#[must_use]
pub fn tree(plan: &Plan, grid: Grid, options: &EvalOptions) -> Step {
    let builder = Builder { plan, options };
    let mut root = builder
        .step(&plan.rest)
        .unwrap_or_else(|| step(At::Proxy, format!("constant {}", plan.rest), None, vec![]));
    root.steps.extend(builder.raw_reads(grid));
    root
}

fn step(at: At, does: String, part: Option<usize>, steps: Vec<Step>) -> Step {
    Step { at, does, part, read: None, steps }
}

struct Builder<'a> {
    plan: &'a Plan,
    options: &'a EvalOptions,
}

impl Builder<'_> {
    /// The step of a node; none for a literal.
    fn step(&self, expr: &Expr) -> Option<Step> {
        let (does, inputs): (String, Vec<&Expr>) = match &expr.kind {
            ExprKind::Number(_) | ExprKind::String(_) => return None,
            ExprKind::Paren(inner) => return self.step(inner),
            ExprKind::Remote(remote) => {
                return self.plan.parts.get(remote.id).map(|p| self.part(remote.id, p));
            }
            ExprKind::Unary(op, inner) => {
                (if *op == UnaryOp::Minus { "unary -" } else { "unary +" }.to_owned(), vec![inner])
            }
            ExprKind::Binary(binary) => {
                let literal =
                    |side: &Expr| matches!(side.kind, ExprKind::Number(_)).then(|| side.to_string());
                (
                    operator(binary.op, literal(&binary.lhs), literal(&binary.rhs)),
                    vec![&binary.lhs, &binary.rhs],
                )
            }
            ExprKind::Aggregate(aggregate) => {
                let word = if aggregate.grouping.without { "without" } else { "by" };
                let labels = aggregate.grouping.labels.join(", ");
                let inputs = aggregate.param.iter().chain([&aggregate.expr]).collect();
                (format!("{} {word} ({labels})", aggregate.op.as_str()), inputs)
            }
            ExprKind::Call(call) => {
                let shown = |arg: &Expr| match arg.kind {
                    ExprKind::Number(_) | ExprKind::String(_) => arg.to_string(),
                    _ => "…".to_owned(),
                };
                let args: Vec<_> = call.args.iter().map(shown).collect();
                (format!("{}({})", call.func.as_str(), args.join(", ")), call.args.iter().collect())
            }
            ExprKind::Subquery(subquery) => ("subquery".to_owned(), vec![&subquery.expr]),
            ExprKind::VectorSelector(_) | ExprKind::MatrixSelector(_) => {
                return Some(step(At::Proxy, format!("select {expr}"), None, vec![]));
            }
        };
        let steps = inputs.into_iter().filter_map(|input| self.step(input)).collect();
        Some(step(At::Proxy, does, None, steps))
    }

    /// What comes from the data nodes, and what they read for it.
    fn part(&self, id: usize, part: &Part) -> Step {
        let pushed = step(At::DataNodes, describe(part), None, self.reads(part));
        step(At::Proxy, format!("part {id}: {}", merge(part)), Some(id), vec![pushed])
    }

    /// The engine itself knows best what it reads: it is run over nothing.
    fn reads(&self, part: &Part) -> Vec<Step> {
        let Ok(expr) = parse(&part.fragment.expr, &ParserOptions::default()) else { return vec![] };
        let recorder = Recorder::default();
        // The answer, which is empty, does not matter, nor whether there is one.
        let _ = evaluate_part(&expr, part.fragment.grid, &recorder, &Nothing, self.options);
        recorder.into_steps()
    }

    /// What selectors that are left at the proxy read.
    fn raw_reads(&self, grid: Grid) -> Vec<Step> {
        let recorder = Recorder::default();
        let _ = evaluate(&self.plan.rest, grid, &recorder, &Nothing, self.options);
        recorder.into_steps()
    }
}

fn operator(op: BinaryOp, lhs: Option<String>, rhs: Option<String>) -> String {
    let (lhs, rhs) = (lhs.unwrap_or_else(|| "…".to_owned()), rhs.unwrap_or_else(|| "…".to_owned()));
    format!("{lhs} {} {rhs}", op.as_str())
}

/// Parts without series.
struct Nothing;

impl Sources for Nothing {
    fn columns(&self, _id: usize) -> Option<&[Column]> {
        Some(&[])
    }
}

/// A store that has nothing, and remembers what it was asked for.
#[derive(Default)]
struct Recorder(Mutex<Vec<LabelQuery>>);

impl Storage for Recorder {
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError> {
        let query = LabelQuery {
            matchers: vec![selection.matchers.to_vec()],
            start_ms: selection.after_ms.saturating_add(1),
            end_ms: selection.until_ms,
            limit: 0,
        };
        let mut known = self.0.lock();
        if !known.contains(&query) {
            known.push(query);
        }
        Ok(vec![])
    }
}

impl Recorder {
    fn into_steps(self) -> Vec<Step> {
        let read = |query: LabelQuery| {
            let matchers: Vec<_> = query.matchers.iter().flatten().map(ToString::to_string).collect();
            let (from_ms, until_ms) = (query.start_ms, query.end_ms);
            let read = Read { from_ms, until_ms, estimated: None, query };
            Step {
                read: Some(read),
                ..step(At::DataNodes, format!("read {{{}}}", matchers.join(", ")), None, vec![])
            }
        };
        self.0.into_inner().into_iter().map(read).collect()
    }
}

impl Step {
    /// Visits all reads.
    pub fn reads_mut<'s>(&'s mut self, visit: &mut impl FnMut(&'s mut Read)) {
        if let Some(read) = &mut self.read {
            visit(read);
        }
        self.steps.iter_mut().for_each(|step| step.reads_mut(visit));
    }
}

#[cfg(test)]
mod tests {
    use super::super::promql::plan;
    use super::*;

    fn lines(step: &Step, depth: usize, out: &mut Vec<String>) {
        let range = step.read.as_ref().map(|r| format!(" {}..{}", r.from_ms, r.until_ms)).unwrap_or_default();
        let at = if step.at == At::Proxy { "" } else { "* " };
        out.push(format!("{}{at}{}{range}", "  ".repeat(depth), step.does));
        step.steps.iter().for_each(|step| lines(step, depth + 1, out));
    }

    #[track_caller]
    fn check(query: &str, expected: &[&str]) {
        let grid = Grid { start_ms: 600_000, end_ms: 900_000, step_ms: 60_000 };
        let expr = parse(query, &ParserOptions::default()).unwrap();
        let options = EvalOptions::new(grid);
        let mut out = Vec::new();
        lines(&tree(&plan(&expr, grid, &options).unwrap(), grid, &options), 0, &mut out);
        assert_eq!(out, expected, "{query}");
    }

    #[test]
    fn a_tree_tells_what_runs_where_and_what_is_read() {
        check(
            "sum by (job) (rate(m{a=\"b\"}[5m])) > 1",
            &[
                "… > 1",
                "  part 0: merge states",
                "    * sum by (job) of rate(m{a=\"b\"}[5m])",
                "      * read {a=\"b\", __name__=\"m\"} 300001..900000",
            ],
        );
        check(
            "histogram_quantile(0.9, sum by (le) (rate(b[1m] offset 1m)))",
            &[
                "histogram_quantile(0.9, …)",
                "  part 0: merge states",
                "    * sum by (le) of rate(b[1m] offset 1m)",
                "      * read {__name__=\"b\"} 480001..840000",
            ],
        );
        check("1 + 2", &["1 + 2"]);
    }
}
