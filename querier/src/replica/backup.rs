//! Copies of shards for backups, from any replica that is in sync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tricord_model::{Epoch, Seq, ShardId};
use tricord_replication::Shard;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};

use super::chunks::CHUNKS_AHEAD;
use super::{Replicas, not_here};

/// How long entries may take until they are committed, and how often that is looked at. A follower learns it with the next
/// beacon.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);
const COMMIT_POLL: Duration = Duration::from_millis(10);

impl Replicas {
    /// A shard's committed state, with everything that was acknowledged before this call.
    ///
    /// # Errors
    /// `StaleEpoch` and `NotServing` where another replica or another map is to be asked, `Unavailable` where entries are
    /// not committed in time, `Corrupt` where this copy is damaged; chunks may be errors too.
    pub(crate) async fn backup(
        self: &Arc<Self>,
        request: pb::BackupRequest,
    ) -> Result<ResponseStream<pb::SnapshotChunk>, Error> {
        self.check_meant(&request.cluster_id, request.to_node)?;
        let shard = ShardId(request.shard);
        let turn = self.backups.clone().acquire_owned().await.map_err(Error::internal)?;
        // While its lease runs, this replica has all that was acknowledged; what of that is committed it may not know yet.
        self.readable(shard, Epoch(request.epoch))?;
        let hosted = self.shard(shard).ok_or_else(|| not_here(shard))?;
        let wanted = hosted.peek(Shard::durable_seq);
        self.wait_committed(shard, wanted).await?;
        let store = self.store.clone();
        // It may wait for a snapshot that goes in, as long as the network takes.
        let taking = tokio::task::spawn_blocking(move || {
            let (end, chunks) = store.snapshot(shard)?;
            Ok::<_, Error>((end, chunks, store.classes_of(shard)?))
        });
        let (end, chunks, classes) = taking.await.map_err(Error::internal)??;
        if end.seq < wanted {
            let text =
                format!("shard {shard} was replaced before it could be copied: it ends at {}", end.seq);
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        let (format, window_ms) = self.store.layout();
        let header = pb::SnapshotHeader {
            cluster_id: self.cluster_id.clone(),
            from_node: self.node.0,
            to_node: 0,
            shard: shard.0,
            epoch: request.epoch,
            last_seq: end.seq.0,
            last_epoch: end.epoch.0,
            format,
            window_ms,
            classes,
        };
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let replicas = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            match replicas.send_chunks(header, chunks, &replicas.metrics.backup_bytes, &sender) {
                Ok(()) => {
                    replicas.metrics.backups.inc();
                    tracing::info!(shard = shard.0, last = end.seq.0, "gave a copy for a backup");
                }
                Err(error) => tracing::warn!(shard = shard.0, %error, "cannot give a copy for a backup"),
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn wait_committed(&self, shard: ShardId, wanted: Seq) -> Result<(), Error> {
        let started = Instant::now();
        while self.store.committed(shard) < wanted {
            if started.elapsed() > COMMIT_LIMIT {
                let text = format!(
                    "entries of shard {shard} up to {wanted} are not committed: too few of its replicas answer"
                );
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            tokio::time::sleep(COMMIT_POLL).await;
        }
        Ok(())
    }
}
