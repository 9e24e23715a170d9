//! The query proxy: Grafana's APIs in, fragments out to data nodes, partials merged.
//!
//! A request goes `api` → `plan` → `scatter` → `merge` → the engine of `tricord_promql` over what was merged → `render`.
//! Remote read takes the same way without plan and engine. Only `api`, `query`, `scatter` and the front of
//! `remote_read` are asynchronous; planning, merging, rendering and encoding are plain functions. The proxy keeps no
//! state but its view of the cluster.

pub mod api;
mod config;
mod delete;
mod error;
pub mod merge;
mod metrics;
pub mod plan;
pub mod query;
mod remote_read;
pub mod render;
pub mod scatter;
mod status;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use tricord_metadata_client::Cluster;

pub use api::not_found;
pub use config::Config;
pub use error::{Error, ErrorKind};
pub use metrics::{Metrics, QueryLabels};

use config::Settings;
use query::{Engine, Gate};
use scatter::{Scatter, ScatterConfig};
use status::ClusterStatus;

/// What the proxy needs of the process around it.
#[derive(Clone)]
pub struct Deps {
    /// The cluster's map and the clients for its data nodes.
    pub cluster: Cluster,
    /// Where it registers its metrics.
    pub metrics: tricord_runtime::Metrics,
}

/// The query proxy; clones are the same proxy.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    engine: Engine,
    status: ClusterStatus,
    started_ms: i64,
}

impl Proxy {
    /// A proxy over a cluster.
    ///
    /// # Errors
    /// [`Error::BadData`] where a setting makes no sense.
    pub fn new(config: Config, deps: Deps) -> Result<Self, Error> {
        let settings = Arc::new(Settings::new(config)?);
        let metrics = Metrics::new(&deps.metrics);
        let scatter_config = ScatterConfig {
            max_in_flight: settings.config.max_fragments_in_flight.max(1),
            retry_for: settings.missing_shard_wait,
            hedge_after: settings.hedge_after,
        };
        let status = ClusterStatus::new(deps.cluster.clone());
        let scatter = Scatter::new(deps.cluster, scatter_config, metrics.clone());
        let (running, waiting) = (settings.config.max_concurrent_queries, settings.config.max_queued_queries);
        let gate = Gate::new(running, waiting, metrics.clone());
        let engine = Engine { scatter, settings, gate, metrics };
        Ok(Self(Arc::new(Inner { engine, status, started_ms: api::now_ms() })))
    }

    /// All routes, with compression and with panics caught. Unknown paths outside of the proxy's prefixes are for the
    /// caller's fallback, for which [`not_found`] serves.
    pub fn router(&self) -> Router {
        api::router(self)
    }

    /// Whether queries can be answered: what they wait for, where not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<(), String> {
        match self.scatter().cluster().map().shards.is_empty() {
            true => {
                Err("the shard map: the cluster is not initialized, or metadata cannot be reached".to_owned())
            }
            false => Ok(()),
        }
    }

    /// Sends fragments to data nodes.
    #[must_use]
    pub fn scatter(&self) -> &Scatter {
        &self.0.engine.scatter
    }

    /// What the proxy counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.engine.metrics
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.engine.settings
    }

    /// What metadata says of the cluster.
    pub(crate) fn cluster_status(&self) -> &ClusterStatus {
        &self.0.status
    }

    pub(crate) fn started_ms(&self) -> i64 {
        self.0.started_ms
    }

    /// Counts a query and its time by what came of it.
    pub(crate) async fn observe(
        &self,
        kind: &'static str,
        answer: impl Future<Output = Result<api::Reply, Error>>,
    ) -> Result<api::Reply, Error> {
        let started = Instant::now();
        let result = answer.await;
        let outcome = match &result {
            Ok(reply) if reply.missing.is_empty() => "ok",
            Ok(_) => "partial",
            Err(error) => error.kind().as_str(),
        };
        self.count(kind, outcome, started);
        result
    }

    /// Counts a query that ends now.
    pub(crate) fn count(&self, kind: &'static str, outcome: &'static str, started: Instant) {
        self.metrics().queries.get_or_create(&QueryLabels { kind, outcome }).inc();
        self.metrics().query_seconds.observe(started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
