//! A cluster under `kill -9`: what a writer was told is kept, reads say what they lack.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tricord_testkit::{Client, LocalCluster, Shape, Single, eventually};

use crate::faults::oracle::{SERIES, Writer, acknowledges, written};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn one_process_keeps_what_it_acknowledged_when_it_is_killed() -> Result<()> {
    let mut tricord = Single::start(BINARY).await?;
    let writer = Writer::start(tricord.client());
    for _ in 0..3 {
        eventually(LIMIT, || written(tricord.client())).await?;
        tricord.kill().await?;
        tricord.restart().await?;
    }
    let written = writer.finish().await?;
    written.check_kept(&tricord.client()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_data_nodes_keep_what_they_acknowledged() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = (cluster.ingester()?, cluster.proxy()?);
    let writer = Writer::start(ingester.clone());
    eventually(LIMIT, || written(proxy.clone())).await?;

    // One after the other dies and returns; writes go on each time without it.
    for node in ["querier-1", "querier-2", "querier-3"] {
        cluster.kill(node).await?;
        eventually(LIMIT, || acknowledges(&ingester))
            .await
            .with_context(|| format!("writing without {node}"))?;
        let partial =
            proxy.post_form("/api/v1/query", &[("query", "count(serial)")]).await?.success()?.json()?;
        ensure!(partial.get("warnings").is_none(), "copies remain, yet {partial}");
        cluster.restart(node).await.with_context(|| format!("{node} returns"))?;
    }
    // A metadata member dies: writing goes on.
    cluster.kill("metadata-1").await?;
    eventually(LIMIT, || acknowledges(&ingester)).await.context("writing without metadata-1")?;
    cluster.restart("metadata-1").await?;

    let written = writer.finish().await?;
    eventually(LIMIT, || written.check_kept(&proxy)).await?;

    cluster.kill_all().await?;
    cluster.restart_all().await?;
    let proxy = cluster.proxy()?;
    eventually(LIMIT, || written.check_kept(&proxy)).await.context("after all were killed")
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_shards_are_named() -> Result<()> {
    let shape = Shape { replicas: 1, min_insync: 1, ..Shape::default() };
    let mut cluster = LocalCluster::start(BINARY, &shape).await?;
    let (ingester, proxy) = (cluster.ingester()?, cluster.proxy()?);
    eventually(LIMIT, || acknowledges(&ingester)).await?;
    ensure!(proxy.value("count(probe)", None).await? as usize == SERIES * 4, "all series");
    cluster.kill("querier-2").await?;
    eventually(LIMIT, || named(proxy.clone())).await?;
    let deny = [("query", "count(probe)"), ("partial_response", "deny")];
    let denied = proxy.post_form("/api/v1/query", &deny).await?;
    ensure!(denied.status == 503, "denied with {}: {}", denied.status, denied.text());
    let command = |more: &[&str]| {
        let asked = ["query", "--url", &proxy.url(""), "count(probe)"];
        Command::new(BINARY).args(asked).args(more).output()
    };
    let refused = command(&[])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("lacks the data of shards"), "{said}");
    ensure!(command(&["--allow-partial"])?.status.success(), "a partial answer is taken when asked for");
    cluster.restart("querier-2").await?;
    eventually(LIMIT, || whole(proxy.clone())).await
}

async fn named(proxy: Client) -> Result<()> {
    let answer = proxy.post_form("/api/v1/query", &[("query", "count(probe)")]).await?.success()?;
    let header = answer.headers.get("x-tricord-missing-shards").cloned();
    let body = answer.json()?;
    let warning = body["warnings"][0].as_str().unwrap_or_default().to_owned();
    match header {
        Some(shards) => ensure!(warning.contains("shard") && !shards.is_empty(), "{warning}"),
        None => bail!("no shard is named: {body}"),
    }
    Ok(())
}

async fn whole(proxy: Client) -> Result<()> {
    let answer = proxy.post_form("/api/v1/query", &[("query", "count(probe)")]).await?.success()?.json()?;
    ensure!(answer.get("warnings").is_none(), "{answer}");
    let all = (SERIES * 4).to_string();
    ensure!(answer["data"]["result"][0]["value"][1] == all.as_str(), "{answer}");
    Ok(())
}
