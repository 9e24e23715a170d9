//! A node of the simulated cluster: a disk, a clock of its own, and the machine under test.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::StdRng;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{
    Action, Answers, BeaconVerdict, Boot, Entries, OlderEpochs, Position, ProposalOutcome, Pulses, Shard,
    Status, Timing, Verdict, View,
};

use super::{METADATA, Message};

struct Disk(Vec<Position>);

impl OlderEpochs for Disk {
    fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        self.0.iter().find(|place| place.seq == seq).map(|place| place.epoch)
    }
}

pub(crate) struct Node {
    id: NodeId,
    /// Its clock differs from the others'.
    offset_ms: u64,
    log: Vec<(Position, u64)>,
    durable: usize,
    stored_epoch: Epoch,
    syncs: Vec<(u64, usize)>,
    machine: Option<Shard>,
    pulses: BTreeMap<NodeId, Pulses>,
    answers: BTreeMap<NodeId, Answers>,
    session: u64,
    own: Vec<(Seq, u64)>,
    owed: Vec<(NodeId, u64, Epoch, Position)>,
    next_beacon_ms: u64,
    sync_ms: u64,
    now_ms: u64,
    calls: Vec<(u64, NodeId, u64)>,
    snapshots: Vec<(u64, NodeId)>,
    proposed_ms: Option<u64>,
    pub(crate) acknowledged: Vec<u64>,
}

impl Node {
    pub(crate) fn new(id: NodeId, rng: &mut StdRng) -> Self {
        let mut node = Self {
            id,
            offset_ms: rng.random_range(0..1_000_000),
            log: Vec::new(),
            durable: 0,
            stored_epoch: Epoch(0),
            syncs: Vec::new(),
            machine: None,
            pulses: BTreeMap::new(),
            answers: BTreeMap::new(),
            session: 0,
            own: Vec::new(),
            owed: Vec::new(),
            next_beacon_ms: 0,
            sync_ms: 5,
            now_ms: 0,
            calls: Vec::new(),
            snapshots: Vec::new(),
            proposed_ms: None,
            acknowledged: Vec::new(),
        };
        node.boot(1_000_000, rng);
        node
    }

    pub(crate) fn crash(&mut self) {
        self.machine = None;
        self.log.truncate(self.durable);
        self.syncs.clear();
        self.own.clear();
        self.owed.clear();
        self.calls.clear();
        self.snapshots.clear();
        self.proposed_ms = None;
    }

    pub(crate) fn boot(&mut self, now_ms: u64, rng: &mut StdRng) {
        let boot = Boot {
            node: self.id,
            shard: ShardId(0),
            end: self.log.last().map_or(Position::default(), |entry| entry.0),
            committed: Seq(0),
            stored_epoch: self.stored_epoch,
            now_ms: now_ms + self.offset_ms,
            older: Box::new(Disk(self.log.iter().map(|entry| entry.0).collect())),
        };
        self.machine = Some(Shard::new(boot, Timing::default()));
        self.session = rng.random();
        self.pulses.clear();
        self.answers.clear();
        self.next_beacon_ms = 0;
        self.sync_ms =
            if rng.random_bool(0.25) { rng.random_range(150..400) } else { rng.random_range(1..60) };
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.machine.as_ref().map_or(Epoch(0), |machine| machine.view().epoch)
    }

    pub(crate) fn may_read(&self, now_ms: u64) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.may_read(now_ms + self.offset_ms))
    }

    pub(crate) fn status(&self, now_ms: u64) -> Option<Status> {
        self.machine.as_ref().map(|machine| machine.status(now_ms + self.offset_ms))
    }

    pub(crate) fn describe(&self, now_ms: u64) -> String {
        let Some(machine) = &self.machine else { return "down".to_owned() };
        format!("at {} {:?}: {}", now_ms + self.offset_ms, self.status(now_ms), machine.describe())
    }

    pub(crate) fn durable_payloads(&self) -> BTreeSet<u64> {
        self.log.iter().take(self.durable).map(|entry| entry.1).collect()
    }

    pub(crate) fn write(&mut self, now_ms: u64, payload: u64) -> bool {
        let now = now_ms + self.offset_ms;
        let Some(machine) = &mut self.machine else { return false };
        if machine.writable(now, machine.view().epoch).is_err() {
            return false;
        }
        let place = machine.append(now);
        self.log.push((place, payload));
        self.own.push((place.seq, payload));
        self.syncs.push((now_ms + self.sync_ms, self.log.len()));
        true
    }

    pub(crate) fn step(&mut self, now_ms: u64, out: &mut Vec<(NodeId, Message)>) {
        self.now_ms = now_ms;
        let now = now_ms + self.offset_ms;
        if self.machine.is_none() {
            return;
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.syncs).into_iter().partition(|(at, _)| *at <= now_ms);
        self.syncs = later;
        if let Some(length) = due.iter().map(|(_, length)| *length).max() {
            self.durable = self.durable.max(length.min(self.log.len()));
        }
        let end = self.durable.checked_sub(1).map_or(Seq(0), |last| self.log[last].0.seq);
        let Some(machine) = &mut self.machine else { return };
        machine.durable(now, end);
        machine.tick(now);
        self.time_out(now);
        let owed = std::mem::take(&mut self.owed);
        for (to, ticket, epoch, end) in owed {
            let Some(machine) = &self.machine else { return };
            if self.durable_seq() >= end.seq {
                out.push((to, Message::Ack { ticket, ack: machine.acknowledge(epoch, end) }));
            } else {
                self.owed.push((to, ticket, epoch, end));
            }
        }
        if now_ms >= self.next_beacon_ms {
            self.next_beacon_ms = now_ms + 250;
            self.beacons(now, out);
        }
        self.act(now, out);
    }

    fn durable_seq(&self) -> Seq {
        self.durable.checked_sub(1).map_or(Seq(0), |last| self.log[last].0.seq)
    }

    fn beacons(&mut self, now: u64, out: &mut Vec<(NodeId, Message)>) {
        for peer in (1..=5).map(NodeId).filter(|peer| *peer != self.id) {
            let session = self.session;
            let pulse = self.pulses.entry(peer).or_insert_with(|| Pulses::new(session)).send(now);
            let Some(machine) = &mut self.machine else { return };
            if let Some((epoch, committed, grant_ms)) = machine.beacon_to(now, peer, pulse.answered) {
                out.push((peer, Message::Beacon { pulse, epoch, committed, grant_ms }));
            }
        }
    }

    fn act(&mut self, now: u64, out: &mut Vec<(NodeId, Message)>) {
        let Some(machine) = &mut self.machine else { return };
        for action in machine.actions() {
            match action {
                Action::Send(to) => self.send(now, to, out),
                Action::Snapshot(to) => {
                    let Some(machine) = &self.machine else { return };
                    let committed = machine.status(now).committed;
                    let log = self.log.iter().filter(|entry| entry.0.seq <= committed).copied().collect();
                    out.push((to, Message::Snapshot { epoch: machine.view().epoch, log }));
                    self.snapshots.push((now + 3_000, to));
                }
                Action::Propose(wish) => {
                    self.proposed_ms = Some(now);
                    out.push((METADATA, Message::Propose { wish }));
                }
                Action::Acknowledge(upto) => {
                    let (done, rest): (Vec<_>, Vec<_>) =
                        std::mem::take(&mut self.own).into_iter().partition(|(seq, _)| *seq <= upto);
                    self.own = rest;
                    self.acknowledged.extend(done.into_iter().map(|(_, payload)| payload));
                }
                Action::SteppedDown => self.own.clear(),
                Action::Commit(_) | Action::Refresh => {}
            }
        }
    }

    fn send(&mut self, now: u64, to: NodeId, out: &mut Vec<(NodeId, Message)>) {
        let Some(plan) = self.machine.as_mut().and_then(|machine| machine.plan(now, to)) else { return };
        let after = |entry: &&(Position, u64)| entry.0.seq > plan.previous.seq;
        let some: Vec<_> = self.log.iter().filter(after).take(20).copied().collect();
        let message = Entries {
            epoch: plan.epoch,
            epoch_start: plan.epoch_start,
            previous: plan.previous,
            entries: some.iter().map(|entry| entry.0).collect(),
            committed: plan.committed,
        };
        let payloads = some.iter().map(|entry| entry.1).collect();
        out.push((to, Message::Entries { ticket: plan.ticket, message, payloads }));
        // The time limit of a call, drawn tight so that answers often come too late.
        self.calls.push((now + 500, to, plan.ticket));
    }

    fn time_out(&mut self, now: u64) {
        let Some(machine) = &mut self.machine else { return };
        self.calls.retain(|(at, to, ticket)| {
            if *at <= now {
                machine.send_failed(now, *to, *ticket);
            }
            *at > now
        });
        self.snapshots.retain(|(at, to)| {
            if *at <= now {
                machine.snapshot_done(now, *to, None);
            }
            *at > now
        });
        if self.proposed_ms.is_some_and(|at| now > at + 1_000) {
            self.proposed_ms = None;
            machine.proposed(now, ProposalOutcome::Unknown);
        }
    }

    pub(crate) fn receive(
        &mut self,
        now_ms: u64,
        from: NodeId,
        message: Message,
        min_insync: usize,
        out: &mut Vec<(NodeId, Message)>,
    ) {
        let now = now_ms + self.offset_ms;
        let Some(machine) = &mut self.machine else { return };
        match message {
            Message::Entries { ticket, message, payloads } => {
                self.store(from, ticket, &message, &payloads, out)
            }
            Message::Ack { ticket, ack } => machine.acked(now, from, ticket, ack),
            Message::Beacon { pulse, epoch, committed, grant_ms } => {
                let answered_ms = self.answers.entry(from).or_default().answer(pulse, now);
                let grant = answered_ms.filter(|_| grant_ms > 0).map(|at| (at, grant_ms));
                let mut verdict = machine.beacon(now, from, epoch, committed, grant);
                if verdict == BeaconVerdict::StoreEpoch {
                    self.stored_epoch = epoch;
                    machine.epoch_stored(epoch);
                    verdict = machine.beacon(now, from, epoch, committed, grant);
                }
                let accepted = verdict == BeaconVerdict::Accepted;
                out.push((from, Message::BeaconAnswer { number: pulse.number, accepted }));
            }
            Message::BeaconAnswer { number, accepted } => {
                let sent_ms = self.pulses.get_mut(&from).and_then(|pulses| pulses.answered(number));
                if let (Some(sent_ms), true) = (sent_ms, accepted) {
                    machine.beacon_answered(now, from, number, sent_ms);
                }
            }
            Message::Snapshot { epoch, log } => self.install(now, from, epoch, log, out),
            Message::SnapshotDone { end } => machine.snapshot_done(now, from, end),
            Message::Proposed { outcome, view } => {
                self.configure(now, view, min_insync);
                if self.proposed_ms.take().is_some() {
                    let Some(machine) = &mut self.machine else { return };
                    machine.proposed(now, outcome);
                }
            }
            Message::Configure { view } => self.configure(now, view, min_insync),
            Message::Propose { .. } => {}
        }
        self.act(now, out);
    }

    fn configure(&mut self, now: u64, view: View, min_insync: usize) {
        let Some(machine) = &mut self.machine else { return };
        if view.epoch > machine.stored_epoch() {
            self.stored_epoch = view.epoch;
            machine.epoch_stored(view.epoch);
        }
        machine.configure(now, view, min_insync);
    }

    fn store(
        &mut self,
        from: NodeId,
        ticket: u64,
        message: &Entries,
        payloads: &[u64],
        out: &mut Vec<(NodeId, Message)>,
    ) {
        let Some(machine) = &mut self.machine else { return };
        loop {
            match machine.receive(from, message) {
                Verdict::StoreEpoch => {
                    self.stored_epoch = message.epoch;
                    machine.epoch_stored(message.epoch);
                }
                Verdict::Answer(ack) => {
                    out.push((from, Message::Ack { ticket, ack }));
                    return;
                }
                Verdict::Cut(after) => {
                    // A cut is durable, and with it what lies before it.
                    self.log.retain(|entry| entry.0.seq <= after);
                    self.durable = self.log.len();
                    machine.durable(0, after);
                    machine.cut(after);
                }
                Verdict::Append(skip) => {
                    let new = message.entries.get(skip..).unwrap_or_default();
                    machine.append_as_follower(new);
                    self.log.extend(message.entries.iter().copied().zip(payloads.iter().copied()).skip(skip));
                    let end = message.entries.last().copied().unwrap_or(message.previous);
                    self.syncs.push((self.now_ms + self.sync_ms, self.log.len()));
                    self.owed.push((from, ticket, message.epoch, end));
                    return;
                }
            }
        }
    }

    fn install(
        &mut self,
        now: u64,
        from: NodeId,
        epoch: Epoch,
        log: Vec<(Position, u64)>,
        out: &mut Vec<(NodeId, Message)>,
    ) {
        let Some(machine) = &mut self.machine else { return };
        if !machine.may_install(from, epoch) {
            return;
        }
        let end = log.last().map_or(Position::default(), |entry| entry.0);
        self.durable = log.len();
        self.log = log;
        self.syncs.clear();
        self.owed.clear();
        machine.installed(end);
        machine.durable(now, end.seq);
        out.push((from, Message::SnapshotDone { end: Some(end.seq) }));
    }
}
