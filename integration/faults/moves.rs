//! Shards on the move under load: processes die at any step of it, and a node is added.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tricord_testkit::{LocalCluster, Shape, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::soak::number;
use super::{BINARY, LIMIT, faces, healthy, status, tricord};

/// How long the quiet before a move is measured.
const QUIET: Duration = Duration::from_secs(20);
/// How long evening out may take: a shard a second, after half a minute of calm.
const EVEN_LIMIT: Duration = Duration::from_secs(300);

/// How many shards a node holds or is about to hold, and how many are on their way to anybody.
fn held(status: &Value, node: u64) -> Result<(usize, usize)> {
    let shards = status["shards"].as_array().context("no shards")?;
    let lists = |shard: &Value, list: &str| shard[list].as_array().cloned().unwrap_or_default();
    let holds =
        |shard: &&Value| ["in_sync", "joining"].iter().any(|list| lists(shard, list).contains(&node.into()));
    let joining = shards.iter().filter(|shard| !lists(shard, "joining").is_empty());
    Ok((shards.iter().filter(holds).count(), joining.count()))
}

/// Tells metadata that a node is to be emptied, or is not.
async fn drain(metadata: &str, node: u64, undo: bool) -> Result<()> {
    let node = node.to_string();
    let mut args = vec!["cluster", "drain", &node, "--metadata", metadata, "--no-wait"];
    args.extend(undo.then_some("--undo"));
    tricord(&args).await.map(drop)
}

/// Empties one node after the other, and kills whoever it hits meanwhile.
pub(super) async fn run(rounds: u64, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = LocalCluster::start(BINARY, &Shape { data_nodes: 4, ..Shape::default() }).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let writer = Writer::start(ingester.clone());
    eventually(LIMIT, || written(proxy.clone())).await?;
    for round in 0..rounds {
        let what = format!("round {round} of seed {seed}");
        eventually(LIMIT, || healthy(&metadata)).await.with_context(|| format!("before {what}"))?;
        let leaver = format!("querier-{}", rng.random_range(1..=4));
        let id = cluster.member(&leaver)?.id;
        drain(&metadata, id, false).await.with_context(|| what.clone())?;
        // At some step of it, which is another one each time.
        let began = Instant::now();
        let wait = Duration::from_millis(rng.random_range(0..1_500));
        eventually(LIMIT, async || {
            let (left, moving) = held(&status(&metadata).await?, id)?;
            ensure!(
                began.elapsed() >= wait && (moving > 0 || left == 0),
                "{left} left, {moving} on their way"
            );
            Ok(())
        })
        .await
        .with_context(|| what.clone())?;
        let victim = match rng.random_range(0..6) {
            0 => "metadata-1".to_owned(),
            1 => leaver.clone(),
            _ => format!("querier-{}", rng.random_range(1..=4)),
        };
        cluster.kill(&victim).await?;
        let context = || format!("{what}: {victim} is dead while {leaver} is emptied");
        eventually(LIMIT, || acknowledges(&ingester)).await.with_context(context)?;
        cluster.restart(&victim).await.with_context(context)?;
        eventually(LIMIT, async || {
            let (left, _) = held(&status(&metadata).await?, id)?;
            ensure!(left == 0, "{leaver} still holds {left} shards");
            Ok(())
        })
        .await
        .with_context(context)?;
        eventually(LIMIT, || healthy(&metadata)).await.with_context(context)?;
        drain(&metadata, id, true).await?;
    }
    let written = writer.finish().await?;
    eventually(LIMIT, || written.check_kept(&proxy)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_survives_the_death_of_whoever_takes_part() -> Result<()> {
    run(2, 1).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn many_moves() -> Result<()> {
    run(number("SOAK_MOVES", 20), number("SOAK_SEED", 1)).await
}

/// Nothing but load for a while, and somebody who looks at the cluster as often as while it changes.
async fn quiet(metadata: &str) -> Result<()> {
    let began = Instant::now();
    eventually(LIMIT, async || {
        status(metadata).await?;
        ensure!(began.elapsed() >= QUIET, "the quiet is being measured");
        Ok(())
    })
    .await
}

/// A fourth node joins three under load: copies even out, and writes hardly notice.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn a_fourth_node() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let writer = Writer::at_rate(ingester.clone(), number("SOAK_SAMPLES_PER_S", 20_000) as f64);
    eventually(LIMIT, || written(proxy.clone())).await?;
    eventually(LIMIT, || healthy(&metadata)).await?;
    let began = Instant::now();
    quiet(&metadata).await?;
    let (added, name) = (Instant::now(), cluster.add_node().await?);
    let id = cluster.member(&name)?.id;
    eventually(EVEN_LIMIT, async || {
        let status = status(&metadata).await?;
        let shards = status["shards"].as_array().context("no shards")?.len();
        let (held, moving) = held(&status, id)?;
        // Three copies of each over four nodes.
        ensure!(
            moving == 0 && held >= shards * 3 / 4,
            "{name} holds {held} of {shards}, {moving} on their way"
        );
        Ok(())
    })
    .await?;
    eventually(LIMIT, || healthy(&metadata)).await?;
    let evened = Instant::now();
    quiet(&metadata).await?;
    let after = Instant::now();
    let written = writer.finish().await?;
    written.check_kept(&proxy).await?;
    let p99 = [(began, added), (added, evened), (evened, after)].map(|(from, to)| written.p99(from, to));
    println!(
        "a fourth node: {} samples, {} writes refused; evened out after {:?}; p99 of a write before, meanwhile and \
         afterwards {p99:?}; the longest wait {:?}",
        written.samples(),
        written.refusals.len(),
        evened - added,
        written.longest_gap(added, evened)
    );
    ensure!(written.refusals.is_empty(), "writes were refused: {:?}", written.refusals.first());
    Ok(())
}
