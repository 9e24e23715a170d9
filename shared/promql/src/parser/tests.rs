//! Tests of the parser: shapes by their printed form, errors by their text, and the upstream cases as a corpus.

use super::*;
use proptest::prelude::*;

/// The printed form of what a query parses to, or the error's text.
#[track_caller]
fn check(query: &str, expected: &str) {
    let found = match parse(query, &ParserOptions::default()) {
        Ok(expr) => {
            let printed = expr.to_string();
            assert_eq!(parse(&printed, &ParserOptions::default()).as_ref(), Ok(&expr), "{printed}");
            printed
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected, "{query}");
}

/// As [`check`], with one part of the language switched off.
#[track_caller]
fn check_without(options: ParserOptions, query: &str, expected: &str) {
    assert_eq!(parse(query, &options).map_err(|e| e.to_string()), Err(expected.to_owned()));
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
    check(
        "1e999",
        "1:1: parse error: error parsing number: strconv.ParseFloat: parsing \"1e999\": value out of range",
    );
    check("1__0", "1:1: parse error: bad number or duration syntax: \"1__\"");
    check("5y1hs", "1:1: parse error: unknown unit \"hs\" in duration \"5y1hs\"");
    check("1m1h", "1:1: parse error: not a valid duration string: \"1m1h\"");
    check("2foo", "1:1: parse error: bad number or duration syntax: \"2\"");
}

#[test]
fn strings_in_all_notations() {
    check(r#""a\tb\x41\u00e9\U0001F600\101""#, "\"a\\tbAé😀A\"");
    check(r"'it\'s \\'", r#""it's \\""#);
    check(r"`raw \n`", r#""raw \\n""#);
    check(r#""\q""#, "1:1: parse error: unknown escape sequence U+0071 'q'");
    check(r#""\xzz""#, "1:1: parse error: illegal character U+007A 'z' in escape sequence");
    check(r#""\ud800""#, "1:1: parse error: escape sequence is an invalid Unicode code point");
    check("\"a", "1:1: parse error: unterminated quoted string");
    check("`a", "1:1: parse error: unterminated raw string");
    check(r#""\xff""#, "1:1: parse error: invalid UTF-8 in string \"\\xff\"");
    check(r#"label_replace(m, "a\xc5z", "", "b", "")"#, "1:18: parse error: invalid label name \"a\\xc5z\"");
}

#[test]
fn operators_bind_as_upstream() {
    // Redundant parentheses stay, so grouping shows where a tree is printed without them.
    let grouped = |query: &str| {
        fn show(expr: &Expr) -> String {
            match &expr.kind {
                ExprKind::Binary(b) => format!("[{} {} {}]", show(&b.lhs), b.op.as_str(), show(&b.rhs)),
                ExprKind::Unary(op, inner) => format!("{}[{}]", op.as_str(), show(inner)),
                _ => expr.to_string(),
            }
        }
        show(&parse(query, &ParserOptions::default()).unwrap())
    };
    assert_eq!(grouped("a + b * c ^ d ^ e"), "[a + [b * [c ^ [d ^ e]]]]");
    assert_eq!(grouped("a - b - c"), "[[a - b] - c]");
    assert_eq!(grouped("-a ^ 2 * b"), "[-[[a ^ 2]] * b]");
    assert_eq!(grouped("-1 ^ 2"), "-[[1 ^ 2]]");
    assert_eq!(grouped("2 ^ -a * 3"), "[[2 ^ -[a]] * 3]");
    assert_eq!(grouped("a or b and c unless d"), "[a or [[b and c] unless d]]");
    assert_eq!(grouped("a > b + c and d"), "[[a > [b + c]] and d]");
    assert_eq!(grouped("a atan2 b % c"), "[[a atan2 b] % c]");
    assert_eq!(grouped("a </ 2 + 3 >/ 1"), "[[a </ [2 + 3]] >/ 1]");
}

#[test]
fn selectors_and_quoted_names() {
    check("m{}", "m");
    check(
        r#"{"my.metric", "label.name"='x', b!="", a=~"y.*"}"#,
        r#"{"label.name"="x",__name__="my.metric",a=~"y.*",b!=""}"#,
    );
    check("sum + on + bool", "1:10: parse error: unexpected <op:+> in grouping opts, expected \"(\"");
    check("sum{on='x', by!~'y'}", r#"sum{by!~"y",on="x"}"#);
    check("offset offset 5m", "offset offset 5m");
    check("fill + fill_left", "fill + fill_left");
    check("a:b{}[5m]", "a:b[5m]");
    check("step / range", "step / range");
    check("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher");
    check("{a=~'.*'}", "1:1: parse error: vector selector must contain at least one non-empty matcher");
    check("m{__name__='n'}", "1:1: parse error: metric name must not be set twice: \"m\" or \"n\"");
    check("m{a}", "1:4: parse error: unexpected \"}\" in label matching, expected label matching operator");
    check("m{a=b}", "1:5: parse error: unexpected identifier \"b\" in label matching, expected string");
    check("m{,}", "1:3: parse error: unexpected \",\" in label matching, expected identifier or \"}\"");
    check(
        "m{a='b' c='d'}",
        "1:9: parse error: unexpected identifier \"c\" in label matching, expected \",\" or \"}\"",
    );
    check("m{a=\"b\"", "1:8: parse error: unexpected end of input inside braces");
    check("m{ # the job\n a='b', # and\n# the rest\n c='#' }", r##"m{a="b",c="#"}"##);
    check(
        "sum by (on, without) (m)",
        "1:13: parse error: unexpected <without> in grouping opts, expected label",
    );
    check("sum()", "1:1: parse error: no arguments for aggregate expression provided");
    check("sum())", "1:7: parse error: unexpected right parenthesis ')'");
    check("m{#}", "1:5: parse error: unexpected end of input inside braces");
    check("m{a=~'('}", "1:3: parse error: error parsing regexp: missing closing ): `(`");
    assert_eq!(parse_selector("up{job='x'}").unwrap().len(), 2);
    assert!(parse_selector("up[5m]").is_err());
}

#[test]
fn modifiers_of_selectors() {
    check("m offset -1w @ 1.5", "m @ 1.500 offset -1w");
    check("m[90s] @ start() offset 5", "m[1m30s] @ start() offset 5s");
    check("m[5m] smoothed", "m[5m] smoothed");
    check("m anchored [5m]", "m[5m] anchored");
    check("x[1h:] @ end()", "x[1h:] @ end()");
    check("m @ 9007199254740993.123", "m @ 9007199254740993.123");
    check("m @ 1e3", "m @ 1000.000");
    check("m offset 274666436.696", "m offset 3179d13m56s696ms");
    check("m offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times");
    check("m @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times");
    check("m offset 1m [5m]", "1:13: parse error: no offset modifiers allowed before range");
    check("m @ 1 [5m]", "1:7: parse error: no @ modifiers allowed before range");
    check("sum(m)[5m]", "1:7: parse error: ranges only allowed for vector selectors");
    check(
        "1 offset 1m",
        "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    );
    check("m @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf");
    check("m @ b", "1:5: parse error: unexpected identifier \"b\" in @, expected timestamp");
    check(
        "m offset b",
        "1:10: parse error: unexpected identifier \"b\" in offset, expected number, duration, step(), or range()",
    );
    check("m[5m:1m] anchored", "1:1: parse error: anchored modifier is not supported for subqueries");
    check("m anchored smoothed", "1:1: parse error: anchored and smoothed modifiers cannot be used together");
}

#[test]
fn durations_are_expressions() {
    check("m[5m+1m]", "m[5m + 1m]");
    check("m[60*30]", "m[60 * 30]");
    check("m[-(Step()-5)*2 : min_of(range(), 1h)]", "m[-(step() - 5) * 2:min_of(range(), 1h)]");
    check("m offset (100 + 2)", "m offset (100 + 2)");
    check("m offset 100 + 2", "m offset 1m40s + 2");
    check("m offset -2 ^ 2", "m offset -2s ^ 2");
    check("m offset max_of(1m,2m) + 8", "m offset max_of(1m, 2m) + 8");
    check("m offset -(min_of(step(), 2s)-5)+8000", "m offset -(min_of(step(), 2s) - 5) + 8000");
    check("m offset (1m) + 2", "m offset (1m) + 2");
    check("m offset (1m) + n", "m offset +(1m) + n");
    check("m offset (1m) > n", "m offset (1m) > n");
    check("(m offset (1m)) + 2", "(m offset (1m)) + 2");
    check("m[0]", "1:3: parse error: duration must be greater than 0");
    check("m[5m/0]", "1:5: parse error: division by zero");
    check(
        "m[]",
        "1:3: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
    );
    check("m[5m", "1:5: parse error: unclosed left bracket");
    check("a/on(b)group_left", "1:18: parse error: unexpected end of input in grouping opts, expected \"(\"");
    check("a/on(b)group_left]", "1:18: parse error: unexpected right bracket ']'");
    check("a/on(b)group_left*c", "1:18: parse error: unexpected <op:*> in grouping opts, expected \"(\"");
    check("a/on(b)group_left-c", "a / on (b) group_left () -c");
    check(
        "a/on(b)group_left group_left",
        "1:19: parse error: unexpected <group_left> in grouping opts, expected \"(\"",
    );
    check("a/on(b)group_left by", "a / on (b) group_left () by");
    check("m[", "1:3: parse error: unexpected end of input in duration expression");
    check(
        "m[5m 3m]",
        "1:6: parse error: unexpected duration \"3m\" in subquery or range, expected \":\" or \"]\"",
    );
    check("m[5m:1m 3m]", "1:9: parse error: unexpected duration \"3m\" in subquery selector, expected \"]\"");
    check("m[5mx]", "1:3: parse error: bad number or duration syntax: \"5mx\"");
    check("m[5m + a]", "1:8: parse error: unexpected character: 'a', expected ':'");
    check("m[5m # why\n + 1m]", "m[5m + 1m]");
    check("m[5m`]", "1:5: parse error: unterminated raw string");
    check("m[5m:1m:1m]", "1:8: parse error: unexpected colon ':'");
    check("m[5m[1m]]", "1:5: parse error: unexpected left bracket '['");
    check("m[:5m]", "1:4: parse error: unexpected colon before duration in duration expression");
    check("m[$]", "1:3: parse error: unexpected character in duration expression: '$'");
}

#[test]
fn aggregations_and_calls() {
    check("sum(m) by (a, \"b.c\")", "sum by (a, \"b.c\") (m)");
    check("sum by () (m)", "sum(m)");
    check("sum without () (m)", "sum without () (m)");
    check("topk by (on, bool,) (3, m)", "topk by (on, bool) (3, m)");
    check("count_values('v', m)", "count_values(\"v\", m)");
    check("STEP()", "step()");
    check(
        "sum(m, n)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 1, got 2",
    );
    check("sum()", "1:1: parse error: no arguments for aggregate expression provided");
    check("sum by (a) m", "1:12: parse error: unexpected identifier \"m\" in aggregation");
    check("sum(m n)", "1:7: parse error: unexpected identifier \"n\" in aggregation");
    check("sum m", "1:5: parse error: unexpected identifier \"m\"");
    check("sum by a (m)", "1:8: parse error: unexpected identifier \"a\" in grouping opts, expected \"(\"");
    check("sum by (5) (m)", "1:9: parse error: unexpected number \"5\" in grouping opts, expected label");
    check(
        "sum(m) by (a b)",
        "1:14: parse error: unexpected identifier \"b\" in grouping opts, expected \",\" or \")\"",
    );
    check("topk('a', m)", "1:6: parse error: expected type scalar in aggregation parameter, got string");
    check(
        "sum(m[5m])",
        "1:5: parse error: expected type instant vector in aggregation expression, got range vector",
    );
    check("foo(m)", "1:1: parse error: unknown function with name \"foo\"");
    check("RATE(m[5m])", "1:1: parse error: unknown function with name \"RATE\"");
    check(
        "rate(m)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    check("floor()", "1:1: parse error: expected 1 argument(s) in call to \"floor\", got 0");
    check("round(m, 1, 2)", "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3");
    check(
        "label_join(m)",
        "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 1",
    );
    check("floor(m,[5m])", "1:8: parse error: trailing commas not allowed in function call args");
    check("floor(m,$", "1:9: parse error: unexpected character: '$'");
    check("floor(m,)", "1:8: parse error: trailing commas not allowed in function call args");
    check("info(m, {})", "info(m, {})");
    check("info(m, n)", "1:9: parse error: expected label selectors only, got vector selector instead");
}

#[test]
fn matching_of_binary_operators() {
    check("a == bool on (x) group_left (y) b", "a == bool on (x) group_left (y) b");
    check("a + ignoring(x) group_right b", "a + ignoring (x) group_right () b");
    check("a + fill(0) b", "a + fill (0) b");
    check("a + on(x) fill_right(-1) fill_left(NaN) b", "a + on (x) fill_left (NaN) fill_right (-1) b");
    check("a and on() b", "a and on () b");
    check("1 + bool 2", "1:3: parse error: bool modifier can only be used on comparison operators");
    check("1 == 2", "1:3: parse error: comparisons between scalars must use BOOL modifier");
    check("a and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression");
    check("a + on(x) 1", "1:1: parse error: vector matching only allowed between instant vectors");
    check("a or on(x) group_left b", "1:1: parse error: no grouping allowed for \"or\" operation");
    check("a or fill(0) b", "1:1: parse error: filling in missing series not allowed for set operators");
    check(
        "a * on(x) group_left(x) b",
        "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once",
    );
    check(
        "a + b[5m]",
        "1:5: parse error: binary expression must contain only scalar and instant vector types",
    );
    check("a + group_left(x) b", "1:5: parse error: unexpected <group_left>");
    check(
        "-m[5m]",
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
    );
    check(
        "m[5m:1m][5m:1m]",
        "1:1: parse error: subquery is only allowed on instant vector, got matrix instead",
    );
}

#[test]
fn positions_count_lines_and_bytes() {
    check("", "unknown position: parse error: no expression found in input");
    check(" # only a comment", "1:1: parse error: no expression found in input");
    check("a +\n  # note\n  )", "3:4: parse error: unexpected right parenthesis ')'");
    check("(a", "1:3: parse error: unclosed left parenthesis");
    check("a = b", "1:3: parse error: unexpected \"=\"");
    check("a =~ b", "1:3: parse error: unexpected character after '=': '~'");
    check("a ! b", "1:3: parse error: unexpected character after '!': ' '");
    check("1 /", "1:4: parse error: unexpected end of input");
    check("*1", "1:1: parse error: unexpected <op:*>");
    check("a $ b", "1:3: parse error: unexpected character: '$'");
    check("'éé' é", "1:8: parse error: unexpected character: 'é'");
    check("a 'a long string'", "1:3: parse error: unexpected string \"'a long st\"...");
}

#[test]
fn parts_of_the_language_can_be_switched_off() {
    let all = ParserOptions::default();
    let off = ParserOptions { experimental_functions: false, ..all };
    check_without(off, "mad_over_time(m[5m])", "1:1: parse error: function \"mad_over_time\" is not enabled");
    check_without(
        off,
        "limitk(2, m)",
        "1:1: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
    );
    let off = ParserOptions { duration_expressions: false, ..all };
    check_without(off, "m[1m+1m]", "1:3: parse error: experimental duration expression is not enabled");
    let off = ParserOptions { extended_range_modifiers: false, ..all };
    check_without(
        off,
        "m[1m] smoothed",
        "1:1: parse error: smoothed modifier is experimental and not enabled",
    );
    let off = ParserOptions { binop_fill: false, ..all };
    check_without(
        off,
        "a + fill(1) b",
        "1:1: parse error: binop fill modifiers are experimental and not enabled",
    );
}

#[test]
fn depth_and_size_are_bounded() {
    let too_deep = |query: &str| parse(query, &ParserOptions::default()).unwrap_err().message;
    assert!(
        too_deep(&"(".repeat(100_000)).contains("nested too deeply")
            || too_deep(&"(".repeat(100_000)).contains("unclosed")
    );
    assert!(too_deep(&"-".repeat(100_000)).contains("nested too deeply"));
    assert!(too_deep(&"2^".repeat(100_000)).contains("nested too deeply"));
    assert!(too_deep(&format!("a{}", "+a".repeat(100_000))).contains("too many levels"));
    assert!(too_deep(&format!("m{}", "[1m:1m]".repeat(100_000))).contains("too many levels"));
    assert!(too_deep(&format!("m[1{}]", "+1".repeat(100_000))).contains("too many operators"));
    assert!(too_deep(&format!("m[{}]", "(".repeat(100_000))).contains("nested too deeply"));
    assert!(too_deep(&"a".repeat(MAX_QUERY_BYTES + 1)).contains("longer than"));
    assert!(parse(&format!("a{}", " or a".repeat(500)), &ParserOptions::default()).is_ok());
}

/// The queries of the upstream cases, each with whether it is expected to fail. Empty where the cases are not at hand.
fn corpus() -> Vec<(String, bool)> {
    let beside =
        || std::env::var("CARGO_MANIFEST_DIR").map(|crate_dir| crate_dir + "/../../../shared/promqltest");
    let folder = std::env::var("PROMQLTEST_DIR").or_else(|_| beside()).unwrap();
    let mut queries = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "test") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let lines: Vec<_> = text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let Some(query) = query_of(line) else { continue };
                let below = lines[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t']));
                let fails = line.starts_with("eval_fail")
                    || below.clone().any(|line| line.trim_start().starts_with("expect fail"));
                queries.push((query.to_owned(), fails));
            }
        }
    }
    if queries.is_empty() {
        eprintln!("no upstream cases found, set PROMQLTEST_DIR to their folder");
    }
    queries
}

/// The query of a line such as `eval instant at 5m sum(x)` or `eval range from 0 to 1h step 5m x`.
fn query_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("eval")?;
    let (_, rest) = rest.split_once(' ')?;
    let words = if rest.starts_with("instant") { 3 } else { 7 };
    let mut rest = rest.trim_start();
    for _ in 0..words {
        rest = rest.split_once(char::is_whitespace)?.1.trim_start();
    }
    Some(rest)
}

#[test]
fn upstream_cases_parse_and_print_losslessly() {
    let options = ParserOptions::default();
    let (mut parsed, mut compared) = (0, 0);
    for (query, fails) in corpus() {
        let expr = match parse(&query, &options) {
            Ok(expr) => expr,
            Err(_) if fails => continue,
            Err(error) => panic!("{query}\n{error}"),
        };
        parsed += 1;
        let printed = expr.to_string();
        assert_eq!(parse(&printed, &options).as_ref(), Ok(&expr), "{query}\n{printed}");
        let pretty = crate::format::pretty(&expr);
        assert_eq!(parse(&pretty, &options).as_ref(), Ok(&expr), "{query}\n{pretty}");
        compared += usize::from(agrees_with_peer(&query, &expr));
    }
    eprintln!("{parsed} upstream queries parsed, {compared} compared with promql-parser");
}

/// Whether the other parser reads the query; where it does, both print the same.
#[track_caller]
fn agrees_with_peer(query: &str, expr: &Expr) -> bool {
    let Ok(theirs) = promql_parser::parser::parse(query) else { return false };
    // Both printed forms are read again by both: it prints some floats and matchers in another way.
    let Ok(printed) = promql_parser::parser::parse(&expr.to_string()) else { return false };
    assert_eq!(printed.to_string(), theirs.to_string(), "{query}");
    true
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        let _ = parse(&text, &ParserOptions::default());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = parse(&String::from_utf8_lossy(&bytes), &ParserOptions::default());
    }

    #[test]
    fn no_sequence_of_words_makes_the_parser_panic(words in proptest::collection::vec(word(), 0..30)) {
        let text = words.join(" ");
        if let Ok(expr) = parse(&text, &ParserOptions::default()) {
            let printed = expr.to_string();
            prop_assert_eq!(parse(&printed, &ParserOptions::default()), Ok(expr.clone()), "{}", printed);
            prop_assert!(crate::json::to_json(&expr).is_object());
        }
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "a",
        "b",
        "sum",
        "rate",
        "by",
        "on",
        "(",
        ")",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "[5m]",
        "[1h:5m]",
        "offset",
        "1m",
        "@",
        "5",
        "-",
        "+",
        "*",
        "^",
        "==",
        "bool",
        "and",
        "or",
        "unless",
        "group_left",
        "ignoring",
        "'x'",
        "\"\\",
        "=",
        "=~",
        ",",
        ":",
        "fill",
        "step()",
        "min_of",
        "anchored",
        "#",
        "\n",
        "a{b='c'}",
        "1_0",
        "0x",
        "NaN",
        "</",
        ">/",
        "atan2",
        "topk",
        "start()",
    ])
}
