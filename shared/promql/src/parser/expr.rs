//! Expressions: operators by precedence, signs, calls, aggregations, and what may stand behind an expression.

use super::{Parsed, Parser, error, merge};
use crate::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, ExprKind, Grouping, MatrixSelector, Pos, Subquery,
    UnaryOp,
};
use crate::functions::Function;
use crate::lexer::{Keyword, Kind, Token};

/// The precedence that the operand of a sign has: `-a ^ b` is `-(a ^ b)`, and `-a * b` is `(-a) * b`.
const SIGN_OPERAND: u8 = 6;

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<Expr> {
        self.binary(1)
    }

    /// Operators that bind at least that strongly.
    fn binary(&mut self, min: u8) -> Parsed<Expr> {
        self.nested(|p| {
            let mut lhs = p.unary()?;
            while let Kind::Op(op) = p.peek() {
                let precedence = op.precedence();
                if precedence < min {
                    break;
                }
                lhs = p.operator(lhs, op)?;
            }
            Ok(lhs)
        })
    }

    fn operator(&mut self, lhs: Expr, op: BinaryOp) -> Parsed<Expr> {
        let left_height = self.height;
        self.bump();
        let (return_bool, matching) = self.binary_modifiers()?;
        // `^` alone takes its right side first.
        let rhs = self.binary(if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 })?;
        let pos = merge(lhs.pos, rhs.pos);
        self.grow(left_height.max(self.height), pos)?;
        if !self.options.binop_fill && (matching.fill_left.is_some() || matching.fill_right.is_some()) {
            return Err(self.error(pos, "binop fill modifiers are experimental and not enabled"));
        }
        let kind = ExprKind::Binary(Box::new(Binary { op, lhs, rhs, return_bool, matching: Some(matching) }));
        Ok(Expr { pos, kind })
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let op = match self.peek() {
            Kind::Op(BinaryOp::Add) => UnaryOp::Plus,
            Kind::Op(BinaryOp::Sub) => UnaryOp::Minus,
            _ => return self.postfix(),
        };
        let sign = self.bump();
        let mut operand = self.binary(SIGN_OPERAND)?;
        let pos = merge(sign.pos, operand.pos);
        if let ExprKind::Number(number) = &mut operand.kind {
            if op == UnaryOp::Minus {
                number.value = -number.value;
            }
            operand.pos = pos;
            return Ok(operand);
        }
        self.grow(self.height, pos)?;
        Ok(Expr { pos, kind: ExprKind::Unary(op, Box::new(operand)) })
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        loop {
            match self.peek() {
                Kind::Keyword(Keyword::Offset) => self.offset(&mut expr)?,
                Kind::Keyword(Keyword::Anchored) => self.extended_range(&mut expr, true)?,
                Kind::Keyword(Keyword::Smoothed) => self.extended_range(&mut expr, false)?,
                Kind::At => self.at_modifier(&mut expr)?,
                Kind::LeftBracket => expr = self.range(expr)?,
                _ => return Ok(expr),
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        self.height = 1;
        let second = self.peek_second();
        match self.peek() {
            Kind::Number | Kind::Duration => {
                let (number, pos) = self.number_literal()?;
                Ok(Expr { pos, kind: ExprKind::Number(number) })
            }
            Kind::String => {
                let token = self.bump();
                Ok(Expr { pos: token.pos, kind: ExprKind::String(self.unquote(token)) })
            }
            Kind::LeftParen => self.paren(),
            Kind::Aggregate(op)
                if matches!(second, Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without)) =>
            {
                self.aggregate(op)
            }
            Kind::Identifier | Kind::Start | Kind::End | Kind::Step | Kind::Range
                if second == Kind::LeftParen =>
            {
                self.call()
            }
            Kind::LeftBrace => self.vector_selector(),
            kind if error::is_metric_name(kind) => self.vector_selector(),
            _ => Err(self.unexpected_here()),
        }
    }

    fn paren(&mut self) -> Parsed<Expr> {
        let open = self.bump();
        let inner = self.expr()?;
        let close = self.expect(Kind::RightParen)?;
        let pos = merge(open.pos, close.pos);
        self.grow(self.height, pos)?;
        Ok(Expr { pos, kind: ExprKind::Paren(Box::new(inner)) })
    }

    /// The arguments in parentheses; the height is that of the highest.
    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect(Kind::LeftParen)?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.eat(Kind::RightParen).is_none() {
            loop {
                args.push(self.expr()?);
                height = height.max(self.height);
                if self.eat(Kind::RightParen).is_some() {
                    break;
                }
                let comma = self.expect(Kind::Comma)?;
                // What the lexer refuses is reported as such.
                if self.peek() != Kind::Error && !begins_expression(self.peek()) {
                    return Err(self.error(comma.pos, "trailing commas not allowed in function call args"));
                }
            }
        }
        self.height = height;
        Ok(args)
    }

    fn call(&mut self) -> Parsed<Expr> {
        let name = self.bump();
        let args = self.arguments()?;
        let text = self.text(name.pos);
        let lower = text.to_ascii_lowercase();
        // The words that the lexer knows are read in any case.
        let looked_up = if name.kind == Kind::Identifier { text } else { lower.as_str() };
        let Some(func) = Function::from_name(looked_up) else {
            return Err(self.error(name.pos, format!("unknown function with name {text:?}")));
        };
        if func.signature().experimental && !self.options.experimental_functions {
            return Err(self.error(name.pos, format!("function {text:?} is not enabled")));
        }
        if matches!(func, Function::LabelReplace | Function::LabelJoin)
            && let Some(name) = args.get(1)
            && let Some((pos, text)) = self.invalid_strings.iter().find(|(pos, _)| *pos == name.pos)
        {
            return Err(self.error(*pos, format!("invalid label name {text}")));
        }
        let pos = Pos { start: name.pos.start, end: self.last_closing };
        self.grow(self.height, pos)?;
        Ok(Expr { pos, kind: ExprKind::Call(Call { func, args }) })
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<Expr> {
        let word = self.bump();
        let mut grouping = self.grouping()?;
        let args = self.within(("aggregation", ""), Self::arguments)?;
        if grouping.is_none() {
            // Whether a grouping follows is known by the next token: what the lexer refuses there comes before all else.
            if self.peek() == Kind::Error {
                return Err(self.unexpected_here());
            }
            grouping = self.grouping()?;
        }
        let pos = Pos { start: word.pos.start, end: self.last_closing };
        self.grow(self.height, pos)?;
        let aggregate = self.new_aggregate(op, args, grouping.unwrap_or_default(), pos)?;
        Ok(Expr { pos, kind: ExprKind::Aggregate(Box::new(aggregate)) })
    }

    fn new_aggregate(
        &self,
        op: AggregateOp,
        mut args: Vec<Expr>,
        grouping: Grouping,
        pos: Pos,
    ) -> Parsed<Aggregate> {
        if args.is_empty() {
            return Err(self.error(pos, "no arguments for aggregate expression provided"));
        }
        let experimental = matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio);
        if experimental && !self.options.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            return Err(self.error(pos, message));
        }
        let (expected, found) = (if op.takes_param() { 2 } else { 1 }, args.len());
        match (args.pop(), args.pop()) {
            (Some(expr), param) if found == expected => {
                let named = param.as_ref().filter(|_| op == AggregateOp::CountValues).map(|param| param.pos);
                let invalid = self.invalid_strings.iter().find(|(pos, _)| Some(*pos) == named);
                if let Some((pos, text)) = invalid {
                    return Err(self.error(*pos, format!("invalid label name {text}")).of_evaluation());
                }
                Ok(Aggregate { op, param, expr, grouping })
            }
            _ => {
                let message = format!(
                    "wrong number of arguments for aggregate expression provided, expected {expected}, got {found}"
                );
                Err(self.error(pos, message))
            }
        }
    }

    /// `by (…)` or `without (…)`, if there is one.
    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let without = match self.peek() {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.bump();
        Ok(Some(Grouping { without, labels: self.grouping_labels()? }))
    }

    /// `[range]` or `[range:step]` behind an expression.
    fn range(&mut self, expr: Expr) -> Parsed<Expr> {
        let height = self.height;
        let open = self.bump();
        let in_brackets = ("subquery or range selector", "number, duration, step(), or range()");
        let range = self.within(in_brackets, Self::positive_duration)?;
        if let Some(close) = self.eat(Kind::RightBracket) {
            return self.matrix(expr, range, open, close);
        }
        if self.eat(Kind::Colon).is_none() {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        }
        let mut step = None;
        if self.peek() != Kind::RightBracket {
            let in_step = ("subquery selector", "number, duration, step(), range(), or \"]\"");
            step = Some(self.within(in_step, Self::positive_duration)?);
        }
        if self.peek() != Kind::RightBracket {
            return Err(self.unexpected("subquery selector", "\"]\""));
        }
        let close = self.bump();
        let pos = merge(expr.pos, close.pos);
        self.grow(height, pos)?;
        let subquery = Subquery { expr, range, step, offset: Default::default(), at: None };
        Ok(Expr { pos, kind: ExprKind::Subquery(Box::new(subquery)) })
    }

    fn matrix(&mut self, expr: Expr, range: crate::ast::Duration, open: Token, close: Token) -> Parsed<Expr> {
        self.height = 1;
        let brackets = merge(open.pos, close.pos);
        let ExprKind::VectorSelector(selector) = expr.kind else {
            return Err(self.error(brackets, "ranges only allowed for vector selectors"));
        };
        if selector.offset != Default::default() {
            return Err(self.error(brackets, "no offset modifiers allowed before range"));
        }
        if selector.at.is_some() {
            return Err(self.error(brackets, "no @ modifiers allowed before range"));
        }
        let kind = ExprKind::MatrixSelector(MatrixSelector { selector, range });
        Ok(Expr { pos: merge(expr.pos, close.pos), kind })
    }
}

/// Whether an expression may begin with that token.
pub(super) fn begins_expression(kind: Kind) -> bool {
    match kind {
        Kind::Number | Kind::Duration | Kind::String | Kind::LeftParen | Kind::LeftBrace => true,
        Kind::Op(BinaryOp::Add | BinaryOp::Sub) => true,
        kind => error::is_metric_name(kind),
    }
}
