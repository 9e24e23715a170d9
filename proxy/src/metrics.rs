//! What the proxy counts of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tricord_runtime::latency_histogram;

/// Queries by kind and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueryLabels {
    /// `instant`, `range`, `series`, `labels`, `exemplars`, `metadata`, `status`, `read` or `trace`.
    pub kind: &'static str,
    /// `ok`, `partial`, or the class of the error.
    pub outcome: &'static str,
}

/// The proxy's metrics; clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Queries answered.
    pub queries: Family<QueryLabels, Counter>,
    /// Time from a query's arrival to its answer, in seconds.
    pub query_seconds: Histogram,
    /// Queries running.
    pub running: Gauge,
    /// Queries that wait for their turn.
    pub queued: Gauge,
    /// Queries refused because too many wait.
    pub refused: Counter,
    /// Time of one fragment on one node as the proxy sees it, in seconds.
    pub fragment_seconds: Histogram,
    /// Bytes of partials received.
    pub partial_bytes: Counter,
    /// Fragments sent again to another replica.
    pub retries: Counter,
    /// Fragments sent to a second replica because the first was slow.
    pub hedges: Counter,
    /// Shards that were missing in answers.
    pub missing_shards: Counter,
    /// Raw samples that queries have read.
    pub samples: Counter,
    /// Panics caught.
    pub panics: Counter,
}

impl Metrics {
    /// Makes and registers the metrics, as `tricord_proxy_…`.
    #[must_use]
    pub fn new(registry: &tricord_runtime::Metrics) -> Self {
        let r = registry;
        let latency = |name: &str, help: &str| r.register(name, help, latency_histogram);
        Self {
            queries: r.family("tricord_proxy_queries_total", "Queries answered, by kind and outcome"),
            query_seconds: latency(
                "tricord_proxy_query_seconds",
                "Time from a query's arrival to its answer",
            ),
            running: r.gauge("tricord_proxy_queries_running", "Queries that run now"),
            queued: r.gauge("tricord_proxy_queries_queued", "Queries that wait for their turn"),
            refused: r.counter("tricord_proxy_queries_refused_total", "Queries refused as too many wait"),
            fragment_seconds: latency("tricord_proxy_fragment_seconds", "Time of one fragment on one node"),
            partial_bytes: r.counter("tricord_proxy_partial_bytes_total", "Bytes of partials received"),
            retries: r
                .counter("tricord_proxy_fragment_retries_total", "Fragments sent again to another replica"),
            hedges: r
                .counter("tricord_proxy_fragment_hedges_total", "Fragments sent to a second replica too"),
            missing_shards: r
                .counter("tricord_proxy_missing_shards_total", "Shards that were missing in answers"),
            samples: r.counter("tricord_proxy_samples_read_total", "Raw samples that queries have read"),
            panics: r.counter("tricord_proxy_panics_total", "Panics caught while answering"),
        }
    }
}
