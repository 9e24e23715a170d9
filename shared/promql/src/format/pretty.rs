//! The printer for people: long queries over several lines, as `/api/v1/format_query` gives them.

use std::fmt::{self, Display, Formatter};

use crate::ast::{Expr, ExprKind};

use super::Operand;

/// Longer expressions are split, in bytes.
const MAX_LINE_BYTES: usize = 100;

/// A query over as many lines as keep its parts within 100 columns, indented by two spaces.
#[must_use]
pub fn pretty(expr: &Expr) -> String {
    at_level(expr, 0)
}

/// Shows a part of a node by its function.
struct Part<F: Fn(&mut Formatter<'_>) -> fmt::Result>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Part<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

fn at_level(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let inner = level + 1;
    let line = expr.to_string();
    if let ExprKind::Unary(op, operand) = &expr.kind {
        let operand = pretty_operand(&Operand::of_sign(operand), level);
        return format!("{indent}{}{}", op.as_str(), operand.trim());
    }
    if line.len() <= MAX_LINE_BYTES {
        // Prometheus leaves short subqueries without indentation.
        let subquery = matches!(expr.kind, ExprKind::Subquery(_));
        return if subquery { line } else { format!("{indent}{line}") };
    }
    match &expr.kind {
        ExprKind::Paren(child) => format!("{indent}(\n{}\n{indent})", at_level(child, inner)),
        ExprKind::Binary(binary) => {
            let operator = Part(|f| binary.fmt_operator(f));
            let lhs = pretty_operand(&Operand::of_binary(binary.op, &binary.lhs, true), inner);
            let rhs = pretty_operand(&Operand::of_binary(binary.op, &binary.rhs, false), inner);
            format!("{lhs}\n{indent}{operator}\n{rhs}")
        }
        ExprKind::Aggregate(aggregate) => {
            let operator = Part(|f| aggregate.fmt_operator(f));
            let args: Vec<_> = aggregate.param.iter().chain([&aggregate.expr]).collect();
            format!("{indent}{operator}(\n{}\n{indent})", lines(&args, inner))
        }
        ExprKind::Call(call) if !call.args.is_empty() => {
            let args: Vec<_> = call.args.iter().collect();
            format!("{indent}{}(\n{}\n{indent})", call.func.as_str(), lines(&args, inner))
        }
        ExprKind::Subquery(subquery) => {
            let suffix = Part(|f| subquery.fmt_suffix(f));
            format!("{}{suffix}", pretty_operand(&Operand::of_range(&subquery.expr), level))
        }
        _ => format!("{indent}{line}"),
    }
}

fn lines(exprs: &[&Expr], level: usize) -> String {
    exprs.iter().map(|expr| at_level(expr, level)).collect::<Vec<_>>().join(",\n")
}

fn pretty_operand(operand: &Operand<'_>, level: usize) -> String {
    if !operand.parens && !operand.unsigned {
        return at_level(operand.expr, level);
    }
    let indent = "  ".repeat(level);
    let line = operand.to_string();
    if line.len() <= MAX_LINE_BYTES {
        return format!("{indent}{line}");
    }
    format!("{indent}(\n{}\n{indent})", at_level(operand.expr, level + 1))
}
