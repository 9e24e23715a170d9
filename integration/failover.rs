//! A cluster under `kill -9`: what a writer was told is kept, reads say what they lack.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinHandle;
use tricord_testkit::{Client, LocalCluster, RemoteSeries, Shape, Single, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const SERIES: usize = 24;
const LIMIT: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Writes serials, each into [`SERIES`] series that spread over the shards, and remembers which were acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<BTreeSet<u64>>,
}

impl Writer {
    fn start(client: Client, start_ms: i64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut acknowledged = BTreeSet::new();
            for serial in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let one = |n: usize| {
                    let writer = n.to_string();
                    let series = RemoteSeries::new("serial", &[("writer", &writer)]);
                    series.at(start_ms + serial as i64, serial as f64)
                };
                let series: Vec<RemoteSeries> = (0..SERIES).map(one).collect();
                if client.remote_write(&series).await.is_ok() {
                    acknowledged.insert(serial);
                }
            }
            acknowledged
        });
        Self { stop, task }
    }

    async fn finish(self) -> Result<BTreeSet<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

/// Every acknowledged serial is in every series, with its value.
async fn check_kept(client: &Client, acknowledged: &BTreeSet<u64>, start_ms: i64) -> Result<()> {
    let last = *acknowledged.last().context("nothing was acknowledged")?;
    let time = format!("{}", (start_ms + last as i64) as f64 / 1000.0);
    let range = format!("serial[{}ms]", last + 1);
    let data = client.api("/api/v1/query", &[("query", &range), ("time", &time)]).await?;
    let series = data["result"].as_array().context("no matrix")?;
    ensure!(series.len() == SERIES, "{} of {SERIES} series", series.len());
    for one in series {
        let mut found = BTreeSet::new();
        for pair in one["values"].as_array().context("no values")? {
            let t_ms = (pair[0].as_f64().context("no time")? * 1000.0).round() as i64;
            let value: f64 = pair[1].as_str().context("no value")?.parse()?;
            ensure!(value == (t_ms - start_ms) as f64, "{value} at {t_ms}");
            found.insert(value as u64);
        }
        let missing: Vec<_> = acknowledged.difference(&found).take(10).collect();
        ensure!(missing.is_empty(), "acknowledged but missing in {}: {missing:?}", one["metric"]);
    }
    Ok(())
}

async fn acknowledges(client: &Client) -> Result<()> {
    let series = |n: usize| RemoteSeries::new("probe", &[("n", &n.to_string())]).at(now_ms(), 1.0);
    let all: Vec<RemoteSeries> = (0..SERIES * 4).map(series).collect();
    client.remote_write(&all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_keeps_what_it_acknowledged_when_it_is_killed() -> Result<()> {
    let mut tricord = Single::start(BINARY).await?;
    let start_ms = now_ms();
    let writer = Writer::start(tricord.client(), start_ms);
    for _ in 0..3 {
        eventually(LIMIT, || written(tricord.client())).await?;
        tricord.kill().await?;
        tricord.restart().await?;
    }
    let acknowledged = writer.finish().await?;
    check_kept(&tricord.client(), &acknowledged, start_ms).await
}

/// Something was written in the last moment.
async fn written(client: Client) -> Result<()> {
    let count = client.value("count(count_over_time(serial[10m]))", None).await?;
    ensure!(count as usize == SERIES, "{count} series");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_data_nodes_keep_what_they_acknowledged() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = (cluster.ingester()?, cluster.proxy()?);
    let start_ms = now_ms();
    let writer = Writer::start(ingester.clone(), start_ms);
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

    let acknowledged = writer.finish().await?;
    eventually(LIMIT, || check_kept(&proxy, &acknowledged, start_ms)).await?;

    cluster.kill_all().await?;
    cluster.restart_all().await?;
    let proxy = cluster.proxy()?;
    eventually(LIMIT, || check_kept(&proxy, &acknowledged, start_ms)).await.context("after all were killed")
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
