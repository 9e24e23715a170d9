//! The primary's side of beacons: what it tells and grants with them, and what it takes from the answers.

use tricord_model::{Epoch, NodeId, Seq};

use crate::progress::Answered;
use crate::shard::{Role, Shard};

/// A beacon that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconAnswer {
    /// Its number.
    pub number: u64,
    /// When it had left, in milliseconds.
    pub sent_ms: u64,
    /// Whoever answered is about to stop, and answers no more queries, whatever it was allowed before.
    pub leaving: bool,
    /// Whoever answered has not compared its log with this primary's in this epoch, as one that has just started: it
    /// answers no queries before ([`Shard::awaits_primary`]).
    pub awaits: bool,
    /// Whoever answered finds this node slow, and others not ([`crate::Links::finds_slow`]).
    pub finds_slow: bool,
}

impl Shard {
    /// This shard's part of a beacon to `to` that says that answer `answered` has come: epoch, committed entry, and
    /// for how long `to` may read, counted from when that answer left it, in milliseconds.
    pub fn beacon_to(&mut self, now_ms: u64, to: NodeId, answered: u64) -> Option<(Epoch, Seq, u64)> {
        let (epoch, committed) = (self.view.epoch, self.committed);
        let (node, lease_ms) = (self.node, self.timing.lease_ms);
        let current = epoch == self.stored_epoch;
        let Role::Primary(primary) = &mut self.role else { return None };
        if !current || primary.must_renew {
            return None;
        }
        let lease_until_ms = primary.lease_until_ms(&self.view, node, lease_ms);
        let grants = primary.is_serving(now_ms) && now_ms < lease_until_ms && self.view.in_sync.contains(&to);
        let Some(peer) = primary.peers.get(&to) else {
            // It has no place any more, and is told so: acknowledgements wait for its answer, or the end of its lease.
            return self.granted_until_ms.contains_key(&to).then_some((epoch, committed, 0));
        };
        let grants = grants && !peer.leaving;
        let confirmed = peer.answered.filter(|last| last.number == answered && grants && answered > 0);
        let grant_ms = confirmed.map_or(0, |last| lease_until_ms.saturating_sub(last.received_ms));
        if grant_ms > 0 {
            let until_ms = self.granted_until_ms.entry(to).or_default();
            *until_ms = lease_until_ms.max(*until_ms);
        }
        Some((epoch, committed, grant_ms))
    }

    /// A beacon was accepted by `from` for this shard.
    pub fn beacon_answered(&mut self, now_ms: u64, from: NodeId, answer: BeaconAnswer) {
        let BeaconAnswer { number, sent_ms, leaving, awaits, finds_slow } = answer;
        let Role::Primary(primary) = &mut self.role else { return };
        if sent_ms < primary.tenure_ms {
            return;
        }
        primary.before.heard(from);
        if let Some(peer) = primary.peers.get_mut(&from)
            && peer.answered.is_none_or(|last| last.number < number)
        {
            let answered = Answered { number, sent_ms, received_ms: now_ms };
            peer.answered(answered, self.timing.follower_timeout_ms);
            peer.leaving = leaving;
            peer.finds_slow = finds_slow;
            if awaits && peer.ticket.is_none() && !peer.announce {
                // It had heard before it started again, and without a write there is nothing else to send.
                peer.announce = true;
                peer.announced_ms = now_ms;
            }
            if leaving {
                self.granted_until_ms.remove(&from);
            }
        }
        self.advance(now_ms);
    }

    /// Another replica says that it has stored an epoch. Where that is this one's, or a later one, and the replica is not in
    /// sync in it, it answers no more queries, whatever it was allowed before: there is nothing to wait for.
    pub fn peer_stored(&mut self, now_ms: u64, from: NodeId, stored: Epoch) {
        let Role::Primary(primary) = &mut self.role else { return };
        let is_over = stored >= self.view.epoch && !self.view.in_sync.contains(&from);
        if is_over && self.granted_until_ms.remove(&from).is_some() {
            primary.hold_acks_until_ms = 0;
            self.hold_for_removed(now_ms);
            self.advance(now_ms);
        }
    }

    /// Who gets this primary's beacons: the other replicas, and those that had a place and may still answer queries.
    pub fn beacons_to(&self) -> impl Iterator<Item = NodeId> {
        let is_primary = matches!(self.role, Role::Primary(_));
        let replicas = self.view.in_sync.iter().chain(&self.view.joining);
        let all = replicas.chain(self.granted_until_ms.keys()).copied();
        all.filter(move |peer| is_primary && *peer != self.node)
    }
}
