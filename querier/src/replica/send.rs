//! Sending log entries: per peer one loop for the shards it is in sync with, and one for those it catches up on, so
//! that catching up never delays an acknowledgement. A message carries what all shards have for the peer; a shard has
//! one message on its way at a time, a peer several.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tricord_model::{Epoch, NodeId, Seq};
use tricord_replication::{Ack, AckResult, Plan, Position, Pulses};
use tricord_runtime::blocking;
use tricord_wire::proto::datanode as pb;

use super::{Hosted, Replicas};
use crate::storage::Entry;

/// Payload bytes of one message, and of one shard's part of it.
const MAX_MESSAGE_BYTES: usize = 8 << 20;
const MAX_SHARD_BYTES: usize = 2 << 20;
/// Messages on their way to one peer.
const MAX_URGENT: usize = 8;
const MAX_CATCH_UP: usize = 2;
/// How long a replica that catches up may take for a message.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(20);
/// A loop looks for work at least so often, should a wake-up be missed.
const IDLE: Duration = Duration::from_millis(500);

/// Another node.
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) pulses: Mutex<Pulses>,
    pub(super) beacons: AtomicUsize,
    /// For the next beacon.
    pub(super) releases: Mutex<Vec<pb::ReleasedShard>>,
    urgent: Notify,
    catch_up: Notify,
}

impl Peer {
    /// Says that there may be something to send.
    pub(super) fn wake(&self) {
        self.urgent.notify_one();
        self.catch_up.notify_one();
    }
}

/// One shard's part of a message.
struct Part {
    hosted: Arc<Hosted>,
    plan: Plan,
    entries: Vec<Entry>,
}

impl Replicas {
    /// The peer, whose loops are started at first use.
    pub(super) fn peer(self: &Arc<Self>, node: NodeId) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        let peer = peers.entry(node).or_insert_with(|| {
            let peer = Arc::new(Peer {
                node,
                pulses: Mutex::new(Pulses::new(self.session)),
                beacons: AtomicUsize::new(0),
                releases: Mutex::default(),
                urgent: Notify::new(),
                catch_up: Notify::new(),
            });
            tokio::spawn(self.clone().send_loop(peer.clone(), true, MAX_URGENT));
            tokio::spawn(self.clone().send_loop(peer.clone(), false, MAX_CATCH_UP));
            peer
        });
        peer.clone()
    }

    async fn send_loop(self: Arc<Self>, peer: Arc<Peer>, urgent: bool, window: usize) {
        let permits = Arc::new(Semaphore::new(window));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let parts = self.gather(&peer, urgent).await;
            if parts.is_empty() {
                let woken = if urgent { peer.urgent.notified() } else { peer.catch_up.notified() };
                tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    _ = timeout(IDLE, woken) => continue,
                }
            }
            let replicas = self.clone();
            let node = peer.node;
            tokio::spawn(async move {
                replicas.send(node, parts, urgent).await;
                drop(permit);
            });
        }
    }

    /// What all shards have for the peer.
    async fn gather(self: &Arc<Self>, peer: &Arc<Peer>, urgent: bool) -> Vec<Part> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        for hosted in self.all() {
            if bytes >= MAX_MESSAGE_BYTES {
                peer.wake();
                break;
            }
            let plan = self.with(&hosted, |state, now_ms| {
                let in_sync = state.machine.view().in_sync.contains(&peer.node);
                let plan = (in_sync == urgent).then(|| state.machine.plan(now_ms, peer.node)).flatten()?;
                let wanted = plan.last > plan.previous.seq;
                let entries =
                    if wanted { state.tail.after(plan.previous.seq, MAX_SHARD_BYTES) } else { Some(vec![]) };
                Some((plan, entries))
            });
            let Some((plan, entries)) = plan else { continue };
            let entries = match entries {
                Some(entries) => entries,
                None => match self.read_back(&hosted, &plan, peer.node).await {
                    Some(entries) => entries,
                    None => continue,
                },
            };
            bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
            parts.push(Part { hosted, plan, entries });
        }
        parts
    }

    /// Entries that are no longer in memory, from the log.
    async fn read_back(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        plan: &Plan,
        to: NodeId,
    ) -> Option<Vec<Entry>> {
        let (store, shard, after) = (self.store.clone(), hosted.id, plan.previous.seq);
        let read = blocking(move || store.entries(shard, after, MAX_SHARD_BYTES)).await;
        let ticket = plan.ticket;
        match read {
            Ok(Some(entries)) if entries.first().is_some_and(|first| first.seq == after.next()) => {
                return Some(entries.into_iter().filter(|entry| entry.seq <= plan.last).collect());
            }
            Ok(None) => self.machine(hosted, |machine, _| machine.needs_snapshot(to, ticket)),
            Ok(Some(_)) => self.machine(hosted, |machine, now_ms| machine.send_failed(now_ms, to, ticket)),
            Err(error) => {
                tracing::error!(shard = shard.0, %error, "cannot read the log back");
                self.machine(hosted, |machine, now_ms| machine.send_failed(now_ms, to, ticket));
            }
        }
        None
    }

    async fn send(self: &Arc<Self>, to: NodeId, parts: Vec<Part>, urgent: bool) {
        let request = pb::ReplicateRequest {
            cluster_id: self.cluster_id.clone(),
            from_node: self.node.0,
            to_node: to.0,
            shards: parts.iter().map(message_of).collect(),
        };
        let started = self.now_ms();
        let limit = match urgent {
            true => Duration::from_millis(self.timing.follower_timeout_ms),
            false => CATCH_UP_LIMIT,
        };
        let answer = match self.cluster.data_node(to) {
            Ok(node) => timeout(limit, node.replicate(request)).await,
            Err(error) => Ok(Err(error)),
        };
        self.metrics.replicated(self.now_ms() - started, &answer);
        let acks = match answer {
            Ok(Ok(answer)) => answer.shards,
            Ok(Err(error)) => {
                tracing::debug!(node = to.0, %error, "a message was not taken");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        for part in parts {
            let ack = acks.iter().find(|ack| ack.shard == part.hosted.id.0).map(ack_of);
            let ticket = part.plan.ticket;
            self.machine(&part.hosted, |machine, now_ms| match ack {
                Some(ack) => machine.acked(now_ms, to, ticket, ack),
                None => machine.send_failed(now_ms, to, ticket),
            });
        }
    }
}

fn message_of(part: &Part) -> pb::ShardEntries {
    let entry_of = |entry: &Entry| pb::LogEntry {
        seq: entry.seq.0,
        epoch: entry.epoch.0,
        payload: entry.payload.clone(),
    };
    pb::ShardEntries {
        shard: part.hosted.id.0,
        epoch: part.plan.epoch.0,
        previous_seq: part.plan.previous.seq.0,
        previous_epoch: part.plan.previous.epoch.0,
        entries: part.entries.iter().map(entry_of).collect(),
        committed_seq: part.plan.committed.0,
        epoch_start: part.plan.epoch_start.0,
    }
}

fn ack_of(ack: &pb::ShardAck) -> Ack {
    use pb::shard_ack::Result as Wire;
    let result = match ack.result() {
        Wire::Ok => AckResult::Ok,
        Wire::Mismatch => AckResult::Mismatch,
        Wire::StaleEpoch => AckResult::Stale,
        Wire::NotReplica => AckResult::NotReplica,
        Wire::Failed => AckResult::Failed,
    };
    Ack {
        epoch: Epoch(ack.epoch),
        result,
        durable: Position { seq: Seq(ack.durable_seq), epoch: Epoch(ack.durable_epoch) },
        committed: Seq(ack.committed_seq),
    }
}
