//! Numbers in the form of Go's strconv, as Prometheus' JSON has them.

use std::io::Write as _;

/// Appends a float without quotes: the shortest decimal text that reads back to the same bits, with an exponent below
/// 1e-6 and from 1e21 on; `+Inf`, `-Inf`, `NaN`.
pub(super) fn write_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        // Rust's Display is the shortest round-trip text without an exponent, as Go's 'f' with precision -1.
        let _ = write!(out, "{value}");
        return;
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    // Go writes at least two digits of exponent.
    let _ = write!(out, "{mantissa}e{sign}{digits:0>2}");
}

/// Appends a time in milliseconds as seconds: `1.5` s is `1.500`, whole seconds have no fraction.
pub(super) fn write_timestamp(out: &mut Vec<u8>, t_ms: i64) {
    if t_ms < 0 {
        out.push(b'-');
    }
    let magnitude = t_ms.unsigned_abs();
    let _ = write!(out, "{}", magnitude / 1000);
    if !magnitude.is_multiple_of(1000) {
        let _ = write!(out, ".{:03}", magnitude % 1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f64, expected: &str) {
        let mut out = Vec::new();
        write_float(&mut out, value);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn floats_are_as_go_writes_them() {
        check(0.0, "0");
        check(-0.0, "-0");
        check(1.0, "1");
        check(0.1 + 0.2, "0.30000000000000004");
        check(1e-6, "0.000001");
        check(9.99e-7, "9.99e-07");
        check(5e-324, "5e-324");
        check(1e20, "100000000000000000000");
        check(1e21, "1e+21");
        check(-1.5e300, "-1.5e+300");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
        check(f64::NAN, "NaN");
    }

    #[test]
    fn timestamps_have_milliseconds_only_where_needed() {
        for (t_ms, expected) in
            [(0, "0"), (1500, "1.500"), (-5, "-0.005"), (1_700_000_000_012, "1700000000.012")]
        {
            let mut out = Vec::new();
            write_timestamp(&mut out, t_ms);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
