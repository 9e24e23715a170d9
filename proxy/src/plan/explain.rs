//! A plan as people read it.

use std::fmt::Write as _;

use tricord_fragment::AggregateSpec;

use super::promql::{Finish, Part, Plan};

/// The rest at the proxy, then one line per part.
#[must_use]
pub fn text(plan: &Plan) -> String {
    let mut out = plan.rest.to_string();
    for (id, part) in plan.parts.iter().enumerate() {
        let _ = write!(out, "\n{id}: {}", describe(part));
    }
    out
}

/// One part: what is pushed and how it is merged.
#[must_use]
pub fn describe(part: &Part) -> String {
    let fragment = &part.fragment;
    let mut out = match (&part.finish, &fragment.aggregate) {
        (Finish::Absent(labels), _) => format!("absent {labels} unless {}", fragment.expr),
        (_, Some(spec)) => format!("{} of {}", operator(spec), fragment.expr),
        (Finish::Concatenate { relabelled: true }, None) => format!("{} (labels rewritten)", fragment.expr),
        (_, None) => fragment.expr.clone(),
    };
    if fragment.grid != fragment.query {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let grid = fragment.grid;
        let (start, end, step) = (seconds(grid.start_ms), seconds(grid.end_ms), seconds(grid.step_ms));
        let _ = write!(out, " from {start}s to {end}s by {step}s");
    }
    out
}

fn operator(spec: &AggregateSpec) -> String {
    let mut out = spec.op.as_str().to_owned();
    match spec.param.as_slice() {
        [] => {}
        [param] => {
            let _ = write!(out, "({param})");
        }
        _ => out.push_str("(by step)"),
    }
    let word = if spec.grouping.without { "without" } else { "by" };
    let _ = write!(out, " {word} ({})", spec.grouping.labels.join(", "));
    out
}

/// How the partials of a part are put together.
#[must_use]
pub fn merge(part: &Part) -> &'static str {
    match part.finish {
        Finish::Concatenate { .. } => "concatenate",
        Finish::States => "merge states",
        Finish::Absent(_) => "absent unless any shard has series",
    }
}
