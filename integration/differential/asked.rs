//! A question with both answers, and what may be asked about their difference.

use std::collections::{BTreeMap, BTreeSet};

use tricord_promql::ast::{BinaryOp, Call, Expr, ExprKind};
use tricord_promql::functions::Function;

use super::compare::{Answer, Point, close};
use super::sides::When;

/// A question and what both sides say to it.
pub(super) struct Asked<'a> {
    pub(super) query: &'a str,
    /// The query as a tree, where Tricord's parser reads it.
    pub(super) expr: Option<&'a Expr>,
    pub(super) when: When,
    pub(super) ours: &'a Answer,
    pub(super) theirs: &'a Answer,
}

/// What both sides have at one time of one series, where it is not the same.
pub(super) struct Mismatch<'a> {
    pub(super) ours: Option<&'a Point>,
    pub(super) theirs: Option<&'a Point>,
}

impl Mismatch<'_> {
    /// Both values, where both are floats.
    pub(super) fn floats(&self) -> Option<(f64, f64)> {
        match (self.ours, self.theirs) {
            (Some(Point::Float(ours)), Some(Point::Float(theirs))) => Some((*ours, *theirs)),
            _ => None,
        }
    }

    /// Whether one of them has a native histogram, or Prometheus a float where Tricord has nothing.
    pub(super) fn is_about_native(&self) -> bool {
        !matches!((self.ours, self.theirs), (Some(Point::Float(_)), None | Some(Point::Float(_))))
    }

    /// Whether Prometheus has a float where Tricord has none.
    pub(super) fn is_their_float(&self) -> bool {
        matches!(self.theirs, Some(Point::Float(_))) && !matches!(self.ours, Some(Point::Float(_)))
    }
}

type Points<'a> = BTreeMap<(&'a str, i64), &'a Point>;

impl Asked<'_> {
    pub(super) fn any(&self, wanted: impl Fn(&ExprKind) -> bool) -> bool {
        self.count(wanted) > 0
    }

    /// How many nodes of the query are of that kind.
    pub(super) fn count(&self, wanted: impl Fn(&ExprKind) -> bool) -> usize {
        let mut found = 0;
        if let Some(expr) = self.expr {
            expr.walk(&mut |part| found += usize::from(wanted(&part.kind)));
        }
        found
    }

    /// Whether what the query does at last is of that kind.
    pub(super) fn ends_with(&self, wanted: impl Fn(&ExprKind) -> bool) -> bool {
        self.expr.is_some_and(|expr| wanted(&expr.without_parens().kind))
    }

    pub(super) fn has_operator(&self, op: BinaryOp) -> bool {
        self.any(|kind| matches!(kind, ExprKind::Binary(binary) if binary.op == op))
    }

    /// All differences in points, where both sides answer with series.
    fn mismatches(&self) -> Option<Vec<Mismatch<'_>>> {
        let (ours, theirs) = (points(self.ours)?, points(self.theirs)?);
        let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let pairs = keys.into_iter().map(|key| (ours.get(key).copied(), theirs.get(key).copied()));
        let differ = |(ours, theirs): &(Option<&Point>, Option<&Point>)| match (ours, theirs) {
            (Some(Point::Float(ours)), Some(Point::Float(theirs))) => !close(*ours, *theirs),
            _ => true,
        };
        Some(pairs.filter(differ).map(|(ours, theirs)| Mismatch { ours, theirs }).collect())
    }

    /// Whether both answer with series, and every difference in their points is of that kind.
    pub(super) fn differs_only(&self, kind: impl Fn(&Mismatch<'_>) -> bool) -> bool {
        self.mismatches().is_some_and(|all| all.iter().all(kind))
    }

    /// Whether Tricord answers without any series.
    pub(super) fn has_no_series(&self) -> bool {
        matches!(self.ours, Answer::Series(_, series) if series.is_empty())
    }

    /// Whether the answers are the same but for metric names.
    pub(super) fn is_same_but_for_names(&self) -> bool {
        let nameless = |answer: &Answer| {
            let Answer::Series(_, series) = answer else { return None };
            let points = |(labels, points): &(String, Vec<(i64, Point)>)| {
                let labels = without_name(labels);
                points
                    .iter()
                    .map(|(t_ms, point)| ((labels.clone(), *t_ms), point.clone()))
                    .collect::<Vec<_>>()
            };
            Some(series.iter().flat_map(points).collect::<Vec<_>>())
        };
        let (Some(mut ours), Some(mut theirs)) = (nameless(self.ours), nameless(self.theirs)) else {
            return false;
        };
        let by_key = |a: &((String, i64), Point), b: &((String, i64), Point)| {
            a.0.cmp(&b.0).then_with(|| shown(&a.1).total_cmp(&shown(&b.1)))
        };
        ours.sort_by(by_key);
        theirs.sort_by(by_key);
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| a.0 == b.0 && alike(&a.1, &b.1))
    }

    /// Whether the answers hold the same values at each time, whatever series they belong to.
    pub(super) fn is_same_but_for_labels(&self) -> bool {
        let values = |answer: &Answer| {
            let Answer::Series(_, series) = answer else { return None };
            let mut all: Vec<(i64, Point)> = series.iter().flat_map(|(_, points)| points.clone()).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| shown(&a.1).total_cmp(&shown(&b.1))));
            Some(all)
        };
        let (Some(ours), Some(theirs)) = (values(self.ours), values(self.theirs)) else { return false };
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| a.0 == b.0 && alike(&a.1, &b.1))
    }

    /// Whether both refuse, with texts that hold one of these each.
    pub(super) fn both_refuse(&self, ours: &[&str], theirs: &[&str]) -> bool {
        self.we_refuse(ours) && self.they_refuse(theirs)
    }

    /// Whether Tricord refuses the query, with a text that holds one of these.
    pub(super) fn we_refuse(&self, texts: &[&str]) -> bool {
        refuses(self.ours, texts)
    }

    /// Whether Prometheus refuses the query, with a text that holds one of these.
    pub(super) fn they_refuse(&self, texts: &[&str]) -> bool {
        refuses(self.theirs, texts)
    }

    /// Whether Tricord reads the query, or reads it at least as far as Prometheus: so it is where a grammar has grown.
    pub(super) fn is_read_further(&self) -> bool {
        match (self.ours, self.theirs) {
            (Answer::Refused(_, ours_text), Answer::Refused(_, theirs)) => {
                match (place(ours_text), place(theirs)) {
                    (Some(at), Some(theirs)) => at >= theirs || is_of_types(ours_text),
                    // What is refused without a place is refused while it is evaluated.
                    (None, Some(_)) => true,
                    _ => false,
                }
            }
            (_, theirs) => matches!(theirs, Answer::Refused(..)),
        }
    }
}

fn refuses(answer: &Answer, texts: &[&str]) -> bool {
    matches!(answer, Answer::Refused(_, found) if texts.iter().any(|text| found.contains(text)))
}

/// Whether a query was refused by what it means: so it was read further than where the error is said to be.
fn is_of_types(error: &str) -> bool {
    let texts = [
        "expression must contain only",
        "expected type",
        "only allowed on expressions",
        "only allowed between",
        "not allowed in binary scalar expression",
        "must be preceded by",
        // A function is looked for when its arguments have been read.
        "unknown function with name",
    ];
    texts.iter().any(|text| error.contains(text))
}

/// Line and column of a syntax error.
fn place(error: &str) -> Option<(usize, usize)> {
    let before = &error[..error.find(": parse error")?];
    let (line, column) = before.rsplit_once(' ').map_or(before, |(_, place)| place).split_once(':')?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

fn points(answer: &Answer) -> Option<Points<'_>> {
    let Answer::Series(_, series) = answer else { return None };
    Some(
        series
            .iter()
            .flat_map(|(labels, points)| {
                points.iter().map(move |(t_ms, point)| ((labels.as_str(), *t_ms), point))
            })
            .collect(),
    )
}

/// The text of labels without the name, which comes first.
fn without_name(labels: &str) -> String {
    let name = "\"__name__\": String(\"";
    let Some((before, rest)) = labels.split_once(name) else { return labels.to_owned() };
    let rest = rest.split_once("\")").map_or("", |(_, rest)| rest);
    format!("{before}{}", rest.strip_prefix(", ").unwrap_or(rest))
}

/// A number to sort points by.
fn shown(point: &Point) -> f64 {
    if let Point::Float(value) = point { *value } else { f64::NEG_INFINITY }
}

fn alike(a: &Point, b: &Point) -> bool {
    match (a, b) {
        (Point::Float(a), Point::Float(b)) => close(*a, *b),
        _ => a == b,
    }
}

/// Whether an expression may yield native histograms, as Prometheus 2.42 evaluates it.
pub(super) fn may_be_native(expr: &Expr) -> bool {
    use Function as F;
    match &expr.kind {
        ExprKind::VectorSelector(selector) => selects_native(&selector.matchers),
        ExprKind::MatrixSelector(matrix) => selects_native(&matrix.selector.matchers),
        ExprKind::Call(Call { func, args }) => {
            let keeps = matches!(
                func,
                F::Rate
                    | F::Increase
                    | F::Delta
                    | F::LastOverTime
                    | F::SumOverTime
                    | F::AvgOverTime
                    | F::Irate
                    | F::Idelta
                    | F::LabelReplace
                    | F::LabelJoin
                    | F::Sort
                    | F::SortDesc
            );
            keeps && args.iter().any(may_be_native)
        }
        ExprKind::Aggregate(aggregate) => may_be_native(&aggregate.expr),
        _ => expr.children().into_iter().any(may_be_native),
    }
}

fn selects_native(matchers: &[tricord_model::Matcher]) -> bool {
    matchers.iter().filter(|m| m.name == "__name__").all(|m| m.matches("n0"))
}
