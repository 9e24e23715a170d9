//! Durations in ranges, steps and offsets: constants and arithmetic over them.

use super::{Parsed, Parser, merge};
use crate::ast::{BinaryOp, Duration, DurationExpr, NumberLiteral, Pos, UnaryOp};
use crate::lexer::Kind;

/// More seconds than this do not fit into the 64-bit nanoseconds that Prometheus counts in.
const MAX_SECONDS: f64 = 9_223_372_036.854_775;

/// A duration and its place.
type Placed = (DurationExpr, Pos);

impl Parser<'_> {
    /// The duration of a range or a step.
    pub(super) fn positive_duration(&mut self) -> Parsed<Duration> {
        self.duration_operators = 0;
        let (expr, pos) = self.duration_binary(1)?;
        if let DurationExpr::Number(number) = expr
            && number.value.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater)
        {
            return Err(self.error(pos, "duration must be greater than 0"));
        }
        Ok(finish(expr))
    }

    /// The duration behind `offset`. Without parentheses it ends with the first number: `a offset 1m + 2` adds 2 to
    /// the selector's values.
    pub(super) fn offset_duration(&mut self) -> Parsed<Duration> {
        self.duration_operators = 0;
        let sign = self.token().pos;
        if let Some(minus) = self.sign() {
            let (operand, pos) = self.duration_primary()?;
            // A plus before parentheses is kept: it ends the duration, see below.
            if !minus && matches!(operand, DurationExpr::Paren(_)) {
                return Ok(finish(DurationExpr::Unary(UnaryOp::Plus, Box::new(operand))));
            }
            return Ok(finish(self.signed(minus, operand, merge(sign, pos))?.0));
        }
        let in_parens = self.peek() == Kind::LeftParen;
        let (expr, pos) = self.duration_primary()?;
        if in_parens && matches!(self.peek(), Kind::Op(op) if op.is_duration_operator()) {
            // Behind parentheses arithmetic goes on, as in the grammar of Prometheus. Where what follows is no
            // duration, Prometheus refuses the query; here the operator belongs to the expression around, and a plus
            // notes that the duration has ended.
            let (at, closing) = (self.at, self.last_closing);
            match self.duration_tail((expr.clone(), pos), 1) {
                Ok((longer, _)) => return Ok(finish(longer)),
                Err(_) => {
                    (self.at, self.last_closing) = (at, closing);
                    return Ok(Duration::Expr(Box::new(DurationExpr::Unary(UnaryOp::Plus, Box::new(expr)))));
                }
            }
        }
        Ok(finish(expr))
    }

    fn duration_binary(&mut self, min: u8) -> Parsed<Placed> {
        self.nested(|p| {
            let lhs = p.duration_unary()?;
            p.duration_tail(lhs, min)
        })
    }

    /// Operators behind a duration. Their number is bounded, as a chain becomes a tree that leans to the left.
    fn duration_tail(&mut self, mut lhs: Placed, min: u8) -> Parsed<Placed> {
        while let Kind::Op(op) = self.peek() {
            let Some(strength) = precedence(op).filter(|strength| *strength >= min) else { break };
            let operator = self.bump();
            let rhs = self.duration_binary(if op == BinaryOp::Pow { strength } else { strength + 1 })?;
            self.require_duration_expressions(lhs.1)?;
            if let DurationExpr::Number(number) = rhs.0
                && number.value == 0.0
                && matches!(op, BinaryOp::Div | BinaryOp::Mod)
            {
                let word = if op == BinaryOp::Div { "division" } else { "modulo" };
                return Err(self.error(operator.pos, format!("{word} by zero")));
            }
            let pos = merge(lhs.1, rhs.1);
            self.duration_operators += 1;
            if self.duration_operators > super::MAX_NESTING {
                return Err(self.error(pos, "duration expression has too many operators"));
            }
            lhs = (DurationExpr::Binary(op, Box::new(lhs.0), Box::new(rhs.0)), pos);
        }
        Ok(lhs)
    }

    fn duration_unary(&mut self) -> Parsed<Placed> {
        let start = self.token().pos;
        match self.sign() {
            Some(minus) => {
                let (operand, pos) = self.duration_binary(3)?;
                self.signed(minus, operand, merge(start, pos))
            }
            None => self.duration_primary(),
        }
    }

    /// Puts a sign before a duration; a plus changes nothing.
    fn signed(&mut self, minus: bool, operand: DurationExpr, pos: Pos) -> Parsed<Placed> {
        Ok(match operand {
            _ if !minus => (operand, pos),
            DurationExpr::Number(number) => {
                (DurationExpr::Number(NumberLiteral { value: -number.value, ..number }), pos)
            }
            other => (DurationExpr::Unary(UnaryOp::Minus, Box::new(other)), pos),
        })
    }

    fn duration_primary(&mut self) -> Parsed<Placed> {
        let token = self.token();
        match token.kind {
            Kind::Number | Kind::Duration => {
                let (number, pos) = self.number_literal()?;
                if number.value.is_nan() || number.value.abs() > MAX_SECONDS {
                    return Err(self.error(pos, "duration out of range"));
                }
                Ok((DurationExpr::Number(number), pos))
            }
            Kind::Step | Kind::Range => {
                self.bump();
                self.expect(Kind::LeftParen)?;
                let close = self.expect(Kind::RightParen)?;
                let pos = merge(token.pos, close.pos);
                self.require_duration_expressions(pos)?;
                Ok((if token.kind == Kind::Step { DurationExpr::Step } else { DurationExpr::Range }, pos))
            }
            Kind::LeftParen => {
                self.bump();
                let (inner, inner_pos) = self.duration_binary(1)?;
                let close = self.expect(Kind::RightParen)?;
                self.require_duration_expressions(inner_pos)?;
                Ok((DurationExpr::Paren(Box::new(inner)), merge(token.pos, close.pos)))
            }
            Kind::Identifier => self.min_or_max(),
            _ => Err(self.unexpected_here()),
        }
    }

    fn min_or_max(&mut self) -> Parsed<Placed> {
        let token = self.token();
        let text = self.text(token.pos);
        let max = text.eq_ignore_ascii_case("max_of");
        if !max && !text.eq_ignore_ascii_case("min_of") {
            return Err(self.unexpected_here());
        }
        self.bump();
        self.expect(Kind::LeftParen)?;
        let (a, _) = self.duration_binary(1)?;
        self.expect(Kind::Comma)?;
        let (b, _) = self.duration_binary(1)?;
        let close = self.expect(Kind::RightParen)?;
        let pos = merge(token.pos, close.pos);
        self.require_duration_expressions(pos)?;
        let (a, b) = (Box::new(a), Box::new(b));
        Ok((if max { DurationExpr::MaxOf(a, b) } else { DurationExpr::MinOf(a, b) }, pos))
    }

    fn require_duration_expressions(&self, pos: Pos) -> Parsed<()> {
        if self.options.duration_expressions {
            Ok(())
        } else {
            Err(self.error(pos, "experimental duration expression is not enabled"))
        }
    }
}

fn precedence(op: BinaryOp) -> Option<u8> {
    match op {
        BinaryOp::Add | BinaryOp::Sub => Some(1),
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => Some(2),
        BinaryOp::Pow => Some(3),
        _ => None,
    }
}

/// A plain number becomes a constant: whole milliseconds, cut off as in Prometheus, but never down to nothing.
fn finish(expr: DurationExpr) -> Duration {
    match expr {
        DurationExpr::Number(number) => {
            let nearest = (number.value * 1000.0).round();
            // What was written in whole milliseconds stays so, however far its float is from them.
            let whole = nearest / 1000.0 == number.value;
            let ms = if whole { nearest } else { (number.value * 1000.0).trunc() } as i64;
            Duration::Constant(if ms == 0 && number.value != 0.0 { number.value.signum() as i64 } else { ms })
        }
        other => Duration::Expr(Box::new(other)),
    }
}
