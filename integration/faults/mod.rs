//! Faults of real processes under load: what was acknowledged is kept, and the cluster heals by itself. A part of them
//! runs with all tests; `make soak` runs the rest, for longer.

mod bounds;
mod clocks;
mod disks;
mod flips;
mod links;
mod moves;
mod network;
pub(crate) mod oracle;
mod partitions;
mod processes;
mod soak;
mod versions;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tricord_testkit::{Client, LocalCluster};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(90);

/// What a command of the binary prints; fails with what it complains of.
pub(crate) async fn tricord(args: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(BINARY).args(args).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What `tricord cluster status --json` says.
pub(crate) async fn status(metadata: &str) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&tricord(&["cluster", "status", "--json", "--metadata", metadata]).await?)?)
}

/// No shard counts on a node: it leads none, and none waits for it.
async fn left_out(metadata: &str, node: u64) -> Result<()> {
    let status = status(metadata).await?;
    let shards = status["shards"].as_array().context("no shards")?;
    let led = shards.iter().filter(|shard| shard["primary"] == node).count();
    let counts = |shard: &&serde_json::Value| {
        shard["in_sync"].as_array().is_none_or(|nodes| nodes.contains(&node.into()))
    };
    let waiting = shards.iter().filter(counts).count();
    ensure!(waiting == 0, "{waiting} shards wait for node {node}, which leads {led}");
    Ok(())
}

/// All shards have all their copies in sync and a primary, as metadata sees it.
async fn healthy(metadata: &str) -> Result<()> {
    let status = status(metadata).await?;
    let shards = status["shards"].as_array().context("no shards")?;
    let ill = shards.iter().filter(|shard| {
        let copies = shard["in_sync"].as_array().map_or(0, Vec::len) as u64;
        Some(copies) != status["replicas"].as_u64() || shard["state"] != "ok"
    });
    let ill = ill.count();
    ensure!(ill == 0 && !shards.is_empty(), "{ill} of {} shards are not well", shards.len());
    Ok(())
}

/// Ingester and proxy of a local cluster.
fn faces(cluster: &LocalCluster) -> Result<(Client, Client)> {
    Ok((cluster.ingester()?, cluster.proxy()?))
}
