//! The printer: a syntax tree as a query, in the form that Prometheus prints.
//!
//! A printed tree reads back as the same tree: query fragments travel between nodes in this form. Where a tree was put
//! together by hand and precedence would tear it apart, parentheses are added.

mod pretty;
pub(crate) mod text;

pub use pretty::pretty;
pub use text::quote;

use std::fmt::{self, Display, Formatter, Write as _};

use crate::ast::{
    Aggregate, AtModifier, Binary, BinaryOp, Cardinality, Duration, DurationExpr, Expr, ExprKind, Grouping,
    Matching, MatrixSelector, NumberLiteral, RangeMode, Subquery, UnaryOp, VectorSelector,
};
use crate::parser::NAME_LABEL;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(number) => Display::fmt(number, f),
            ExprKind::String(value) => f.write_str(&text::quote(value)),
            ExprKind::Paren(inner) => write!(f, "({inner})"),
            ExprKind::Unary(op, inner) => write!(f, "{}{}", op.as_str(), Operand::of_sign(inner)),
            ExprKind::Binary(binary) => Display::fmt(&**binary, f),
            ExprKind::Aggregate(aggregate) => Display::fmt(&**aggregate, f),
            ExprKind::Call(call) => {
                write!(f, "{}(", call.func.as_str())?;
                list(f, &call.args)?;
                f.write_char(')')
            }
            ExprKind::VectorSelector(selector) => Display::fmt(selector, f),
            ExprKind::MatrixSelector(matrix) => Display::fmt(matrix, f),
            ExprKind::Subquery(subquery) => Display::fmt(&**subquery, f),
            // For logs alone: it never travels.
            ExprKind::Remote(remote) => write!(f, "<part {}>", remote.id),
        }
    }
}

impl UnaryOp {
    /// The sign.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }
}

/// An operand, and what must be done so that it stays one.
struct Operand<'a> {
    expr: &'a Expr,
    /// Parentheses must be put around it.
    parens: bool,
    /// It is infinity before `^`: of `+Inf ^ x` the sign would be read as standing before the whole power.
    unsigned: bool,
}

impl<'a> Operand<'a> {
    fn of_sign(expr: &'a Expr) -> Self {
        // `^` alone binds stronger than a sign, and signs may follow one another.
        let sign = matches!(expr.kind, ExprKind::Unary(..));
        Self { expr, parens: !sign && strength(expr) < BinaryOp::Pow.precedence(), unsigned: false }
    }

    fn of_binary(op: BinaryOp, expr: &'a Expr, left: bool) -> Self {
        let (own, inner) = (op.precedence(), strength(expr));
        let right_first = op == BinaryOp::Pow;
        let parens = match &expr.kind {
            // A sign may stand behind any operator, and before any but `^`.
            ExprKind::Unary(..) => left && right_first,
            ExprKind::Number(number) => {
                left && right_first && number.value.is_sign_negative() && !number.value.is_nan()
            }
            _ => inner < own || (inner == own && left == right_first),
        };
        let infinite = matches!(&expr.kind, ExprKind::Number(number) if number.value == f64::INFINITY);
        Self {
            expr,
            parens: parens || (left && op.is_duration_operator() && ends_with_open_offset(expr)),
            unsigned: left && right_first && infinite,
        }
    }

    /// What a subquery is over: a range behind an operator would only take its right side.
    fn of_range(expr: &'a Expr) -> Self {
        let parens = matches!(expr.kind, ExprKind::Binary(_) | ExprKind::Unary(..));
        Self { expr, parens, unsigned: false }
    }
}

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match () {
            () if self.parens => write!(f, "({})", self.expr),
            () if self.unsigned => f.write_str("Inf"),
            () => Display::fmt(self.expr, f),
        }
    }
}

/// The precedence of an expression's outermost operator; what is no operator binds strongest.
fn strength(expr: &Expr) -> u8 {
    match &expr.kind {
        ExprKind::Binary(binary) => binary.op.precedence(),
        ExprKind::Unary(..) => BinaryOp::Mul.precedence(),
        _ => BinaryOp::Pow.precedence() + 1,
    }
}

/// Whether the text ends with an offset in parentheses, which an arithmetic operator behind it would continue.
fn ends_with_open_offset(expr: &Expr) -> bool {
    let offset = match &expr.kind {
        ExprKind::VectorSelector(selector) => &selector.offset,
        ExprKind::MatrixSelector(matrix) => &matrix.selector.offset,
        ExprKind::Subquery(subquery) => &subquery.offset,
        ExprKind::Unary(_, inner) => return ends_with_open_offset(inner),
        ExprKind::Binary(binary) => return ends_with_open_offset(&binary.rhs),
        _ => return false,
    };
    match offset {
        Duration::Constant(_) => false,
        Duration::Expr(expr) => matches!(**expr, DurationExpr::Paren(_) | DurationExpr::Binary(..)),
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", Operand::of_binary(self.op, &self.lhs, true))?;
        self.fmt_operator(f)?;
        write!(f, " {}", Operand::of_binary(self.op, &self.rhs, false))
    }
}

impl Binary {
    /// The operator with its modifiers.
    fn fmt_operator(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.as_str())?;
        if self.return_bool {
            f.write_str(" bool")?;
        }
        self.matching.as_ref().map_or(Ok(()), |matching| Display::fmt(matching, f))
    }
}

impl Display for Matching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let group = match self.card {
            Cardinality::ManyToOne => Some("left"),
            Cardinality::OneToMany => Some("right"),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if !self.labels.is_empty() || self.on || group.is_some() {
            write!(f, " {} ({})", if self.on { "on" } else { "ignoring" }, labels(&self.labels))?;
        }
        if let Some(side) = group {
            write!(f, " group_{side} ({})", labels(&self.include))?;
        }
        match (self.fill_left, self.fill_right) {
            (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
                write!(f, " fill ({})", text::short_float(left))
            }
            (left, right) => {
                if let Some(left) = left {
                    write!(f, " fill_left ({})", text::short_float(left))?;
                }
                right.map_or(Ok(()), |right| write!(f, " fill_right ({})", text::short_float(right)))
            }
        }
    }
}

fn labels(names: &[String]) -> String {
    names.iter().map(|name| text::listed_label(name)).collect::<Vec<_>>().join(", ")
}

fn list(f: &mut Formatter<'_>, exprs: &[Expr]) -> fmt::Result {
    for (at, expr) in exprs.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        Display::fmt(expr, f)?;
    }
    Ok(())
}

impl Aggregate {
    /// The operator with its grouping.
    fn fmt_operator(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.op.as_str(), self.grouping)
    }
}

impl Display for Grouping {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.without {
            write!(f, " without ({}) ", labels(&self.labels))
        } else if self.labels.is_empty() {
            Ok(())
        } else {
            write!(f, " by ({}) ", labels(&self.labels))
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt_operator(f)?;
        match &self.param {
            Some(param) => write!(f, "({param}, {})", self.expr),
            None => write!(f, "({})", self.expr),
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ms = self.value * 1000.0;
        if !self.duration || !ms.is_finite() || ms.abs() >= i64::MAX as f64 {
            return f.write_str(&text::float(self.value));
        }
        if ms == 0.0 && ms.is_sign_negative() {
            return f.write_str("-0s");
        }
        f.write_str(&text::duration(ms.round() as i64))
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(ms) => f.write_str(&text::duration(*ms)),
            Self::Expr(expr) => Display::fmt(expr, f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => Display::fmt(number, f),
            Self::Step => f.write_str("step()"),
            Self::Range => f.write_str("range()"),
            Self::MinOf(a, b) => write!(f, "min_of({a}, {b})"),
            Self::MaxOf(a, b) => write!(f, "max_of({a}, {b})"),
            Self::Unary(op, inner) => write!(f, "{}{inner}", op.as_str()),
            Self::Binary(op, a, b) => write!(f, "{a} {} {b}", op.as_str()),
            Self::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

impl Display for AtModifier {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(ms) => {
                let sign = if *ms < 0 { "-" } else { "" };
                write!(f, " @ {sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
            }
            Self::Start => f.write_str(" @ start()"),
            Self::End => f.write_str(" @ end()"),
        }
    }
}

fn at(f: &mut Formatter<'_>, at: Option<AtModifier>) -> fmt::Result {
    at.map_or(Ok(()), |at| Display::fmt(&at, f))
}

fn mode(f: &mut Formatter<'_>, mode: RangeMode) -> fmt::Result {
    f.write_str(match mode {
        RangeMode::Default => "",
        RangeMode::Anchored => " anchored",
        RangeMode::Smoothed => " smoothed",
    })
}

fn offset(f: &mut Formatter<'_>, offset: &Duration) -> fmt::Result {
    if *offset == Duration::Constant(0) { Ok(()) } else { write!(f, " offset {offset}") }
}

/// Name and matchers without modifiers.
fn bare_selector(f: &mut Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    let plain = text::is_plain_metric(&selector.name);
    let named = |m: &&tricord_model::Matcher| {
        plain && m.name == NAME_LABEL && m.op == tricord_model::MatchOp::Equal && m.value == selector.name
    };
    let mut matchers: Vec<String> = selector
        .matchers
        .iter()
        .filter(|m| !named(m))
        .map(|m| format!("{}{}{}", text::label(&m.name), m.op.as_str(), text::quote(&m.value)))
        .collect();
    matchers.sort_unstable();
    if plain {
        f.write_str(&selector.name)?;
    }
    if plain && matchers.is_empty() { Ok(()) } else { write!(f, "{{{}}}", matchers.join(",")) }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        bare_selector(f, self)?;
        at(f, self.at)?;
        mode(f, self.mode)?;
        offset(f, &self.offset)
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        bare_selector(f, &self.selector)?;
        write!(f, "[{}]", self.range)?;
        mode(f, self.selector.mode)?;
        at(f, self.selector.at)?;
        offset(f, &self.selector.offset)
    }
}

impl Display for Subquery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&Operand::of_range(&self.expr), f)?;
        self.fmt_suffix(f)
    }
}

impl Subquery {
    /// The brackets and what follows them.
    fn fmt_suffix(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "[{}:{step}]", self.range)?,
            None => write!(f, "[{}:]", self.range)?,
        }
        at(f, self.at)?;
        offset(f, &self.offset)
    }
}

#[cfg(test)]
mod tests;
