//! From Go's syntax to that of `regex-syntax`: groups, repetitions and literals.

use super::class::class;
use super::escape::{escape, perl_class, property};
use crate::MatcherError;

/// The largest count in `x{n}`.
const MAX_REPEAT: u32 = 1000;

pub(super) type Translated<T> = Result<T, MatcherError>;

/// An error as Go words it: what is wrong, and the part of the pattern that is.
pub(super) fn refuse<T>(why: &str, part: &str) -> Translated<T> {
    Err(MatcherError { message: format!("{why}: `{part}`") })
}

/// A pattern in the syntax of `regex-syntax` that means what the given one means in Go.
pub(super) fn translate(pattern: &str) -> Translated<String> {
    let mut translator =
        Translator { whole: pattern, rest: pattern, out: String::with_capacity(pattern.len() + 8), open: 0 };
    translator.run()?;
    Ok(translator.out)
}

/// A character that stands for itself.
pub(super) fn push_literal(out: &mut String, c: char) {
    if regex_syntax::is_meta_character(c) {
        out.push('\\');
    }
    out.push(c);
}

struct Translator<'a> {
    whole: &'a str,
    rest: &'a str,
    out: String,
    /// Groups that are open.
    open: usize,
}

/// What stands before a repetition.
#[derive(Clone, Copy, PartialEq)]
enum Before<'a> {
    /// The beginning of the pattern, of a group or of an alternative.
    Nothing,
    /// Something that may be repeated.
    Atom,
    /// A repetition, with the pattern from it on.
    Repetition(&'a str),
}

impl<'a> Translator<'a> {
    fn run(&mut self) -> Translated<()> {
        let mut before = Before::Nothing;
        while let Some(c) = self.rest.chars().next() {
            let here = self.rest;
            let next = &here[c.len_utf8()..];
            before = match c {
                '(' => self.group(before)?,
                ')' => {
                    if self.open == 0 {
                        return refuse("unexpected )", self.whole);
                    }
                    self.open -= 1;
                    self.take(')', next);
                    Before::Atom
                }
                '|' => {
                    self.take('|', next);
                    Before::Nothing
                }
                '[' => {
                    self.rest = class(here, &mut self.out)?;
                    Before::Atom
                }
                '*' | '+' | '?' => self.repetition(&here[..1], next, before)?,
                '{' => match counts(here) {
                    Some((low, high, after)) => {
                        let text = &here[..here.len() - after.len()];
                        let too_many =
                            low > MAX_REPEAT || high.is_some_and(|high| high > MAX_REPEAT || high < low);
                        let found = self.repetition(text, after, before)?;
                        if too_many {
                            return refuse("invalid repeat count", text);
                        }
                        found
                    }
                    None => self.literal('{', next),
                },
                '\\' => self.escaped(before)?,
                '^' | '$' | '.' => {
                    self.take(c, next);
                    Before::Atom
                }
                _ => self.literal(c, next),
            };
        }
        if self.open > 0 {
            return refuse("missing closing )", self.whole);
        }
        Ok(())
    }

    fn take(&mut self, c: char, next: &'a str) {
        self.out.push(c);
        self.rest = next;
    }

    fn literal(&mut self, c: char, next: &'a str) -> Before<'a> {
        push_literal(&mut self.out, c);
        self.rest = next;
        Before::Atom
    }

    fn repetition(&mut self, text: &str, after: &'a str, before: Before<'a>) -> Translated<Before<'a>> {
        let here = self.rest;
        let lazy = after.strip_prefix('?');
        let after = lazy.unwrap_or(after);
        match before {
            Before::Repetition(first) => {
                return refuse("invalid nested repetition operator", &first[..first.len() - after.len()]);
            }
            Before::Nothing => {
                return refuse("missing argument to repetition operator", &here[..here.len() - after.len()]);
            }
            Before::Atom => {}
        }
        self.out.push_str(text);
        if lazy.is_some() {
            self.out.push('?');
        }
        self.rest = after;
        Ok(Before::Repetition(here))
    }

    fn escaped(&mut self, before: Before<'a>) -> Translated<Before<'a>> {
        let here = self.rest;
        match here.as_bytes().get(1) {
            Some(b'A' | b'z') => {
                self.out.push_str(&here[..2]);
                self.rest = &here[2..];
            }
            Some(b'b' | b'B') => {
                self.out.push_str("(?-u:");
                self.out.push_str(&here[..2]);
                self.out.push(')');
                self.rest = &here[2..];
            }
            Some(b'C') => return refuse("invalid escape sequence", "\\C"),
            Some(b'Q') => {
                let (text, after) = here[2..].split_once("\\E").unwrap_or((&here[2..], ""));
                text.chars().for_each(|c| push_literal(&mut self.out, c));
                self.rest = after;
                // An empty quotation leaves what stands before it to be repeated.
                return Ok(if text.is_empty() { before } else { Before::Atom });
            }
            _ => {
                if let Some((text, after)) = property(here)?.or_else(|| perl_class(here)) {
                    self.out.push_str(&text);
                    self.rest = after;
                } else {
                    let (c, after) = escape(here)?;
                    push_literal(&mut self.out, c);
                    self.rest = after;
                }
            }
        }
        Ok(Before::Atom)
    }

    /// `(`, `(?P<name>`, `(?flags:` or `(?flags)`.
    fn group(&mut self, before: Before<'a>) -> Translated<Before<'a>> {
        let here = self.rest;
        let Some(inner) = here.strip_prefix("(?") else {
            self.open += 1;
            self.take('(', &here[1..]);
            return Ok(Before::Nothing);
        };
        if let Some(named) = inner.strip_prefix("P<").or_else(|| inner.strip_prefix('<')) {
            let Some((name, after)) = named.split_once('>') else {
                return refuse("invalid named capture", here);
            };
            if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
                return refuse("invalid named capture", &here[..here.len() - after.len()]);
            }
            self.open += 1;
            self.out.push_str(&format!("(?P<{name}>"));
            self.rest = after;
            return Ok(Before::Nothing);
        }
        self.flags(here, inner, before)
    }

    fn flags(&mut self, here: &'a str, inner: &'a str, before: Before<'a>) -> Translated<Before<'a>> {
        // The last word on each flag counts.
        let mut flags: Vec<(char, bool)> = Vec::new();
        let (mut on, mut seen) = (true, false);
        for (at, c) in inner.char_indices() {
            match c {
                'i' | 'm' | 's' | 'U' => {
                    flags.retain(|(flag, _)| *flag != c);
                    flags.push((c, on));
                    seen = true;
                }
                '-' if on => (on, seen) = (false, false),
                ':' | ')' if on || seen => {
                    let names = |wanted| flags.iter().filter(move |(_, on)| *on == wanted).map(|(c, _)| *c);
                    let (set, cleared): (String, String) = (names(true).collect(), names(false).collect());
                    let minus = if cleared.is_empty() { "" } else { "-" };
                    if c == ':' || !flags.is_empty() {
                        self.out.push_str(&format!("(?{set}{minus}{cleared}{c}"));
                    }
                    self.rest = &inner[at + 1..];
                    self.open += usize::from(c == ':');
                    return Ok(if c == ':' { Before::Nothing } else { before });
                }
                _ => {
                    let end = here.len() - inner.len() + at + c.len_utf8();
                    return refuse("invalid or unsupported Perl syntax", &here[..end]);
                }
            }
        }
        refuse("missing closing )", self.whole)
    }
}

/// `{n}`, `{n,}` or `{n,m}`, with what follows it; anything else is literal.
fn counts(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (low, rest) = count(text.strip_prefix('{')?)?;
    if let Some(after) = rest.strip_prefix('}') {
        return Some((low, None, after));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(after) = rest.strip_prefix('}') {
        return Some((low, None, after));
    }
    let (high, rest) = count(rest)?;
    Some((low, Some(high), rest.strip_prefix('}')?))
}

/// Digits without a leading zero; more than fit are simply too many.
fn count(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || (digits > 1 && text.starts_with('0')) {
        return None;
    }
    Some((text[..digits].parse().unwrap_or(u32::MAX), &text[digits..]))
}
