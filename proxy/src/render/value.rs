//! Results of queries, label sets, exemplars and metadata as JSON.

use std::io::Write as _;

use tricord_model::{Exemplar, Labels, MetricMetadata, Points, is_stale};
use tricord_promql::value::{Column, Grid, QueryValue, is_absent};

use super::histogram::write_histogram;
use super::json::{write_list, write_string};
use super::number::{write_float, write_timestamp};

/// About what a series' labels and one of its points take, for the first allocation.
const LABEL_BYTES: usize = 128;
const POINT_BYTES: usize = 24;
/// Series may be mostly empty: no more than this is reserved.
const MAX_RESERVED_BYTES: usize = 32 << 20;

/// Whether a vector is written as one value per series or as a series of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultShape {
    /// Of an instant query.
    Instant,
    /// Of a range query.
    Range,
}

/// Appends `"resultType":…,"result":…`, which stand in an object that the caller opens and closes.
pub fn write_result(out: &mut Vec<u8>, value: &QueryValue, grid: Grid, shape: ResultShape) {
    let kind = match (value, shape) {
        (QueryValue::Scalar(_) | QueryValue::Vector(_), ResultShape::Range) => "matrix",
        (QueryValue::Matrix(_), _) => "matrix",
        (QueryValue::Scalar(_), _) => "scalar",
        (QueryValue::Vector(_), _) => "vector",
        (QueryValue::String(_), _) => "string",
    };
    let _ = write!(out, "\"resultType\":\"{kind}\",\"result\":");
    match (value, shape) {
        (QueryValue::Vector(columns), ResultShape::Instant) => {
            write_list(out, columns, |out, column| write_instant(out, column, grid));
        }
        (QueryValue::Vector(columns), ResultShape::Range) => {
            let series_bytes = LABEL_BYTES + grid.steps() * POINT_BYTES;
            out.reserve(columns.len().saturating_mul(series_bytes).min(MAX_RESERVED_BYTES));
            let stamps = Stamps::new(grid);
            write_list(out, columns, |out, column| write_column(out, column, grid, &stamps));
        }
        (QueryValue::Scalar(values), ResultShape::Range) => {
            let column = Column {
                labels: Labels::empty(),
                drop_name: false,
                floats: values.clone(),
                histograms: vec![],
            };
            let some = if values.is_empty() { None } else { Some(&column) };
            let stamps = Stamps::new(grid);
            write_list(out, some, |out, column| write_column(out, column, grid, &stamps));
        }
        (QueryValue::Scalar(values), ResultShape::Instant) => {
            write_point(out, grid.start_ms, values.first().copied().unwrap_or(f64::NAN));
        }
        (QueryValue::String(text), _) => {
            out.push(b'[');
            write_timestamp(out, grid.start_ms);
            out.push(b',');
            write_string(out, text);
            out.push(b']');
        }
        (QueryValue::Matrix(series), _) => write_list(out, series, |out, (labels, points)| {
            write_points(out, labels, points);
        }),
    }
}

/// Appends `[time,"value"]`.
fn write_point(out: &mut Vec<u8>, t_ms: i64, value: f64) {
    out.push(b'[');
    write_timestamp(out, t_ms);
    out.extend_from_slice(b",\"");
    write_float(out, value);
    out.extend_from_slice(b"\"]");
}

fn write_instant(out: &mut Vec<u8>, column: &Column, grid: Grid) {
    out.extend_from_slice(b"{\"metric\":");
    write_labels(out, &column.labels);
    if let Some(histogram) = column.histogram_at(0) {
        out.extend_from_slice(b",\"histogram\":[");
        write_timestamp(out, grid.start_ms);
        out.push(b',');
        write_histogram(out, histogram);
        out.push(b']');
    } else {
        out.extend_from_slice(b",\"value\":");
        write_point(out, grid.start_ms, column.floats.first().copied().unwrap_or(f64::NAN));
    }
    out.push(b'}');
}

/// The beginnings of a range query's points, which all series share: `[time,"`.
struct Stamps {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Stamps {
    fn new(grid: Grid) -> Self {
        let mut stamps = Self { text: Vec::new(), ends: Vec::with_capacity(grid.steps()) };
        for step in 0..grid.steps() {
            stamps.text.push(b'[');
            write_timestamp(&mut stamps.text, grid.time(step));
            stamps.text.extend_from_slice(b",\"");
            stamps.ends.push(stamps.text.len());
        }
        stamps
    }

    fn of(&self, step: usize) -> &[u8] {
        let from = if step == 0 { 0 } else { self.ends[step - 1] };
        &self.text[from..self.ends[step]]
    }
}

fn write_column(out: &mut Vec<u8>, column: &Column, grid: Grid, stamps: &Stamps) {
    let floats = column.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value));
    let histograms =
        column.histograms.iter().map(|(step, histogram)| (grid.time(*step as usize), &**histogram));
    write_series(out, &column.labels, floats, histograms, |out, (step, value)| {
        out.extend_from_slice(stamps.of(step));
        write_float(out, *value);
        out.extend_from_slice(b"\"]");
    });
}

fn write_points(out: &mut Vec<u8>, labels: &Labels, points: &Points) {
    let is_histogram = |at: usize| points.histogram_at(at).is_some();
    let floats = points.t_ms.iter().zip(&points.floats).enumerate();
    let floats = floats.filter(|(at, (_, value))| !is_histogram(*at) && !is_stale(**value));
    let histograms = points.histograms.iter().filter(|(_, histogram)| !is_stale(histogram.sum));
    let histograms = histograms.filter_map(|(at, h)| Some((*points.t_ms.get(*at as usize)?, &**h)));
    let one = |out: &mut Vec<u8>, (t_ms, value): (&i64, &f64)| write_point(out, *t_ms, *value);
    write_series(out, labels, floats.map(|(_, point)| point), histograms, one);
}

fn write_series<'a, P>(
    out: &mut Vec<u8>,
    labels: &Labels,
    floats: impl Iterator<Item = P>,
    histograms: impl Iterator<Item = (i64, &'a tricord_model::FloatHistogram)>,
    write_float_point: impl FnMut(&mut Vec<u8>, P),
) {
    out.extend_from_slice(b"{\"metric\":");
    write_labels(out, labels);
    let mut floats = floats.peekable();
    if floats.peek().is_some() {
        out.extend_from_slice(b",\"values\":");
        write_list(out, floats, write_float_point);
    }
    let mut histograms = histograms.peekable();
    if histograms.peek().is_some() {
        out.extend_from_slice(b",\"histograms\":");
        write_list(out, histograms, |out, (t_ms, histogram)| {
            out.push(b'[');
            write_timestamp(out, t_ms);
            out.push(b',');
            write_histogram(out, histogram);
            out.push(b']');
        });
    }
    out.push(b'}');
}

/// Appends a label set as an object.
fn write_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write_string(out, value);
    }
    out.push(b'}');
}

/// A list of label sets, for `series`.
#[must_use]
pub fn labels_json(series: &[Labels]) -> Vec<u8> {
    let mut out = Vec::with_capacity(series.len() * 128 + 2);
    write_list(&mut out, series, write_labels);
    out
}

/// A list of texts, as of names and values of labels.
#[must_use]
pub fn texts_json(texts: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(texts.iter().map(|text| text.len() + 3).sum::<usize>() + 2);
    write_list(&mut out, texts, |out, text| write_string(out, text));
    out
}

/// The data of `query_exemplars`.
#[must_use]
pub fn exemplars_json(series: &[(Labels, Vec<Exemplar>)]) -> Vec<u8> {
    let mut out = Vec::new();
    write_list(&mut out, series, |out, (labels, exemplars)| {
        out.extend_from_slice(b"{\"seriesLabels\":");
        write_labels(out, labels);
        out.extend_from_slice(b",\"exemplars\":");
        write_list(out, exemplars, |out, exemplar| {
            out.extend_from_slice(b"{\"labels\":");
            write_labels(out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":\"");
            write_float(out, exemplar.value);
            out.extend_from_slice(b"\",\"timestamp\":");
            write_timestamp(out, exemplar.t_ms);
            out.push(b'}');
        });
        out.push(b'}');
    });
    out
}

/// The data of `metadata`.
#[must_use]
pub fn metadata_json(families: &[(String, Vec<MetricMetadata>)]) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (at, (family, entries)) in families.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(&mut out, family);
        out.push(b':');
        write_list(&mut out, entries, |out, entry| {
            let _ = write!(out, "{{\"type\":\"{}\",\"help\":", entry.kind.as_str());
            write_string(out, &entry.help);
            out.extend_from_slice(b",\"unit\":");
            write_string(out, &entry.unit);
            out.push(b'}');
        });
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use tricord_model::Sample;
    use tricord_promql::value::ABSENT;

    use super::*;

    #[track_caller]
    fn check(value: &QueryValue, shape: ResultShape, expected: &str) {
        let grid = Grid { start_ms: 1000, end_ms: 2500, step_ms: 500 };
        let mut out = Vec::new();
        write_result(&mut out, value, grid, shape);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn results_are_as_prometheus_writes_them() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let column = Column {
            labels: labels.clone(),
            drop_name: false,
            floats: vec![1.0, ABSENT, f64::NAN],
            histograms: vec![],
        };
        let metric = r#"{"metric":{"__name__":"up","job":"a"}"#;
        let vector = QueryValue::Vector(vec![column]);
        check(
            &vector,
            ResultShape::Range,
            &format!(r#""resultType":"matrix","result":[{metric},"values":[[1,"1"],[2,"NaN"]]}}]"#),
        );
        check(
            &vector,
            ResultShape::Instant,
            &format!(r#""resultType":"vector","result":[{metric},"value":[1,"1"]}}]"#),
        );
        check(
            &QueryValue::Scalar(vec![2.0]),
            ResultShape::Instant,
            r#""resultType":"scalar","result":[1,"2"]"#,
        );
        check(
            &QueryValue::Scalar(vec![2.0, 3.0]),
            ResultShape::Range,
            r#""resultType":"matrix","result":[{"metric":{},"values":[[1,"2"],[1.500,"3"]]}]"#,
        );
        check(
            &QueryValue::String("a\"b".into()),
            ResultShape::Instant,
            r#""resultType":"string","result":[1,"a\"b"]"#,
        );
        let points: Points = [Sample::float(5, 0.5)].into_iter().collect();
        check(
            &QueryValue::Matrix(vec![(labels, points)]),
            ResultShape::Instant,
            &format!(r#""resultType":"matrix","result":[{metric},"values":[[0.005,"0.5"]]}}]"#),
        );
    }

    #[test]
    fn histograms_stand_beside_floats() {
        let histogram =
            std::sync::Arc::new(tricord_model::FloatHistogram { count: 1.0, ..Default::default() });
        let column = Column {
            labels: Labels::empty(),
            drop_name: false,
            floats: vec![1.0, ABSENT],
            histograms: vec![(1, histogram)],
        };
        check(
            &QueryValue::Vector(vec![column]),
            ResultShape::Range,
            r#""resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]],"histograms":[[1.500,{"count":"1","sum":"0"}]]}]"#,
        );
    }
}
