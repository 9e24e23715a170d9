//! A request as handlers see it: tenant, parameters, and who asks.

use std::time::SystemTime;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use tricord_model::Tenant;

use super::params::Params;
use super::reply::respond;
use crate::error::Error;

/// The largest form body, in bytes.
const MAX_FORM_BYTES: usize = 4 << 20;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whose data.
    pub tenant: Tenant,
    /// Query string and form body.
    pub params: Params,
    /// Who asks.
    pub origin: Origin,
    /// The time of asking, in milliseconds.
    pub now_ms: i64,
}

/// What Grafana tells about the asking panel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `X-Dashboard-Uid`
    pub dashboard: String,
    /// `X-Panel-Id`
    pub panel: String,
    /// `X-Grafana-Org-Id`
    pub org: String,
}

impl Origin {
    fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| header_text(headers, name).chars().take(200).collect();
        Self { dashboard: text("x-dashboard-uid"), panel: text("x-panel-id"), org: text("x-grafana-org-id") }
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The tenant that a request names, or the default one.
///
/// # Errors
/// [`Error::BadData`] where the name is not valid.
pub(crate) fn tenant_of(headers: &HeaderMap) -> Result<Tenant, Error> {
    match headers.get(Tenant::HEADER) {
        None => Ok(Tenant::default()),
        Some(name) => Tenant::new(name.to_str().unwrap_or("\u{fffd}"))
            .map_err(|error| Error::BadData(error.to_string())),
    }
}

/// The clock of the asking, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// What `partial_response` may say for an answer with warnings; the numbers and truth values are Thanos'.
const ALLOW_PARTIAL: [&str; 4] = ["", "allow", "true", "1"];
/// What it may say for an error instead.
const DENY_PARTIAL: [&str; 3] = ["deny", "false", "0"];

impl Asked {
    async fn read(request: Request) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        let tenant = tenant_of(&parts.headers)?;
        let in_uri = parts.uri.query().unwrap_or_default().as_bytes();
        let kind = header_text(&parts.headers, header::CONTENT_TYPE.as_str());
        let has_form = [Method::POST, Method::PUT].contains(&parts.method);
        let is_form = has_form && kind.starts_with("application/x-www-form-urlencoded");
        let params = if is_form {
            let body = to_bytes(body, MAX_FORM_BYTES).await;
            let body = body.map_err(|error| Error::BadData(format!("cannot read the form: {error}")))?;
            Params::parse(&[&body, in_uri])
        } else {
            Params::parse(&[in_uri])
        };
        // Refused here rather than taken for "allow": a typo must not turn the safety off.
        let partial = params.get("partial_response");
        if !ALLOW_PARTIAL.contains(&partial) && !DENY_PARTIAL.contains(&partial) {
            return Err(Error::BadData(format!("partial_response is {partial:?}: use allow or deny")));
        }
        Ok(Self { tenant, params, origin: Origin::read(&parts.headers), now_ms: now_ms() })
    }

    /// Whether an answer that lacks shards is to be an error.
    pub(crate) fn denies_partial(&self) -> bool {
        DENY_PARTIAL.contains(&self.params.get("partial_response"))
    }
}

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Response> {
        Self::read(request).await.map_err(|error| respond(&error))
    }
}
