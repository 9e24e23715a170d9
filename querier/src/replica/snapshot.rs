//! Copies of whole shards, for joiners whose log is too far back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{Position, SnapshotVerdict};
use tricord_runtime::blocking;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};

use super::{Hosted, Replicas, not_here};
use crate::storage;

/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 4;
/// How long a whole snapshot may take.
const LIMIT: Duration = Duration::from_secs(3_600);
/// How long the next chunk may take.
const CHUNK_LIMIT: Duration = Duration::from_secs(60);

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

    /// Waits until a chunk may be sent. On the thread that reads the snapshot.
    fn pace(&self, bytes: usize) {
        let wait = self.throttle.take(Instant::now(), bytes);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        self.metrics.snapshot_bytes.inc_by(bytes as u64);
        self.metrics.snapshot_wait_ms.inc_by(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
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
        };
        let mut header = Some(header);
        let gone = |_| Error::new(ErrorKind::Cancelled, "the receiver of a snapshot went away");
        for chunk in chunks {
            let chunk = match chunk {
                Ok(data) => {
                    self.pace(data.len());
                    let crc = crc32c::crc32c(&data);
                    pb::SnapshotChunk { header: header.take(), data: data.into(), crc, last: false }
                }
                Err(error) => {
                    let error = Error::from(error);
                    sender.blocking_send(Err(error.clone())).map_err(gone)?;
                    return Err(error);
                }
            };
            sender.blocking_send(Ok(chunk)).map_err(gone)?;
        }
        let last = pb::SnapshotChunk { header: header.take(), last: true, ..Default::default() };
        sender.blocking_send(Ok(last)).map_err(gone)
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
        let _turn = hosted.turn.lock().await;
        let (from, epoch) = (NodeId(header.from_node), Epoch(header.epoch));
        let end = Seq(header.last_seq);
        match hosted.peek(|machine| machine.judge_snapshot(from, epoch, end)) {
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
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let replicas = self.clone();
        let installing = {
            let hosted = hosted.clone();
            blocking(move || replicas.install(&hosted, end, receiver))
        };
        let feeding = feed(first, chunks, sender);
        let (installed, ()) = tokio::join!(installing, feeding);
        installed?;
        self.metrics.snapshots_installed.inc();
        tracing::info!(shard = shard.0, last = end.seq.0, "installed a snapshot");
        Ok(pb::SnapshotResponse { shard: shard.0, durable_seq: end.seq.0 })
    }

    fn install(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        end: Position,
        mut receiver: mpsc::Receiver<Piece>,
    ) -> Result<(), Error> {
        let _order = hosted.order.lock();
        let position = storage::Position { seq: end.seq, epoch: end.epoch };
        let mut chunks = std::iter::from_fn(|| match receiver.blocking_recv() {
            Some(Piece::Data(data)) => Some(Ok(data)),
            Some(Piece::End) => None,
            Some(Piece::Failed(why)) => Some(Err(storage::Error::Corrupt(why))),
            None => Some(Err(storage::Error::Corrupt("the snapshot was interrupted".to_owned()))),
        });
        let installed = self.store.install(hosted.id, position, &mut chunks);
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

/// What the installing thread is handed: only an explicit end completes a snapshot.
enum Piece {
    Data(Vec<u8>),
    End,
    Failed(String),
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

async fn next_chunk(chunks: &mut ResponseStream<pb::SnapshotChunk>) -> Result<pb::SnapshotChunk, Error> {
    let late = |_| Error::new(ErrorKind::Timeout, "the sender of a snapshot went silent");
    let chunk = timeout(CHUNK_LIMIT, chunks.next()).await.map_err(late)?;
    let chunk = chunk.ok_or_else(|| invalid("a snapshot ended before its last chunk"))??;
    if crc32c::crc32c(&chunk.data) != chunk.crc {
        return Err(Error::new(ErrorKind::Corrupt, "a chunk of a snapshot was damaged on its way"));
    }
    Ok(chunk)
}

/// Hands chunks to the installing thread; a failure becomes the store's, so that nothing half is kept. Where the thread
/// has given up already there is nobody to hand to.
async fn feed(
    first: pb::SnapshotChunk,
    mut chunks: ResponseStream<pb::SnapshotChunk>,
    sender: mpsc::Sender<Piece>,
) {
    let mut chunk = first;
    loop {
        if !chunk.data.is_empty() && sender.send(Piece::Data(chunk.data.to_vec())).await.is_err() {
            return;
        }
        if chunk.last {
            let _ = sender.send(Piece::End).await;
            return;
        }
        chunk = match next_chunk(&mut chunks).await {
            Ok(next) => next,
            Err(error) => {
                let _ = sender.send(Piece::Failed(error.message)).await;
                return;
            }
        };
    }
}
