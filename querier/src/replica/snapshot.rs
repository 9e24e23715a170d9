//! Copies of whole shards, for joiners whose log is too far back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{Position, SnapshotVerdict};
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};

use super::chunks::{CHUNKS_AHEAD, invalid, next_chunk, take_chunks};
use super::{Hosted, Replicas, not_here};
use crate::storage;

/// How long a whole snapshot may take.
const LIMIT: Duration = Duration::from_secs(3_600);

impl Replicas {
    /// Sends a shard's committed state to a joiner.
    pub(super) async fn send_snapshot(self: Arc<Self>, hosted: Arc<Hosted>, to: NodeId) {
        let shard = hosted.id.0;
        let result = match self.snapshots.acquire().await {
            Ok(_permit) => self.try_snapshot(&hosted, to).await,
            Err(_) => return,
        };
        let end = match result {
            Ok(end) => {
                tracing::info!(shard, node = to.0, last = end.0, "sent a snapshot");
                self.metrics.snapshots_sent.inc();
                Some(end)
            }
            Err(error) => {
                tracing::warn!(shard, node = to.0, %error, "cannot send a snapshot");
                None
            }
        };
        self.machine(&hosted, |machine, now_ms| machine.snapshot_done(now_ms, to, end));
    }

    async fn try_snapshot(self: &Arc<Self>, hosted: &Arc<Hosted>, to: NodeId) -> Result<Seq, Error> {
        let epoch = hosted.peek(|machine| machine.view().epoch);
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let (replicas, shard) = (self.clone(), hosted.id);
        // Reading follows the receiver's pace: a full channel blocks this thread. A receiver that goes away ends it.
        let reading = tokio::task::spawn_blocking(move || replicas.read_snapshot(shard, epoch, to, &sender));
        let node = self.cluster.data_node(to)?;
        let sent = timeout(LIMIT, node.install_snapshot(ReceiverStream::new(receiver).boxed())).await;
        let sent = sent.map_err(|_| Error::new(ErrorKind::Timeout, "the snapshot took too long"))?;
        match sent {
            // The receiver may have had it all before the last chunk was read.
            Ok(taken) => Ok(Seq(taken.durable_seq)),
            Err(refused) => {
                reading.await.map_err(Error::internal)??;
                Err(refused)
            }
        }
    }

    fn read_snapshot(
        &self,
        shard: ShardId,
        epoch: Epoch,
        to: NodeId,
        sender: &mpsc::Sender<Result<pb::SnapshotChunk, Error>>,
    ) -> Result<(), Error> {
        let (end, chunks) = self.store.snapshot(shard)?;
        let header = pb::SnapshotHeader {
            cluster_id: self.cluster_id.clone(),
            from_node: self.node.0,
            to_node: to.0,
            shard: shard.0,
            epoch: epoch.0,
            last_seq: end.seq.0,
            last_epoch: end.epoch.0,
            ..pb::SnapshotHeader::default()
        };
        self.send_chunks(header, chunks, &self.metrics.snapshot_bytes, sender)
    }

    /// Installs a snapshot that a primary sends. The work ends in an orderly way when the caller is gone.
    pub(crate) async fn install_snapshot(
        self: &Arc<Self>,
        chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        let replicas = self.clone();
        tokio::spawn(async move { replicas.take_snapshot(chunks).await }).await.map_err(Error::internal)?
    }

    async fn take_snapshot(
        self: &Arc<Self>,
        mut chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        let first = next_chunk(&mut chunks).await?;
        let header = first.header.clone().ok_or_else(|| invalid("the first chunk has no header"))?;
        self.check_meant(&header.cluster_id, header.to_node)?;
        let shard = ShardId(header.shard);
        let hosted = self.shard(shard).ok_or_else(|| not_here(shard))?;
        let _fill = self.fills.acquire().await.map_err(Error::internal)?;
        let _turn = hosted.turn.lock().await;
        let (from, epoch) = (NodeId(header.from_node), Epoch(header.epoch));
        let end = Seq(header.last_seq);
        match self.machine(&hosted, |machine, _| machine.judge_snapshot(from, epoch, end)) {
            SnapshotVerdict::Install => {}
            SnapshotVerdict::Held(held) => {
                return Ok(pb::SnapshotResponse { shard: shard.0, durable_seq: held.0 });
            }
            SnapshotVerdict::Refused => {
                let text =
                    format!("shard {shard} does not take a snapshot from node {from} under epoch {epoch}");
                return Err(Error::new(ErrorKind::StaleEpoch, text));
            }
        }
        let end = Position { seq: end, epoch: Epoch(header.last_epoch) };
        let replicas = self.clone();
        let target = hosted.clone();
        take_chunks(first, chunks, move |chunks| replicas.install(&target, end, chunks)).await?;
        self.metrics.snapshots_installed.inc();
        tracing::info!(shard = shard.0, last = end.seq.0, "installed a snapshot");
        Ok(pb::SnapshotResponse { shard: shard.0, durable_seq: end.seq.0 })
    }

    fn install(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        end: Position,
        chunks: &mut dyn Iterator<Item = Result<Vec<u8>, storage::Error>>,
    ) -> Result<(), Error> {
        let _order = hosted.order.lock();
        self.forget_after(0)?;
        let position = storage::Position { seq: end.seq, epoch: end.epoch };
        let mut counted = chunks.inspect(|chunk| {
            let bytes = chunk.as_ref().map_or(0, Vec::len);
            hosted.arrived_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        });
        let installed = self.store.install(hosted.id, position, &mut counted);
        hosted.arrived_bytes.store(0, Ordering::Relaxed);
        if installed.is_err() {
            // What was there is gone: the replica begins anew, under the epoch that it has answered under.
            self.store.create_shard(hosted.id)?;
            self.store.store_epoch(hosted.id, hosted.peek(|machine| machine.stored_epoch()))?;
        }
        let end = if installed.is_ok() { end } else { Position::default() };
        self.machine(hosted, |machine, _| machine.installed(end));
        Ok(installed?)
    }
}
