//! The language through the whole system: every case is written over HTTP, flushed to RocksDB, and asked over HTTP, at
//! 1, 3 and 7 shards and of three data nodes, which must all answer with the same bytes, and with the values and notes
//! of the engine over the same series in memory.
//!
//! The cases are the project's own (`integration/cases`) and, where they are at hand, those of Prometheus.

mod answers;
mod corpus;
mod systems;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;
use tricord_promql::promqltest::run_eval;
use tricord_testkit::{LocalCluster, Shape, Single};

use corpus::State;
use systems::{Asker, System};

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

/// So many states are asked, or written, at once.
const WORKERS: usize = 6;

/// How one script went.
#[derive(Default)]
struct Tally {
    evals: usize,
    asked: usize,
    failed: Vec<String>,
    differences: Vec<String>,
}

type Report = BTreeMap<String, Tally>;

/// Writes every state to every system, each system's own data in order, and flushes.
async fn write_all(systems: &[System], states: &'static [State]) -> Result<()> {
    let mut writing = JoinSet::new();
    for system in systems {
        for worker in 0..WORKERS {
            let system = system.clone();
            writing.spawn(async move {
                for state in states.iter().skip(worker).step_by(WORKERS) {
                    system.write(state).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
    }
    writing.join_all().await.into_iter().collect::<Result<()>>()?;
    for system in systems {
        system.flush().await?;
    }
    Ok(())
}

/// Asks the questions of a state.
fn ask(runtime: &Handle, systems: &[System], state: &State) -> Tally {
    let mut asker = Asker::new(runtime, systems, state);
    let mut tally = Tally { evals: state.evals.len(), ..Tally::default() };
    for eval in &state.evals {
        if let Err(error) = run_eval(&eval.as_shown(), &mut asker) {
            tally.failed.push(format!("line {}: {}: {error}", eval.line, eval.query));
        }
    }
    tally.asked = asker.asked;
    tally.differences = asker.differences;
    tally
}

fn ask_all(runtime: &Handle, systems: &[System], states: &[State]) -> Report {
    let (next, report) = (Mutex::new(states.iter()), Mutex::new(Report::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let state = next.lock().unwrap().next();
                    let Some(state) = state else { break };
                    let tally = ask(runtime, systems, state);
                    let mut report = report.lock().unwrap();
                    let sum = report.entry(state.script.clone()).or_default();
                    sum.evals += tally.evals;
                    sum.asked += tally.asked;
                    sum.failed.extend(tally.failed);
                    sum.differences.extend(tally.differences);
                }
            });
        }
    });
    report.into_inner().unwrap()
}

#[test]
fn every_case_is_answered_alike_at_any_number_of_shards() -> Result<()> {
    let folders = corpus::folders();
    if folders.len() == 1 {
        println!("only own cases: set PROMQLTEST_DIR to the folder of upstream's .test files");
    }
    let mut states = Vec::new();
    for folder in folders {
        let of_folder = corpus::states(&folder)?;
        ensure!(!of_folder.is_empty(), "there are no cases in {}", folder.name);
        states.extend(of_folder);
    }
    // For tasks that may outlive this frame.
    let states: &'static [State] = Vec::leak(states);
    let runtime = Runtime::new()?;
    let start = |shards: u32| {
        let flags = FLAGS.map(str::to_owned).into_iter().chain([format!("--shards={shards}")]);
        runtime.block_on(Single::builder(BINARY).flags(flags).start())
    };
    let singles = [("1 shard", start(1)?), ("3 shards", start(3)?), ("7 shards", start(7)?)];
    let shape = Shape { shards: 7, flags: FLAGS.map(str::to_owned).to_vec(), ..Shape::default() };
    let cluster = runtime.block_on(LocalCluster::start(BINARY, &shape))?;
    let single = |(name, single): &(&'static str, Single)| System {
        name,
        writer: single.client(),
        reader: single.client(),
    };
    let mut systems: Vec<System> = singles.iter().map(single).collect();
    systems.push(System { name: "three data nodes", writer: cluster.ingester()?, reader: cluster.proxy()? });

    let started = Instant::now();
    runtime.block_on(write_all(&systems, states)).context("writing")?;
    println!("{} states written and flushed in {:.1} s", states.len(), started.elapsed().as_secs_f64());
    let started = Instant::now();
    let report = ask_all(runtime.handle(), &systems, states);
    let seconds = started.elapsed().as_secs_f64();

    let mut all = Tally::default();
    for (script, tally) in &report {
        println!("{script}: passed {} of {} evals", tally.evals - tally.failed.len(), tally.evals);
        tally.failed.iter().for_each(|failure| println!("  {failure}"));
        tally.differences.iter().take(20).for_each(|difference| println!("  different: {difference}"));
        all.evals += tally.evals;
        all.asked += tally.asked;
        all.failed.extend(tally.failed.iter().cloned());
        all.differences.extend(tally.differences.iter().cloned());
    }
    let passed = all.evals - all.failed.len();
    println!("all: passed {passed} of {} evals, with {} questions in {seconds:.1} s", all.evals, all.asked);
    println!(
        "systems with the same answers: {}",
        systems.iter().map(|s| s.name).collect::<Vec<_>>().join(", ")
    );
    ensure!(all.failed.is_empty(), "{} evals failed", all.failed.len());
    ensure!(all.differences.is_empty(), "{} answers differ between systems", all.differences.len());
    Ok(())
}
