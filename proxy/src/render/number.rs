//! Numbers in the form of Go's strconv, as Prometheus' JSON has them.

use std::io::Write as _;

/// Integers below this are exact, and are written as integers.
const MAX_PLAIN_INTEGER: f64 = 9_007_199_254_740_992.0;

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
    if value.fract() == 0.0 && magnitude < MAX_PLAIN_INTEGER && value != 0.0 {
        return out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    }
    if value == 0.0 {
        return out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    }
    // Of two shortest texts that are equally near, Go takes the even one; so does this, unlike Rust's Display.
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (1e-6..1e21).contains(&magnitude) {
        return write_plain(out, mantissa, exponent);
    }
    out.extend_from_slice(mantissa.strip_suffix(".0").unwrap_or(mantissa).as_bytes());
    // Go writes at least two digits of exponent.
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
}

/// Appends a number with one digit before its point, times a power of ten, without an exponent.
fn write_plain(out: &mut Vec<u8>, mantissa: &str, exponent: i32) {
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = if fraction == "0" { "" } else { fraction };
    out.extend_from_slice(sign.as_bytes());
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
        out.extend_from_slice(whole.as_bytes());
        return out.extend_from_slice(fraction.as_bytes());
    }
    let shift = exponent.unsigned_abs() as usize;
    out.extend_from_slice(whole.as_bytes());
    let (before, after) = fraction.split_at(shift.min(fraction.len()));
    out.extend_from_slice(before.as_bytes());
    out.extend(std::iter::repeat_n(b'0', shift - before.len()));
    if !after.is_empty() {
        out.push(b'.');
        out.extend_from_slice(after.as_bytes());
    }
}

/// Appends a time in milliseconds as seconds: `1.5` s is `1.500`, whole seconds have no fraction.
pub(super) fn write_timestamp(out: &mut Vec<u8>, t_ms: i64) {
    if t_ms < 0 {
        out.push(b'-');
    }
    let magnitude = t_ms.unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(magnitude / 1000).as_bytes());
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
    fn of_equally_near_texts_the_even_one_is_written() {
        check(f64::from_bits(0x3fef_1e90_0000_0000), "0.9724807739257812");
        check(f64::from_bits(0x3fe1_6c10_0000_0000), "0.5444412231445312");
    }

    #[test]
    fn any_number_is_short_and_reads_back() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..100_000 {
            let bits = next();
            let scale = 10f64.powi((next() % 34) as i32 - 10);
            let values = [f64::from_bits(bits), (bits % 1_000_000) as f64 * scale, bits as i64 as f64 / 1e3];
            for value in values.into_iter().filter(|value| value.is_finite()) {
                let mut out = Vec::new();
                write_float(&mut out, value);
                let text = String::from_utf8(out).unwrap();
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
                let magnitude = value.abs();
                if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
                    assert_eq!(text.len(), value.to_string().len(), "{text} is not the shortest of {value}");
                }
            }
        }
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
