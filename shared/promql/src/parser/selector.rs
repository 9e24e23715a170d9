//! Vector selectors: a metric's name and label matchers.

use super::{MAX_REGEX_MATCHERS, Parsed, Parser, error, merge};
use crate::ast::{BinaryOp, Expr, ExprKind, Pos, VectorSelector};
use crate::lexer::Kind;
use tricord_model::{MatchOp, Matcher};

/// The label that holds a metric's name.
pub(crate) const NAME_LABEL: &str = "__name__";

impl Parser<'_> {
    /// `name`, `{…}` or `name{…}`.
    pub(super) fn vector_selector(&mut self) -> Parsed<Expr> {
        self.height = 1;
        let mut selector = VectorSelector::default();
        let mut pos = self.token().pos;
        if error::is_metric_name(self.peek()) {
            let token = self.bump();
            selector.name = self.text(token.pos).to_owned();
        } else if self.peek() != Kind::LeftBrace {
            return Err(self.unexpected_here());
        }
        if self.peek() == Kind::LeftBrace {
            let close = self.label_matchers(&mut selector.matchers)?;
            pos = merge(pos, close);
        }
        if !selector.name.is_empty() {
            selector.matchers.push(Matcher::equal(NAME_LABEL, &selector.name));
        }
        Ok(Expr { pos, kind: ExprKind::VectorSelector(selector) })
    }

    fn label_matchers(&mut self, matchers: &mut Vec<Matcher>) -> Parsed<Pos> {
        self.bump();
        loop {
            if self.peek() == Kind::RightBrace {
                return Ok(self.bump().pos);
            }
            matchers.push(self.label_matcher()?);
            if self.eat(Kind::Comma).is_none() && self.peek() != Kind::RightBrace {
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
        }
    }

    fn label_matcher(&mut self) -> Parsed<Matcher> {
        let quoted = match self.peek() {
            Kind::Identifier => false,
            Kind::String => true,
            _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
        };
        let label = self.bump();
        let name = if quoted { self.unquote(label) } else { self.text(label.pos).to_owned() };
        let op = match self.peek() {
            Kind::Eql => MatchOp::Equal,
            Kind::Op(BinaryOp::Neq) => MatchOp::NotEqual,
            Kind::EqlRegex => MatchOp::Regex,
            Kind::NeqRegex => MatchOp::NotRegex,
            _ if quoted => return Ok(Matcher::equal(NAME_LABEL, &name)),
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.bump();
        if self.peek() != Kind::String {
            return Err(self.unexpected("label matching", "string"));
        }
        let value_token = self.bump();
        let value = self.unquote(value_token);
        let pos = merge(label.pos, value_token.pos);
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            self.regexes += 1;
            if self.regexes > MAX_REGEX_MATCHERS {
                let message = format!("more than {MAX_REGEX_MATCHERS} regular expressions in one query");
                return Err(self.error(pos, message));
            }
        }
        Matcher::new(&name, op, &value).map_err(|refused| self.error(pos, refused.to_string()))
    }
}
