//! Whether an answer is what a script expects, by upstream's rules: floats within a relative 1e-6.

use tricord_model::{FloatHistogram, Labels, Points, Value};

use super::Answer;
use super::script::{Eval, Expect};
use super::series::SequenceValue;
use crate::histogram::{self, sparse, test_expression};
use crate::kernels::quantile::almost_equal;
use crate::value::{Annotations, Column, Grid, QueryValue, is_absent};

const TOLERANCE: f64 = 1e-6;

/// Judges whether the query had to fail; gives the answer back where it had to succeed and did.
pub(super) fn failure(eval: &Eval, answer: Answer) -> Result<Option<(QueryValue, Annotations)>, String> {
    match (answer, eval.fail.first()) {
        (Ok(_), Some(_)) => Err("expected an error, got none".to_owned()),
        (Ok(answer), None) => Ok(Some(answer)),
        (Err(error), None) => Err(format!("failed: {error}")),
        (Err(error), Some(expected)) if expected.matches(&error) => Ok(None),
        (Err(error), Some(expected)) => Err(format!("expected the error {expected:?}, got {error:?}")),
    }
}

/// Judges warnings and infos: each expected one is there, and each that is there matches an expected one.
pub(super) fn notes(eval: &Eval, notes: &Annotations) -> Result<(), String> {
    for (kind, expected, found, none) in [
        ("warning", &eval.warn, &notes.warnings, eval.no_warn),
        ("info", &eval.info, &notes.infos, eval.no_info),
    ] {
        if none && !found.is_empty() {
            return Err(format!("unexpected {kind}: {found:?}"));
        }
        if expected.is_empty() {
            continue;
        }
        let missing = expected.iter().find(|expected| !found.iter().any(|text| expected.matches(text)));
        if let Some(missing) = missing {
            return Err(format!("expected the {kind} {missing:?}, found {found:?}"));
        }
        let matched = |text: &String| expected.iter().any(|expected: &Expect| expected.matches(text));
        if let Some(text) = found.iter().find(|text| !matched(text)) {
            return Err(format!("unexpected {kind} {text:?}"));
        }
    }
    Ok(())
}

/// Judges a whole answer.
pub(super) fn value(eval: &Eval, value: &QueryValue, grid: Grid, instant: bool) -> Result<(), String> {
    match value {
        QueryValue::String(text) => match &eval.string {
            Some(expected) if expected == text => Ok(()),
            expected => Err(format!("expected the text {expected:?}, got {text:?}")),
        },
        QueryValue::Matrix(series) => {
            let series: Vec<_> = series.iter().map(|(labels, points)| (labels, points.clone())).collect();
            matrix(eval, &series)
        }
        QueryValue::Scalar(values) if instant => scalar(eval, values.first().copied()),
        QueryValue::Vector(_) if instant => step(eval, value, 0),
        QueryValue::Scalar(values) => {
            let labels = Labels::empty();
            let points =
                (0..values.len()).map(|i| tricord_model::Sample::float(grid.time(i), values[i])).collect();
            matrix(eval, &[(&labels, points)])
        }
        QueryValue::Vector(columns) => {
            let series: Vec<_> =
                columns.iter().map(|column| (&column.labels, points(column, grid))).collect();
            matrix(eval, &series)
        }
    }
}

fn points(column: &Column, grid: Grid) -> Points {
    let sample = |step: usize| {
        let value = cell(column, step)?;
        Some(tricord_model::Sample { t_ms: grid.time(step), start_ms: 0, value })
    };
    (0..column.floats.len()).filter_map(sample).collect()
}

fn cell(column: &Column, step: usize) -> Option<Value> {
    match column.histogram_at(step) {
        Some(histogram) => Some(Value::Histogram(histogram.clone())),
        None => column.floats.get(step).filter(|value| !is_absent(**value)).map(|value| Value::Float(*value)),
    }
}

fn scalar(eval: &Eval, value: Option<f64>) -> Result<(), String> {
    match (eval.scalar, value) {
        (Some(expected), Some(value)) if almost_equal(expected, value, TOLERANCE) => Ok(()),
        (expected, value) => Err(format!("expected the scalar {expected:?}, got {value:?}")),
    }
}

/// Judges the values at one step of an answer as those of an instant query.
pub(super) fn step(eval: &Eval, value: &QueryValue, step: usize) -> Result<(), String> {
    let columns = match value {
        QueryValue::Vector(columns) => columns,
        QueryValue::Scalar(values) => return scalar(eval, values.get(step).copied()),
        other => return Err(format!("expected a vector or a scalar, got {other:?}")),
    };
    if eval.scalar.is_some() {
        return Err(format!("expected a scalar, got a vector of {}", columns.len()));
    }
    let present: Vec<(&Labels, Value)> =
        columns.iter().filter_map(|column| Some((&column.labels, cell(column, step)?))).collect();
    for (position, (labels, value)) in present.iter().enumerate() {
        let found = eval.series.iter().position(|(expected, _)| expected == *labels);
        let Some(at) = found else { return Err(format!("unexpected series {labels} with {}", show(value))) };
        if eval.is_ordered() && at != position {
            return Err(format!("expected {labels} at position {at}, found it at {position}"));
        }
        let expected = eval.series[at].1.first();
        if !expected.is_some_and(|expected| matches_value(expected, value)) {
            return Err(format!("expected {} for {labels}, got {}", show_expected(expected), show(value)));
        }
    }
    match eval.series.iter().find(|(labels, _)| !present.iter().any(|(found, _)| found == &labels)) {
        Some((labels, _)) => Err(format!("expected series {labels} not found")),
        None => Ok(()),
    }
}

fn matrix(eval: &Eval, series: &[(&Labels, Points)]) -> Result<(), String> {
    if eval.is_ordered() || eval.scalar.is_some() {
        return Err("expected a vector or a scalar, got a matrix".to_owned());
    }
    if let Some(pair) = series.windows(2).find(|pair| pair[0].0 > pair[1].0) {
        return Err(format!("series are not sorted: {} comes after {}", pair[1].0, pair[0].0));
    }
    for (labels, points) in series {
        let found = eval.series.iter().find(|(expected, _)| expected == *labels);
        let Some((_, expected)) = found else {
            return Err(format!("unexpected series {labels} with {}", show_points(points)));
        };
        if expected.len() > eval.grid.steps() {
            return Err(format!("{} points are expected for {labels}, more than steps", expected.len()));
        }
        let wanted: Vec<_> = expected
            .iter()
            .enumerate()
            .filter(|(_, value)| value.value.is_some())
            .map(|(step, value)| (eval.grid.time(step), value))
            .collect();
        let fits = wanted.len() == points.len()
            && wanted.iter().zip(points.iter()).all(|((t_ms, expected), sample)| {
                *t_ms == sample.t_ms && matches_value(expected, &sample.value)
            });
        if !fits {
            let wanted =
                wanted.iter().map(|(t, v)| format!("{}@{t}", show_expected(Some(v)))).collect::<Vec<_>>();
            return Err(format!("expected {} for {labels}, got {}", wanted.join(" "), show_points(points)));
        }
    }
    match eval.series.iter().find(|(labels, _)| !series.iter().any(|(found, _)| found == &labels)) {
        Some((labels, _)) => Err(format!("expected series {labels} not found")),
        None => Ok(()),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Float(value) => value.to_string(),
        Value::Histogram(histogram) => test_expression(histogram),
    }
}

fn show_expected(expected: Option<&SequenceValue>) -> String {
    expected.and_then(|expected| expected.value.as_ref()).map_or_else(|| "nothing".to_owned(), show)
}

fn show_points(points: &Points) -> String {
    points
        .iter()
        .map(|sample| format!("{}@{}", show(&sample.value), sample.t_ms))
        .collect::<Vec<_>>()
        .join(" ")
}

fn matches_value(expected: &SequenceValue, value: &Value) -> bool {
    match (&expected.value, value) {
        (Some(Value::Float(expected)), Value::Float(value)) => almost_equal(*expected, *value, TOLERANCE),
        (Some(Value::Histogram(wanted)), Value::Histogram(value)) => {
            matches_histogram(wanted, value, expected.hint_is_set)
        }
        _ => false,
    }
}

fn matches_histogram(expected: &FloatHistogram, value: &FloatHistogram, with_hint: bool) -> bool {
    let compacted = |histogram: &FloatHistogram| {
        let mut histogram = histogram.clone();
        histogram::compact(&mut histogram);
        histogram
    };
    let (a, b) = (compacted(expected), compacted(value));
    let close = |a: f64, b: f64| almost_equal(a, b, TOLERANCE);
    let side = |spans: &[_], buckets: &[f64], other_spans: &[_], other_buckets: &[f64]| {
        let (a, b) = (sparse(spans, buckets), sparse(other_spans, other_buckets));
        a.len() == b.len() && a.iter().zip(&b).all(|((i, x), (j, y))| i == j && close(*x, *y))
    };
    a.schema == b.schema
        && close(a.count, b.count)
        && close(a.sum, b.sum)
        && a.zero_threshold == b.zero_threshold
        && close(a.zero_count, b.zero_count)
        && (!a.uses_custom_buckets() || a.custom_values == b.custom_values)
        && side(&a.positive_spans, &a.positive_buckets, &b.positive_spans, &b.positive_buckets)
        && side(&a.negative_spans, &a.negative_buckets, &b.negative_spans, &b.negative_buckets)
        && (!with_hint || a.counter_reset_hint == b.counter_reset_hint)
}
