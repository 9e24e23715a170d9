//! The protocols: who is asking, how the body is packed, and how the answer is said.

mod arrived;
mod body;
mod grpc;
mod otlp;
mod remote_write;
mod status;
mod text;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::HeaderMap;
use tricord_model::Tenant;

use crate::decode::otlp::Signal;
use crate::metrics::{ProtocolLabel, RequestLabel};
use crate::{Error, Ingester};

pub use grpc::routes as grpc_routes;

/// The HTTP routes: remote write, OTLP and the text format. Every path is served on every port that has the router.
pub fn router(ingester: Arc<Ingester>) -> Router {
    let otlp = |signal: Signal| {
        let ingester = Arc::clone(&ingester);
        post(move |request| otlp::export(ingester, signal, request))
    };
    let written = Arc::clone(&ingester);
    let imported = Arc::clone(&ingester);
    Router::new()
        .route("/api/v1/write", post(move |request| remote_write::write(written, request)))
        .route("/api/v1/import/prometheus", post(move |request| text::import(imported, request)))
        .route("/v1/metrics", otlp(Signal::Metrics))
        .route("/v1/traces", otlp(Signal::Traces))
        .route("/v1/logs", otlp(Signal::Logs))
        .route("/api/v1/otlp/v1/metrics", otlp(Signal::Metrics))
        .route("/api/v1/otlp/v1/traces", otlp(Signal::Traces))
        .route("/api/v1/otlp/v1/logs", otlp(Signal::Logs))
        .method_not_allowed_fallback(wrong_method)
        // Bodies are bounded where they are read, by the limits of each protocol.
        .layer(DefaultBodyLimit::disable())
}

/// The tenant that a request names.
fn tenant(headers: &HeaderMap) -> Result<Tenant, Error> {
    let mut named = headers.get_all(Tenant::HEADER).iter();
    let Some(name) = named.next() else { return Ok(Tenant::default()) };
    if named.next().is_some() {
        return Err(Error::Invalid("X-Scope-OrgID is given twice".to_owned()));
    }
    let name = name.to_str().map_err(|_| Error::Invalid("X-Scope-OrgID is not plain text".to_owned()))?;
    let tenant = Tenant::new(name).map_err(|error| Error::Invalid(error.to_string()))?;
    if tenant == Tenant::own() {
        let text = format!(
            "tenant {tenant} holds Tricord's own telemetry, which nobody else writes: choose another X-Scope-OrgID"
        );
        return Err(Error::Invalid(text));
    }
    Ok(tenant)
}

/// The answer for a known path and a method that it does not take.
async fn wrong_method(method: http::Method, OriginalUri(uri): OriginalUri) -> Response {
    let text = format!("{} takes POST, not {method}\n", uri.path());
    (http::StatusCode::METHOD_NOT_ALLOWED, text).into_response()
}

/// Counts a request while it runs and once it is answered.
struct Observed<'a> {
    ingester: &'a Ingester,
    protocol: &'static str,
    started: Instant,
}

impl<'a> Observed<'a> {
    fn new(ingester: &'a Ingester, protocol: &'static str) -> Self {
        ingester.metrics.in_flight_requests.inc();
        Self { ingester, protocol, started: Instant::now() }
    }

    /// Notes the code of the answer: an HTTP status or a gRPC code.
    fn answered(&self, code: String) {
        self.ingester.metrics.requests.get_or_create(&RequestLabel { protocol: self.protocol, code }).inc();
    }

    fn response(&self, response: Response) -> Response {
        self.answered(response.status().as_u16().to_string());
        response
    }

    fn body(&self, bytes: usize) {
        let label = ProtocolLabel { protocol: self.protocol };
        self.ingester.metrics.body_bytes.get_or_create(&label).observe(bytes as f64);
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        // A client that went away ends here too.
        self.ingester.metrics.in_flight_requests.dec();
        let label = ProtocolLabel { protocol: self.protocol };
        self.ingester.metrics.durations.get_or_create(&label).observe(self.started.elapsed().as_secs_f64());
    }
}

/// A header's text, or empty.
fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
}

/// A wait as whole seconds for `Retry-After`, at least one.
fn retry_after_seconds(wait: std::time::Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

#[cfg(test)]
mod sockets;
#[cfg(test)]
mod tests;
