//! What the handle tells about itself.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Shared by the watch loop, the callers and the heartbeat thread.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) map_age_seconds: Gauge<f64, AtomicU64>,
    pub(crate) map_version: Gauge,
    pub(crate) retries: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) heartbeat_failures: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, metric: Gauge| registry.register(name, help, metric);
        add(
            "tricord_metadata_client_map_version",
            "Version of the shard map in use",
            self.map_version.clone(),
        );
        registry.register(
            "tricord_metadata_client_map_age_seconds",
            "Time since metadata last confirmed the shard map in use",
            self.map_age_seconds.clone(),
        );
        let mut add =
            |name: &str, help: &str, metric: &Counter| registry.register(name, help, metric.clone());
        add("tricord_metadata_client_retries", "Calls to metadata that were tried again", &self.retries);
        add("tricord_metadata_client_heartbeats", "Heartbeats that metadata took", &self.heartbeats);
        add(
            "tricord_metadata_client_heartbeat_failures",
            "Heartbeats that no metadata member took",
            &self.heartbeat_failures,
        );
    }
}
