//! Changes that a primary asks metadata for: a failing follower out, a joiner that has caught up in, a new epoch
//! after a restart.

use tricord_model::NodeId;

use crate::primary::Primary;
use crate::progress::Progress;
use crate::shard::{Action, Role, Shard, View};

/// How many entries a joiner may lack when it begins to be needed for acknowledgements.
pub(crate) const MAX_JOIN_LAG: u64 = 1024;
/// Refused proposals are tried again after so many retry intervals.
const REFUSED_RETRIES: u64 = 8;

/// The proposals of one epoch.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    in_flight: bool,
    /// An attempt ended without an answer, so it may still be taken.
    uncertain: bool,
    next_ms: u64,
    sent_ms: u64,
    /// Until then metadata has named no other primary, or that one has waited for this one.
    pub(crate) confirmed_until_ms: u64,
    /// Replicas that may have been added to the in-sync set.
    pub(crate) doubt: Vec<NodeId>,
}

/// What came of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// Taken: the new configuration comes by [`Shard::configure`].
    Accepted,
    /// Refused for good, and the epoch is unchanged. Where it is not, the newer configuration has been given to
    /// [`Shard::configure`] before.
    Refused,
    /// No answer.
    Unknown,
}

impl Shard {
    pub(crate) fn propose_if_needed(&mut self, now_ms: u64) {
        let Role::Primary(primary) = &self.role else { return };
        let waits = primary.proposals.in_flight || now_ms < primary.proposals.next_ms;
        if waits || self.view.epoch != self.stored_epoch {
            return;
        }
        self.want_joiners(now_ms);
        let Some(wish) = self.wish(now_ms) else { return };
        let Role::Primary(primary) = &mut self.role else { return };
        let added = wish.in_sync.iter().filter(|peer| !self.view.in_sync.contains(peer));
        for peer in added {
            if !primary.proposals.doubt.contains(peer) {
                primary.proposals.doubt.push(*peer);
            }
        }
        primary.proposals.in_flight = true;
        primary.proposals.sent_ms = now_ms;
        self.actions.push(Action::Propose(wish));
    }

    /// The configuration that this primary would rather have, if another than it has.
    fn wish(&self, now_ms: u64) -> Option<View> {
        let Role::Primary(primary) = &self.role else { return None };
        if primary.must_renew {
            return Some(self.view.clone());
        }
        if let Some(wish) = self.succession(now_ms) {
            return Some(wish);
        }
        let timeout_ms = self.timing.follower_timeout_ms;
        let failing = |id: &NodeId| {
            primary.peers.get(id).is_some_and(|peer| peer.is_failing(now_ms, &primary.marks, timeout_ms))
        };
        let ready = |id: &NodeId| self.is_ready(*id);
        let mut failing: Vec<NodeId> = self.view.in_sync.iter().filter(|id| failing(id)).copied().collect();
        if failing.is_empty() {
            failing = self.slow_followers(primary, now_ms);
        }
        let ready: Vec<NodeId> = self.view.joining.iter().filter(|id| ready(id)).copied().collect();
        let smaller = self.view.in_sync.iter().filter(|id| !failing.contains(id)).chain(&ready);
        let smaller: Vec<NodeId> = smaller.copied().collect();
        let remaining = self.view.joining.iter().filter(|id| !ready.contains(id));
        if !failing.is_empty() && smaller.len() >= self.min_insync {
            let joining = remaining.chain(&failing).copied().collect();
            return Some(View { in_sync: smaller, joining, ..self.view.clone() });
        }
        if ready.is_empty() && primary.peers.values().any(|peer| peer.asks) {
            // The next epoch, with everybody in the same place; where the joiner is about to be in sync already, one of
            // the two comes true and the other one to nothing.
            return Some(self.view.clone());
        }
        if ready.is_empty() {
            // Too few would be left, and metadata says so; its refusal also confirms that this epoch still holds.
            let joining = remaining.chain(&failing).copied().collect();
            return (!failing.is_empty()).then(|| View { in_sync: smaller, joining, ..self.view.clone() });
        }
        let in_sync = self.view.in_sync.iter().chain(&ready).copied().collect();
        Some(View { in_sync, joining: remaining.copied().collect(), ..self.view.clone() })
    }

    /// Followers that take long for everything, where writes would be quick without them: another follower is, and enough
    /// copies are left. Where all are slow, nothing is gained.
    fn slow_followers(&self, primary: &Primary, now_ms: u64) -> Vec<NodeId> {
        let timeout_ms = self.timing.follower_timeout_ms;
        let is_slow =
            |id: &NodeId| primary.peers.get(id).is_some_and(|peer| peer.is_slow(now_ms, timeout_ms));
        let followers = self.view.in_sync.iter().copied().filter(|id| *id != self.node);
        let (slow, quick): (Vec<NodeId>, Vec<NodeId>) = followers.partition(is_slow);
        if quick.is_empty() || quick.len() + 1 < self.min_insync { Vec::new() } else { slow }
    }

    /// From here on acknowledgements need the joiners that keep up; one that stops is not waited for.
    fn want_joiners(&mut self, now_ms: u64) {
        let (timing, last, committed) = (self.timing, self.log.last().seq, self.committed);
        // With no copy to spare, one that flaps is better than none.
        let spare = self.view.in_sync.len() > self.min_insync;
        let Role::Primary(primary) = &mut self.role else { return };
        let is_well = |id: &&NodeId| {
            let peer = primary.peers.get(*id);
            peer.is_some_and(|peer| !peer.is_failing(now_ms, &primary.marks, timing.follower_timeout_ms))
        };
        // One that is slow is let in where writes would have to stop without it.
        let enough = self.view.in_sync.iter().filter(is_well).count() + 1 >= self.min_insync;
        let serving = primary.is_serving(now_ms);
        // A primary that cannot reconcile knows only that its whole log holds what was acknowledged. It may replace a
        // dead replica once that one, if it still lives as a primary, has stopped answering queries.
        let waited = now_ms >= primary.tenure_ms + timing.confirm_ms + timing.confirm_ms / 4;
        for (id, peer) in primary.peers.iter_mut().filter(|(id, _)| self.view.joining.contains(id)) {
            let leased = peer.answered.is_some_and(|answered| now_ms < answered.sent_ms + timing.lease_ms);
            let held_off_ms = self.flaps.settle_ms(*id, now_ms, timing.settle_ms);
            let settle_ms = if spare { held_off_ms } else { timing.settle_ms };
            let settled = peer.kept_up_since_ms.is_some_and(|since| now_ms >= since + settle_ms);
            let failing = peer.is_failing(now_ms, &primary.marks, timing.follower_timeout_ms);
            let slow = enough && peer.is_slow(now_ms, timing.follower_timeout_ms);
            let overdue = failing || slow || peer.asks;
            if peer.wanted.is_none() && leased && settled && !overdue && (serving || waited) {
                peer.wanted = Some(if serving { committed } else { last });
            } else if overdue && !primary.proposals.doubt.contains(id) {
                peer.wanted = None;
            }
        }
    }

    /// Whether a joiner holds everything that was acknowledged.
    fn is_ready(&self, id: NodeId) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        let has_all = |peer: &Progress| peer.wanted.is_some_and(|seq| peer.matched >= seq);
        primary.peers.get(&id).is_some_and(|peer| !peer.asks && has_all(peer))
    }

    /// Whether a proposal of this epoch that adds a replica to the in-sync set is on its way to metadata, or may have been
    /// taken.
    #[must_use]
    pub fn may_grow(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if !primary.proposals.doubt.is_empty())
    }

    /// Takes what came of the last proposal.
    pub fn proposed(&mut self, now_ms: u64, outcome: ProposalOutcome) {
        let (retry_ms, confirm_ms) = (self.timing.retry_ms, self.timing.confirm_ms);
        let Role::Primary(primary) = &mut self.role else { return };
        let proposals = &mut primary.proposals;
        if !proposals.in_flight {
            return;
        }
        proposals.in_flight = false;
        match outcome {
            ProposalOutcome::Accepted | ProposalOutcome::Unknown => {
                proposals.uncertain = true;
                proposals.next_ms = now_ms + retry_ms;
            }
            ProposalOutcome::Refused => {
                if !proposals.uncertain {
                    proposals.doubt.clear();
                }
                proposals.next_ms = now_ms + retry_ms * REFUSED_RETRIES;
                proposals.confirmed_until_ms = proposals.sent_ms + confirm_ms;
            }
        }
    }
}
