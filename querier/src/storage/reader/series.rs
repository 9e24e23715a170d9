//! Label sets, names and values, metadata, and counts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use roaring::RoaringBitmap;
use tricord_fragment::{Cardinality, Estimate};
use tricord_model::{Labels, METRIC_NAME, Matcher, MetricMetadata};

use super::deletes::Gone;
use super::samples::{alternatives, bound};
use super::{Range, Reader};
use crate::storage::Error;
use crate::storage::block::postings;
use crate::storage::cache::{Key, Kind};
use crate::storage::disk::Disk;
use crate::storage::head::Shard;
use crate::storage::head::part::Window;
use crate::storage::head::registry::FastMap;

impl Reader {
    /// Label sets of series that satisfy any of the alternatives (all series where none is given) and that have
    /// something in a window that overlaps the range. At most `limit` (0: no bound), the first ones by their labels;
    /// in no order that means anything.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored data is damaged, [`Error::Cancelled`].
    pub(crate) fn series(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
        limit: u64,
    ) -> Result<Vec<Labels>, Error> {
        let Some(range) = self.range(start_ms, end_ms) else { return Ok(Vec::new()) };
        // By fingerprint, as a series is in many windows: its labels are read once.
        let mut found: FastMap<u128, Labels> = FastMap::default();
        for cell in &self.cells {
            let (generations, mut deletes) = {
                let shard = self.read(cell)?;
                for series in
                    self.in_head(&shard, matchers, range).into_iter().filter_map(|id| shard.registry.get(id))
                {
                    found.entry(series.fingerprint).or_insert_with(|| series.labels.clone());
                }
                (self.generations(&shard, range, |mark| mark.samples > 0)?, self.deletes(&shard, range))
            };
            for of in generations {
                self.check_cancel()?;
                let disk = self.disk(of, cell.id);
                let gone = self.gone_of(&disk, &of, &mut deletes)?;
                for matchers in alternatives(matchers) {
                    let rows = disk.rows(matchers, |fingerprint| found.get(&fingerprint).cloned())?;
                    for row in rows.iter().filter(|row| !gone.has(row)) {
                        found.entry(row.fingerprint).or_insert_with(|| row.labels.clone());
                    }
                }
            }
        }
        let mut found: Vec<Labels> = found.into_values().collect();
        if found.len() >= bound(limit) {
            found.sort_unstable();
            found.truncate(bound(limit));
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

    /// Names of the labels of such series, sorted.
    ///
    /// # Errors
    /// As [`Reader::series`].
    pub(crate) fn label_names(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
        limit: u64,
    ) -> Result<Vec<String>, Error> {
        self.texts(None, matchers, start_ms, end_ms, limit)
    }

    /// Values of one label of such series, sorted.
    ///
    /// # Errors
    /// As [`Reader::series`].
    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
        limit: u64,
    ) -> Result<Vec<String>, Error> {
        self.texts(Some(name), matchers, start_ms, end_ms, limit)
    }

    /// Values of a label, or names of all labels.
    fn texts(
        &self,
        only: Option<&str>,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
        limit: u64,
    ) -> Result<Vec<String>, Error> {
        let Some(range) = self.range(start_ms, end_ms) else { return Ok(Vec::new()) };
        let mut texts = BTreeSet::new();
        // Apart from others those of which some series are gone.
        let (mut disks, mut changed) = (Vec::new(), Vec::new());
        for cell in &self.cells {
            self.check_cancel()?;
            let (generations, mut deletes) = {
                let shard = self.read(cell)?;
                self.head_pairs(&shard, only, matchers, range, &mut |name, value| {
                    add(&mut texts, if only.is_some() { value } else { name });
                });
                (self.generations(&shard, range, |mark| mark.samples > 0)?, self.deletes(&shard, range))
            };
            for of in generations {
                let disk = self.disk(of, cell.id);
                let gone = self.gone_of(&disk, &of, &mut deletes)?;
                if gone.is_empty() { disks.push(disk) } else { changed.push((disk, gone)) }
            }
        }
        if matchers.is_empty() {
            for (disk, gone) in &changed {
                self.texts_left(only, disk, gone, &mut |text| add(&mut texts, text))?;
            }
            let mut key = Key::new(Kind::Texts);
            key.bytes(only.unwrap_or_default().as_bytes());
            disks.iter().for_each(|disk| disk.identify(&mut key));
            let on_disk = self.inner.cache.texts(key.finish(), || self.texts_of(only, &disks))?;
            if texts.is_empty() {
                return Ok(on_disk.iter().take(bound(limit)).cloned().collect());
            }
            on_disk.iter().for_each(|text| add(&mut texts, text));
        } else {
            changed.extend(disks.into_iter().map(|disk| (disk, Gone::default())));
            self.texts_of_series(only, matchers, &changed, &mut |text| add(&mut texts, text))?;
        }
        Ok(texts.into_iter().take(bound(limit)).collect())
    }

    /// All values of a label, or all names, in some generations.
    fn texts_of(&self, only: Option<&str>, disks: &[Disk<'_>]) -> Result<Vec<String>, Error> {
        let mut texts = BTreeSet::new();
        let mut take = |text: &str| {
            add(&mut texts, text);
            Ok(true)
        };
        for disk in disks {
            self.check_cancel()?;
            match only {
                Some(name) => disk.values(name, &mut |value, _| take(value))?,
                None => disk.pairs(&mut |name, _, _| take(name))?,
            }
        }
        Ok(texts.into_iter().collect())
    }

    /// The values of a label, or all names, that series of a generation have which are not gone.
    fn texts_left(
        &self,
        only: Option<&str>,
        disk: &Disk<'_>,
        gone: &Gone,
        take: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        self.check_cancel()?;
        let mut take_left = |text: &str, ids: &[u8]| -> Result<bool, Error> {
            if !gone.has_all(&postings::decode(ids)?) {
                take(text);
            }
            Ok(true)
        };
        match only {
            Some(name) => disk.values(name, &mut take_left),
            None => disk.pairs(&mut |name, _, ids| take_left(name, ids)),
        }
    }

    /// The values of a label, or the names of labels, that series in some generations have.
    fn texts_of_series(
        &self,
        only: Option<&str>,
        matchers: &[Vec<Matcher>],
        disks: &[(Disk<'_>, Gone)],
        take: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        // A series is in many windows: its labels are looked at once.
        let mut seen: FastMap<u128, Labels> = FastMap::default();
        for (disk, gone) in disks {
            self.check_cancel()?;
            for matchers in alternatives(matchers) {
                let rows = disk.rows(matchers, |fingerprint| seen.get(&fingerprint).cloned())?;
                for row in rows.iter().filter(|row| !gone.has(row)) {
                    let Entry::Vacant(new) = seen.entry(row.fingerprint) else { continue };
                    match only {
                        Some(name) => row.labels.get(name).into_iter().for_each(&mut *take),
                        None => row.labels.iter().for_each(|(name, _)| take(name)),
                    }
                    new.insert(row.labels.clone());
                }
            }
        }
        Ok(())
    }

    fn head_pairs(
        &self,
        shard: &Shard,
        only: Option<&str>,
        matchers: &[Vec<Matcher>],
        range: Range,
        visit: &mut dyn FnMut(&str, &str),
    ) {
        let ids = self.in_head(shard, matchers, range);
        let Some(tenant) = shard.registry.find_tenant(&self.tenant).filter(|_| !ids.is_empty()) else {
            return;
        };
        let Some(names) = shard.registry.postings(tenant) else { return };
        let bounds = match only {
            Some(name) => (Bound::Included(name), Bound::Included(name)),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        for (name, values) in names.range::<str, _>(bounds) {
            for (value, _) in values.iter().filter(|(_, of)| !of.is_disjoint(&ids)) {
                visit(name, value);
            }
        }
    }

    /// Series in memory that match and have something in a window that overlaps the range.
    fn in_head(&self, shard: &Shard, matchers: &[Vec<Matcher>], range: Range) -> RoaringBitmap {
        let windows: Vec<&Window> = self.windows(&shard.windows, range).map(|(_, window)| window).collect();
        let Some(tenant) = shard.registry.find_tenant(&self.tenant) else { return RoaringBitmap::new() };
        let all = alternatives(matchers).map(|matchers| shard.registry.select(tenant, matchers));
        let all = all.fold(RoaringBitmap::new(), |all, ids| all | ids);
        let has =
            |id: u32| windows.iter().any(|window| window.parts().any(|part| part.columns.contains_key(&id)));
        all.into_iter().filter(|id| has(*id)).collect()
    }

    /// Metadata of one family, or of all where it is empty, sorted by family; at most `limit` families (0: no bound).
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn metadata(&self, family: &str, limit: u64) -> Result<Vec<(String, MetricMetadata)>, Error> {
        let mut found: BTreeMap<String, Vec<MetricMetadata>> = BTreeMap::new();
        for cell in &self.cells {
            self.check_cancel()?;
            let shard = self.read(cell)?;
            let from = (self.tenant.clone(), family.to_owned());
            let of_tenant =
                shard.metadata.range(from..).take_while(|((tenant, _), _)| *tenant == self.tenant);
            for ((_, name), metadata) in of_tenant {
                if !family.is_empty() && name != family {
                    break;
                }
                let known = found.entry(name.clone()).or_default();
                if !known.contains(metadata) {
                    known.push(metadata.clone());
                }
            }
        }
        let mut list = Vec::new();
        for (name, mut all) in found.into_iter().take(bound(limit)) {
            all.sort_by(|a, b| (a.kind as u8, &a.unit, &a.help).cmp(&(b.kind as u8, &b.unit, &b.help)));
            list.extend(all.into_iter().map(|metadata| (name.clone(), metadata)));
        }
        Ok(list)
    }

    /// Counts over the series in memory, each list with its `top` entries.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn cardinality(&self, top: usize) -> Result<Cardinality, Error> {
        let mut counts = Counts { min_ms: i64::MAX, max_ms: i64::MIN, ..Counts::default() };
        for cell in &self.cells {
            self.check_cancel()?;
            let shard = self.read(cell)?;
            counts.add(&shard, self);
        }
        Ok(counts.finish(top))
    }
}

fn add(texts: &mut BTreeSet<String>, text: &str) {
    if !texts.contains(text) {
        texts.insert(text.to_owned());
    }
}

#[derive(Default)]
struct Counts {
    series: u64,
    min_ms: i64,
    max_ms: i64,
    by_metric: BTreeMap<String, u64>,
    values: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Counts {
    fn add(&mut self, shard: &Shard, reader: &Reader) {
        let Some(tenant) = shard.registry.find_tenant(&reader.tenant) else { return };
        self.series += shard.registry.select(tenant, &[]).len();
        for (window_ms, window) in &shard.windows {
            let of_tenant = |id: &u32| shard.registry.get(*id).is_some_and(|series| series.tenant == tenant);
            for (_, column) in window.parts().flat_map(|part| &part.columns).filter(|(id, _)| of_tenant(id)) {
                let Some((min, max)) = column.span() else { continue };
                self.min_ms = self.min_ms.min(window_ms + i64::from(min));
                self.max_ms = self.max_ms.max(window_ms + i64::from(max));
            }
        }
        for (name, values) in shard.registry.postings(tenant).into_iter().flatten() {
            for (value, ids) in values {
                *self.values.entry(name.clone()).or_default().entry(value.clone()).or_default() += ids.len();
                if name == METRIC_NAME {
                    *self.by_metric.entry(value.clone()).or_default() += ids.len();
                }
            }
        }
    }

    fn finish(self, top: usize) -> Cardinality {
        let is_empty = self.min_ms > self.max_ms;
        let pairs = self.values.iter().flat_map(|(name, values)| {
            values.iter().map(move |(value, series)| (format!("{name}={value}"), *series))
        });
        let bytes = |values: &BTreeMap<String, u64>| values.keys().map(|value| value.len() as u64).sum();
        Cardinality {
            series: self.series,
            label_pairs: self.values.values().map(|values| values.len() as u64).sum(),
            min_ms: if is_empty { 0 } else { self.min_ms },
            max_ms: if is_empty { 0 } else { self.max_ms },
            by_pair: highest(pairs.collect(), top),
            values_by_label: highest(
                self.values.iter().map(|(n, v)| (n.clone(), v.len() as u64)).collect(),
                top,
            ),
            bytes_by_label: highest(self.values.iter().map(|(n, v)| (n.clone(), bytes(v))).collect(), top),
            by_metric: highest(self.by_metric.into_iter().collect(), top),
        }
    }
}

fn highest(mut counts: Vec<(String, u64)>, top: usize) -> Vec<(String, u64)> {
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(top);
    counts
}
