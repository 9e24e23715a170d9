//! Aggregations that choose series: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;

use tricord_model::Labels;

use crate::ast::AggregateOp;
use crate::value::{ABSENT, Column, is_absent};

/// Higher values first for `topk`, lower first for `bottomk`; NaN last.
fn by_rank(op: AggregateOp, a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if op == AggregateOp::Topk { order.reverse() } else { order }
        }
    }
}

/// Where in 0..1 a label set lies, for `limit_ratio`.
fn ratio_position(labels: &Labels) -> f64 {
    ((labels.fingerprint() >> 64) as u64) as f64 / u64::MAX as f64
}

fn within_ratio(ratio: f64, position: f64) -> bool {
    let ratio = ratio.clamp(-1.0, 1.0);
    (ratio >= 0.0 && position < ratio) || (ratio < 0.0 && position >= 1.0 + ratio)
}

/// How many series a parameter asks for.
fn wanted(param: f64) -> usize {
    if param >= 1.0 { param.min(u32::MAX.into()) as usize } else { 0 }
}

/// Keeps the values of the chosen series of one group at each step, and the series that have any left, sorted by labels.
pub(crate) fn keep_ranked(op: AggregateOp, mut columns: Vec<Column>, params: &[f64]) -> Vec<Column> {
    columns.sort_by(|a, b| a.labels.cmp(&b.labels));
    if op == AggregateOp::LimitRatio {
        for column in &mut columns {
            let position = ratio_position(&column.labels);
            keep_steps(column, |step| within_ratio(params[step], position));
        }
        columns.retain(|column| !column.is_empty());
        return columns;
    }
    let mut chosen: Vec<Vec<bool>> = columns.iter().map(|column| vec![false; column.floats.len()]).collect();
    let mut candidates: Vec<(usize, f64)> = Vec::new();
    for (step, param) in params.iter().enumerate() {
        let wanted = wanted(*param);
        candidates.clear();
        for (at, column) in columns.iter().enumerate() {
            let value = column.floats[step];
            if !is_absent(value) {
                candidates.push((at, value));
            } else if op == AggregateOp::Limitk && column.histogram_at(step).is_some() {
                candidates.push((at, 0.0));
            }
        }
        if op != AggregateOp::Limitk {
            // Ties stay in the order of labels, which is that of the places.
            let order = |a: &(usize, f64), b: &(usize, f64)| by_rank(op, a.1, b.1).then(a.0.cmp(&b.0));
            if wanted > 0 && wanted < candidates.len() {
                candidates.select_nth_unstable_by(wanted - 1, order);
            }
        }
        candidates.iter().take(wanted).for_each(|(at, _)| chosen[*at][step] = true);
    }
    for (column, chosen) in columns.iter_mut().zip(&chosen) {
        keep_steps(column, |step| chosen[step]);
    }
    columns.retain(|column| !column.is_empty());
    columns
}

fn keep_steps(column: &mut Column, keep: impl Fn(usize) -> bool) {
    for (step, value) in column.floats.iter_mut().enumerate() {
        if !keep(step) {
            *value = ABSENT;
        }
    }
    column.histograms.retain(|(step, _)| keep(*step as usize));
}

/// The order of an instant `topk` or `bottomk` within a group.
pub(super) fn sort_instant(op: AggregateOp, columns: &mut [Column]) {
    let value = |column: &Column| column.floats.first().copied().unwrap_or(f64::NAN);
    columns.sort_by(|a, b| by_rank(op, value(a), value(b)).then_with(|| a.labels.cmp(&b.labels)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, floats: &[f64]) -> Column {
        let labels = Labels::from_pairs([("n", name)]);
        Column { labels, drop_name: false, floats: floats.to_vec(), histograms: vec![] }
    }

    #[test]
    fn ties_go_to_the_lesser_labels_and_nan_comes_last() {
        let columns =
            vec![column("c", &[1.0, f64::NAN]), column("b", &[1.0, 2.0]), column("a", &[0.0, f64::NAN])];
        let kept = keep_ranked(AggregateOp::Topk, columns, &[1.0, 2.0]);
        let names: Vec<_> = kept.iter().map(|column| column.labels.get("n").unwrap_or("")).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(is_absent(kept[0].floats[0]) && kept[0].floats[1].is_nan());
        assert_eq!(kept[1].floats, [1.0, 2.0]);
    }

    #[test]
    fn a_ratio_and_its_complement_share_all_series() {
        let columns: Vec<_> = (0..50).map(|i| column(&i.to_string(), &[1.0])).collect();
        let some = keep_ranked(AggregateOp::LimitRatio, columns.clone(), &[0.3]).len();
        let others = keep_ranked(AggregateOp::LimitRatio, columns, &[-0.7]).len();
        assert_eq!(some + others, 50);
        assert!((5..25).contains(&some), "{some}");
    }
}
