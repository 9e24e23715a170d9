//! Runs Tricord beside VictoriaMetrics and Prometheus on this machine, by turns and with the same load, and prints
//! tables of medians and ratios. README.md beside this crate says what is measured and how to read it.

mod churn;
mod copies;
mod fleet;
mod ingest;
mod lists;
mod load;
mod pods;
mod proc;
mod queries;
mod report;
mod restart;
mod server;
mod summary;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde::Serialize;

use crate::ingest::Round;
use crate::load::{Scenario, Wire};
use crate::queries::Timing;
use crate::restart::Restart;
use crate::server::{Kind, Server};

/// A machine counts as quiet when it uses less than this many processors …
const QUIET: f64 = 0.08;
/// … for so long; it is waited for at most so long.
const QUIET_FOR: Duration = Duration::from_secs(3);
const WAIT_FOR_QUIET: Duration = Duration::from_secs(60);

fn command() -> Command {
    let list = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_delimiter(',').default_value(default).help(help)
    };
    let count = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_parser(value_parser!(usize)).default_value(default).help(help)
    };
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_parser(value_parser!(PathBuf)).required(true).help(help)
    };
    Command::new("tricord-bench")
        .about("Tricord beside VictoriaMetrics and Prometheus: load, queries, memory, restart")
        .arg(path("tricord", "the binary to measure"))
        .arg(path("dir", "where data and results go; folders of servers in it are replaced"))
        .arg(list("servers", "tricord,victoria-metrics,prometheus", "which servers, by turns"))
        .arg(list("parts", "ingest,query,cold,month,million,window,copies,lists,churn", "what is measured"))
        .arg(list("scenarios", "A,B", "loads of part ingest"))
        .arg(list("wires", "v1,v2,otlp", "how they are sent; the peers take v1 only"))
        .arg(count("rounds", "5", "rounds of writing per server"))
        .arg(count("asks", "11", "questions per query and server"))
        .arg(count("series", "1000000", "series of the day of part lists"))
        .arg(
            Arg::new("keep")
                .long("keep")
                .action(ArgAction::SetTrue)
                .help("leave the folders of parts million and window, to look at them"),
        )
}

fn main() -> Result<()> {
    let matches = command().get_matches();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&matches))
}

/// Everything that a run needs to know.
struct Bench {
    tricord: PathBuf,
    dir: PathBuf,
    servers: Vec<Kind>,
    start_ms: i64,
    rounds: usize,
    asks: usize,
    keep: bool,
    raw: File,
    measured: Measured,
}

/// What the parts have measured so far.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) rounds: Vec<Round>,
    pub(crate) timings: Vec<Timing>,
    pub(crate) restarts: Vec<Restart>,
}

async fn run(matches: &ArgMatches) -> Result<()> {
    let texts =
        |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().context("a path");
    let number = |name: &str| matches.get_one::<usize>(name).copied().unwrap_or(1).max(1);
    let dir = path("dir")?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let raw = OpenOptions::new().create(true).append(true).open(dir.join("raw.jsonl"))?;
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
    let mut bench = Bench {
        tricord: path("tricord")?.canonicalize().context("the binary is not there: run make build")?,
        dir,
        servers: texts("servers").iter().map(|name| Kind::parse(name)).collect::<Result<_>>()?,
        start_ms: now_ms / 60_000 * 60_000,
        rounds: number("rounds"),
        asks: number("asks"),
        keep: matches.get_flag("keep"),
        raw,
        measured: Measured::default(),
    };
    let scenarios = texts("scenarios").iter().map(|name| scenario(name)).collect::<Result<Vec<_>>>()?;
    let wires = texts("wires").iter().map(|name| wire(name)).collect::<Result<Vec<_>>>()?;
    let parts = texts("parts");
    for part in &parts {
        let text = match part.as_str() {
            "ingest" => bench.ingest(&scenarios, &wires).await?,
            "query" => bench.query(Scenario::A, false).await?,
            "cold" => bench.query(Scenario::A, true).await?,
            "month" => bench.query(Scenario::MONTH, false).await?,
            "million" => bench.million().await?,
            "window" => bench.window().await?,
            "copies" => bench.copies().await?,
            "lists" => bench.lists(number("series")).await?,
            "churn" => bench.churn().await?,
            other => {
                bail!(
                    "no part named {other}: ingest, query, cold, month, million, window, copies, lists or churn"
                )
            }
        };
        print(&format!("\n{text}\n"));
    }
    print(&format!("\n{}", summary::table(&bench.measured)));
    Ok(())
}

fn scenario(name: &str) -> Result<Scenario> {
    let found = [Scenario::A, Scenario::B].into_iter().find(|scenario| scenario.name == name);
    found.with_context(|| format!("no scenario named {name}: A or B"))
}

fn wire(name: &str) -> Result<Wire> {
    let found = [Wire::V1, Wire::V2, Wire::Otlp].into_iter().find(|wire| wire.name() == name);
    found.with_context(|| format!("no wire named {name}: v1, v2 or otlp"))
}

impl Bench {
    /// Rounds of writing, the servers by turns.
    async fn ingest(&mut self, scenarios: &[Scenario], wires: &[Wire]) -> Result<String> {
        let mut rounds: Vec<Round> = Vec::new();
        for number in 0..self.rounds {
            for (scenario, wire) in
                scenarios.iter().flat_map(|scenario| wires.iter().map(move |wire| (*scenario, *wire)))
            {
                let mut kinds: Vec<Kind> =
                    self.servers.iter().copied().filter(|kind| kind.takes(wire)).collect();
                // Whoever comes first is another one each time.
                if number % 2 == 1 {
                    kinds.reverse();
                }
                for kind in kinds {
                    let (server, round) = self.write(kind, (scenario, wire), true).await?;
                    server.stop().await?;
                    rounds.push(round);
                }
            }
        }
        Ok(report::writing(&rounds))
    }

    async fn write(
        &mut self,
        kind: Kind,
        (scenario, wire): (Scenario, Wire),
        settle: bool,
    ) -> Result<(Server, Round)> {
        wait_for_quiet().await;
        let data = self.data(kind, scenario);
        let start_ms = self.start_ms - scenario.span_ms();
        let (server, round) =
            ingest::round(kind, &self.tricord, &data, (scenario, wire), start_ms, settle).await?;
        say(&format!(
            "{} {} {}: {:.2} CPU-s per million samples, {:.0} samples/s, others {:.1} CPU-s, disk {:.2} B/sample",
            kind.name(),
            scenario.name,
            wire.name(),
            round.cpu_s_per_million,
            round.samples_per_s,
            round.others_s,
            round.disk_bytes_per_sample.unwrap_or(f64::NAN)
        ));
        self.note(&round)?;
        self.measured.rounds.push(round.clone());
        Ok((server, round))
    }

    fn data(&self, kind: Kind, scenario: Scenario) -> PathBuf {
        self.dir.join(format!("{}-{}", kind.name(), scenario.name.replace(' ', "-")))
    }

    /// The query set over a scenario that is written first.
    async fn query(&mut self, scenario: Scenario, cold: bool) -> Result<String> {
        let mut servers = Vec::new();
        for kind in self.servers.clone() {
            let (server, _) = self.write(kind, (scenario, Wire::V1), true).await?;
            server.stop().await?;
            if !cold {
                servers.push(Server::start(kind, &self.tricord, &self.data(kind, scenario)).await?);
            }
        }
        let mut timings: Vec<Timing> = Vec::new();
        for query in queries::of(scenario, self.start_ms - scenario.span_ms()) {
            let new = match cold {
                false => queries::warm(&servers, &query, self.asks).await?,
                true => {
                    let servers: Vec<_> =
                        self.servers.iter().map(|kind| (*kind, self.data(*kind, scenario))).collect();
                    queries::cold(&servers, &self.tricord, &query, self.asks).await?
                }
            };
            if new.windows(2).any(|pair| pair[0].items != pair[1].items) {
                let items: Vec<_> = new.iter().map(|timing| (timing.server, timing.items)).collect();
                say(&format!("{}: the servers answer different numbers of items: {items:?}", query.name));
            }
            say(&format!("{} is asked", query.name));
            new.iter().try_for_each(|timing| self.note(timing))?;
            timings.extend(new);
        }
        for server in servers {
            server.stop().await?;
        }
        self.measured.timings.extend(timings.iter().cloned());
        Ok(report::asking(&timings, if cold { "cold" } else { "warm" }))
    }

    /// A million series: memory, and a restart with all of them in the head.
    async fn million(&mut self) -> Result<String> {
        let scenario = Scenario::MILLION;
        let (mut rounds, mut restarts): (Vec<Round>, Vec<Restart>) = (Vec::new(), Vec::new());
        for kind in self.servers.clone() {
            let (server, round) = self.write(kind, (scenario, Wire::V1), false).await?;
            rounds.push(round);
            restarts.push(self.restart(server, scenario).await?);
        }
        Ok(format!("{}\n{}", report::writing(&rounds), report::restarts(&restarts)))
    }

    /// A million series over a whole window, and a restart with all of it in the head. Prometheus is left out: it would take
    /// half an hour to write.
    async fn window(&mut self) -> Result<String> {
        let (scenario, mut restarts) = (Scenario::WINDOW, Vec::new());
        let start_ms = self.start_ms - scenario.span_ms();
        for kind in self.servers.clone().into_iter().filter(|kind| *kind != Kind::Prometheus) {
            wait_for_quiet().await;
            let data = self.data(kind, scenario);
            let server = restart::fill(kind, &self.tricord, &data, scenario, start_ms).await?;
            restarts.push(self.restart(server, scenario).await?);
        }
        Ok(report::restarts(&restarts))
    }

    /// What one and three copies of each shard cost in a cluster.
    async fn copies(&mut self) -> Result<String> {
        let (scenario, mut all) = (Scenario::A, Vec::new());
        let start_ms = self.start_ms - scenario.span_ms();
        for _ in 0..self.rounds {
            for copies in [1, 3] {
                wait_for_quiet().await;
                let round = copies::round(&self.tricord, copies, scenario, start_ms).await?;
                say(&format!("{copies} copies: {:.2} CPU-s per million samples", round.cpu_s_per_million));
                self.note(&round)?;
                all.push(round);
            }
        }
        Ok(report::copies(&all))
    }

    async fn restart(&mut self, server: Server, scenario: Scenario) -> Result<Restart> {
        let kind = server.kind;
        let restart = restart::measure(server, &self.tricord, scenario, self.keep).await?;
        self.note(&restart)?;
        self.measured.restarts.push(restart.clone());
        if !self.keep {
            std::fs::remove_dir_all(self.data(kind, scenario))?;
        }
        Ok(restart)
    }

    /// Lists over a day of very many series.
    async fn lists(&mut self, series: usize) -> Result<String> {
        let start_ms = self.start_ms - lists::span_ms();
        let questions = lists::questions(series, start_ms);
        let (mut days, mut all) = (Vec::new(), Vec::new());
        for kind in self.servers.clone() {
            wait_for_quiet().await;
            let data = self.dir.join(format!("{}-lists", kind.name()));
            let (server, day) = lists::write(kind, &self.tricord, &data, series, start_ms).await?;
            say(&format!("{}: a day of {} series is written", day.server, day.series));
            self.note(&day)?;
            days.push(day);
            for query in &questions {
                let asked = lists::ask(&server, query, self.asks).await?;
                asked.iter().try_for_each(|asked| self.note(asked))?;
                all.extend(asked);
            }
            server.stop().await?;
        }
        // The servers' answers to a question stand beside each other.
        let place = |name: &str| questions.iter().position(|query| query.name == name);
        all.sort_by_key(|asked| place(asked.query));
        Ok(report::lists(&days, &all))
    }

    /// A day in which pods are renewed each hour, beside hosts that stay.
    async fn churn(&mut self) -> Result<String> {
        let (mut hours, mut quiet) = (Vec::new(), Vec::new());
        for kind in self.servers.clone() {
            wait_for_quiet().await;
            let (data, start_ms) =
                (self.dir.join(format!("{}-churn", kind.name())), self.start_ms - churn::span_ms());
            let (of_hours, of_quiet) = churn::run(kind, &self.tricord, &data, start_ms, self.asks).await?;
            of_hours.iter().try_for_each(|hour| self.note(hour))?;
            of_quiet.iter().try_for_each(|one| self.note(one))?;
            hours.extend(of_hours);
            quiet.extend(of_quiet);
            say(&format!("{}: the day is written", kind.name()));
        }
        Ok(report::churn(&hours, &quiet))
    }

    /// Keeps what was measured.
    fn note(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.raw.write_all(&line).context("cannot write raw.jsonl")
    }
}

/// Waits until nothing else runs; a machine that never is quiet is measured all the same, and the rounds say so.
async fn wait_for_quiet() {
    let deadline = Instant::now() + WAIT_FOR_QUIET;
    while Instant::now() < deadline {
        let before = proc::machine_s();
        tokio::time::sleep(QUIET_FOR).await;
        if (proc::machine_s() - before) / QUIET_FOR.as_secs_f64() < QUIET {
            return;
        }
    }
    say("the machine is not quiet: figures will vary");
}

/// Progress, beside the result.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The result. A reader that went away is nobody's problem.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
