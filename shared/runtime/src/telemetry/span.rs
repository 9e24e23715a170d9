//! From `tracing` spans to OTLP spans: identities, the caller's trace context, attributes, and the bounded buffer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, Filtered, filter_fn};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Registry};

use super::{TARGET, TENANT};
use crate::metrics::Metrics;

/// Finished spans that wait for the sink. A full buffer drops the newest and counts it.
#[derive(Clone)]
pub struct SpanBuffer(Arc<Buffer>);

struct Buffer {
    spans: Mutex<VecDeque<Span>>,
    capacity: usize,
    dropped: Counter,
    collected: Counter,
}

impl SpanBuffer {
    /// A buffer for a number of spans.
    #[must_use]
    pub fn new(capacity: usize, metrics: &Metrics) -> Self {
        let dropped = metrics
            .counter("tricord_own_spans_dropped_total", "Own spans dropped because the buffer was full");
        let collected = metrics.counter("tricord_own_spans_total", "Own spans collected");
        Self(Arc::new(Buffer { spans: Mutex::default(), capacity, dropped, collected }))
    }

    /// Takes up to `limit` spans out, oldest first.
    #[must_use]
    pub fn drain(&self, limit: usize) -> Vec<Span> {
        let mut spans = self.0.spans.lock();
        let count = limit.min(spans.len());
        spans.drain(..count).collect()
    }

    pub(super) fn push(&self, span: Span) {
        let mut spans = self.0.spans.lock();
        if spans.len() >= self.0.capacity {
            self.0.dropped.inc();
        } else {
            spans.push_back(span);
            self.0.collected.inc();
        }
    }
}

/// A span's place in its trace, kept with the span.
#[derive(Clone, Copy)]
struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    /// Neither this span nor what is under it is collected.
    muted: bool,
}

impl TraceContext {
    fn traceparent(self) -> String {
        let flags = if self.muted { "00" } else { "01" };
        format!("00-{}-{}-{flags}", hex(&self.trace_id), hex(&self.span_id))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(i * 2..i * 2 + 2)?, 16).ok()?;
    }
    (bytes != [0; N]).then_some(bytes)
}

/// The caller's trace id, span id and whether it samples, from a W3C `traceparent`.
fn parse_traceparent(text: &str) -> Option<([u8; 16], [u8; 8], bool)> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (version.len() == 2 && version != "ff").then_some(())?;
    Some((unhex(trace)?, unhex(span)?, flags & 1 == 1))
}

fn current_context() -> Option<TraceContext> {
    let mut found = None;
    tracing::Span::current().with_subscriber(|(id, dispatch)| {
        let Some(registry) = dispatch.downcast_ref::<Registry>() else { return };
        let mut span = registry.span(id);
        while let Some(inner) = span {
            found = inner.extensions().get::<TraceContext>().copied();
            if found.is_some() {
                return;
            }
            span = inner.parent();
        }
    });
    found
}

/// The W3C `traceparent` to hand to whom is called now; empty outside of a collected span.
#[must_use]
pub fn current_traceparent() -> String {
    current_context().map(TraceContext::traceparent).unwrap_or_default()
}

/// The trace id of the current span as 32 hex digits; empty outside of a collected span.
#[must_use]
pub fn current_trace_id() -> String {
    current_context()
        .filter(|context| !context.muted)
        .map(|context| hex(&context.trace_id))
        .unwrap_or_default()
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// The `tracing` layer that collects finished spans of the target [`TARGET`].
pub struct SpanLayer(SpanBuffer);

impl SpanLayer {
    /// The layer with its filter: other targets cost nothing here.
    pub(crate) fn filtered<S>(buffer: SpanBuffer) -> Filtered<Self, FilterFn, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let of_target: fn(&Metadata<'_>) -> bool =
            |metadata| metadata.is_span() && metadata.target() == TARGET;
        Self(buffer).with_filter(filter_fn(of_target))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let above = span.parent().and_then(|parent| {
            parent.scope().find_map(|span| span.extensions().get::<TraceContext>().copied())
        });
        let remote = parse_traceparent(&fields.traceparent);
        let (trace_id, parent_id, muted_above) = match (above, remote) {
            (Some(above), _) => (above.trace_id, above.span_id.to_vec(), above.muted),
            (None, Some((trace_id, parent_id, _))) => (trace_id, parent_id.to_vec(), false),
            (None, None) => (rand::random(), Vec::new(), false),
        };
        let muted = muted_above || fields.tenant_is_own;
        let place = TraceContext { trace_id, span_id: rand::random(), muted };
        let mut extensions = span.extensions_mut();
        extensions.insert(place);
        if !muted {
            let started = Span {
                trace_id: trace_id.to_vec(),
                span_id: place.span_id.to_vec(),
                parent_span_id: parent_id,
                name: span.name().to_owned(),
                kind: SpanKind::Internal as i32,
                start_time_unix_nano: now_ns(),
                ..Span::default()
            };
            extensions.insert(fields.apply(started));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(started) = extensions.remove::<Span>() else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if fields.tenant_is_own {
            // The tenant became known after the span began: forget it, and mute what comes under it.
            if let Some(place) = extensions.get_mut::<TraceContext>() {
                place.muted = true;
            }
            return;
        }
        extensions.insert(fields.apply(started));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let finished = span.extensions_mut().remove::<Span>();
        if let Some(finished) = finished {
            self.0.push(Span { end_time_unix_nano: now_ns(), ..finished });
        }
    }
}

/// What a span's fields say.
#[derive(Default)]
struct Fields {
    traceparent: String,
    tenant_is_own: bool,
    name: Option<String>,
    kind: Option<SpanKind>,
    failed: bool,
    status_message: String,
    attributes: Vec<KeyValue>,
}

impl Fields {
    fn apply(self, mut span: Span) -> Span {
        span.name = self.name.unwrap_or(span.name);
        span.kind = self.kind.map_or(span.kind, |kind| kind as i32);
        if self.failed || !self.status_message.is_empty() {
            let code = StatusCode::Error as i32;
            span.status = Some(Status { code, message: self.status_message });
        }
        span.attributes.extend(self.attributes);
        span
    }

    fn attribute(&mut self, field: &Field, value: any_value::Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.attributes.push(KeyValue { key: field.name().to_owned(), value, ..KeyValue::default() });
    }

    fn text(&mut self, field: &Field, value: &str) {
        match field.name() {
            "traceparent" => value.clone_into(&mut self.traceparent),
            "otel.name" => self.name = Some(value.to_owned()),
            "otel.status" => self.failed = value.eq_ignore_ascii_case("error"),
            "otel.status_message" => value.clone_into(&mut self.status_message),
            "otel.kind" => {
                self.kind = match value {
                    "server" => Some(SpanKind::Server),
                    "client" => Some(SpanKind::Client),
                    "producer" => Some(SpanKind::Producer),
                    "consumer" => Some(SpanKind::Consumer),
                    _ => None,
                }
            }
            "tenant" => {
                self.tenant_is_own = value == TENANT;
                self.attribute(field, any_value::Value::StringValue(value.to_owned()));
            }
            _ => self.attribute(field, any_value::Value::StringValue(value.to_owned())),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attribute(field, any_value::Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attribute(field, any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attribute(field, any_value::Value::DoubleValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attribute(field, any_value::Value::BoolValue(value));
    }
}

#[cfg(test)]
mod tests {
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn collect(work: impl FnOnce()) -> Vec<Span> {
        let buffer = SpanBuffer::new(100, &Metrics::new());
        let subscriber = tracing_subscriber::registry().with(SpanLayer::filtered(buffer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        buffer.drain(100)
    }

    #[test]
    fn continues_the_callers_trace_and_nests() {
        let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut handed_on = String::new();
        let spans = collect(|| {
            let outer = info_span!(target: TARGET, "http", traceparent = caller, otel.kind = "server", otel.name = "GET /x",
                status = tracing::field::Empty, otel.status = tracing::field::Empty);
            outer.in_scope(|| {
                info_span!("of another target").in_scope(|| {
                    let _inner = info_span!(target: TARGET, "plan", series = 3_u64).entered();
                    handed_on = current_traceparent();
                });
            });
            outer.record("status", 503_u64);
            outer.record("otel.status", "error");
        });
        assert_eq!(spans.len(), 2);
        let (inner, outer) = (&spans[0], &spans[1]);
        assert_eq!(hex(&outer.trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(hex(&outer.parent_span_id), "b7ad6b7169203331");
        assert_eq!((outer.name.as_str(), outer.kind), ("GET /x", SpanKind::Server as i32));
        assert_eq!(outer.status.as_ref().unwrap().code, StatusCode::Error as i32);
        assert_eq!(inner.parent_span_id, outer.span_id);
        assert_eq!(inner.trace_id, outer.trace_id);
        assert_eq!(handed_on, format!("00-{}-{}-01", hex(&inner.trace_id), hex(&inner.span_id)));
        assert!(outer.end_time_unix_nano >= inner.end_time_unix_nano);
    }

    #[test]
    fn own_tenant_makes_no_spans() {
        let spans = collect(|| {
            let outer = info_span!(target: TARGET, "write", tenant = TENANT).entered();
            let _inner = info_span!(target: TARGET, "forward").entered();
            assert!(current_traceparent().ends_with("-00"));
            drop(outer);
            let late = info_span!(target: TARGET, "query", tenant = tracing::field::Empty);
            late.record("tenant", TENANT);
        });
        assert!(spans.is_empty(), "{spans:?}");
    }

    #[test]
    fn refuses_malformed_contexts() {
        for text in
            ["", "00-0-0-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-ü", "-", "00---"]
        {
            assert!(parse_traceparent(text).is_none(), "{text}");
        }
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        assert!(parse_traceparent(zero).is_none());
    }
}
