//! Texts of single values in query syntax: strings, floats, durations, label names.

use std::fmt::Write as _;

/// A string in double quotes, with the escapes of Go.
#[must_use]
pub fn quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        if c == '"' {
            out.push_str("\\\"");
        } else {
            push_escaped(&mut out, c);
        }
    }
    out.push('"');
    out
}

/// A character in single quotes, as error texts show it.
pub(crate) fn quote_char(c: char) -> String {
    let mut out = String::from("'");
    if c == '\'' {
        out.push_str("\\'");
    } else {
        push_escaped(&mut out, c);
    }
    out.push('\'');
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        ' '..='~' => out.push(c),
        _ if is_printable(c) => out.push(c),
        // Writing to a String cannot fail.
        _ if (c as u32) < 0x80 => {
            let _ = write!(out, "\\x{:02x}", c as u32);
        }
        _ if (c as u32) < 0x1_0000 => {
            let _ = write!(out, "\\u{:04x}", c as u32);
        }
        _ => {
            let _ = write!(out, "\\U{:08x}", c as u32);
        }
    }
}

/// Whether a character is shown as it is. A letter stands in front, as a combining mark is only escaped at the start.
fn is_printable(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().count() == 2
}

/// A float without an exponent: the shortest digits that give the same float back.
pub(crate) fn float(value: f64) -> String {
    match special(value) {
        Some(text) => text.to_owned(),
        None => format!("{value}"),
    }
}

/// A float with an exponent where it is very small or very large, as Go prints it by default.
pub(crate) fn short_float(value: f64) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// A duration in milliseconds, such as `1h30m`; years and weeks only where nothing is left over.
pub(crate) fn duration(ms: i64) -> String {
    let mut left = ms.unsigned_abs();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    const DAY: u64 = 86_400_000;
    let units = [
        ("y", 365 * DAY, true),
        ("w", 7 * DAY, true),
        ("d", DAY, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1000, false),
        ("ms", 1, false),
    ];
    for (unit, length, exact) in units {
        if exact && !left.is_multiple_of(length) {
            continue;
        }
        let count = left / length;
        if count > 0 {
            let _ = write!(out, "{count}{unit}");
            left %= length;
        }
    }
    out
}

/// Whether a label name needs no quotes.
pub(crate) fn is_plain_label(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// Whether a metric name needs no quotes; a keyword may still be misread, see the printer of selectors.
pub(crate) fn is_plain_metric(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c == ':' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c == ':' || c.is_ascii_alphanumeric())
}

/// A label name, quoted where it must be.
pub(crate) fn label(name: &str) -> String {
    if is_plain_label(name) { name.to_owned() } else { quote(name) }
}

/// A label name in a list of labels, where some words are numbers, and one may not stand.
pub(crate) fn listed_label(name: &str) -> String {
    let is_special = ["inf", "nan", "without"].iter().any(|word| name.eq_ignore_ascii_case(word));
    if is_special { quote(name) } else { label(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_upstream() {
        let minute = 60_000;
        for (ms, expected) in [
            (0, "0s"),
            (90 * minute, "1h30m"),
            (90 * 24 * 60 * minute, "90d"),
            (14 * 24 * 60 * minute, "2w"),
            (365 * 24 * 60 * minute, "1y"),
            (-1500, "-1s500ms"),
        ] {
            assert_eq!(duration(ms), expected);
        }
    }

    #[test]
    fn strings_use_the_escapes_of_go() {
        assert_eq!(quote("a\"\\\n\u{1}é\u{7f}"), r#""a\"\\\n\x01é\x7f""#);
        assert_eq!(quote("\u{a0}"), r#""\u00a0""#);
        assert_eq!(quote_char('\''), r"'\''");
    }

    #[test]
    fn floats_keep_their_value() {
        assert_eq!(float(-0.0), "-0");
        assert_eq!(float(f64::INFINITY), "+Inf");
        assert_eq!(float(1e21), "1000000000000000000000");
        assert_eq!(short_float(1e21), "1e+21");
        assert_eq!(short_float(1.5e-7), "1.5e-07");
        assert_eq!(short_float(23.0), "23");
    }
}
