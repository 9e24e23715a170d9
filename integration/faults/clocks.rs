//! Wall clocks that jump by an hour while everything runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tricord_testkit::{LocalCluster, Shape, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::{BINARY, LIMIT, faces, healthy, status};

/// How long a clock stays off: longer than every lease and the time after which a node counts as dead.
const OFF: Duration = Duration::from_secs(5);

/// The library that lets a process see another time.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path().join("faketime"));
    let found = folders.map(|folder| folder.join("libfaketimeMT.so.1")).find(|path| path.exists());
    found.context("libfaketime is missing: make test installs it (Debian's package faketime)")
}

/// The epochs of all shards.
async fn epochs(metadata: &str) -> Result<Vec<u64>> {
    let status = status(metadata).await?;
    let shards = status["shards"].as_array().context("no shards")?;
    shards.iter().map(|shard| shard["epoch"].as_u64().context("no epoch")).collect()
}

/// Leases and heartbeats are counted on monotonic clocks: no shard changes hands, reads go on, nothing is lost. What a
/// primary whose clock is behind takes for the future it refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_changes_no_lease() -> Result<()> {
    let library = library()?;
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let clock = cluster.data_dir().join("clock");
    std::fs::write(&clock, "+0\n")?;
    let by = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "FAKETIME_NO_CACHE=1".to_owned(),
    ];
    let by: Vec<&str> = by.iter().map(String::as_str).collect();
    // Those that stop last hand their shards over to one whose clock will jump.
    for (name, jumps) in
        [("metadata-1", true), ("querier-2", true), ("querier-3", false), ("querier-1", false)]
    {
        eventually(LIMIT, || healthy(&metadata)).await?;
        cluster.process(name)?.terminate(Duration::from_secs(60)).await?;
        cluster.restart_with(name, if jumps { &by } else { &[] }, &[]).await?;
    }
    eventually(LIMIT, || healthy(&metadata)).await?;
    let writer = Writer::start(ingester.clone());
    eventually(LIMIT, || written(proxy.clone())).await?;
    let before = epochs(&metadata).await?;
    for off in ["+3600", "-3600", "+0"] {
        std::fs::write(&clock, format!("{off}\n"))?;
        let began = Instant::now();
        while began.elapsed() < OFF {
            let asked = proxy.post_form("/api/v1/query", &[("query", "count(serial)")]).await?;
            let asked = asked.success().with_context(|| format!("{off} s"))?.json()?;
            ensure!(asked.get("warnings").is_none(), "{off} s: {asked}");
        }
        ensure!(epochs(&metadata).await? == before, "{off} s: shards have changed hands");
    }
    eventually(LIMIT, || acknowledges(&ingester)).await?;
    let written = writer.finish().await?;
    ensure!(!written.refusals.is_empty(), "the clock of a primary was never behind: it does not jump here");
    written.check_kept(&proxy).await
}
