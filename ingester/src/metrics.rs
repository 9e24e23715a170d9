//! What the ingester counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tricord_runtime::{Metrics as Registry, latency_histogram, size_histogram};

use crate::decode::Rejected;
use crate::forward::Written;

/// A protocol's name.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ProtocolLabel {
    pub(crate) protocol: &'static str,
}

/// A protocol's name and how a request ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabel {
    pub(crate) protocol: &'static str,
    /// HTTP status or gRPC code.
    pub(crate) code: String,
}

/// What was refused, and by whom.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RejectedLabel {
    pub(crate) signal: &'static str,
    pub(crate) reason: &'static str,
}

/// An error's kind.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct KindLabel {
    pub(crate) kind: &'static str,
}

type Histograms = Family<ProtocolLabel, Histogram, fn() -> Histogram>;

/// The ingester's metrics; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    samples: Family<ProtocolLabel, Counter>,
    exemplars: Family<ProtocolLabel, Counter>,
    spans: Family<ProtocolLabel, Counter>,
    rejected: Family<RejectedLabel, Counter>,
    pub(crate) requests: Family<RequestLabel, Counter>,
    pub(crate) durations: Histograms,
    pub(crate) body_bytes: Histograms,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) in_flight_requests: Gauge,
    pub(crate) node_in_flight_bytes: Gauge,
    pub(crate) retries: Family<KindLabel, Counter>,
    pub(crate) failures: Family<KindLabel, Counter>,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            samples: registry
                .family("tricord_ingester_samples_total", "Samples acknowledged by every in-sync replica"),
            exemplars: registry.family("tricord_ingester_exemplars_total", "Exemplars acknowledged"),
            spans: registry.family("tricord_ingester_spans_total", "Spans acknowledged"),
            rejected: registry
                .family("tricord_ingester_rejected_total", "Samples, exemplars and spans refused for good"),
            requests: registry
                .family("tricord_ingester_requests_total", "Write requests by HTTP status or gRPC code"),
            durations: registry.family_with(
                "tricord_ingester_request_duration_seconds",
                "Time from a write's arrival to its answer",
                latency_histogram,
            ),
            body_bytes: registry.family_with(
                "tricord_ingester_body_bytes",
                "Size of decompressed bodies",
                size_histogram,
            ),
            in_flight_bytes: registry
                .gauge("tricord_ingester_in_flight_bytes", "Memory reserved for writes in flight"),
            in_flight_requests: registry.gauge("tricord_ingester_in_flight_requests", "Writes in flight"),
            node_in_flight_bytes: registry
                .gauge("tricord_ingester_forward_in_flight_bytes", "Bytes under way to data nodes"),
            retries: registry
                .family("tricord_ingester_retries_total", "Shard writes tried again, by kind of failure"),
            failures: registry
                .family("tricord_ingester_shard_failures_total", "Shard writes given up, by kind of failure"),
        }
    }

    pub(crate) fn written(&self, protocol: &'static str, written: &Written) {
        let label = ProtocolLabel { protocol };
        let samples = written.samples + written.histograms;
        for (family, count) in
            [(&self.samples, samples), (&self.exemplars, written.exemplars), (&self.spans, written.spans)]
        {
            // A request without samples makes no series of zeros for its protocol.
            if count > 0 {
                family.get_or_create(&label).inc_by(count);
            }
        }
    }

    pub(crate) fn rejected(&self, reason: &'static str, rejected: &Rejected) {
        let counts =
            [("samples", rejected.samples), ("exemplars", rejected.exemplars), ("spans", rejected.spans)];
        for (signal, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.rejected.get_or_create(&RejectedLabel { signal, reason }).inc_by(count);
        }
    }
}
