//! One shard on this node: the protocol's machine with what it needs around it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tricord_model::{Epoch, Seq, ShardId};
use tricord_replication::{Action, OlderEpochs, Shard, View};

use crate::storage::{Entry, Store};

/// Entries kept in memory for sending, per shard, in bytes. Older ones are read back from the log; those that are not
/// durable yet stay whatever they weigh, and are bounded by the memory that writes in flight may take.
const TAIL_BYTES: usize = 4 << 20;

/// How far writers are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Raised when this node stops being the primary: whoever waits then must not believe later numbers.
    pub(crate) tenure: u64,
    pub(crate) seq: Seq,
}

/// A shard on this node. Locks are taken in the order `proposal`, `turn`, `order`, `state`.
pub(crate) struct Hosted {
    pub(crate) id: ShardId,
    /// Held from a proposal to metadata until its answer is adopted.
    pub(crate) proposal: tokio::sync::Mutex<()>,
    /// Messages that change the log or the configuration, one at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Held by a writer from its judgement to its append, and by whoever changes the epoch or cuts the log: what was
    /// judged is appended under the role that judged it.
    pub(crate) order: Mutex<()>,
    state: Mutex<State>,
    pub(crate) acknowledged: watch::Sender<Acknowledged>,
    /// Told at each entry that becomes durable.
    pub(crate) progressed: Notify,
    /// Bytes that have arrived of the snapshot that is being put in place, for people.
    pub(crate) arrived_bytes: AtomicU64,
}

pub(crate) struct State {
    pub(crate) machine: Shard,
    pub(crate) tail: Tail,
    /// Whether what the replica holds is being replaced, so that it takes no role.
    pub(crate) aside: bool,
}

impl State {
    /// Gives the machine a configuration, unless it stands aside.
    pub(crate) fn configure(&mut self, now_ms: u64, view: View, min_insync: usize) {
        if !self.aside {
            self.machine.configure(now_ms, view, min_insync);
        }
    }
}

impl Hosted {
    pub(crate) fn new(machine: Shard) -> Self {
        Self {
            id: machine.id(),
            proposal: tokio::sync::Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            order: Mutex::default(),
            state: Mutex::new(State { machine, tail: Tail::default(), aside: false }),
            acknowledged: watch::Sender::default(),
            progressed: Notify::new(),
            arrived_bytes: AtomicU64::new(0),
        }
    }

    /// Runs `work` on the machine. What it asks for within this node is done before anybody else sees the machine, so
    /// that an acknowledgement is never taken for one of a later tenure; the rest is returned.
    pub(crate) fn with<R>(&self, store: &Store, work: impl FnOnce(&mut State) -> R) -> (R, Vec<Action>) {
        let mut state = self.state.lock();
        let result = work(&mut state);
        let mut outside = Vec::new();
        for action in state.machine.actions() {
            match action {
                Action::Commit(seq) => store.commit(self.id, seq),
                Action::Acknowledge(seq) => self.acknowledged.send_modify(|now| now.seq = now.seq.max(seq)),
                Action::SteppedDown => {
                    state.tail.clear();
                    self.acknowledged.send_modify(|now| {
                        *now = Acknowledged { tenure: now.tenure + 1, seq: Seq(0) };
                    });
                }
                other => outside.push(other),
            }
        }
        let (unsent, durable) = (state.machine.unsent_after(), state.machine.durable_seq());
        state.tail.trim(unsent, durable);
        (result, outside)
    }

    /// Whether what the replica holds is being replaced.
    pub(crate) fn is_aside(&self) -> bool {
        self.state.lock().aside
    }

    /// Looks at the machine without changing it.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Shard) -> R) -> R {
        look(&self.state.lock().machine)
    }
}

/// The newest entries of a primary.
#[derive(Default)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += entry.payload.len();
        self.entries.push_back(entry);
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Drops what every peer was sent, and what is too much and on disk.
    fn trim(&mut self, unsent_after: Seq, durable: Seq) {
        while let Some(first) = self.entries.front() {
            let sent = first.seq <= unsent_after;
            let spare = self.bytes > TAIL_BYTES && first.seq <= durable;
            if !sent && !spare {
                break;
            }
            self.bytes -= first.payload.len();
            self.entries.pop_front();
        }
    }

    /// Entries after `after`, up to `max_bytes` but at least one; `None` where the first of them is not here any more.
    pub(crate) fn after(&self, after: Seq, max_bytes: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.seq;
        let skip = usize::try_from(after.next().0.checked_sub(first.0)?).ok()?;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let room = bytes == 0 || bytes + entry.payload.len() <= max_bytes;
            bytes += entry.payload.len().max(1);
            room
        };
        Some(self.entries.iter().skip(skip).take_while(fits).cloned().collect())
    }
}

/// Epochs of entries, from the log on disk.
pub(crate) struct LogEpochs(pub(crate) Arc<Store>, pub(crate) ShardId);

impl OlderEpochs for LogEpochs {
    fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        self.0.epoch_at(self.1, seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(seqs: std::ops::Range<u64>) -> Tail {
        let mut tail = Tail::default();
        for seq in seqs {
            let payload = vec![0; 1 << 20].into();
            tail.push(Entry { shard: ShardId(1), seq: Seq(seq), epoch: Epoch(1), payload });
        }
        tail
    }

    #[test]
    fn the_tail_gives_what_follows_an_entry() {
        let tail = tail(5..9);
        let seqs = |after, max| {
            tail.after(Seq(after), max).map(|some| some.iter().map(|e| e.seq.0).collect::<Vec<_>>())
        };
        assert_eq!(seqs(3, 1), None, "entry 4 is gone");
        assert_eq!(seqs(4, 1), Some(vec![5]), "one entry however large");
        assert_eq!(seqs(5, 3 << 20), Some(vec![6, 7, 8]));
        assert_eq!(seqs(8, 1), Some(vec![]));
    }

    #[test]
    fn the_tail_keeps_what_is_neither_sent_nor_durable() {
        let mut full = tail(1..11);
        full.trim(Seq(2), Seq(3));
        assert_eq!(full.entries.front().map(|entry| entry.seq), Some(Seq(4)), "3 is on disk, 4 is not");
        full.trim(Seq(2), Seq(10));
        assert_eq!(full.bytes, TAIL_BYTES);
    }
}
