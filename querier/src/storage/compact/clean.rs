//! Removing from the disk what was deleted: generations of which deletes hide something are written anew without it,
//! in the same way as windows are merged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tricord_model::Seq;

use super::Pace;
use super::plan::{Part, Plan, Sources};
use crate::storage::cache::ReadCache;
use crate::storage::deletes::Tombstone;
use crate::storage::disk::Disk;
use crate::storage::flush::{MAX_WINDOWS, decode_mark, encode_mark};
use crate::storage::head::Mark;
use crate::storage::keys;
use crate::storage::store::{Cell, Inner};
use crate::storage::{CleanReport, Error, Store};

impl Store {
    /// Carries out on disk what deletes hide there. What is in memory should be written out before: a delete stays as
    /// long as anything from before it is not.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `pace` says so; [`Error`] when stored data is damaged or the disk fails. What was
    /// written until then stays, and nothing is lost.
    pub(crate) fn clean(&self, pace: Pace<'_>) -> Result<CleanReport, Error> {
        let inner = &self.inner;
        let _one_at_a_time = inner.merging.lock();
        let last = |cell: &Arc<Cell>| cell.state.read().tombstones.iter().last().map(|one| one.seq);
        let asked: Vec<(Arc<Cell>, Option<Seq>)> =
            inner.cells().into_iter().map(|cell| (Arc::clone(&cell), last(&cell))).collect();
        let mut report = CleanReport::default();
        for plan in inner.clean_plans()? {
            if let Some(bytes) = inner.merge_one(&plan, pace)? {
                report.windows += 1;
                report.bytes += bytes;
            }
            inner.remove_retired()?;
        }
        inner.retire_tombstones()?;
        let left = |cell: &Cell, last: Seq| cell.state.read().tombstones.through(last).len() as u64;
        report.left = asked.iter().filter_map(|(cell, last)| Some(left(cell, (*last)?))).sum();
        Ok(report)
    }
}

impl Inner {
    /// What has to be written anew. Where deletes hide nothing in fact, the marks are told so at once.
    fn clean_plans(&self) -> Result<Vec<Plan>, Error> {
        let mut plans: BTreeMap<(u8, i64, u16), Vec<Part>> = BTreeMap::new();
        for cell in self.cells() {
            for (place, part) in self.to_clean(&cell) {
                if self.hides_anything(&part)? {
                    plans.entry(place).or_default().push(part);
                } else {
                    self.carried_out(&part)?;
                }
            }
        }
        let plan = |((class, start_ms, windows), parts)| Plan { class, start_ms, windows, parts };
        Ok(plans.into_iter().map(plan).collect())
    }

    /// A shard's generations by class, start and number of windows that they go over, as far as deletes may hide
    /// something there.
    fn to_clean(&self, cell: &Arc<Cell>) -> Vec<((u8, i64, u16), Part)> {
        let shard = cell.state.read();
        let base = shard.base.seq;
        let deletes = shard.tombstones.through(base);
        if deletes.is_empty() || shard.damage.is_some() {
            return Vec::new();
        }
        // Late generations lie within a merged one: what overlaps is written together.
        let mut spans: BTreeMap<u8, Vec<(i64, i64, Sources)>> = BTreeMap::new();
        for (window_ms, marks) in &shard.marks {
            for mark in marks {
                let end_ms = self.end_ms(*window_ms, mark);
                let spans = spans.entry(mark.class).or_default();
                match spans.last_mut() {
                    Some((_, last_ms, sources)) if *window_ms < *last_ms => {
                        *last_ms = end_ms.max(*last_ms);
                        sources.push((*window_ms, *mark));
                    }
                    _ => spans.push((*window_ms, end_ms, vec![(*window_ms, *mark)])),
                }
            }
        }
        let window_ms = self.config.window_ms.max(1);
        let part = |class: u8, (start_ms, end_ms, sources): (i64, i64, Sources)| {
            let windows = u16::try_from((end_ms - start_ms) / window_ms).ok()?;
            // As for any merge: a replay must know what each window has.
            let is_settled = sources.iter().all(|(_, mark)| mark.through <= base);
            let is_hidden = |of: &(i64, Mark)| self.hiding(&deletes, of).next().is_some();
            // What is written anew would fail over damage, and would seem to hold what is lost.
            let is_whole = !self.damages.touches(cell.id, start_ms, end_ms);
            let may =
                is_settled && is_whole && u64::from(windows) <= MAX_WINDOWS && sources.iter().any(is_hidden);
            let part = Part { cell: Arc::clone(cell), sources, deletes: deletes.clone() };
            may.then_some(((class, start_ms, windows), part))
        };
        let all =
            spans.into_iter().flat_map(|(class, spans)| spans.into_iter().map(move |span| (class, span)));
        all.filter_map(|(class, span)| part(class, span)).collect()
    }

    fn end_ms(&self, window_ms: i64, mark: &Mark) -> i64 {
        window_ms.saturating_add(self.config.window_ms.saturating_mul(i64::from(mark.windows)))
    }

    /// The deletes that may hide something of a generation.
    fn hiding<'a>(
        &self,
        deletes: &'a [Arc<Tombstone>],
        (window_ms, mark): &(i64, Mark),
    ) -> impl Iterator<Item = &'a Arc<Tombstone>> + use<'a> {
        let (after, from_ms, until_ms) = (mark.deleted, *window_ms, self.end_ms(*window_ms, mark) - 1);
        deletes.iter().filter(move |one| one.hides(after, from_ms, until_ms))
    }

    /// Whether any of the generations has a series that is deleted.
    fn hides_anything(&self, part: &Part) -> Result<bool, Error> {
        let (cache, bytes) = (ReadCache::new(0), AtomicU64::new(0));
        for of in &part.sources {
            for one in self.hiding(&part.deletes, of) {
                let disk = Disk::new(self.on_disk(), &cache, *of, part.cell.id, &one.tenant, &bytes);
                for selector in &one.deletion.selectors {
                    if !disk.select(selector)?.is_empty() {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Notes in the marks that deletes are carried out, where they hide nothing.
    fn carried_out(&self, part: &Part) -> Result<(), Error> {
        // Nothing else changes marks meanwhile.
        let _no_flush = self.flushing.lock();
        let (mut batch, mut changed) = (self.rocks.batch(), Vec::new());
        for (window_ms, old) in &part.sources {
            let is_there = |marks: &Vec<Mark>| marks.contains(old);
            if !part.cell.state.read().marks.get(window_ms).is_some_and(is_there) {
                continue;
            }
            let of = old.generation(*window_ms);
            let key = keys::mark(of, part.cell.id);
            let Some(value) = self.rocks.get(keys::DATA, &key)? else { continue };
            let (mut mark, replaced) = decode_mark(of, &value)?;
            mark.deleted = part.deleted();
            batch.put(keys::DATA, &key, &encode_mark(&mark, &replaced));
            changed.push((*window_ms, mark));
        }
        self.rocks.write(batch, true)?;
        let mut shard = part.cell.state.write();
        for (window_ms, mark) in changed {
            let marks = shard.marks.entry(window_ms).or_default();
            // All classes that were written out together have the same number.
            let of = mark.generation(window_ms);
            marks
                .iter_mut()
                .filter(|known| known.generation(window_ms) == of)
                .for_each(|known| *known = mark);
        }
        Ok(())
    }
}
