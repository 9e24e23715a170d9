//! `google.rpc.Status` and OTLP's answers, in both encodings.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use super::retry_after_seconds;
use crate::decode::otlp::Signal;
use crate::decode::put;
use crate::{Error, Rejected};

/// How an OTLP body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// The encoding of a content type; its parameters do not matter.
    pub(super) fn from_content_type(text: &str) -> Option<Self> {
        match text.split(';').next().unwrap_or_default().trim() {
            t if t.eq_ignore_ascii_case("application/x-protobuf") => Some(Self::Protobuf),
            t if t.eq_ignore_ascii_case("application/json") => Some(Self::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        })
    }

    fn response(self, status: StatusCode, body: Vec<u8>) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, self.content_type());
        response
    }
}

/// The HTTP answer for an error.
pub(super) fn failed(error: &Error, encoding: Encoding) -> Response {
    let code = error.grpc_code() as i32;
    let body = match encoding {
        Encoding::Protobuf => status(error),
        Encoding::Json => {
            serde_json::json!({"code": code, "message": error.to_string()}).to_string().into_bytes()
        }
    };
    let mut response = encoding.response(error.http_status(), body);
    if let Some(wait) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, retry_after_seconds(wait).into());
    }
    response
}

/// The HTTP answer for a write that was acknowledged, perhaps in part.
pub(super) fn accepted(signal: Signal, rejected: &Rejected, encoding: Encoding) -> Response {
    let body = match encoding {
        Encoding::Protobuf => answer(signal, rejected),
        Encoding::Json if rejected.is_empty() => b"{}".to_vec(),
        Encoding::Json => {
            let name = match signal {
                Signal::Metrics => "rejectedDataPoints",
                Signal::Traces => "rejectedSpans",
                Signal::Logs => "rejectedLogRecords",
            };
            // 64-bit integers are text in protobuf's JSON.
            let partial = serde_json::json!({name: count(signal, rejected).to_string(), "errorMessage": text(rejected)});
            serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    };
    encoding.response(StatusCode::OK, body)
}

/// `Export…ServiceResponse` as protobuf; `partial_success` is only there when something was refused.
pub(super) fn answer(signal: Signal, rejected: &Rejected) -> Vec<u8> {
    let mut out = Vec::new();
    if !rejected.is_empty() {
        let mut partial = Vec::new();
        put::varint(1, count(signal, rejected), &mut partial);
        put::bytes(2, text(rejected).as_bytes(), &mut partial);
        put::bytes(1, &partial, &mut out);
    }
    out
}

fn count(signal: Signal, rejected: &Rejected) -> u64 {
    match signal {
        Signal::Metrics => rejected.samples,
        Signal::Traces => rejected.spans,
        Signal::Logs => 0,
    }
}

fn text(rejected: &Rejected) -> String {
    rejected.reasons.join("; ")
}

/// `google.rpc.Status` as protobuf, with RetryInfo where the request may be sent again.
pub(super) fn status(error: &Error) -> Vec<u8> {
    let mut out = Vec::new();
    put::varint(1, error.grpc_code() as u64, &mut out);
    put::bytes(2, error.to_string().as_bytes(), &mut out);
    if let Some(wait) = error.retry_after() {
        let (mut duration, mut info, mut any) = (Vec::new(), Vec::new(), Vec::new());
        put::varint(1, wait.as_secs(), &mut duration);
        put::varint(2, u64::from(wait.subsec_nanos()), &mut duration);
        put::bytes(1, &duration, &mut info);
        put::bytes(1, b"type.googleapis.com/google.rpc.RetryInfo", &mut any);
        put::bytes(2, &info, &mut any);
        put::bytes(3, &any, &mut out);
    }
    out
}

/// The error as gRPC says it.
pub(super) fn grpc(error: &Error) -> tonic::Status {
    tonic::Status::with_details(error.grpc_code(), error.to_string(), Bytes::from(status(error)))
}
