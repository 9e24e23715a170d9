//! One replica's disk: its log, of which a part is durable, and the highest epoch that it stored. What is trimmed stands
//! for what was written out: it is there, but no longer as a log.

use rand::Rng;
use rand::rngs::StdRng;
use tricord_model::{Epoch, Seq};
use tricord_replication::Position;

/// An entry with what it says.
pub(crate) type Entry = (Position, u64);

/// A shard's files on one node.
#[derive(Default)]
pub(crate) struct Disk {
    entries: Vec<Entry>,
    durable: usize,
    trimmed: usize,
    /// Known as committed after a restart.
    pub(crate) committed: Seq,
    pub(crate) stored_epoch: Epoch,
    /// Something that was written out cannot be read any more. The log can.
    pub(crate) damaged: bool,
    /// The ledger has compared so many entries.
    pub(crate) checked: usize,
}

impl Disk {
    pub(crate) fn end(&self) -> Position {
        self.entries.last().map_or(Position::default(), |entry| entry.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable as u64)
    }

    pub(crate) fn payload(&self, at: usize) -> Option<u64> {
        self.entries.get(at).map(|entry| entry.1)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.0.seq.0, self.entries.len() as u64 + 1, "the log has no holes");
        self.entries.push(entry);
    }

    pub(crate) fn sync(&mut self, len: usize) {
        self.durable = self.durable.max(len.min(self.entries.len()));
    }

    /// Cuts durably, which makes what is before the cut durable too.
    pub(crate) fn cut(&mut self, after: Seq) {
        self.entries.truncate(after.0 as usize);
        self.durable = self.entries.len();
        self.checked = self.checked.min(self.durable);
    }

    pub(crate) fn install(&mut self, entries: Vec<Entry>) {
        self.entries = entries;
        self.durable = self.entries.len();
        self.trimmed = self.durable;
        self.committed = Seq(self.durable as u64);
        self.checked = 0;
        self.damaged = false;
    }

    /// What was not durable is lost, unless chance has written it.
    pub(crate) fn crash(&mut self, rng: &mut StdRng, lost_syncs: usize) {
        let kept = rng.random_range(self.durable..=self.entries.len());
        self.entries.truncate(kept - lost_syncs.min(kept - self.trimmed));
        self.durable = self.entries.len();
        self.checked = self.checked.min(self.durable);
    }

    /// Writes out what is committed, and forgets the log of some of it.
    pub(crate) fn flush(&mut self, committed: Seq, rng: &mut StdRng) {
        self.committed = self.committed.max(committed.min(self.durable()));
        self.trimmed = rng.random_range(self.trimmed..=self.committed.0 as usize);
    }

    pub(crate) fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        let at = (seq.0 as usize).checked_sub(1)?;
        if seq.0 < self.trimmed as u64 {
            return None;
        }
        self.entries.get(at).map(|entry| entry.0.epoch)
    }

    /// At most `most` entries after one; none where they are trimmed.
    pub(crate) fn after(&self, seq: Seq, most: usize) -> Option<&[Entry]> {
        let from = seq.0 as usize;
        if from < self.trimmed {
            return None;
        }
        Some(&self.entries[from.min(self.entries.len())..self.entries.len().min(from + most)])
    }

    /// The committed part, written out.
    pub(crate) fn snapshot(&self, committed: Seq) -> Vec<Entry> {
        self.entries[..(committed.min(self.durable()).0 as usize)].to_vec()
    }
}
