//! The long runs of `make soak`: many kills with the time that each costs writers, and every partition.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tricord_testkit::{LocalCluster, Shape, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::partitions::{Partition, run};
use super::{BINARY, LIMIT, faces, healthy};

/// No loss of a primary may keep writers waiting for longer.
const MOST_WAIT: Duration = Duration::from_secs(6);

/// A number from the environment.
pub(super) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Kills data nodes and metadata members at random (`SOAK_KILLS` times, by `SOAK_SEED`), under load.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn kills() -> Result<()> {
    let (rounds, seed) = (number("SOAK_KILLS", 100), number("SOAK_SEED", 1));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let began = Instant::now();
    let writer = Writer::at_rate(ingester.clone(), number("SOAK_SAMPLES_PER_S", 20_000) as f64);
    eventually(LIMIT, || written(proxy.clone())).await?;
    let mut primaries_lost = Vec::new();
    let mut killed = BTreeSet::new();
    for round in 0..rounds {
        eventually(LIMIT, || healthy(&metadata)).await.with_context(|| format!("before round {round}"))?;
        // Each data node leads some shards, so that the loss of any is the loss of primaries.
        let role = if rng.random_bool(0.75) { "querier" } else { "metadata" };
        let name = format!("{role}-{}", rng.random_range(1..=3));
        let at = Instant::now();
        cluster.kill(&name).await?;
        eventually(LIMIT, || acknowledges(&ingester)).await.with_context(|| format!("{name} is dead"))?;
        if role == "querier" {
            primaries_lost.push((at, Instant::now()));
        }
        let asked =
            proxy.post_form("/api/v1/query", &[("query", "count(serial)")]).await?.success()?.json()?;
        ensure!(asked.get("warnings").is_none(), "copies remain, yet {asked}");
        cluster.restart(&name).await?;
        killed.insert(name);
    }
    let written = writer.finish().await?;
    eventually(LIMIT, || written.check_kept(&proxy)).await?;
    let mut gaps: Vec<Duration> =
        primaries_lost.iter().map(|(from, to)| written.longest_gap(*from, *to)).collect();
    gaps.sort_unstable();
    let (median, worst) = (gaps.get(gaps.len() / 2), gaps.last());
    println!(
        "{rounds} kills of {killed:?}, {} with a loss of primaries: median {median:?}, worst {worst:?} without a \
         write; {} samples acknowledged, {:.0} a second, {} writes refused",
        gaps.len(),
        written.samples(),
        written.samples() as f64 / began.elapsed().as_secs_f64(),
        written.refusals.len()
    );
    ensure!(worst.is_none_or(|worst| *worst <= MOST_WAIT), "the worst is above {MOST_WAIT:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, and needs root: make soak"]
async fn partitions() -> Result<()> {
    run(&Partition::ALL).await
}
