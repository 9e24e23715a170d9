//! Tricord's observation of itself: finished request spans in a bounded buffer, and a loop that hands them and a
//! snapshot of the metrics to a sink every few seconds. The sink writes them like anybody's data.
//!
//! Only spans of the target [`TARGET`] are collected, and none for the tenant that they go to: work that storing
//! telemetry causes must not make more of it.

mod middleware;
mod span;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

pub use middleware::traced;
pub use span::{SpanBuffer, SpanLayer, current_trace_id, current_traceparent};

/// The target of spans that are collected: `info_span!(target: "tricord::request", …)`.
///
/// Fields with a meaning: `traceparent` (W3C; continues the caller's trace), `tenant` (no span is made for the tenant
/// `tricord`), `otel.name` (the span's name), `otel.kind` (`server`, `client`), `otel.status` (`error`) and
/// `otel.status_message`. All other fields become attributes.
pub const TARGET: &str = "tricord::request";

/// The tenant that Tricord's own telemetry is stored under.
pub const TENANT: &str = "tricord";

/// Where Tricord's own telemetry goes. A failed write is the sink's to log; the loop goes on.
#[async_trait::async_trait]
pub trait OwnTelemetrySink: Send + Sync + 'static {
    /// Writes a snapshot of the metrics: text exposition without timestamps, taken now.
    async fn write_metrics(&self, exposition: String);
    /// Writes finished spans.
    async fn write_spans(&self, request: ExportTraceServiceRequest);
}

/// Who the telemetry is about.
#[derive(Clone, Debug)]
pub struct Source {
    /// The role: becomes label `job` (`tricord-<role>`, or `tricord` for all in one) and `service.name`.
    pub service: String,
    /// The process, mostly its HTTP address: becomes label `instance` and `service.instance.id`.
    pub instance: String,
}

/// How many spans one request to the sink carries at most.
const SPANS_PER_REQUEST: usize = 1_000;
/// How long the last write at a shutdown may take.
const LAST_LIMIT: Duration = Duration::from_secs(2);

/// Hands metrics and spans to the sink at every interval, and once more at shutdown, until shutdown.
pub async fn run(
    metrics: Metrics,
    spans: SpanBuffer,
    source: Source,
    sink: Arc<dyn OwnTelemetrySink>,
    interval: Duration,
    shutdown: Shutdown,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once, when there is nothing to see yet but the start itself.
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => break,
        }
        tokio::select! {
            () = hand_over(&metrics, &spans, &source, &*sink) => {}
            () = shutdown.cancelled() => break,
        }
    }
    // The cluster may be stopping too: then nobody takes the last of it, and the stop must not wait.
    if tokio::time::timeout(LAST_LIMIT, hand_over(&metrics, &spans, &source, &*sink)).await.is_err() {
        tracing::debug!("the last own telemetry was not taken in time");
    }
}

async fn hand_over(metrics: &Metrics, spans: &SpanBuffer, source: &Source, sink: &dyn OwnTelemetrySink) {
    let labels = [("job", source.service.as_str()), ("instance", source.instance.as_str())];
    sink.write_metrics(with_labels(&metrics.encode(), &labels)).await;
    loop {
        let finished = spans.drain(SPANS_PER_REQUEST);
        if finished.is_empty() {
            return;
        }
        sink.write_spans(export_request(finished, source)).await;
    }
}

fn text_attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

fn export_request(spans: Vec<Span>, source: &Source) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        text_attribute("service.name", &source.service),
        text_attribute("service.instance.id", &source.instance),
        text_attribute("service.version", version),
    ];
    let scope = InstrumentationScope {
        name: "tricord".to_owned(),
        version: version.to_owned(),
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
    }
}

/// Puts labels in front of those of every sample of an exposition.
fn with_labels(exposition: &str, labels: &[(&str, &str)]) -> String {
    let escape = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
    let added = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
        .collect::<Vec<_>>()
        .join(",");
    let mut out = String::with_capacity(exposition.len() * 3 / 2);
    for line in exposition.lines() {
        let name_end = line.find(['{', ' ']).filter(|_| !line.starts_with('#'));
        match name_end {
            None => out.push_str(line),
            Some(end) => {
                let (name, rest) = line.split_at(end);
                out.push_str(name);
                out.push('{');
                out.push_str(&added);
                match rest.strip_prefix('{') {
                    Some(rest) if rest.starts_with('}') => out.push_str(rest),
                    Some(rest) => {
                        out.push(',');
                        out.push_str(rest);
                    }
                    None => {
                        out.push('}');
                        out.push_str(rest);
                    }
                }
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_labels_to_every_sample() {
        let text = "# HELP a b c.\n# TYPE a counter\na_total 1\nb{x=\"}\"} 2\nc{} 3\n# EOF\n";
        let want = "# HELP a b c.\n# TYPE a counter\na_total{job=\"t\",instance=\"h:1\"} 1\n\
                    b{job=\"t\",instance=\"h:1\",x=\"}\"} 2\nc{job=\"t\",instance=\"h:1\"} 3\n# EOF\n";
        assert_eq!(with_labels(text, &[("job", "t"), ("instance", "h:1")]), want);
    }

    #[derive(Default)]
    struct Seen(parking_lot::Mutex<(Vec<String>, Vec<ExportTraceServiceRequest>)>);

    #[async_trait::async_trait]
    impl OwnTelemetrySink for Seen {
        async fn write_metrics(&self, exposition: String) {
            self.0.lock().0.push(exposition);
        }
        async fn write_spans(&self, request: ExportTraceServiceRequest) {
            self.0.lock().1.push(request);
        }
    }

    #[tokio::test]
    async fn hands_over_everything_before_it_ends() {
        let metrics = Metrics::new();
        metrics.counter("tricord_things", "Things").inc();
        let (spans, sink, shutdown) =
            (SpanBuffer::new(10, &metrics), Arc::new(Seen::default()), Shutdown::new());
        for _ in 0..12 {
            spans.push(Span::default());
        }
        shutdown.trigger();
        let source = Source { service: "tricord".into(), instance: "host:1".into() };
        run(metrics, spans, source, sink.clone(), Duration::from_secs(3600), shutdown).await;
        let seen = sink.0.lock();
        assert!(
            seen.0.last().unwrap().contains("tricord_things_total{job=\"tricord\",instance=\"host:1\"} 1")
        );
        assert!(
            seen.0
                .last()
                .unwrap()
                .contains("tricord_own_spans_dropped_total{job=\"tricord\",instance=\"host:1\"} 2")
        );
        let spans: usize = seen.1.iter().map(|r| r.resource_spans[0].scope_spans[0].spans.len()).sum();
        assert_eq!(spans, 10);
    }
}
