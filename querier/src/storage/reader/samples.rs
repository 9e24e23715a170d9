//! Samples and exemplars by matchers and time.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use roaring::RoaringBitmap;
use smallvec::SmallVec;
use tricord_model::{Exemplar, Labels, Matcher, Points, Seq};
use tricord_promql::storage::set_reset_hints;

use super::{Range, Reader};
use crate::storage::Error;
use crate::storage::cache::{Key, Kind, Row};
use crate::storage::deletes::Deletes;
use crate::storage::disk::Chosen;
use crate::storage::flush::encode::sort_exemplars;
use crate::storage::head::Mark;
use crate::storage::head::registry::FastMap;
use crate::storage::merge::{Pieces, drop_before};
use crate::storage::pieces::{Blocks, Piece};
use crate::storage::store::Cell;

/// From so many generations of a shard on it is remembered which of them have anything for some matchers.
const MANY: usize = 4;

/// One series: what is on disk comes before what is in memory, in the order of the log.
struct Series {
    labels: Labels,
    /// Pieces that are still to be read, and what was read before them.
    found: SmallVec<[Piece; 8]>,
    read: Pieces,
    head: Vec<Points>,
}

/// What one query has gathered.
struct Gathered {
    by_fingerprint: FastMap<u128, u32>,
    series: Vec<Series>,
    blocks: Blocks,
    samples: u64,
    max_samples: u64,
}

impl Gathered {
    fn new(max_samples: u64) -> Self {
        let (by_fingerprint, series, blocks) = (FastMap::default(), Vec::new(), Blocks::default());
        Self { by_fingerprint, series, blocks, samples: 0, max_samples }
    }

    fn labels(&self, fingerprint: u128) -> Option<Labels> {
        let at = self.by_fingerprint.get(&fingerprint)?;
        self.series.get(*at as usize).map(|series| series.labels.clone())
    }

    /// The series of a fingerprint, which gets so many more samples.
    fn series(&mut self, fingerprint: u128, samples: usize, labels: &Labels) -> Result<&mut Series, Error> {
        self.samples += samples as u64;
        if self.samples > self.max_samples {
            return Err(Error::Limit { what: "samples", limit: self.max_samples });
        }
        let at = match self.by_fingerprint.entry(fingerprint) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let at = self.series.len() as u32;
                let labels = labels.clone();
                self.series.push(Series {
                    labels,
                    found: SmallVec::new(),
                    read: Pieces::default(),
                    head: Vec::new(),
                });
                *new.insert(at)
            }
        };
        self.series.get_mut(at as usize).ok_or_else(|| Error::corrupt("a series was lost while it was read"))
    }

    /// Takes a piece of a series.
    fn found(&mut self, row: &Row, piece: Piece, range: Range) -> Result<(), Error> {
        let samples = range.count(self.blocks.t_ms(piece)?);
        self.series(row.fingerprint, samples, &row.labels)?.found.push(piece);
        Ok(())
    }

    /// Takes what deletes have left of a piece. They are there where they may hide something of the generation, which has
    /// those up to an entry carried out.
    fn take(
        &mut self,
        row: &Row,
        piece: Piece,
        deletes: Option<&mut Deletes>,
        deleted: Seq,
        range: Range,
    ) -> Result<(), Error> {
        let Some(deletes) = deletes else { return self.found(row, piece, range) };
        let hidden = deletes.ranges(row.fingerprint, &row.labels, deleted);
        for piece in self.blocks.without(piece, &hidden)? {
            self.found(row, piece, range)?;
        }
        Ok(())
    }

    /// Reads what was found so far where the blocks become too many to hold.
    fn bound(&mut self) -> Result<(), Error> {
        if self.blocks.are_many() { self.read_found() } else { Ok(()) }
    }

    /// Reads the pieces that were found so far, and lets go of their blocks.
    fn read_found(&mut self) -> Result<(), Error> {
        for Series { found, read, .. } in self.series.iter_mut().filter(|series| !series.found.is_empty()) {
            self.blocks.read(found, read)?;
            found.clear();
        }
        self.blocks.clear();
        Ok(())
    }
}

impl Reader {
    /// Series that satisfy all matchers, with their samples after `after_ms` and up to `until_ms` (included), sorted
    /// by labels; series without a sample in the range are left out. Histograms have the hints of [`set_reset_hints`];
    /// what lies in the same window before the range counts for them.
    ///
    /// # Errors
    /// [`Error::Limit`] when more than `max_samples` would be read, [`Error::Corrupt`] when stored data is damaged,
    /// [`Error::Cancelled`].
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        after_ms: i64,
        until_ms: i64,
        max_samples: u64,
    ) -> Result<Vec<(Labels, Points)>, Error> {
        let mut series = self.select_unsorted(matchers, after_ms, until_ms, max_samples)?;
        series.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(series)
    }

    /// As [`Reader::select`], but in no order that means anything.
    pub(crate) fn select_unsorted(
        &self,
        matchers: &[Matcher],
        after_ms: i64,
        until_ms: i64,
        max_samples: u64,
    ) -> Result<Vec<(Labels, Points)>, Error> {
        let from_ms = after_ms.saturating_add(1);
        let Some(range) = self.range(from_ms, until_ms) else { return Ok(Vec::new()) };
        if after_ms == i64::MAX {
            return Ok(Vec::new());
        }
        let mut gathered = Gathered::new(max_samples);
        for cell in &self.cells {
            self.check_cancel()?;
            let (generations, mut deletes) = self.select_head(cell, matchers, range, &mut gathered)?;
            let key = (generations.len() >= MANY).then(|| self.having(cell, matchers, &generations));
            let known = key.and_then(|key| self.inner.cache.known_places(key));
            let mut having = RoaringBitmap::new();
            for (at, of) in (0..).zip(generations) {
                if known.as_ref().is_some_and(|having| !having.contains(at)) {
                    continue;
                }
                self.check_cancel()?;
                let deletes = self.hide(&deletes, &of).then_some(&mut deletes);
                if self.select_disk(cell, of, deletes, matchers, range, &mut gathered)? {
                    having.insert(at);
                }
            }
            if let (Some(key), None) = (key, known) {
                self.inner.cache.places(key, || Ok::<_, Error>(having))?;
            }
        }
        self.put_together(gathered, range)
    }

    /// The key of which of these generations have series that satisfy all matchers. Over a long time most shards have none
    /// of them anywhere, which is then asked once and not for each generation.
    fn having(&self, cell: &Cell, matchers: &[Matcher], generations: &[(i64, Mark)]) -> u128 {
        let mut key = Key::new(Kind::Having);
        key.number(u64::from(cell.id.0)).bytes(self.tenant.as_str().as_bytes());
        for matcher in matchers {
            key.matcher(matcher);
        }
        for (window_ms, mark) in generations {
            key.number(window_ms.cast_unsigned())
                .number(u64::from(mark.class))
                .number(u64::from(mark.number));
            key.number(mark.through.0).number(mark.samples);
        }
        key.finish()
    }

    /// Reads the pieces that were found, and leaves out series without samples.
    fn put_together(&self, gathered: Gathered, range: Range) -> Result<Vec<(Labels, Points)>, Error> {
        let Gathered { series, mut blocks, .. } = gathered;
        let mut all = Vec::with_capacity(series.len());
        for (at, Series { labels, found, mut read, head }) in series.into_iter().enumerate() {
            if at % 1024 == 0 {
                self.check_cancel()?;
            }
            blocks.read(&found, &mut read)?;
            head.into_iter().for_each(|piece| read.push(piece));
            let mut points = read.finish();
            if !points.histograms.is_empty() {
                set_reset_hints(&mut points);
                drop_before(&mut points, range.from_ms);
            }
            if !points.is_empty() {
                all.push((labels, points));
            }
        }
        Ok(all)
    }

    fn select_head(
        &self,
        cell: &Cell,
        matchers: &[Matcher],
        range: Range,
        gathered: &mut Gathered,
    ) -> Result<(Vec<(i64, Mark)>, Deletes), Error> {
        let shard = self.read(cell)?;
        let found = (self.generations(&shard, range, |mark| mark.samples > 0)?, self.deletes(&shard, range));
        let Some(tenant) = shard.registry.find_tenant(&self.tenant) else { return Ok(found) };
        let windows: Vec<_> = self.windows(&shard.windows, range).collect();
        if windows.is_empty() {
            return Ok(found);
        }
        // Ids ascend in the order of the log, and so do the parts of a window.
        for id in shard.registry.select(tenant, matchers) {
            let Some(series) = shard.registry.get(id).filter(|series| series.parts > 0) else { continue };
            for (window_ms, window) in &windows {
                for column in window.parts().filter_map(|part| part.columns.get(&id)) {
                    // With what precedes the range, for the hints of histograms.
                    let from_ms = if column.has_histograms() { *window_ms } else { range.from_ms };
                    let points = column.points(*window_ms, from_ms, range.until_ms);
                    if !points.is_empty() {
                        let counted = range.count(&points.t_ms);
                        gathered.series(series.fingerprint, counted, &series.labels)?.head.push(points);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Answers whether the generation has any such series, in whatever time. `deletes` are there where they may hide
    /// something of it.
    fn select_disk(
        &self,
        cell: &Cell,
        of: (i64, Mark),
        mut deletes: Option<&mut Deletes>,
        matchers: &[Matcher],
        range: Range,
        gathered: &mut Gathered,
    ) -> Result<bool, Error> {
        let disk = self.disk(of, cell.id);
        let rows = match disk.rows(matchers, |fingerprint| gathered.labels(fingerprint))? {
            Chosen::Rows(rows) => rows,
            Chosen::Many(places) => {
                gathered.blocks.turn_to_another_generation();
                let mut at = 0;
                disk.series(&places, &mut |_, found| {
                    self.check_cancel_at(at)?;
                    at += 1;
                    let Some(piece) =
                        gathered.blocks.find(&disk, found.place, range.from_ms, range.until_ms)?
                    else {
                        // Many blocks may have nothing in the range.
                        return gathered.bound();
                    };
                    let row = found.row_with(&mut |fingerprint| gathered.labels(fingerprint))?;
                    gathered.take(&row, piece, deletes.as_deref_mut(), of.1.deleted, range)?;
                    gathered.bound()
                })?;
                return Ok(true);
            }
        };
        gathered.blocks.turn_to_another_generation();
        for (at, row) in rows.iter().enumerate() {
            self.check_cancel_at(at)?;
            if let Some(piece) = gathered.blocks.find(&disk, row.place, range.from_ms, range.until_ms)? {
                gathered.take(row, piece, deletes.as_deref_mut(), of.1.deleted, range)?;
            }
            gathered.bound()?;
        }
        Ok(!rows.is_empty())
    }

    /// Looks whether to go on, now and then.
    fn check_cancel_at(&self, at: usize) -> Result<(), Error> {
        if at.is_multiple_of(1024) { self.check_cancel() } else { Ok(()) }
    }

    /// Exemplars between `start_ms` and `end_ms` (both included) of the series that satisfy any of the alternatives
    /// (all series where none is given), sorted by labels and then by time; at most `limit` series (0: no bound).
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored data is damaged, [`Error::Cancelled`].
    pub(crate) fn exemplars(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
        limit: u64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, Error> {
        let Some(range) = self.range(start_ms, end_ms) else { return Ok(Vec::new()) };
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for cell in &self.cells {
            for matchers in alternatives(matchers) {
                self.check_cancel()?;
                self.cell_exemplars(cell, matchers, range, &mut found)?;
            }
        }
        for exemplars in found.values_mut() {
            exemplars.retain(|exemplar| (range.from_ms..=range.until_ms).contains(&exemplar.t_ms));
            sort_exemplars(exemplars);
        }
        let found = found.into_iter().filter(|(_, exemplars)| !exemplars.is_empty());
        Ok(found.take(bound(limit)).collect())
    }

    fn cell_exemplars(
        &self,
        cell: &Cell,
        matchers: &[Matcher],
        range: Range,
        found: &mut BTreeMap<Labels, Vec<Exemplar>>,
    ) -> Result<(), Error> {
        let (generations, mut deletes) = {
            let shard = self.read(cell)?;
            if let Some(tenant) = shard.registry.find_tenant(&self.tenant) {
                for id in shard.registry.select(tenant, matchers) {
                    let Some(series) = shard.registry.get(id) else { continue };
                    for (_, window) in self.windows(&shard.windows, range) {
                        let columns = window.parts().filter_map(|part| part.columns.get(&id));
                        for column in columns.filter(|column| !column.exemplars().is_empty()) {
                            found
                                .entry(series.labels.clone())
                                .or_default()
                                .extend(column.exemplars().iter().cloned());
                        }
                    }
                }
            }
            (self.generations(&shard, range, |_| true)?, self.deletes(&shard, range))
        };
        for of in generations {
            let is_hidden = self.hide(&deletes, &of);
            let disk = self.disk(of, cell.id);
            let ids = disk.select(matchers)?;
            let mut by_id = BTreeMap::new();
            disk.exemplars(&ids, &mut |id, exemplars| drop(by_id.insert(id, exemplars)))?;
            let ids = by_id.keys().copied().collect();
            disk.series(&ids, &mut |id, series| {
                let labels = series.labels()?;
                let mut exemplars = by_id.remove(&id).unwrap_or_default();
                if is_hidden {
                    let hidden = deletes.ranges(labels.fingerprint(), &labels, of.1.deleted);
                    exemplars.retain(|exemplar| !hidden.contains(exemplar.t_ms));
                }
                found.entry(labels).or_default().extend(exemplars);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The alternatives, or one that matches everything where there are none.
pub(super) fn alternatives(matchers: &[Vec<Matcher>]) -> impl Iterator<Item = &[Matcher]> {
    const ALL: &[Matcher] = &[];
    matchers.iter().map(Vec::as_slice).chain(matchers.is_empty().then_some(ALL))
}

/// A limit as a number of items, where 0 means no bound.
pub(super) fn bound(limit: u64) -> usize {
    if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) }
}
