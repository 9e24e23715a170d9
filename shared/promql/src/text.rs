//! Numbers and texts in the forms that Prometheus prints.

/// A text in double quotes with escapes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        return Some("NaN");
    }
    if value.is_infinite() { Some(if value > 0.0 { "+Inf" } else { "-Inf" }) } else { None }
}

/// Decimal notation without an exponent and with as many digits as tell the value from its neighbours.
pub(crate) fn float_f(value: f64) -> String {
    special(value).map_or_else(|| format!("{value}"), str::to_owned)
}

/// The shortest digits, with an exponent below 1e-04 and from 1e+06 on: Go's `%g`.
pub(crate) fn float_g(value: f64) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) { format!("{value}") } else { with_exponent(mantissa, exponent) }
}

fn with_exponent(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// Two significant digits.
pub(crate) fn float_g2(value: f64) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let scientific = format!("{value:.1e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
    if (-4..2).contains(&exponent) {
        let places = usize::try_from(1 - exponent).unwrap_or(0);
        let text = format!("{value:.places$}");
        return if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        };
    }
    with_exponent(mantissa, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_forms_of_go() {
        let cases = [
            (1.0, "1"),
            (0.1, "0.1"),
            (123_456_789.0, "1.23456789e+08"),
            (1e-7, "1e-07"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(float_g(value), text);
        }
        assert_eq!(float_f(1e21), "1000000000000000000000");
        assert_eq!((float_g2(0.012_345), float_g2(1234.0)), ("0.012".to_owned(), "1.2e+03".to_owned()));
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(quoted("a\"b\\\n\u{1}ü"), "\"a\\\"b\\\\\\n\\x01ü\"");
    }
}
