//! Tests of patterns that Go and `regex-syntax` read in different ways.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(pattern: &str, matching: &[&str], others: &[&str]) {
    let regex = compile_anchored(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    for text in matching {
        assert!(regex.is_match(text), "{pattern} should match {text:?}");
    }
    for text in others {
        assert!(!regex.is_match(text), "{pattern} should not match {text:?}");
    }
}

#[track_caller]
fn check_refused(pattern: &str, message: &str) {
    let error = compile_anchored(pattern).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), format!("error parsing regexp: {message}"), "{pattern}");
}

#[test]
fn classes_of_perl_are_ascii() {
    check(r"\d+", &["12"], &["٣", "1x"]);
    check(r"\w+", &["a_1"], &["ü"]);
    check(r"\W", &["ü", " "], &["a"]);
    check(r"[\d\s]+", &["1 2"], &["\u{a0}", "٣"]);
    check(r"[^\D]", &["1"], &["a"]);
    check(r"a\b.b", &["a b"], &["aüb_"]);
    check(r"ü\Bü", &["üü"], &[]);
    check(r"\pL\p{Greek}\P{Greek}\p{^Greek}", &["üαaa"], &["ü1aa"]);
    check("[[:alpha:][:^ascii:]]+", &["aü"], &["1"]);
}

#[test]
fn what_is_no_syntax_in_go_is_literal() {
    check("x{", &["x{"], &["x"]);
    check("x{,5}", &["x{,5}"], &["xx"]);
    check("x{1,a}", &["x{1,a}"], &[]);
    check("x{01}", &["x{01}"], &[]);
    check("[[]", &["["], &[]);
    check("[a&&b]+", &["a&b"], &[]);
    check("[--a]", &["-", "a", "Z"], &["b"]);
    check("[+--]", &["+", ",", "-"], &["."]);
    check("[~~a]", &["~", "a"], &[]);
    check("[]a]", &["]", "a"], &["b"]);
    check("[^]a]", &["b"], &["]", "a"]);
    check(r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]);
    check(r"\Q.*", &[".*"], &["x"]);
    check(r"\<\>\_\@", &["<>_@"], &[]);
    check(r"\101\x41\x{41}", &["AAA"], &[]);
    check("(?)a(?i-i:b)(?ii)c", &["abc", "abC"], &["aBc"]);
    check("(?<n>a)(?P<m>b)", &["ab"], &[]);
    check("a.b", &["a\nb"], &[]);
    check("a b#c", &["a b#c"], &[]);
    check("", &[""], &["a"]);
    check("^a$|", &["a", ""], &["b"]);
}

#[test]
fn refusals_are_worded_as_in_go() {
    check_refused("(", "missing closing ): `(`");
    check_refused("a(b|c", "missing closing ): `a(b|c`");
    check_refused("a)(b", "unexpected ): `a)(b`");
    check_refused("*a", "missing argument to repetition operator: `*`");
    check_refused("a|+?", "missing argument to repetition operator: `+?`");
    check_refused("(?:{2})", "missing argument to repetition operator: `{2}`");
    check_refused("a**", "invalid nested repetition operator: `**`");
    check_refused("a+?{2}b", "invalid nested repetition operator: `+?{2}`");
    check_refused("a{2,1}", "invalid repeat count: `{2,1}`");
    check_refused("a{1001}", "invalid repeat count: `{1001}`");
    check_refused("[a", "missing closing ]: `[a`");
    check_refused("x[^", "missing closing ]: `[^`");
    check_refused("[z-a]", "invalid character class range: `z-a`");
    check_refused("[a--]", "invalid character class range: `a--`");
    check_refused("[[:wrong:]]", "invalid character class range: `[:wrong:]`");
    check_refused(r"\p{Wrong}", r"invalid character class range: `\p{Wrong}`");
    check_refused(r"\1", r"invalid escape sequence: `\1`");
    check_refused(r"\y", r"invalid escape sequence: `\y`");
    check_refused(r"\8", r"invalid escape sequence: `\8`");
    check_refused(r"\xg1", r"invalid escape sequence: `\xg1`");
    check_refused(r"\x{110000}", r"invalid escape sequence: `\x{110000`");
    check_refused(r"a\", "trailing backslash at end of expression: ``");
    check_refused("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    check_refused("(?x)a", "invalid or unsupported Perl syntax: `(?x`");
    check_refused("(?i", "missing closing ): `(?i`");
    check_refused("(?P<a", "invalid named capture: `(?P<a`");
    check_refused("(?P<a-b>c)", "invalid named capture: `(?P<a-b>`");
}

proptest! {
    #[test]
    fn a_quoted_text_matches_itself_alone(text in "\\PC{0,20}", other in "\\PC{0,4}") {
        let escaped: String = text.chars().map(|c| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() }).collect();
        let regex = compile_anchored(&escaped).unwrap();
        prop_assert!(regex.is_match(text.as_str()));
        prop_assert_eq!(regex.is_match(other.as_str()), other == text);
    }

    #[test]
    fn no_pattern_panics(pattern in r"[\\\[\](){}^$.*+?|abd019:,<>P=!i-]{0,16}") {
        let _ = compile_anchored(&pattern);
    }
}
