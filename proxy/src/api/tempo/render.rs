//! Traces and search results as Tempo writes them. Readers refuse fields they do not know, so none is added.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;
use serde_json::{Map, Value, json};
use tricord_fragment::trace::{MatchedSpan, TraceSummary};

use super::super::traces::Answer;

/// What a search shows where the root span has not arrived, as Tempo's clients know it.
const NO_ROOT: &str = "<root span not yet received>";

/// Whether a trace stands alone (version 1 of the API) or in an envelope (version 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bare,
    Enveloped,
}

/// `tempopb.Trace`
#[derive(Clone, PartialEq, prost::Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// `tempopb.TraceByIDResponse`; `metrics` (2), `status` (3, 0 is complete) and `message` (4) have their defaults.
#[derive(Clone, PartialEq, prost::Message)]
struct TraceByIdResponse {
    #[prost(message, optional, tag = "1")]
    trace: Option<Trace>,
    #[prost(message, optional, tag = "2")]
    metrics: Option<TraceByIdMetrics>,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

/// `tempopb.TraceByIDMetrics`, of which nothing is told.
#[derive(Clone, PartialEq, prost::Message)]
struct TraceByIdMetrics {}

/// A trace in protobuf.
pub(super) fn protobuf(resource_spans: Vec<ResourceSpans>, form: Form) -> Answer {
    let trace = Trace { resource_spans };
    let body = match form {
        Form::Bare => trace.encode_to_vec(),
        Form::Enveloped => {
            TraceByIdResponse { trace: Some(trace), ..TraceByIdResponse::default() }.encode_to_vec()
        }
    };
    Answer { content_type: "application/protobuf", body, missing: vec![] }
}

/// A trace in OTLP's JSON.
pub(super) fn json(resource_spans: Vec<ResourceSpans>, form: Form) -> Answer {
    Answer::json(&match form {
        Form::Bare => json!({ "batches": resource_spans }),
        Form::Enveloped => json!({ "trace": { "resourceSpans": resource_spans } }),
    })
}

/// Search results.
pub(super) fn search(traces: &[TraceSummary]) -> Value {
    json!({ "traces": traces.iter().map(trace).collect::<Vec<_>>(), "metrics": {} })
}

fn trace(trace: &TraceSummary) -> Value {
    let has_root = !trace.root_service.is_empty() || !trace.root_name.is_empty();
    let set = json!({
        "spans": trace.matched.iter().map(span).collect::<Vec<_>>(),
        "matched": trace.matched_total,
    });
    let stats = trace
        .services
        .iter()
        .map(|(name, spans, errors)| (name.clone(), json!({ "spanCount": spans, "errorCount": errors })));
    json!({
        "traceID": hex::encode(trace.trace_id),
        "rootServiceName": if has_root { trace.root_service.as_str() } else { NO_ROOT },
        "rootTraceName": trace.root_name,
        "startTimeUnixNano": trace.start_ns.to_string(),
        "durationMs": u32::try_from(trace.duration_ns / 1_000_000).unwrap_or(u32::MAX),
        "spanSet": set,
        "spanSets": [set],
        "serviceStats": stats.collect::<Map<_, _>>(),
    })
}

fn span(span: &MatchedSpan) -> Value {
    let attributes = span.attributes.iter().filter_map(|bytes| KeyValue::decode(bytes.as_slice()).ok());
    json!({
        "spanID": hex::encode(span.span_id),
        "name": span.name,
        "startTimeUnixNano": span.start_ns.to_string(),
        "durationNanos": span.duration_ns.to_string(),
        "attributes": attributes.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};

    use super::*;

    #[test]
    fn results_have_exactly_the_fields_that_readers_know() {
        let value = Some(AnyValue { value: Some(Any::IntValue(500)) });
        let attribute = KeyValue { key: "http.status_code".into(), value, ..KeyValue::default() };
        let matched = MatchedSpan {
            span_id: [1; 8],
            name: "GET /".into(),
            start_ns: 1_700_000_000_000_000_005,
            duration_ns: 2_000_000,
            attributes: vec![attribute.encode_to_vec()],
        };
        let found = TraceSummary {
            trace_id: [0xab; 16],
            root_service: "shop".into(),
            root_name: "checkout".into(),
            start_ns: 1_700_000_000_000_000_000,
            duration_ns: 3_999_999,
            spans: 2,
            errors: 1,
            matched: vec![matched],
            matched_total: 4,
            services: vec![("shop".into(), 2, 1)],
        };
        let set = json!({
            "spans": [{
                "spanID": "0101010101010101", "name": "GET /", "startTimeUnixNano": "1700000000000000005",
                "durationNanos": "2000000",
                "attributes": [{ "key": "http.status_code", "value": { "intValue": "500" } }],
            }],
            "matched": 4,
        });
        assert_eq!(
            search(&[found]),
            json!({
                "traces": [{
                    "traceID": "abababababababababababababababab", "rootServiceName": "shop",
                    "rootTraceName": "checkout", "startTimeUnixNano": "1700000000000000000", "durationMs": 3,
                    "spanSet": set, "spanSets": [set],
                    "serviceStats": { "shop": { "spanCount": 2, "errorCount": 1 } },
                }],
                "metrics": {},
            })
        );
        assert_eq!(search(&[TraceSummary::default()])["traces"][0]["rootServiceName"], NO_ROOT);
    }

    #[test]
    fn an_envelope_is_around_the_trace_in_version_2() {
        let span = Span { span_id: vec![1; 8], trace_id: vec![2; 16], name: "a".into(), ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let bare = protobuf(spans.clone(), Form::Bare).body;
        let enveloped = protobuf(spans.clone(), Form::Enveloped).body;
        assert_eq!(Trace::decode(bare.as_slice()).unwrap().resource_spans, spans);
        // Field 1, length-delimited, then the bare trace.
        assert_eq!((enveloped[0], &enveloped[2..]), (0x0a, bare.as_slice()));
        let text: Value = serde_json::from_slice(&json(spans.clone(), Form::Enveloped).body).unwrap();
        let span = &text["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!((&span["spanId"], &span["name"]), (&json!("0101010101010101"), &json!("a")));
        let text: Value = serde_json::from_slice(&json(spans, Form::Bare).body).unwrap();
        assert_eq!(text["batches"][0]["scopeSpans"][0]["spans"][0]["traceId"], json!("02".repeat(16)));
    }
}
