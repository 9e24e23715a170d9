//! OTLP spans in Jaeger's JSON.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use serde_json::{Map, Value, json};
use tricord_model::TraceId;

use super::super::traces::SERVICE_NAME;
use super::shown_service;

/// A trace. Spans of one resource share a process, however often the resource was sent.
pub(super) fn trace(id: TraceId, groups: &[ResourceSpans]) -> Value {
    let id = id.to_string();
    let mut processes: Map<String, Value> = Map::new();
    let mut known: HashMap<String, String> = HashMap::new();
    let mut spans = Vec::new();
    for group in groups {
        let process = process(group);
        let next = format!("p{}", known.len() + 1);
        let key = known.entry(process.to_string()).or_insert_with(|| {
            processes.insert(next.clone(), process);
            next
        });
        for scope_spans in &group.scope_spans {
            let scope = scope_spans.scope.as_ref();
            spans.extend(scope_spans.spans.iter().map(|one| span(&id, one, scope, key)));
        }
    }
    spans.sort_by_key(|span| span["startTime"].as_u64());
    json!({ "traceID": id, "spans": spans, "processes": processes, "warnings": null })
}

/// The service of a group of spans; empty where it has none.
pub(super) fn service(group: &ResourceSpans) -> &str {
    let attributes = group.resource.iter().flat_map(|resource| &resource.attributes);
    let mut named = attributes.filter(|attribute| attribute.key == SERVICE_NAME);
    match named.next().and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Any::StringValue(name)) => name,
        _ => "",
    }
}

fn process(group: &ResourceSpans) -> Value {
    let attributes = group.resource.iter().flat_map(|resource| &resource.attributes);
    let mut tags: Vec<Value> =
        attributes.filter(|attribute| attribute.key != SERVICE_NAME).map(attribute).collect();
    // As a set: the order in which SDKs list a resource's attributes means nothing.
    tags.sort_by(|a, b| a["key"].as_str().cmp(&b["key"].as_str()));
    json!({ "serviceName": shown_service(service(group)), "tags": tags })
}

fn span(trace_id: &str, span: &Span, scope: Option<&InstrumentationScope>, process: &str) -> Value {
    let duration_ns = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    let mut out = json!({
        "traceID": trace_id,
        "spanID": hex::encode(&span.span_id),
        "operationName": span.name,
        "references": references(trace_id, span),
        "startTime": span.start_time_unix_nano / 1000,
        "duration": duration_ns / 1000,
        "tags": tags(span, scope),
        "logs": span.events.iter().map(log).collect::<Vec<_>>(),
        "processID": process,
        "warnings": null,
    });
    // The lower byte are the W3C trace flags; senders of older OTLP leave them out.
    if span.flags & 0xff != 0 {
        out["flags"] = json!(span.flags & 0xff);
    }
    out
}

fn references(trace_id: &str, span: &Span) -> Vec<Value> {
    let mut references = Vec::new();
    if span.parent_span_id.iter().any(|byte| *byte != 0) {
        let parent = hex::encode(&span.parent_span_id);
        references.push(json!({ "refType": "CHILD_OF", "traceID": trace_id, "spanID": parent }));
    }
    for link in &span.links {
        let reference = json!({
            "refType": reference_type(link),
            "traceID": hex::encode(&link.trace_id),
            "spanID": hex::encode(&link.span_id),
        });
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    references
}

/// A link follows from its span, unless an OpenTracing bridge says otherwise.
fn reference_type(link: &Link) -> &'static str {
    let is_child = link.attributes.iter().any(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        attribute.key == "opentracing.ref_type"
            && matches!(value, Some(Any::StringValue(text)) if text == "child_of")
    });
    if is_child { "CHILD_OF" } else { "FOLLOWS_FROM" }
}

fn tags(span: &Span, scope: Option<&InstrumentationScope>) -> Vec<Value> {
    let mut tags: Vec<Value> = span.attributes.iter().map(attribute).collect();
    let mut text = |key: &str, value: &str| {
        if !value.is_empty() {
            tags.push(json!({ "key": key, "type": "string", "value": value }));
        }
    };
    if let Some(scope) = scope {
        text("otel.scope.name", &scope.name);
        text("otel.scope.version", &scope.version);
    }
    let kinds = ["", "internal", "server", "client", "producer", "consumer"];
    text("span.kind", usize::try_from(span.kind).ok().and_then(|kind| kinds.get(kind)).unwrap_or(&""));
    text("w3c.tracestate", &span.trace_state);
    let status = span.status.as_ref();
    let code = status.map_or(0, |status| status.code);
    text("otel.status_code", ["", "OK", "ERROR"].get(usize::try_from(code).unwrap_or(0)).unwrap_or(&""));
    text("otel.status_description", status.map_or("", |status| &status.message));
    let attributes = scope.iter().flat_map(|scope| &scope.attributes).map(attribute);
    tags.extend(attributes);
    let has_error = span.attributes.iter().any(|attribute| attribute.key == "error");
    if code == 2 && !has_error {
        tags.push(json!({ "key": "error", "type": "bool", "value": true }));
    }
    tags
}

fn log(event: &Event) -> Value {
    let mut fields: Vec<Value> = Vec::new();
    let names_itself = event.attributes.iter().any(|attribute| attribute.key == "event");
    if !event.name.is_empty() && !names_itself {
        fields.push(json!({ "key": "event", "type": "string", "value": event.name }));
    }
    fields.extend(event.attributes.iter().map(attribute));
    json!({ "timestamp": event.time_unix_nano / 1000, "fields": fields })
}

fn attribute(attribute: &KeyValue) -> Value {
    let any = attribute.value.as_ref().and_then(|value| value.value.as_ref());
    let (kind, value) = match any {
        None => ("string", json!("")),
        Some(Any::StringValue(text)) => ("string", json!(text)),
        Some(Any::BoolValue(truth)) => ("bool", json!(truth)),
        Some(Any::IntValue(number)) => ("int64", json!(number)),
        Some(Any::DoubleValue(number)) if number.is_finite() => ("float64", json!(number)),
        // JSON has no such number.
        Some(Any::DoubleValue(number)) => ("string", json!(number.to_string())),
        Some(Any::BytesValue(_)) => ("binary", base64(attribute.value.as_ref())),
        Some(other) => ("string", json!(plain(Some(other)).to_string())),
    };
    json!({ "key": attribute.key, "type": kind, "value": value })
}

/// Bytes as OTLP's JSON writes them.
fn base64(value: Option<&AnyValue>) -> Value {
    serde_json::to_value(value).ok().and_then(|value| value.get("bytesValue").cloned()).unwrap_or_default()
}

/// Arrays and maps as plain JSON.
fn plain(value: Option<&Any>) -> Value {
    let inner = |value: &AnyValue| plain(value.value.as_ref());
    match value {
        None => Value::Null,
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(truth)) => json!(truth),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::DoubleValue(number)) => json!(number),
        Some(Any::ArrayValue(array)) => array.values.iter().map(inner).collect(),
        Some(Any::KvlistValue(list)) => {
            let pairs = list
                .values
                .iter()
                .map(|pair| (pair.key.clone(), pair.value.as_ref().map_or(Value::Null, inner)));
            Value::Object(pairs.collect())
        }
        Some(bytes @ Any::BytesValue(_)) => base64(Some(&AnyValue { value: Some(bytes.clone()) })),
        // An index into a table that only profiles have.
        Some(Any::StringValueStrindex(_)) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Status};

    use super::*;

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn text(value: &str) -> Any {
        Any::StringValue(value.into())
    }

    fn group(attributes: Vec<KeyValue>, spans: Vec<Span>) -> ResourceSpans {
        let resource = Some(Resource { attributes, ..Resource::default() });
        let scope = InstrumentationScope { name: "lib".into(), version: "1.2".into(), ..Default::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
    }

    #[test]
    fn a_span_becomes_jaegers() {
        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![2; 8],
            parent_span_id: vec![1; 8],
            flags: 0x101,
            name: "GET /".into(),
            kind: 2,
            start_time_unix_nano: 1_700_000_000_123_456_789,
            end_time_unix_nano: 1_700_000_000_223_456_789,
            trace_state: "a=b".into(),
            attributes: vec![
                pair("http.status_code", Any::IntValue(500)),
                pair("ratio", Any::DoubleValue(0.5)),
                pair("blob", Any::BytesValue(vec![0, 0, 0x30, 0x39])),
            ],
            events: vec![Event {
                time_unix_nano: 1_700_000_000_123_999_000,
                name: "exception".into(),
                attributes: vec![pair("retried", Any::BoolValue(false))],
                ..Event::default()
            }],
            links: vec![Link { trace_id: vec![3; 16], span_id: vec![4; 8], ..Link::default() }],
            status: Some(Status { message: "it broke".into(), code: 2 }),
            ..Span::default()
        };
        let resource = vec![pair("service.name", text("shop")), pair("host", text("h1"))];
        let id = "ab".repeat(16);
        let expected = json!({
            "traceID": id,
            "warnings": null,
            "processes": {
                "p1": { "serviceName": "shop", "tags": [{ "key": "host", "type": "string", "value": "h1" }] },
            },
            "spans": [{
                "traceID": id,
                "spanID": "0202020202020202",
                "flags": 1,
                "operationName": "GET /",
                "references": [
                    { "refType": "CHILD_OF", "traceID": id, "spanID": "0101010101010101" },
                    { "refType": "FOLLOWS_FROM", "traceID": "03".repeat(16), "spanID": "0404040404040404" },
                ],
                "startTime": 1_700_000_000_123_456u64,
                "duration": 100_000,
                "tags": [
                    { "key": "http.status_code", "type": "int64", "value": 500 },
                    { "key": "ratio", "type": "float64", "value": 0.5 },
                    { "key": "blob", "type": "binary", "value": "AAAwOQ==" },
                    { "key": "otel.scope.name", "type": "string", "value": "lib" },
                    { "key": "otel.scope.version", "type": "string", "value": "1.2" },
                    { "key": "span.kind", "type": "string", "value": "server" },
                    { "key": "w3c.tracestate", "type": "string", "value": "a=b" },
                    { "key": "otel.status_code", "type": "string", "value": "ERROR" },
                    { "key": "otel.status_description", "type": "string", "value": "it broke" },
                    { "key": "error", "type": "bool", "value": true },
                ],
                "logs": [{
                    "timestamp": 1_700_000_000_123_999u64,
                    "fields": [
                        { "key": "event", "type": "string", "value": "exception" },
                        { "key": "retried", "type": "bool", "value": false },
                    ],
                }],
                "processID": "p1",
                "warnings": null,
            }],
        });
        assert_eq!(trace(TraceId([0xab; 16]), &[group(resource, vec![span])]), expected);
    }

    #[test]
    fn resources_that_are_the_same_share_a_process() {
        let span = |id: u8| Span { span_id: vec![id; 8], ..Span::default() };
        let (a, b) = (pair("service.name", text("a")), pair("zone", text("eu")));
        let groups = [
            group(vec![a.clone(), b.clone()], vec![span(1)]),
            group(vec![b, a], vec![span(2)]),
            group(vec![], vec![span(3)]),
        ];
        let trace = trace(TraceId([1; 16]), &groups);
        let of: Vec<_> = trace["spans"].as_array().unwrap().iter().map(|span| &span["processID"]).collect();
        assert_eq!(of, ["p1", "p1", "p2"]);
        assert_eq!(trace["processes"]["p2"]["serviceName"], super::super::NO_SERVICE);
    }

    #[test]
    fn arrays_and_maps_become_texts() {
        let element = |value| AnyValue { value: Some(value) };
        let array =
            Any::ArrayValue(ArrayValue { values: vec![element(text("x")), element(Any::IntValue(1))] });
        let map = Any::KvlistValue(KeyValueList { values: vec![pair("k", Any::BoolValue(true))] });
        assert_eq!(attribute(&pair("a", array))["value"], r#"["x",1]"#);
        assert_eq!(attribute(&pair("m", map))["value"], r#"{"k":true}"#);
        assert_eq!(attribute(&pair("n", Any::DoubleValue(f64::NAN)))["type"], "string");
    }
}
