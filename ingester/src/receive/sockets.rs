//! The listeners over real sockets, with the clients that others wrote.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tricord_runtime::Shutdown;

use crate::testing::{Setup, setup};
use crate::{Config, Listeners, run};

struct Server {
    setup: Setup,
    http: std::net::SocketAddr,
    channel: Channel,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), tricord_runtime::Error>>,
}

impl Server {
    async fn start(config: Config) -> Self {
        let setup = setup(config);
        let listeners = Listeners {
            otlp_grpc: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            otlp_http: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let http = listeners.otlp_http.local_addr().unwrap();
        let grpc = format!("http://{}", listeners.otlp_grpc.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let (ingester, ending) = (setup.ingester.clone(), shutdown.clone());
        let task =
            tokio::spawn(
                async move { run(ingester, listeners, &tricord_runtime::Metrics::new(), ending).await },
            );
        let channel = Channel::from_shared(grpc).unwrap().connect().await.unwrap();
        Self { setup, http, channel, shutdown, task }
    }

    async fn stop(self) {
        drop(self.channel);
        self.shutdown.trigger();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap().unwrap();
    }
}

fn gauge(points: usize) -> ExportMetricsServiceRequest {
    let point = |at: usize| NumberDataPoint {
        time_unix_nano: at as u64 * 1_000_000,
        value: Some(number_data_point::Value::AsInt(at as i64)),
        ..NumberDataPoint::default()
    };
    let gauge = Gauge { data_points: (1..=points).map(point).collect() };
    let metric = Metric { name: "g".into(), data: Some(metric::Data::Gauge(gauge)), ..Metric::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

fn spans(count: u8) -> ExportTraceServiceRequest {
    let span = |id: u8| Span { trace_id: vec![id; 16], span_id: vec![id; 8], ..Span::default() };
    let scope = ScopeSpans { spans: (0..count).map(span).collect(), ..ScopeSpans::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource] }
}

#[tokio::test]
async fn a_generated_client_is_understood() {
    let server = Server::start(Config { max_body_bytes: 1 << 20, ..Config::default() }).await;
    let metrics = MetricsServiceClient::new(server.channel.clone());
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = metrics.clone();
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding).accept_compressed(encoding);
        }
        let answer = client.export(gauge(10)).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
    }
    assert_eq!(server.setup.batch().samples(), 30);
    // The first span has ids of zeros only.
    let answer = TraceServiceClient::new(server.channel.clone()).export(spans(4)).await.unwrap().into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 1);
    let status = metrics.clone().export(gauge(100_000)).await.unwrap_err();
    assert_eq!((status.code(), status.details().is_empty()), (Code::ResourceExhausted, false));
    let status =
        LogsServiceClient::new(server.channel.clone()).export(ExportLogsServiceRequest::default()).await;
    assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
    let mut request = tonic::Request::new(gauge(1));
    request.metadata_mut().insert("x-scope-orgid", "a/b".parse().unwrap());
    assert_eq!(metrics.clone().export(request).await.unwrap_err().code(), Code::InvalidArgument);
    drop(metrics);
    server.stop().await;
}

/// Sends bytes and reads until the server closes, or until the answer's head is there.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn broken_requests_leave_the_server_up() {
    let server = Server::start(Config { body_timeout_ms: 50, ..Config::default() }).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
    let half = raw(&server, format!("{head}content-length: 100\r\n\r\n{{\"res").as_bytes()).await;
    assert!(half.starts_with("HTTP/1.1 408"), "{half}");
    let huge = raw(&server, format!("{head}content-length: 99999999999\r\n\r\n").as_bytes()).await;
    assert!(huge.starts_with("HTTP/1.1 413"), "{huge}");
    let garbage = raw(&server, b"\x16\x03\x01 this is not HTTP\r\n\r\n").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    // A client that goes away in the middle.
    let mut gone = TcpStream::connect(server.http).await.unwrap();
    gone.write_all(format!("{head}content-length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    drop(gone);
    let fine =
        raw(&server, format!("{head}content-length: 2\r\nconnection: close\r\n\r\n{{}}").as_bytes()).await;
    assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
    server.stop().await;
}
