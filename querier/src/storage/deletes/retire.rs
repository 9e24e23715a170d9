//! Forgetting deletes that hide nothing any more.

use std::sync::Arc;

use tricord_model::Seq;

use super::Tombstone;
use crate::storage::Error;
use crate::storage::head::{Mark, Shard};
use crate::storage::keys;
use crate::storage::store::Inner;

impl Shard {
    /// Whether a delete may still hide something: all from before it is on disk once the log's begin is behind it, and
    /// then every generation of its time must have it carried out.
    ///
    /// Generations that are `lost` may come back with a file that is restored.
    fn needs(&self, tombstone: &Tombstone, window_len_ms: i64, lost: &[(i64, Mark)]) -> bool {
        let hides = |window_ms: i64, mark: &Mark| {
            let span_ms = window_len_ms.saturating_mul(i64::from(mark.windows));
            tombstone.hides(mark.deleted, window_ms, window_ms.saturating_add(span_ms - 1))
        };
        tombstone.seq > self.base.seq
            || self.marks.iter().any(|(window_ms, marks)| marks.iter().any(|mark| hides(*window_ms, mark)))
            || lost.iter().any(|(window_ms, mark)| hides(*window_ms, mark))
    }
}

impl Inner {
    /// Forgets the deletes that hide nothing any more. Whoever reads has taken note of them before.
    pub(crate) fn retire_tombstones(&self) -> Result<(), Error> {
        let _no_flush = self.flushing.lock();
        let _in_order = self.writing_rows.lock();
        for cell in self.cells() {
            let retired: Vec<Seq> = {
                let lost = self.damages.lost_of(cell.id);
                let shard = cell.state.read();
                let needed = |one: &&Arc<Tombstone>| shard.needs(one, self.config.window_ms, &lost);
                let idle = shard.tombstones.iter().filter(|one| !needed(one));
                idle.map(|one| one.seq).collect()
            };
            if retired.is_empty() {
                continue;
            }
            let mut batch = self.rocks.batch();
            for seq in &retired {
                batch.delete(keys::STATE, &keys::tombstone_row(cell.id, *seq));
            }
            self.rocks.write(batch, true)?;
            let mut shard = cell.state.write();
            retired.into_iter().for_each(|seq| shard.tombstones.remove(seq));
        }
        Ok(())
    }
}
