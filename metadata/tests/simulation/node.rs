//! A simulated data node: a clock of its own, the replicas on its disk, and beacons for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{Answers, BeaconAnswer, BeaconVerdict, Links, Pulse, Pulses};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::ledger::News;
use crate::mutation::Mutation;
use crate::network::{Accepted, BeaconPart, METADATA, Map, Message};
use crate::replica::{Replica, timing};
use crate::world::Tally;

const HEARTBEAT_EVERY_MS: u64 = 100;

/// What a node sees and does while it has its turn.
pub(crate) struct Turn<'a> {
    /// The true time, which only the disk and the network know.
    pub(crate) now_ms: u64,
    /// The node's own.
    pub(crate) local_ms: u64,
    pub(crate) sync_ms: u64,
    pub(crate) broken: bool,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) rng: &'a mut StdRng,
    pub(crate) tally: &'a mut Tally,
    pub(crate) out: Vec<(NodeId, Message)>,
    pub(crate) news: Vec<News>,
    /// The process dies while a shard is replaced, of which nothing is left then, not even its epoch.
    pub(crate) gone: Option<ShardId>,
}

impl Turn<'_> {
    /// A number that no earlier process of the node has used.
    pub(crate) fn fresh_number(&self) -> u64 {
        self.now_ms << 20
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    /// What every shard that it holds has on its disk, whether the process runs or not.
    pub(crate) disks: BTreeMap<ShardId, Arc<Mutex<Disk>>>,
    /// Empty while the process does not run.
    pub(crate) replicas: BTreeMap<ShardId, Replica>,
    pub(crate) up: bool,
    /// The disk is gone for good, and with it the identity.
    pub(crate) lost: bool,
    pub(crate) paused_until_ms: u64,
    pub(crate) sync_ms: u64,
    /// The log takes nothing until the process starts again.
    pub(crate) broken: bool,
    waiting: Vec<(NodeId, Message)>,
    map: Arc<Map>,
    /// Kept on the disk: shards are made by no older map, since with one that was let go its epoch is forgotten.
    floor: u64,
    pulses: BTreeMap<NodeId, Pulses>,
    answers: BTreeMap<NodeId, Answers>,
    links: Links,
    session: u64,
    next_beacon_ms: u64,
    next_heartbeat_ms: u64,
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            clock: Clock::new(0, 1000),
            disks: BTreeMap::new(),
            replicas: BTreeMap::new(),
            up: false,
            lost: false,
            paused_until_ms: 0,
            sync_ms: 5,
            broken: false,
            waiting: Vec::new(),
            map: Arc::default(),
            floor: 0,
            pulses: BTreeMap::new(),
            answers: BTreeMap::new(),
            links: Links::new(timing(None).follower_timeout_ms),
            session: 0,
            next_beacon_ms: 0,
            next_heartbeat_ms: 0,
        }
    }

    /// Whether the process runs and gets processor time.
    pub(crate) fn runs(&self, now_ms: u64) -> bool {
        self.up && now_ms >= self.paused_until_ms
    }

    pub(crate) fn is_damaged(&self, shard: ShardId) -> bool {
        self.disks.get(&shard).is_some_and(|disk| disk.lock().damaged)
    }

    pub(crate) fn crash(&mut self, rng: &mut StdRng, mutation: Option<Mutation>) {
        if !self.up {
            return;
        }
        self.up = false;
        self.replicas.clear();
        self.waiting.clear();
        let lost_syncs = if mutation == Some(Mutation::LoseWhatWasSynced) { 3 } else { 0 };
        self.disks.values().for_each(|disk| disk.lock().crash(rng, lost_syncs));
    }

    /// The process dies while it replaces a shard.
    pub(crate) fn lose(&mut self, shard: ShardId, rng: &mut StdRng, mutation: Option<Mutation>) {
        self.raise_floor(mutation);
        self.disks.remove(&shard);
        self.crash(rng, mutation);
    }

    fn raise_floor(&mut self, mutation: Option<Mutation>) {
        if mutation != Some(Mutation::ForgetWhatWasLetGo) {
            self.floor = self.floor.max(self.map.version);
        }
    }

    /// The process is about to stop.
    pub(crate) fn resign(&mut self) {
        self.replicas.values_mut().for_each(|replica| replica.machine.resign());
    }

    /// The disk fails under the log.
    pub(crate) fn break_log(&mut self) {
        self.broken = true;
        self.replicas.values_mut().for_each(Replica::log_failed);
    }

    /// The process starts. `drift` is by how many thousandths its clock may be off.
    pub(crate) fn boot(&mut self, drift: u64, turn: &mut Turn) {
        self.up = true;
        self.broken = false;
        self.paused_until_ms = 0;
        self.clock = Clock::new(turn.now_ms, turn.rng.random_range(1000 - drift..=1000 + drift));
        turn.local_ms = self.clock.at(turn.now_ms);
        self.map = Arc::default();
        self.pulses.clear();
        self.answers.clear();
        self.links = Links::new(timing(None).follower_timeout_ms);
        self.session = turn.rng.random();
        self.next_beacon_ms = 0;
        self.next_heartbeat_ms = 0;
        self.sync_ms = turn.rng.random_range(1..15);
        for (shard, disk) in &self.disks {
            self.replicas.insert(*shard, Replica::boot(self.id, *shard, disk.clone(), turn));
        }
    }

    /// Time passes for the process.
    pub(crate) fn tick(&mut self, turn: &mut Turn) {
        for (from, message) in std::mem::take(&mut self.waiting) {
            self.take(from, message, turn);
        }
        for replica in self.replicas.values_mut() {
            replica.tick(turn);
            replica.renew(turn);
        }
        if turn.local_ms >= self.next_heartbeat_ms {
            self.next_heartbeat_ms = turn.local_ms + HEARTBEAT_EVERY_MS;
            turn.out.push((METADATA, Message::Heartbeat));
        }
        if turn.local_ms >= self.next_beacon_ms {
            self.next_beacon_ms = turn.local_ms + timing(None).beacon_every_ms;
            self.send_beacons(turn);
        }
        if turn.rng.random_bool(0.02) {
            self.keep_in_order(turn);
        }
    }

    /// Writes out what is committed, and lets go of shards that have moved.
    fn keep_in_order(&mut self, turn: &mut Turn) {
        for replica in self.replicas.values() {
            let committed = replica.machine.status(turn.local_ms).committed;
            replica.disk.lock().flush(committed, turn.rng);
        }
        let (map, id) = (self.map.clone(), self.id);
        let moved = |replica: &Replica| {
            let Some(view) = map.views.get(replica.shard.0 as usize) else { return false };
            let complete = view.in_sync.len() >= map.replicas.max(map.min_insync);
            !view.holds(id) && complete && replica.machine.may_leave(view.epoch)
        };
        let dropped: Vec<ShardId> = self.replicas.values().filter(|r| moved(r)).map(|r| r.shard).collect();
        if !dropped.is_empty() {
            self.raise_floor(turn.mutation);
        }
        for shard in dropped {
            self.replicas.remove(&shard);
            self.disks.remove(&shard);
            turn.tally.dropped += 1;
        }
    }

    fn send_beacons(&mut self, turn: &mut Turn) {
        let machines = self.replicas.values().map(|replica| &replica.machine);
        let peers: BTreeSet<NodeId> = machines.flat_map(|machine| machine.beacons_to()).collect();
        for peer in peers {
            let session = self.session;
            let pulses = self.pulses.entry(peer).or_insert_with(|| Pulses::new(session));
            let pulse = pulses.send(turn.local_ms);
            // The removed follower's grant is not noted if the machine is told that no answer has come.
            let forgets = turn.mutation == Some(Mutation::AcknowledgeBeforeTheRemovedLeaseEnds);
            let answered = if forgets { 0 } else { pulse.answered };
            let part = |replica: &mut Replica| {
                let part = replica.machine.beacon_to(turn.local_ms, peer, answered);
                let serves = forgets && replica.machine.may_read(turn.local_ms);
                let in_sync = replica.machine.view().in_sync.contains(&peer);
                let forged = if serves && in_sync { timing(None).lease_ms } else { 0 };
                part.map(|(epoch, committed, grant_ms)| {
                    (replica.shard, epoch, committed, grant_ms.max(forged))
                })
            };
            let parts: Vec<BeaconPart> = self.replicas.values_mut().filter_map(part).collect();
            if !parts.is_empty() {
                turn.out.push((peer, Message::Beacon { pulse, parts }));
            }
        }
    }

    /// Takes a message, or lets it wait for the process to go on.
    pub(crate) fn receive(&mut self, from: NodeId, message: Message, turn: &mut Turn) {
        if self.runs(turn.now_ms) {
            self.take(from, message, turn);
        } else if self.up {
            self.waiting.push((from, message));
        }
    }

    fn take(&mut self, from: NodeId, message: Message, turn: &mut Turn) {
        match message {
            Message::Entries { shard, ticket, message, payloads } => {
                if let Some(replica) = self.replicas.get_mut(&shard) {
                    replica.store(from, ticket, &message, &payloads, turn);
                }
            }
            Message::Ack { shard, ticket, ack } => {
                if let Some(replica) = self.replicas.get_mut(&shard) {
                    replica.acked(from, ticket, ack, turn);
                }
            }
            Message::Beacon { pulse, parts } => self.answer_beacon(from, pulse, &parts, turn),
            Message::BeaconAnswer { session, number, by, finds_slow, accepted, stored, asks } => {
                self.peer_stored(from, &stored, turn);
                self.asked_after(from, &asks);
                if session == self.session {
                    self.beacon_answered(from, (number, by), finds_slow, &accepted, turn);
                }
            }
            Message::Snapshot { shard, epoch, transfer, entries } => {
                if let Some(replica) = self.replicas.get_mut(&shard) {
                    replica.install(from, epoch, transfer, &entries, turn);
                }
            }
            Message::SnapshotDone { shard, transfer, end } => {
                if let Some(replica) = self.replicas.get_mut(&shard) {
                    replica.snapshot_done(from, transfer, end, turn);
                }
            }
            Message::Proposed { shard, number, outcome, view, min_insync } => {
                if let Some(replica) = self.replicas.get_mut(&shard) {
                    replica.proposed(number, outcome, view, min_insync, turn);
                }
            }
            Message::Release { shard, epoch } => {
                if let Some(replica) = self.replicas.get_mut(&shard) {
                    replica.machine.released(turn.local_ms, epoch);
                    replica.act(turn);
                }
            }
            Message::Map(map) => self.adopt(map, turn),
            Message::Heartbeat | Message::Propose { .. } => {}
        }
    }

    fn adopt(&mut self, map: Arc<Map>, turn: &mut Turn) {
        if map.version < self.map.version {
            return;
        }
        for (shard, view) in (0..).map(ShardId).zip(&map.views) {
            if view.holds(self.id) && !self.replicas.contains_key(&shard) && map.version < self.floor {
                turn.tally.not_made += 1;
            } else if view.holds(self.id) && !self.replicas.contains_key(&shard) {
                // The epoch is stored with the shard: an empty replica must not answer under an older one.
                let disk = Arc::new(Mutex::new(Disk::default()));
                self.disks.insert(shard, disk.clone());
                let mut replica = Replica::boot(self.id, shard, disk, turn);
                replica.store_epoch(view.epoch);
                self.replicas.insert(shard, replica);
            }
            if let Some(replica) = self.replicas.get_mut(&shard) {
                replica.configure(view.clone(), map.min_insync, turn);
            }
        }
        self.map = map;
    }

    fn answer_beacon(&mut self, from: NodeId, pulse: Pulse, parts: &[BeaconPart], turn: &mut Turn) {
        let answered_ms = self.answers.entry(from).or_default().answer(pulse, turn.local_ms, self.session);
        answered_ms.inspect(|at| self.links.confirmed(turn.local_ms, from, *at));
        let finds_slow = self.links.finds_slow(turn.local_ms, from);
        let (mut accepted, mut stored, mut asks) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, epoch, committed, grant_ms) in parts {
            let grant = answered_ms.filter(|_| *grant_ms > 0).map(|at| (at, *grant_ms));
            match self.take_beacon(from, *shard, *epoch, *committed, grant, turn) {
                // Stored while the answer is on its way; the next beacon finds it.
                BeaconVerdict::StoreEpoch => {
                    if let Some(replica) = self.replicas.get_mut(shard) {
                        replica.store_epoch(*epoch);
                    }
                }
                BeaconVerdict::Accepted => {
                    let lies =
                        turn.mutation == Some(Mutation::LeaveAndGoOnReading) && turn.rng.random_bool(0.05);
                    let leaves = self.replicas.get(shard).is_some_and(|r| r.machine.is_leaving());
                    let awaits = self.replicas.get(shard).is_some_and(|r| r.machine.awaits_primary());
                    accepted.push(Accepted { shard: *shard, leaving: leaves || lies, awaits });
                }
                BeaconVerdict::Refused => {
                    let skips = turn.mutation == Some(Mutation::SkipTheEpochCheck);
                    accepted.extend(skips.then_some(Accepted {
                        shard: *shard,
                        leaving: false,
                        awaits: false,
                    }));
                }
            }
            let machine = self.replicas.get(shard).map(|replica| &replica.machine);
            stored.extend(machine.map(|machine| (*shard, machine.stored_epoch())));
            asks.extend(machine.and_then(|machine| Some((*shard, machine.asks_after()?))));
        }
        let Pulse { session, number, .. } = pulse;
        let by = self.session;
        let answer = Message::BeaconAnswer { session, number, by, finds_slow, accepted, stored, asks };
        turn.out.push((from, answer));
    }

    fn take_beacon(
        &mut self,
        from: NodeId,
        shard: ShardId,
        epoch: Epoch,
        committed: Seq,
        grant: Option<(u64, u64)>,
        turn: &mut Turn,
    ) -> BeaconVerdict {
        let Some(replica) = self.replicas.get_mut(&shard) else { return BeaconVerdict::Refused };
        let verdict = replica.machine.beacon(turn.local_ms, from, epoch, committed, grant);
        replica.act(turn);
        verdict
    }

    fn peer_stored(&mut self, from: NodeId, stored: &[(ShardId, Epoch)], turn: &mut Turn) {
        let believes = turn.mutation == Some(Mutation::TakeEveryAnswerForALeave);
        for (shard, stored) in stored {
            if let Some(replica) = self.replicas.get_mut(shard) {
                let stored = if believes { Epoch(u64::MAX) } else { *stored };
                replica.machine.peer_stored(turn.local_ms, from, stored);
                replica.act(turn);
            }
        }
    }

    fn asked_after(&mut self, from: NodeId, asks: &[(ShardId, Epoch)]) {
        for (shard, epoch) in asks {
            if let Some(replica) = self.replicas.get_mut(shard) {
                replica.machine.asked_after(from, *epoch);
            }
        }
    }

    fn beacon_answered(
        &mut self,
        from: NodeId,
        (number, by): (u64, u64),
        finds_slow: bool,
        accepted: &[Accepted],
        turn: &mut Turn,
    ) {
        let sent_ms = self.pulses.get_mut(&from).and_then(|pulses| pulses.answered(number, by));
        let Some(sent_ms) = sent_ms else { return };
        self.links.answered(turn.local_ms, from, sent_ms);
        for Accepted { shard, leaving, awaits } in accepted.iter().copied() {
            if let Some(replica) = self.replicas.get_mut(&shard) {
                let answer = BeaconAnswer { number, sent_ms, leaving, awaits, finds_slow };
                replica.machine.beacon_answered(turn.local_ms, from, answer);
                replica.act(turn);
            }
        }
    }
}
