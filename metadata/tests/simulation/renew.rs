//! What a simulated replica does when something of it is damaged, as `querier/src/replica/renew.rs` does it.

use rand::Rng;
use tricord_model::Epoch;
use tricord_replication::{Position, Renewal};

use crate::mutation::Mutation;
use crate::node::Turn;
use crate::replica::Replica;

impl Replica {
    /// Does the next thing about damage, now and then.
    pub(crate) fn renew(&mut self, turn: &mut Turn) {
        if !self.disk.lock().damaged {
            if std::mem::take(&mut self.leaving) {
                self.machine.stay(turn.local_ms);
            }
            return;
        }
        if turn.rng.random_bool(0.002) {
            // Retention has taken the windows that were damaged.
            self.disk.lock().damaged = false;
            return;
        }
        if !turn.rng.random_bool(0.1) {
            return;
        }
        match self.machine.renewal() {
            Renewal::Leave if !self.leaving => {
                self.leaving = true;
                self.machine.resign();
                turn.tally.left += 1;
            }
            Renewal::BeginAnew | Renewal::Ask => self.begin_anew(turn),
            Renewal::Leave | Renewal::Wait => {}
        }
    }

    /// A joiner says that it holds nothing, or asks for an epoch in which it may.
    fn begin_anew(&mut self, turn: &mut Turn) {
        let asked = self.machine.asks_after();
        let forced = turn.mutation == Some(Mutation::BeginAnewWhereOthersCountOnIt);
        match self.machine.renewal() {
            Renewal::Ask if !forced => {
                self.machine.ask_for_epoch();
                turn.tally.asked += u64::from(asked != self.machine.asks_after());
            }
            Renewal::BeginAnew | Renewal::Ask => {
                self.machine.installed(Position::default());
                turn.tally.renewed += 1;
            }
            Renewal::Leave | Renewal::Wait => return,
        }
        self.leaving = false;
        self.machine.stay(turn.local_ms);
        self.act(turn);
    }

    /// Whether it is damaged and must not look at a message under an epoch.
    pub(crate) fn withholds(&mut self, epoch: Epoch, turn: &mut Turn) -> bool {
        if !self.disk.lock().damaged {
            return false;
        }
        if self.machine.view().epoch >= epoch {
            self.begin_anew(turn);
        }
        self.machine.withholds(epoch)
    }

    /// What is there goes when the first entry after a new beginning comes.
    pub(crate) fn make_room(&mut self) {
        let mut disk = self.disk.lock();
        if self.machine.last() == Position::default() && disk.len() > 0 {
            disk.install(Vec::new());
            self.syncs.clear();
            self.owed.clear();
        }
    }
}
