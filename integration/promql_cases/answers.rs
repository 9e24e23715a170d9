//! Answers of the HTTP API as values, with histograms as they are shown.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tricord_model::{FloatHistogram, Labels, Points, Sample, Value as SampleValue};
use tricord_promql::ast::ValueType;
use tricord_promql::histogram::Bucket;
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::promqltest::as_shown;
use tricord_promql::value::{ABSENT, Annotations, Column, Grid, QueryValue};

/// The value and the notes of an answer, or the text of its error.
pub(super) fn read(
    query: &str,
    text: &str,
    grid: Grid,
    instant: bool,
) -> Result<(QueryValue, Annotations), String> {
    let answer: Value = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
    if answer["status"] != "success" {
        let text = answer["error"].as_str().unwrap_or_default();
        return Err(text.strip_prefix("invalid parameter \"query\": ").unwrap_or(text).to_owned());
    }
    let value = value(query, &answer["data"], grid, instant).map_err(|error| format!("{error:#}"))?;
    let texts = |key: &str| {
        let list = answer[key].as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    Ok((value, Annotations { warnings: texts("warnings"), infos: texts("infos") }))
}

fn value(query: &str, data: &Value, grid: Grid, instant: bool) -> Result<QueryValue> {
    let result = &data["result"];
    let kind = data["resultType"].as_str().unwrap_or_default();
    match kind {
        "scalar" => Ok(QueryValue::Scalar(vec![number(&result[1])?])),
        "string" => Ok(QueryValue::String(result[1].as_str().unwrap_or_default().to_owned())),
        "vector" | "matrix" if instant && kind == "matrix" => raw(result),
        "vector" | "matrix" => {
            let list = result.as_array().with_context(|| format!("no list: {data}"))?;
            let mut columns = list.iter().map(|series| column(series, grid)).collect::<Result<Vec<_>>>()?;
            match columns.pop() {
                Some(only) if !instant && is_scalar(query) => Ok(QueryValue::Scalar(only.floats)),
                last => Ok(QueryValue::Vector(columns.into_iter().chain(last).collect())),
            }
        }
        other => bail!("result type {other:?}"),
    }
}

/// Whether the query is a scalar, which the API draws over a range as a series without labels.
fn is_scalar(query: &str) -> bool {
    parse(query, &ParserOptions::default()).is_ok_and(|expr| expr.value_type() == ValueType::Scalar)
}

/// All samples of a series, in the order of the answer.
fn samples(series: &Value) -> Result<Vec<Sample>> {
    let list = |one: &str, many: &str| {
        let of_one = series.get(one).into_iter().cloned();
        of_one.chain(series[many].as_array().into_iter().flatten().cloned()).collect::<Vec<Value>>()
    };
    let mut samples = Vec::new();
    for pair in list("value", "values") {
        samples.push(Sample::float(time(&pair)?, number(&pair[1])?));
    }
    for pair in list("histogram", "histograms") {
        let value = SampleValue::Histogram(Arc::new(histogram(&pair[1])?));
        samples.push(Sample { t_ms: time(&pair)?, start_ms: 0, value });
    }
    Ok(samples)
}

fn column(series: &Value, grid: Grid) -> Result<Column> {
    let mut floats = vec![ABSENT; grid.steps()];
    let mut histograms = Vec::new();
    for sample in samples(series)? {
        let off_grid = || format!("{} ms is off the grid", sample.t_ms);
        let step = usize::try_from((sample.t_ms - grid.start_ms) / grid.step_ms.max(1))?;
        ensure!(step < grid.steps() && grid.time(step) == sample.t_ms, off_grid());
        match sample.value {
            SampleValue::Float(value) => floats[step] = value,
            SampleValue::Histogram(histogram) => histograms.push((u32::try_from(step)?, histogram)),
        }
    }
    Ok(Column { labels: labels(&series["metric"]), drop_name: false, floats, histograms })
}

fn raw(result: &Value) -> Result<QueryValue> {
    let mut all = Vec::new();
    for series in result.as_array().into_iter().flatten() {
        let mut samples = samples(series)?;
        samples.sort_by_key(|sample| sample.t_ms);
        all.push((labels(&series["metric"]), samples.into_iter().collect::<Points>()));
    }
    Ok(QueryValue::Matrix(all))
}

fn labels(metric: &Value) -> Labels {
    let pairs = metric.as_object().into_iter().flatten();
    Labels::from_pairs(pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())))
}

/// The milliseconds of `[seconds, …]`.
fn time(pair: &Value) -> Result<i64> {
    let seconds = pair[0].as_f64().with_context(|| format!("no time in {pair}"))?;
    Ok((seconds * 1000.0).round() as i64)
}

/// A number as the API writes it: as text.
fn number(value: &Value) -> Result<f64> {
    let text = value.as_str().with_context(|| format!("no number: {value}"))?;
    text.parse().with_context(|| text.to_owned())
}

fn histogram(value: &Value) -> Result<FloatHistogram> {
    let bucket = |bucket: &Value| -> Result<Bucket> {
        let rule = bucket[0].as_u64().with_context(|| format!("no rule of borders in {bucket}"))?;
        ensure!(rule < 4, "unknown rule of borders {rule}");
        Ok(Bucket {
            lower: number(&bucket[1])?,
            upper: number(&bucket[2])?,
            lower_inclusive: rule == 1 || rule == 3,
            upper_inclusive: rule == 0 || rule == 3,
            count: number(&bucket[3])?,
        })
    };
    let buckets =
        value["buckets"].as_array().into_iter().flatten().map(bucket).collect::<Result<Vec<_>>>()?;
    Ok(as_shown(number(&value["count"])?, number(&value["sum"])?, &buckets))
}
