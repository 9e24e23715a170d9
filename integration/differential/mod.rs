//! Random queries over random data, asked of Tricord and of Debian's Prometheus, whose answers must be the same.
//!
//! Everything follows from seeds. A difference is shrunk, in the query and then in the data, until nothing can be left
//! out; it fails the test unless [`known`] explains it by a change between Prometheus 2.42 and 3.14.
//! `make test` runs a few seeds; `make fuzz-promql SEEDS=1..100 QUERIES=500` runs many.

mod asked;
mod compare;
mod data;
mod grammar;
mod known;
mod mutate;
mod run;
mod shrink;
mod sides;
mod wire;

use anyhow::{Context, Result, ensure};
use tricord_testkit::Single;

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");

/// What `make test` asks: seeds, and queries for each.
const SEEDS: &str = "1..5";
const QUERIES: usize = 200;

/// `3`, or `1..5` without its end.
fn seeds(text: &str) -> Result<Vec<u64>> {
    let (from, until) = text.split_once("..").unwrap_or((text, ""));
    let from: u64 = from.trim().parse().with_context(|| format!("seeds {text:?} are not like 3 or 1..5"))?;
    let until = match until.trim() {
        "" => from + 1,
        until => until.parse().with_context(|| format!("seeds {text:?} are not like 3 or 1..5"))?,
    };
    ensure!(from < until && until - from <= 1_000_000, "seeds {text:?} are none or too many");
    Ok((from..until).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_are_answered_as_prometheus_answers_them() -> Result<()> {
    let setting = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let seeds = seeds(setting("FUZZ_SEEDS").as_deref().unwrap_or(SEEDS))?;
    let queries = setting("FUZZ_QUERIES").map_or(Ok(QUERIES), |text| text.parse()).context("FUZZ_QUERIES")?;
    let tricord = Single::builder(BINARY).flags(["--retention=0"]).start().await?;
    let report = run::run(&tricord.client(), &seeds, queries).await?;
    println!("{report}");
    ensure!(report.answered > report.asked / 2, "most queries were refused: the grammar is off\n{report}");
    ensure!(report.differences.is_empty(), "{} differences", report.differences.len());
    Ok(())
}
