//! What a primary does: order entries, send them, count who has them, and hold its lease.

use std::collections::BTreeMap;

use tricord_model::{Epoch, NodeId, Seq};

use crate::follower::{Ack, AckResult};
use crate::handover::Before;
use crate::log::Position;
use crate::pace::Pace;
use crate::progress::{Marks, Progress};
use crate::propose::{MAX_JOIN_LAG, Proposals};
use crate::shard::{Action, Role, Shard, View};

/// A primary's tenure, which may span several epochs.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(crate) before: Before,
    /// The last entry when the current epoch began.
    epoch_start: Seq,
    pub(crate) tenure_ms: u64,
    /// Until then a former primary's lease, or what it granted, may still run.
    pub(crate) serve_after_ms: u64,
    /// This process may have appended under this epoch before it restarted: it asks for the next epoch first.
    pub(crate) must_renew: bool,
    /// Whether every in-sync replica's log equals this one's up to the start of the tenure.
    pub(crate) reconciled: bool,
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    acknowledged: Seq,
    /// Until then a removed follower may still answer queries.
    pub(crate) hold_acks_until_ms: u64,
    pub(crate) marks: Marks,
    /// How quickly entries become durable here.
    pub(crate) disk: Pace,
    pub(crate) proposals: Proposals,
    next_ticket: u64,
}

impl Primary {
    pub(crate) fn new(
        now_ms: u64,
        before: Before,
        epoch_start: Seq,
        serve_after_ms: u64,
        must_renew: bool,
    ) -> Self {
        Self {
            before,
            epoch_start,
            tenure_ms: now_ms,
            serve_after_ms,
            must_renew,
            reconciled: false,
            peers: BTreeMap::new(),
            acknowledged: Seq(0),
            hold_acks_until_ms: 0,
            marks: Marks::default(),
            disk: Pace::default(),
            proposals: Proposals::default(),
            next_ticket: 1,
        }
    }

    pub(crate) fn is_serving(&self, now_ms: u64) -> bool {
        self.reconciled && !self.must_renew && now_ms >= self.serve_after_ms
    }

    /// Whether acknowledgements wait for a replica that was removed to stop answering queries.
    pub(crate) fn holds_acks(&self, now_ms: u64) -> bool {
        now_ms < self.hold_acks_until_ms
    }

    /// The replicas whose answers are needed: the in-sync ones, and those that a change may add or may have added.
    fn needed<'a>(&'a self, view: &'a View, node: NodeId) -> impl Iterator<Item = Option<&'a Progress>> {
        let in_sync = view.in_sync.iter().filter(move |peer| **peer != node).map(|peer| self.peers.get(peer));
        let in_doubt = |id: &NodeId| self.proposals.doubt.contains(id);
        let added = self.peers.iter().filter(move |(id, peer)| peer.wanted.is_some() || in_doubt(id));
        let added = added.filter(|(id, _)| !view.in_sync.contains(id)).map(|(_, peer)| Some(peer));
        in_sync.chain(added)
    }

    /// Until when this primary may serve.
    pub(crate) fn lease_until_ms(&self, view: &View, node: NodeId, lease_ms: u64) -> u64 {
        self.needed(view, node)
            .map(|peer| peer.and_then(|peer| peer.answered).map_or(0, |answered| answered.sent_ms + lease_ms))
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// Why a write is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's shard map is not this replica's.
    #[error("the shard is under epoch {0} here: fetch the shard map")]
    StaleEpoch(Epoch),
    /// The log takes no more entries.
    #[error("the log of the shard's primary has failed: its node must be restarted")]
    LogFailed,
    /// Another replica is the primary, or none is known.
    #[error("this node is not the shard's primary")]
    NotPrimary,
    /// The primary has just begun.
    #[error("the shard's new primary is not ready yet")]
    NotReady,
    /// Fewer in-sync replicas than a write needs.
    #[error("the shard has {0} in-sync replicas and a write needs {1}: start more data nodes")]
    TooFewReplicas(usize, usize),
    /// An in-sync replica does not answer, and cannot be removed (yet).
    #[error("an in-sync replica of the shard does not answer")]
    LeaseLapsed,
}

/// A message to build for a peer: the entries after `previous`, as many as fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Names the message in [`Shard::acked`].
    pub ticket: u64,
    /// The shard's epoch.
    pub epoch: Epoch,
    /// The last entry when the epoch began.
    pub epoch_start: Seq,
    /// The entry before the first one to send.
    pub previous: Position,
    /// The last one that may be sent; `previous.seq` when there is none to send.
    pub last: Seq,
    /// Entries up to this one are committed.
    pub committed: Seq,
}

impl Shard {
    pub(crate) fn add_peers(&mut self, now_ms: u64) {
        let (node, last) = (self.node, self.log.last().seq);
        let Role::Primary(primary) = &mut self.role else { return };
        let view = &self.view;
        primary.peers.retain(|peer, _| view.holds(*peer));
        for peer in view.in_sync.iter().chain(&view.joining).filter(|peer| **peer != node) {
            primary.peers.entry(*peer).or_insert_with(|| Progress::new(now_ms, last));
            self.actions.push(Action::Send(*peer));
        }
    }

    /// The same primary under a new epoch.
    pub(crate) fn continue_tenure(&mut self, now_ms: u64, former: &View) {
        let (last, settle_ms) = (self.log.last().seq, self.timing.settle_ms);
        if let Role::Primary(primary) = &self.role {
            let stays = |id: &&NodeId| primary.peers.get(*id).is_some_and(|peer| !peer.leaving);
            let removed = former.in_sync.iter().filter(|peer| self.view.joining.contains(peer));
            removed.filter(stays).for_each(|id| self.flaps.removed(*id, now_ms, settle_ms));
        }
        let Role::Primary(primary) = &mut self.role else { return };
        primary.epoch_start = last;
        primary.must_renew = false;
        primary.proposals = Proposals::default();
        for (id, peer) in &mut primary.peers {
            peer.new_epoch(now_ms);
            peer.wanted = None;
            if self.view.joining.contains(id) {
                peer.kept_up_since_ms = None;
            }
        }
        self.hold_for_removed(now_ms);
        self.add_peers(now_ms);
    }

    /// Acknowledgements wait until whoever is not in sync any more has stopped answering queries. It counts that time on
    /// its own clock, which may be the slower one.
    pub(crate) fn hold_for_removed(&mut self, now_ms: u64) {
        let drift_ms = self.timing.grace_ms.saturating_sub(self.timing.lease_ms);
        if let Role::Primary(primary) = &mut self.role {
            for (peer, until_ms) in primary.before.granted(&self.view.in_sync, self.timing.lease_ms) {
                let known_ms = self.granted_until_ms.entry(peer).or_default();
                *known_ms = until_ms.max(*known_ms);
            }
        }
        self.granted_until_ms.retain(|_, until_ms| *until_ms + drift_ms > now_ms);
        let removed = self.granted_until_ms.iter().filter(|(peer, _)| !self.view.in_sync.contains(peer));
        let until_ms = removed.map(|(_, until_ms)| *until_ms + drift_ms).max().unwrap_or(0);
        if let Role::Primary(primary) = &mut self.role {
            primary.hold_acks_until_ms = primary.hold_acks_until_ms.max(until_ms);
        }
    }

    /// Whether a write under `epoch` is taken now.
    ///
    /// # Errors
    /// [`Refusal`] with the reason.
    pub fn writable(&self, now_ms: u64, epoch: Epoch) -> Result<(), Refusal> {
        let Role::Primary(primary) = &self.role else { return Err(Refusal::NotPrimary) };
        if self.view.epoch != self.stored_epoch || epoch != self.stored_epoch {
            return Err(Refusal::StaleEpoch(self.stored_epoch));
        }
        if self.view.in_sync.len() < self.min_insync {
            return Err(Refusal::TooFewReplicas(self.view.in_sync.len(), self.min_insync));
        }
        if self.log_failed {
            return Err(Refusal::LogFailed);
        }
        if !primary.is_serving(now_ms) {
            return Err(Refusal::NotReady);
        }
        // A lease that has only just lapsed will most likely be renewed: the write waits with the others.
        let lease_ms = self.timing.lease_ms;
        if now_ms >= primary.lease_until_ms(&self.view, self.node, lease_ms).saturating_add(lease_ms) {
            return Err(Refusal::LeaseLapsed);
        }
        Ok(())
    }

    /// Gives the next entry its place. Only after [`Shard::writable`], and in the order of the log.
    pub fn append(&mut self, now_ms: u64) -> Position {
        let place = Position { seq: self.log.last().seq.next(), epoch: self.view.epoch };
        self.log.push(place);
        if let Role::Primary(primary) = &mut self.role {
            primary.marks.append(place.seq, now_ms);
            let idle = primary.peers.iter().filter(|(_, peer)| peer.ticket.is_none() && !peer.snapshot);
            self.actions.extend(idle.map(|(id, _)| Action::Send(*id)));
        }
        place
    }

    /// The next message to a peer, if there is anything to tell it.
    pub fn plan(&mut self, now_ms: u64, to: NodeId) -> Option<Plan> {
        let last = self.log.last().seq;
        let (epoch, committed) = (self.view.epoch, self.committed);
        if epoch != self.stored_epoch {
            return None;
        }
        let Role::Primary(primary) = &mut self.role else { return None };
        let peer = primary.peers.get_mut(&to)?;
        let idle = peer.ticket.is_none() && !peer.snapshot && now_ms >= peer.retry_at_ms;
        if primary.must_renew || !idle || !(peer.announce || peer.next <= last) {
            return None;
        }
        let ticket = primary.next_ticket;
        primary.next_ticket += 1;
        peer.ticket = Some(ticket);
        let previous = Seq(peer.next.0 - 1);
        // Without its epoch the entry is trimmed here; a follower takes it then only if it knows it as committed.
        let previous = Position { seq: previous, epoch: self.log.epoch_at(previous).unwrap_or_default() };
        Some(Plan { ticket, epoch, epoch_start: primary.epoch_start, previous, last, committed })
    }

    fn peer_of_ticket(&mut self, peer: NodeId, ticket: u64) -> Option<&mut Progress> {
        let Role::Primary(primary) = &mut self.role else { return None };
        primary.peers.get_mut(&peer).filter(|progress| progress.ticket == Some(ticket))
    }

    /// The message could not be delivered.
    pub fn send_failed(&mut self, now_ms: u64, peer: NodeId, ticket: u64) {
        let retry_at_ms = now_ms + self.timing.retry_ms;
        if let Some(progress) = self.peer_of_ticket(peer, ticket) {
            progress.retry_at(retry_at_ms);
        }
    }

    /// The entries for the message are trimmed from the log.
    pub fn needs_snapshot(&mut self, peer: NodeId, ticket: u64) {
        let joining = self.view.joining.contains(&peer);
        let last = self.log.last().seq;
        if let Some(progress) = self.peer_of_ticket(peer, ticket) {
            progress.ticket = None;
            progress.snapshot = joining;
            if joining {
                self.actions.push(Action::Snapshot(peer));
            } else {
                // An in-sync replica that lacks what is trimmed here has lost data: it has to join again. Where it cannot be
                // left out it is asked again from the end on, as it may have it back.
                progress.failed = true;
                progress.announce = true;
                progress.next = last.next();
            }
        }
    }

    /// A snapshot that ends at `end` was installed at the peer, or was not (`None`).
    pub fn snapshot_done(&mut self, now_ms: u64, peer: NodeId, end: Option<Seq>) {
        let retry_at_ms = now_ms + self.timing.retry_ms;
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(progress) = primary.peers.get_mut(&peer) else { return };
        progress.snapshot = false;
        match end {
            Some(end) => {
                progress.next = end.next();
                progress.announce = true;
                self.actions.push(Action::Send(peer));
            }
            None => progress.retry_at(retry_at_ms),
        }
    }

    /// Takes a peer's answer to the message `ticket`.
    pub fn acked(&mut self, now_ms: u64, from: NodeId, ticket: u64, ack: Ack) {
        let (epoch, last) = (self.view.epoch, self.log.last().seq);
        let (retry_at_ms, timeout_ms) = (now_ms + self.timing.retry_ms, self.timing.follower_timeout_ms);
        let Role::Primary(primary) = &mut self.role else { return };
        let Primary { peers, marks, before, .. } = &mut **primary;
        let of_ticket = |progress: &&mut Progress| progress.ticket == Some(ticket);
        let Some(progress) = peers.get_mut(&from).filter(of_ticket) else { return };
        progress.ticket = None;
        match ack.result {
            AckResult::Ok if ack.epoch == epoch => {
                before.heard(from);
                progress.stored(now_ms, ack.durable.seq.min(last), marks, timeout_ms);
            }
            AckResult::Mismatch => self.rewind(now_ms, from, &ack),
            AckResult::Failed => {
                progress.failed = true;
                progress.retry_at(retry_at_ms);
            }
            AckResult::Ok | AckResult::Stale | AckResult::NotReplica => progress.retry_at(retry_at_ms),
        }
        if ack.epoch > self.stored_epoch {
            self.actions.push(Action::Refresh);
        }
        self.advance(now_ms);
        self.wake(now_ms, from);
    }

    fn wake(&mut self, now_ms: u64, to: NodeId) {
        let last = self.log.last().seq;
        let Role::Primary(primary) = &self.role else { return };
        if let Some(peer) = primary.peers.get(&to)
            && peer.ticket.is_none()
            && !peer.snapshot
            && now_ms >= peer.retry_at_ms
            && (peer.announce || peer.next <= last)
        {
            self.actions.push(Action::Send(to));
        }
    }

    /// Goes back to where the peer's log equals this one.
    fn rewind(&mut self, now_ms: u64, peer: NodeId, ack: &Ack) {
        let last = self.log.last().seq;
        let joining = self.view.joining.contains(&peer);
        let same_end =
            ack.durable.seq <= last && self.log.epoch_at(ack.durable.seq) == Some(ack.durable.epoch);
        let retry_at_ms = now_ms + self.timing.retry_ms;
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(progress) = primary.peers.get_mut(&peer) else { return };
        progress.kept_up_since_ms = None;
        if joining {
            // It may have lost what it had, by an installation that failed.
            progress.matched = progress.matched.min(ack.durable.seq);
        }
        let hints = [same_end.then_some(ack.durable.seq), Some(ack.committed).filter(|seq| *seq <= last)];
        match hints.into_iter().flatten().find(|seq| seq.next() < progress.next) {
            Some(seq) => {
                progress.next = seq.next();
                if progress.failed {
                    progress.retry_at(retry_at_ms);
                }
            }
            None if joining => {
                progress.snapshot = true;
                self.actions.push(Action::Snapshot(peer));
            }
            None => {
                progress.failed = true;
                progress.retry_at(retry_at_ms);
            }
        }
    }

    /// Counts again who has what.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        let (node, lease_ms) = (self.node, self.timing.lease_ms);
        let (durable, committed) = (self.log.durable(), self.committed);
        let Role::Primary(primary) = &mut self.role else { return };
        let stored =
            primary.needed(&self.view, node).map(|peer| peer.map_or(Seq(0), |peer| peer.matched)).min();
        let everywhere = stored.map_or(durable, |stored| stored.min(durable));
        primary.marks.settle(everywhere);
        let announced = primary.needed(&self.view, node).all(|peer| peer.is_some_and(|peer| !peer.announce));
        primary.reconciled |= announced && everywhere >= primary.epoch_start && !primary.must_renew;
        for peer in primary.peers.values_mut() {
            let near = peer.matched.0 + MAX_JOIN_LAG >= committed.0;
            let kept_up = near && !peer.announce && !peer.snapshot;
            peer.kept_up_since_ms = peer.kept_up_since_ms.filter(|_| kept_up).or(kept_up.then_some(now_ms));
        }
        if !primary.reconciled {
            return;
        }
        let enough = self.view.in_sync.len() >= self.min_insync;
        let leased = now_ms < primary.lease_until_ms(&self.view, node, lease_ms);
        let free = primary.is_serving(now_ms) && !primary.holds_acks(now_ms);
        let committed = committed.max(everywhere);
        if enough
            && leased
            && free
            && self.view.epoch == self.stored_epoch
            && committed > primary.acknowledged
        {
            primary.acknowledged = committed;
            self.actions.push(Action::Acknowledge(committed));
        }
        self.commit(committed);
    }

    pub(crate) fn primary_may_read(&self, now_ms: u64) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        if primary.must_renew || now_ms < primary.serve_after_ms {
            return false;
        }
        // While metadata confirms the epoch and the set cannot shrink, no write is acknowledged without this replica:
        // what it has is all there is, even while the others are away.
        let confirmed = now_ms < primary.proposals.confirmed_until_ms && primary.proposals.doubt.is_empty();
        let cannot_shrink = confirmed && self.view.in_sync.len() <= self.min_insync;
        let leased = now_ms < primary.lease_until_ms(&self.view, self.node, self.timing.lease_ms);
        cannot_shrink || (primary.reconciled && leased)
    }

    /// Lets time pass: leases end, messages are tried again, changes are proposed. Every few 10 ms.
    pub fn tick(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.propose_if_needed(now_ms);
        let Role::Primary(primary) = &self.role else { return };
        if primary.must_renew {
            return;
        }
        let peers: Vec<NodeId> = primary.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.wake(now_ms, peer));
    }

    /// How many entries a peer lacks, for reports.
    #[must_use]
    pub fn lag(&self, peer: NodeId) -> Option<u64> {
        let Role::Primary(primary) = &self.role else { return None };
        Some(self.log.last().seq.0.saturating_sub(primary.peers.get(&peer)?.matched.0))
    }

    /// Entries after this one may still be needed in memory for sending.
    #[must_use]
    pub fn unsent_after(&self) -> Seq {
        let durable = self.log.durable();
        let Role::Primary(primary) = &self.role else { return durable };
        let sent = primary.peers.values().map(|peer| Seq(peer.next.0.saturating_sub(1))).min();
        sent.map_or(durable, |sent| sent.min(durable))
    }
}
