//! Metadata of metric families, and counts over the series in memory.

use std::collections::{BTreeMap, HashMap};

use tricord_fragment::Cardinality;
use tricord_model::{METRIC_NAME, MetricMetadata};

use super::Reader;
use super::samples::bound;
use crate::storage::Error;
use crate::storage::head::Shard;

impl Reader {
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
    values: BTreeMap<String, HashMap<String, u64>>,
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
            let sums = self.values.entry(name.clone()).or_default();
            for (value, ids) in values {
                match sums.get_mut(value) {
                    Some(sum) => *sum += ids.len(),
                    None => drop(sums.insert(value.clone(), ids.len())),
                }
                if name == METRIC_NAME {
                    *self.by_metric.entry(value.clone()).or_default() += ids.len();
                }
            }
        }
    }

    fn finish(self, top: usize) -> Cardinality {
        let is_empty = self.min_ms > self.max_ms;
        let pairs = || {
            self.values
                .iter()
                .flat_map(|(name, values)| values.iter().map(move |(value, n)| (name, value, *n)))
        };
        // Most pairs are of few series, and are not written down.
        let least = least_of_highest(pairs().map(|(_, _, series)| series).collect(), top);
        let highest_pairs = pairs().filter(|(_, _, series)| *series >= least);
        let highest_pairs = highest_pairs.map(|(name, value, series)| (format!("{name}={value}"), series));
        let bytes = |values: &HashMap<String, u64>| values.keys().map(|value| value.len() as u64).sum();
        Cardinality {
            series: self.series,
            label_pairs: self.values.values().map(|values| values.len() as u64).sum(),
            min_ms: if is_empty { 0 } else { self.min_ms },
            max_ms: if is_empty { 0 } else { self.max_ms },
            by_pair: highest(highest_pairs.collect(), top),
            values_by_label: highest(
                self.values.iter().map(|(n, v)| (n.clone(), v.len() as u64)).collect(),
                top,
            ),
            bytes_by_label: highest(self.values.iter().map(|(n, v)| (n.clone(), bytes(v))).collect(), top),
            by_metric: highest(self.by_metric.into_iter().collect(), top),
        }
    }
}

/// The least of the `top` highest of some numbers.
fn least_of_highest(mut numbers: Vec<u64>, top: usize) -> u64 {
    match top.checked_sub(1).filter(|at| *at < numbers.len()) {
        Some(at) => *numbers.select_nth_unstable_by(at, |a, b| b.cmp(a)).1,
        None => 0,
    }
}

fn highest(mut counts: Vec<(String, u64)>, top: usize) -> Vec<(String, u64)> {
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(top);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_the_highest_leaves_none_of_them_out() {
        let numbers = vec![5, 1, 9, 5, 7, 5];
        let least = |top| least_of_highest(numbers.clone(), top);
        assert_eq!([1, 2, 3, 5, 6, 7, 0].map(least), [9, 7, 5, 5, 1, 0, 0]);
    }
}
