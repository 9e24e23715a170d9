//! The JSON API of Jaeger's query service, as Grafana's Jaeger datasource and Jaeger's UI call it.

mod convert;
mod search;

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tricord_model::TraceId;

use super::Asked;
use super::reply::missing_text;
use super::traces::{Answer, SpanQueries, trace_id};
use crate::Proxy;
use crate::error::Error;
use crate::merge::trace::resource_spans;
use crate::scatter::MissingShard;

/// How spans without `service.name` are called, as Jaeger does.
const NO_SERVICE: &str = "OTLPResourceNoServiceName";

/// The routes, relative to `/jaeger`.
pub(super) fn routes() -> Router<Proxy> {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operation_names))
        .route("/api/operations", get(operations))
        .route("/api/traces", get(search::traces))
        .route("/api/traces/{id}", get(trace))
        .route("/api/dependencies", get(search::dependencies))
        .route("/{*rest}", get(unknown))
}

async fn unknown(uri: Uri) -> Failure {
    Failure(Error::NotFound(format!("there is no {}", uri.path())))
}

/// An error in Jaeger's envelope.
pub(super) struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind().status() {
            422 => 400,
            status => status,
        };
        let body = json!({
            "data": null, "total": 0, "limit": 0, "offset": 0,
            "errors": [{ "code": status, "msg": self.0.to_string() }],
        });
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Answer::json(&body)).into_response();
        if let Error::Overloaded { retry_after, .. } = &self.0 {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
        }
        response
    }
}

/// Data in Jaeger's envelope; what an answer lacks is an error beside the data there.
fn enveloped(data: &[Value], limit: u64, missing: Vec<MissingShard>) -> Answer {
    let errors = match missing.is_empty() {
        true => Value::Null,
        false => json!([{ "code": 503, "msg": missing_text(&missing) }]),
    };
    let body = json!({ "data": data, "total": data.len(), "limit": limit, "offset": 0, "errors": errors });
    Answer::json(&body).lacking(missing)
}

fn shown_service(name: &str) -> &str {
    if name.is_empty() { NO_SERVICE } else { name }
}

fn asked_service(name: &str) -> &str {
    if name == NO_SERVICE { "" } else { name }
}

/// `GET /api/services`
async fn services(State(proxy): State<Proxy>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let found = proxy.span_queries(&asked).await?.operations("").await?;
        let names: BTreeSet<&str> =
            found.items.iter().map(|operation| shown_service(&operation.service)).collect();
        let names: Vec<Value> = names.into_iter().map(Value::from).collect();
        Ok(enveloped(&names, 0, found.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

/// `GET /api/services/{service}/operations`
async fn operation_names(
    State(proxy): State<Proxy>,
    Path(service): Path<String>,
    asked: Asked,
) -> Result<Answer, Failure> {
    let answer = async {
        let service = asked_service(&service);
        let found = proxy.span_queries(&asked).await?.operations(service).await?;
        let of_service = found.items.iter().filter(|operation| operation.service == service);
        let names: BTreeSet<&str> = of_service.map(|operation| operation.name.as_str()).collect();
        let names: Vec<Value> = names.into_iter().map(Value::from).collect();
        Ok(enveloped(&names, 0, found.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

/// `GET /api/operations?service=…&spanKind=…`
async fn operations(State(proxy): State<Proxy>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let service = asked.params.get("service");
        if service.is_empty() {
            return Err(Error::parameter("service", "name a service"));
        }
        let (service, kind) = (asked_service(service), asked.params.get("spanKind"));
        let found = proxy.span_queries(&asked).await?.operations(service).await?;
        let of_service = found.items.iter().filter(|operation| operation.service == service);
        let of_kind = of_service.filter(|operation| kind.is_empty() || operation.kind == kind);
        let operations: Vec<Value> =
            of_kind.map(|operation| json!({ "name": operation.name, "spanKind": operation.kind })).collect();
        Ok(enveloped(&operations, 0, found.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

/// `GET /api/traces/{id}`
async fn trace(State(proxy): State<Proxy>, Path(id): Path<String>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let id = trace_id(&id)?;
        let (start_ns, end_ns) = search::time_range(&asked)?;
        let queries = proxy.span_queries(&asked).await?;
        match load(&queries, id, start_ns, end_ns).await? {
            Some(trace) => Ok(enveloped(&[trace], 0, vec![])),
            None => Err(Error::NotFound("trace not found".to_owned())),
        }
    };
    Ok(proxy.observe_traces(answer).await?)
}

/// A trace in Jaeger's form; `None` where there is none.
async fn load(
    queries: &SpanQueries<'_>,
    id: TraceId,
    start_ns: u64,
    end_ns: u64,
) -> Result<Option<Value>, Error> {
    let spans = queries.trace(id, start_ns, end_ns).await?;
    if spans.is_empty() {
        return Ok(None);
    }
    Ok(Some(convert::trace(id, &resource_spans(&spans)?)))
}
