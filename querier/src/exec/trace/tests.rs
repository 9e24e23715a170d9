//! The rules of search over spans in memory, and Jaeger's own storage queries where their data is at hand.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event};
use prost::Message;
use tricord_fragment::QueryLimits;
use tricord_fragment::trace::{Comparison, Condition, Field, Operand, SearchQuery, TraceSummary};
use tricord_model::{SpanRecord, TraceId};

use super::filter::Filter;
use super::search::{self, Spans};
use crate::storage;

struct InMemory(Vec<SpanRecord>);

impl Spans for InMemory {
    fn trace(&self, id: &TraceId, start_ns: u64, end_ns: u64) -> Result<Vec<SpanRecord>, storage::Error> {
        let range = start_ns..=end_ns;
        let spans = self.0.iter().filter(|span| span.trace_id == *id && range.contains(&span.start_ns));
        Ok(spans.cloned().collect())
    }

    fn scan(
        &self,
        start_ns: u64,
        end_ns: u64,
        visit: &mut dyn FnMut(&SpanRecord) -> ControlFlow<()>,
    ) -> Result<(), storage::Error> {
        let mut spans: Vec<_> =
            self.0.iter().filter(|span| (start_ns..=end_ns).contains(&span.start_ns)).collect();
        // Newest window first, in any order within one.
        spans.sort_by_key(|span| std::cmp::Reverse(span.start_ns / 1_800_000_000_000));
        for span in spans {
            if visit(span).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn record(resource: &Resource, scope: Vec<u8>, span: &Span) -> SpanRecord {
    SpanRecord {
        trace_id: TraceId(span.trace_id.clone().try_into().unwrap()),
        span_id: span.span_id.clone().try_into().unwrap(),
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        resource: resource.encode_to_vec().into(),
        resource_schema_url: String::new(),
        scope: scope.into(),
        scope_schema_url: String::new(),
        span: span.encode_to_vec().into(),
    }
}

/// A span of 100 ns per unit of `trace`, by the service `service`.
fn span(trace: u8, id: u8, parent: u8, start_ns: u64) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { vec![] } else { vec![parent; 8] },
        name: format!("op-{id}"),
        start_time_unix_nano: start_ns,
        end_time_unix_nano: start_ns + 100 * u64::from(trace),
        ..Span::default()
    }
}

fn by(service: &str, span: &Span) -> SpanRecord {
    let attributes = vec![attribute("service.name", text(service)), attribute("zone", text("eu"))];
    record(&Resource { attributes, ..Resource::default() }, vec![], span)
}

fn condition(field: Field, op: Comparison, value: Operand) -> Condition {
    Condition { field, op, value }
}

fn query(conditions: Vec<Condition>) -> SearchQuery {
    SearchQuery {
        conditions,
        start_ns: 0,
        end_ns: 0,
        min_trace_ns: 0,
        max_trace_ns: 0,
        limit: 20,
        spans_per_trace: 3,
        select: vec![],
    }
}

fn find(source: &InMemory, query: &SearchQuery) -> Vec<TraceSummary> {
    search::search(source, query, &QueryLimits::default(), &AtomicBool::new(false)).unwrap().items
}

fn rich() -> SpanRecord {
    let mut rich = span(1, 1, 7, 1000);
    rich.kind = 2;
    rich.status = Some(Status { message: "it broke".into(), code: 2 });
    rich.attributes = vec![
        attribute("http.status_code", Value::IntValue(503)),
        attribute("zone", text("us")),
        attribute("ratio", Value::DoubleValue(0.5)),
        attribute("retried", Value::BoolValue(true)),
        attribute(
            "tags",
            Value::ArrayValue(ArrayValue {
                values: vec![AnyValue { value: Some(text("a")) }, AnyValue { value: Some(text("b")) }],
            }),
        ),
    ];
    let attributes = vec![attribute("level", text("warn"))];
    rich.events = vec![Event { name: "exception".into(), attributes, ..Event::default() }];
    by("shop", &rich)
}

#[track_caller]
fn check(field: Field, op: Comparison, value: Operand, expected: bool) {
    let shown = format!("{field:?} {op:?} {value:?}");
    let filter = Filter::new(&[condition(field, op, value)], &[]).unwrap();
    assert_eq!(filter.span_matches(&rich()), expected, "{shown}");
}

#[test]
fn conditions_look_where_they_say() {
    use Comparison as C;
    let t = |value: &str| Operand::Text(value.to_owned());
    let named = |make: fn(String) -> Field, key: &str| make(key.to_owned());
    check(Field::Name, C::Equal, t("op-1"), true);
    check(Field::Name, C::Regex, t("op-[0-9]"), true);
    check(Field::Name, C::Regex, t("p-1"), false);
    check(Field::Name, C::NotRegex, t("p-1"), true);
    check(Field::Duration, C::GreaterOrEqual, Operand::Int(100), true);
    check(Field::Duration, C::Greater, Operand::Int(100), false);
    check(Field::Duration, C::Less, Operand::Float(100.5), true);
    check(Field::Status, C::Equal, t("error"), true);
    check(Field::Status, C::NotEqual, t("ok"), true);
    check(Field::Kind, C::Equal, t("server"), true);
    check(Field::StatusMessage, C::Equal, t("it broke"), true);
    check(Field::EventName, C::Equal, t("exception"), true);
    check(Field::ParentId, C::Equal, t("0707070707070707"), true);
    check(Field::ParentId, C::NotExists, Operand::Nil, false);
    check(named(Field::Resource, "service.name"), C::Equal, t("shop"), true);
    check(named(Field::Span, "service.name"), C::Equal, t("shop"), false);
    // The span's own attribute hides the resource's.
    check(named(Field::Any, "zone"), C::Equal, t("us"), true);
    check(named(Field::Any, "zone"), C::Equal, t("eu"), false);
    check(named(Field::Resource, "zone"), C::Equal, t("eu"), true);
    check(named(Field::Any, "service.name"), C::Equal, t("shop"), true);
    check(named(Field::Span, "http.status_code"), C::GreaterOrEqual, Operand::Int(500), true);
    check(named(Field::Span, "http.status_code"), C::Equal, Operand::Float(503.0), true);
    check(named(Field::Span, "http.status_code"), C::Equal, t("503"), false);
    check(named(Field::Span, "ratio"), C::Less, Operand::Int(1), true);
    check(named(Field::Span, "retried"), C::Equal, Operand::Bool(true), true);
    check(named(Field::Span, "tags"), C::Equal, t("b"), true);
    check(named(Field::Span, "tags"), C::Equal, t("c"), false);
    check(named(Field::Span, "none"), C::NotEqual, t("x"), false);
    check(named(Field::Span, "none"), C::NotExists, Operand::Nil, true);
    check(named(Field::Span, "zone"), C::Exists, Operand::Nil, true);
    check(named(Field::Event, "level"), C::Equal, t("warn"), true);
    for (key, value) in [
        ("http.status_code", "503"),
        ("retried", "true"),
        ("ratio", "0.5"),
        ("level", "warn"),
        ("zone", "eu"),
        ("error", "true"),
        ("span.kind", "server"),
        ("otel.status_code", "ERROR"),
    ] {
        check(named(Field::Anywhere, key), C::Equal, t(value), true);
    }
}

#[test]
fn a_malformed_expression_is_refused() {
    let wrong = condition(Field::Name, Comparison::Regex, Operand::Text("(".into()));
    assert!(Filter::new(&[wrong], &[]).is_err());
}

#[test]
fn the_newest_traces_come_first_and_ids_break_ties() {
    const HOUR: u64 = 3_600_000_000_000;
    let mut spans = Vec::new();
    for trace in 1..=9u8 {
        let start = HOUR * 100 + HOUR * u64::from(trace / 2);
        spans.push(by("a", &span(trace, 1, 0, start)));
        spans.push(by("b", &span(trace, 2, 1, start + 50)));
    }
    let source = InMemory(spans);
    let mut asked = query(vec![condition(Field::Name, Comparison::Equal, Operand::Text("op-2".into()))]);
    asked.limit = 5;
    let found = find(&source, &asked);
    let ids: Vec<u8> = found.iter().map(|trace| trace.trace_id[0]).collect();
    assert_eq!(ids, [8, 9, 6, 7, 4]);
    let first = &found[0];
    assert_eq!((first.root_service.as_str(), first.root_name.as_str(), first.spans), ("a", "op-1", 2));
    assert_eq!((first.start_ns, first.duration_ns), (HOUR * 104, 850));
    assert_eq!((first.matched.len(), first.matched_total), (1, 1));
    assert_eq!(first.services, [("a".to_owned(), 1, 0), ("b".to_owned(), 1, 0)]);
    asked.max_trace_ns = 550;
    let ids: Vec<u8> = find(&source, &asked).iter().map(|trace| trace.trace_id[0]).collect();
    assert_eq!(ids, [4, 5, 2, 3, 1]);
    asked.conditions.push(condition(Field::RootServiceName, Comparison::NotEqual, Operand::Text("a".into())));
    assert_eq!(find(&source, &asked), []);
}

/// A long scan may end early, but not before a trace that starts late in an older window was seen.
#[test]
fn a_scan_that_ends_early_finds_the_same() {
    const MINUTE: u64 = 60_000_000_000;
    let mut spans = Vec::new();
    for at in 0..40_000u64 {
        let mut one = span(1, 1, 0, MINUTE * 600 + at * MINUTE / 50);
        one.trace_id = [&[1u8; 8], at.to_be_bytes().as_slice()].concat();
        spans.push(by("a", &one));
    }
    let all = spans.len();
    let source = InMemory(spans);
    let found =
        search::search(&source, &query(vec![]), &QueryLimits::default(), &AtomicBool::new(false)).unwrap();
    let ids: Vec<u64> =
        found.items.iter().map(|trace| u64::from_be_bytes(trace.trace_id[8..].try_into().unwrap())).collect();
    assert_eq!(ids, (39_980..40_000).rev().collect::<Vec<_>>());
    assert!((found.spans as usize) < all, "the scan went to the end");
}

#[test]
fn lists_name_what_spans_have() {
    let source = InMemory(vec![rich(), by("pay", &span(2, 2, 0, 5)), by("pay", &span(3, 2, 0, 6))]);
    let go = AtomicBool::new(false);
    let operations = search::operations(&source, "", (0, 0), &go).unwrap().items;
    let operations: Vec<_> =
        operations.iter().map(|o| (o.service.as_str(), o.name.as_str(), o.kind.as_str())).collect();
    assert_eq!(operations, [("pay", "op-2", ""), ("shop", "op-1", "server")]);
    assert_eq!(search::operations(&source, "shop", (0, 0), &go).unwrap().items.len(), 1);
    let tags = search::tags(&source, (0, 0), &go).unwrap().items;
    for tag in ["resource\0service.name", "span\0http.status_code", "event\0level"] {
        assert!(tags.iter().any(|found| found == tag), "{tag:?} is not in {tags:?}");
    }
    let values = |field: Field, conditions: &[Condition]| {
        let filter = Filter::new(conditions, &[]).unwrap();
        search::tag_values(&source, &field, &filter, (0, 0), 0, &go).unwrap().items
    };
    assert_eq!(values(Field::Resource("service.name".into()), &[]), ["string\0pay", "string\0shop"]);
    assert_eq!(values(Field::Span("http.status_code".into()), &[]), ["int\u{0}503"]);
    assert_eq!(values(Field::Status, &[]), ["keyword\0error", "keyword\0unset"]);
    assert_eq!(values(Field::RootServiceName, &[]), ["string\0pay"]);
    let failed = condition(Field::Status, Comparison::Equal, Operand::Text("error".into()));
    assert_eq!(values(Field::Name, &[failed]), ["string\0op-1"]);
}

#[test]
fn what_is_shown_of_a_span_is_what_was_asked_for() {
    let mut asked = query(vec![condition(Field::Status, Comparison::Equal, Operand::Text("error".into()))]);
    asked.select = vec![Field::Any("zone".into()), Field::Any("none".into())];
    let found = find(&InMemory(vec![rich()]), &asked);
    let shown: Vec<KeyValue> = found[0].matched[0]
        .attributes
        .iter()
        .map(|bytes| KeyValue::decode(bytes.as_slice()).unwrap())
        .collect();
    assert_eq!(shown, [attribute("status", text("error")), attribute("zone", text("us"))]);
}

fn fixture(path: &Path) -> Vec<SpanRecord> {
    let json = std::fs::read(path).unwrap();
    let request: ExportTraceServiceRequest = serde_json::from_slice(&json).unwrap();
    let mut records = Vec::new();
    for resource_spans in &request.resource_spans {
        let resource = resource_spans.resource.clone().unwrap_or_default();
        for scope_spans in &resource_spans.scope_spans {
            let scope = scope_spans.scope.clone().unwrap_or_default().encode_to_vec();
            records.extend(scope_spans.spans.iter().map(|span| record(&resource, scope.clone(), span)));
        }
    }
    records
}

/// `2017-01-26T15:46:31.639875Z` in nanoseconds; all fixtures are of 25 and 26 January 2017.
fn fixture_time(text: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
    assert_eq!(&text[..8], "2017-01-");
    let days = 17_167 + number(8..10) - 1;
    let seconds = ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19);
    seconds * 1_000_000_000 + number(20..26) * 1000
}

/// The queries of Jaeger's storage suite, where a checkout of their data lies beside this one.
#[test]
fn jaegers_own_queries_find_what_they_should() {
    let dir = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../shared/jaeger-fixtures");
    if !dir.is_dir() {
        return;
    }
    let mut names = Vec::new();
    let mut spans = Vec::new();
    for entry in std::fs::read_dir(dir.join("traces")).unwrap() {
        let path = entry.unwrap().path();
        let records = fixture(&path);
        names.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), records[0].trace_id.0));
        spans.extend(records);
    }
    let source = InMemory(spans);
    let queries: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("queries.json")).unwrap()).unwrap();
    let cases = queries.as_array().unwrap();
    for case in cases {
        let asked = &case["Query"];
        let name = |key: &str| asked[key].as_str().unwrap().to_owned();
        let service = Field::Resource("service.name".into());
        let mut conditions = vec![condition(service, Comparison::Equal, Operand::Text(name("ServiceName")))];
        if !name("OperationName").is_empty() {
            conditions.push(condition(Field::Name, Comparison::Equal, Operand::Text(name("OperationName"))));
        }
        for (key, op) in
            [("DurationMin", Comparison::GreaterOrEqual), ("DurationMax", Comparison::LessOrEqual)]
        {
            let bound = asked[key].as_i64().unwrap();
            if bound > 0 {
                conditions.push(condition(Field::Duration, op, Operand::Int(bound)));
            }
        }
        for (key, value) in asked["Tags"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            conditions.push(condition(Field::Anywhere(key.clone()), Comparison::Equal, Operand::Text(value)));
        }
        let mut asked_for = query(conditions);
        asked_for.limit = asked["NumTraces"].as_u64().unwrap() as u32;
        asked_for.start_ns = fixture_time(asked["StartTimeMin"].as_str().unwrap());
        asked_for.end_ns = fixture_time(asked["StartTimeMax"].as_str().unwrap());
        let mut found: Vec<&str> = Vec::new();
        for trace in find(&source, &asked_for) {
            found.extend(names.iter().filter(|(_, id)| *id == trace.trace_id).map(|(name, _)| name.as_str()));
        }
        found.sort_unstable();
        let expected: Vec<&str> =
            case["ExpectedFixtures"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(found, expected, "{}", case["Caption"]);
    }
    assert_eq!(cases.len(), 25);
}
