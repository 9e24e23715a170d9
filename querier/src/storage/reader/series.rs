//! Label sets, names and values, metadata, and counts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use roaring::RoaringBitmap;
use tricord_fragment::Cardinality;
use tricord_model::{Labels, METRIC_NAME, Matcher, MetricMetadata};

use super::samples::{alternatives, bound};
use super::{Range, Reader};
use crate::storage::Error;
use crate::storage::block::postings;
use crate::storage::head::Shard;
use crate::storage::head::part::Window;
use crate::storage::keys::Generation;
use crate::storage::store::Cell;

impl Reader {
    /// Label sets of series that satisfy any of the alternatives (all series where none is given) and that have
    /// something in a window that overlaps the range. Sorted; at most `limit` (0: no bound).
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
        let mut found = BTreeSet::new();
        for cell in &self.cells {
            let generations = {
                let shard = self.read(cell)?;
                for id in self.in_head(&shard, matchers, range) {
                    found.extend(shard.registry.get(id).map(|series| series.labels.clone()));
                }
                self.generations(&shard, range, |mark| mark.samples > 0)
            };
            for of in generations {
                self.check_cancel()?;
                let disk = self.disk(of, cell.id);
                disk.series(&self.on_disk(cell, of, matchers)?, &mut |_, series| {
                    found.insert(series.labels);
                    Ok(())
                })?;
            }
        }
        Ok(found.into_iter().take(bound(limit)).collect())
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
        let mut names = BTreeSet::new();
        self.pairs(None, matchers, start_ms, end_ms, &mut |name, _| {
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        })?;
        Ok(names.into_iter().take(bound(limit)).collect())
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
        let mut values = BTreeSet::new();
        self.pairs(Some(name), matchers, start_ms, end_ms, &mut |_, value| {
            if !values.contains(value) {
                values.insert(value.to_owned());
            }
        })?;
        Ok(values.into_iter().take(bound(limit)).collect())
    }

    /// Visits pairs of label name and value of matching series, some of them more than once.
    fn pairs(
        &self,
        only: Option<&str>,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
        visit: &mut dyn FnMut(&str, &str),
    ) -> Result<(), Error> {
        let Some(range) = self.range(start_ms, end_ms) else { return Ok(()) };
        for cell in &self.cells {
            let generations = {
                let shard = self.read(cell)?;
                self.head_pairs(&shard, only, matchers, range, visit);
                self.generations(&shard, range, |mark| mark.samples > 0)
            };
            for of in generations {
                self.check_cancel()?;
                let ids = if matchers.is_empty() { None } else { Some(self.on_disk(cell, of, matchers)?) };
                let wanted = |set: &[u8]| -> Result<bool, Error> {
                    Ok(match &ids {
                        Some(ids) => !ids.is_disjoint(&postings::decode(set)?),
                        None => true,
                    })
                };
                let disk = self.disk(of, cell.id);
                let mut pair = |name: &str, value: &str, set: &[u8]| -> Result<bool, Error> {
                    if wanted(set)? {
                        visit(name, value);
                    }
                    Ok(true)
                };
                match only {
                    Some(name) => disk.values(name, &mut |value, set| pair(name, value, set))?,
                    None => disk.pairs(&mut pair)?,
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

    fn on_disk(
        &self,
        cell: &Cell,
        of: Generation,
        matchers: &[Vec<Matcher>],
    ) -> Result<RoaringBitmap, Error> {
        let disk = self.disk(of, cell.id);
        let mut all = RoaringBitmap::new();
        for matchers in alternatives(matchers) {
            all |= disk.select(matchers)?;
        }
        Ok(all)
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
