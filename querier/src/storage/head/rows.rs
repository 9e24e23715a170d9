//! Changes of a shard's state that are in the log and not yet in its rows on disk.

use std::collections::VecDeque;

use tricord_model::{MetricMetadata, Seq, Tenant};

use super::registry::DeltaState;

/// A row to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PendingRow {
    /// A series, as the registry has it when the row is written.
    Series(u32),
    /// A total.
    Delta(u32, DeltaState),
    /// A family's metadata.
    Metadata(Tenant, String, MetricMetadata),
    /// The delete of an entry, as long as it hides anything.
    Tombstone(Seq),
}

/// Rows to write and to remove, in the order of the log.
#[derive(Default)]
pub(crate) struct Rows {
    pending: VecDeque<(Seq, PendingRow)>,
    evicted: VecDeque<(Seq, u32)>,
}

impl Rows {
    pub(crate) fn push(&mut self, seq: Seq, row: PendingRow) {
        self.pending.push_back((seq, row));
    }

    pub(crate) fn evict(&mut self, seq: Seq, id: u32) {
        self.evicted.push_back((seq, id));
    }

    /// The rows of entries up to one. They stay until [`Rows::written`].
    pub(crate) fn through(&self, seq: Seq) -> impl Iterator<Item = &PendingRow> {
        self.pending.iter().take_while(move |(of, _)| *of <= seq).map(|(_, row)| row)
    }

    /// Series forgotten by entries up to one.
    pub(crate) fn evicted_through(&self, seq: Seq) -> impl Iterator<Item = u32> + '_ {
        self.evicted.iter().take_while(move |(of, _)| *of <= seq).map(|(_, id)| *id)
    }

    /// The rows of entries up to one are on disk, and the series forgotten up to another are removed from it.
    pub(crate) fn written(&mut self, through: Seq, evicted: Seq) {
        let count = self.pending.partition_point(|(of, _)| *of <= through);
        self.pending.drain(..count);
        let count = self.evicted.partition_point(|(of, _)| *of <= evicted);
        self.evicted.drain(..count);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pending.len() * 64 + self.evicted.len() * 16
    }
}
