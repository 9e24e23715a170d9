//! A link on which everything takes half a second longer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tricord_testkit::{LocalCluster, Shape, SlowLink, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::{BINARY, LIMIT, faces, healthy, status};

const HELD_BACK: Duration = Duration::from_millis(500);

/// A node that others reach only slowly does answer, and holds up every write as long as it counts: it leads no shard any
/// more, is left out of all in-sync sets, and comes back once its link is quick again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_a_slow_link_is_left_out_until_it_is_quick() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let slow = cluster.member("querier-3")?.clone();
    let link = SlowLink::to(slow.rpc.as_deref().context("a data node listens")?).await?;
    cluster.process("querier-3")?.terminate(Duration::from_secs(60)).await?;
    cluster.restart_with("querier-3", &[], &[&format!("--advertise={}", link.address())]).await?;
    eventually(LIMIT, || healthy(&metadata)).await?;
    let writer = Writer::start(ingester.clone());
    eventually(LIMIT, || written(proxy.clone())).await?;

    link.hold_back(HELD_BACK);
    let left_out = async || {
        let status = status(&metadata).await?;
        let shards = status["shards"].as_array().context("no shards")?;
        let in_sync =
            |shard: &&Value| shard["in_sync"].as_array().is_none_or(|nodes| nodes.contains(&slow.id.into()));
        let waiting = shards.iter().filter(in_sync).count();
        let led = shards.iter().filter(|shard| shard["primary"] == slow.id).count();
        ensure!(waiting == 0, "{waiting} shards wait for the slow one, which leads {led}");
        Ok(())
    };
    eventually(LIMIT, left_out).await?;
    eventually(LIMIT, || acknowledges(&ingester)).await?;

    link.hold_back(Duration::ZERO);
    eventually(LIMIT, || healthy(&metadata)).await.context("after the link is quick again")?;
    writer.finish().await?.check_kept(&proxy).await
}
