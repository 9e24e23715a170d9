//! The head: what a shard holds in memory. The series in use, and samples and spans not written out yet.
//!
//! Applying an entry is a pure function of the log, so that every replica's head is the same. Judging a batch, on the
//! primary alone, looks at the same state. Files and threads are the store's.

pub(crate) mod column;
mod delta;
mod judge;
pub(crate) mod part;
pub(crate) mod payload;
pub(crate) mod registry;
mod rows;

use std::collections::BTreeMap;

use tricord_model::{Epoch, MetricMetadata, Seq, ShardId, Tenant};

use super::{Entry, Error, Position};
pub(crate) use judge::Rules;
use part::{Part, Window};
use payload::{Payload, PayloadSeries};
use registry::{DeltaState, Registry};
pub(crate) use rows::{PendingRow, Rows};

/// A generation of a window that is written out, as one shard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its number in the window.
    pub(crate) number: u32,
    /// All entries up to this one are in it or in earlier ones, as far as they touch the window.
    pub(crate) through: Seq,
    /// Samples in it.
    pub(crate) samples: u64,
    /// Spans in it.
    pub(crate) spans: u64,
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
    /// Series that the primary may have forgotten.
    pub(crate) evictable: Vec<u32>,
    /// Why the shard cannot be used: an entry could not be applied. Its other replicas have what it lacks.
    pub(crate) damage: Option<Error>,
    /// When idle series were last looked for.
    pub(crate) scanned_ms: Option<i64>,
    /// Bytes of all parts.
    pub(crate) part_bytes: usize,
    window_len_ms: i64,
}

/// What an entry has added.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) samples: u64,
    pub(crate) spans: u64,
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

    /// The start of the window that a time lies in.
    pub(crate) fn window_of(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.window_len_ms) * self.window_len_ms
    }

    /// Applies an entry. Samples and spans of windows that have it on disk already are skipped, which is what makes
    /// replaying after a crash safe.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Applied, Error> {
        if entry.seq <= self.base.seq {
            return Ok(Applied::default());
        }
        let payload = Payload::decode(&entry.payload).map_err(|error| self.damaged(entry, &error))?;
        let mut applied = Applied::default();
        let tenant = self.registry.tenant(&payload.tenant);
        for series in payload.series {
            self.apply_series(tenant, series, entry, &mut applied)?;
        }
        for (family, metadata) in payload.metadata {
            let row = PendingRow::Metadata(payload.tenant.clone(), family.clone(), metadata.clone());
            self.rows.push(entry.seq, row);
            self.metadata.insert((payload.tenant.clone(), family), metadata);
        }
        for span in payload.spans {
            if let Some(part) = self.part(span.start_ms(), entry.seq) {
                let before = part.bytes;
                part.push_span(tenant, span);
                let grown = part.bytes - before;
                self.part_bytes += grown;
                applied.spans += 1;
            }
        }
        for id in payload.evicted {
            self.registry.evict(id);
            self.rows.evict(entry.seq, id);
        }
        self.applied = Position { seq: entry.seq, epoch: entry.epoch };
        Ok(applied)
    }

    fn damaged(&self, entry: &Entry, why: &dyn std::fmt::Display) -> Error {
        Error::corrupt(format!("entry {} of shard {} cannot be applied: {why}", entry.seq, self.id))
    }

    fn apply_series(
        &mut self,
        tenant: u32,
        series: PayloadSeries,
        entry: &Entry,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let id = series.id;
        if let Some(labels) = &series.labels {
            self.registry.insert(id, tenant, labels, labels.fingerprint(), entry.epoch);
            self.rows.push(entry.seq, PendingRow::Series(id));
        }
        // What is on disk already needs no series; it may have been forgotten since.
        let is_known = self.registry.get(id).is_some();
        for sample in series.samples.iter().cloned() {
            let window_ms = self.window_of(sample.t_ms);
            let Some(part) = self.part(sample.t_ms, entry.seq) else { continue };
            if !is_known {
                return Err(self.damaged(entry, &format!("series {id} is not known")));
            }
            let before = part.bytes;
            let is_new = part.push(window_ms, id, sample);
            let grown = part.bytes - before;
            self.grown(id, grown, is_new);
            applied.samples += 1;
        }
        for exemplar in series.exemplars {
            let Some(part) = self.part(exemplar.t_ms, entry.seq) else { continue };
            if !is_known {
                return Err(self.damaged(entry, &format!("series {id} is not known")));
            }
            let before = part.bytes;
            let is_new = part.push_exemplar(id, exemplar);
            let grown = part.bytes - before;
            self.grown(id, grown, is_new);
        }
        if series.increments.is_some() && is_known {
            self.apply_total(id, &series.samples, entry.seq);
        }
        Ok(())
    }

    fn grown(&mut self, id: u32, bytes: usize, is_new: bool) {
        self.part_bytes += bytes;
        if let (true, Some(series)) = (is_new, self.registry.get_mut(id)) {
            series.parts += 1;
        }
    }

    /// Takes over the total that an entry says; the primary has it already, and perhaps a later one.
    fn apply_total(&mut self, id: u32, totals: &[tricord_model::Sample], seq: Seq) {
        let Some(state) = delta::state_after(totals) else { return };
        self.rows.push(seq, PendingRow::Delta(id, state.clone()));
        let Some(series) = self.registry.get_mut(id) else { return };
        if series.delta.as_ref().is_none_or(|known| known.end_ms < state.end_ms) {
            series.delta = Some(state);
        }
    }

    /// The open part of the window of a time; `None` where the entry is on disk already.
    fn part(&mut self, time_ms: i64, seq: Seq) -> Option<&mut Part> {
        let window_ms = self.window_of(time_ms);
        if self.flushed_through(window_ms) >= seq {
            return None;
        }
        let window = self.windows.entry(window_ms).or_default();
        Some(window.open.get_or_insert_with(|| Part { from: seq, bytes: 512, ..Part::default() }))
    }

    /// The entry up to which a window is on disk.
    pub(crate) fn flushed_through(&self, window_ms: i64) -> Seq {
        self.marks.get(&window_ms).and_then(|marks| marks.last()).map_or(Seq(0), |mark| mark.through)
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
            part.columns.keys().for_each(|id| self.registry.release(*id));
        }
    }

    /// Restores the total of a series from its row.
    pub(crate) fn restore_delta(&mut self, id: u32, state: DeltaState) {
        if let Some(series) = self.registry.get_mut(id) {
            series.delta = Some(state);
        }
    }
}
