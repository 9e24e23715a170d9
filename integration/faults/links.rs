//! A link on which everything takes half a second longer.

use std::time::Duration;

use anyhow::{Context, Result};
use tricord_testkit::{LocalCluster, Shape, SlowLink, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::{BINARY, LIMIT, faces, healthy, left_out};

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
    eventually(LIMIT, || left_out(&metadata, slow.id)).await?;
    eventually(LIMIT, || acknowledges(&ingester)).await?;

    link.hold_back(Duration::ZERO);
    eventually(LIMIT, || healthy(&metadata)).await.context("after the link is quick again")?;
    writer.finish().await?.check_kept(&proxy).await
}
