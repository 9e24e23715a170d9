//! Numbers, durations and strings: from their text to their value.

use super::{Parsed, Parser};
use crate::ast::{NumberLiteral, Pos};
use crate::format::text::quote;
use crate::lexer::{Kind, Token};

impl Parser<'_> {
    /// Takes a number or a duration, which must be at hand.
    pub(super) fn number_literal(&mut self) -> Parsed<(NumberLiteral, Pos)> {
        let token = self.bump();
        let text = self.text(token.pos);
        let duration = token.kind == Kind::Duration;
        let value = if duration { duration_ms(text).map(|ms| ms as f64 / 1000.0) } else { number(text) };
        match value {
            Ok(value) => Ok((NumberLiteral { value, duration }, token.pos)),
            Err(message) => Err(self.error(token.pos, message)),
        }
    }

    /// The value of a string token. One that is not UTF-8 is noted, to be refused when its use is known.
    pub(super) fn unquote(&mut self, token: Token) -> String {
        let text = self.text(token.pos);
        match String::from_utf8(unquote(text)) {
            Ok(value) => value,
            Err(invalid) => {
                self.invalid_strings.push((token.pos, quote_bytes(invalid.as_bytes())));
                String::from_utf8_lossy(invalid.as_bytes()).into_owned()
            }
        }
    }
}

/// A number in the notations of Go: decimal, octal with a leading zero, hexadecimal, floats, `Inf` and `NaN`.
fn number(text: &str) -> Result<f64, String> {
    let wrong =
        |why: &str| format!("error parsing number: strconv.ParseFloat: parsing {}: {why}", quote(text));
    if !underscores_separate_digits(text) {
        return Err(wrong("invalid syntax"));
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let lower = plain.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).map(|n| n as f64).map_err(|_| wrong("invalid syntax"));
    }
    if lower.len() > 1
        && lower.starts_with('0')
        && let Ok(octal) = i64::from_str_radix(&lower, 8)
    {
        return Ok(octal as f64);
    }
    if let Ok(integer) = lower.parse::<i64>() {
        return Ok(integer as f64);
    }
    match lower.parse::<f64>() {
        Ok(value) if value.is_infinite() && lower != "inf" => Err(wrong("value out of range")),
        Ok(value) => Ok(value),
        Err(_) => Err(wrong("invalid syntax")),
    }
}

/// Whether each underscore stands between digits, or between the prefix `0x` and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let hex = text.len() > 2 && text[..2].eq_ignore_ascii_case("0x");
    let digit =
        |b: Option<&u8>| b.is_some_and(|b| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() });
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|(_, b)| **b == b'_').all(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        digit(bytes.get(at + 1)) && (digit(before) || (hex && at == 2))
    })
}

/// The milliseconds of a duration such as `1h30m`.
fn duration_ms(text: &str) -> Result<u64, String> {
    const DAY: u64 = 86_400_000;
    let units = [
        ("y", 365 * DAY),
        ("w", 7 * DAY),
        ("d", DAY),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let mut rest = text;
    let mut total = 0u64;
    let mut allowed = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[digits..digits + letters];
        if digits > 0 && units.iter().all(|(name, _)| *name != unit) {
            return Err(format!("unknown unit {} in duration {}", quote(unit), quote(text)));
        }
        // Each unit once, the longer ones first.
        let place = units.iter().position(|(name, _)| *name == unit).filter(|place| *place >= allowed);
        let (Some(place), true) = (place, digits > 0) else { return Err(invalid()) };
        let (_, length) = units[place];
        let count: Option<u64> = rest[..digits].parse().ok();
        total = count
            .and_then(|count| count.checked_mul(length))
            .and_then(|ms| total.checked_add(ms))
            // Prometheus counts nanoseconds in 63 bits.
            .filter(|ms| *ms <= i64::MAX as u64 / 1_000_000)
            .ok_or_else(|| "duration out of range".to_owned())?;
        allowed = place + 1;
        rest = &rest[digits + letters..];
    }
    Ok(total)
}

/// The bytes of a quoted string whose escapes the lexer has checked.
fn unquote(text: &str) -> Vec<u8> {
    let mut chars = text.chars();
    let quote = chars.next();
    chars.next_back();
    let inner = chars.as_str();
    if quote == Some('`') {
        // Go drops carriage returns from raw strings.
        return inner.bytes().filter(|b| *b != b'\r').collect();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    let mut buffer = [0; 4];
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let Some(escaped) = chars.next() else { break };
        let (digits, base) = match escaped {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (2, 8),
            _ => {
                out.push(plain_escape(escaped));
                continue;
            }
        };
        let mut value = escaped.to_digit(8).filter(|_| base == 8).unwrap_or(0);
        for digit in chars.by_ref().take(digits) {
            value = value.wrapping_mul(base).wrapping_add(digit.to_digit(base).unwrap_or(0));
        }
        match escaped {
            'u' | 'U' => {
                let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            }
            _ => out.push(value as u8),
        }
    }
    out
}

fn plain_escape(escaped: char) -> u8 {
    match escaped {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        // A backslash or a quote.
        other => other as u8,
    }
}

/// Bytes in double quotes, those that are not UTF-8 as `\x…`.
fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let valid = quote(chunk.valid());
        out.push_str(&valid[1..valid.len() - 1]);
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}
