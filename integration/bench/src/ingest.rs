//! One round of writing: a fresh server, a whole scenario, and what that cost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::task::JoinSet;
use tricord_testkit::Client;

use crate::load::{Part, Request, Scenario, Wire};
use crate::proc;
use crate::server::{Kind, Server};

/// Connections that send at the same time.
pub(crate) const CONNECTIONS: usize = 4;
/// Scrapes after which the connections wait for each other: a server need not take what is hours apart.
pub(crate) const TICKS_TOGETHER: i64 = 60;

/// What a round has shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) server: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) wire: &'static str,
    pub(crate) samples: u64,
    /// From the first request to the last acknowledgement.
    pub(crate) wall_s: f64,
    /// Processor that the server used in that time.
    pub(crate) cpu_s: f64,
    pub(crate) cpu_s_per_million: f64,
    /// Processor for the first scrape, in microseconds per series.
    pub(crate) new_series_us: f64,
    pub(crate) samples_per_s: f64,
    pub(crate) ack_p50_ms: f64,
    pub(crate) ack_p99_ms: f64,
    pub(crate) highest_memory_bytes: u64,
    pub(crate) anonymous_bytes_per_series: f64,
    /// All files once everything is in the form in which it stays; not known of a round that ends before.
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) disk_bytes_per_sample: Option<f64>,
    /// Processor that everything else on the machine used meanwhile, the sender among it.
    pub(crate) others_s: f64,
}

/// A scenario in the making: what each connection sends, stretch by stretch.
pub(crate) struct Load(Vec<Part>);

/// For each connection the requests of a stretch of scrapes.
type Stretch = Vec<Vec<Request>>;

impl Load {
    pub(crate) fn new(scenario: Scenario, wire: Wire, start_ms: i64) -> Self {
        let part = |number| Part::new(scenario, wire, start_ms, (number, CONNECTIONS));
        Self((0..CONNECTIONS).map(part).collect())
    }

    /// The next so many scrapes; `None` at the end.
    ///
    /// # Errors
    /// When a body cannot be made.
    pub(crate) fn next(&mut self, ticks: i64) -> Result<Option<Stretch>> {
        let stretch = self.0.iter_mut().map(|part| part.next(ticks)).collect::<Result<Stretch>>()?;
        Ok(if stretch.iter().all(Vec::is_empty) { None } else { Some(stretch) })
    }
}

/// All requests of a scenario.
fn requests(scenario: Scenario, wire: Wire, start_ms: i64) -> Result<Vec<Stretch>> {
    let mut load = Load::new(scenario, wire, start_ms);
    let mut stretches = Vec::new();
    // The first scrape alone makes the series.
    let mut ticks = 1;
    while let Some(stretch) = load.next(ticks)? {
        stretches.push(stretch);
        ticks = TICKS_TOGETHER;
    }
    Ok(stretches)
}

/// What was acknowledged.
#[derive(Default)]
pub(crate) struct Acked {
    pub(crate) samples: u64,
    /// How long each request took.
    taken: Vec<Duration>,
}

impl Acked {
    /// How long half of the requests took at most, and 99 of 100, in milliseconds.
    pub(crate) fn quantiles(mut self) -> (f64, f64) {
        self.taken.sort_unstable();
        let at = |share: f64| {
            let at = (self.taken.len().saturating_sub(1) as f64 * share).round() as usize;
            self.taken.get(at).map_or(0.0, |taken| taken.as_secs_f64() * 1e3)
        };
        (at(0.5), at(0.99))
    }
}

/// Sends one stretch over all connections.
///
/// # Errors
/// When a request is not acknowledged.
pub(crate) async fn send(server: &Server, wire: Wire, stretch: Stretch, acked: &mut Acked) -> Result<()> {
    send_to(&server.writer(wire), wire, stretch, acked).await
}

/// As [`send`], to whoever takes the wire.
///
/// # Errors
/// As [`send`].
pub(crate) async fn send_to(client: &Client, wire: Wire, stretch: Stretch, acked: &mut Acked) -> Result<()> {
    let mut connections = JoinSet::new();
    for requests in stretch {
        let client = client.clone();
        connections.spawn(async move {
            let (mut samples, mut taken) = (0, Vec::with_capacity(requests.len()));
            for request in requests {
                let started = Instant::now();
                Server::write(&client, wire, request.body).await?;
                taken.push(started.elapsed());
                samples += request.samples;
            }
            anyhow::Ok((samples, taken))
        });
    }
    while let Some(sent) = connections.join_next().await {
        let (samples, taken) = sent.context("a sender panicked")??;
        acked.samples += samples;
        acked.taken.extend(taken);
    }
    Ok(())
}

/// Writes a scenario to a fresh server, which is still running afterwards; `settle` has it put its data in order too.
///
/// # Errors
/// When the server does not start, or does not take a request.
pub(crate) async fn round(
    kind: Kind,
    tricord: &Path,
    data: &Path,
    (scenario, wire): (Scenario, Wire),
    start_ms: i64,
    settle: bool,
) -> Result<(Server, Round)> {
    if data.exists() {
        std::fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let requests = tokio::task::spawn_blocking(move || requests(scenario, wire, start_ms)).await??;
    let server = Server::start(kind, tricord, data).await?;
    let pid = server.pid();
    let (started, cpu, machine) = (Instant::now(), proc::cpu_s(pid)?, proc::machine_s());
    let (mut acked, mut first_s) = (Acked::default(), None);
    for stretch in requests {
        send(&server, wire, stretch, &mut acked).await.with_context(|| server.process.log())?;
        first_s.get_or_insert(proc::cpu_s(pid)? - cpu);
    }
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), proc::cpu_s(pid)? - cpu);
    let others_s = proc::machine_s() - machine - cpu_s;
    let memory = proc::memory(pid)?;
    let disk_bytes = if settle { Some(server.settle().await?) } else { None };
    let samples = acked.samples;
    let (ack_p50_ms, ack_p99_ms) = acked.quantiles();
    if samples != scenario.samples() {
        bail!("{samples} samples were acknowledged of {}", scenario.samples());
    }
    let round = Round {
        server: kind.name(),
        scenario: scenario.name,
        wire: wire.name(),
        samples,
        wall_s,
        cpu_s,
        cpu_s_per_million: cpu_s * 1e6 / samples as f64,
        new_series_us: first_s.unwrap_or_default() * 1e6 / scenario.series as f64,
        samples_per_s: samples as f64 / wall_s,
        ack_p50_ms,
        ack_p99_ms,
        highest_memory_bytes: memory.highest,
        anonymous_bytes_per_series: memory.anonymous as f64 / scenario.series as f64,
        disk_bytes,
        disk_bytes_per_sample: disk_bytes.map(|bytes| bytes as f64 / samples as f64),
        others_s,
    };
    Ok((server, round))
}
