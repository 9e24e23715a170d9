//! The words of TraceQL.

use tricord_fragment::trace::{Comparison, Operand};

use super::{duration_ns, wrong};
use crate::error::Error;

/// The longest text that is read, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Open,
    Close,
    /// `(` or `)`
    Bracket(char),
    And,
    Or,
    Not,
    Pipe,
    Comma,
    Compare(Comparison),
    Arithmetic(char),
    /// A name with its scope.
    Field(String),
    Value(Operand),
    End,
}

/// Cuts a text into words.
#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    began: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, began: 0 }
    }

    /// Where the last word began, in characters.
    pub(super) fn position(&self) -> usize {
        self.text[..self.began].chars().count()
    }

    /// The last word as it is written.
    pub(super) fn last(&self) -> &'a str {
        &self.text[self.began..self.at]
    }

    pub(super) fn peek(&self) -> Result<Token, Error> {
        self.clone().next()
    }

    pub(super) fn next(&mut self) -> Result<Token, Error> {
        if self.text.len() > MAX_BYTES {
            return Err(wrong(&format!("it is longer than {MAX_BYTES} bytes")));
        }
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.began = self.at;
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        const SIGNS: [(&str, Token); 20] = [
            ("&&", Token::And),
            ("||", Token::Or),
            ("!=", Token::Compare(Comparison::NotEqual)),
            ("!~", Token::Compare(Comparison::NotRegex)),
            ("=~", Token::Compare(Comparison::Regex)),
            ("<=", Token::Compare(Comparison::LessOrEqual)),
            (">=", Token::Compare(Comparison::GreaterOrEqual)),
            ("=", Token::Compare(Comparison::Equal)),
            ("<", Token::Compare(Comparison::Less)),
            (">", Token::Compare(Comparison::Greater)),
            ("!", Token::Not),
            ("{", Token::Open),
            ("}", Token::Close),
            ("(", Token::Bracket('(')),
            (")", Token::Bracket(')')),
            ("|", Token::Pipe),
            (",", Token::Comma),
            ("*", Token::Arithmetic('*')),
            ("/", Token::Arithmetic('/')),
            ("+", Token::Arithmetic('+')),
        ];
        if let Some((sign, token)) = SIGNS.into_iter().find(|(sign, _)| rest.starts_with(sign)) {
            self.at += sign.len();
            return Ok(token);
        }
        match first {
            '"' | '`' => Ok(Token::Value(Operand::Text(self.quoted(first)?))),
            '0'..='9' | '-' => self.number(),
            _ => self.word(),
        }
    }

    /// A text between quotes; between backticks nothing is escaped.
    fn quoted(&mut self, quote: char) -> Result<String, Error> {
        let mut out = String::new();
        let mut chars = self.text[self.at + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at += 1 + offset + quote.len_utf8();
                    return Ok(out);
                }
                '\\' if quote == '"' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some(c @ ('"' | '\\')) => out.push(c),
                    Some(c) => return Err(wrong(&format!("\\{c} is no escape: write \\\\ for a backslash"))),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(wrong("a text has no closing quote"))
    }

    /// An integer, a float or a duration.
    fn number(&mut self) -> Result<Token, Error> {
        let rest = &self.text[self.at..];
        let is_part = |at: usize, c: char| c.is_alphanumeric() || c == '.' || (at == 0 && c == '-');
        let end = rest.char_indices().find(|(at, c)| !is_part(*at, *c)).map_or(rest.len(), |(at, _)| at);
        let text = &rest[..end];
        self.at += end;
        if text == "-" {
            return Ok(Token::Arithmetic('-'));
        }
        let value = match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => Operand::Int(number),
            (_, Ok(number)) => Operand::Float(number),
            _ => match duration_ns(text) {
                Some(duration) => Operand::Int(i64::try_from(duration).unwrap_or(i64::MAX)),
                None => {
                    return Err(wrong(&format!("{text:?} is neither a number nor a duration such as 100ms")));
                }
            },
        };
        Ok(Token::Value(value))
    }

    /// A field or a keyword; parts of a field's name may stand between quotes.
    fn word(&mut self) -> Result<Token, Error> {
        let mut name = String::new();
        loop {
            let rest = &self.text[self.at..];
            let ends = |c: char| c.is_whitespace() || "=!<>~&|{}(),\"`*/+".contains(c);
            let end = rest.find(ends).unwrap_or(rest.len());
            name.push_str(&rest[..end]);
            self.at += end;
            if end > 0 && rest[..end].ends_with('.') && rest[end..].starts_with('"') {
                name.push_str(&self.quoted('"')?);
                continue;
            }
            break;
        }
        Ok(match name.as_str() {
            "true" => Token::Value(Operand::Bool(true)),
            "false" => Token::Value(Operand::Bool(false)),
            "nil" => Token::Value(Operand::Nil),
            "" => {
                let c = self.text[self.at..].chars().next().unwrap_or(' ');
                return Err(wrong(&format!("{c:?} has no meaning here")));
            }
            _ => Token::Field(name),
        })
    }
}
