//! Expressions that have one value at all steps, because `@` fixes their time: they are evaluated once.

use crate::ast::{Expr, ExprKind};
use crate::functions::Function;
use crate::value::{Column, QueryValue, is_absent};

/// Whether evaluating the expression once and repeating the result gives what evaluating every step would, and saves
/// work.
pub(super) fn is_worth_once(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number(_)
        | ExprKind::String(_)
        | ExprKind::VectorSelector(_)
        | ExprKind::MatrixSelector(_)
        | ExprKind::Remote(_) => false,
        _ => is_invariant(expr) && reads_samples(expr),
    }
}

/// Whether an expression has one value at all steps, so that a part that is evaluated elsewhere is fixed.
#[must_use]
pub fn is_fixed(expr: &Expr) -> bool {
    is_invariant(expr)
}

/// Whether the function's result depends on the evaluation time even where its arguments do not.
#[must_use]
pub(crate) fn depends_on_time(function: Function) -> bool {
    matches!(
        function,
        Function::DaysInMonth
            | Function::DayOfMonth
            | Function::DayOfWeek
            | Function::DayOfYear
            | Function::End
            | Function::Hour
            | Function::Minute
            | Function::Month
            | Function::Year
            | Function::PredictLinear
            | Function::Range
            | Function::Start
            | Function::Step
            | Function::Time
            | Function::Timestamp
    )
}

fn is_invariant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Remote(remote) => remote.fixed,
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => is_invariant(inner),
        ExprKind::Binary(binary) => is_invariant(&binary.lhs) && is_invariant(&binary.rhs),
        ExprKind::Aggregate(aggregate) => {
            is_invariant(&aggregate.expr) && aggregate.param.as_ref().is_none_or(is_invariant)
        }
        ExprKind::Call(call) => {
            // The timestamps of samples that `@` picks do not change; those of other vectors are the step's.
            let of_samples = call.func == Function::Timestamp
                && call.args.first().is_some_and(|arg| matches!(arg.kind, ExprKind::VectorSelector(_)));
            (of_samples || !depends_on_time(call.func)) && call.args.iter().all(is_invariant)
        }
        ExprKind::VectorSelector(selector) => selector.at.is_some(),
        ExprKind::MatrixSelector(matrix) => matrix.selector.at.is_some(),
        ExprKind::Subquery(subquery) => subquery.at.is_some() && !has_remote(&subquery.expr),
    }
}

fn has_remote(expr: &Expr) -> bool {
    any(expr, &mut |expr| matches!(expr.kind, ExprKind::Remote(_)))
}

fn reads_samples(expr: &Expr) -> bool {
    let reads = |kind: &ExprKind| {
        matches!(kind, ExprKind::VectorSelector(_) | ExprKind::MatrixSelector(_) | ExprKind::Remote(_))
    };
    any(expr, &mut |expr| reads(&expr.kind))
}

fn any(expr: &Expr, found: &mut impl FnMut(&Expr) -> bool) -> bool {
    if found(expr) {
        return true;
    }
    match &expr.kind {
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => any(inner, found),
        ExprKind::Binary(binary) => any(&binary.lhs, found) || any(&binary.rhs, found),
        ExprKind::Aggregate(a) => {
            any(&a.expr, found) || a.param.as_ref().is_some_and(|param| any(param, found))
        }
        ExprKind::Call(call) => call.args.iter().any(|arg| any(arg, found)),
        ExprKind::Subquery(subquery) => any(&subquery.expr, found),
        _ => false,
    }
}

/// A value of one step at all steps.
pub(super) fn repeat(value: QueryValue, steps: usize) -> QueryValue {
    match value {
        QueryValue::Scalar(values) => {
            QueryValue::Scalar(vec![values.first().copied().unwrap_or(f64::NAN); steps])
        }
        QueryValue::Vector(columns) => {
            QueryValue::Vector(columns.into_iter().map(|column| repeat_column(column, steps)).collect())
        }
        other => other,
    }
}

fn repeat_column(mut column: Column, steps: usize) -> Column {
    let first = column.floats.first().copied().unwrap_or(crate::value::ABSENT);
    column.floats.clear();
    column.floats.resize(steps, first);
    if let Some((_, histogram)) = column.histograms.first().cloned().filter(|_| is_absent(first)) {
        column.histograms = (0..steps).map(|step| (step as u32, histogram.clone())).collect();
    }
    column
}

/// The first step of a column.
pub(super) fn first_step(column: &Column) -> Column {
    Column {
        labels: column.labels.clone(),
        drop_name: column.drop_name,
        floats: column.floats.iter().take(1).copied().collect(),
        histograms: column.histograms.iter().take_while(|(step, _)| *step == 0).cloned().collect(),
    }
}
