//! Prometheus remote write 1.0 and 2.0.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::arrived::{self, Routing};
use super::body;
use super::{Observed, header, retry_after_seconds, tenant};
use crate::decode::{Allowance, remote_write, remote_write_v2};
use crate::forward::Written;
use crate::in_flight::Held;
use crate::{Error, Ingester, Outcome};

/// The message that a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

impl Version {
    /// The message of a content type. Without a `proto` parameter, or without a content type, it is 1.0.
    pub(super) fn from_content_type(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/x-protobuf") {
            return None;
        }
        let proto = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("proto").then(|| value.trim().trim_matches('"'))
        });
        match proto {
            None | Some("prometheus.WriteRequest") => Some(Self::V1),
            Some("io.prometheus.write.v2.Request") => Some(Self::V2),
            Some(_) => None,
        }
    }
}

/// `POST /api/v1/write`.
pub(super) async fn write(ingester: Arc<Ingester>, request: Request) -> Response {
    let version = Version::from_content_type(header(request.headers(), &CONTENT_TYPE));
    let protocol = if version == Some(Version::V2) { "remote_write_v2" } else { "remote_write" };
    let observed = Observed::new(&ingester, protocol);
    let result = received(&observed, version, request).await;
    observed.response(answer(version, result))
}

async fn received(
    observed: &Observed<'_>,
    version: Option<Version>,
    request: Request,
) -> Result<Outcome, Error> {
    let ingester = observed.ingester;
    let config = ingester.config();
    let (parts, body) = request.into_parts();
    let version = version.ok_or_else(|| {
        let given = header(&parts.headers, &CONTENT_TYPE);
        let known = "use application/x-protobuf, for 2.0 with proto=io.prometheus.write.v2.Request";
        Error::Unsupported(format!("content type {given:?}: {known}"))
    })?;
    snappy(&parts.headers)?;
    let tenant = tenant(&parts.headers)?;
    let mut held = ingester.in_flight.begin();
    let limit = config.max_remote_write_bytes;
    let timeout = Duration::from_millis(config.body_timeout_ms);
    let body = body::read(body, limit, timeout, &mut held).await?;
    let decoded_limit = config.max_decoded_bytes;
    // Four times is what snappy makes of most requests.
    let cost = body.len().saturating_mul(4);
    let decode = move |held: &mut Held, mut routing: Routing<'_>| {
        body::unsnapped(&body, limit, held, |body, held| {
            let mut allowance = Allowance::new(decoded_limit);
            // Pieces are mostly smaller than the request; what is beyond is reserved once known.
            held.grow(body.len())?;
            routing.recalling(|sink| match version {
                Version::V1 => remote_write::decode(body, &mut allowance, sink),
                Version::V2 => remote_write_v2::decode(body, &mut allowance, sink),
            })?;
            held.grow(routing.router.bytes().saturating_sub(body.len()))?;
            Ok(body.len())
        })
    };
    arrived::write(observed, &tenant, cost, held, decode).await
}

/// Remote write has one encoding; senders that leave the header out mean it too.
fn snappy(headers: &HeaderMap) -> Result<(), Error> {
    match header(headers, &CONTENT_ENCODING) {
        "" => Ok(()),
        given if given.eq_ignore_ascii_case("snappy") => Ok(()),
        given => Err(Error::Unsupported(format!("content encoding {given:?}: use snappy"))),
    }
}

fn answer(version: Option<Version>, result: Result<Outcome, Error>) -> Response {
    let (status, text, written, retry_after) = match result {
        Ok(Outcome { written, rejected }) if rejected.is_empty() => {
            (StatusCode::NO_CONTENT, String::new(), written, None)
        }
        Ok(Outcome { written, rejected }) => {
            // The valid part is written; senders drop the request, people read why.
            let text = format!(
                "{} samples and {} exemplars were refused: {}\n",
                rejected.samples,
                rejected.exemplars,
                rejected.reasons.join("; ")
            );
            (StatusCode::BAD_REQUEST, text, written, None)
        }
        Err(error) => {
            let written = match &error {
                Error::Unavailable { written, .. } => **written,
                _ => Written::default(),
            };
            (error.http_status(), format!("{error}\n"), written, error.retry_after())
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    if let Some(wait) = retry_after {
        headers.insert(RETRY_AFTER, retry_after_seconds(wait).into());
    }
    if version == Some(Version::V2) {
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", written.samples),
            ("x-prometheus-remote-write-histograms-written", written.histograms),
            ("x-prometheus-remote-write-exemplars-written", written.exemplars),
        ] {
            headers.insert(name, count.into());
        }
    }
    response
}
