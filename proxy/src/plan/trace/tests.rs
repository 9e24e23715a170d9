//! Texts and what they ask for.

use super::*;

/// A short form of conditions: `Field op value`.
fn shown(search: &Search) -> String {
    let conditions = search.conditions.iter().map(|c| format!("{:?} {:?} {:?}", c.field, c.op, c.value));
    conditions.collect::<Vec<_>>().join("; ")
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let got = match parse(text) {
        Ok(search) => shown(&search),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(got, expected, "{text}");
}

#[track_caller]
fn refuse(text: &str, why: &str) {
    let error = parse(text).unwrap_err();
    assert_eq!(error.kind().status(), 400);
    assert!(error.to_string().contains(why), "{text} says {error}");
}

#[test]
fn conditions_are_read() {
    check("", "");
    check("{}", "");
    check(" { true } ", "");
    check(r#"{ resource.service.name = "shop" }"#, r#"Resource("service.name") Equal Text("shop")"#);
    check(
        r#"{resource.service.name="shop" && name=~"GET .*" && duration>100ms}"#,
        r#"Resource("service.name") Equal Text("shop"); Name Regex Text("GET .*"); Duration Greater Int(100000000)"#,
    );
    check("{ .http.status_code >= 500 }", r#"Any("http.status_code") GreaterOrEqual Int(500)"#);
    check("{ span.ratio < 0.5 }", r#"Span("ratio") Less Float(0.5)"#);
    check("{ span.delta = -3 }", r#"Span("delta") Equal Int(-3)"#);
    check(
        "{ status = error && kind != server }",
        r#"Status Equal Text("error"); Kind NotEqual Text("server")"#,
    );
    check("{ span.a != nil && span.b = nil }", r#"Span("a") Exists Nil; Span("b") NotExists Nil"#);
    check("{ span.cached }", r#"Span("cached") Equal Bool(true)"#);
    check("{ span.cached = false }", r#"Span("cached") Equal Bool(false)"#);
    check(r#"{ span."two words" = `a\d` }"#, r#"Span("two words") Equal Text("a\\d")"#);
    check(r#"{ name = "a \"b\" \\c" }"#, r#"Name Equal Text("a \"b\" \\c")"#);
    check("{ traceDuration > 1m30s }", "TraceDuration Greater Int(90000000000)");
    check("{ trace:duration <= 1.5s }", "TraceDuration LessOrEqual Int(1500000000)");
    check(
        r#"{ rootName = "a" && rootServiceName !~ "b|c" }"#,
        r#"RootName Equal Text("a"); RootServiceName NotRegex Text("b|c")"#,
    );
    check(r#"{ span:id = "00f067aa0ba902b7" }"#, r#"SpanId Equal Text("00f067aa0ba902b7")"#);
    check(
        r#"{ event:name = "exception" && instrumentation:name = "x" }"#,
        r#"EventName Equal Text("exception"); ScopeName Equal Text("x")"#,
    );
    check("{ nestedSetParent<0 && true }", "ParentId NotExists Nil");
    check(r#"{ name = "grüße" } with(most_recent=true)"#, r#"Name Equal Text("grüße")"#);
}

#[test]
fn select_names_what_to_show() {
    let search =
        parse("{ status = error } | select(span.http.method, resource.zone, nestedSetLeft)").unwrap();
    assert_eq!(search.select, [Field::Span("http.method".into()), Field::Resource("zone".into())]);
}

#[test]
fn mistakes_and_what_is_to_come_are_named() {
    refuse("name = 1", "at character 1");
    refuse("{ name = }", "where a value should be");
    refuse("{ name", "the end");
    refuse("{ shop = \"x\" }", ".shop");
    refuse("{ status = broken }", "ok, error, unset");
    refuse("{ span.a = b }", "between quotes");
    refuse("{ duration > \"x\" }", "100ms");
    refuse("{ duration > 5parsecs }", "5parsecs");
    refuse("{ name =~ \"(\" }", "invalid TraceQL");
    refuse("{ name =~ 5 }", "a name with a text");
    refuse("{ name = \"x }", "closing quote");
    refuse("{ span.a = 1 || span.b = 2 }", "`||`");
    refuse("{ span.a = 1 } >> { span.b = 2 }", "structure");
    refuse("{ } | rate()", "`| rate`");
    refuse("{ (span.a = 1) }", "parentheses");
    refuse("{ span.a + 1 = 2 }", "arithmetic");
    refuse("{ § = 1 }", "no field");
    refuse(&format!("{{ {} }}", ["span.a = 1"; 65].join(" && ")), "at most 64");
}

#[test]
fn durations_have_gos_units() {
    for (text, expected) in [
        ("100ms", Some(100_000_000)),
        ("1h30m", Some(5_400_000_000_000)),
        ("1.5s", Some(1_500_000_000)),
        ("2µs", Some(2_000)),
        ("2us", Some(2_000)),
        ("7ns", Some(7)),
        ("7", None),
        ("ms", None),
        ("", None),
        ("999999999h", None),
    ] {
        assert_eq!(duration_ns(text), expected, "{text}");
    }
}

#[test]
fn legacy_tags_are_logfmt() {
    let conditions = legacy_tags(r#" service.name=shop  name="GET /a b" http.status_code=500"#).unwrap();
    let conditions = Search { conditions, select: vec![] };
    assert_eq!(
        shown(&conditions),
        r#"Anywhere("service.name") Equal Text("shop"); Name Equal Text("GET /a b"); Anywhere("http.status_code") Equal Text("500")"#
    );
    assert!(legacy_tags("oops").is_err());
    assert!(legacy_tags("a=\"b").is_err());
}
