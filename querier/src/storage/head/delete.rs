//! Applying a delete: what is in memory goes at once, the same on every replica.

use std::sync::Arc;

use roaring::RoaringBitmap;
use tricord_model::{Deletion, Seq};

use super::part::Part;
use super::{Applied, PendingRow, Shard};
use crate::storage::deletes::read_payload;
use crate::storage::{Entry, Error};

impl Shard {
    /// Removes the samples and exemplars that an entry deletes from memory, and keeps it in mind for what is on disk.
    /// A part that is being written out meanwhile goes out as it was: its mark is then before the entry.
    pub(super) fn apply_delete(&mut self, entry: &Entry) -> Result<Applied, Error> {
        let tombstone = Arc::new(read_payload(&entry.payload, entry.seq)?);
        let deletion = &tombstone.deletion;
        let mut applied = Applied::default();
        if let Some(tenant) = self.registry.find_tenant(&tombstone.tenant) {
            let selected = deletion.selectors.iter().map(|selector| self.registry.select(tenant, selector));
            let ids = selected.fold(RoaringBitmap::new(), |all, ids| all | ids);
            if !ids.is_empty() {
                applied.deleted = self.delete(entry.seq, &ids, deletion);
            }
        }
        self.rows.push(entry.seq, PendingRow::Tombstone(entry.seq));
        self.tombstones.insert(tombstone);
        Ok(applied)
    }

    /// Answers how many samples went.
    fn delete(&mut self, seq: Seq, ids: &RoaringBitmap, deletion: &Deletion) -> u64 {
        let Deletion { start_ms, end_ms, .. } = *deletion;
        if start_ms > end_ms {
            return 0;
        }
        let (mut deleted, mut released, mut left) = (0, Vec::new(), Vec::new());
        let first_ms = start_ms.saturating_sub(self.window_len_ms - 1);
        for (window_ms, window) in self.windows.range_mut(first_ms..=end_ms) {
            let has_any = |part: &Part| ids.iter().any(|id| part.columns.contains_key(&id));
            let sealed = window.sealed.iter_mut().filter(|part| has_any(part)).map(Arc::make_mut);
            for part in sealed.chain(window.open.iter_mut().filter(|part| has_any(part))) {
                let before = (part.bytes, part.samples);
                part.delete(*window_ms, ids, (start_ms, end_ms), &mut released);
                self.part_bytes = self.part_bytes.saturating_sub(before.0.saturating_sub(part.bytes));
                part.deleted = seq;
                deleted += before.1 - part.samples;
                left.extend(released.drain(..).map(|id| (id, *window_ms)));
            }
        }
        left.into_iter().for_each(|(id, window_ms)| self.registry.release(id, window_ms));
        deleted
    }
}
