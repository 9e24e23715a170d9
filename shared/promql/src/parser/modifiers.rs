//! What stands behind operators (`bool`, `on`, `group_left`, `fill`) and behind selectors (`offset`, `@`, `anchored`).

use super::expr::begins_expression;
use super::{Parsed, Parser, error};
use crate::ast::{AtModifier, BinaryOp, Cardinality, Duration, Expr, ExprKind, Matching, Pos, RangeMode};
use crate::format::text::quote;
use crate::lexer::{Keyword, Kind};

fn is_fill(kind: Kind) -> bool {
    matches!(kind, Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
}

impl Parser<'_> {
    /// The modifiers of a binary operator: whether there is `bool`, and how vectors match.
    pub(super) fn binary_modifiers(&mut self) -> Parsed<(bool, Matching)> {
        let mut matching = Matching {
            card: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let return_bool = self.eat(Kind::Keyword(Keyword::Bool)).is_some();
        if let Kind::Keyword(word @ (Keyword::On | Keyword::Ignoring)) = self.peek() {
            self.bump();
            matching.on = word == Keyword::On;
            matching.labels = self.grouping_labels()?;
            if let Kind::Keyword(group @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.peek() {
                self.bump();
                matching.card =
                    if group == Keyword::GroupLeft { Cardinality::ManyToOne } else { Cardinality::OneToMany };
                // What can neither begin labels nor the right operand is taken for wrong labels.
                let goes_on = begins_expression(self.peek()) || is_fill(self.peek());
                if self.peek() == Kind::LeftParen || !goes_on {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        match self.peek() {
            Kind::Keyword(Keyword::Fill) => {
                let value = self.fill_value()?;
                (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            }
            Kind::Keyword(Keyword::FillLeft) => {
                matching.fill_left = Some(self.fill_value()?);
                if self.peek() == Kind::Keyword(Keyword::FillRight) {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            Kind::Keyword(Keyword::FillRight) => {
                matching.fill_right = Some(self.fill_value()?);
                if self.peek() == Kind::Keyword(Keyword::FillLeft) {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok((return_bool, matching))
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.bump();
        self.expect(Kind::LeftParen)?;
        let minus = self.sign();
        if !matches!(self.peek(), Kind::Number | Kind::Duration) {
            return Err(self.unexpected_here());
        }
        let (number, _) = self.number_literal()?;
        self.expect(Kind::RightParen)?;
        Ok(if minus == Some(true) { -number.value } else { number.value })
    }

    /// Takes a sign: whether it is a minus, or `None` where there is none.
    pub(super) fn sign(&mut self) -> Option<bool> {
        let minus = match self.peek() {
            Kind::Op(BinaryOp::Sub) => true,
            Kind::Op(BinaryOp::Add) => false,
            _ => return None,
        };
        self.bump();
        Some(minus)
    }

    /// Label names in parentheses.
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        if self.eat(Kind::LeftParen).is_none() {
            return Err(self.unexpected("grouping opts", "\"(\""));
        }
        let mut labels = Vec::new();
        loop {
            if self.eat(Kind::RightParen).is_some() {
                return Ok(labels);
            }
            labels.push(self.grouping_label()?);
            if self.eat(Kind::Comma).is_none() && self.peek() != Kind::RightParen {
                return Err(self.unexpected("grouping opts", "\",\" or \")\""));
            }
        }
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let kind = self.peek();
        if kind == Kind::String {
            let token = self.bump();
            let label = self.unquote(token);
            if label.is_empty() {
                return Err(
                    self.error(token.pos, format!("invalid label name for grouping: {}", quote(&label)))
                );
            }
            return Ok(label);
        }
        if !error::is_label_name(kind) {
            return Err(self.unexpected("grouping opts", "label"));
        }
        let token = self.bump();
        Ok(self.text(token.pos).to_owned())
    }

    pub(super) fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.bump();
        let offset =
            self.within(("offset", "number, duration, step(), or range()"), Self::offset_duration)?;
        let whole = expr.pos;
        let target = match &mut expr.kind {
            ExprKind::VectorSelector(selector) => &mut selector.offset,
            ExprKind::MatrixSelector(matrix) => &mut matrix.selector.offset,
            ExprKind::Subquery(subquery) => &mut subquery.offset,
            _ => {
                let message = "offset modifier must be preceded by an instant vector selector or range vector \
                               selector or a subquery";
                return Err(self.error(whole, message));
            }
        };
        if *target != Duration::Constant(0) {
            return Err(self.error(whole, "offset may not be set multiple times"));
        }
        *target = offset;
        expr.pos.end = self.last_closing;
        Ok(())
    }

    pub(super) fn extended_range(&mut self, expr: &mut Expr, anchored: bool) -> Parsed<()> {
        self.bump();
        let word = if anchored { "anchored" } else { "smoothed" };
        if !self.options.extended_range_modifiers {
            return Err(self.error(expr.pos, format!("{word} modifier is experimental and not enabled")));
        }
        let selector = match &mut expr.kind {
            ExprKind::VectorSelector(selector) => selector,
            ExprKind::MatrixSelector(matrix) => &mut matrix.selector,
            ExprKind::Subquery(_) => {
                return Err(self.error(expr.pos, format!("{word} modifier is not supported for subqueries")));
            }
            _ => return Err(self.error(expr.pos, format!("{word} modifier not implemented"))),
        };
        let mode = if anchored { RangeMode::Anchored } else { RangeMode::Smoothed };
        if selector.mode != RangeMode::Default && selector.mode != mode {
            return Err(self.error(expr.pos, "anchored and smoothed modifiers cannot be used together"));
        }
        selector.mode = mode;
        Ok(())
    }

    pub(super) fn at_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.bump();
        let at = self.within(("@", "timestamp"), |p| p.at_time(expr.pos))?;
        let whole = expr.pos;
        let target = match &mut expr.kind {
            ExprKind::VectorSelector(selector) => &mut selector.at,
            ExprKind::MatrixSelector(matrix) => &mut matrix.selector.at,
            ExprKind::Subquery(subquery) => &mut subquery.at,
            _ => {
                let message = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                return Err(self.error(whole, message));
            }
        };
        if target.is_some() {
            return Err(self.error(whole, "@ <timestamp> may not be set multiple times"));
        }
        *target = Some(at);
        expr.pos.end = self.last_closing;
        Ok(())
    }

    fn at_time(&mut self, whole: Pos) -> Parsed<AtModifier> {
        let kind = self.peek();
        if matches!(kind, Kind::Start | Kind::End) {
            self.bump();
            self.expect(Kind::LeftParen)?;
            self.expect(Kind::RightParen)?;
            return Ok(if kind == Kind::Start { AtModifier::Start } else { AtModifier::End });
        }
        let minus = self.sign() == Some(true);
        if !matches!(self.peek(), Kind::Number | Kind::Duration) {
            return Err(self.unexpected_here());
        }
        let text = self.text(self.token().pos);
        let (number, _) = self.number_literal()?;
        let seconds = if minus { -number.value } else { number.value };
        let ms = (seconds * 1000.0).round();
        // Beyond 2^53 a float no longer tells one millisecond from the next, so plain decimals are read as integers.
        let exact = if number.duration { None } else { decimal_ms(text, minus) };
        if !ms.is_finite() || (exact.is_none() && (ms >= i64::MAX as f64 || ms <= i64::MIN as f64)) {
            let shown = match seconds {
                _ if seconds.is_nan() => "NaN".to_owned(),
                _ if seconds.is_infinite() => format!("{}Inf", if seconds > 0.0 { '+' } else { '-' }),
                _ => format!("{seconds:.6}"),
            };
            return Err(self.error(whole, format!("timestamp out of bounds for @ modifier: {shown}")));
        }
        Ok(AtModifier::Time(exact.unwrap_or(ms as i64)))
    }
}

/// The milliseconds of a text such as `12.345` with up to three places, if it is one and fits.
fn decimal_ms(text: &str, minus: bool) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    // A leading zero makes an octal number.
    let octal = whole.len() > 1 && whole.starts_with('0') && fraction.is_empty();
    if whole.is_empty()
        || whole.len() > 20
        || fraction.len() > 3
        || octal
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    let places: i128 = format!("{fraction:0<3}").parse().ok()?;
    let ms = whole.parse::<i128>().ok()? * 1000 + places;
    i64::try_from(if minus { -ms } else { ms }).ok()
}
