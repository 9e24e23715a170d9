//! What stands behind a backslash: characters, Perl's classes and Unicode's properties.

use super::translate::{Translated, refuse};

/// The character of an escape such as `\n`, `\x{1f600}` or `\.`, and what follows it.
pub(super) fn escape(text: &str) -> Translated<(char, &str)> {
    let behind = &text[1..];
    let Some(first) = behind.chars().next() else {
        return refuse("trailing backslash at end of expression", "");
    };
    let rest = &behind[first.len_utf8()..];
    // As much of the escape as was looked at.
    let invalid = |rest: &str| refuse("invalid escape sequence", &text[..text.len() - rest.len()]);
    let plain = |c| Ok((c, rest));
    match first {
        'a' => plain('\x07'),
        'f' => plain('\x0c'),
        'n' => plain('\n'),
        'r' => plain('\r'),
        't' => plain('\t'),
        'v' => plain('\x0b'),
        // A single digit would refer back to a group.
        '1'..='7' if !rest.starts_with(|c| ('0'..='7').contains(&c)) => invalid(rest),
        '0'..='7' => {
            let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let value = behind[..=more].bytes().fold(0, |value, b| value * 8 + u32::from(b - b'0'));
            Ok((char::from_u32(value).unwrap_or('\0'), &rest[more..]))
        }
        'x' => hexadecimal(text, rest),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => plain(c),
        _ => invalid(rest),
    }
}

fn hexadecimal<'a>(text: &'a str, rest: &'a str) -> Translated<(char, &'a str)> {
    let invalid = |taken: usize| {
        let end = (text.len() - rest.len() + taken).min(text.len());
        refuse("invalid escape sequence", text.get(..end).unwrap_or(text))
    };
    if let Some(braced) = rest.strip_prefix('{') {
        let digits = braced.bytes().take_while(u8::is_ascii_hexdigit).count();
        let closed = braced[digits..].starts_with('}');
        let too_large = closed && digits > 0;
        let value = u32::from_str_radix(&braced[..digits], 16).ok().and_then(char::from_u32);
        return match value.filter(|_| closed) {
            Some(c) => Ok((c, &braced[digits + 1..])),
            None => invalid(digits + if too_large { 1 } else { 2 }),
        };
    }
    let value = rest.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    match value.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32) {
        Some(c) => Ok((c, &rest[2..])),
        None => invalid(rest.chars().take(2).map(char::len_utf8).sum()),
    }
}

/// `\d`, `\s`, `\w` and their opposites, of ASCII alone.
pub(super) fn perl_class(text: &str) -> Option<(String, &str)> {
    let set = match text.as_bytes().get(1)?.to_ascii_lowercase() {
        b'd' => "0-9",
        b's' => r"\t\n\f\r ",
        b'w' => "0-9A-Za-z_",
        _ => return None,
    };
    let not = if text.as_bytes()[1].is_ascii_uppercase() { "^" } else { "" };
    Some((format!("[{not}{set}]"), &text[2..]))
}

/// `\pL`, `\p{Greek}`, `\P…` and `\p{^…}`.
pub(super) fn property(text: &str) -> Translated<Option<(String, &str)>> {
    let Some(behind) = text.strip_prefix("\\p").or_else(|| text.strip_prefix("\\P")) else { return Ok(None) };
    let Some(first) = behind.chars().next() else {
        return refuse("invalid escape sequence", text);
    };
    let (name, rest) = match behind.strip_prefix('{') {
        Some(braced) => match braced.split_once('}') {
            Some(found) => found,
            None => return refuse("invalid character class range", text),
        },
        None => behind.split_at(first.len_utf8()),
    };
    let whole = &text[..text.len() - rest.len()];
    let plain = name.strip_prefix('^').unwrap_or(name);
    let negated = text.starts_with("\\P") != name.starts_with('^');
    let translated = format!("\\{}{{{plain}}}", if negated { 'P' } else { 'p' });
    let known = plain.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) && !plain.is_empty();
    if !known || regex_syntax::parse(&translated).is_err() {
        return refuse("invalid character class range", whole);
    }
    Ok(Some((translated, rest)))
}
