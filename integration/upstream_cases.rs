//! The plain cases of Prometheus' own PromQL tests through the whole system: written over HTTP, flushed to RocksDB,
//! asked over HTTP, of one process and of three data nodes, which must answer with the same bytes.
//!
//! The cases are read where their folder is there (`PROMQLTEST_DIR`, or `shared/promqltest` beside the checkout).
//! Those that need native histograms, experimental parts of the language or start timestamps are left out: the engine's
//! own test runs them, and remote write 1.0, which writes here, carries floats alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;
use tricord_model::{Labels, Points, Value as SampleValue};
use tricord_promql::ast::ValueType;
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::promqltest::{
    Answer, Classes, Command, LoadedSeries, LocalTarget, Target, parse_script, run_eval,
};
use tricord_promql::value::{ABSENT, Annotations, Column, Grid, QueryValue};
use tricord_testkit::{Client, LocalCluster, RemoteSeries, Shape, Single};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");

/// What upstream's test engine is set to, and a store that keeps samples from 1970.
const FLAGS: [&str; 6] = [
    "--retention=0",
    "--own-telemetry=false",
    "--proxy-delayed-name-removal=true",
    "--proxy-start-timestamps=true",
    "--proxy-experimental-functions=true",
    "--proxy-max-samples=10000",
];

fn cases() -> Option<PathBuf> {
    if let Ok(folder) = std::env::var("PROMQLTEST_DIR") {
        return Some(PathBuf::from(folder));
    }
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.map(|folder| folder.join("shared/promqltest")).find(|folder| folder.join("functions.test").exists())
}

/// A system under test: where to write, and where to ask and flush.
struct System {
    name: &'static str,
    writer: Client,
    reader: Client,
}

/// Several systems that hold the same data, each script's data under a tenant of its own.
struct Systems<'a> {
    runtime: &'a Runtime,
    systems: Vec<System>,
    /// What holds histograms is asked of the series in memory.
    memory: LocalTarget,
    tenants: usize,
    /// Answers that were not the same everywhere.
    differences: Vec<String>,
}

impl Systems<'_> {
    fn tenant(&self) -> String {
        format!("case-{}", self.tenants)
    }

    fn answers(&self, query: &str, grid: Grid, instant: bool) -> Result<Vec<String>> {
        let seconds = |ms: i64| format!("{}", ms as f64 / 1000.0);
        let times = [seconds(grid.start_ms), seconds(grid.end_ms), seconds(grid.step_ms)];
        let (path, parameters) = match instant {
            true => ("/api/v1/query", vec![("query", query), ("time", &times[0])]),
            false => (
                "/api/v1/query_range",
                vec![("query", query), ("start", &times[0]), ("end", &times[1]), ("step", &times[2])],
            ),
        };
        let ask = |system: &System| {
            let client = system.reader.clone().tenant(&self.tenant());
            self.runtime.block_on(client.post_form(path, &parameters)).map(|answer| answer.text())
        };
        self.systems.iter().map(ask).collect()
    }

    fn write(&self, series: &[RemoteSeries]) -> Result<()> {
        for system in &self.systems {
            let (writer, reader) = (system.writer.clone().tenant(&self.tenant()), &system.reader);
            self.runtime.block_on(async {
                for some in series.chunks(500) {
                    writer.remote_write(some).await.with_context(|| system.name)?;
                }
                reader.post("/api/v1/admin/flush", &[], "").await?.success()
            })?;
        }
        Ok(())
    }
}

impl Target for Systems<'_> {
    fn clear(&mut self) {
        self.tenants += 1;
        self.memory.clear();
    }

    fn load(&mut self, series: &[LoadedSeries]) {
        self.memory.load(series);
        let is_float = |series: &&LoadedSeries| series.points.len() > series.points.histograms.len();
        let written: Vec<RemoteSeries> = series.iter().filter(is_float).map(remote).collect();
        self.write(&written).unwrap();
    }

    fn query(&mut self, query: &str, grid: Grid, instant: bool) -> Answer {
        let answers = self.answers(query, grid, instant).unwrap();
        for (system, answer) in self.systems.iter().zip(&answers).skip(1) {
            if *answer != answers[0] {
                let note = format!("{query} at {grid:?}: {}\n  {}: {answer}", answers[0], system.name);
                self.differences.push(note);
            }
        }
        let answer: Value =
            serde_json::from_str(&answers[0]).map_err(|error| format!("{error}: {}", answers[0]))?;
        if answer["status"] != "success" {
            let text = answer["error"].as_str().unwrap_or_default();
            return Err(text.strip_prefix("invalid parameter \"query\": ").unwrap_or(text).to_owned());
        }
        let value = value(query, &answer["data"], grid, instant).map_err(|error| error.to_string())?;
        let texts = |key: &str| {
            let list = answer[key].as_array().into_iter().flatten();
            list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        Ok((value, Annotations { warnings: texts("warnings"), infos: texts("infos") }))
    }

    fn has_histograms(&self, query: &str) -> bool {
        self.memory.has_histograms(query)
    }
}

/// The floats of a series; those who need its histograms are not asked here.
fn remote(series: &LoadedSeries) -> RemoteSeries {
    let labels: Vec<_> = series.labels.iter().filter(|(name, _)| *name != "__name__").collect();
    let start = RemoteSeries::new(series.labels.name(), &labels);
    series.points.iter().fold(start, |remote, sample| match sample.value {
        SampleValue::Float(value) => remote.at(sample.t_ms, value),
        SampleValue::Histogram(_) => remote,
    })
}

fn labels(metric: &Value) -> Labels {
    let pairs = metric.as_object().into_iter().flatten();
    Labels::from_pairs(pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())))
}

/// `[seconds, "value"]`
fn point(pair: &Value) -> Result<(i64, f64)> {
    let seconds = pair[0].as_f64().with_context(|| format!("no time in {pair}"))?;
    let text = pair[1].as_str().with_context(|| format!("no value in {pair}"))?;
    Ok(((seconds * 1000.0).round() as i64, text.parse().with_context(|| text.to_owned())?))
}

/// Whether the query is a scalar, which the API draws over a range as a series without labels.
fn is_scalar(query: &str) -> bool {
    parse(query, &ParserOptions::default()).is_ok_and(|expr| expr.value_type() == ValueType::Scalar)
}

fn value(query: &str, data: &Value, grid: Grid, instant: bool) -> Result<QueryValue> {
    let result = &data["result"];
    let kind = data["resultType"].as_str().unwrap_or_default();
    match kind {
        "scalar" => Ok(QueryValue::Scalar(vec![point(result)?.1])),
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

fn column(series: &Value, grid: Grid) -> Result<Column> {
    ensure!(series.get("histogram").is_none() && series.get("histograms").is_none(), "a histogram: {series}");
    let mut floats = vec![ABSENT; grid.steps()];
    let one = series.get("value").into_iter();
    for pair in one.chain(series["values"].as_array().into_iter().flatten()) {
        let (t_ms, value) = point(pair)?;
        let step = (t_ms - grid.start_ms) / grid.step_ms.max(1);
        let place = floats.get_mut(step as usize).with_context(|| format!("{t_ms} ms is off the grid"))?;
        *place = value;
    }
    Ok(Column { labels: labels(&series["metric"]), drop_name: false, floats, histograms: Vec::new() })
}

fn raw(result: &Value) -> Result<QueryValue> {
    let mut all = Vec::new();
    for series in result.as_array().into_iter().flatten() {
        let mut points = Points::default();
        for pair in series["values"].as_array().into_iter().flatten() {
            let (t_ms, value) = point(pair)?;
            points.push(tricord_model::Sample::float(t_ms, value));
        }
        all.push((labels(&series["metric"]), points));
    }
    Ok(QueryValue::Matrix(all))
}

/// Per file: plain evals asked, and those that failed with why.
type Report = BTreeMap<String, (usize, Vec<String>)>;

fn run(folder: &Path, target: &mut Systems<'_>) -> Result<Report> {
    let mut report = Report::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    files.sort();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (asked, failed) = report.entry(name).or_default();
        target.clear();
        let mut start_timestamps = false;
        for command in parse_script(&std::fs::read_to_string(&path)?)? {
            match command {
                Command::Clear => {
                    start_timestamps = false;
                    target.clear();
                }
                Command::Load(load) => {
                    start_timestamps |= load.series.iter().any(|series| !series.points.start_ms.is_empty());
                    target.load(&load.series);
                }
                Command::Eval(eval) if !start_timestamps && Classes::of(&eval, target).is_plain() => {
                    *asked += 1;
                    let result = run_eval(&eval, target);
                    failed.extend(
                        result.err().map(|error| format!("line {}: {}: {error}", eval.line, eval.query)),
                    );
                }
                Command::Eval(_) => {}
            }
        }
    }
    Ok(report)
}

#[test]
fn plain_cases_are_answered_alike_by_one_process_and_by_three_nodes() -> Result<()> {
    let Some(folder) = cases() else {
        eprintln!("skipped: set PROMQLTEST_DIR to the folder of upstream's .test files");
        return Ok(());
    };
    let runtime = Runtime::new()?;
    let single = runtime.block_on(Single::builder(BINARY).flags(FLAGS).start())?;
    let shape = Shape { flags: FLAGS.map(str::to_owned).to_vec(), ..Shape::default() };
    let cluster = runtime.block_on(LocalCluster::start(BINARY, &shape))?;
    let one = System { name: "one process", writer: single.client(), reader: single.client() };
    let three = System { name: "three data nodes", writer: cluster.ingester()?, reader: cluster.proxy()? };
    let mut target = Systems {
        runtime: &runtime,
        systems: vec![one, three],
        memory: LocalTarget::default(),
        tenants: 0,
        differences: Vec::new(),
    };
    let report = run(&folder, &mut target)?;
    let mut totals = (0, 0);
    for (name, (asked, failed)) in &report {
        println!("{name}: passed {} of {asked} plain evals", asked - failed.len());
        failed.iter().for_each(|failure| println!("  {failure}"));
        totals = (totals.0 + asked, totals.1 + failed.len());
    }
    println!("all: passed {} of {} plain evals", totals.0 - totals.1, totals.0);
    target.differences.iter().take(20).for_each(|difference| println!("different: {difference}"));
    ensure!(totals.0 > 900, "only {} plain evals were found", totals.0);
    ensure!(totals.1 == 0, "{} plain evals failed", totals.1);
    ensure!(target.differences.is_empty(), "{} answers differ between systems", target.differences.len());
    Ok(())
}
