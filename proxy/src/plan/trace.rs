//! TraceQL's simple form, `{ a && b … }` with an optional `| select(…)`, into the conditions of a search.
//!
//! What a trace search may ask beyond that (alternatives, structure, aggregates, metrics) is refused by its name.

use tricord_fragment::trace::{Comparison, Condition, Field, Operand};
use tricord_model::{MatchOp, Matcher};

use crate::error::Error;

mod lexer;
mod tags;

use lexer::{Lexer, Token};
pub use tags::{duration_ns, legacy_tags};

/// The most conditions that one search may have.
const MAX_CONDITIONS: usize = 64;

/// What a text asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search {
    /// All must hold on one span.
    pub conditions: Vec<Condition>,
    /// Fields to show.
    pub select: Vec<Field>,
}

/// Parses a search; an empty text and `{}` ask for every trace.
///
/// # Errors
/// [`Error::BadData`] where the text is no TraceQL or more than this form.
pub fn parse(text: &str) -> Result<Search, Error> {
    let mut parser = Parser { lexer: Lexer::new(text), search: Search::default() };
    if text.trim().is_empty() {
        return Ok(parser.search);
    }
    parser.spanset()?;
    parser.pipeline()?;
    Ok(parser.search)
}

/// A field by its name in TraceQL, as `resource.service.name`, `name` or `span:kind`.
///
/// # Errors
/// [`Error::BadData`] where there is no such field.
pub fn field(text: &str) -> Result<Field, Error> {
    let mut lexer = Lexer::new(text);
    match (lexer.next()?, lexer.next()?) {
        (Token::Field(name), Token::End) => named_field(name),
        _ => Err(Error::BadData(format!(
            "{text:?} is not the name of a field: use one as resource.service.name"
        ))),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    search: Search,
}

impl Parser<'_> {
    fn spanset(&mut self) -> Result<(), Error> {
        match self.lexer.next()? {
            Token::Open => {}
            Token::Bracket('(') => {
                return Err(later("groups of span sets in parentheses"));
            }
            other => return Err(self.unexpected(&other, "`{`")),
        }
        if self.lexer.peek()? == Token::Close {
            self.lexer.next()?;
            return Ok(());
        }
        loop {
            self.condition()?;
            match self.lexer.next()? {
                Token::And => {}
                Token::Close => return Ok(()),
                Token::Or => return Err(later("`||` between conditions")),
                Token::Arithmetic(sign) => return Err(later(&format!("arithmetic with `{sign}`"))),
                other => return Err(self.unexpected(&other, "`&&` or `}`")),
            }
        }
    }

    fn condition(&mut self) -> Result<(), Error> {
        let field = match self.lexer.next()? {
            Token::Value(Operand::Bool(true)) => return Ok(()),
            Token::Field(name) if name == "nestedSetParent" => return self.root_only(),
            Token::Field(name) => named_field(name)?,
            Token::Bracket('(') => return Err(later("conditions in parentheses")),
            Token::Not => return Err(later("`!` before a condition")),
            Token::Value(_) => return Err(later("a condition that begins with a value")),
            other => return Err(self.unexpected(&other, "a field")),
        };
        let op = match self.lexer.peek()? {
            Token::Compare(op) => op,
            // A field alone is a truth value.
            Token::And | Token::Close => {
                return self.add(Condition { field, op: Comparison::Equal, value: Operand::Bool(true) });
            }
            Token::Arithmetic(sign) => return Err(later(&format!("arithmetic with `{sign}`"))),
            other => return Err(self.unexpected(&other, "a comparison such as `=`")),
        };
        self.lexer.next()?;
        let value = match self.lexer.next()? {
            Token::Value(value) => value,
            Token::Field(word) => keyword(&field, &word)?,
            other => return Err(self.unexpected(&other, "a value")),
        };
        let op = match (op, &value) {
            (Comparison::Equal, Operand::Nil) => Comparison::NotExists,
            (Comparison::NotEqual, Operand::Nil) => Comparison::Exists,
            (_, Operand::Nil) => return Err(wrong("nil can only be compared by `=` and `!=`")),
            (op, _) => op,
        };
        self.add(checked(field, op, value)?)
    }

    /// `nestedSetParent < 0`, which is how Grafana asks for root spans.
    fn root_only(&mut self) -> Result<(), Error> {
        match (self.lexer.next()?, self.lexer.next()?) {
            (Token::Compare(Comparison::Less), Token::Value(Operand::Int(0)))
            | (Token::Compare(Comparison::Equal), Token::Value(Operand::Int(-1))) => {
                self.add(Condition { field: Field::ParentId, op: Comparison::NotExists, value: Operand::Nil })
            }
            _ => Err(later("nestedSetParent beyond `nestedSetParent < 0`")),
        }
    }

    fn add(&mut self, condition: Condition) -> Result<(), Error> {
        if self.search.conditions.len() >= MAX_CONDITIONS {
            return Err(wrong(&format!("a search has at most {MAX_CONDITIONS} conditions")));
        }
        self.search.conditions.push(condition);
        Ok(())
    }

    /// `| select(a, b)` and `with(…)`; hints change nothing, for answers are the newest traces anyway.
    fn pipeline(&mut self) -> Result<(), Error> {
        loop {
            match self.lexer.next()? {
                Token::End => return Ok(()),
                Token::Pipe => match self.lexer.next()? {
                    Token::Field(name) if name == "select" => self.select()?,
                    Token::Field(name) => return Err(later(&format!("`| {name}`"))),
                    Token::Open => return Err(later("`| { … }`")),
                    other => return Err(self.unexpected(&other, "`select`")),
                },
                Token::Field(name) if name == "with" => return self.hints(),
                Token::And | Token::Or | Token::Compare(_) | Token::Arithmetic(_) | Token::Not => {
                    return Err(later("structure between span sets"));
                }
                other => return Err(self.unexpected(&other, "the end")),
            }
        }
    }

    fn select(&mut self) -> Result<(), Error> {
        self.expect(&Token::Bracket('('), "`(`")?;
        loop {
            match self.lexer.next()? {
                // Numbers of a tree that is not computed.
                Token::Field(name) if name.starts_with("nestedSet") => {}
                Token::Field(name) => {
                    let field = named_field(name)?;
                    if self.search.select.len() >= MAX_CONDITIONS {
                        return Err(wrong(&format!("select takes at most {MAX_CONDITIONS} fields")));
                    }
                    self.search.select.push(field);
                }
                other => return Err(self.unexpected(&other, "a field")),
            }
            match self.lexer.next()? {
                Token::Comma => {}
                Token::Bracket(')') => return Ok(()),
                other => return Err(self.unexpected(&other, "`,` or `)`")),
            }
        }
    }

    fn hints(&mut self) -> Result<(), Error> {
        self.expect(&Token::Bracket('('), "`(`")?;
        loop {
            match self.lexer.next()? {
                Token::Bracket(')') => return self.expect(&Token::End, "the end"),
                Token::Field(_) | Token::Value(_) | Token::Comma | Token::Compare(Comparison::Equal) => {}
                other => return Err(self.unexpected(&other, "a hint")),
            }
        }
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), Error> {
        match self.lexer.next()? {
            found if found == *token => Ok(()),
            other => Err(self.unexpected(&other, what)),
        }
    }

    fn unexpected(&self, token: &Token, wanted: &str) -> Error {
        let found = match token {
            Token::End => "the end".to_owned(),
            _ => format!("{:?}", self.lexer.last()),
        };
        wrong(&format!("at character {}: found {found} where {wanted} should be", self.lexer.position() + 1))
    }
}

fn wrong(why: &str) -> Error {
    Error::BadData(format!("invalid TraceQL query: {why}"))
}

fn later(what: &str) -> Error {
    Error::BadData(format!(
        "TraceQL: {what} cannot be answered yet: searches have the form {{ resource.service.name = \"x\" && duration > \
         100ms }}"
    ))
}

fn named_field(name: String) -> Result<Field, Error> {
    type Make = fn(String) -> Field;
    let scopes: [(&str, Make); 6] = [
        ("resource.", Field::Resource),
        ("span.", Field::Span),
        ("event.", Field::Event),
        ("link.", Field::Link),
        ("instrumentation.", Field::Scope),
        (".", Field::Any),
    ];
    for (prefix, make) in scopes {
        if let Some(key) = name.strip_prefix(prefix).filter(|key| !key.is_empty()) {
            return Ok(make(key.to_owned()));
        }
    }
    Ok(match name.as_str() {
        "name" | "span:name" => Field::Name,
        "duration" | "span:duration" => Field::Duration,
        "status" | "span:status" => Field::Status,
        "statusMessage" | "span:statusMessage" => Field::StatusMessage,
        "kind" | "span:kind" => Field::Kind,
        "span:id" => Field::SpanId,
        "span:parentID" => Field::ParentId,
        "trace:id" => Field::TraceId,
        "rootName" | "trace:rootName" => Field::RootName,
        "rootServiceName" | "trace:rootService" => Field::RootServiceName,
        "traceDuration" | "trace:duration" => Field::TraceDuration,
        "event:name" => Field::EventName,
        "instrumentation:name" => Field::ScopeName,
        "instrumentation:version" => Field::ScopeVersion,
        other => {
            return Err(wrong(&format!(
                "there is no field {other:?}: attributes are written as .{other}, span.{other} or resource.{other}"
            )));
        }
    })
}

/// `error` and `server` stand without quotes.
fn keyword(field: &Field, word: &str) -> Result<Operand, Error> {
    let words: &[&str] = match field {
        Field::Status => &["ok", "error", "unset"],
        Field::Kind => &["unspecified", "internal", "server", "client", "producer", "consumer"],
        _ => &[],
    };
    if words.contains(&word) {
        return Ok(Operand::Text(word.to_owned()));
    }
    Err(match words {
        [] => wrong(&format!("{word} is no value: put texts between quotes")),
        words => wrong(&format!("{word} is none of {}", words.join(", "))),
    })
}

/// Refuses comparisons that could never hold.
fn checked(field: Field, op: Comparison, value: Operand) -> Result<Condition, Error> {
    let is_number = matches!(value, Operand::Int(_) | Operand::Float(_));
    let fits = match field {
        Field::Duration | Field::TraceDuration => is_number,
        Field::Name | Field::RootName | Field::RootServiceName | Field::Status | Field::Kind => {
            matches!(value, Operand::Text(_) | Operand::Nil)
        }
        _ => true,
    };
    if !fits {
        return Err(wrong("a duration compares with one such as 100ms, a name with a text between quotes"));
    }
    match (op, &value) {
        (Comparison::Regex | Comparison::NotRegex, Operand::Text(pattern)) => {
            Matcher::new("", MatchOp::Regex, pattern).map_err(|error| wrong(&error.to_string()))?;
        }
        (Comparison::Regex | Comparison::NotRegex, _) => {
            return Err(wrong("`=~` and `!~` take a text between quotes"));
        }
        _ => {}
    }
    Ok(Condition { field, op, value })
}

#[cfg(test)]
mod tests;
