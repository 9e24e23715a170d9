//! Parse errors and the names of tokens in them.

use std::fmt;

use crate::ast::{BinaryOp, Pos};
use crate::format::text::quote;
use crate::lexer::{Keyword, Kind};

/// Why a query was refused: shown as `line:column: parse error: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where, in bytes.
    pub pos: Pos,
    /// What is wrong, in the words of Prometheus.
    pub message: String,
    /// Line and column of the start, from 1; the column counts bytes. `None` where the query is empty.
    pub place: Option<(u32, u32)>,
    /// Prometheus finds it when it evaluates the query, and then names no place.
    pub in_evaluation: bool,
}

impl ParseError {
    pub(crate) fn new(input: &str, pos: Pos, message: String) -> Self {
        let before = input.as_bytes().get(..pos.start as usize).unwrap_or(input.as_bytes());
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        let place = (!input.is_empty()).then_some((line as u32, column as u32));
        Self { pos, message, place, in_evaluation: false }
    }

    /// The same error as evaluation would give it.
    pub(crate) fn of_evaluation(self) -> Self {
        Self { in_evaluation: true, ..self }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            _ if self.in_evaluation => f.write_str(&self.message),
            Some((line, column)) => write!(f, "{line}:{column}: parse error: {}", self.message),
            None => write!(f, "unknown position: parse error: {}", self.message),
        }
    }
}

impl std::error::Error for ParseError {}

/// A token as error texts name it.
pub(super) fn describe(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Eof => "end of input".to_owned(),
        Kind::Error => "error".to_owned(),
        Kind::Identifier => format!("identifier {}", quote(text)),
        Kind::MetricIdentifier => format!("metric identifier {}", quote(text)),
        Kind::String => format!("string {}", shortened(text)),
        Kind::Number => format!("number {}", shortened(text)),
        Kind::Duration => format!("duration {}", shortened(text)),
        Kind::Keyword(_) => format!("<{text}>"),
        Kind::Op(_) | Kind::At | Kind::EqlRegex | Kind::NeqRegex => format!("<op:{text}>"),
        Kind::Aggregate(_) => format!("<aggr:{text}>"),
        _ => shortened(text),
    }
}

fn shortened(text: &str) -> String {
    if text.len() > 10 {
        let start: String = text.chars().take(10).collect();
        format!("{}...", quote(&start))
    } else {
        quote(text)
    }
}

/// Whether a token may be a metric's name.
pub(super) fn is_metric_name(kind: Kind) -> bool {
    use crate::lexer::Keyword as K;
    match kind {
        Kind::Identifier
        | Kind::MetricIdentifier
        | Kind::Start
        | Kind::End
        | Kind::Step
        | Kind::Range
        | Kind::Aggregate(_) => true,
        Kind::Op(op) => op.is_set(),
        Kind::Keyword(keyword) => {
            matches!(keyword, K::By | K::Without | K::Offset | K::Anchored | K::Smoothed)
        }
        _ => false,
    }
}

/// Whether a token may be a label's name in a list of labels: as upstream, any word but `without`.
pub(super) fn is_label_name(kind: Kind) -> bool {
    let is_word = matches!(kind, Kind::Keyword(_) | Kind::Op(BinaryOp::Atan2));
    (is_metric_name(kind) || is_word) && kind != Kind::Keyword(Keyword::Without)
}
