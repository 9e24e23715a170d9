//! The protocols through the router: what clients send, what they get, and what arrives at the data nodes.

use std::io::Write;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use tower::ServiceExt;
use tricord_model::Value;

use super::*;
use crate::Config;
use crate::decode::put;
use crate::decode::tests::{float, integer_histogram, labels, pb, symbols};
use crate::testing::{Setup, Trick, setup};

const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const OTLP_TRACE: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
    {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"a"},
    {"traceId":"","spanId":"eee19b7ec3c1b174","name":"b"}]}]}]}"#;
const OTLP_GAUGE: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
    {"name":"temp","gauge":{"dataPoints":[{"timeUnixNano":"60000000000","asInt":"3"}]}}]}]}]}"#;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body: to_bytes(body, 1 << 20).await.unwrap() }
    }
}

async fn post(setup: &Setup, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).unwrap();
    Answer::of(router(Arc::clone(&setup.ingester)).oneshot(request).await.unwrap()).await
}

fn snap(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn v1_request() -> pb::WriteRequest {
    let series = |name: &str| pb::TimeSeries {
        labels: labels(&[("job", "j"), ("__name__", name)]),
        samples: vec![float(1000, 1.0)],
        ..pb::TimeSeries::default()
    };
    pb::WriteRequest { timeseries: vec![series("a"), series("b")], metadata: vec![] }
}

async fn remote_write(setup: &Setup, content_type: &str, bytes: &[u8]) -> Answer {
    let headers = [("content-type", content_type), ("content-encoding", "snappy")];
    post(setup, "/api/v1/write", &headers, snap(bytes)).await
}

#[tokio::test]
async fn remote_write_one() {
    let setup = setup(Config::default());
    let answer = remote_write(&setup, V1, &v1_request().encode_to_vec()).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::NO_CONTENT, String::new()));
    assert!(answer.headers.get("x-prometheus-remote-write-samples-written").is_none());
    assert_eq!(setup.batch().series.len(), 2);
    let mut mixed = v1_request();
    mixed.timeseries[0].labels = labels(&[("job", "j")]);
    let answer = remote_write(&setup, V1, &mixed.encode_to_vec()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("no metric name"), "{}", answer.text());
    assert_eq!(setup.batch().series.len(), 3);
    assert_eq!(setup.memory.usage(), 0);
    let metrics = setup.metrics.encode();
    assert!(metrics.contains("tricord_ingester_samples_total{protocol=\"remote_write\"} 3"), "{metrics}");
    assert!(
        metrics.contains("tricord_ingester_rejected_total{signal=\"samples\",reason=\"invalid\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn series_go_by_fingerprint_until_a_data_node_asks_for_labels() {
    let setup = setup(Config::default());
    let bytes = v1_request().encode_to_vec();
    let calls = || setup.nodes.each_ref().map(|node| *node.calls.lock());
    let sizes = || -> Vec<usize> { setup.nodes.iter().flat_map(|node| node.sizes.lock().clone()).collect() };
    let send = async || assert_eq!(remote_write(&setup, V1, &bytes).await.status, StatusCode::NO_CONTENT);
    send().await;
    let named: usize = sizes().iter().sum();
    send().await;
    let known: usize = sizes().iter().sum::<usize>() - named;
    assert!(known < named, "{known} against {named}");
    let before = calls();
    setup.nodes.iter().for_each(|node| node.known.lock().clear());
    send().await;
    // Both series are of one shard, which was asked twice.
    let again: usize = calls().iter().sum::<usize>() - before.iter().sum::<usize>();
    assert_eq!(again, 2);
    let all = setup.batch().series;
    assert_eq!(all.len(), 6);
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one.labels.get("__name__"), Some(["a", "b"][at % 2]));
    }
    let metrics = setup.metrics.encode();
    assert!(metrics.contains("tricord_ingester_retries_total{kind=\"unknown_series\"} 1"), "{metrics}");
    assert!(metrics.contains("tricord_ingester_samples_total{protocol=\"remote_write\"} 6"), "{metrics}");
    assert_eq!(setup.memory.usage(), 0);
}

fn v2_request() -> pb::Request {
    let exemplar = pb::ExemplarV2 { labels_refs: vec![3, 4], value: 0.5, timestamp: 6 };
    let floats = pb::TimeSeriesV2 {
        labels_refs: vec![1, 2],
        samples: vec![float(1, 1.0), float(2, 2.0)],
        exemplars: vec![exemplar],
        ..pb::TimeSeriesV2::default()
    };
    let native = pb::TimeSeriesV2 {
        labels_refs: vec![1, 5],
        histograms: vec![integer_histogram()],
        ..pb::TimeSeriesV2::default()
    };
    let symbols = symbols(&["", "__name__", "a", "trace_id", "cd", "b"]);
    pb::Request { symbols, timeseries: vec![floats, native] }
}

fn written(answer: &Answer) -> [&str; 3] {
    ["samples", "histograms", "exemplars"]
        .map(|what| answer.header(&format!("x-prometheus-remote-write-{what}-written")))
}

#[tokio::test]
async fn remote_write_two_says_exactly_what_is_written() {
    let setup = setup(Config { request_timeout_ms: 100, ..Config::default() });
    let answer = remote_write(&setup, V2, &v2_request().encode_to_vec()).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::NO_CONTENT, ["2", "1", "1"]));
    let mut mixed = v2_request();
    mixed.timeseries[0].labels_refs = vec![1, 2, 1];
    let answer = remote_write(&setup, V2, &mixed.encode_to_vec()).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::BAD_REQUEST, ["0", "1", "0"]));
    assert!(answer.text().contains("2 samples and 1 exemplars were refused"), "{}", answer.text());
    let answer = remote_write(&setup, V2, b"\xff\xff").await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::BAD_REQUEST, ["0", "0", "0"]));
    for node in &setup.nodes {
        (0..100).for_each(|_| {
            let away = tricord_wire::Error::new(tricord_wire::ErrorKind::Unavailable, "away");
            node.trick(Trick::Fail(away));
        });
    }
    let answer = remote_write(&setup, V2, &v2_request().encode_to_vec()).await;
    assert_eq!((answer.status, written(&answer)), (StatusCode::SERVICE_UNAVAILABLE, ["0", "0", "0"]));
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn remote_write_refuses_what_it_does_not_speak() {
    let setup = setup(Config::default());
    let body = snap(&v1_request().encode_to_vec());
    let status = async |content_type: &str, encoding: &str| {
        let headers = [("content-type", content_type), ("content-encoding", encoding)];
        post(&setup, "/api/v1/write", &headers, body.clone()).await.status
    };
    let unsupported = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    assert_eq!(status("application/json", "snappy").await, unsupported);
    assert_eq!(status("application/x-protobuf;proto=other.Request", "snappy").await, unsupported);
    assert_eq!(status(V1, "gzip").await, unsupported);
    assert_eq!(
        status("application/x-protobuf; proto=prometheus.WriteRequest", "snappy").await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(post(&setup, "/api/v1/write", &[], body.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(post(&setup, "/api/v1/write", &[], "not snappy").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(remote_write(&setup, V1, b"garbage").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn bombs_are_refused_before_they_go_off() {
    let limits = Config { max_body_bytes: 1 << 20, max_remote_write_bytes: 1 << 20, ..Config::default() };
    let setup = setup(limits);
    let zeros = vec![0u8; 64 << 20];
    let answer = remote_write(&setup, V1, &zeros).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    // A block of a few bytes that declares a mebibyte, and one that declares four gibibytes.
    for declared in [1u64 << 20, u64::from(u32::MAX)] {
        let mut liar = Vec::new();
        put::raw_varint(declared, &mut liar);
        liar.extend([0xfe, 0x01, 0x00]);
        let answer = post(&setup, "/api/v1/write", &[], liar).await;
        assert!(answer.status.is_client_error(), "{declared}: {}", answer.status);
    }
    let packed = [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(&*zeros, 19).unwrap())];
    for (encoding, body) in packed {
        for path in ["/v1/traces", "/v1/metrics", "/api/v1/import/prometheus"] {
            let headers = [("content-type", V1), ("content-encoding", encoding)];
            let answer = post(&setup, path, &headers, body.clone()).await;
            assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{encoding} {path}");
        }
    }
    let answer = post(&setup, "/v1/traces", &[("content-type", V1)], vec![0u8; (1 << 20) + 1]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    for encoding in ["gzip", "zstd"] {
        let headers = [("content-type", V1), ("content-encoding", encoding)];
        assert_eq!(post(&setup, "/v1/traces", &headers, "garbage").await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(setup.memory.usage(), 0);
}

#[tokio::test]
async fn a_half_sent_body_ends_the_request() {
    let setup = setup(Config { body_timeout_ms: 20, ..Config::default() });
    let never = || {
        let begun = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"\x0a")) });
        Body::from_stream(futures::StreamExt::chain(begun, futures::stream::pending()))
    };
    let answer = post(&setup, "/v1/traces", &[("content-type", "application/json")], never()).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert!(answer.text().contains("did not arrive within"), "{}", answer.text());
    assert_eq!(post(&setup, "/api/v1/write", &[], never()).await.status, StatusCode::REQUEST_TIMEOUT);
    let broken = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
    let json = [("content-type", "application/json")];
    let answer = post(&setup, "/v1/traces", &json, Body::from_stream(broken)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(setup.memory.usage(), 0);
}

#[tokio::test]
async fn full_memory_asks_to_come_back() {
    let setup = setup(Config { max_in_flight_bytes: 1000, ..Config::default() });
    let answer = remote_write(&setup, V1, &v1_request().encode_to_vec()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    let held = setup.memory.try_reserve((1 << 30) - 10).unwrap();
    let setup = Setup { ingester: setup.ingester, ..setup };
    let json = [("content-type", "application/json")];
    let answer = post(&setup, "/v1/metrics", &json, OTLP_GAUGE).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(held);
}

#[tokio::test]
async fn otlp_answers_in_the_encoding_it_was_asked_in() {
    let setup = setup(Config::default());
    let json = [("content-type", "application/json; charset=utf-8")];
    let answer = post(&setup, "/v1/metrics", &json, OTLP_GAUGE).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "{}"));
    assert_eq!(answer.header("content-type"), "application/json");
    let answer = post(&setup, "/v1/traces", &json, OTLP_TRACE).await;
    assert_eq!(answer.status, StatusCode::OK);
    let partial: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(partial["partialSuccess"]["rejectedSpans"], "1");
    assert!(partial["partialSuccess"]["errorMessage"].as_str().unwrap().contains("\"b\" has no trace id"));
    let answer = post(&setup, "/v1/traces", &json, "{").await;
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &status["code"]), (StatusCode::BAD_REQUEST, &serde_json::json!(3)));

    let bytes = crate::decode::otlp::to_protobuf(Signal::Traces, OTLP_TRACE.as_bytes()).unwrap();
    for (encoding, body) in
        [("", bytes.clone()), ("gzip", gzip(&bytes)), ("zstd", zstd::encode_all(&*bytes, 1).unwrap())]
    {
        let headers = [("content-type", V1), ("content-encoding", encoding)];
        let answer = post(&setup, "/v1/traces", &headers, body).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, V1));
        let response = ExportTrace::decode(answer.body).unwrap();
        assert_eq!(response.partial_success.unwrap().rejected_spans, 1);
    }
    let answer = post(&setup, "/v1/traces", &[("content-type", V1)], "\x0f").await;
    let status = RpcStatus::decode(answer.body).unwrap();
    assert_eq!((answer.status, status.code), (StatusCode::BAD_REQUEST, 3));
    for path in ["/v1/metrics", "/v1/traces", "/api/v1/otlp/v1/metrics"] {
        let answer = post(&setup, path, &[("content-type", V1)], "").await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0), "{path}");
    }
    let answer = post(&setup, "/v1/traces", &[("content-type", "text/plain")], "x").await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!((setup.batch().spans.len(), setup.batch().samples()), (4, 1));
}

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse as ExportTrace;

/// `google.rpc.Status`, as clients read it.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[tokio::test]
async fn logs_are_refused_for_good() {
    let setup = setup(Config::default());
    let answer = post(&setup, "/v1/logs", &[("content-type", "application/json")], "{}").await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status["code"], 12);
    assert!(status["message"].as_str().unwrap().contains("does not store logs yet"));
}

#[tokio::test]
async fn tenants_are_walls() {
    let setup = setup(Config::default());
    let json = ("content-type", "application/json");
    for (tenant, status) in [("shop", 200), ("a/b", 400), ("", 400), ("..", 400)] {
        let answer = post(&setup, "/v1/metrics", &[json, ("x-scope-orgid", tenant)], OTLP_GAUGE).await;
        assert_eq!(answer.status.as_u16(), status, "{tenant:?}");
    }
    post(&setup, "/v1/metrics", &[json], OTLP_GAUGE).await;
    let mut tenants: Vec<String> = setup
        .nodes
        .iter()
        .flat_map(|node| node.taken.lock().iter().map(|(_, _, tenant, _)| tenant.clone()).collect::<Vec<_>>())
        .collect();
    tenants.sort();
    assert_eq!(tenants, ["default", "shop"]);
    let twice = [json, ("x-scope-orgid", "a"), ("x-scope-orgid", "b")];
    assert_eq!(post(&setup, "/v1/metrics", &twice, OTLP_GAUGE).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back() {
    let mut config = Config::default();
    config.limits.named.rate = 1.0;
    config.limits.named.burst = 1.0;
    let setup = setup(config);
    let headers = [("content-type", "application/json"), ("x-scope-orgid", "shop")];
    assert_eq!(post(&setup, "/v1/metrics", &headers, OTLP_GAUGE).await.status, StatusCode::OK);
    let answer = post(&setup, "/v1/metrics", &headers, OTLP_GAUGE).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert!(answer.text().contains("tricord cluster limits shop --rate"), "{}", answer.text());
}

#[tokio::test]
async fn text_is_imported_with_the_time_of_its_arrival() {
    let setup = setup(Config::default());
    let before = now_ms();
    let answer = post(&setup, "/api/v1/import/prometheus", &[], "up{job=\"a\"} 1\n").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let sample = setup.batch().series[0].samples[0].clone();
    assert!(sample.t_ms >= before && sample.t_ms <= now_ms() && sample.value == Value::Float(1.0));
    let path = "/api/v1/import/prometheus?timestamp=5&extra_label=job%3Dx";
    let answer = post(&setup, path, &[("content-encoding", "gzip")], gzip(b"up 1\nbroken\n")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().starts_with("1 samples were written, 1 refused: line 2"), "{}", answer.text());
    let imported = setup.batch().series.into_iter().find(|s| s.labels.get("job") == Some("x")).unwrap();
    assert_eq!(imported.samples[0].t_ms, 5);
    let answer = post(&setup, "/api/v1/import/prometheus?timestamp=x", &[], "up 1").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

use crate::now_ms;

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![flag];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out
}

async fn grpc(setup: &Setup, service: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (String, Answer) {
    let mut request = Request::post(format!("/opentelemetry.proto.collector.{service}/Export"));
    request = request.header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let routes = grpc_routes(Arc::clone(&setup.ingester)).into_axum_router();
    let response = routes.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let collected = http_body_util::BodyExt::collect(body).await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let answer = Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes() };
    let code = trailers
        .get("grpc-status")
        .or(answer.headers.get("grpc-status"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    (code, answer)
}

#[tokio::test]
async fn otlp_over_grpc() {
    let mut config = Config { max_body_bytes: 1 << 20, ..Config::default() };
    config.limits.named.rate = 1.0;
    config.limits.named.burst = 1.0;
    let setup = setup(config);
    let bytes = crate::decode::otlp::to_protobuf(Signal::Traces, OTLP_TRACE.as_bytes()).unwrap();
    let traces = "trace.v1.TraceService";
    let packed = [
        ("identity", 0, bytes.clone()),
        ("gzip", 1, gzip(&bytes)),
        ("zstd", 1, zstd::encode_all(&*bytes, 1).unwrap()),
    ];
    for (encoding, flag, message) in packed {
        let (code, answer) =
            grpc(&setup, traces, &[("grpc-encoding", encoding)], framed(flag, &message)).await;
        assert_eq!(code, "0", "{encoding}");
        assert_eq!(
            ExportTrace::decode(&answer.body[5..]).unwrap().partial_success.unwrap().rejected_spans,
            1
        );
    }
    assert_eq!(setup.batch().spans.len(), 3);
    let gauge = framed(0, &crate::decode::otlp::to_protobuf(Signal::Metrics, OTLP_GAUGE.as_bytes()).unwrap());
    let metrics = "metrics.v1.MetricsService";
    assert_eq!(grpc(&setup, metrics, &[("x-scope-orgid", "shop")], gauge.clone()).await.0, "0");
    // Throttled: RESOURCE_EXHAUSTED with RetryInfo.
    let (code, answer) = grpc(&setup, metrics, &[("x-scope-orgid", "shop")], gauge.clone()).await;
    assert_eq!(code, "8");
    assert!(!answer.header("grpc-status-details-bin").is_empty());
    let code = async |service: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        grpc(&setup, service, headers, body).await.0
    };
    assert_eq!(code("logs.v1.LogsService", &[], framed(0, b"")).await, "12");
    assert_eq!(code(metrics, &[("x-scope-orgid", "a/b")], gauge).await, "3");
    assert_eq!(code(traces, &[], framed(0, b"\xff")).await, "3");
    assert_eq!(code(traces, &[], framed(1, &bytes)).await, "3");
    assert_eq!(code(traces, &[], vec![0, 0, 0]).await, "3");
    assert_eq!(code(traces, &[], [framed(0, &bytes), framed(0, &bytes)].concat()).await, "3");
    assert_eq!(code(traces, &[("grpc-encoding", "snappy")], framed(1, &bytes)).await, "3");
    let bomb = gzip(&vec![0u8; 64 << 20]);
    assert_eq!(code(traces, &[("grpc-encoding", "gzip")], framed(1, &bomb)).await, "8");
    assert_eq!(code(traces, &[], framed(0, &vec![0u8; 2 << 20])).await, "8");
    assert_eq!(setup.memory.usage(), 0);
}

#[test]
fn retry_info_is_what_clients_parse() {
    let error =
        Error::Overloaded { message: "full".into(), retry_after: std::time::Duration::from_millis(1500) };
    let status = RpcStatus::decode(&*super::status::status(&error)).unwrap();
    assert_eq!((status.code, &*status.message), (8, "full"));
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(status.details[0].value, [0x0a, 8, 0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01]);
    let status = RpcStatus::decode(&*super::status::status(&Error::TooLarge("big".into()))).unwrap();
    assert!(status.details.is_empty());
}
