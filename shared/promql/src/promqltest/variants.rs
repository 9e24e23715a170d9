//! The variants of an instant question: its selectors fixed by `@`, asked at other times.

use super::memory::parser_options;
use super::script::Eval;
use crate::ast::{AtModifier, Expr, ExprKind};
use crate::eval::depends_on_time;
use crate::parser::parse;

/// The query as it is, and with `@` at other evaluation times where that must change nothing.
pub(super) fn all(eval: &Eval) -> Vec<(String, i64)> {
    let t_ms = eval.at_ms;
    let mut out = vec![(eval.query.clone(), t_ms)];
    let Ok(mut expr) = parse(&eval.query, &parser_options()) else { return out };
    if !fix(&mut expr, t_ms) {
        return out;
    }
    let fixed = expr.to_string();
    let times = if t_ms == 0 { vec![-1000, 0, 1000] } else { vec![-10 * t_ms, 0, t_ms / 5, t_ms, 10 * t_ms] };
    out.extend(times.into_iter().map(|t_ms| (fixed.clone(), t_ms)));
    out
}

/// Sets `@` on every selector and subquery that has none; false where the result depends on the time even so.
fn fix(expr: &mut Expr, t_ms: i64) -> bool {
    let at = |at: &mut Option<AtModifier>| {
        if !matches!(at, Some(AtModifier::Time(_))) {
            *at = Some(AtModifier::Time(t_ms));
        }
    };
    match &mut expr.kind {
        ExprKind::VectorSelector(selector) => at(&mut selector.at),
        ExprKind::MatrixSelector(matrix) => at(&mut matrix.selector.at),
        // What is inside runs on the subquery's own times.
        ExprKind::Subquery(subquery) => {
            at(&mut subquery.at);
            return true;
        }
        ExprKind::Call(call) if depends_on_time(call.func) => return false,
        _ => {}
    }
    expr.children_mut().into_iter().all(|child| fix(child, t_ms))
}
