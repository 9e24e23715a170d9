//! One span and one latency observation for each HTTP request.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::metrics::{Metrics, latency_histogram};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
    code: u16,
}

type Latencies = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// Wraps a router so that each request makes a span (continuing the caller's `traceparent`) and is counted by method,
/// route and status in `tricord_http_request_duration_seconds`.
pub fn traced(router: Router, metrics: &Metrics) -> Router {
    let help = "How long HTTP requests took until their answer began";
    let latencies: Latencies =
        metrics.family_with("tricord_http_request_duration_seconds", help, latency_histogram);
    router.layer(from_fn_with_state(latencies, observe))
}

/// Label values must be few: methods beyond these are written together.
fn method_label(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The request's span, and the labels that are known before its answer.
fn request_span(request: &Request) -> (Span, &'static str, String) {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let tenant = Some(header("x-scope-orgid")).filter(|tenant| !tenant.is_empty()).unwrap_or("default");
    let span = tracing::info_span!(
        target: "tricord::request",
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        traceparent = header("traceparent"),
        tenant,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        otel.status = Empty,
    );
    (span, method, route)
}

async fn observe(State(latencies): State<Latencies>, request: Request, next: Next) -> Response {
    let (span, method, route) = request_span(&request);
    let start = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", u64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status", "error");
    }
    let labels = RouteLabels { method, route, code: status.as_u16() };
    latencies.get_or_create(&labels).observe(start.elapsed().as_secs_f64());
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn counts_by_route_and_status() {
        let metrics = Metrics::new();
        let router = traced(Router::new().route("/items/{id}", get(async || "item")), &metrics);
        for path in ["/items/1", "/items/2", "/nowhere"] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        let text = metrics.encode();
        let count = "tricord_http_request_duration_seconds_count";
        assert!(
            text.contains(&format!("{count}{{method=\"GET\",route=\"/items/{{id}}\",code=\"200\"}} 2")),
            "{text}"
        );
    }
}
