//! Bytes of a data node's files that are not what they were.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tricord_testkit::{Client, LocalCluster, Shape, eventually};

use super::oracle::{Writer, written};
use super::{BINARY, LIMIT, faces, healthy};

/// The sorted files of a data node.
fn sorted_files(node: &Path) -> Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(node.join("store/rocks"))?.flatten().map(|entry| entry.path());
    Ok(files.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect())
}

/// Flips a byte in the first half of a file, where its data is.
fn flip(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let at = bytes.len() / 4;
    *bytes.get_mut(at).context("an empty file")? ^= 0x40;
    Ok(std::fs::write(path, bytes)?)
}

async fn metric(node: &Client, name: &str) -> Result<f64> {
    let text = node.get("/metrics", &[]).await?.success()?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim().parse()?)
}

/// Other replicas answer for the node, and it is copied again from them.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_flipped_bytes_serves_nothing_wrong_and_is_copied_again() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let writer = Writer::start(ingester);
    eventually(LIMIT, || written(proxy.clone())).await?;
    let written = writer.finish().await?;
    // Everything is in sorted files, and all of it is needed for the oracle's question.
    // What nodes know of their shards beside that is written out with a merge.
    for what in ["flush", "merge"] {
        proxy.post(&format!("/api/v1/admin/{what}"), &[], Vec::new()).await?.success()?;
    }
    cluster.kill("querier-3").await?;
    let files = sorted_files(&cluster.data_dir().join("querier-3"))?;
    ensure!(!files.is_empty(), "nothing was written out");
    files.iter().try_for_each(|path| flip(path))?;
    cluster.start_again("querier-3", &[], &[])?;
    let node = Client::new(&cluster.member("querier-3")?.http);
    eventually(LIMIT, || written.check_kept(&proxy)).await?;
    let found = async || {
        // Whichever replica is asked next, the answer is the same, and some day it is the damaged one.
        written.check_kept(&proxy).await?;
        let renewed = metric(&node, "tricord_replication_renewed_total ").await?;
        ensure!(renewed > 0.0, "nothing is copied again yet");
        Ok(())
    };
    eventually(LIMIT, found).await?;
    eventually(LIMIT, || healthy(&metadata)).await?;
    written.check_kept(&proxy).await
}
