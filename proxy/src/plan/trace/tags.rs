//! The forms beside TraceQL: durations, and the `tags` of Tempo's older search.

use tricord_fragment::trace::{Comparison, Condition, Field, Operand};

use crate::error::Error;

/// A duration such as `1h30m`, `1.5s` or `100µs`, in nanoseconds.
#[must_use]
pub fn duration_ns(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 9] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("μs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
        ("d", 86_400e9),
    ];
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        sum += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty() && sum < 9.2e18).then(|| sum.round() as u64)
}

/// `key=value key="value with spaces"`, logfmt as Tempo's older search takes it.
///
/// # Errors
/// [`Error::BadData`] where a pair lacks its `=` or a quote is not closed.
pub fn legacy_tags(text: &str) -> Result<Vec<Condition>, Error> {
    let bad = |why: &str| Error::parameter("tags", why);
    let mut conditions = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, behind) =
            rest.split_once('=').ok_or_else(|| bad("write tags as key=value, separated by spaces"))?;
        let value;
        if let Some(quoted) = behind.strip_prefix('"') {
            let (inner, end) = unquote(quoted).ok_or_else(|| bad("a quote is not closed"))?;
            value = inner;
            rest = &quoted[end..];
        } else {
            let end = behind.find(char::is_whitespace).unwrap_or(behind.len());
            value = behind[..end].to_owned();
            rest = &behind[end..];
        }
        rest = rest.trim_start();
        conditions.push(condition(key.trim(), value));
        if conditions.len() > super::MAX_CONDITIONS {
            return Err(bad(&format!("there are more than {}", super::MAX_CONDITIONS)));
        }
    }
    Ok(conditions)
}

/// The text up to the closing quote, and where what follows begins.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, at + 1)),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

fn condition(key: &str, value: String) -> Condition {
    let field = match key {
        "name" => Field::Name,
        "status" | "status.code" => Field::Status,
        "root.name" | "rootName" => Field::RootName,
        "root.service.name" | "rootServiceName" => Field::RootServiceName,
        key => Field::Anywhere(key.to_owned()),
    };
    Condition { field, op: Comparison::Equal, value: Operand::Text(value) }
}
