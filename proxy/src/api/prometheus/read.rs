//! `POST /read`: Prometheus remote read.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::Proxy;
use crate::api::asked::tenant_of;
use crate::error::Error;
use crate::remote_read::{self, Form, ReadRequest};

/// The largest body, in bytes.
const MAX_BODY_BYTES: usize = 4 << 20;

/// `POST /read`
pub(super) async fn read(State(proxy): State<Proxy>, request: Request) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let tenant = tenant_of(&parts.headers)?;
    let body = to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.map_err(|error| Error::BadData(format!("cannot read the request: {error}")))?;
    let request = ReadRequest::decode(tenant, &body)?;
    match request.form {
        Form::Samples => {
            let answer = remote_read::samples(&proxy, request).await?;
            let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
            Ok((headers, answer).into_response())
        }
        Form::Chunks => {
            let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            let frames = remote_read::chunks(&proxy, request).await?;
            Ok((headers, Body::from_stream(frames)).into_response())
        }
    }
}
