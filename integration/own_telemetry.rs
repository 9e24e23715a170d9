//! Tricord watches itself: its metrics draw a line under tenant `tricord`, a query's own trace can be opened, and every
//! role's pages are there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tricord_testkit::{Single, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_start_has_something_to_look_at() -> Result<()> {
    let flags = ["--own-telemetry=true", "--own-telemetry-interval-s=1"];
    let tricord = Single::builder(BINARY).flags(flags).start().await?;
    let (client, own) = (tricord.client(), tricord.client().tenant("tricord"));
    client.import("hello 1\n").await?;

    let line = || async {
        let rates = own.query("rate(tricord_ingester_samples_total[1m])", None).await?;
        ensure!(rates.iter().any(|(_, rate)| rate.parse::<f64>().is_ok_and(|rate| rate > 0.0)), "{rates:?}");
        Ok(())
    };
    eventually(LIMIT, line).await.context("a line under tenant tricord")?;

    let trace = || async {
        client.api("/api/v1/query", &[("query", "hello")]).await?;
        let search = [("q", "{ name =~ \".*query.*\" }"), ("limit", "5")];
        let found = own.get("/tempo/api/search", &search).await?.success()?.json()?;
        let id = found["traces"][0]["traceID"].as_str().with_context(|| format!("no trace yet: {found}"))?;
        own.get(&format!("/tempo/api/traces/{id}"), &[]).await?.success()?;
        Ok(())
    };
    eventually(LIMIT, trace).await.context("a query's own trace")?;
    let others = client.get("/jaeger/api/services", &[]).await?.success()?.json()?;
    ensure!(others["data"].as_array().is_some_and(Vec::is_empty), "other tenants do not see it: {others}");

    let metrics = client.get("/metrics", &[]).await?.success()?.text();
    for name in [
        "tricord_ingester_samples_total",
        "tricord_querier_",
        "tricord_proxy_",
        "tricord_metadata_",
        "tricord_replication_",
    ] {
        ensure!(metrics.contains(name), "no {name} in /metrics");
    }
    client.get("/health/live", &[]).await?.success().map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_query_names_its_dashboard() -> Result<()> {
    let tricord = Single::builder(BINARY).flags(["--proxy-slow-query=1ms"]).start().await?;
    let http = reqwest::Client::new();
    let url = tricord.client().url("/api/v1/query");
    let asked = http.get(url).query(&[("query", "count_over_time(vector(4711)[20h:1s])")]);
    let asked = asked.header("X-Dashboard-Uid", "board-1").header("X-Panel-Id", "7").send().await?;
    ensure!(asked.status() == 200, "{}", asked.status());
    let logged = || async {
        let log = tricord.log();
        let line =
            log.lines().find(|line| line.contains("vector(4711)")).context("the query is not in the log")?;
        ensure!(line.contains("board-1") && line.contains('7'), "{line}");
        Ok(())
    };
    eventually(Duration::from_secs(20), logged).await
}
