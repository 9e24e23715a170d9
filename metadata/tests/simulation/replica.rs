//! One replica of one shard on a simulated node: the machine under test, its disk, and what it waits for. It does what
//! the data node does over its store and gRPC.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{
    Ack, AckResult, Action, Boot, Entries, OlderEpochs, Position, ProposalOutcome, Shard, SnapshotVerdict,
    Timing, Verdict, View,
};

use crate::disk::{Disk, Entry};
use crate::ledger::News;
use crate::mutation::Mutation;
use crate::network::{METADATA, Message};
use crate::node::Turn;

/// How long a message to a replica may take.
const CALL_LIMIT_MS: u64 = 300;
/// How long a snapshot may take.
const SNAPSHOT_LIMIT_MS: u64 = 1_500;
/// How long metadata may take.
const PROPOSAL_LIMIT_MS: u64 = 500;

struct Epochs(Arc<Mutex<Disk>>);

impl OlderEpochs for Epochs {
    fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        self.0.lock().epoch_at(seq)
    }
}

/// A message that was sent: until when, to whom, which one, how far it reaches.
struct Call {
    until_ms: u64,
    to: NodeId,
    ticket: u64,
    end: Position,
}

/// An answer that waits for the disk.
pub(crate) struct Owed {
    to: NodeId,
    ticket: u64,
    epoch: Epoch,
    end: Position,
}

pub(crate) struct Replica {
    node: NodeId,
    pub(crate) shard: ShardId,
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) machine: Shard,
    /// When how much of the log becomes durable.
    pub(crate) syncs: Vec<(u64, usize)>,
    pub(crate) owed: Vec<Owed>,
    calls: Vec<Call>,
    snapshots: Vec<(u64, NodeId, u64)>,
    proposal: Option<(u64, u64)>,
    next_number: u64,
    /// It is damaged, and has asked to be left out.
    pub(crate) leaving: bool,
}

/// The times of the protocol, shorter than in production but in the same proportions, so that a second has many.
pub(crate) fn timing(mutation: Option<Mutation>) -> Timing {
    Timing {
        lease_ms: 400,
        grace_ms: if mutation == Some(Mutation::ServeBeforeReconciling) { 0 } else { 500 },
        beacon_every_ms: 50,
        follower_timeout_ms: 400,
        retry_ms: 40,
        confirm_ms: 1_000,
        settle_ms: 200,
    }
}

impl Replica {
    /// A replica as its node finds it on its disk when it starts.
    pub(crate) fn boot(node: NodeId, shard: ShardId, disk: Arc<Mutex<Disk>>, turn: &Turn) -> Self {
        let (end, committed, stored_epoch) = {
            let disk = disk.lock();
            (disk.end(), disk.committed, disk.stored_epoch)
        };
        let forgets = turn.mutation == Some(Mutation::ForgetTheStoredEpoch);
        let boot = Boot {
            node,
            shard,
            end,
            committed,
            stored_epoch: if forgets { Epoch(stored_epoch.0.saturating_sub(1)) } else { stored_epoch },
            now_ms: turn.local_ms,
            older: Box::new(Epochs(disk.clone())),
        };
        Self {
            node,
            shard,
            disk,
            machine: Shard::new(boot, timing(turn.mutation)),
            syncs: Vec::new(),
            owed: Vec::new(),
            calls: Vec::new(),
            snapshots: Vec::new(),
            proposal: None,
            next_number: turn.fresh_number(),
            leaving: false,
        }
    }

    pub(crate) fn store_epoch(&mut self, epoch: Epoch) {
        let mut disk = self.disk.lock();
        disk.stored_epoch = disk.stored_epoch.max(epoch);
        drop(disk);
        self.machine.epoch_stored(epoch);
    }

    pub(crate) fn configure(&mut self, view: View, min_insync: usize, turn: &mut Turn) {
        if view.epoch > self.machine.stored_epoch() {
            self.store_epoch(view.epoch);
        }
        let leads = view.primary == Some(self.node);
        if turn.mutation == Some(Mutation::ReleaseWhatStillRuns)
            && let Some(primary) = view.primary.filter(|_| view.epoch > self.machine.view().epoch)
        {
            turn.out.push((primary, Message::Release { shard: self.shard, epoch: view.epoch }));
        }
        self.machine.configure(turn.local_ms, view, min_insync);
        self.act(turn);
        if leads && turn.mutation == Some(Mutation::ServeBeforeReconciling) {
            self.forge_answers(turn);
        }
    }

    /// Puts the entries of a backup in place of nothing, and begins anew like a process that starts.
    pub(crate) fn fill(&mut self, payloads: &[u64], turn: &mut Turn) {
        let place =
            |(at, payload): (usize, &u64)| (Position { seq: Seq(at as u64 + 1), epoch: Epoch(0) }, *payload);
        self.disk.lock().install(payloads.iter().enumerate().map(place).collect());
        *self = Self::boot(self.node, self.shard, self.disk.clone(), turn);
        turn.news.push(News::Committed(self.shard, Seq(payloads.len() as u64)));
    }

    pub(crate) fn log_failed(&mut self) {
        self.syncs.clear();
        self.owed.clear();
        self.machine.log_failed();
    }

    /// A client's write.
    pub(crate) fn write(&mut self, payload: u64, turn: &mut Turn) -> bool {
        if self.machine.writable(turn.local_ms, self.machine.view().epoch).is_err() {
            return false;
        }
        let place = self.machine.append(turn.local_ms);
        let mut disk = self.disk.lock();
        disk.append((place, payload));
        self.syncs.push((turn.now_ms + turn.sync_ms, disk.len()));
        drop(disk);
        self.act(turn);
        true
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, turn: &mut Turn) {
        let now_ms = turn.now_ms;
        let due = self.syncs.iter().filter(|(at, _)| *at <= now_ms).map(|(_, len)| *len).max();
        if let Some(len) = due {
            self.syncs.retain(|(at, _)| *at > now_ms);
            self.disk.lock().sync(len);
        }
        let durable = self.disk.lock().durable();
        self.machine.durable(turn.local_ms, durable);
        self.machine.tick(turn.local_ms);
        self.time_out(turn.local_ms);
        let owed = std::mem::take(&mut self.owed);
        for one in owed {
            if durable >= one.end.seq {
                let ack = self.machine.acknowledge(one.epoch, one.end);
                turn.out.push((one.to, Message::Ack { shard: self.shard, ticket: one.ticket, ack }));
            } else {
                self.owed.push(one);
            }
        }
        self.act(turn);
    }

    fn time_out(&mut self, local_ms: u64) {
        let machine = &mut self.machine;
        self.calls.retain(|call| {
            if call.until_ms <= local_ms {
                machine.send_failed(local_ms, call.to, call.ticket);
            }
            call.until_ms > local_ms
        });
        self.snapshots.retain(|(until_ms, to, _)| {
            if *until_ms <= local_ms {
                machine.snapshot_done(local_ms, *to, None);
            }
            *until_ms > local_ms
        });
        if self.proposal.is_some_and(|(_, until_ms)| until_ms <= local_ms) {
            self.proposal = None;
            machine.proposed(local_ms, ProposalOutcome::Unknown);
        }
    }

    /// Does what the machine asks for.
    pub(crate) fn act(&mut self, turn: &mut Turn) {
        loop {
            let actions = self.machine.actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Send(to) => self.send(to, turn),
                    Action::Snapshot(to) => self.send_snapshot(to, turn),
                    Action::Propose(wish) => self.propose(wish, turn),
                    Action::Acknowledge(seq) => {
                        let epoch = self.machine.view().epoch;
                        turn.news.push(News::Acknowledged(self.shard, epoch, seq));
                    }
                    Action::Commit(seq) => turn.news.push(News::Committed(self.shard, seq)),
                    Action::Release(to, epoch) => {
                        turn.tally.releases += 1;
                        turn.out.push((to, Message::Release { shard: self.shard, epoch }));
                    }
                    Action::SteppedDown | Action::Refresh => {}
                }
            }
        }
    }

    fn send(&mut self, to: NodeId, turn: &mut Turn) {
        let Some(plan) = self.machine.plan(turn.local_ms, to) else { return };
        let most = turn.rng.random_range(1..20);
        let disk = self.disk.lock();
        let entries = match disk.after(plan.previous.seq, most) {
            Some(entries) => entries,
            None if plan.last > plan.previous.seq => {
                drop(disk);
                self.machine.needs_snapshot(to, plan.ticket);
                return;
            }
            None => &[],
        };
        let positions: Vec<Position> = entries.iter().map(|entry| entry.0).collect();
        let payloads = entries.iter().map(|entry| entry.1).collect();
        drop(disk);
        let end = positions.last().copied().unwrap_or(plan.previous);
        let message = Entries {
            epoch: plan.epoch,
            epoch_start: plan.epoch_start,
            previous: plan.previous,
            entries: positions,
            committed: plan.committed,
        };
        turn.out.push((to, Message::Entries { shard: self.shard, ticket: plan.ticket, message, payloads }));
        self.calls.push(Call { until_ms: turn.local_ms + CALL_LIMIT_MS, to, ticket: plan.ticket, end });
    }

    fn send_snapshot(&mut self, to: NodeId, turn: &mut Turn) {
        let committed = self.machine.status(turn.local_ms).committed;
        if self.disk.lock().damaged {
            self.machine.snapshot_done(turn.local_ms, to, None);
            return;
        }
        let mut entries = self.disk.lock().snapshot(committed);
        if turn.mutation == Some(Mutation::AdmitAJoinerWithAHole) {
            let middle = entries.len() / 2;
            entries.iter_mut().skip(middle).take(1).for_each(|entry| entry.1 = 0);
        }
        self.next_number += 1;
        let (shard, epoch, transfer) = (self.shard, self.machine.view().epoch, self.next_number);
        turn.out.push((to, Message::Snapshot { shard, epoch, transfer, entries: Arc::new(entries) }));
        self.snapshots.push((turn.local_ms + SNAPSHOT_LIMIT_MS, to, transfer));
    }

    fn propose(&mut self, wish: View, turn: &mut Turn) {
        self.next_number += 1;
        self.proposal = Some((self.next_number, turn.local_ms + PROPOSAL_LIMIT_MS));
        let message = Message::Propose { shard: self.shard, number: self.next_number, wish };
        turn.out.push((METADATA, message));
    }

    pub(crate) fn proposed(
        &mut self,
        number: u64,
        outcome: ProposalOutcome,
        view: View,
        min_insync: usize,
        turn: &mut Turn,
    ) {
        self.configure(view, min_insync, turn);
        if self.proposal.is_some_and(|(asked, _)| asked == number) {
            self.proposal = None;
            self.machine.proposed(turn.local_ms, outcome);
            self.act(turn);
        }
    }

    pub(crate) fn acked(&mut self, from: NodeId, ticket: u64, ack: Ack, turn: &mut Turn) {
        self.calls.retain(|call| (call.to, call.ticket) != (from, ticket));
        self.machine.acked(turn.local_ms, from, ticket, ack);
        if turn.mutation == Some(Mutation::AcknowledgeBeforeTheSlowest) && ack.result == AckResult::Ok {
            self.forge_answers(turn);
        }
        self.act(turn);
    }

    /// Takes every message that is under way as answered.
    fn forge_answers(&mut self, turn: &Turn) {
        for call in std::mem::take(&mut self.calls) {
            let (epoch, committed) = (self.machine.view().epoch, Seq(0));
            let ack = Ack { epoch, result: AckResult::Ok, durable: call.end, committed };
            self.machine.acked(turn.local_ms, call.to, call.ticket, ack);
        }
    }

    pub(crate) fn snapshot_done(&mut self, from: NodeId, transfer: u64, end: Seq, turn: &mut Turn) {
        let known = self.snapshots.len();
        self.snapshots.retain(|(_, to, number)| (*to, *number) != (from, transfer));
        if self.snapshots.len() < known {
            self.machine.snapshot_done(turn.local_ms, from, Some(end));
            self.act(turn);
        }
    }

    /// Stores a primary's entries.
    pub(crate) fn store(
        &mut self,
        from: NodeId,
        ticket: u64,
        message: &Entries,
        payloads: &[u64],
        turn: &mut Turn,
    ) {
        let skips = turn.mutation == Some(Mutation::SkipTheEpochCheck);
        if skips && message.epoch < self.machine.stored_epoch() {
            let durable = message.entries.last().copied().unwrap_or(message.previous);
            let ack = Ack { epoch: message.epoch, result: AckResult::Ok, durable, committed: Seq(0) };
            turn.out.push((from, Message::Ack { shard: self.shard, ticket, ack }));
            return;
        }
        if self.withholds(message.epoch, turn) {
            let (epoch, durable) = (self.machine.stored_epoch(), Position::default());
            let ack = Ack { epoch, result: AckResult::Failed, durable, committed: Seq(0) };
            turn.out.push((from, Message::Ack { shard: self.shard, ticket, ack }));
            return;
        }
        loop {
            match self.machine.receive(from, message) {
                Verdict::StoreEpoch => self.store_epoch(message.epoch),
                Verdict::Answer(ack) => {
                    turn.out.push((from, Message::Ack { shard: self.shard, ticket, ack }));
                    break;
                }
                Verdict::Cut(after) => {
                    // What is before the cut is synced with it.
                    self.disk.lock().cut(after);
                    self.syncs.clear();
                    self.machine.durable(turn.local_ms, after);
                    self.machine.cut(after);
                    turn.tally.cuts += 1;
                }
                Verdict::Append(_) if turn.broken => {
                    let (epoch, durable) = (self.machine.stored_epoch(), Position::default());
                    let ack = Ack { epoch, result: AckResult::Failed, durable, committed: Seq(0) };
                    turn.out.push((from, Message::Ack { shard: self.shard, ticket, ack }));
                    break;
                }
                Verdict::Append(skip) => {
                    self.make_room();
                    let new = message.entries.get(skip..).unwrap_or_default();
                    self.machine.append_as_follower(new);
                    let entries = message.entries.iter().copied().zip(payloads.iter().copied()).skip(skip);
                    let mut disk = self.disk.lock();
                    entries.for_each(|entry: Entry| disk.append(entry));
                    self.syncs.push((turn.now_ms + turn.sync_ms, disk.len()));
                    drop(disk);
                    let end = message.entries.last().copied().unwrap_or(message.previous);
                    self.owed.push(Owed { to: from, ticket, epoch: message.epoch, end });
                    break;
                }
            }
        }
        self.act(turn);
    }

    pub(crate) fn install(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        transfer: u64,
        entries: &[Entry],
        turn: &mut Turn,
    ) {
        let end = entries.last().map_or(Position::default(), |entry| entry.0);
        let done = |end| Message::SnapshotDone { shard: self.shard, transfer, end };
        let asked = self.machine.asks_after();
        let verdict = self.machine.judge_snapshot(from, epoch, end.seq);
        let asks = verdict == SnapshotVerdict::Refused && self.machine.asks_after() == Some(epoch);
        turn.tally.refused += u64::from(asks && asked.is_none());
        match verdict {
            _ if asks && turn.mutation == Some(Mutation::TakeASnapshotAfterARestart) => {}
            SnapshotVerdict::Install => {}
            SnapshotVerdict::Held(held) => return turn.out.push((from, done(held))),
            SnapshotVerdict::Refused => return,
        }
        if turn.rng.random_bool(0.05) {
            // It fails half-way, which leaves nothing, and nobody has acted on what this replica said in this turn.
            let shard = self.shard;
            turn.news.retain(|news| !matches!(news, News::Committed(of, _) if *of == shard));
            self.disk.lock().install(Vec::new());
            self.syncs.clear();
            self.owed.clear();
            self.machine.installed(Position::default());
            if turn.rng.random_bool(0.5) {
                turn.gone = Some(shard);
            }
            return;
        }
        turn.out.push((from, done(end.seq)));
        self.disk.lock().install(entries.to_vec());
        self.syncs.clear();
        self.owed.clear();
        self.machine.installed(end);
        turn.tally.snapshots += 1;
        self.act(turn);
    }
}
