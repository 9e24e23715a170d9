//! Deleting series: what was acknowledged as deleted never comes back, and what was written later stays.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tricord_testkit::{Client, LocalCluster, RemoteSeries, Shape, Single, eventually};

use crate::faults::oracle::now_ms;
use crate::prometheus_api::metric;

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);
const ENABLED: &str = "--proxy-enable-admin-api=true";
const DELETE: &str = "/api/v1/admin/tsdb/delete_series";
const CLEAN: &str = "/api/v1/admin/tsdb/clean_tombstones";

/// Series of a name, spread over the shards, each with ten samples one second apart.
fn series(name: &str, start_ms: i64) -> Vec<RemoteSeries> {
    let one = |n: usize| {
        let series = RemoteSeries::new(name, &[("writer", &n.to_string())]);
        (0..10).fold(series, |series, at| series.at(start_ms + at * 1_000, at as f64))
    };
    (0..30).map(one).collect()
}

/// How many samples of a name a query finds.
async fn samples(client: &Client, name: &str) -> Result<usize> {
    let found = client.query(&format!("sum(count_over_time({name}[1h]))"), None).await?;
    found.first().map_or(Ok(0), |(_, count)| count.parse().with_context(|| count.clone()))
}

async fn names(client: &Client) -> Result<BTreeSet<String>> {
    let names = client.get("/api/v1/label/__name__/values", &[]).await?.success()?.json()?;
    let names = names["data"].as_array().into_iter().flatten();
    Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

async fn delete(client: &Client, form: &[(&str, &str)]) -> Result<()> {
    let answer = client.post_form(DELETE, form).await?.success()?;
    ensure!(answer.status == 204 && answer.body.is_empty(), "{}: {}", answer.status, answer.text());
    Ok(())
}

async fn clean(client: &Client) -> Result<()> {
    let answer = client.post(CLEAN, &[], "").await?.success()?;
    ensure!(answer.status == 204, "{}", answer.status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_keeps_deletes_when_it_is_killed() -> Result<()> {
    let mut tricord = Single::start(BINARY).await?;
    let client = tricord.client();
    let refused = client.post_form(DELETE, &[("match[]", "up")]).await?;
    ensure!(refused.status == 503 && refused.text().contains("admin APIs disabled"), "{}", refused.text());
    tricord.terminate().await?;
    tricord.restart_with(&[ENABLED]).await?;

    let start_ms = now_ms() - 60_000;
    let other = tricord.client().tenant("other");
    for (client, name) in [(&client, "one"), (&client, "two"), (&client, "three"), (&other, "one")] {
        client.remote_write(&series(name, start_ms)).await?;
    }
    // One in memory alone, one when it is on disk, and a part of the third in both.
    delete(&client, &[("match[]", "one")]).await?;
    let from = ((start_ms + 2_000) as f64 / 1e3).to_string();
    let until = ((start_ms + 3_000) as f64 / 1e3).to_string();
    delete(&client, &[("match[]", "three"), ("start", &from), ("end", &until)]).await?;
    client.post("/api/v1/admin/flush", &[], "").await?.success()?;
    delete(&client, &[("match[]", "two"), ("match[]", "nothing")]).await?;
    let from = ((start_ms + 8_000) as f64 / 1e3).to_string();
    delete(&client, &[("match[]", "three{writer=~\"1.*\"}"), ("start", &from)]).await?;
    // Later than the delete, for times that are deleted.
    client.remote_write(&series("two", start_ms)[..3]).await?;

    for round in 0..4 {
        let context = || format!("round {round}");
        ensure!(samples(&client, "one").await? == 0, "{}", context());
        ensure!(samples(&client, "two").await? == 30, "{}", context());
        ensure!(samples(&client, "three").await? == 30 * 8 - 11 * 2, "{}", context());
        ensure!(samples(&other, "one").await? == 300, "{}", context());
        ensure!(names(&client).await? == ["three", "two"].map(str::to_owned).into(), "{}", context());
        let listed = client.get("/api/v1/series", &[("match[]", "{__name__=~\"one|two\"}")]).await?;
        ensure!(listed.json()?["data"].as_array().map(Vec::len) == Some(3), "{}", listed.text());
        if round == 2 {
            ensure!(metric(&client, "tricord_querier_tombstones").await? > 0.0, "it is on disk still");
            clean(&client).await?;
        } else {
            tricord.kill().await?;
            tricord.restart().await?;
        }
    }
    ensure!(metric(&client, "tricord_querier_tombstones").await? == 0.0, "nothing is left to hide");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_data_nodes_keep_deletes_whoever_dies() -> Result<()> {
    let mut shape = Shape::default();
    shape.flags.push(ENABLED.to_owned());
    let mut cluster = LocalCluster::start(BINARY, &shape).await?;
    let (ingester, proxy) = (cluster.ingester()?, cluster.proxy()?);
    let start_ms = now_ms() - 60_000;
    for name in ["before", "meanwhile", "kept"] {
        eventually(LIMIT, || {
            let (ingester, series) = (ingester.clone(), series(name, start_ms));
            async move { ingester.remote_write(&series).await }
        })
        .await?;
    }
    delete(&proxy, &[("match[]", "before")]).await?;
    proxy.post("/api/v1/admin/flush", &[], "").await?.success()?;

    // One after the other is away while something is deleted, and then leads again.
    for (round, node) in ["querier-1", "querier-2", "querier-3"].into_iter().enumerate() {
        cluster.kill(node).await?;
        let selector = format!("meanwhile{{writer=~\"{round}.*\"}}");
        eventually(LIMIT, || delete_from(&proxy, &selector))
            .await
            .with_context(|| format!("without {node}"))?;
        cluster.restart(node).await.with_context(|| format!("{node} returns"))?;
    }
    let left = 300 - 10 * (0..30).filter(|n: &usize| n.to_string().starts_with(['0', '1', '2'])).count();
    eventually(LIMIT, || kept(&proxy, left)).await?;

    // Two of three are away: the shards that cannot acknowledge are named, and nothing is half said.
    cluster.kill("querier-1").await?;
    cluster.kill("querier-2").await?;
    let refused = proxy.post_form(DELETE, &[("match[]", "kept"), ("start", "1"), ("end", "2")]).await?;
    ensure!(refused.status == 503 && refused.text().contains("shards"), "{}", refused.text());
    cluster.restart("querier-1").await?;
    cluster.restart("querier-2").await?;
    eventually(LIMIT, || kept(&proxy, left)).await?;

    cluster.kill_all().await?;
    cluster.restart_all().await?;
    let proxy = cluster.proxy()?;
    eventually(LIMIT, || kept(&proxy, left)).await.context("after all were killed")?;
    eventually(LIMIT, || clean(&proxy)).await?;
    eventually(LIMIT, || kept(&proxy, left)).await.context("after cleaning")?;
    for node in ["querier-1", "querier-2", "querier-3"] {
        let client = Client::new(&cluster.member(node)?.http);
        ensure!(metric(&client, "tricord_querier_tombstones").await? == 0.0, "{node} has cleaned");
    }
    Ok(())
}

async fn delete_from(proxy: &Client, selector: &str) -> Result<()> {
    delete(proxy, &[("match[]", selector)]).await
}

/// Whether all is there that was not deleted, and nothing else.
async fn kept(proxy: &Client, meanwhile: usize) -> Result<()> {
    let whole = [("query", "count(kept)"), ("partial_response", "deny")];
    proxy.post_form("/api/v1/query", &whole).await?.success()?;
    // Several times, as each replica may answer.
    for _ in 0..6 {
        let found = [
            samples(proxy, "before").await?,
            samples(proxy, "meanwhile").await?,
            samples(proxy, "kept").await?,
        ];
        ensure!(found == [0, meanwhile, 300], "{found:?}, not [0, {meanwhile}, 300]");
    }
    Ok(())
}
