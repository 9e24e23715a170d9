//! The HTTP faces of the proxy. Each request becomes an [`Asked`], each answer a [`Reply`] or an [`Error`].

pub(crate) mod asked;
mod jaeger;
pub mod params;
mod prometheus;
mod reply;
mod tempo;
mod traces;
mod ui;

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::Proxy;
use crate::error::Error;

pub(crate) use asked::now_ms;
pub use asked::{Asked, Origin};
pub(crate) use reply::{Reply, missing_text, respond};

/// Shards for people, with runs written as ranges.
pub(crate) fn shard_numbers(shards: &[tricord_model::ShardId]) -> String {
    reply::numbers(shards, ", ")
}

/// All routes of the proxy.
pub(crate) fn router(proxy: &Proxy) -> Router {
    let panics = proxy.metrics().panics.clone();
    let on_panic = move |panic: Box<dyn std::any::Any + Send>| -> Response {
        panics.inc();
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        tracing::error!(panic = text, "a request panicked: this is a bug");
        respond(&Error::Internal(format!("unexpected error: {text}")))
    };
    Router::new()
        .nest("/api/v1", prometheus::routes())
        .nest("/prometheus/api/v1", prometheus::routes())
        .nest("/tempo", tempo::routes())
        .nest("/jaeger", jaeger::routes())
        .merge(ui::routes())
        .with_state(proxy.clone())
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(on_panic))
        .layer(CompressionLayer::new().gzip(true))
}

/// The answer for a path that nobody knows, as JSON: Grafana shows anything else as a parse error.
pub async fn not_found(OriginalUri(uri): OriginalUri) -> Response {
    respond(&Error::NotFound(format!("there is no {}", uri.path())))
}

/// The answer for a known path and a method that it does not take.
pub async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    let text = format!("{} does not take {method}; the header Allow names what it takes", uri.path());
    let mut response = respond(&Error::BadData(text));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}
