//! What a follower or joiner does with entries and beacons.

use tricord_model::{Epoch, NodeId, Seq};

use crate::handover::Retired;
use crate::log::Position;
use crate::shard::{Role, Shard};

/// A follower's knowledge of the epoch that it is in.
pub(crate) struct Follower {
    pub(crate) leader: NodeId,
    pub(crate) epoch: Epoch,
    /// The log equals the primary's up to here.
    verified: Seq,
    /// Whether it equals the primary's at least up to where the epoch began.
    reconciled: bool,
    pub(crate) read_until_ms: u64,
    leader_committed: Seq,
}

impl Follower {
    pub(crate) fn new(leader: NodeId, epoch: Epoch) -> Self {
        Self {
            leader,
            epoch,
            verified: Seq(0),
            reconciled: false,
            read_until_ms: 0,
            leader_committed: Seq(0),
        }
    }

    /// Whether no message of the epoch was taken yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.verified == Seq(0) && !self.reconciled
    }

    pub(crate) fn may_read(&self, now_ms: u64) -> bool {
        self.reconciled && now_ms < self.read_until_ms
    }
}

/// A primary's message for one shard, without the payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The sender's last entry when its epoch began: what lies after it from older epochs is cut.
    pub epoch_start: Seq,
    /// The entry before the first one.
    pub previous: Position,
    /// The entries, in order and without holes.
    pub entries: Vec<Position>,
    /// Entries up to this one are committed.
    pub committed: Seq,
}

/// How a follower answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckResult {
    /// Durable up to `Ack::durable`.
    Ok,
    /// The previous entry is not there; `Ack::durable` is the end of the log.
    Mismatch,
    /// The sender's epoch is not, or no more, the shard's.
    Stale,
    /// The shard is not here (yet).
    NotReplica,
    /// The store failed, or the log contradicts what was committed.
    Failed,
}

/// A follower's answer for one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The highest epoch stored there.
    pub epoch: Epoch,
    /// What came of it.
    pub result: AckResult,
    /// Its last entry that counts.
    pub durable: Position,
    /// Its log up to here is committed, so it equals every other up to here.
    pub committed: Seq,
}

/// What a driver has to do with a message before it can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Store the message's epoch durably, call [`Shard::epoch_stored`], and ask again.
    StoreEpoch,
    /// Answer at once.
    Answer(Ack),
    /// Wait until pending appends are done, cut the log after this entry durably, call [`Shard::cut`], and ask again.
    Cut(Seq),
    /// Append the entries from this index on (perhaps none), call [`Shard::append_as_follower`] with them, and once
    /// they are durable [`Shard::durable`]; then answer with [`Shard::acknowledge`].
    Append(usize),
}

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotVerdict {
    /// Put it in the place of what is there, and call [`Shard::installed`].
    Install,
    /// The replica has stored the primary's entries up to this one already: answer so.
    Held(Seq),
    /// The sender has nothing to install here (any more), or not under this epoch.
    Refused,
}

/// How a beacon for one shard is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeaconVerdict {
    /// Store its epoch durably, call [`Shard::epoch_stored`], and ask again.
    StoreEpoch,
    /// The sender is the primary of that epoch.
    Accepted,
    /// It is not.
    Refused,
}

impl Shard {
    fn answer(&self, result: AckResult) -> Verdict {
        Verdict::Answer(Ack {
            epoch: self.stored_epoch,
            result,
            durable: self.log.last(),
            committed: self.committed,
        })
    }

    /// Whether `from` is the primary of the stored epoch; makes this replica its follower if so.
    fn accept_leader(&mut self, from: NodeId) -> bool {
        let known = self.view.epoch == self.stored_epoch;
        if known && (self.view.primary != Some(from) || !self.view.holds(self.node)) {
            return false;
        }
        if let Role::Follower(follower) = &self.role
            && follower.epoch == self.stored_epoch
        {
            return follower.leader == from;
        }
        self.retired = Retired::of(&self.role, &self.view).or(self.retired);
        self.follow(from);
        true
    }

    /// Judges a message of a primary.
    pub fn receive(&mut self, from: NodeId, message: &Entries) -> Verdict {
        if message.epoch > self.stored_epoch {
            return Verdict::StoreEpoch;
        }
        if message.epoch < self.stored_epoch || from == self.node || !self.accept_leader(from) {
            return self.answer(AckResult::Stale);
        }
        // What is committed is the sender's too, though it may be trimmed here so that its epoch is not known any more.
        let shared = message.epoch_start.max(self.committed);
        if self.log.last().seq > shared
            && self.log.epoch_at(shared.next()).is_none_or(|epoch| epoch < message.epoch)
        {
            return self.cut_verdict(shared);
        }
        if !self.matches(message.previous) {
            return self.answer(AckResult::Mismatch);
        }
        let mut skip = 0;
        for entry in &message.entries {
            if entry.seq > self.log.last().seq {
                break;
            }
            if entry.seq > self.committed && self.log.epoch_at(entry.seq) != Some(entry.epoch) {
                return self.cut_verdict(Seq(entry.seq.0 - 1));
            }
            skip += 1;
        }
        self.verify(message);
        Verdict::Append(skip)
    }

    fn cut_verdict(&self, after: Seq) -> Verdict {
        // What was committed is on every replica that may ever be primary: a primary without it is not one.
        if after < self.committed { self.answer(AckResult::Failed) } else { Verdict::Cut(after) }
    }

    fn matches(&self, previous: Position) -> bool {
        if previous.seq > self.log.last().seq {
            return false;
        }
        if previous.seq <= self.committed {
            return true;
        }
        // An entry that the log has trimmed was flushed, so it was committed.
        self.log.epoch_at(previous.seq).is_none_or(|epoch| epoch == previous.epoch)
    }

    fn verify(&mut self, message: &Entries) {
        let end = message.entries.last().map_or(message.previous.seq, |entry| entry.seq);
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = follower.verified.max(end);
            follower.reconciled |= end >= message.epoch_start;
            follower.leader_committed = follower.leader_committed.max(message.committed);
        }
        self.commit_as_follower();
    }

    pub(crate) fn commit_as_follower(&mut self) {
        if let Role::Follower(follower) = &self.role {
            let seq = follower.leader_committed.min(follower.verified).min(self.log.durable());
            self.commit(seq);
        }
    }

    /// Whether this follower has heard nothing yet of how its log compares with the primary's in this epoch.
    #[must_use]
    pub fn awaits_primary(&self) -> bool {
        matches!(&self.role, Role::Follower(follower) if follower.epoch == self.stored_epoch && !follower.reconciled)
    }

    /// Notes that entries were handed to the log.
    pub fn append_as_follower(&mut self, entries: &[Position]) {
        entries.iter().for_each(|entry| self.log.push(*entry));
    }

    /// The answer to a message that reaches up to `end`, once it is durable.
    #[must_use]
    pub fn acknowledge(&self, epoch: Epoch, end: Position) -> Ack {
        let holds = epoch == self.stored_epoch
            && self.log.durable() >= end.seq
            && self.log.epoch_at(end.seq).is_none_or(|found| found == end.epoch || end.seq <= self.committed);
        Ack {
            epoch: self.stored_epoch,
            result: if holds { AckResult::Ok } else { AckResult::Stale },
            durable: end,
            committed: self.committed,
        }
    }

    /// Notes that the log was cut after `after`.
    pub fn cut(&mut self, after: Seq) {
        self.log.cut(after);
    }

    /// Whether entries that the log took are not durable yet.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.log.durable() < self.log.last().seq
    }

    /// Whether a snapshot from `from` under `epoch` that ends at `end` may replace this replica: never one that is in
    /// sync, nor one that has stored as much already, which a snapshot that was long on its way would take back, or may
    /// have done so before its process started.
    #[must_use]
    pub fn judge_snapshot(&mut self, from: NodeId, epoch: Epoch, end: Seq) -> SnapshotVerdict {
        if !self.joins() || epoch != self.stored_epoch || self.view.primary != Some(from) {
            return SnapshotVerdict::Refused;
        }
        if let Role::Follower(follower) = &self.role
            && follower.epoch == epoch
            && Seq(0) < end
            && end <= follower.verified
        {
            return SnapshotVerdict::Held(follower.verified.min(self.log.durable()));
        }
        if self.may_be_replaced() { SnapshotVerdict::Install } else { SnapshotVerdict::Refused }
    }

    /// Notes that a snapshot which ends at `end` was installed, or that an installation failed and left the replica
    /// empty (the default position).
    pub fn installed(&mut self, end: Position) {
        self.log.reset(end);
        self.committed = Seq(0);
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = end.seq;
        }
        self.commit(end.seq);
    }

    /// Takes a beacon of `from`. `grant` is when the answer that the sender has got had left here, and for how long
    /// from then on this replica may read, in milliseconds.
    pub fn beacon(
        &mut self,
        now_ms: u64,
        from: NodeId,
        epoch: Epoch,
        committed: Seq,
        grant: Option<(u64, u64)>,
    ) -> BeaconVerdict {
        if epoch > self.stored_epoch {
            return BeaconVerdict::StoreEpoch;
        }
        if epoch < self.stored_epoch || from == self.node || !self.accept_leader(from) {
            return BeaconVerdict::Refused;
        }
        self.foreign_answer_ms = Some(now_ms);
        if let Role::Follower(follower) = &mut self.role {
            follower.leader_committed = follower.leader_committed.max(committed);
            if let Some((answered_ms, grant_ms)) = grant.filter(|(at, _)| *at >= self.grants_from_ms) {
                follower.read_until_ms = follower.read_until_ms.max(answered_ms + grant_ms);
            }
        }
        self.commit_as_follower();
        BeaconVerdict::Accepted
    }
}
