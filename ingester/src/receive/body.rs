//! Bodies: read within a time, unpacked within a size, paid for as they grow.

use std::cell::RefCell;
use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::Error;
use crate::in_flight::Held;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// As it is.
    None,
    Gzip,
    Zstd,
}

impl Packing {
    /// The packing of that name in `Content-Encoding` or `grpc-encoding`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "identity" => Some(Self::None),
            name if name.eq_ignore_ascii_case("gzip") => Some(Self::Gzip),
            name if name.eq_ignore_ascii_case("zstd") => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Memory is paid for in steps of at least so many bytes.
const STEP: usize = 64 << 10;
/// How much of a refused body is taken before its connection is closed.
const DISCARD_BYTES: usize = 256 << 20;
/// The largest window a zstd stream may ask for: 2^27 bytes, what the format's tools allow.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Refuses a body that is larger than it may be.
pub(super) fn too_large(limit: usize) -> Error {
    Error::TooLarge(format!("body is larger than {} MiB: send smaller requests", limit >> 20))
}

/// Reads a body of at most `limit` bytes that arrives within `timeout`.
pub(super) async fn read(
    body: Body,
    limit: usize,
    timeout: Duration,
    held: &mut Held,
) -> Result<Bytes, Error> {
    let deadline = Instant::now() + timeout;
    let mut body = body;
    let announced = axum::body::HttpBody::size_hint(&body);
    if announced.lower() > limit as u64 {
        discard(body, deadline).await;
        return Err(too_large(limit));
    }
    // Room for what is announced, which saves copies; but not more than a moderate sender needs.
    let mut parts = BytesMut::with_capacity((announced.lower() as usize).min(STEP * 4));
    let mut paid = 0;
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(frame) => frame,
            Err(_) => {
                let text = format!("body did not arrive within {} seconds", timeout.as_secs_f64());
                return Err(Error::SlowBody(text));
            }
        };
        let Some(frame) = frame else { return Ok(parts.freeze()) };
        let frame = frame.map_err(|error| Error::Invalid(format!("body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if parts.len() + data.len() > limit {
            discard(body, deadline).await;
            return Err(too_large(limit));
        }
        let size = parts.len() + data.len();
        if size > paid {
            let more = (size - paid).max(STEP);
            held.grow(more)?;
            paid += more;
        }
        parts.extend_from_slice(&data);
    }
}

/// Takes what a sender of too much still sends, up to a bound, and throws it away: most clients read the answer only
/// after their last byte, and a connection that is closed before takes the answer with it.
async fn discard(mut body: Body, deadline: Instant) {
    let mut left = DISCARD_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// Unpacks a body to at most `limit` bytes.
pub(super) fn unpack(packing: Packing, body: Bytes, limit: usize, held: &mut Held) -> Result<Bytes, Error> {
    match packing {
        Packing::None if body.len() > limit => Err(too_large(limit)),
        Packing::None => Ok(body),
        // An empty body is an empty request, packed or not.
        Packing::Gzip | Packing::Zstd if body.is_empty() => Ok(body),
        Packing::Gzip => drain("gzip", flate2::read::MultiGzDecoder::new(&*body), limit, held),
        Packing::Zstd => {
            let broken = |error: std::io::Error| Error::Internal(format!("cannot unpack zstd: {error}"));
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&*body).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            drain("zstd", decoder, limit, held)
        }
    }
}

/// Reads a decompressor to its end, or until it passes the limit.
fn drain(name: &str, decoder: impl Read, limit: usize, held: &mut Held) -> Result<Bytes, Error> {
    let mut out = Vec::new();
    // One byte more than allowed tells a body of exactly the limit from one beyond it.
    let mut decoder = decoder.take(limit as u64 + 1);
    let mut paid = 0;
    loop {
        let step = (out.len() / 2).max(STEP);
        if out.len() + step > paid {
            held.grow(step)?;
            paid += step;
        }
        let before = out.len();
        out.reserve_exact(step);
        let read = decoder.by_ref().take(step as u64).read_to_end(&mut out);
        read.map_err(|error| Error::Invalid(format!("body is not valid {name}: {error}")))?;
        if out.len() > limit {
            return Err(too_large(limit));
        }
        if out.len() == before {
            return Ok(out.into());
        }
    }
}

thread_local! {
    /// Where requests are unpacked: memory that is given back and taken anew for each costs more than the unpacking.
    static UNSNAPPED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A larger buffer is not kept for the next request.
const KEPT_BYTES: usize = 2 << 20;

/// Unpacks a snappy block without framing, of at most `limit` bytes once unpacked, and works on what is in it. The length
/// that it declares is checked before anything is allocated.
pub(super) fn unsnapped<R>(
    body: &[u8],
    limit: usize,
    held: &mut Held,
    work: impl FnOnce(&[u8], &mut Held) -> Result<R, Error>,
) -> Result<R, Error> {
    let invalid = |error: snap::Error| Error::Invalid(format!("body is not a valid snappy block: {error}"));
    let declared = snap::raw::decompress_len(body).map_err(invalid)?;
    if declared > limit {
        return Err(too_large(limit));
    }
    // Copies are the densest that snappy has: 64 bytes out of 3. A length beyond that is a lie.
    if declared / 64 > body.len() {
        let text = format!("snappy block of {} bytes declares {declared}", body.len());
        return Err(Error::Invalid(format!("body is not a valid snappy block: {text}")));
    }
    held.grow(declared)?;
    let mut buffer = UNSNAPPED.take();
    if buffer.len() < declared {
        buffer.resize(declared, 0);
    }
    let unpacked = snap::raw::Decoder::new().decompress(body, &mut buffer).map_err(invalid);
    let result = unpacked.and_then(|len| work(&buffer[..len], held));
    if buffer.capacity() <= KEPT_BYTES {
        UNSNAPPED.set(buffer);
    }
    result
}
