//! Beginning anew: when a replica may throw away what it holds, be it for a snapshot or because it is damaged, and how it
//! comes to where it may.
//!
//! A primary counts on what a joiner has acknowledged under the primary's epoch: once that is everything, it asks metadata
//! to let the joiner in, and the answer may come much later, when the joiner has no say any more. So under one epoch a
//! joiner never goes back behind what it has acknowledged. What this process has acknowledged it knows
//! (`Follower::is_untouched`, `Follower::verified`). What an earlier process of the node has acknowledged under an epoch it
//! does not know, but only that this was under no later one than was stored when it started: an epoch is stored before
//! anything is answered under it. Hence the rule, which all of this file and [`Shard::judge_snapshot`] follow:
//!
//! *Nothing is thrown away under an epoch that was stored already when the process started.*
//!
//! It is enough. Under an epoch from after the start, whatever was acknowledged to its primary is known here. A primary
//! that goes on from one epoch to the next remembers what it was told under the former one, but lets nobody in who has not
//! acknowledged something under the new one (`Progress::announce`), and such an answer says that what is remembered is
//! there; and a proposal of a former epoch comes to nothing, as metadata compares epochs. Metadata itself counts on in-sync
//! replicas alone, and those never throw anything away.
//!
//! A joiner that needs a later epoch says so with its answers to beacons, and its primary asks metadata for the same
//! configuration under the next one. Until then the primary neither lets it in nor begins to count on it.

use tricord_model::{Epoch, NodeId};

use crate::shard::{Role, Shard};

/// What a replica whose data is damaged can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is in sync: it asks to be left out, with [`Shard::resign`].
    Leave,
    /// Nobody counts on what it holds: it tells [`Shard::installed`] of the default position, and is copied again.
    BeginAnew,
    /// Somebody may count on it: it calls [`Shard::ask_for_epoch`].
    Ask,
    /// It has begun anew, or is the only one that has anything, or does not know its place.
    Wait,
}

impl Shard {
    /// Whether everything that this node has acknowledged under the epoch was acknowledged by this process.
    fn knows_what_it_said(&self) -> bool {
        self.view.epoch > self.boot_epoch
    }

    pub(crate) fn joins(&self) -> bool {
        let is_current = self.view.epoch == self.stored_epoch;
        is_current && self.view.joining.contains(&self.node) && !self.view.in_sync.contains(&self.node)
    }

    /// Whether a snapshot may take the place of what is here, if that is not behind what this process has stored. Where it
    /// may not, the replica asks for an epoch under which it may.
    pub(crate) fn may_be_replaced(&mut self) -> bool {
        let may = self.knows_what_it_said();
        if !may {
            self.ask_for_epoch();
        }
        may
    }

    /// Whether this replica may throw away what it holds, and tell it with [`Shard::installed`] of the default position:
    /// it joins, and this node has stored nothing under this epoch yet, so nobody counts on what it had.
    #[must_use]
    pub fn may_begin_anew(&self) -> bool {
        let untouched = match &self.role {
            Role::Follower(follower) => follower.epoch == self.stored_epoch && follower.is_untouched(),
            Role::Idle | Role::Primary(_) => false,
        };
        self.joins() && untouched && self.knows_what_it_said()
    }

    /// What this replica does if what it holds is damaged.
    #[must_use]
    pub fn renewal(&self) -> Renewal {
        if self.view.in_sync.contains(&self.node) {
            return if self.view.in_sync.len() > 1 { Renewal::Leave } else { Renewal::Wait };
        }
        let is_empty = self.last().seq.0 == 0;
        // Where there is nothing to throw away it has only to take back that it leaves, or it would never be let in.
        let begins = if is_empty { self.resigning && !self.log_failed } else { self.may_begin_anew() };
        match self.joins() {
            true if begins => Renewal::BeginAnew,
            true if !is_empty => Renewal::Ask,
            _ => Renewal::Wait,
        }
    }

    /// Whether this replica, if what it holds is damaged, must not look at a message of a primary under `epoch`: its
    /// place then is not known yet, or it is to begin anew first. One that is in sync takes entries, or writes would stop.
    #[must_use]
    pub fn withholds(&self, epoch: Epoch) -> bool {
        self.view.epoch < epoch || self.joins() && self.last().seq.0 > 0
    }

    /// Asks the primary for an epoch under which this joiner may begin anew.
    pub fn ask_for_epoch(&mut self) {
        self.asks_after = self.asks_after.max(self.view.epoch);
    }

    /// The epoch that this joiner wants to be over, for its answers to beacons.
    #[must_use]
    pub fn asks_after(&self) -> Option<Epoch> {
        (self.joins() && self.asks_after == self.view.epoch).then_some(self.asks_after)
    }

    /// Takes what [`Shard::asks_after`] says at another replica.
    pub fn asked_after(&mut self, from: NodeId, epoch: Epoch) {
        let Role::Primary(primary) = &mut self.role else { return };
        if self.view.epoch == epoch
            && self.view.joining.contains(&from)
            && let Some(peer) = primary.peers.get_mut(&from)
        {
            peer.asks = true;
        }
    }
}
