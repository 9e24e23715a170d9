//! Bracketed classes such as `[^a-z[:digit:]\d]`.

use super::escape::{escape, perl_class, property};
use super::translate::{Translated, push_literal, refuse};

/// Translates the class at the beginning of a text; gives back what follows it.
pub(super) fn class<'a>(text: &'a str, out: &mut String) -> Translated<&'a str> {
    let mut rest = &text[1..];
    out.push('[');
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    let mut first = true;
    while first || !rest.starts_with(']') {
        first = false;
        if let Some((set, after)) = named(rest)? {
            out.push_str(set);
            rest = after;
        } else if let Some((set, after)) = property(rest)?.or_else(|| backslash_class(rest)) {
            out.push_str(&set);
            rest = after;
        } else {
            rest = range(text, rest, out)?;
        }
    }
    out.push(']');
    Ok(&rest[1..])
}

fn backslash_class(text: &str) -> Option<(String, &str)> {
    text.starts_with('\\').then(|| perl_class(text)).flatten()
}

/// `[:name:]`; without the end it is no such class.
fn named(text: &str) -> Translated<Option<(&str, &str)>> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "word", "xdigit",
    ];
    let Some((name, after)) = text.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) else {
        return Ok(None);
    };
    let whole = &text[..text.len() - after.len()];
    if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return refuse("invalid character class range", whole);
    }
    Ok(Some((whole, after)))
}

/// A character or a range of them.
fn range<'a>(whole: &'a str, text: &'a str, out: &mut String) -> Translated<&'a str> {
    let (low, mut rest) = character(whole, text)?;
    push_literal(out, low);
    // In front of the end a hyphen stands for itself.
    if let Some(behind) =
        rest.strip_prefix('-').filter(|behind| !behind.is_empty() && !behind.starts_with(']'))
    {
        let (high, after) = character(whole, behind)?;
        if high < low {
            return refuse("invalid character class range", &text[..text.len() - after.len()]);
        }
        out.push('-');
        push_literal(out, high);
        rest = after;
    }
    Ok(rest)
}

fn character<'a>(whole: &'a str, text: &'a str) -> Translated<(char, &'a str)> {
    match text.chars().next() {
        None => refuse("missing closing ]", whole),
        Some('\\') => escape(text),
        Some(c) => Ok((c, &text[c.len_utf8()..])),
    }
}
