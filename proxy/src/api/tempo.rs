//! The HTTP API of Tempo, as Grafana's Tempo datasource calls it: a trace by its id, search, and tags.

mod render;
mod search;
mod tags;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::Asked;
use super::traces::{Answer, trace_id};
use crate::Proxy;
use crate::error::Error;
use crate::merge::trace::resource_spans;

/// The routes, relative to `/tempo`.
pub(super) fn routes() -> Router<Proxy> {
    Router::new()
        .route("/api/echo", get(|| async { "echo" }))
        .route("/api/status/buildinfo", get(buildinfo))
        .route("/api/traces/{id}", get(trace_v1))
        .route("/api/v2/traces/{id}", get(trace_v2))
        .route("/api/search", get(search::search))
        .route("/api/search/tags", get(tags::tags_v1))
        .route("/api/search/tag/{tag}/values", get(tags::values_v1))
        .route("/api/v2/search/tags", get(tags::tags_v2))
        .route("/api/v2/search/tag/{tag}/values", get(tags::values_v2))
        .route("/{*rest}", get(unknown))
}

async fn unknown(uri: Uri) -> Failure {
    Failure(Error::NotFound(format!("there is no {}", uri.path())))
}

async fn buildinfo() -> Answer {
    let version = env!("CARGO_PKG_VERSION");
    Answer::json(&json!({
        "version": version, "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": ""
    }))
}

/// An error as Tempo tells it: a line of text.
pub(super) struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        // A query that cannot be run is the asker's: Tempo knows no 422.
        let status = match self.0.kind().status() {
            422 => StatusCode::BAD_REQUEST,
            status => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let mut response = (status, self.0.to_string()).into_response();
        if let Error::Overloaded { retry_after, .. } = &self.0 {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
        }
        response
    }
}

/// `GET /api/traces/{id}`: the bare trace.
async fn trace_v1(
    state: State<Proxy>,
    id: Path<String>,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Answer, Failure> {
    trace(state, id, &headers, &asked, render::Form::Bare).await
}

/// `GET /api/v2/traces/{id}`: the trace within an envelope.
async fn trace_v2(
    state: State<Proxy>,
    id: Path<String>,
    headers: HeaderMap,
    asked: Asked,
) -> Result<Answer, Failure> {
    trace(state, id, &headers, &asked, render::Form::Enveloped).await
}

async fn trace(
    State(proxy): State<Proxy>,
    Path(id): Path<String>,
    headers: &HeaderMap,
    asked: &Asked,
    form: render::Form,
) -> Result<Answer, Failure> {
    let answer = async {
        let id = trace_id(&id)?;
        let (start_ns, end_ns) = time_range(asked)?;
        let spans = proxy.span_queries(asked).await?.trace(id, start_ns, end_ns).await?;
        if spans.is_empty() {
            return Err(Error::NotFound(format!("there is no trace {id} in what is kept")));
        }
        let resource_spans = resource_spans(&spans)?;
        Ok(match wants_protobuf(headers) {
            true => render::protobuf(resource_spans, form),
            false => render::json(resource_spans, form),
        })
    };
    Ok(proxy.observe_traces(answer).await?)
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/protobuf") || accept.contains("application/x-protobuf")
}

/// `start` and `end` in seconds, as nanoseconds; an end of whole seconds includes its second, and 0 is no bound.
fn time_range(asked: &Asked) -> Result<(u64, u64), Error> {
    let nanos = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
    let start_ns = asked.params.time("start")?.map_or(0, nanos);
    let end_ns = match asked.params.time("end")? {
        None | Some(0) => 0,
        Some(ms) if ms % 1000 == 0 => nanos(ms).saturating_add(999_999_999),
        Some(ms) => nanos(ms).saturating_add(999_999),
    };
    if end_ns > 0 && start_ns > end_ns {
        return Err(Error::parameter("end", "end must not be before start"));
    }
    Ok((start_ns, end_ns))
}
