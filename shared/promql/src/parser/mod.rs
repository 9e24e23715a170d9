//! The parser: from text to a checked syntax tree, with the error texts and positions of Prometheus.
//!
//! It is written by hand and descends recursively, so depth and size of a query are bounded here: whatever walks a
//! tree later may recurse too.

mod duration;
mod error;
mod expr;
mod literal;
mod modifiers;
mod selector;

pub use error::ParseError;
pub(crate) use selector::NAME_LABEL;

use crate::ast::{Expr, ExprKind, Pos};
use crate::lexer::{self, Kind, Token, Tokens};
use tricord_model::Matcher;

/// The longest query that is read, in bytes.
pub const MAX_QUERY_BYTES: usize = 1 << 20;

/// The most levels that a syntax tree has; a chain such as `a + b + c` has one level per operator.
pub const MAX_DEPTH: usize = 512;

/// The most parentheses, calls and signs that stand in one another.
const MAX_NESTING: usize = 192;

/// The most regular expressions in one query, as each takes memory.
pub const MAX_REGEX_MATCHERS: usize = 1000;

/// Which parts of the language are switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserOptions {
    /// Functions and aggregations marked experimental.
    pub experimental_functions: bool,
    /// Arithmetic in ranges, steps and offsets.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_modifiers: bool,
    /// `fill`, `fill_left` and `fill_right`.
    pub binop_fill: bool,
}

impl Default for ParserOptions {
    fn default() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_modifiers: true,
            binop_fill: true,
        }
    }
}

/// Reads and checks a query.
///
/// # Errors
/// The first [`ParseError`] in the order in which Prometheus finds them.
pub fn parse(input: &str, options: &ParserOptions) -> Result<Expr, ParseError> {
    let tokens = tokens(input)?;
    let mut parser = Parser::new(input, &tokens, options);
    if parser.peek() == Kind::Eof {
        return Err(parser.error(Pos::default(), "no expression found in input"));
    }
    let mut expr = parser.expr()?;
    if parser.peek() != Kind::Eof {
        return Err(parser.unexpected_here());
    }
    parser.refuse_invalid_strings()?;
    crate::typecheck::check(input, &mut expr)?;
    Ok(expr)
}

/// Reads a selector without range, offset or `@`, such as the `match[]` argument of the HTTP API, as its matchers.
/// That one of them must not match the empty text is for the caller to check.
///
/// # Errors
/// The first [`ParseError`].
pub fn parse_selector(input: &str) -> Result<Vec<Matcher>, ParseError> {
    let tokens = tokens(input)?;
    let options = ParserOptions::default();
    let mut parser = Parser::new(input, &tokens, &options);
    let expr = parser.vector_selector()?;
    if parser.peek() != Kind::Eof {
        return Err(parser.unexpected_here());
    }
    parser.refuse_invalid_strings()?;
    match expr.kind {
        ExprKind::VectorSelector(selector) => Ok(selector.matchers),
        _ => Ok(Vec::new()),
    }
}

fn tokens(input: &str) -> Result<Tokens, ParseError> {
    if input.len() > MAX_QUERY_BYTES {
        let message = format!("query of {} bytes is longer than {MAX_QUERY_BYTES} bytes", input.len());
        return Err(ParseError::new(input, Pos::default(), message));
    }
    Ok(lexer::tokenize(input))
}

/// What an unexpected token is reported to stand in, and what was expected instead.
type Context = (&'static str, &'static str);

struct Parser<'a> {
    input: &'a str,
    tokens: &'a Tokens,
    at: usize,
    options: &'a ParserOptions,
    /// Recursion at hand.
    nesting: usize,
    /// The levels of the tree that was returned last.
    height: usize,
    /// The end of the last token taken that may close an expression.
    last_closing: u32,
    context: Context,
    regexes: usize,
    /// Operators in the duration at hand.
    duration_operators: usize,
    /// Strings whose escapes yield bytes that are not UTF-8, with their text as an error shows it.
    invalid_strings: Vec<(Pos, String)>,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn new(input: &'a str, tokens: &'a Tokens, options: &'a ParserOptions) -> Self {
        Self {
            input,
            tokens,
            at: 0,
            options,
            nesting: 0,
            height: 0,
            last_closing: 0,
            context: ("", ""),
            regexes: 0,
            duration_operators: 0,
            invalid_strings: Vec::new(),
        }
    }

    fn token(&self) -> Token {
        self.ahead(0)
    }

    /// The token that many places behind the one at hand; the last one stands for all behind it.
    fn ahead(&self, by: usize) -> Token {
        let end = Token { kind: Kind::Eof, pos: Pos::default() };
        let list = &self.tokens.list;
        list.get(self.at + by).or(list.last()).copied().unwrap_or(end)
    }

    fn peek(&self) -> Kind {
        self.token().kind
    }

    fn peek_second(&self) -> Kind {
        self.ahead(1).kind
    }

    fn bump(&mut self) -> Token {
        let token = self.token();
        if !matches!(token.kind, Kind::Eof | Kind::Error) {
            self.at += 1;
        }
        if matches!(
            token.kind,
            Kind::RightBrace | Kind::RightParen | Kind::RightBracket | Kind::Duration | Kind::Number
        ) {
            self.last_closing = token.pos.end;
        }
        token
    }

    fn eat(&mut self, kind: Kind) -> Option<Token> {
        (self.peek() == kind).then(|| self.bump())
    }

    /// Takes a token of that kind, or reports the one at hand in the context at hand.
    fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        self.eat(kind).ok_or_else(|| self.unexpected_here())
    }

    fn text(&self, pos: Pos) -> &'a str {
        self.input.get(pos.start as usize..pos.end as usize).unwrap_or("")
    }

    fn error(&self, pos: Pos, message: impl Into<String>) -> ParseError {
        ParseError::new(self.input, pos, message.into())
    }

    fn unexpected_here(&self) -> ParseError {
        let (context, expected) = self.context;
        self.unexpected(context, expected)
    }

    /// An error about the token at hand.
    fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let token = self.token();
        if token.kind == Kind::Error {
            return self.error(token.pos, self.tokens.error.clone().unwrap_or_default());
        }
        let mut message = format!("unexpected {}", error::describe(token.kind, self.text(token.pos)));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.error(token.pos, message)
    }

    /// Runs a rule within a context for its errors.
    fn within<T>(&mut self, context: Context, rule: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let outer = std::mem::replace(&mut self.context, context);
        let result = rule(self);
        self.context = outer;
        result
    }

    /// Runs a rule one level deeper in the recursion.
    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            let message =
                format!("expression is nested too deeply, at most {MAX_NESTING} levels are allowed");
            return Err(self.error(self.token().pos, message));
        }
        self.nesting += 1;
        let result = rule(self);
        self.nesting -= 1;
        result
    }

    /// Notes that a node was put on top of subtrees of that height.
    fn grow(&mut self, height: usize, pos: Pos) -> Parsed<()> {
        if height >= MAX_DEPTH {
            let message = format!("expression has too many levels, at most {MAX_DEPTH} are allowed");
            return Err(self.error(pos, message));
        }
        self.height = height + 1;
        Ok(())
    }

    fn refuse_invalid_strings(&self) -> Parsed<()> {
        match self.invalid_strings.first() {
            Some((pos, text)) => Err(self.error(*pos, format!("invalid UTF-8 in string {text}"))),
            None => Ok(()),
        }
    }
}

fn merge(a: Pos, b: Pos) -> Pos {
    Pos { start: a.start, end: b.end }
}

#[cfg(test)]
mod tests;
