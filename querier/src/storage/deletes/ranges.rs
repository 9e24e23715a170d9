//! Ranges of time in which samples of a series are deleted.

use std::ops::Range;

use smallvec::SmallVec;

/// Ranges in milliseconds, both ends included: ascending, and with times between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(SmallVec<[(i64, i64); 2]>);

impl Ranges {
    /// What any of the ranges has.
    pub(crate) fn new(ranges: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut all: SmallVec<[(i64, i64); 2]> =
            ranges.into_iter().filter(|(from, until)| from <= until).collect();
        all.sort_unstable();
        let mut joined: SmallVec<[(i64, i64); 2]> = SmallVec::new();
        for (from, until) in all {
            match joined.last_mut() {
                Some((_, last)) if from <= last.saturating_add(1) => *last = until.max(*last),
                _ => joined.push((from, until)),
            }
        }
        Self(joined)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a time is in any of them.
    pub(crate) fn contains(&self, t_ms: i64) -> bool {
        self.0.iter().any(|(from, until)| (*from..=*until).contains(&t_ms))
    }

    /// Whether all times between two are in them, both included.
    pub(crate) fn cover(&self, from_ms: i64, until_ms: i64) -> bool {
        self.0.iter().any(|(from, until)| *from <= from_ms && until_ms <= *until)
    }

    /// The runs of ascending times that are in none of them, by place.
    pub(crate) fn kept<'a>(&'a self, t_ms: &'a [i64]) -> impl Iterator<Item = Range<usize>> + 'a {
        let gaps = self.0.iter().map(move |(from, until)| {
            (t_ms.partition_point(|t| t < from), t_ms.partition_point(|t| t <= until))
        });
        let mut at = 0;
        let runs = gaps.chain([(t_ms.len(), t_ms.len())]).map(move |(end, next)| {
            let run = at..end;
            at = next;
            run
        });
        runs.filter(|run| !run.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_what_a_set_of_times_would_be(
            list in prop::collection::vec((-20i64..20, -3i64..12), 0..6),
            mut times in prop::collection::btree_set(-25i64..35, 0..30),
            (from, len) in (-20i64..30, 0i64..10),
        ) {
            let list: Vec<(i64, i64)> = list.into_iter().map(|(from, len)| (from, from + len)).collect();
            let inside = |t: i64| list.iter().any(|(from, until)| (*from..=*until).contains(&t));
            let ranges = Ranges::new(list.iter().copied());
            prop_assert!((-30..45).all(|t| ranges.contains(t) == inside(t)));
            prop_assert_eq!(ranges.is_empty(), !(-30..45).any(inside));
            prop_assert_eq!(ranges.cover(from, from + len), (from..=from + len).all(inside));
            let all: Vec<i64> = times.iter().copied().collect();
            let kept: Vec<i64> = ranges.kept(&all).flat_map(|run| all[run].to_vec()).collect();
            times.retain(|t| !inside(*t));
            prop_assert_eq!(kept, times.into_iter().collect::<Vec<_>>());
        }
    }
}
