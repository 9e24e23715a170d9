//! Merging of names, label sets, exemplars, metadata, raw samples and cardinality.

use std::collections::BTreeMap;

use tricord_fragment::{Cardinality, Estimate, Partial, PartialBody};
use tricord_model::{Exemplar, Labels, MetricMetadata, Points};

use crate::error::Error;

/// A list and whether a limit has cut it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut<T> {
    /// What is left.
    pub items: T,
    /// Whether something was left out.
    pub truncated: bool,
}

pub(super) fn mismatch(expected: &str) -> Error {
    Error::Internal(format!("a data node answered with something other than {expected}"))
}

fn cut<T>(items: impl ExactSizeIterator<Item = T>, limit: u64, already: bool) -> Cut<Vec<T>> {
    let all = items.len();
    let keep = if limit == 0 { all } else { all.min(usize::try_from(limit).unwrap_or(usize::MAX)) };
    Cut { items: items.take(keep).collect(), truncated: already || keep < all }
}

/// Sorted texts, each once.
///
/// # Errors
/// [`Error::Internal`] when a partial is of another kind; so for all functions here.
pub fn names(partials: Vec<Partial>, limit: u64) -> Result<Cut<Vec<String>>, Error> {
    let (mut all, mut truncated) = (Vec::new(), false);
    for partial in partials {
        let PartialBody::Names(names) = partial.body else { return Err(mismatch("names")) };
        truncated |= partial.truncated;
        all.push(names);
    }
    Ok(cut(united(all).into_iter(), limit, truncated))
}

/// Sorted label sets, each once.
///
/// # Errors
/// As [`names`].
pub fn series(partials: Vec<Partial>, limit: u64) -> Result<Cut<Vec<Labels>>, Error> {
    let (mut all, mut truncated) = (Vec::new(), false);
    for partial in partials {
        let PartialBody::Series(series) = partial.body else { return Err(mismatch("series")) };
        truncated |= partial.truncated;
        all.push(series);
    }
    Ok(cut(united(all).into_iter(), limit, truncated))
}

/// Several lists as one, sorted, each item once.
fn united<T: Ord>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut all: Vec<T> = lists.into_iter().flatten().collect();
    // Each list is sorted mostly: runs are merged.
    if !all.is_sorted_by(|a, b| a < b) {
        all.sort();
        all.dedup();
    }
    all
}

/// Exemplars by series, by time within each.
///
/// # Errors
/// As [`names`].
pub fn exemplars(partials: Vec<Partial>) -> Result<Vec<(Labels, Vec<Exemplar>)>, Error> {
    let mut all: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
    for partial in partials {
        let PartialBody::Exemplars(series) = partial.body else { return Err(mismatch("exemplars")) };
        for (labels, exemplars) in series {
            all.entry(labels).or_default().extend(exemplars);
        }
    }
    for exemplars in all.values_mut() {
        exemplars
            .sort_by(|a, b| (a.t_ms, &a.labels).cmp(&(b.t_ms, &b.labels)).then(a.value.total_cmp(&b.value)));
        exemplars.dedup();
    }
    Ok(all.into_iter().collect())
}

/// Metadata by family: distinct entries in a fixed order, at most `per_family` each and `limit` families; 0 for no
/// bound.
///
/// # Errors
/// As [`names`].
pub fn metadata(
    partials: Vec<Partial>,
    limit: u64,
    per_family: u64,
) -> Result<Vec<(String, Vec<MetricMetadata>)>, Error> {
    let mut all: BTreeMap<String, BTreeMap<(u8, String, String), MetricMetadata>> = BTreeMap::new();
    for partial in partials {
        let PartialBody::Metadata(list) = partial.body else { return Err(mismatch("metadata")) };
        for (family, entry) in list {
            let key = (entry.kind as u8, entry.help.clone(), entry.unit.clone());
            all.entry(family).or_default().insert(key, entry);
        }
    }
    let families = cut(all.into_iter(), limit, false).items;
    let kept = |entries: BTreeMap<_, _>| cut(entries.into_values(), per_family, false).items;
    Ok(families.into_iter().map(|(family, entries)| (family, kept(entries))).collect())
}

/// Raw samples, sorted by labels. A series lies on one shard; should two nodes hold one all the same, the samples of
/// both are kept, and of two at one time the one of the first partial.
///
/// # Errors
/// As [`names`].
pub fn raw(partials: Vec<Partial>) -> Result<Vec<(Labels, Points)>, Error> {
    let mut all: BTreeMap<Labels, Points> = BTreeMap::new();
    for partial in partials {
        let PartialBody::Raw(series) = partial.body else { return Err(mismatch("raw samples")) };
        for (labels, points) in series {
            match all.entry(labels) {
                std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(points)),
                std::collections::btree_map::Entry::Occupied(mut known) => {
                    let merged = join(known.get(), &points);
                    known.insert(merged);
                }
            }
        }
    }
    Ok(all.into_iter().collect())
}

fn join(left: &Points, right: &Points) -> Points {
    let mut samples: Vec<_> = left.iter().chain(right.iter()).collect();
    samples.sort_by_key(|sample| sample.t_ms);
    samples.dedup_by_key(|sample| sample.t_ms);
    samples.into_iter().collect()
}

/// What all data nodes together would read.
///
/// # Errors
/// As [`names`].
pub fn estimate(partials: Vec<Partial>) -> Result<Estimate, Error> {
    let mut sum = Estimate::default();
    for partial in partials {
        let PartialBody::Estimate(estimate) = partial.body else { return Err(mismatch("an estimate")) };
        sum.add(&estimate);
    }
    Ok(sum)
}

/// Counts added up by name, each list cut to its greatest entries.
///
/// # Errors
/// As [`names`].
pub fn cardinality(partials: Vec<Partial>, top: usize) -> Result<Cardinality, Error> {
    let mut sum = Cardinality { min_ms: i64::MAX, max_ms: i64::MIN, ..Cardinality::default() };
    for partial in partials {
        let PartialBody::Cardinality(counts) = partial.body else { return Err(mismatch("cardinality")) };
        sum.series += counts.series;
        sum.label_pairs += counts.label_pairs;
        if counts.series > 0 {
            sum.min_ms = sum.min_ms.min(counts.min_ms);
            sum.max_ms = sum.max_ms.max(counts.max_ms);
        }
        sum.by_metric.extend(counts.by_metric);
        sum.values_by_label.extend(counts.values_by_label);
        sum.bytes_by_label.extend(counts.bytes_by_label);
        sum.by_pair.extend(counts.by_pair);
    }
    for list in [&mut sum.by_metric, &mut sum.values_by_label, &mut sum.bytes_by_label, &mut sum.by_pair] {
        *list = greatest(std::mem::take(list), top);
    }
    Ok(sum)
}

fn greatest(list: Vec<(String, u64)>, top: usize) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (name, count) in list {
        *sums.entry(name).or_default() += count;
    }
    let mut list: Vec<_> = sums.into_iter().collect();
    // Stable: equal counts stay in the order of their names.
    list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    list.truncate(top);
    list
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partial(names: &[&str], truncated: bool) -> Partial {
        let body = PartialBody::Names(names.iter().map(|name| (*name).to_owned()).collect());
        Partial { truncated, ..Partial::of(body) }
    }

    #[test]
    fn names_are_united_and_a_cut_is_told() {
        let united = names(vec![partial(&["b", "c"], false), partial(&["a", "b"], false)], 0).unwrap();
        assert_eq!(united, Cut { items: vec!["a".into(), "b".into(), "c".into()], truncated: false });
        assert!(names(vec![partial(&["a", "b"], false)], 1).unwrap().truncated);
        assert!(names(vec![partial(&["a"], true)], 1).unwrap().truncated);
        assert!(series(vec![partial(&["a"], false)], 0).is_err());
    }

    #[test]
    fn counts_add_up_by_name() {
        let of = |list: &[(&str, u64)]| {
            let by_metric = list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            Partial::of(PartialBody::Cardinality(Cardinality {
                series: 1,
                by_metric,
                ..Cardinality::default()
            }))
        };
        let sum = cardinality(vec![of(&[("a", 2), ("b", 1)]), of(&[("b", 3), ("c", 1)])], 2).unwrap();
        assert_eq!(sum.by_metric, [("b".to_owned(), 4), ("a".to_owned(), 2)]);
        assert_eq!(sum.series, 2);
    }

    proptest! {
        #[test]
        fn the_order_of_partials_does_not_matter(
            lists in proptest::collection::vec(proptest::collection::vec("[a-d]{1,2}", 0..6), 0..5),
            limit in 0u64..6,
        ) {
            let partials: Vec<_> = lists.iter().map(|list| Partial::of(PartialBody::Names(list.clone()))).collect();
            let mut reversed = partials.clone();
            reversed.reverse();
            prop_assert_eq!(names(partials, limit).unwrap(), names(reversed, limit).unwrap());
        }
    }
}
