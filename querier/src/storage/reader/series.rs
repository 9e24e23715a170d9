//! Label sets, in their order and no further than they are asked for, and what reading their samples would cost.

use roaring::RoaringBitmap;
use tricord_fragment::Estimate;
use tricord_model::{Labels, Matcher};

use super::ordered::{Ordered, Places};
use super::samples::{alternatives, bound};
use super::{FEW, Range, Reader};
use crate::storage::Error;
use crate::storage::disk::{Chosen, Disk};
use crate::storage::head::Shard;
use crate::storage::head::part::Window;

impl Reader {
    /// Label sets of series that satisfy any of the alternatives (all series where none is given) and that have
    /// something in a window that overlaps the range, sorted: the first `limit` (0: no bound), and none behind `until`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored data is damaged, [`Error::Cancelled`].
    pub(crate) fn series(
        &self,
        matchers: &[Vec<Matcher>],
        (start_ms, end_ms): (i64, i64),
        limit: u64,
        until: Option<&Labels>,
    ) -> Result<Vec<Labels>, Error> {
        let Some(range) = self.range(start_ms, end_ms) else { return Ok(Vec::new()) };
        let (mut loose, mut on_disk) = (Vec::new(), Vec::new());
        for cell in &self.cells {
            self.check_cancel()?;
            let (generations, mut deletes) = {
                let shard = self.read(cell)?;
                let series = self.in_head(&shard, matchers, range).into_iter();
                loose.extend(series.filter_map(|id| Some(shard.registry.get(id)?.labels.clone())));
                (self.generations(&shard, range, |mark| mark.samples > 0)?, self.deletes(&shard, range))
            };
            keep_first(&mut loose, bound(limit).saturating_mul(2), bound(limit));
            for of in generations {
                self.check_cancel()?;
                let disk = self.disk(of, cell.id);
                if !self.hide(&deletes, &of) && few(&disk, matchers, &mut loose)? {
                    continue;
                }
                let places = self.places(&disk, &of, matchers, &mut deletes)?;
                on_disk.extend(Places::new(disk, places, &mut |labels| {
                    loose.push(labels);
                    if loose.len() > bound(limit).saturating_mul(2) {
                        self.check_cancel()?;
                        keep_first(&mut loose, 0, bound(limit));
                    }
                    Ok(())
                })?);
            }
        }
        keep_first(&mut loose, 0, bound(limit));
        let mut ordered = Ordered::new(loose, on_disk)?;
        let mut found = Vec::new();
        while found.len() < bound(limit) {
            let Some(labels) = ordered.next()? else { break };
            if until.is_some_and(|until| labels > *until) {
                break;
            }
            found.push(labels);
            if found.len().is_multiple_of(1024) {
                self.check_cancel()?;
            }
        }
        Ok(found)
    }

    /// What reading the samples of such series would cost, from the index: in each window a series is taken to have as
    /// many samples as the others, evenly over the window.
    ///
    /// # Errors
    /// As [`Reader::series`].
    pub(crate) fn estimate(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Estimate, Error> {
        let Some(range) = self.range(start_ms, end_ms) else { return Ok(Estimate::default()) };
        let window_ms = self.inner.config.window_ms.max(1);
        let overlap = |start_ms: i64, span_ms: i64| {
            let from = range.from_ms.max(start_ms);
            let until = range.until_ms.saturating_add(1).min(start_ms.saturating_add(span_ms));
            until.saturating_sub(from).max(0) as f64 / span_ms as f64
        };
        let (mut series, mut samples) = (0, 0.0);
        for cell in &self.cells {
            self.check_cancel()?;
            let (mut most, generations) = {
                let shard = self.read(cell)?;
                let ids = self.in_head(&shard, matchers, range);
                for (start_ms, window) in self.windows(&shard.windows, range) {
                    for part in window.parts().filter(|part| !part.columns.is_empty()) {
                        let matched = ids.iter().filter(|id| part.columns.contains_key(id)).count();
                        samples += part.samples as f64 / part.columns.len() as f64
                            * matched as f64
                            * overlap(start_ms, window_ms);
                    }
                }
                (ids.len(), self.generations(&shard, range, |mark| mark.samples > 0)?)
            };
            for of in generations {
                let disk = self.disk(of, cell.id);
                let mut ids = RoaringBitmap::new();
                for matchers in alternatives(matchers) {
                    ids |= disk.select(matchers)?;
                }
                let all = f64::from(disk.series_count()?.max(1));
                samples += of.1.samples as f64 / all * ids.len() as f64 * overlap(of.0, self.span_ms(&of.1));
                // Mostly the same series in each window.
                most = most.max(ids.len());
            }
            series += most;
        }
        Ok(Estimate { series, samples: samples.round() as u64 })
    }

    /// Series in memory that match and have something in a window that overlaps the range.
    pub(super) fn in_head(&self, shard: &Shard, matchers: &[Vec<Matcher>], range: Range) -> RoaringBitmap {
        let windows: Vec<&Window> = self.windows(&shard.windows, range).map(|(_, window)| window).collect();
        let tenant = shard.registry.find_tenant(&self.tenant).filter(|_| !windows.is_empty());
        let Some(tenant) = tenant else { return RoaringBitmap::new() };
        let all = alternatives(matchers).map(|matchers| shard.registry.select(tenant, matchers));
        let all = all.fold(RoaringBitmap::new(), |all, ids| all | ids);
        let has =
            |id: u32| windows.iter().any(|window| window.parts().any(|part| part.columns.contains_key(&id)));
        all.into_iter().filter(|id| has(*id)).collect()
    }
}

/// Adds the series of a generation that satisfy any of the alternatives where those are few: their labels are read once for
/// many questions, and are soon sorted.
fn few(disk: &Disk<'_>, matchers: &[Vec<Matcher>], found: &mut Vec<Labels>) -> Result<bool, Error> {
    let mut places = 0;
    for matchers in matchers {
        places += disk.places(matchers)?.len();
    }
    if matchers.is_empty() || places > FEW {
        return Ok(false);
    }
    for matchers in matchers {
        let Chosen::Rows(rows) = disk.rows(matchers, |_| None)? else { return Ok(false) };
        found.extend(rows.iter().map(|row| row.labels.clone()));
    }
    Ok(true)
}

/// Sorts a list of more than so many, and cuts it to its first ones, each once.
fn keep_first(all: &mut Vec<Labels>, more_than: usize, first: usize) {
    if all.len() > more_than {
        all.sort_unstable();
        all.dedup();
        all.truncate(first);
    }
}
