//! The head: what a shard holds in memory. The series in use, and samples and spans not written out yet.
//!
//! Applying an entry is a pure function of the log, so that every replica's head is the same. Judging a batch, on the
//! primary alone, looks at the same state. Files and threads are the store's.

mod apply;
mod column;
mod columns;
mod delete;
mod delta;
pub(crate) mod idle;
mod judge;
pub(crate) mod part;
pub(crate) mod payload;
pub(crate) mod registry;
mod rows;
mod stream;

use std::collections::BTreeMap;

use tricord_model::{Epoch, MetricMetadata, Sample, Seq, ShardId, Tenant};

use super::deletes::Tombstones;
use super::keys::Generation;
use super::{Error, Position};
use idle::Idle;
pub(crate) use judge::Rules;
use part::Window;
use registry::{DeltaState, Registry};
pub(crate) use rows::{PendingRow, Rows};

/// A generation of a window that is written out, as one shard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of its retention class.
    pub(crate) class: u8,
    /// Its number in the window.
    pub(crate) number: u32,
    /// All entries up to this one are in it or in earlier ones, as far as they touch the window.
    pub(crate) through: Seq,
    /// Deletes of entries up to this one are carried out in it; those of later entries hide what it has.
    pub(crate) deleted: Seq,
    /// Samples in it.
    pub(crate) samples: u64,
    /// Spans in it.
    pub(crate) spans: u64,
    /// How many windows it goes over: 1 as it is written out, mostly more where several were merged.
    pub(crate) windows: u16,
    /// Whether it has the layout of merged windows; also a single one does that was written anew.
    pub(crate) is_merged: bool,
}

impl Mark {
    /// The mark of a window as it is written out: what was deleted before its last entry is not in it.
    pub(crate) fn written_out(of: Generation, through: Seq) -> Self {
        let Generation { class, number, .. } = of;
        Self { class, number, through, deleted: through, samples: 0, spans: 0, windows: 1, is_merged: false }
    }

    /// The generation that it is of, in a window.
    pub(crate) fn generation(&self, window_ms: i64) -> Generation {
        Generation { class: self.class, window_ms, number: self.number }
    }
}

/// One shard.
#[derive(Default)]
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) registry: Registry,
    /// Windows with something in memory, by their start.
    pub(crate) windows: BTreeMap<i64, Window>,
    /// Metadata by tenant and family.
    pub(crate) metadata: BTreeMap<(Tenant, String), MetricMetadata>,
    /// Windows with something on disk, by their start; generations ascend.
    pub(crate) marks: BTreeMap<i64, Vec<Mark>>,
    /// Deletes that may hide something on disk.
    pub(crate) tombstones: Tombstones,
    /// The last entry applied.
    pub(crate) applied: Position,
    /// The last entry known to be committed.
    pub(crate) committed: Seq,
    /// The highest epoch seen.
    pub(crate) epoch: Epoch,
    /// The entry up to which nothing of the log is needed for this shard's state.
    pub(crate) base: Position,
    /// Changes of the state's rows that are not on disk yet.
    pub(crate) rows: Rows,
    /// Series that the primary may have forgotten, and by which measure.
    pub(crate) evictable: Vec<u32>,
    pub(crate) idle: Idle,
    /// Why the shard cannot be used: an entry could not be applied. Its other replicas have what it lacks.
    pub(crate) damage: Option<Error>,
    /// When idle series were last looked for.
    pub(crate) scanned_ms: Option<i64>,
    /// Bytes of all parts.
    pub(crate) part_bytes: usize,
    window_len_ms: i64,
    /// Room for the samples of a series that is being applied.
    scratch: Vec<Sample>,
}

/// What an entry has added, and what it has deleted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) samples: u64,
    pub(crate) spans: u64,
    /// Samples removed from memory.
    pub(crate) deleted: u64,
}

impl Shard {
    /// An empty shard whose log begins after `base`.
    pub(crate) fn new(id: ShardId, base: Position, epoch: Epoch, window_len_ms: i64) -> Self {
        Self { id, base, applied: base, committed: base.seq, epoch, window_len_ms, ..Self::default() }
    }

    /// Refuses the use of a shard that is damaged.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.damage.clone().map_or(Ok(()), Err)
    }

    /// An estimate of the memory that it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.part_bytes + self.registry.bytes() + self.rows.bytes()
    }

    /// The newest window that has anything, in memory or on disk, by its start.
    pub(crate) fn newest_window(&self) -> Option<i64> {
        let in_memory = self.windows.last_key_value().map(|(window_ms, _)| *window_ms);
        let on_disk = self.marks.last_key_value().map(|(window_ms, _)| *window_ms);
        in_memory.max(on_disk)
    }

    /// The length of a window, in milliseconds.
    pub(crate) fn window_len_ms(&self) -> i64 {
        self.window_len_ms
    }

    /// The start of the window that a time lies in.
    pub(crate) fn window_of(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.window_len_ms) * self.window_len_ms
    }

    /// The entry up to which a window is on disk.
    pub(crate) fn flushed_through(&self, window_ms: i64) -> Seq {
        let marks = self.marks.get(&window_ms).into_iter().flatten();
        marks.map(|mark| mark.through).max().unwrap_or_default()
    }

    /// Takes a part out that is on disk now.
    pub(crate) fn written(&mut self, window_ms: i64, mark: Mark) {
        self.marks.entry(window_ms).or_default().push(mark);
        let Some(window) = self.windows.get_mut(&window_ms) else { return };
        let (done, kept): (Vec<_>, Vec<_>) =
            window.sealed.drain(..).partition(|part| part.through <= mark.through);
        window.sealed = kept;
        if window.is_empty() {
            self.windows.remove(&window_ms);
        }
        for part in done {
            self.part_bytes = self.part_bytes.saturating_sub(part.bytes);
            part.columns.keys().for_each(|id| self.registry.release(*id, window_ms));
        }
    }

    /// Restores the total of a series from its row.
    pub(crate) fn restore_delta(&mut self, id: u32, state: DeltaState) {
        if let Some(series) = self.registry.get_mut(id) {
            series.delta = Some(Box::new(state));
        }
    }
}
