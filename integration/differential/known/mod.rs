//! Differences that the versions explain: Debian's Prometheus is 2.42, and Tricord answers as 3.14 does.

mod native;
mod syntax;
mod values;

use tricord_promql::ast::{Aggregate, AggregateOp, BinaryOp, Call, Expr, ExprKind};
use tricord_promql::functions::Function;

use super::asked::{Asked, Mismatch, may_be_native};
use super::compare::Point;

/// A change between the versions.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// The release of Prometheus that brought it.
    pub(super) since: &'static str,
    /// What its release notes, or the change itself, say.
    pub(super) note: &'static str,
    /// Whether the difference may come from it.
    explains: fn(&Asked<'_>) -> bool,
}

/// All changes that random queries meet.
const KNOWN: [&[Known]; 3] = [syntax::SYNTAX, values::VALUES, native::NATIVE];

/// What Go computes by itself.
const IN_ANOTHER_LIBRARY: [Function; 16] = [
    Function::Acos,
    Function::Acosh,
    Function::Asin,
    Function::Asinh,
    Function::Atan,
    Function::Atanh,
    Function::Cos,
    Function::Cosh,
    Function::Sin,
    Function::Sinh,
    Function::Tan,
    Function::Tanh,
    Function::Exp,
    Function::Ln,
    Function::Log10,
    Function::Log2,
];

/// What goes up and down again: parts of dates, and functions of angles.
const PERIODIC: [Function; 11] = [
    Function::Sin,
    Function::Cos,
    Function::Tan,
    Function::Minute,
    Function::Hour,
    Function::DayOfWeek,
    Function::DayOfMonth,
    Function::DayOfYear,
    Function::DaysInMonth,
    Function::Month,
    Function::Year,
];

/// Whether an expression computes something that Go does by itself.
fn is_of_another_library(expr: &Expr) -> bool {
    let mut found = false;
    expr.walk(&mut |part| {
        found |= is_call(&part.kind, &IN_ANOTHER_LIBRARY, |_| true)
            || matches!(&part.kind, ExprKind::Binary(binary) if matches!(binary.op, BinaryOp::Pow | BinaryOp::Atan2));
    });
    found
}

/// Whether a node calls one of these functions with an argument of that kind.
fn is_call(kind: &ExprKind, functions: &[Function], of: impl Fn(&Expr) -> bool) -> bool {
    matches!(kind, ExprKind::Call(Call { func, args }) if functions.contains(func) && args.iter().any(of))
}

/// Whether a node makes labels of values.
fn is_count_values(kind: &ExprKind) -> bool {
    matches!(kind, ExprKind::Aggregate(aggregate) if aggregate.op == AggregateOp::CountValues)
}

/// Whether an aggregation computes with values.
fn is_of_values(aggregate: &Aggregate) -> bool {
    !matches!(aggregate.op, AggregateOp::Sum | AggregateOp::Count | AggregateOp::Group)
}

/// Whether a node computes with floats alone, and may be given native histograms.
fn is_for_floats(kind: &ExprKind) -> bool {
    use Function as F;
    match kind {
        ExprKind::Call(call) => {
            let reads_all = matches!(
                call.func,
                F::Rate
                    | F::Increase
                    | F::Delta
                    | F::HistogramCount
                    | F::HistogramSum
                    | F::HistogramQuantile
                    | F::HistogramFraction
                    | F::LabelReplace
                    | F::LabelJoin
                    | F::Absent
                    | F::AbsentOverTime
                    | F::CountOverTime
                    | F::PresentOverTime
                    | F::Timestamp
            );
            !reads_all && call.args.iter().any(may_be_native)
        }
        ExprKind::Binary(binary) => {
            !binary.op.is_set() && (may_be_native(&binary.lhs) || may_be_native(&binary.rhs))
        }
        _ => false,
    }
}

/// Whether both have a histogram.
fn is_of_histograms(mismatch: &Mismatch<'_>) -> bool {
    matches!((mismatch.ours, mismatch.theirs), (Some(Point::Histogram(_)), Some(Point::Histogram(_))))
}

/// The change that explains a difference, if there is one.
pub(super) fn explanation(asked: &Asked<'_>) -> Option<&'static Known> {
    KNOWN.into_iter().flatten().find(|known| (known.explains)(asked))
}
