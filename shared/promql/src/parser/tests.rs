//! Tests of the parser: shapes by their printed form, errors by their text.

use super::*;

/// The printed form of what a query parses to, or the error's text.
#[track_caller]
fn check(query: &str, expected: &str) {
    let found = match parse(query, &ParserOptions::default()) {
        Ok(expr) => expr.to_string(),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected, "{query}");
}

#[test]
fn numbers_in_all_notations() {
    check("1_000", "1000");
    check("0x1F", "31");
    check("0x_1f", "31");
    check("017", "15");
    check("089", "89");
    check("1e-3", "0.001");
    check(".5", "0.5");
    check("5.", "5");
    check("+Inf", "+Inf");
    check("-iNf", "-Inf");
    check("nan", "NaN");
    check("1_000.5", "1000.5");
    check("5m", "5m");
    check("-1h30m", "-1h30m");
    check("1e999", "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"1e999\": value out of range");
    check("1__0", "1:1: parse error: bad number or duration syntax: \"1__\"");
    check("1m1h", "1:1: parse error: not a valid duration string: \"1m1h\"");
}
