//! Lease beacons between nodes, and the passage of time for all machines. Beacons also tell a new primary that older
//! leases are over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, timeout};
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{BeaconAnswer, BeaconVerdict, Pulse};
use tricord_wire::Error;
use tricord_wire::proto::datanode as pb;

use super::Replicas;
use super::send::Peer;

/// How often the machines are told the time.
const TICK: Duration = Duration::from_millis(20);
/// While a primary waits for its first lease, beacons come so many times as often.
const HURRY: u64 = 5;
/// Beacons on their way to one peer at once; beyond that it is not answering anyway.
const MAX_BEACONS: usize = 4;

impl Replicas {
    /// Ticks and sends beacons until shutdown.
    pub(super) async fn drive(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_beacon_ms = 0;
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let failed = self.log_has_just_failed();
            let mut hurry = false;
            for hosted in self.all() {
                hurry |= self.machine(&hosted, |machine, now_ms| {
                    if failed {
                        machine.log_failed();
                    }
                    machine.tick(now_ms);
                    machine.awaits_lease(now_ms)
                });
            }
            let now_ms = self.now_ms();
            let every_ms = self.timing.beacon_every_ms;
            if now_ms >= next_beacon_ms || (hurry && now_ms + every_ms >= next_beacon_ms + every_ms / HURRY) {
                next_beacon_ms = now_ms + every_ms;
                self.send_beacons();
            }
        }
    }

    /// Whether the log has failed since this was asked last.
    fn log_has_just_failed(&self) -> bool {
        self.store.log_failure().is_some() && !self.log_failed.swap(true, Ordering::AcqRel)
    }

    /// Tells a node that leases from before an epoch are over.
    pub(super) async fn send_release(self: Arc<Self>, peer: Arc<Peer>, shard: ShardId, epoch: Epoch) {
        tracing::debug!(
            shard = shard.0,
            epoch = epoch.0,
            node = peer.node.0,
            "tells a successor that older leases are over"
        );
        peer.releases.lock().push(pb::ReleasedShard { shard: shard.0, epoch: epoch.0 });
        self.exchange_beacon(&peer).await;
        self.releasing.fetch_sub(1, Ordering::AcqRel);
    }

    fn send_beacons(self: &Arc<Self>) {
        let mut peers = BTreeSet::new();
        for hosted in self.all() {
            hosted.peek(|machine| peers.extend(machine.beacons_to()));
        }
        for peer in peers {
            tokio::spawn(self.clone().send_beacon(self.peer(peer)));
        }
    }

    async fn send_beacon(self: Arc<Self>, peer: Arc<Peer>) {
        if peer.beacons.fetch_add(1, Ordering::AcqRel) < MAX_BEACONS {
            self.exchange_beacon(&peer).await;
        }
        peer.beacons.fetch_sub(1, Ordering::AcqRel);
    }

    async fn exchange_beacon(self: &Arc<Self>, peer: &Peer) {
        let now_ms = self.now_ms();
        let pulse = peer.pulses.lock().send(now_ms);
        let mut shards = Vec::new();
        for hosted in self.all() {
            let part =
                self.machine(&hosted, |machine, _| machine.beacon_to(now_ms, peer.node, pulse.answered));
            if let Some((epoch, committed, grant_ms)) = part {
                let (shard, epoch, committed_seq) = (hosted.id.0, epoch.0, committed.0);
                shards.push(pb::BeaconShard { shard, epoch, committed_seq, grant_ms });
            }
        }
        let released = std::mem::take(&mut *peer.releases.lock());
        if shards.is_empty() && released.is_empty() {
            return;
        }
        let request = pb::BeaconRequest {
            cluster_id: self.cluster_id.clone(),
            from_node: self.node.0,
            to_node: peer.node.0,
            shards,
            session: pulse.session,
            number: pulse.number,
            answered: pulse.answered,
            answered_by: pulse.answered_by,
            released,
        };
        let Ok(node) = self.cluster.data_node(peer.node) else { return };
        let limit = Duration::from_millis(self.timing.lease_ms);
        let Ok(Ok(answer)) = timeout(limit, node.beacon(request)).await else {
            self.metrics.lost_beacons.inc();
            return;
        };
        let Some(sent_ms) = peer.pulses.lock().answered(pulse.number, answer.session) else { return };
        self.links.lock().answered(self.now_ms(), peer.node, sent_ms);
        for ack in &answer.shards {
            if let Some(hosted) = self.shard(ShardId(ack.shard)) {
                self.machine(&hosted, |machine, now_ms| {
                    machine.peer_stored(now_ms, peer.node, Epoch(ack.epoch));
                    if ack.asks_after > 0 {
                        machine.asked_after(peer.node, Epoch(ack.asks_after));
                    }
                    if ack.accepted {
                        let answer = BeaconAnswer {
                            number: pulse.number,
                            sent_ms,
                            leaving: ack.leaving,
                            awaits: ack.awaits,
                            finds_slow: answer.finds_slow,
                        };
                        machine.beacon_answered(now_ms, peer.node, answer);
                    }
                });
            }
        }
    }

    /// Answers another node's beacon.
    pub(crate) fn answer_beacon(
        self: &Arc<Self>,
        request: &pb::BeaconRequest,
    ) -> Result<pb::BeaconResponse, Error> {
        self.check_meant(&request.cluster_id, request.to_node)?;
        let from = NodeId(request.from_node);
        let pb::BeaconRequest { session, number, answered, answered_by, .. } = *request;
        let pulse = Pulse { session, number, answered, answered_by };
        let now_ms = self.now_ms();
        let answered_ms = self.answers.lock().entry(from).or_default().answer(pulse, now_ms, self.session);
        let finds_slow = {
            let mut links = self.links.lock();
            answered_ms.inspect(|at| links.confirmed(now_ms, from, *at));
            links.finds_slow(now_ms, from)
        };
        for released in &request.released {
            if let Some(hosted) = self.shard(ShardId(released.shard)) {
                self.machine(&hosted, |machine, now_ms| machine.released(now_ms, Epoch(released.epoch)));
            }
        }
        let shards = request.shards.iter().map(|shard| self.answer_shard(from, shard, answered_ms)).collect();
        Ok(pb::BeaconResponse { shards, session: self.session, finds_slow })
    }

    fn answer_shard(
        self: &Arc<Self>,
        from: NodeId,
        shard: &pb::BeaconShard,
        answered_ms: Option<u64>,
    ) -> pb::BeaconShardAck {
        let epoch = Epoch(shard.epoch);
        let grant = answered_ms.filter(|_| shard.grant_ms > 0).map(|at| (at, shard.grant_ms));
        let Some(hosted) = self.shard(ShardId(shard.shard)) else {
            return pb::BeaconShardAck { shard: shard.shard, ..Default::default() };
        };
        let (verdict, answer) = self.machine(&hosted, |machine, now_ms| {
            let verdict = machine.beacon(now_ms, from, epoch, Seq(shard.committed_seq), grant);
            let answer = pb::BeaconShardAck {
                shard: shard.shard,
                epoch: machine.stored_epoch().0,
                accepted: verdict == BeaconVerdict::Accepted,
                durable_seq: machine.durable_seq().0,
                leaving: machine.is_leaving(),
                asks_after: machine.asks_after().map_or(0, |epoch| epoch.0),
                awaits: machine.awaits_primary(),
            };
            (verdict, answer)
        });
        if verdict == BeaconVerdict::StoreEpoch {
            // The next beacon finds it stored; this one does not wait for the disk, since it speaks for other shards too.
            let replicas = self.clone();
            tokio::spawn(async move {
                let _turn = hosted.turn.lock().await;
                if let Err(error) = replicas.store_epoch(&hosted, epoch, None).await {
                    tracing::error!(shard = hosted.id.0, %error, "cannot store an epoch");
                }
            });
        }
        answer
    }
}
