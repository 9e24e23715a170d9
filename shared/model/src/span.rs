//! Spans as they travel and lie: the fields that are searched, beside the untouched protobuf of the rest.

use std::fmt;

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};

/// The 16 bytes of a W3C trace id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One span with its resource and scope, each as the protobuf message of opentelemetry-proto v1 that was received.
///
/// Keeping the messages whole is what makes any OTLP field come back as it was sent. Resources and scopes are shared
/// between the spans of a request: `Bytes` clones are reference counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRecord {
    /// The trace the span belongs to; it decides the shard.
    pub trace_id: TraceId,
    /// The span's own id.
    pub span_id: [u8; 8],
    /// Start, in nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// End, in nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// `opentelemetry.proto.resource.v1.Resource`.
    pub resource: Bytes,
    /// `schema_url` of the resource.
    pub resource_schema_url: String,
    /// `opentelemetry.proto.common.v1.InstrumentationScope`.
    pub scope: Bytes,
    /// `schema_url` of the scope.
    pub scope_schema_url: String,
    /// `opentelemetry.proto.trace.v1.Span`, its ids and times included.
    pub span: Bytes,
}

impl SpanRecord {
    /// The start in milliseconds since the Unix epoch, which decides the window.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        (self.start_ns / 1_000_000) as i64
    }

    /// Appends everything but the resource and scope, which a caller shares between spans by number.
    pub fn encode_span(&self, out: &mut Writer<'_>) {
        out.raw(&self.trace_id.0);
        out.raw(&self.span_id);
        out.u64(self.start_ns);
        out.u64(self.end_ns);
        out.bytes(&self.span);
    }

    /// Reads what [`SpanRecord::encode_span`] wrote; resource and scope are left empty.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early.
    pub fn decode_span(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut trace_id = TraceId::default();
        trace_id.0.copy_from_slice(input.raw(16)?);
        let mut span_id = [0; 8];
        span_id.copy_from_slice(input.raw(8)?);
        Ok(Self {
            trace_id,
            span_id,
            start_ns: input.u64()?,
            end_ns: input.u64()?,
            span: Bytes::copy_from_slice(input.bytes()?),
            resource: Bytes::new(),
            resource_schema_url: String::new(),
            scope: Bytes::new(),
            scope_schema_url: String::new(),
        })
    }
}
