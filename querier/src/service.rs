//! The data node's interface to the other roles: each call checked, then handed to writing, replication or execution.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;
use tracing::Instrument;
use tricord_fragment::{Fragment, Partial};
use tricord_model::{Epoch, ShardId, Tenant};
use tricord_runtime::blocking;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{DataNode, Error, ErrorKind, ResponseStream};

use crate::exec::{Task, Threads, too_many_bytes, work_off};
use crate::maintain::now_ms;
use crate::metrics::Metrics;
use crate::replica::Replicas;
use crate::storage::{self, CleanReport, MergeReport, Store};
use crate::write::Writer;

/// Bytes of a partial per message.
const CHUNK_BYTES: usize = 1 << 20;
/// How long a fragment may run when its caller names no limit.
const MAX_QUERY_TIME: Duration = Duration::from_secs(120);

/// How long cleaning tries again while deletes are left, and after which wait.
const MAX_CLEAN_WAIT: Duration = Duration::from_secs(20);
const CLEAN_AGAIN: Duration = Duration::from_millis(500);

/// A data node.
pub(crate) struct Service {
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) writer: Writer,
    pub(crate) threads: Threads,
    pub(crate) max_queued: usize,
    pub(crate) metrics: Metrics,
    pub(crate) draining: Arc<AtomicBool>,
}

/// Stops a query whose caller is gone or whose time is over.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl DataNode for Service {
    async fn write(&self, request: pb::WriteRequest) -> Result<pb::WriteResponse, Error> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "this data node is shutting down"));
        }
        self.writer.write(request).await
    }

    async fn delete(&self, request: pb::DeleteRequest) -> Result<pb::WriteResponse, Error> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "this data node is shutting down"));
        }
        self.writer.delete(request).await
    }

    async fn replicate(&self, request: pb::ReplicateRequest) -> Result<pb::ReplicateResponse, Error> {
        self.replicas.replicate(request).await
    }

    async fn beacon(&self, request: pb::BeaconRequest) -> Result<pb::BeaconResponse, Error> {
        self.replicas.answer_beacon(&request)
    }

    async fn install_snapshot(
        &self,
        chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        self.replicas.install_snapshot(chunks).await
    }

    async fn backup(&self, request: pb::BackupRequest) -> Result<ResponseStream<pb::SnapshotChunk>, Error> {
        self.replicas.backup(request).await
    }

    async fn restore(
        &self,
        chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        self.replicas.restore(chunks).await
    }

    async fn execute(&self, request: pb::ExecuteRequest) -> Result<ResponseStream<pb::ExecuteChunk>, Error> {
        let started = Instant::now();
        let span = request_span(&request);
        let result = self.run(request).instrument(span).await;
        self.metrics.query(result.as_ref().map_or_else(|error| error.kind.as_str(), |_| "answered"));
        self.metrics.query_seconds.observe(started.elapsed().as_secs_f64());
        let partial = result?;
        self.metrics.partial_bytes.observe(partial.len() as f64);
        Ok(futures::stream::iter(chunks_of(partial).map(Ok)).boxed())
    }

    async fn flush(&self, request: pb::FlushRequest) -> Result<pb::FlushResponse, Error> {
        let started = Instant::now();
        loop {
            let (store, draining) = (self.replicas.store.clone(), self.draining.clone());
            let answer = blocking(move || flush(&store, request, &draining)).await?;
            // A follower learns a little later that an entry is committed, and writes out nothing before.
            if answer.deletes_left == 0 || started.elapsed() > MAX_CLEAN_WAIT {
                return Ok(answer);
            }
            tokio::time::sleep(CLEAN_AGAIN).await;
        }
    }

    async fn status(&self, _request: pb::NodeStatusRequest) -> Result<pb::NodeStatusResponse, Error> {
        let replicas = self.replicas.clone();
        Ok(blocking(move || status(&replicas)).await)
    }
}

impl Service {
    /// Answers a fragment with an encoded partial.
    async fn run(&self, request: pb::ExecuteRequest) -> Result<Bytes, Error> {
        self.replicas.check_meant(&request.cluster_id, 0)?;
        let invalid = |error: String| Error::new(ErrorKind::Invalid, error);
        let tenant = Tenant::new(&request.tenant).map_err(|error| invalid(error.to_string()))?;
        let compress = !request.uncompressed;
        let fragment = Fragment::decode(&request.fragment).map_err(|error| invalid(error.to_string()))?;
        let shards: Vec<(ShardId, Epoch)> =
            request.shards.iter().map(|part| (ShardId(part.shard), Epoch(part.epoch))).collect();
        self.check_readable(&shards)?;
        if self.threads.computing.waiting() >= self.max_queued {
            let text = "too many query fragments wait on this data node: come back shortly";
            return Err(Error::overloaded(text, Duration::from_secs(1)));
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(cancelled.clone());
        let limit = match request.timeout_ms {
            0 => MAX_QUERY_TIME,
            ms => Duration::from_millis(ms).min(MAX_QUERY_TIME),
        };
        let ids: Vec<ShardId> = shards.iter().map(|(shard, _)| *shard).collect();
        let store = self.replicas.store.clone();
        let max_bytes = fragment.limits.max_bytes;
        let task = Task::new(store, tenant, &ids, fragment, cancelled)?;
        let started = Instant::now();
        let finish = move |task: &Task| {
            let mut partial = task.finish()?;
            partial.stats.micros = started.elapsed().as_micros() as u64;
            encode(&partial, max_bytes, compress)
        };
        let work = work_off(task, &self.threads, self.metrics.cancelled.clone(), finish);
        let late = |_| Error::new(ErrorKind::Timeout, format!("a query fragment took longer than {limit:?}"));
        let partial = timeout(limit, work).await.map_err(late)??;
        // This process may have been stopped meanwhile, and others may have gone on without it.
        self.check_readable(&shards)?;
        Ok(partial)
    }

    fn check_readable(&self, shards: &[(ShardId, Epoch)]) -> Result<(), Error> {
        shards.iter().try_for_each(|(shard, epoch)| self.replicas.readable(*shard, *epoch))
    }
}

/// Writes out what is in memory, and merges and cleans where that is asked for.
fn flush(
    store: &Store,
    request: pb::FlushRequest,
    draining: &AtomicBool,
) -> Result<pb::FlushResponse, storage::Error> {
    let flushed = store.flush()?;
    let goes_on = |_| !draining.load(Ordering::Relaxed);
    let merged = match request.merge {
        true => store.merge(now_ms(), true, &goes_on)?,
        false => MergeReport::default(),
    };
    let cleaned = match request.clean {
        true => store.clean(&goes_on)?,
        false => CleanReport::default(),
    };
    if cleaned.windows > 0 {
        tracing::info!(
            windows = cleaned.windows,
            bytes = cleaned.bytes,
            "what was deleted is removed from disk"
        );
    }
    Ok(pb::FlushResponse {
        windows: flushed.windows,
        bytes: flushed.bytes,
        merged: merged.windows,
        merged_bytes: merged.bytes,
        deletes_left: cleaned.left,
    })
}

fn encode(partial: &Partial, max_bytes: u64, compress: bool) -> Result<Bytes, Error> {
    let bytes = if compress { partial.encode() } else { partial.encode_uncompressed() };
    let bytes = bytes.map_err(Error::internal)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_many_bytes(max_bytes));
    }
    Ok(Bytes::from(bytes))
}

/// The span of a fragment, which continues the caller's trace.
fn request_span(request: &pb::ExecuteRequest) -> tracing::Span {
    if request.traceparent.is_empty() {
        return tracing::Span::none();
    }
    tracing::info_span!(
        target: "tricord::request",
        "execute",
        otel.name = "execute fragment",
        otel.kind = "server",
        tenant = %request.tenant,
        traceparent = %request.traceparent,
        shards = request.shards.len(),
    )
}

fn chunks_of(mut partial: Bytes) -> impl Iterator<Item = pb::ExecuteChunk> {
    std::iter::from_fn(move || {
        (!partial.is_empty()).then(|| {
            let partial = partial.split_to(partial.len().min(CHUNK_BYTES));
            pb::ExecuteChunk { partial }
        })
    })
}

fn status(replicas: &Replicas) -> pb::NodeStatusResponse {
    let now_ms = replicas.now_ms();
    let status_of = |hosted: Arc<crate::replica::Hosted>| {
        let status = hosted.peek(|machine| machine.status(now_ms));
        pb::ReplicaStatus {
            shard: hosted.id.0,
            epoch: status.epoch.0,
            state: status.role.as_str().to_owned(),
            durable_seq: status.durable.0,
            committed_seq: status.committed.0,
            series: replicas.store.series_in(hosted.id),
        }
    };
    let stats = replicas.store.stats();
    let (format, window_ms) = replicas.store.layout();
    pb::NodeStatusResponse {
        node: replicas.node.0,
        replicas: replicas.all().into_iter().map(status_of).collect(),
        disk_bytes: stats.disk_bytes + stats.log_bytes,
        memory_bytes: stats.memory_bytes,
        format,
        window_ms,
        classes: replicas.store.classes(),
    }
}
