//! The life of a data node: open, register, serve, drain.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tricord_metadata_client::{Cluster, Heartbeat, Identity, NodeAddress, ReplicaReport, Report};
use tricord_runtime::{Health, MemoryBudget, Metrics as Registry, Shutdown, blocking};
use tricord_wire::{DataNode, DataNodeServer};

use crate::exec::Threads;
use crate::maintain::Maintenance;
use crate::metrics::{Metrics, StoreCollector};
use crate::replica::{Parts, Replicas};
use crate::service::Service;
use crate::storage::{Progress, Store};
use crate::write::Writer;
use crate::{Config, Error};

/// How long a start waits for metadata before it gives up.
const REGISTER_LIMIT: Duration = Duration::from_secs(120);
/// A replay that takes longer tells how far it is every so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// How often the report for metadata is made.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What a data node needs from its process.
pub struct Deps {
    /// The metadata service.
    pub cluster: Cluster,
    /// The process' metrics.
    pub metrics: Registry,
    /// The process' memory bound.
    pub memory: MemoryBudget,
    /// The process' readiness: `shards` is added to it.
    pub health: Health,
    /// Where others reach this node. The role is the process' (`querier`, or `all`).
    pub address: NodeAddress,
}

/// A running data node.
pub struct Querier {
    service: Arc<Service>,
    pub(crate) replicas: Arc<Replicas>,
    identity: Identity,
    heartbeat: Heartbeat,
    maintenance: Maintenance,
    draining: Arc<AtomicBool>,
    shutdown: Shutdown,
}

/// Opens the store in the data directory, registers with metadata, and begins to serve the shards that the map gives.
/// The node is added to `deps.cluster` as a local one. It runs until [`Querier::stop`], also after `shutdown` is
/// triggered: that only tells the replicas to stop following the map.
///
/// # Errors
/// [`Error`] when the directory is in use, newer or damaged, or metadata does not take the node.
pub async fn start(config: Config, deps: Deps, shutdown: Shutdown) -> Result<Querier, Error> {
    let metrics = Metrics::new(&deps.metrics);
    let timing = config.timing()?;
    let store = open(&config).await?;
    deps.metrics.registry().register_collector(Box::new(StoreCollector(store.clone())));
    let dir = config.data_dir.join("querier");
    std::fs::create_dir_all(&dir)
        .map_err(|error| Error::Io(format!("cannot make {}: {error}", dir.display())))?;
    let address = NodeAddress { zone: config.zone.clone(), ..deps.address };
    let identity =
        deps.cluster.register(Some(&dir), &address, REGISTER_LIMIT).await.map_err(Error::Cluster)?;
    tracing::info!(node = identity.node_id.0, cluster = %identity.cluster_id, "data node registered");
    // Replicas go on until the node is drained, which comes after the servers have stopped taking requests.
    let running = Shutdown::new();
    let replicas = Replicas::start(Parts {
        node: identity.node_id,
        cluster_id: identity.cluster_id.clone(),
        store: store.clone(),
        cluster: deps.cluster.clone(),
        dir,
        timing,
        snapshot_bytes_per_s: config.snapshot_bytes_per_s,
        metrics: metrics.clone(),
        shutdown: running.clone(),
    });
    let draining = Arc::new(AtomicBool::new(shutdown.is_triggered()));
    let writer = Writer::new(&config, replicas.clone(), deps.memory.clone(), &deps.metrics, metrics.clone());
    let service = Arc::new(Service {
        replicas: replicas.clone(),
        writer,
        threads: Threads::new(config.max_concurrent_queries, &deps.metrics),
        max_queued: config.max_queued_queries,
        metrics: metrics.clone(),
        draining: draining.clone(),
    });
    let (forgetting, until) = (service.clone(), running.clone());
    tokio::spawn(async move { forgetting.writer.keep_forgetting(until).await });
    deps.cluster.set_local(identity.node_id, service.clone());
    let latest = keep_reporting(replicas.clone(), config.data_dir.clone(), running.clone());
    let report = move || latest.lock().clone();
    let heartbeat = deps.cluster.start_heartbeat(&identity, &address, report).map_err(Error::Cluster)?;
    let checked = replicas.clone();
    deps.health.check("shards", move || checked.ready());
    let maintenance = Maintenance::start(store, deps.memory, metrics, config.merge_bytes_per_s)?;
    Ok(Querier { service, replicas, identity, heartbeat, maintenance, draining, shutdown: running })
}

impl Querier {
    /// What other roles talk to.
    #[must_use]
    pub fn service(&self) -> Arc<dyn DataNode> {
        self.service.clone()
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether every shard that the map gives this node is in sync; else what is waited for.
    ///
    /// # Errors
    /// The text says what is not ready.
    pub fn ready(&self) -> Result<(), String> {
        self.replicas.ready()
    }

    /// Drains: lets others lead its shards, says goodbye to metadata, stops replication, writes out what is in memory,
    /// closes the log.
    ///
    /// # Errors
    /// [`Error::Storage`] when memory could not be written out; what was acknowledged is in the log all the same.
    pub async fn stop(self) -> Result<(), Error> {
        // Writes are taken until then, so that none waits for longer than the change takes.
        self.replicas.hand_over().await;
        self.draining.store(true, Ordering::Relaxed);
        self.heartbeat.stop().await;
        self.shutdown.trigger();
        let (store, maintenance) = (self.replicas.store.clone(), self.maintenance);
        let flushed = blocking(move || {
            maintenance.stop();
            let flushed = store.flush();
            store.close();
            flushed
        });
        let report = flushed.await?;
        tracing::info!(windows = report.windows, bytes = report.bytes, "data node flushed and stopped");
        Ok(())
    }

    /// Ends everything without draining, as a crash would, but lets go of the directory.
    #[cfg(test)]
    pub(crate) async fn kill(self) {
        self.shutdown.trigger();
        drop(self.heartbeat);
        let (store, maintenance) = (self.replicas.store.clone(), self.maintenance);
        blocking(move || {
            maintenance.stop();
            store.close();
        })
        .await;
    }
}

/// Runs a data node in a process of its own: serves gRPC on the listener until shutdown, then drains.
///
/// # Errors
/// As [`start`], and [`Error::Io`] when serving fails.
pub async fn run(config: Config, listener: TcpListener, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    let querier = start(config, deps, shutdown.clone()).await?;
    let routes = tonic::service::Routes::new(DataNodeServer::service(querier.service()));
    let served = tricord_runtime::serve_grpc(listener, routes, shutdown).await;
    querier.stop().await?;
    served.map_err(|error| Error::Io(error.to_string()))
}

async fn open(config: &Config) -> Result<Arc<Store>, Error> {
    let store = config.store()?;
    std::fs::create_dir_all(&store.dir)
        .map_err(|error| Error::Io(format!("cannot make {}: {error}", store.dir.display())))?;
    let opened = blocking(move || {
        let last = parking_lot::Mutex::new(std::time::Instant::now());
        let progress = |progress: Progress| {
            let mut last = last.lock();
            if last.elapsed() >= PROGRESS_EVERY {
                *last = std::time::Instant::now();
                let percent = progress.done_bytes * 100 / progress.total_bytes.max(1);
                tracing::info!(
                    percent,
                    done = progress.done_bytes,
                    total = progress.total_bytes,
                    "replaying the log"
                );
            }
        };
        Store::open(store, &progress)
    });
    Ok(opened.await?)
}

/// What heartbeats tell, made anew again and again on another thread than theirs: the store may keep whoever asks it
/// waiting for longer than a node counts as alive.
fn keep_reporting(replicas: Arc<Replicas>, dir: PathBuf, shutdown: Shutdown) -> Arc<Mutex<Report>> {
    let latest = Arc::new(Mutex::new(Report::default()));
    let kept = latest.clone();
    tokio::spawn(async move {
        while !shutdown.is_triggered() {
            let (replicas, dir) = (replicas.clone(), dir.clone());
            let report = blocking(move || {
                replicas.hold_log();
                report(&replicas, &dir)
            });
            let report = report.await;
            *kept.lock() = report;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(REPORT_EVERY) => {}
            }
        }
    });
    latest
}

fn report(replicas: &Arc<Replicas>, dir: &Path) -> Report {
    let now_ms = replicas.now_ms();
    let report_of = |hosted: Arc<crate::replica::Hosted>| {
        let status = hosted.peek(|machine| machine.status(now_ms));
        ReplicaReport {
            shard: hosted.id.0,
            epoch: status.epoch.0,
            durable_seq: status.durable.0,
            committed_seq: status.committed.0,
            series: replicas.store.series_in(hosted.id),
            bytes: 0,
            arrived_bytes: hosted.arrived_bytes.load(Ordering::Relaxed),
        }
    };
    let stats = replicas.store.stats();
    Report {
        replicas: replicas.all().into_iter().map(report_of).collect(),
        disk_used_bytes: stats.disk_bytes + stats.log_bytes,
        disk_free_bytes: free_bytes(dir),
    }
}

/// Bytes that this process may still write to the file system of a directory; 0 where that is unknown.
fn free_bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}
