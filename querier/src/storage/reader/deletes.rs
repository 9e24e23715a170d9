//! What of a generation deletes hide. Memory needs no look: what was deleted is not there any more.

use roaring::RoaringBitmap;
use tricord_model::Deletion;

use super::{Range, Reader};
use crate::storage::Error;
use crate::storage::deletes::Deletes;
use crate::storage::disk::Disk;
use crate::storage::head::{Mark, Shard};
use crate::storage::pieces::Blocks;

impl Reader {
    /// The deletes of a shard that may hide something of the tenant in a range.
    pub(super) fn deletes(&self, shard: &Shard, range: Range) -> Deletes {
        if shard.tombstones.len() == 0 {
            return Deletes::default();
        }
        // Whole windows are looked at, also where they begin before the range or go on behind it.
        let longest_ms = self.longest_ms();
        let (from_ms, until_ms) =
            (range.from_ms.saturating_sub(longest_ms), range.until_ms.saturating_add(longest_ms));
        shard.tombstones.of(&self.tenant, from_ms, until_ms)
    }

    /// Whether any of them may hide something of a generation: asked once for each.
    pub(super) fn hide(&self, deletes: &Deletes, of: &(i64, Mark)) -> bool {
        let (from_ms, until_ms) = self.times(of);
        deletes.hiding(of.1.deleted, from_ms, until_ms).next().is_some()
    }

    /// The first and the last time of a generation.
    fn times(&self, (window_ms, mark): &(i64, Mark)) -> (i64, i64) {
        (*window_ms, window_ms.saturating_add(self.span_ms(mark) - 1))
    }

    /// The places of the series of a generation of which deletes have left no sample.
    pub(super) fn gone_of(
        &self,
        disk: &Disk<'_>,
        of: &(i64, Mark),
        deletes: &mut Deletes,
    ) -> Result<RoaringBitmap, Error> {
        if !self.hide(deletes, of) {
            return Ok(RoaringBitmap::new());
        }
        let (from_ms, until_ms) = self.times(of);
        let mut ids = RoaringBitmap::new();
        for one in deletes.hiding(of.1.deleted, from_ms, until_ms) {
            for selector in &one.deletion.selectors {
                ids |= disk.select(selector)?;
            }
        }
        let (mut gone, mut blocks) = (RoaringBitmap::new(), Blocks::default());
        disk.series(&ids, &mut |id, found| {
            let row = found.row(found.labels()?);
            let ranges = deletes.ranges(row.fingerprint, &row.labels, of.1.deleted);
            let is_gone = ranges.cover(from_ms, until_ms)
                || match blocks.find(disk, row.place, i64::MIN, i64::MAX)? {
                    Some(piece) => blocks.without(piece, &ranges)?.is_empty(),
                    None => false,
                };
            if is_gone {
                gone.insert(id);
            }
            if blocks.are_many() {
                self.check_cancel()?;
                blocks.clear();
            }
            Ok(())
        })?;
        Ok(gone)
    }

    /// Whether there are any series for a delete: in memory, or in a generation of its time.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored data is damaged, [`Error::Cancelled`].
    pub(crate) fn has_any(&self, deletion: &Deletion) -> Result<bool, Error> {
        let Some(range) = self.range(deletion.start_ms, deletion.end_ms) else { return Ok(false) };
        for cell in &self.cells {
            let generations = {
                let shard = self.read(cell)?;
                if let Some(tenant) = shard.registry.find_tenant(&self.tenant) {
                    let selects = |selector| !shard.registry.select(tenant, selector).is_empty();
                    if deletion.selectors.iter().any(|selector| selects(selector)) {
                        return Ok(true);
                    }
                }
                self.generations(&shard, range, |_| true)?
            };
            for of in generations {
                self.check_cancel()?;
                let disk = self.disk(of, cell.id);
                for selector in &deletion.selectors {
                    if !disk.select(selector)?.is_empty() {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}
