//! Taking log entries from primaries.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{Ack, AckResult, Entries, Position, Shard, Verdict};
use tricord_runtime::blocking;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind};

use super::{Hosted, Replicas};
use crate::storage::{self, Entry};

/// How long appends may take that must be done before the log is cut.
const PENDING_LIMIT: Duration = Duration::from_secs(10);

impl Replicas {
    /// Stores a message's entries. The work goes on when the caller is gone: what the log has taken must be noted.
    pub(crate) async fn replicate(
        self: &Arc<Self>,
        request: pb::ReplicateRequest,
    ) -> Result<pb::ReplicateResponse, Error> {
        self.check_meant(&request.cluster_id, request.to_node)?;
        let from = NodeId(request.from_node);
        let replicas = self.clone();
        let work = async move {
            let parts = request.shards.into_iter().map(|part| replicas.replicate_shard(from, part));
            join_all(parts).await
        };
        let shards = tokio::spawn(work).await.map_err(Error::internal)?;
        Ok(pb::ReplicateResponse { shards })
    }

    async fn replicate_shard(self: &Arc<Self>, from: NodeId, part: pb::ShardEntries) -> pb::ShardAck {
        let shard = part.shard;
        let failed = |result: pb::shard_ack::Result, message: String| pb::ShardAck {
            shard,
            result: result as i32,
            message,
            ..Default::default()
        };
        let Some(hosted) = self.shard(ShardId(shard)) else {
            return failed(pb::shard_ack::Result::NotReplica, "the shard is not on this node".to_owned());
        };
        let message = match entries_of(&part) {
            Ok(message) => message,
            Err(error) => return failed(pb::shard_ack::Result::Failed, error.message),
        };
        match self.store_entries(&hosted, from, message, part.entries).await {
            Ok(ack) => ack_to_proto(shard, ack),
            Err(error) => {
                tracing::error!(shard, %error, "cannot store entries");
                failed(pb::shard_ack::Result::Failed, error.to_string())
            }
        }
    }

    async fn store_entries(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        from: NodeId,
        message: Entries,
        entries: Vec<pb::LogEntry>,
    ) -> Result<Ack, storage::Error> {
        let turn = hosted.turn.lock().await;
        if !self.is_hosted(hosted) {
            // It was let go while this message waited: what its machine believes to have is not there any more.
            let (epoch, durable, committed) = (Epoch(0), Position::default(), Seq(0));
            return Ok(Ack { epoch, result: AckResult::NotReplica, durable, committed });
        }
        self.withhold(hosted, message.epoch)?;
        loop {
            match self.machine(hosted, |machine, _| machine.receive(from, &message)) {
                Verdict::StoreEpoch => self.store_epoch(hosted, message.epoch, None).await?,
                Verdict::Answer(ack) => return Ok(ack),
                Verdict::Cut(after) => self.cut(hosted, after).await?,
                Verdict::Append(skip) => {
                    self.make_room(hosted).await?;
                    let new = message.entries.get(skip..).unwrap_or_default();
                    let payloads = entries.into_iter().skip(skip).map(|entry| entry.payload);
                    let entry_of = |(place, payload): (&Position, _)| Entry {
                        shard: hosted.id,
                        seq: place.seq,
                        epoch: place.epoch,
                        payload,
                    };
                    let entries: Vec<Entry> = new.iter().zip(payloads).map(entry_of).collect();
                    let appended = (!entries.is_empty()).then(|| {
                        self.machine(hosted, |machine, _| machine.append_as_follower(new));
                        self.store.append(entries)
                    });
                    drop(turn);
                    let end = message.entries.last().copied().unwrap_or(message.previous);
                    return self.finish(hosted, message.epoch, end, appended).await;
                }
            }
        }
    }

    /// Waits until entries are durable, and answers.
    async fn finish(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        epoch: Epoch,
        end: Position,
        appended: Option<tokio::sync::oneshot::Receiver<Result<(), storage::Error>>>,
    ) -> Result<Ack, storage::Error> {
        if let Some(appended) = appended {
            appended.await.unwrap_or_else(|_| Err(storage::Error::Closed("the log is closed".to_owned())))?;
            self.machine(hosted, |machine, now_ms| machine.durable_at(now_ms, end));
            hosted.progressed.notify_waiters();
        } else {
            // Entries of an earlier message that was given up may still be on their way to the disk.
            self.wait_durable(hosted, end.seq).await?;
        }
        Ok(hosted.peek(|machine| machine.acknowledge(epoch, end)))
    }

    async fn wait_durable(&self, hosted: &Hosted, seq: Seq) -> Result<(), storage::Error> {
        let wait = async {
            loop {
                let progressed = hosted.progressed.notified();
                tokio::pin!(progressed);
                progressed.as_mut().enable();
                if hosted.peek(|machine| machine.durable_seq() >= seq.min(machine.last().seq)) {
                    return;
                }
                progressed.await;
            }
        };
        let late = |_| storage::Error::Closed("entries do not become durable".to_owned());
        timeout(PENDING_LIMIT, wait).await.map_err(late)
    }

    /// Cuts the log after an entry. The caller has the shard's turn.
    async fn cut(self: &Arc<Self>, hosted: &Arc<Hosted>, after: Seq) -> Result<(), storage::Error> {
        let last = hosted.peek(|machine| machine.last().seq);
        self.wait_durable(hosted, last).await?;
        tracing::info!(
            shard = hosted.id.0,
            after = after.0,
            last = last.0,
            "cutting entries that were never acknowledged"
        );
        self.metrics.cuts.inc();
        let (replicas, hosted) = (self.clone(), hosted.clone());
        blocking(move || {
            let _order = hosted.order.lock();
            replicas.store.cut(hosted.id, after)?;
            replicas.machine(&hosted, |machine: &mut Shard, _| machine.cut(after));
            Ok(())
        })
        .await
    }
}

/// A message without its payloads, checked.
fn entries_of(part: &pb::ShardEntries) -> Result<Entries, Error> {
    let entries: Vec<Position> = part
        .entries
        .iter()
        .map(|entry| Position { seq: Seq(entry.seq), epoch: Epoch(entry.epoch) })
        .collect();
    let mut expected = part.previous_seq;
    for entry in &entries {
        expected += 1;
        if entry.seq.0 != expected || entry.epoch.0 > part.epoch {
            return Err(Error::new(ErrorKind::Invalid, "entries are not in sequence"));
        }
    }
    Ok(Entries {
        epoch: Epoch(part.epoch),
        epoch_start: Seq(part.epoch_start),
        previous: Position { seq: Seq(part.previous_seq), epoch: Epoch(part.previous_epoch) },
        entries,
        committed: Seq(part.committed_seq),
    })
}

fn ack_to_proto(shard: u32, ack: Ack) -> pb::ShardAck {
    use pb::shard_ack::Result as Wire;
    let result = match ack.result {
        AckResult::Ok => Wire::Ok,
        AckResult::Mismatch => Wire::Mismatch,
        AckResult::Stale => Wire::StaleEpoch,
        AckResult::NotReplica => Wire::NotReplica,
        AckResult::Failed => Wire::Failed,
    };
    pb::ShardAck {
        shard,
        epoch: ack.epoch.0,
        durable_seq: ack.durable.seq.0,
        durable_epoch: ack.durable.epoch.0,
        result: result as i32,
        message: String::new(),
        committed_seq: ack.committed.0,
    }
}
