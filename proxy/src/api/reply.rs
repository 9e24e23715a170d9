//! Answers on their way out: status, headers, envelope.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tricord_model::ShardId;
use tricord_promql::value::Annotations;

use crate::error::Error;
use crate::render::{Envelope, error_envelope};
use crate::scatter::MissingShard;

/// Names the shards that an answer lacks.
pub(super) const MISSING_HEADER: &str = "x-tricord-missing-shards";
/// The warning of Prometheus for lists that a limit has cut.
const TRUNCATED: &str = "results truncated due to limit";

/// A successful answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    /// JSON of the envelope's `data`.
    pub(crate) data: Vec<u8>,
    /// Whether the data is an object that is sent without an envelope, and takes the notes itself.
    pub(crate) is_bare: bool,
    /// Notes.
    pub(crate) annotations: Annotations,
    /// Shards that had no live replica, or are damaged.
    pub(crate) missing: Vec<MissingShard>,
}

impl Reply {
    /// An answer without notes.
    pub(crate) fn new(data: Vec<u8>) -> Self {
        Self { data, ..Self::default() }
    }

    /// An answer from a JSON value.
    pub(crate) fn json(value: &serde_json::Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    /// An answer whose fields stand at the top, as Mimir's own APIs have it; the value must be an object.
    pub(crate) fn fields(value: &serde_json::Value) -> Self {
        Self { is_bare: true, ..Self::json(value) }
    }

    /// Notes that a limit has cut the answer.
    pub(crate) fn truncated(mut self, truncated: bool) -> Self {
        if truncated {
            self.annotations.warnings.insert(TRUNCATED.to_owned());
        }
        self
    }

    /// Notes which shards the answer lacks; where the asker wants all or nothing, that is an error.
    pub(crate) fn missing(mut self, mut missing: Vec<MissingShard>, deny: bool) -> Result<Self, Error> {
        // An answer may be made of several lookups, each of which lacks them.
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            if deny {
                return Err(Error::Unavailable(missing_text(&missing)));
            }
            self.annotations.warnings.insert(missing_text(&missing));
            self.missing = missing;
        }
        Ok(self)
    }
}

/// How missing shards are named in warnings and errors.
pub(crate) fn missing_text(missing: &[MissingShard]) -> String {
    let (damaged, absent): (Vec<MissingShard>, Vec<_>) =
        missing.iter().partition(|missing| missing.is_damaged);
    let of = |missing: &[MissingShard], one: &str, many: &str| match missing {
        [] => None,
        [missing] => Some(format!("shard {} {one}", missing.shard)),
        _ => Some(format!("shards {} {many}", numbers(&MissingShard::numbers(missing), ", "))),
    };
    let absent = of(&absent, "has no live replica", "have no live replica");
    let damaged = of(&damaged, "is damaged on its live replicas", "are damaged on their live replicas");
    let texts: Vec<String> = absent.into_iter().chain(damaged).collect();
    format!("partial answer: {}", texts.join(", "))
}

/// The value of [`MISSING_HEADER`].
pub(super) fn missing_header(missing: &[MissingShard]) -> Option<HeaderValue> {
    let value = numbers(&MissingShard::numbers(missing), ",");
    HeaderValue::from_str(&value).ok().filter(|_| !missing.is_empty())
}

/// Ascending shards with runs written as `0-63`: thousands of them must still fit a header.
pub(super) fn numbers(shards: &[ShardId], separator: &str) -> String {
    let runs = shards.chunk_by(|one, next| one.0 + 1 == next.0);
    let texts = runs.filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    texts.collect::<Vec<_>>().join(separator)
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let envelope = Envelope { warnings: self.annotations.warnings, infos: self.annotations.infos };
        let body = if self.is_bare { envelope.join(self.data) } else { envelope.wrap(&self.data) };
        let mut response = json(StatusCode::OK, body);
        if let Some(value) = missing_header(&self.missing) {
            response.headers_mut().insert(MISSING_HEADER, value);
        }
        response
    }
}

/// An error as a response.
pub(crate) fn respond(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, error_envelope(error));
    if let Error::Overloaded { retry_after, .. } = error {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
    }
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        respond(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_shards_are_named_or_denied() {
        let missing = [17, 3, 17].map(|shard| MissingShard::from(ShardId(shard))).to_vec();
        let text = "partial answer: shards 3, 17 have no live replica";
        let reply = Reply::new(b"[]".to_vec()).missing(missing.clone(), false).unwrap();
        assert!(reply.annotations.warnings.contains(text));
        assert_eq!(reply.into_response().headers()[MISSING_HEADER], "3,17");
        let error = Reply::default().missing(missing, true).unwrap_err();
        assert_eq!((error.kind().status(), error.to_string()), (503, text.to_owned()));
        let missing = |shard| MissingShard::from(ShardId(shard));
        assert_eq!(missing_text(&[missing(1)]), "partial answer: shard 1 has no live replica");
        let damaged = MissingShard { is_damaged: true, ..missing(0) };
        let text = "partial answer: shard 1 has no live replica, shard 0 is damaged on its live replicas";
        assert_eq!(missing_text(&[missing(1), damaged]), text);
        assert_eq!(missing_header(&[missing(1), damaged]).unwrap(), "0-1");
        let many = (0..64).chain([66]).map(missing).collect::<Vec<_>>();
        assert_eq!(missing_text(&many), "partial answer: shards 0-63, 66 have no live replica");
    }
}
