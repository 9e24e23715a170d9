//! The systems under test, which hold the same data and must answer with the same bytes.

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tricord_model::{Labels, Points};
use tricord_promql::promqltest::{Answer, LoadedSeries, LocalTarget, Target, value_as_shown};
use tricord_promql::value::{Grid, QueryValue};
use tricord_testkit::Client;

use super::answers;
use super::corpus::State;

/// A system under test: where to write, and where to ask and flush.
#[derive(Clone)]
pub(super) struct System {
    pub(super) name: &'static str,
    pub(super) writer: Client,
    pub(super) reader: Client,
}

/// One write holds no more samples than this.
const SAMPLES_PER_WRITE: usize = 50_000;
/// How many notes of a kind the API spells out.
const SPELLED_OUT: usize = 10;

impl System {
    /// Writes all that a state holds, in its order.
    pub(super) async fn write(&self, state: &State) -> Result<()> {
        let writer = self.writer.clone().tenant(&state.tenant);
        for load in &state.loads {
            let mut batch: Vec<(Labels, Points)> = Vec::new();
            let mut samples = 0;
            for series in &load.series {
                if samples + series.points.len() > SAMPLES_PER_WRITE && samples > 0 {
                    writer.remote_write_v2(&std::mem::take(&mut batch)).await.context(self.name)?;
                    samples = 0;
                }
                samples += series.points.len();
                batch.push((series.labels.clone(), series.points.clone()));
            }
            if samples > 0 {
                let written = writer.remote_write_v2(&batch).await;
                written.with_context(|| format!("{}: {}", self.name, state.tenant))?;
            }
        }
        Ok(())
    }

    /// Writes everything that is in memory to RocksDB, and merges windows that lie together.
    pub(super) async fn flush(&self) -> Result<()> {
        self.reader.post("/api/v1/admin/merge", &[], "").await?.success().context(self.name).map(|_| ())
    }
}

/// Asks all systems for one tenant, and the engine over the same series in memory.
pub(super) struct Asker {
    runtime: Handle,
    systems: Vec<System>,
    memory: LocalTarget,
    /// The same, with notes that tell their places.
    memory_with_places: LocalTarget,
    /// Answers that were not the same everywhere.
    pub(super) differences: Vec<String>,
    pub(super) asked: usize,
}

impl Asker {
    pub(super) fn new(runtime: &Handle, systems: &[System], state: &State) -> Self {
        let of_tenant = |system: &System| {
            let (writer, reader) = (system.writer.clone(), system.reader.clone().tenant(&state.tenant));
            System { name: system.name, writer, reader }
        };
        let mut asker = Self {
            runtime: runtime.clone(),
            systems: systems.iter().map(of_tenant).collect(),
            memory: LocalTarget::default(),
            memory_with_places: LocalTarget::with_places(),
            differences: Vec::new(),
            asked: 0,
        };
        state.loads.iter().for_each(|load| asker.load(&load.series));
        asker
    }

    /// The bodies of all systems' answers.
    fn bodies(&self, query: &str, grid: Grid, instant: bool) -> Result<Vec<String>> {
        let seconds = |ms: i64| format!("{}", ms as f64 / 1000.0);
        let mut parameters = vec![("query", query.to_owned())];
        let path = match instant {
            true => {
                parameters.push(("time", seconds(grid.start_ms)));
                "/api/v1/query"
            }
            false => {
                parameters.push(("start", seconds(grid.start_ms)));
                parameters.push(("end", seconds(grid.end_ms)));
                parameters.push(("step", seconds(grid.step_ms)));
                "/api/v1/query_range"
            }
        };
        let mut asking = JoinSet::new();
        for (at, system) in self.systems.iter().enumerate() {
            let (client, parameters) = (system.reader.clone(), parameters.clone());
            let ask = async move {
                let parameters: Vec<_> =
                    parameters.iter().map(|(name, text)| (*name, text.as_str())).collect();
                client.post_form(path, &parameters).await.map(|answer| (at, answer.text()))
            };
            asking.spawn_on(ask, &self.runtime);
        }
        let mut bodies = self.runtime.block_on(asking.join_all()).into_iter().collect::<Result<Vec<_>>>()?;
        bodies.sort_unstable();
        Ok(bodies.into_iter().map(|(_, body)| body).collect())
    }

    /// Notes where the systems' bodies differ, or say something else than the engine in memory.
    fn compare(&mut self, query: &str, grid: Grid, instant: bool, bodies: &[String], answer: &Answer) {
        let of = format!("{query} at {grid:?}");
        for (system, body) in self.systems.iter().zip(bodies).skip(1) {
            if *body != bodies[0] {
                self.differences.push(format!("{of}: {}\n  {}: {body}", bodies[0], system.name));
            }
        }
        match (answer, self.memory_with_places.query(query, grid, instant)) {
            (Ok((value, notes)), Ok((expected, expected_notes))) => {
                let (value, expected) = (to_text(value, grid), to_text(&value_as_shown(expected), grid));
                let expected_notes = expected_notes.limited(SPELLED_OUT);
                if value != expected || *notes != expected_notes {
                    let memory = format!("{expected:?} {expected_notes:?}");
                    self.differences.push(format!("{of}: {value:?} {notes:?}\n  in memory: {memory}"));
                }
            }
            (Err(_), Err(_)) => {}
            (answer, expected) => {
                self.differences.push(format!("{of}: {answer:?}\n  in memory: {expected:?}"));
            }
        }
    }
}

impl Target for Asker {
    fn clear(&mut self) {
        self.memory.clear();
        self.memory_with_places.clear();
    }

    fn load(&mut self, series: &[LoadedSeries]) {
        self.memory.load(series);
        self.memory_with_places.load(series);
    }

    fn query(&mut self, query: &str, grid: Grid, instant: bool) -> Answer {
        self.asked += 1;
        let bodies = self.bodies(query, grid, instant).map_err(|error| format!("{error:#}"))?;
        let answer = answers::read(query, &bodies[0], grid, instant);
        self.compare(query, grid, instant, &bodies, &answer);
        // Scripts expect notes without places; those of the answer were compared.
        let (value, _) = answer?;
        let (_, notes) = self.memory.query(query, grid, instant)?;
        Ok((value, notes))
    }

    fn has_histograms(&self, query: &str) -> bool {
        self.memory.has_histograms(query)
    }
}

/// A value as text that tells all floats apart but those that are not a number.
fn to_text(value: &QueryValue, grid: Grid) -> Vec<String> {
    match value {
        QueryValue::Scalar(values) => vec![format!("{values:?}")],
        QueryValue::String(text) => vec![text.clone()],
        QueryValue::Vector(columns) => {
            let columns = columns.iter().filter(|column| !column.is_empty());
            let text = |column: &tricord_promql::value::Column| {
                let (floats, histograms) = (&column.floats, &column.histograms);
                let absent = |value: &f64| tricord_promql::value::is_absent(*value);
                let times = floats.iter().enumerate().filter(|(_, value)| !absent(value));
                let floats: Vec<_> = times.map(|(step, value)| (grid.time(step), value)).collect();
                format!("{} {floats:?} {histograms:?}", column.labels)
            };
            columns.map(text).collect()
        }
        QueryValue::Matrix(series) => {
            series.iter().map(|(labels, points)| format!("{labels} {points:?}")).collect()
        }
    }
}
