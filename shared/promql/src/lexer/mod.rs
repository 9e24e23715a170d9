//! Splits the text of a query into tokens, with the rules and error texts of Prometheus' lexer.
//!
//! Three modes follow the text: outside, inside braces (label matchers) and inside brackets (durations). What the
//! tokens mean together is the parser's.

mod literal;

use crate::ast::{AggregateOp, BinaryOp, Pos};
use crate::format::text::quote_char;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The end of the text.
    Eof,
    /// What the lexer refused; its message is in [`Tokens::error`], and nothing follows.
    Error,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    /// `=`
    Eql,
    /// `=~`
    EqlRegex,
    /// `!~`
    NeqRegex,
    /// `@`
    At,
    Number,
    Duration,
    String,
    /// A word without a colon.
    Identifier,
    /// A word with a colon.
    MetricIdentifier,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    Start,
    End,
    Step,
    Range,
}

/// Words that stand for modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Offset,
    Anchored,
    Smoothed,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
}

/// A token and its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) pos: Pos,
}

/// A query's tokens; the last one is [`Kind::Eof`] or [`Kind::Error`].
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) list: Vec<Token>,
    /// Why the last token is an error.
    pub(crate) error: Option<String>,
}

/// Splits a text, which must be shorter than 4 GiB.
pub(crate) fn tokenize(input: &str) -> Tokens {
    let mut lexer = Lexer {
        input,
        pos: 0,
        start: 0,
        paren_depth: 0,
        brace_open: false,
        bracket_open: false,
        got_colon: false,
        bracket_empty: true,
        after_value: false,
        list: Vec::with_capacity(input.len() / 4 + 2),
    };
    let error = lexer.run().err();
    if error.is_some() {
        let pos = Pos { start: lexer.start as u32, end: input.len() as u32 };
        lexer.list.push(Token { kind: Kind::Error, pos });
    }
    Tokens { list: lexer.list, error }
}

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    /// Where the token at hand begins.
    start: usize,
    paren_depth: usize,
    brace_open: bool,
    bracket_open: bool,
    /// In brackets: a colon was seen.
    got_colon: bool,
    /// In brackets: nothing was seen yet.
    bracket_empty: bool,
    /// In brackets: a number or a duration was seen. From then on tokens are read as outside, but for words.
    after_value: bool,
    list: Vec<Token>,
}

type Step = Result<(), String>;

impl Lexer<'_> {
    fn run(&mut self) -> Step {
        loop {
            self.skip_blanks();
            self.start = self.pos;
            let Some(c) = self.next() else {
                self.end_of_input()?;
                self.emit(Kind::Eof);
                return Ok(());
            };
            if self.brace_open {
                self.in_braces(c)?;
            } else if self.bracket_open && !self.after_value {
                self.in_brackets(c)?;
            } else {
                self.outside(c)?;
            }
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n' | '\r') => self.pos += 1,
                Some('#') if self.brace_open || !self.bracket_open || self.after_value => {
                    let rest = &self.input[self.pos..];
                    self.pos += rest.find(['\n', '\r']).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn end_of_input(&self) -> Step {
        if self.brace_open {
            return Err("unexpected end of input inside braces".into());
        }
        if self.bracket_open && !self.after_value {
            return Err("unexpected end of input in duration expression".into());
        }
        if self.paren_depth > 0 {
            return Err("unclosed left parenthesis".into());
        }
        if self.bracket_open {
            return Err("unclosed left bracket".into());
        }
        Ok(())
    }

    fn outside(&mut self, c: char) -> Step {
        let kind = match c {
            ',' => Kind::Comma,
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '^' => Kind::Op(BinaryOp::Pow),
            '@' => Kind::At,
            '=' | '!' | '<' | '>' => self.comparison(c)?,
            '"' | '\'' => return self.string(c),
            '`' => return self.raw_string(),
            '(' => self.open_paren(),
            ')' => return self.close_paren(),
            '{' => {
                self.brace_open = true;
                Kind::LeftBrace
            }
            ':' if self.bracket_open && self.got_colon => {
                return Err(format!("unexpected colon {}", quote_char(c)));
            }
            ':' if self.bracket_open => {
                self.got_colon = true;
                Kind::Colon
            }
            '[' if self.bracket_open => return Err(format!("unexpected left bracket {}", quote_char(c))),
            ']' if self.bracket_open => {
                self.bracket_open = false;
                self.after_value = false;
                Kind::RightBracket
            }
            '[' => {
                self.bracket_open = true;
                self.got_colon = false;
                self.bracket_empty = true;
                self.after_value = false;
                Kind::LeftBracket
            }
            ']' => return Err(format!("unexpected right bracket {}", quote_char(c))),
            _ if c.is_ascii_digit() || (c == '.' && self.peek_is(|n| n.is_ascii_digit())) => {
                return self.number_or_duration();
            }
            _ if is_alpha(c) && self.bracket_open => return self.duration_word(c),
            _ if is_alpha(c) || c == ':' => return self.word(),
            _ => return Err(format!("unexpected character: {}", quote_char(c))),
        };
        self.emit(kind);
        Ok(())
    }

    fn comparison(&mut self, c: char) -> Result<Kind, String> {
        let next = self.peek();
        let (kind, taken) = match (c, next) {
            ('=', Some('=')) => (Kind::Op(BinaryOp::Eql), true),
            ('=', Some('~')) => return Err(format!("unexpected character after '=': {}", quote_char('~'))),
            ('=', _) => (Kind::Eql, false),
            ('!', Some('=')) => (Kind::Op(BinaryOp::Neq), true),
            ('!', other) => {
                return Err(format!(
                    "unexpected character after '!': {}",
                    quote_char(other.unwrap_or('\u{fffd}'))
                ));
            }
            ('<', Some('=')) => (Kind::Op(BinaryOp::Lte), true),
            ('<', Some('/')) => (Kind::Op(BinaryOp::TrimUpper), true),
            ('<', _) => (Kind::Op(BinaryOp::Lss), false),
            (_, Some('=')) => (Kind::Op(BinaryOp::Gte), true),
            (_, Some('/')) => (Kind::Op(BinaryOp::TrimLower), true),
            (_, _) => (Kind::Op(BinaryOp::Gtr), false),
        };
        if taken {
            self.pos += 1;
        }
        Ok(kind)
    }

    fn open_paren(&mut self) -> Kind {
        self.paren_depth += 1;
        Kind::LeftParen
    }

    fn close_paren(&mut self) -> Step {
        if self.paren_depth == 0 {
            self.start = self.pos;
            return Err(format!("unexpected right parenthesis {}", quote_char(')')));
        }
        self.paren_depth -= 1;
        self.emit(Kind::RightParen);
        Ok(())
    }

    fn in_braces(&mut self, c: char) -> Step {
        let kind = match c {
            ',' => Kind::Comma,
            '"' | '\'' => return self.string(c),
            '`' => return self.raw_string(),
            '=' if self.peek_is(|n| n == '~') => {
                self.pos += 1;
                Kind::EqlRegex
            }
            '=' => Kind::Eql,
            '!' => match self.next() {
                Some('~') => Kind::NeqRegex,
                Some('=') => Kind::Op(BinaryOp::Neq),
                other => {
                    let found = quote_char(other.unwrap_or('\u{fffd}'));
                    return Err(format!("unexpected character after '!' inside braces: {found}"));
                }
            },
            '{' => return Err(format!("unexpected left brace {}", quote_char(c))),
            '}' => {
                self.brace_open = false;
                Kind::RightBrace
            }
            _ if is_alpha(c) => {
                self.take_while(is_alphanumeric);
                Kind::Identifier
            }
            _ => return Err(format!("unexpected character inside braces: {}", quote_char(c))),
        };
        self.emit(kind);
        Ok(())
    }

    /// In brackets, before a number or a duration was seen.
    fn in_brackets(&mut self, c: char) -> Step {
        let empty = std::mem::replace(&mut self.bracket_empty, false);
        let kind = match c {
            ']' => {
                self.bracket_open = false;
                Kind::RightBracket
            }
            ':' if empty => {
                self.start = self.pos;
                return Err("unexpected colon before duration in duration expression".into());
            }
            ':' if self.got_colon => return Err(format!("unexpected colon {}", quote_char(c))),
            ':' => {
                self.got_colon = true;
                Kind::Colon
            }
            '(' => self.open_paren(),
            ')' => return self.close_paren(),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '^' => Kind::Op(BinaryOp::Pow),
            ',' => Kind::Comma,
            _ if c.is_ascii_digit() || (c == '.' && self.peek_is(|n| n.is_ascii_digit())) => {
                self.after_value = true;
                return self.number_or_duration();
            }
            _ if is_alpha(c) => return self.duration_word(c),
            _ => return Err(format!("unexpected character in duration expression: {}", quote_char(c))),
        };
        self.emit(kind);
        Ok(())
    }

    fn duration_word(&mut self, first: char) -> Step {
        self.take_while(is_alpha);
        let word = &self.input[self.start..self.pos];
        let kind = match word.to_ascii_lowercase().as_str() {
            "step" => Kind::Step,
            "range" => Kind::Range,
            "min_of" | "max_of" => Kind::Identifier,
            _ if self.after_value => {
                return Err(format!(
                    "unexpected character: {}, expected {}",
                    quote_char(first),
                    quote_char(':')
                ));
            }
            _ => return Err(format!("unexpected character in duration expression: {}", quote_char(first))),
        };
        self.emit(kind);
        Ok(())
    }

    fn word(&mut self) -> Step {
        self.take_while(|c| is_alphanumeric(c) || c == ':');
        let word = &self.input[self.start..self.pos];
        let kind = match keyword(&word.to_ascii_lowercase()) {
            // `fill` and its kin are keywords only in front of a parenthesis, so that metrics may have these names.
            Some(Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.input[self.pos..].trim_start_matches([' ', '\t', '\n', '\r']).starts_with('(') =>
            {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        self.emit(kind);
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.input[self.pos..].chars().next()
    }

    fn peek_is(&self, wanted: impl FnOnce(char) -> bool) -> bool {
        self.peek().is_some_and(wanted)
    }

    fn accept(&mut self, set: &str) -> bool {
        let found = self.peek_is(|c| set.contains(c));
        if found {
            self.pos += 1;
        }
        found
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek_is(&wanted) {
            self.next();
        }
    }

    fn emit(&mut self, kind: Kind) {
        let pos = Pos { start: self.start as u32, end: self.pos as u32 };
        self.list.push(Token { kind, pos });
    }
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

fn keyword(word: &str) -> Option<Kind> {
    use AggregateOp as A;
    use Keyword as K;
    Some(match word {
        "and" => Kind::Op(BinaryOp::And),
        "or" => Kind::Op(BinaryOp::Or),
        "unless" => Kind::Op(BinaryOp::Unless),
        "atan2" => Kind::Op(BinaryOp::Atan2),
        "sum" => Kind::Aggregate(A::Sum),
        "avg" => Kind::Aggregate(A::Avg),
        "count" => Kind::Aggregate(A::Count),
        "min" => Kind::Aggregate(A::Min),
        "max" => Kind::Aggregate(A::Max),
        "group" => Kind::Aggregate(A::Group),
        "stddev" => Kind::Aggregate(A::Stddev),
        "stdvar" => Kind::Aggregate(A::Stdvar),
        "topk" => Kind::Aggregate(A::Topk),
        "bottomk" => Kind::Aggregate(A::Bottomk),
        "count_values" => Kind::Aggregate(A::CountValues),
        "quantile" => Kind::Aggregate(A::Quantile),
        "limitk" => Kind::Aggregate(A::Limitk),
        "limit_ratio" => Kind::Aggregate(A::LimitRatio),
        "offset" => Kind::Keyword(K::Offset),
        "anchored" => Kind::Keyword(K::Anchored),
        "smoothed" => Kind::Keyword(K::Smoothed),
        "by" => Kind::Keyword(K::By),
        "without" => Kind::Keyword(K::Without),
        "on" => Kind::Keyword(K::On),
        "ignoring" => Kind::Keyword(K::Ignoring),
        "group_left" => Kind::Keyword(K::GroupLeft),
        "group_right" => Kind::Keyword(K::GroupRight),
        "fill" => Kind::Keyword(K::Fill),
        "fill_left" => Kind::Keyword(K::FillLeft),
        "fill_right" => Kind::Keyword(K::FillRight),
        "bool" => Kind::Keyword(K::Bool),
        "start" => Kind::Start,
        "end" => Kind::End,
        "step" => Kind::Step,
        "range" => Kind::Range,
        "inf" | "nan" => Kind::Number,
        _ => return None,
    })
}
