//! `POST /api/v1/import/prometheus`: the text format, for tries with curl.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};

use super::otlp::otlp_packing;
use super::{Observed, body, header, retry_after_seconds, tenant};
use crate::decode::Allowance;
use crate::decode::text::{Options, decode};
use crate::{Error, Ingester, Outcome, compute, now_ms};

/// Takes an exposition. `timestamp` (milliseconds) stands in for missing times, `extra_label=name=value` is set on all.
pub(super) async fn import(ingester: Arc<Ingester>, request: Request) -> Response {
    let observed = Observed::new(&ingester, "text");
    let response = match received(&observed, request).await {
        Ok(outcome) if outcome.rejected.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(Outcome { written, rejected }) => {
            let text = format!(
                "{} samples were written, {} refused: {}\n",
                written.samples,
                rejected.samples,
                rejected.reasons.join("; ")
            );
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        Err(error) => {
            let mut response = (error.http_status(), format!("{error}\n")).into_response();
            if let Some(wait) = error.retry_after() {
                response.headers_mut().insert(RETRY_AFTER, retry_after_seconds(wait).into());
            }
            response
        }
    };
    observed.response(response)
}

async fn received(observed: &Observed<'_>, request: Request) -> Result<Outcome, Error> {
    let ingester = observed.ingester;
    let config = ingester.config();
    let (parts, body) = request.into_parts();
    let options = options(parts.uri.query().unwrap_or_default(), header(&parts.headers, &CONTENT_TYPE))?;
    let packing = otlp_packing(header(&parts.headers, &CONTENT_ENCODING))?;
    let tenant = tenant(&parts.headers)?;
    let mut held = ingester.in_flight.begin();
    let (limit, decoded_limit) = (config.max_body_bytes, config.max_decoded_bytes);
    let timeout = Duration::from_millis(config.body_timeout_ms);
    let body = body::read(body, limit, timeout, &mut held).await?;
    let (result, _held) = compute(body.len().saturating_mul(4), move || {
        let result = body::unpack(packing, body, limit, &mut held).and_then(|body| {
            let mut allowance = Allowance::new(decoded_limit);
            held.grow(body.len().saturating_mul(5))?;
            let decoded = decode(&body, &options, &mut allowance)?;
            held.grow(allowance.used().saturating_sub(body.len().saturating_mul(5)))?;
            Ok((decoded, body.len()))
        });
        (result, held)
    })
    .await;
    let (decoded, size) = result?;
    observed.body(size);
    ingester.write(&tenant, decoded, observed.protocol).await
}

fn options(query: &str, content_type: &str) -> Result<Options, Error> {
    let openmetrics = content_type.starts_with("application/openmetrics-text");
    let mut options = Options { now_ms: now_ms(), openmetrics, extra: Vec::new() };
    let pairs: Vec<(String, String)> = axum::extract::Query::try_from_uri(&query_uri(query)?)
        .map(|axum::extract::Query(pairs)| pairs)
        .map_err(|error| Error::Invalid(format!("query string: {error}")))?;
    for (name, value) in pairs {
        match name.as_str() {
            "timestamp" => {
                let wrong = |_| Error::Invalid(format!("timestamp {value:?} is not in whole milliseconds"));
                options.now_ms = value.parse().map_err(wrong)?;
            }
            "extra_label" => match value.split_once('=') {
                Some((label, value)) if !label.is_empty() => {
                    options.extra.push((label.to_owned(), value.to_owned()))
                }
                _ => return Err(Error::Invalid(format!("extra_label {value:?}: use name=value"))),
            },
            _ => {}
        }
    }
    Ok(options)
}

/// axum parses queries of whole URIs only.
fn query_uri(query: &str) -> Result<http::Uri, Error> {
    format!("/?{query}").parse().map_err(|error| Error::Invalid(format!("query string: {error}")))
}
