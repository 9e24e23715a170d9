//! What the protocol knows of a shard's log: where it ends, what of it is durable, and under which epoch each entry
//! was made. The entries themselves stay with the driver.

use tricord_model::{Epoch, Seq};

/// The place of one entry, and the epoch under which it was made. The default stands before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Its number.
    pub seq: Seq,
    /// The epoch of the primary that made it.
    pub epoch: Epoch,
}

/// Epochs of entries from before this process started, as far as the log on disk still has them.
pub trait OlderEpochs: Send {
    /// The epoch of an entry; `None` where it is trimmed (then it was committed) or was never there.
    fn epoch_at(&self, seq: Seq) -> Option<Epoch>;
}

/// The end of the log and its epochs.
pub(crate) struct LogIndex {
    older: Box<dyn OlderEpochs>,
    /// Entries after this one are described by `runs`.
    base: Position,
    /// First sequence and epoch of each run of entries with one epoch, ascending.
    runs: Vec<(Seq, Epoch)>,
    last: Position,
    durable: Seq,
}

impl LogIndex {
    pub(crate) fn new(end: Position, older: Box<dyn OlderEpochs>) -> Self {
        Self { older, base: end, runs: Vec::new(), last: end, durable: end.seq }
    }

    pub(crate) fn last(&self) -> Position {
        self.last
    }

    pub(crate) fn durable(&self) -> Seq {
        self.durable
    }

    pub(crate) fn push(&mut self, entry: Position) {
        if self.runs.last().map_or(self.base.epoch, |run| run.1) != entry.epoch {
            self.runs.push((entry.seq, entry.epoch));
        }
        self.last = entry;
    }

    pub(crate) fn set_durable(&mut self, seq: Seq) {
        self.durable = self.durable.max(seq.min(self.last.seq));
    }

    /// Forgets the entries after `after`.
    pub(crate) fn cut(&mut self, after: Seq) {
        if after >= self.last.seq {
            return;
        }
        let epoch = self.epoch_at(after).unwrap_or_default();
        self.runs.retain(|run| run.0 <= after);
        self.last = Position { seq: after, epoch };
        self.durable = self.durable.min(after);
        if after < self.base.seq {
            self.base = self.last;
        }
    }

    /// Starts over at a snapshot's end.
    pub(crate) fn reset(&mut self, end: Position) {
        self.base = end;
        self.runs.clear();
        self.last = end;
        self.durable = end.seq;
    }

    pub(crate) fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        if seq == Seq(0) {
            return Some(Epoch(0));
        }
        if seq > self.last.seq {
            return None;
        }
        if seq == self.base.seq {
            return Some(self.base.epoch);
        }
        if seq < self.base.seq {
            return self.older.epoch_at(seq);
        }
        let run = self.runs.partition_point(|run| run.0 <= seq);
        Some(run.checked_sub(1).and_then(|i| self.runs.get(i)).map_or(self.base.epoch, |run| run.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Disk;
    impl OlderEpochs for Disk {
        fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
            (seq.0 >= 3).then_some(Epoch(1))
        }
    }

    #[test]
    fn epochs_are_found_on_disk_at_the_base_and_in_runs() {
        let at = |seq, epoch| Position { seq: Seq(seq), epoch: Epoch(epoch) };
        let mut log = LogIndex::new(at(5, 2), Box::new(Disk));
        log.push(at(6, 2));
        log.push(at(7, 4));
        log.push(at(8, 4));
        let epochs: Vec<_> = (0..10).map(|seq| log.epoch_at(Seq(seq)).map(|epoch| epoch.0)).collect();
        assert_eq!(epochs, [Some(0), None, None, Some(1), Some(1), Some(2), Some(2), Some(4), Some(4), None]);
        log.cut(Seq(6));
        assert_eq!((log.last(), log.epoch_at(Seq(7))), (at(6, 2), None));
        log.cut(Seq(4));
        assert_eq!((log.last(), log.durable()), (at(4, 1), Seq(4)));
    }
}
