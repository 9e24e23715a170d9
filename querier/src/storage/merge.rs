//! Putting the samples of one series together from several places, in the order of the log: of two for one time the
//! first stays.

use std::sync::Arc;

use tricord_model::Points;

/// The samples of one series as they are gathered, in the order of the log: what ascends is joined at once.
#[derive(Default)]
pub(crate) struct Pieces {
    joined: Points,
    /// Pieces that came after one that they overlap or precede.
    others: Vec<Points>,
}

impl Pieces {
    /// Makes room for so many more samples; for the first ones exactly that.
    pub(crate) fn make_room(&mut self, samples: usize) {
        let Points { t_ms, floats, .. } = &mut self.joined;
        if t_ms.is_empty() {
            t_ms.reserve_exact(samples);
            floats.reserve_exact(samples);
        } else {
            t_ms.reserve(samples);
            floats.reserve(samples);
        }
    }

    /// Where samples go of which the earliest has this time; they must be more than none, and ascend.
    pub(crate) fn place(&mut self, first_ms: i64) -> &mut Points {
        let ascends = self.others.is_empty() && self.joined.t_ms.last().is_none_or(|last| *last < first_ms);
        if ascends {
            return &mut self.joined;
        }
        self.others.push(Points::default());
        self.others.last_mut().unwrap_or(&mut self.joined)
    }

    /// Adds a piece.
    pub(crate) fn push(&mut self, piece: Points) {
        let Some(first_ms) = piece.t_ms.first() else { return };
        let place = self.place(*first_ms);
        if place.is_empty() { *place = piece } else { append(place, &piece) }
    }

    /// All samples, each time once.
    pub(crate) fn finish(self) -> Points {
        if self.others.is_empty() {
            return self.joined;
        }
        let mut columns = self.others;
        columns.insert(0, self.joined);
        merge(columns).0
    }
}

/// Merges columns; earlier ones win. Answers also how many samples were dropped as duplicates.
pub(crate) fn merge(mut columns: Vec<Points>) -> (Points, u64) {
    columns.retain(|column| !column.is_empty());
    if columns.len() <= 1 {
        return (columns.pop().unwrap_or_default(), 0);
    }
    columns_in_order(&mut columns);
    let ascends = columns.windows(2).all(|pair| pair[0].t_ms.last() < pair[1].t_ms.first());
    if ascends {
        return (concatenate(columns), 0);
    }
    let total: usize = columns.iter().map(Points::len).sum();
    let mut order: Vec<(i64, u32, u32)> = Vec::with_capacity(total);
    for (source, column) in columns.iter().enumerate() {
        order.extend(column.t_ms.iter().enumerate().map(|(at, t_ms)| (*t_ms, source as u32, at as u32)));
    }
    order.sort_unstable();
    order.dedup_by_key(|(t_ms, ..)| *t_ms);
    let duplicates = (total - order.len()) as u64;
    let samples = order.into_iter().filter_map(|(_, source, at)| columns[source as usize].get(at as usize));
    (samples.collect(), duplicates)
}

/// Columns that do not overlap at all are put in order of time, so that they can be joined.
fn columns_in_order(columns: &mut [Points]) {
    let mut ranges: Vec<_> = columns.iter().map(|column| (column.t_ms.first(), column.t_ms.last())).collect();
    ranges.sort_unstable();
    if ranges.windows(2).all(|pair| pair[0].1 < pair[1].0) {
        columns.sort_by_key(|column| column.t_ms.first().copied());
    }
}

fn concatenate(columns: Vec<Points>) -> Points {
    let mut columns = columns.into_iter();
    let mut all = columns.next().unwrap_or_default();
    columns.for_each(|column| append(&mut all, &column));
    all
}

/// Drops the samples before a time.
pub(crate) fn drop_before(points: &mut Points, from_ms: i64) {
    let count = points.t_ms.partition_point(|t_ms| *t_ms < from_ms);
    points.t_ms.drain(..count);
    points.floats.drain(..count);
    points.histograms.retain(|(place, _)| *place as usize >= count);
    points.histograms.iter_mut().for_each(|(place, _)| *place -= count as u32);
    points.start_ms.drain(..count.min(points.start_ms.len()));
}

/// Appends a column of later samples.
fn append(all: &mut Points, column: &Points) {
    let at = all.len();
    if !column.start_ms.is_empty() || !all.start_ms.is_empty() {
        all.start_ms.resize(at, 0);
        all.start_ms.extend_from_slice(&column.start_ms);
        all.start_ms.resize(at + column.len(), 0);
    }
    all.t_ms.extend_from_slice(&column.t_ms);
    all.floats.extend_from_slice(&column.floats);
    all.histograms.extend(column.histograms.iter().map(|(place, h)| (place + at as u32, Arc::clone(h))));
}

#[cfg(test)]
mod tests {
    use tricord_model::Sample;

    use super::*;

    fn points(pairs: &[(i64, f64)]) -> Points {
        pairs.iter().map(|(t, v)| Sample::float(*t, *v)).collect()
    }

    #[test]
    fn earlier_columns_win() {
        let (merged, duplicates) =
            merge(vec![points(&[(2, 2.0), (4, 4.0)]), points(&[(1, 1.0), (2, 9.0), (5, 5.0)])]);
        assert_eq!((merged, duplicates), (points(&[(1, 1.0), (2, 2.0), (4, 4.0), (5, 5.0)]), 1));
    }

    #[test]
    fn columns_that_do_not_overlap_are_joined_in_order_of_time() {
        let late = Sample { t_ms: 9, start_ms: 7, ..Sample::float(9, 9.0) };
        let (merged, duplicates) = merge(vec![[late.clone()].into_iter().collect(), points(&[(1, 1.0)])]);
        assert_eq!(merged.iter().collect::<Vec<_>>(), [Sample::float(1, 1.0), late]);
        assert_eq!((merged.start_ms, duplicates), (vec![0, 7], 0));
    }

    #[test]
    fn pieces_are_joined_where_they_ascend_and_merged_where_they_do_not() {
        let lists: [&[(i64, f64)]; 4] =
            [&[(1, 1.0), (2, 2.0)], &[(5, 5.0)], &[(2, 9.0), (3, 3.0)], &[(6, 6.0)]];
        for count in 0..=lists.len() {
            let mut pieces = Pieces::default();
            lists[..count].iter().for_each(|list| pieces.push(points(list)));
            let expected = merge(lists[..count].iter().map(|list| points(list)).collect()).0;
            assert_eq!(pieces.finish(), expected);
        }
    }
}
