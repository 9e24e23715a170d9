//! Smaller questions and smaller data sets that may still show a difference.

use tricord_promql::ast::{Duration, Expr, ExprKind, Grouping, Matching, ValueType, VectorSelector};

use super::data::{DataSet, Series};
use super::grammar::number;

/// Expressions that are one step simpler, the boldest steps first. Some do not parse.
pub(super) fn simpler(expr: &Expr) -> Vec<Expr> {
    let mut all = Vec::new();
    // A part instead of the whole.
    expr.walk(&mut |part| {
        if !std::ptr::eq(part, expr) && part.value_type() == expr.value_type() {
            all.push(part.clone());
        }
    });
    if expr.value_type() == ValueType::Scalar && !matches!(expr.kind, ExprKind::Number(_)) {
        all.push(number(1.0));
    }
    all.extend(plainer(expr));
    for at in 0..expr.children().len() {
        for child in simpler(expr.children()[at]) {
            let mut whole = expr.clone();
            *whole.children_mut()[at] = child;
            all.push(whole);
        }
    }
    all
}

/// The same node with one modifier, matcher or label less.
fn plainer(expr: &Expr) -> Vec<Expr> {
    let mut all = Vec::new();
    let mut push = |kind: ExprKind| all.push(Expr { pos: expr.pos, kind });
    match &expr.kind {
        ExprKind::VectorSelector(selector) => {
            plainer_selectors(selector).into_iter().for_each(|s| push(ExprKind::VectorSelector(s)));
        }
        ExprKind::MatrixSelector(matrix) => {
            for selector in plainer_selectors(&matrix.selector) {
                push(ExprKind::MatrixSelector(tricord_promql::ast::MatrixSelector {
                    selector,
                    range: matrix.range.clone(),
                }));
            }
        }
        ExprKind::Subquery(subquery) => {
            let mut without = subquery.clone();
            (without.offset, without.at) = (Duration::Constant(0), None);
            if without != *subquery {
                push(ExprKind::Subquery(without));
            }
        }
        ExprKind::Aggregate(aggregate) => {
            for grouping in plainer_groupings(&aggregate.grouping) {
                let mut plain = aggregate.clone();
                plain.grouping = grouping;
                push(ExprKind::Aggregate(plain));
            }
        }
        ExprKind::Binary(binary) => {
            for matching in binary.matching.iter().flat_map(plainer_matchings) {
                let mut plain = binary.clone();
                plain.matching = Some(matching);
                push(ExprKind::Binary(plain));
            }
        }
        ExprKind::Number(literal) if literal.value != 0.0 && literal.value != 1.0 => {
            push(number(0.0).kind);
            push(number(1.0).kind);
        }
        _ => {}
    }
    all
}

fn plainer_selectors(selector: &VectorSelector) -> Vec<VectorSelector> {
    let mut all = Vec::new();
    if selector.offset != Duration::Constant(0) {
        all.push(VectorSelector { offset: Duration::Constant(0), ..selector.clone() });
    }
    if selector.at.is_some() {
        all.push(VectorSelector { at: None, ..selector.clone() });
    }
    for at in 0..selector.matchers.len() {
        if selector.matchers[at].name != "__name__" {
            let mut plain = selector.clone();
            plain.matchers.remove(at);
            all.push(plain);
        }
    }
    all
}

fn plainer_groupings(grouping: &Grouping) -> Vec<Grouping> {
    let without = |at: usize| {
        let mut plain = grouping.clone();
        plain.labels.remove(at);
        plain
    };
    (0..grouping.labels.len()).map(without).collect()
}

fn plainer_matchings(matching: &Matching) -> Vec<Matching> {
    let mut all = Vec::new();
    for at in 0..matching.labels.len() {
        let mut plain = matching.clone();
        plain.labels.remove(at);
        all.push(plain);
    }
    for at in 0..matching.include.len() {
        let mut plain = matching.clone();
        plain.include.remove(at);
        all.push(plain);
    }
    all
}

/// Data sets with a part left out: `parts` parts in all, first of the series, then of each series' samples.
pub(super) fn smaller(data: &DataSet, parts: usize) -> Vec<DataSet> {
    let mut all = Vec::new();
    if data.0.len() > 1 {
        for kept in without_parts(&data.0, parts) {
            all.push(DataSet(kept));
        }
    }
    for (at, series) in data.0.iter().enumerate().filter(|_| data.0.len() <= 4) {
        let fewer = |floats, histograms| Series { labels: series.labels.clone(), floats, histograms };
        let floats =
            without_parts(&series.floats, parts).into_iter().map(|f| fewer(f, series.histograms.clone()));
        let histograms =
            without_parts(&series.histograms, parts).into_iter().map(|h| fewer(series.floats.clone(), h));
        for less in floats.chain(histograms) {
            let mut whole = data.clone();
            whole.0[at] = less;
            // A series without samples is none.
            whole.0.retain(|series| series.floats.len() + series.histograms.len() > 0);
            all.push(whole);
        }
    }
    all
}

fn without_parts<T: Clone>(list: &[T], parts: usize) -> Vec<Vec<T>> {
    if list.is_empty() {
        return Vec::new();
    }
    let size = list.len().div_ceil(parts);
    let without = |from: usize| {
        let until = (from + size).min(list.len());
        list[..from].iter().chain(&list[until..]).cloned().collect()
    };
    (0..list.len()).step_by(size).map(without).collect()
}
