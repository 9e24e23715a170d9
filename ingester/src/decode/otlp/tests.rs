//! JSON against protobuf, by the generated types as witnesses; traces, checks, bombs.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tricord_model::TraceId;

use super::super::wire::put;
use super::*;
use crate::Error;
use crate::decode::Allowance;

const TRACE: &str = r#"{"resourceSpans":[{"resource":{"attributes":[
    {"key":"service.name","value":{"stringValue":"shop"}},
    {"key":"list","value":{"arrayValue":{"values":[{"intValue":"1"},{"doubleValue":0.5},{"boolValue":true}]}}},
    {"key":"map","value":{"kvlistValue":{"values":[{"key":"b","value":{"bytesValue":"AQL/"}}]}}},
    {"key":"nothing","value":{}}]},
  "scopeSpans":[{"scope":{"name":"lib","version":"1"},"schemaUrl":"scope-url","spans":[
    {"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"",
     "name":"GET /","kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
     "status":{"code":"STATUS_CODE_ERROR","message":"bad"},"flags":1,"future":{"field":[1,{"a":null}]},
     "events":[{"timeUnixNano":"1544712660500000000","name":"e","droppedAttributesCount":3}],
     "links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"EEE19B7EC3C1B175","traceState":"a=b"}],
     "attributes":null}]}],
  "schemaUrl":"resource-url"}],"unknown":1}"#;

fn allowance() -> Allowance {
    Allowance::new(16 << 20)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, reason: &str) {
    assert!(result.as_ref().is_err_and(|error| error.to_string().contains(reason)), "{reason}: {result:?}");
}

#[test]
fn json_means_what_the_protobuf_means() {
    let request =
        ExportTraceServiceRequest::decode(&*to_protobuf(Signal::Traces, TRACE.as_bytes()).unwrap()).unwrap();
    let resource = &request.resource_spans[0];
    assert_eq!(resource.schema_url, "resource-url");
    // What the generated types say to the same JSON, where they can read it at all.
    let plain =
        TRACE.replace("\"attributes\":null}", "\"name\":\"GET /\"}").replacen("\"name\":\"GET /\",", "", 1);
    let plain = plain.replace("\"STATUS_CODE_ERROR\"", "2");
    assert_eq!(request, serde_json::from_str::<ExportTraceServiceRequest>(&plain).unwrap());
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!((span.kind, span.flags, span.end_time_unix_nano), (2, 1, 1_544_712_661_000_000_000));
    assert_eq!(hex::encode(&span.links[0].span_id), "eee19b7ec3c1b175");
}

#[test]
fn json_numbers_come_in_every_form() {
    let point = |fields: &str| {
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","exponentialHistogram":{{"dataPoints":[{{{fields}}}]}}}}]}}]}}]}}"#
        );
        let bytes = to_protobuf(Signal::Metrics, json.as_bytes())?;
        let request = build::request(&bytes, &mut allowance())?;
        let metric = request.resource_metrics[0].scope_metrics[0].metrics[0].clone();
        let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::ExponentialHistogram(histogram)) =
            metric.data
        else {
            panic!("another kind was expected")
        };
        Ok::<_, Error>(histogram.data_points[0].clone())
    };
    let read = point(r#""scale":-3,"count":"18446744073709551615","sum":"NaN","min":"-Infinity","max":1e3,"zeroThreshold":0"#).unwrap();
    assert_eq!((read.scale, read.count, read.max), (-3, u64::MAX, Some(1000.0)));
    assert!(read.sum.is_some_and(f64::is_nan) && read.min == Some(f64::NEG_INFINITY));
    let read = point(r#""scale":"7","positive":{"offset":-2,"bucketCounts":["1",2,3.0]},"flags":1"#).unwrap();
    assert_eq!((read.scale, read.flags, read.positive.unwrap().bucket_counts), (7, 1, vec![1, 2, 3]));
    refused(point(r#""count":1.5"#), "does not take a fraction");
    refused(point(r#""count":"x""#), "not a whole number");
    refused(point(r#""count":[1]"#), "does not take a list");
    refused(point(r#""positive":[]"#), "does not take a list");
    refused(point(r#""attributes":{}"#), "it is a list");
    refused(point(r#""attributes":[null]"#), "null inside its list");
    refused(point(r#""exemplars":[{"traceId":"xyz"}]"#), "not hex");
}

#[test]
fn spans_are_kept_as_they_came() {
    let body = Bytes::from(to_protobuf(Signal::Traces, TRACE.as_bytes()).unwrap());
    let decoded = decode_traces(&body, &mut allowance()).unwrap();
    assert!(decoded.rejected.is_empty());
    let span = &decoded.batch.spans[0];
    assert_eq!(span.trace_id.to_string(), "5b8efff798038103d269b633813fc60c");
    assert_eq!((span.start_ns, span.end_ns), (1_544_712_660_000_000_000, 1_544_712_661_000_000_000));
    assert_eq!((&*span.resource_schema_url, &*span.scope_schema_url), ("resource-url", "scope-url"));
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let resource = &request.resource_spans[0];
    assert_eq!(span.resource, resource.resource.as_ref().unwrap().encode_to_vec());
    assert_eq!(span.scope, resource.scope_spans[0].scope.as_ref().unwrap().encode_to_vec());
    assert_eq!(Span::decode(span.span.clone()).unwrap(), resource.scope_spans[0].spans[0]);
}

#[test]
fn spans_without_ids_are_counted() {
    let mut request =
        ExportTraceServiceRequest::decode(&*to_protobuf(Signal::Traces, TRACE.as_bytes()).unwrap()).unwrap();
    let spans = &mut request.resource_spans[0].scope_spans[0].spans;
    let good = spans[0].clone();
    spans.push(Span { trace_id: vec![0; 16], ..good.clone() });
    spans.push(Span { trace_id: vec![1; 8], ..good.clone() });
    spans.push(Span { span_id: vec![], ..good.clone() });
    spans.push(Span { trace_id: vec![7; 16], ..good });
    let decoded = decode_traces(&request.encode_to_vec().into(), &mut allowance()).unwrap();
    assert_eq!((decoded.batch.spans.len(), decoded.rejected.spans), (2, 3));
    assert_eq!(decoded.batch.spans[1].trace_id, TraceId([7; 16]));
    assert_eq!(decoded.rejected.reasons.len(), 2);
}

#[test]
fn empty_requests_are_fine() {
    for signal in [Signal::Metrics, Signal::Traces, Signal::Logs] {
        assert_eq!(to_protobuf(signal, b"{}").unwrap(), Vec::<u8>::new());
        assert!(check(signal, b"", &mut allowance()).is_ok());
    }
    refused(to_protobuf(Signal::Traces, b""), "not valid OTLP JSON");
    refused(to_protobuf(Signal::Traces, b"null"), "not valid OTLP JSON");
    refused(to_protobuf(Signal::Traces, b"{} {}"), "not valid OTLP JSON");
}

/// A value inside so many lists.
fn nested(levels: usize) -> Vec<u8> {
    let mut value = Vec::new();
    for _ in 0..levels {
        let (mut list, mut outer) = (Vec::new(), Vec::new());
        put::bytes(1, &value, &mut list);
        put::bytes(5, &list, &mut outer);
        value = outer;
    }
    let (mut pair, mut resource, mut spans, mut request) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put::bytes(2, &value, &mut pair);
    put::bytes(1, &pair, &mut resource);
    put::bytes(1, &resource, &mut spans);
    put::bytes(1, &spans, &mut request);
    request
}

#[test]
fn deep_nesting_is_refused() {
    assert!(check(Signal::Traces, &nested(40), &mut allowance()).is_ok());
    refused(check(Signal::Traces, &nested(50), &mut allowance()), "nested deeper");
    refused(build::request(&nested(10_000), &mut allowance()), "nested deeper");
    // What passes the check passes the generated decoder too.
    assert!(build::request(&nested(40), &mut allowance()).is_ok());
    let json = format!("{}{}", r#"{"resourceSpans":[{"resource":{"x":"#, "[".repeat(1_000_000));
    refused(to_protobuf(Signal::Traces, json.as_bytes()), "not valid OTLP JSON");
}

#[test]
fn broken_fields_are_refused() {
    let request = |number: u32, span: &[u8]| {
        let (mut spans, mut scope, mut resource, mut out) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        put::bytes(number, span, &mut spans);
        put::bytes(2, &spans, &mut scope);
        put::bytes(2, &scope, &mut resource);
        put::bytes(1, &resource, &mut out);
        check(Signal::Traces, &out, &mut allowance())
    };
    refused(request(5, b"\xff\xfe"), "span: field 5 is not valid UTF-8");
    refused(request(7, b"12345678"), "span: field 7 has the wrong wire type");
    refused(request(9, b"\x0a"), "key value: message ends inside a field");
    assert!(request(99, b"\xff\xfe").is_ok());
}

#[test]
fn small_messages_cannot_cost_much_memory() {
    // A million empty points of two bytes would be hundreds of MiB of structs.
    let points = [0x0a, 0x00].repeat(1 << 20);
    let (mut metric, mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put::bytes(5, &points, &mut metric);
    put::bytes(2, &metric, &mut scope);
    put::bytes(2, &scope, &mut resource);
    put::bytes(1, &resource, &mut request);
    let result = build::request(&request, &mut allowance());
    assert!(matches!(result, Err(Error::TooLarge(_))), "{result:?}");
}

#[test]
fn a_full_body_of_spans_fits() {
    let attribute = |at: usize| opentelemetry_proto::tonic::common::v1::KeyValue {
        key: format!("key.{at}"),
        value: Some(opentelemetry_proto::tonic::common::v1::AnyValue {
            value: Some(opentelemetry_proto::tonic::common::v1::any_value::Value::IntValue(at as i64)),
        }),
        ..Default::default()
    };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        attributes: (0..10).map(attribute).collect(),
        ..Span::default()
    };
    let mut request =
        ExportTraceServiceRequest::decode(&*to_protobuf(Signal::Traces, TRACE.as_bytes()).unwrap()).unwrap();
    request.resource_spans[0].scope_spans[0].spans = vec![span; 10_000];
    let body = Bytes::from(request.encode_to_vec());
    // The default allowance is four times the largest body.
    let decoded = decode_traces(&body, &mut Allowance::new(4 * body.len())).unwrap();
    assert_eq!(decoded.batch.spans.len(), 10_000);
}

/// The examples of opentelemetry-proto, where they lie beside the checkout.
#[test]
fn the_published_examples_are_read() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap() + "/../../shared/otlp-examples";
    let Ok(trace) = std::fs::read(format!("{folder}/trace.json")) else { return };
    let decoded =
        decode_traces(&to_protobuf(Signal::Traces, &trace).unwrap().into(), &mut allowance()).unwrap();
    assert_eq!((decoded.batch.spans.len(), decoded.rejected.spans), (1, 0));
    let metrics = std::fs::read(format!("{folder}/metrics.json")).unwrap();
    let bytes = to_protobuf(Signal::Metrics, &metrics).unwrap();
    let request = build::request(&bytes, &mut allowance()).unwrap();
    assert_eq!(request, serde_json::from_slice(&metrics).unwrap());
    let decoded = crate::translate::tests::walked(&bytes, &mut allowance()).unwrap();
    let names: Vec<&str> = decoded.batch.series.iter().map(|series| series.labels.name()).collect();
    let histogram = ["my_histogram_sum", "my_histogram_count", "my_histogram_bucket", "my_histogram_bucket"];
    assert_eq!(
        names,
        [&["my_counter_total", "my_gauge_ratio"][..], &histogram, &["my_exponential_histogram"]].concat()
    );
    for name in ["logs.json", "events.json"] {
        let logs = std::fs::read(format!("{folder}/{name}")).unwrap();
        assert!(to_protobuf(Signal::Logs, &logs).is_ok());
    }
}
