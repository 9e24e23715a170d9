//! Giving up the primary's role in good order: whom a primary that stops, or whose disk fails it, would rather see in its
//! place, and how its successor is spared the wait for leases that are known to be over.

use std::collections::{BTreeMap, BTreeSet};

use tricord_model::{Epoch, NodeId};

use crate::primary::Primary;
use crate::shard::{Action, Role, Shard, View};

/// After so many settling times without a removal, a follower's earlier ones are forgotten.
const FLAPS_FORGOTTEN_AFTER: u64 = 300;
/// A follower that flaps waits at most this many times the settling time, as a power of two.
const MOST_HOLD_OFF: u32 = 4;

/// How often followers have lately been taken out of the in-sync set for failing, and when last.
#[derive(Debug, Default)]
pub(crate) struct Flaps(BTreeMap<NodeId, (u32, u64)>);

impl Flaps {
    /// Notes a removal.
    pub(crate) fn removed(&mut self, node: NodeId, now_ms: u64, settle_ms: u64) {
        let recent = self.recent(node, now_ms, settle_ms);
        self.0.insert(node, (recent + 1, now_ms));
    }

    fn recent(&self, node: NodeId, now_ms: u64, settle_ms: u64) -> u32 {
        let fresh = |at: u64| now_ms < at + settle_ms * FLAPS_FORGOTTEN_AFTER;
        self.0.get(&node).filter(|(_, at)| fresh(*at)).map_or(0, |(count, _)| *count)
    }

    /// How long a follower must keep up before it is in sync again: twice as long with each recent removal.
    pub(crate) fn settle_ms(&self, node: NodeId, now_ms: u64, settle_ms: u64) -> u64 {
        let doublings = self.recent(node, now_ms, settle_ms).saturating_sub(1).min(MOST_HOLD_OFF);
        settle_ms << doublings
    }
}

/// A primary that has stepped down for a successor before it has heard from metadata what changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retired {
    /// The epoch in which it was the primary.
    epoch: Epoch,
    /// From when on the leases from before its own tenure were over.
    serve_after_ms: u64,
}

impl Retired {
    /// What stays of a role; nothing of one that never served.
    pub(crate) fn of(role: &Role, view: &View) -> Option<Self> {
        let Role::Primary(primary) = role else { return None };
        let served = primary.reconciled && !primary.must_renew;
        served.then_some(Self { epoch: view.epoch, serve_after_ms: primary.serve_after_ms })
    }
}

/// What a primary knows of the leases from before its tenure, and of their holders.
#[derive(Debug)]
pub(crate) struct Before {
    /// The epochs of which it may be told that leases from before them are over, first and last.
    told_of: (Epoch, Epoch),
    /// When it was told. It then need not wait for those that have no part in what it acknowledges, …
    released_ms: Option<u64>,
    /// … except for these: they may answer by such a lease until they hear of this tenure. As long as they are in sync
    /// they do before anything is acknowledged.
    unheard: BTreeSet<NodeId>,
}

impl Before {
    /// Before a tenure that begins with `view` after `former`, the last configuration that is known here.
    pub(crate) fn new(former: &View, view: &View) -> Self {
        // The primary may have missed the epoch in which it was named; nobody else led then. Who could hold a lease was in
        // sync in that one, so it had a place in the one before.
        let missed_one = former.epoch > Epoch(0) && former.epoch.0 + 2 == view.epoch.0;
        let earliest = if missed_one { Epoch(view.epoch.0 - 1) } else { view.epoch };
        let led = |id: &&NodeId| former.primary != Some(**id);
        let earlier = former.in_sync.iter().chain(&former.joining).filter(led).filter(|_| missed_one);
        let unheard = earlier.chain(&view.in_sync).filter(|id| view.primary != Some(**id)).copied();
        Self { told_of: (earliest, view.epoch), released_ms: None, unheard: unheard.collect() }
    }

    /// A replica has stored an epoch of this tenure.
    pub(crate) fn heard(&mut self, node: NodeId) {
        self.unheard.remove(&node);
    }

    /// Those of them that are not in sync any more, and until when they may answer.
    pub(crate) fn granted(&mut self, in_sync: &[NodeId], lease_ms: u64) -> Vec<(NodeId, u64)> {
        let Some(released_ms) = self.released_ms else { return Vec::new() };
        let gone: Vec<NodeId> = self.unheard.iter().filter(|id| !in_sync.contains(id)).copied().collect();
        self.unheard.retain(|id| in_sync.contains(id));
        gone.into_iter().map(|id| (id, released_ms + lease_ms)).collect()
    }
}

impl Shard {
    /// Asks for another primary from the next tick on, if this replica is one; as a follower it answers no more queries
    /// and asks to be left out. For a node that is about to stop; it takes entries until then.
    pub fn resign(&mut self) {
        self.resigning = true;
    }

    /// Takes [`Shard::resign`] back, unless the log has failed. The primary may have gone on without waiting for whom it
    /// had allowed to answer queries before it heard that this replica leaves: those grants are void, and so are those on
    /// their way. One counts again that was given for an answer from after this moment, which did not say so any more.
    pub fn stay(&mut self, now_ms: u64) {
        if !self.resigning || self.log_failed {
            return;
        }
        self.resigning = false;
        self.grants_from_ms = now_ms + 1;
        if let Role::Follower(follower) = &mut self.role {
            follower.read_until_ms = 0;
        }
    }

    /// Notes that the log takes no more entries until the process starts again: nothing is written from here on, and
    /// another replica is to lead.
    pub fn log_failed(&mut self) {
        self.log_failed = true;
        self.resigning = true;
    }

    /// Whether this replica still waits for others to go on without it, as far as they can.
    #[must_use]
    pub fn is_resigning(&self) -> bool {
        let members = self.view.in_sync.len();
        let least = if matches!(self.role, Role::Primary(_)) { 1 } else { self.min_insync };
        self.resigning && self.view.in_sync.contains(&self.node) && members > least
    }

    /// Whether this replica answers beacons with the word that it is leaving.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.resigning && !matches!(self.role, Role::Primary(_))
    }

    /// The configuration in which another replica leads, if this one should not and another can.
    pub(crate) fn succession(&self, now_ms: u64) -> Option<View> {
        let Role::Primary(primary) = &self.role else { return None };
        let timing = self.timing;
        let waits = primary.marks.appended_ms(self.log.durable().next());
        let stuck = waits.is_some_and(|at| now_ms > at + timing.follower_timeout_ms);
        let slow = stuck || primary.disk.is_slow(now_ms, timing.follower_timeout_ms);
        let far = self.is_far(primary, now_ms);
        if !self.resigning && !slow && !far {
            return None;
        }
        let fit = |id: &&NodeId| {
            primary.peers.get(*id).is_some_and(|peer| {
                let leased =
                    peer.answered.is_some_and(|answered| now_ms < answered.sent_ms + timing.lease_ms);
                let failing = peer.is_failing(now_ms, &primary.marks, timing.follower_timeout_ms);
                // Where all disks are slow, nothing is gained.
                let ahead = self.resigning || far || peer.matched > self.log.durable();
                let quick = self.resigning || !peer.is_slow(now_ms, timing.follower_timeout_ms);
                leased && ahead && quick && !failing
            })
        };
        let members = self.view.in_sync.iter().filter(|id| **id != self.node);
        let matched = |id: &&NodeId| primary.peers.get(*id).map(|peer| peer.matched);
        let successor = members.clone().filter(fit).max_by_key(matched)?;
        let others: Vec<NodeId> = members.copied().collect();
        let mut wish = View { primary: Some(*successor), ..self.view.clone() };
        if others.len() >= self.min_insync {
            wish.in_sync = others;
            wish.joining.push(self.node);
        } else if !self.resigning {
            // It would stay in the set, and writes would wait for it as before.
            return None;
        }
        Some(wish)
    }

    /// Whether all others find this primary's node slow, and each of them somebody else quick.
    fn is_far(&self, primary: &Primary, now_ms: u64) -> bool {
        let says_so = |id: &NodeId| {
            primary.peers.get(id).is_some_and(|peer| {
                let recent = peer.answered.is_some_and(|last| now_ms < last.sent_ms + self.timing.lease_ms);
                recent && peer.finds_slow
            })
        };
        let mut others = self.view.in_sync.iter().filter(|id| **id != self.node);
        self.view.in_sync.len() > 1 && others.all(says_so)
    }

    /// Before a configuration under which another replica leads: tells that one that no older lease runs any more, if
    /// this replica knows it. As the primary until now it stops here; whoever it has allowed to answer queries is in sync
    /// still and has to follow before anything is acknowledged; and it had waited for its own predecessors.
    pub(crate) fn release(&mut self, now_ms: u64, next: &View) {
        let retired = self.retired.take();
        let (epoch, served) = match (&self.role, retired) {
            (Role::Primary(primary), _) => (self.view.epoch, primary.is_serving(now_ms)),
            (_, Some(retired)) => (retired.epoch, now_ms >= retired.serve_after_ms),
            _ => return,
        };
        let Some(successor) = next.primary.filter(|successor| *successor != self.node) else { return };
        let drift_ms = self.timing.grace_ms.saturating_sub(self.timing.lease_ms);
        let over =
            |(peer, until_ms): (&NodeId, &u64)| *until_ms + drift_ms <= now_ms || next.in_sync.contains(peer);
        let follows = next.epoch.0 == epoch.0 + 1;
        if follows && served && self.granted_until_ms.iter().all(over) {
            self.actions.push(Action::Release(successor, next.epoch));
        }
    }

    /// Another replica says that every lease from before `epoch` is over, and that this one is the primary then.
    pub fn released(&mut self, now_ms: u64, epoch: Epoch) {
        // An earlier process may have led in that epoch, and what it granted is forgotten.
        if epoch > self.boot_epoch {
            self.released = self.released.max(epoch);
        }
        self.use_release(now_ms);
    }

    /// Serves from now on if leases from before this tenure are known to be over.
    pub(crate) fn use_release(&mut self, now_ms: u64) {
        let Role::Primary(primary) = &mut self.role else { return };
        let (earliest, latest) = primary.before.told_of;
        let is_told = earliest <= self.released && self.released <= latest;
        if is_told && primary.before.released_ms.is_none() {
            primary.before.released_ms = Some(now_ms);
            primary.serve_after_ms = primary.serve_after_ms.min(now_ms);
            self.hold_for_removed(now_ms);
            self.advance(now_ms);
        }
    }

    /// Whether this primary waits for answers to beacons before it may serve, or acknowledge: they are worth hurrying.
    #[must_use]
    pub fn awaits_lease(&self, now_ms: u64) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        let lapsed = now_ms >= primary.lease_until_ms(&self.view, self.node, self.timing.lease_ms);
        !primary.must_renew && (lapsed || primary.holds_acks(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_that_flaps_waits_longer_each_time_and_is_forgiven() {
        let mut flaps = Flaps::default();
        let node = NodeId(1);
        let mut waits = Vec::new();
        for at in 1..8 {
            flaps.removed(node, at * 1_000, 100);
            waits.push(flaps.settle_ms(node, at * 1_000, 100));
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 1_600, 1_600]);
        assert_eq!(flaps.settle_ms(node, 7_000 + 30_000, 100), 100);
        assert_eq!(flaps.settle_ms(NodeId(2), 7_000, 100), 100);
    }
}
