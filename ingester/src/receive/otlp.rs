//! OTLP over HTTP, and what it shares with gRPC.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tricord_model::Tenant;

use super::arrived::{self, Routing};
use super::body::{self, Packing};
use super::status::{self, Encoding};
use super::{Observed, header, tenant};
use crate::decode::Allowance;
use crate::decode::otlp::{Signal, check, decode_traces, to_protobuf};
use crate::in_flight::Held;
use crate::translate::{Translation, translate};
use crate::{Error, Ingester, Outcome};

/// `POST /v1/{metrics,traces,logs}`.
pub(super) async fn export(ingester: Arc<Ingester>, signal: Signal, request: Request) -> Response {
    let observed = Observed::new(&ingester, "otlp_http");
    let encoding = Encoding::from_content_type(header(request.headers(), &CONTENT_TYPE));
    // Who sends neither is most likely a person, who reads JSON.
    let answer_in = encoding.unwrap_or(Encoding::Json);
    let response = match received(&observed, signal, encoding, request).await {
        Ok(outcome) => status::accepted(signal, &outcome.rejected, answer_in),
        Err(error) => status::failed(&error, answer_in),
    };
    observed.response(response)
}

async fn received(
    observed: &Observed<'_>,
    signal: Signal,
    encoding: Option<Encoding>,
    request: Request,
) -> Result<Outcome, Error> {
    let ingester = observed.ingester;
    let (parts, body) = request.into_parts();
    let encoding = encoding.ok_or_else(|| {
        let given = header(&parts.headers, &CONTENT_TYPE);
        Error::Unsupported(format!("content type {given:?}: use application/x-protobuf or application/json"))
    })?;
    let packing = otlp_packing(header(&parts.headers, &CONTENT_ENCODING))?;
    let tenant = tenant(&parts.headers)?;
    stored(signal)?;
    let mut held = ingester.in_flight.begin();
    let limit = ingester.config.max_body_bytes;
    let timeout = Duration::from_millis(ingester.config.body_timeout_ms);
    let body = body::read(body, limit, timeout, &mut held).await?;
    write(observed, &tenant, signal, encoding, packing, body, held).await
}

/// The packing of an OTLP body.
pub(super) fn otlp_packing(name: &str) -> Result<Packing, Error> {
    Packing::from_name(name)
        .ok_or_else(|| Error::Unsupported(format!("encoding {name:?}: use none, gzip or zstd")))
}

/// Refuses what is not stored yet, in a way that makes OTLP clients drop it rather than try again.
pub(super) fn stored(signal: Signal) -> Result<(), Error> {
    match signal {
        Signal::Metrics | Signal::Traces => Ok(()),
        Signal::Logs => Err(Error::NotImplemented(
            "tricord does not store logs yet: send metrics and traces here, and logs elsewhere".to_owned(),
        )),
    }
}

/// Unpacks, decodes and writes a body that has arrived.
pub(super) async fn write(
    observed: &Observed<'_>,
    tenant: &Tenant,
    signal: Signal,
    encoding: Encoding,
    packing: Packing,
    body: Bytes,
    held: Held,
) -> Result<Outcome, Error> {
    let ingester = observed.ingester;
    let config = ingester.config();
    let (limit, decoded_limit, translation) =
        (config.max_body_bytes, config.max_decoded_bytes, config.otlp.clone());
    let size = body.len();
    // Packed bodies grow by a factor of about ten.
    let cost = if packing == Packing::None { size } else { size.saturating_mul(8) };
    let decode = move |held: &mut Held, routing: Routing<'_>| {
        let body = body::unpack(packing, body.clone(), limit, held)?;
        let size = body.len();
        let body = if encoding == Encoding::Json { Bytes::from(to_protobuf(signal, &body)?) } else { body };
        decode(signal, &body, &translation, Allowance::new(decoded_limit), held, routing)?;
        Ok(size)
    };
    arrived::write(observed, tenant, cost, held, decode).await
}

/// Decodes a protobuf request and reserves what it takes.
fn decode(
    signal: Signal,
    body: &Bytes,
    translation: &Translation,
    mut allowance: Allowance,
    held: &mut Held,
    mut routing: Routing<'_>,
) -> Result<(), Error> {
    match signal {
        Signal::Metrics => {
            // Pieces are mostly smaller than the request; what is beyond is reserved once known.
            let expected = body.len();
            held.grow(expected)?;
            let reserve = &mut |bytes: usize| held.grow(bytes);
            routing.recalling(|sink| translate(body, translation, &mut allowance, reserve, sink))?;
            held.grow(routing.router.bytes().saturating_sub(expected))
        }
        Signal::Traces => {
            held.grow(body.len())?;
            routing.router.take(decode_traces(body, &mut allowance)?);
            Ok(())
        }
        Signal::Logs => check(signal, body, &mut allowance),
    }
}
