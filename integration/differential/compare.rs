//! What an answer holds, and whether two answers are the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tricord_promql::ast::Expr;
use tricord_promql::functions::Function;

/// Sums may be added up in another order, and sine and its kin are not rounded alike everywhere.
const TOLERANCE: f64 = 1e-9;

/// What may be left where values of some thousands, in eighths, cancel each other.
const REST: f64 = 1e-11;

/// A float or a native histogram at a time in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Point {
    Float(f64),
    Histogram(Value),
}

type Points = Vec<(i64, Point)>;

/// What one side says to a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// The type of the result, and its series in the order of the answer.
    Series(String, Vec<(String, Points)>),
    Text(String),
    /// The type of the error and its text.
    Refused(String, String),
}

impl Answer {
    /// Reads an API answer.
    pub(super) fn read(answer: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if answer["status"] == "error" {
            return Ok(Self::Refused(text(&answer["errorType"]), text(&answer["error"])));
        }
        let (kind, result) = (text(&answer["data"]["resultType"]), &answer["data"]["result"]);
        match kind.as_str() {
            "string" => Ok(Self::Text(text(&result[1]))),
            "scalar" => Ok(Self::Series(kind, vec![(String::new(), vec![float(result)?])])),
            "vector" | "matrix" => {
                let list = result.as_array().with_context(|| format!("no list: {answer}"))?;
                Ok(Self::Series(kind, list.iter().map(series).collect::<Result<_>>()?))
            }
            _ => bail!("neither data nor error: {answer}"),
        }
    }
}

fn series(one: &Value) -> Result<(String, Points)> {
    let labels: BTreeMap<String, Value> = serde_json::from_value(one["metric"].clone())?;
    let pairs = |single: &str, many: &str| {
        let many = one[many].as_array().into_iter().flatten();
        one.get(single).into_iter().chain(many).cloned().collect::<Vec<_>>()
    };
    let mut points = pairs("value", "values").iter().map(float).collect::<Result<Points>>()?;
    for pair in pairs("histogram", "histograms") {
        points.push((time(&pair)?, Point::Histogram(pair[1].clone())));
    }
    points.sort_by_key(|(t_ms, _)| *t_ms);
    Ok((format!("{labels:?}"), points))
}

fn time(pair: &Value) -> Result<i64> {
    Ok((pair[0].as_f64().with_context(|| format!("no time in {pair}"))? * 1000.0).round() as i64)
}

fn float(pair: &Value) -> Result<(i64, Point)> {
    let text = pair[1].as_str().with_context(|| format!("no value in {pair}"))?;
    Ok((time(pair)?, Point::Float(text.parse().with_context(|| text.to_owned())?)))
}

/// How the answers differ, if they do.
pub(super) fn difference(expr: Option<&Expr>, ours: &Answer, theirs: &Answer) -> Option<String> {
    match (ours, theirs) {
        (Answer::Series(our_kind, our), Answer::Series(their_kind, their)) => {
            if our_kind != their_kind {
                return Some(format!("a {our_kind} against a {their_kind}"));
            }
            let sorted = our_kind == "vector" && expr.is_some_and(is_sorted);
            different_series(our, their, sorted)
        }
        (Answer::Refused(our_kind, our), Answer::Refused(their_kind, their)) => {
            let same = our_kind == their_kind && comparable(our) == comparable(their);
            (!same).then(|| format!("{our_kind}: {our}\n  against {their_kind}: {their}"))
        }
        (Answer::Refused(_, why), _) => Some(format!("only Tricord refuses: {why}")),
        (_, Answer::Refused(_, why)) => Some(format!("only Prometheus refuses: {why}")),
        _ => (ours != theirs).then(|| format!("{ours:?} against {theirs:?}")),
    }
}

/// The part of an error's text that depends neither on the order of series nor on the API: 2.42 names the parameter for
/// instant queries only.
fn comparable(text: &str) -> &str {
    let text = text.strip_prefix("invalid parameter \"query\": ").unwrap_or(text);
    let cut = ["found duplicate series for the match group", "multiple matches for labels"];
    cut.iter().find_map(|known| text.find(known).map(|at| &text[..at + known.len()])).unwrap_or(text)
}

/// Whether the order of the result means something.
fn is_sorted(expr: &Expr) -> bool {
    match &expr.without_parens().kind {
        tricord_promql::ast::ExprKind::Call(call) => {
            matches!(call.func, Function::Sort | Function::SortDesc)
        }
        _ => false,
    }
}

fn different_series(ours: &[(String, Points)], theirs: &[(String, Points)], sorted: bool) -> Option<String> {
    if sorted {
        // Series of one value may stand in any order.
        let values = |list: &[(String, Points)]| {
            list.iter().flat_map(|(_, points)| points.clone()).collect::<Points>()
        };
        if different_points(&values(ours), &values(theirs)).is_some() {
            return Some("another order".to_owned());
        }
    }
    let by_labels = |list: &[(String, Points)]| list.iter().cloned().collect::<BTreeMap<_, _>>();
    let (our, their) = (by_labels(ours), by_labels(theirs));
    if our.len() != ours.len() {
        return Some("the same series twice".to_owned());
    }
    if let Some(extra) = our.keys().find(|labels| !their.contains_key(*labels)) {
        return Some(format!("series {extra} is only in Tricord's answer"));
    }
    if let Some(missing) = their.keys().find(|labels| !our.contains_key(*labels)) {
        return Some(format!("series {missing} is only in Prometheus' answer"));
    }
    our.iter().find_map(|(labels, points)| {
        different_points(points, &their[labels]).map(|why| format!("series {labels}: {why}"))
    })
}

fn different_points(ours: &Points, theirs: &Points) -> Option<String> {
    let times = |points: &Points| points.iter().map(|(t_ms, _)| *t_ms).collect::<Vec<_>>();
    if times(ours) != times(theirs) {
        return Some(format!("points at {:?} against {:?}", times(ours), times(theirs)));
    }
    let mut pairs = ours.iter().zip(theirs);
    let (our, their) = pairs.find(|((_, our), (_, their))| !same(our, their))?;
    Some(format!("{our:?} against {their:?}"))
}

fn same(ours: &Point, theirs: &Point) -> bool {
    match (ours, theirs) {
        (Point::Float(our), Point::Float(their)) => close(*our, *their),
        (Point::Histogram(our), Point::Histogram(their)) => close_values(our, their),
        _ => false,
    }
}

pub(super) fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= (TOLERANCE * a.abs().max(b.abs())).max(REST)
}

/// The JSON of two histograms: texts of numbers are compared as numbers.
fn close_values(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close_values(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| close_values(a, b)))
        }
        (Value::String(a), Value::String(b)) => {
            a == b || a.parse().is_ok_and(|a| b.parse().is_ok_and(|b| close(a, b)))
        }
        _ => a == b,
    }
}
