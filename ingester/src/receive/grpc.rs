//! OTLP over gRPC: the three export calls, read frame by frame.
//!
//! A generated service would decompress and decode before anyone here could bound either, and would answer a message
//! that is too large with a code that clients retry. A unary call is five bytes and a message; the rest is shared with
//! HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::post;
use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tonic::service::Routes;

use super::body::{self, Packing};
use super::otlp::{otlp_packing, stored, write};
use super::status::{self, Encoding};
use super::{Observed, header, tenant};
use crate::decode::otlp::Signal;
use crate::{Error, Ingester, Outcome};

/// One byte says whether the message is packed, four how long it is.
const PREFIX: usize = 5;
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The OTLP services as tonic routes, to be served beside others or alone.
pub fn routes(ingester: Arc<Ingester>) -> Routes {
    let mut routes = Routes::default();
    let router = std::mem::take(routes.axum_router_mut());
    let service = |signal: Signal| {
        let ingester = Arc::clone(&ingester);
        post(move |request| export(ingester, signal, request))
    };
    *routes.axum_router_mut() = router
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", service(Signal::Metrics))
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", service(Signal::Traces))
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", service(Signal::Logs));
    routes
}

async fn export(ingester: Arc<Ingester>, signal: Signal, request: Request) -> Response {
    let observed = Observed::new(&ingester, "otlp_grpc");
    let tenant = request.headers().get(tricord_model::Tenant::HEADER).and_then(|name| name.to_str().ok());
    let span = tracing::info_span!(
        target: "tricord::request",
        "otlp_grpc",
        otel.name = format!("Export {}", signal.as_str()),
        otel.kind = "server",
        traceparent = header(request.headers(), &HeaderName::from_static("traceparent")),
        tenant = tenant.unwrap_or(tricord_model::Tenant::DEFAULT),
        otel.status = tracing::field::Empty,
    );
    let result = tracing::Instrument::instrument(received(&observed, signal, request), span.clone()).await;
    match result {
        Ok(outcome) => {
            observed.answered("0".to_owned());
            success(&status::answer(signal, &outcome.rejected))
        }
        Err(error) => {
            span.record("otel.status", "error");
            observed.answered((error.grpc_code() as i32).to_string());
            let mut response = status::grpc(&error).into_http::<Body>();
            accept_encoding(response.headers_mut());
            response
        }
    }
}

async fn received(observed: &Observed<'_>, signal: Signal, request: Request) -> Result<Outcome, Error> {
    let ingester = observed.ingester;
    let config = ingester.config();
    let (parts, body) = request.into_parts();
    let content_type = header(&parts.headers, &CONTENT_TYPE);
    if !matches!(content_type, "application/grpc" | "application/grpc+proto") {
        return Err(Error::Unsupported(format!("content type {content_type:?}: use application/grpc")));
    }
    let packing = otlp_packing(header(&parts.headers, &ENCODING))?;
    let tenant = tenant(&parts.headers)?;
    stored(signal)?;
    let mut held = ingester.in_flight.begin();
    let timeout = Duration::from_millis(config.body_timeout_ms);
    let body = body::read(body, config.max_body_bytes + PREFIX, timeout, &mut held).await?;
    let (packed, message) = unframe(body)?;
    let packing = match (packed, packing) {
        (false, _) => Packing::None,
        (true, Packing::None) => {
            return Err(Error::Invalid(
                "message is marked as compressed, but grpc-encoding is not set".to_owned(),
            ));
        }
        (true, packing) => packing,
    };
    write(observed, &tenant, signal, Encoding::Protobuf, packing, message, held).await
}

/// Takes the one message out of its frame.
fn unframe(mut body: Bytes) -> Result<(bool, Bytes), Error> {
    if body.len() < PREFIX {
        return Err(Error::Invalid("request ends before its message".to_owned()));
    }
    let packed = match body.get_u8() {
        0 => false,
        1 => true,
        flag => return Err(Error::Invalid(format!("message has the unknown flag {flag}"))),
    };
    let length = body.get_u32() as usize;
    if body.len() != length {
        return Err(Error::Invalid(format!("message declares {length} bytes, {} came", body.len())));
    }
    Ok((packed, body))
}

fn accept_encoding(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd"));
}

fn success(message: &[u8]) -> Response {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames =
        [Ok::<_, std::convert::Infallible>(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    accept_encoding(response.headers_mut());
    response
}
