//! Putting the samples of one series together from several places, in the order of the log: of two for one time the
//! first stays.

use std::sync::Arc;

use tricord_model::Points;

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
    for column in columns {
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
    all
}

/// Cuts a column to `[from_ms, until_ms]`.
pub(crate) fn clip(points: Points, from_ms: i64, until_ms: i64) -> Points {
    let from = points.t_ms.partition_point(|t_ms| *t_ms < from_ms);
    let to = points.t_ms.partition_point(|t_ms| *t_ms <= until_ms).max(from);
    if from == 0 && to == points.len() {
        return points;
    }
    let places = points.histograms.iter().filter(|(at, _)| (from..to).contains(&(*at as usize)));
    Points {
        t_ms: points.t_ms[from..to].to_vec(),
        floats: points.floats[from..to].to_vec(),
        histograms: places.map(|(at, histogram)| (at - from as u32, Arc::clone(histogram))).collect(),
        start_ms: points.start_ms.get(from..to).map(<[i64]>::to_vec).unwrap_or_default(),
    }
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
    fn clipping_keeps_both_ends() {
        assert_eq!(clip(points(&[(1, 1.0), (2, 2.0), (3, 3.0)]), 2, 3), points(&[(2, 2.0), (3, 3.0)]));
    }
}
