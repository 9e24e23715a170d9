//! The parts of the Prometheus API that need real data nodes: exemplars, bounds, and queries whose askers go.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tricord_testkit::{Client, LocalCluster, RemoteSeries, Shape, Single, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_are_found_by_any_expression_over_their_series() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let client = tricord.client();
    let at = now_ms() / 1000;
    client
        .import(&format!(
            "latency_bucket{{le=\"0.5\"}} 3 # {{trace_id=\"aa01\",span_id=\"01\"}} 0.25 {at}.125\n\
             latency_bucket{{le=\"+Inf\"}} 4 # {{trace_id=\"aa02\"}} 0.75 {at}\n\
             other 1 # {{trace_id=\"aa03\"}} 1 {at}\n"
        ))
        .await?;
    let exemplars = |labels: Value, value: &str, time: Value| json!({"labels": labels, "value": value, "timestamp": time});
    let first = exemplars(json!({"trace_id": "aa01", "span_id": "01"}), "0.25", json!(at as f64 + 0.125));
    let second = exemplars(json!({"trace_id": "aa02"}), "0.75", json!(at));
    let series = |le: &str| json!({"__name__": "latency_bucket", "le": le});
    let both = json!([
        {"seriesLabels": series("+Inf"), "exemplars": [second]},
        {"seriesLabels": series("0.5"), "exemplars": [first]},
    ]);
    let (start, end) = ((at - 60).to_string(), (at + 60).to_string());
    let query = "histogram_quantile(0.9, sum by (le) (rate(latency_bucket[5m])))";
    for flushed in [false, true] {
        if flushed {
            client.post("/api/v1/admin/flush", &[], "").await?.success()?;
        }
        let found = client
            .api("/api/v1/query_exemplars", &[("query", query), ("start", &start), ("end", &end)])
            .await?;
        ensure!(found == both, "{found}");
        // All of time where no times are given, and several selectors.
        let two = "latency_bucket{le=\"0.5\"} + on () other";
        let found = client.api("/api/v1/query_exemplars", &[("query", two)]).await?;
        let names: Vec<&Value> =
            found.as_array().into_iter().flatten().map(|s| &s["seriesLabels"]["__name__"]).collect();
        ensure!(names == [&json!("latency_bucket"), &json!("other")], "{found}");
        let early = (at - 1).to_string();
        let before = [("query", query), ("start", start.as_str()), ("end", early.as_str())];
        let none = client.api("/api/v1/query_exemplars", &before).await?;
        ensure!(none == json!([]), "{none}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_a_data_node_finds_is_named() -> Result<()> {
    let flags = ["--proxy-max-samples=50", "--proxy-max-series=5"];
    let tricord = Single::builder(BINARY).flags(flags).start().await?;
    let client = tricord.client();
    let start = now_ms() - 100_000;
    let series: Vec<RemoteSeries> = (0..10i64)
        .map(|n| {
            let series = RemoteSeries::new("m", &[("n", &n.to_string())]);
            (0..20).fold(series, |series, at| series.at(start + at * 1000, at as f64))
        })
        .collect();
    client.remote_write(&series).await?;
    client.import(&(0..10).map(|n| format!("once{{n=\"{n}\"}} 1\n")).collect::<String>()).await?;
    for (path, query, setting) in [
        ("/api/v1/query", "rate(m[5m])", "max_samples"),
        ("/api/v1/query", "m[5m]", "max_samples"),
        ("/api/v1/query", "m{n=\"1\"}[5m]", ""),
        ("/api/v1/query", "once", "max_series"),
        ("/api/v1/query", "once[5m]", "max_series"),
        ("/api/v1/query", "count(once)", "max_series"),
        ("/api/v1/series", "once", "max_series"),
        ("/api/v1/labels", "once", ""),
        ("/api/v1/label/n/values", "once", "max_series"),
    ] {
        let parameters = [("query", query), ("match[]", query)];
        let answer = client.get(path, &parameters).await?;
        let text = answer.text();
        if setting.is_empty() {
            ensure!(answer.status == 200, "{query}: {text}");
            continue;
        }
        ensure!(answer.status == 422 && text.contains("\"execution\""), "{query}: {} {text}", answer.status);
        ensure!(text.contains(setting), "{query}: {text}");
    }
    Ok(())
}

/// One of the numbers of `/metrics`, summed over its labels.
pub(crate) async fn metric(client: &Client, name: &str) -> Result<f64> {
    let text = client.get("/metrics", &[]).await?.success()?.text();
    let lines =
        text.lines().filter(|line| line.strip_prefix(name).is_some_and(|r| r.starts_with([' ', '{'])));
    let values: Vec<f64> =
        lines.filter_map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok())).collect();
    if values.is_empty() {
        bail!("no {name} in /metrics");
    }
    Ok(values.iter().sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn data_nodes_stop_when_the_asker_goes() -> Result<()> {
    let cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = (cluster.ingester()?, cluster.proxy()?);
    let queriers: Vec<Client> = cluster
        .members()
        .filter(|member| member.role == "querier")
        .map(|member| Client::new(&member.http))
        .collect();
    ensure!(queriers.len() == 3, "{} data nodes", queriers.len());
    let start_ms = now_ms() - 3_600_000;
    let series: Vec<RemoteSeries> = (0..200i64)
        .map(|n| {
            let series = RemoteSeries::new("load", &[("n", &n.to_string())]);
            (0..1000).fold(series, |series, at| series.at(start_ms + at * 3000, (at * n % 977) as f64))
        })
        .collect();
    eventually(LIMIT, || ingester.remote_write(&series)).await?;
    let sum = |name: &'static str| {
        let queriers = queriers.clone();
        async move {
            let mut sum = 0.0;
            for querier in &queriers {
                sum += metric(querier, name).await?;
            }
            Ok::<_, anyhow::Error>(sum)
        }
    };
    const RUNNING: &str = "tricord_pool_queries_running";
    const CANCELLED: &str = "tricord_querier_fragments_cancelled_total";
    ensure!(sum(CANCELLED).await? == 0.0, "cancelled before anybody went");

    // Each of 200 series sorts 1,000 values at each of 11,000 steps: minutes of work.
    let start = (start_ms / 1000 + 3000).to_string();
    let end = (start_ms / 1000 + 3000 + 11_000).to_string();
    let slow = [
        ("query", "quantile_over_time(0.9, load[5h])"),
        ("start", start.as_str()),
        ("end", end.as_str()),
        ("step", "1"),
    ];
    let asking = tokio::spawn({
        let (proxy, slow) = (proxy.clone(), slow.map(|(name, value)| (name, value.to_owned())));
        async move {
            let slow: Vec<(&str, &str)> = slow.iter().map(|(name, value)| (*name, value.as_str())).collect();
            proxy.post_form("/api/v1/query_range", &slow).await
        }
    });
    let all_run = || async {
        let running = sum(RUNNING).await?;
        ensure!(running >= 3.0, "{running} fragments run");
        Ok(())
    };
    eventually(LIMIT, all_run).await?;
    // The connection goes with the request.
    asking.abort();
    ensure!(
        asking.await.is_err_and(|error| error.is_cancelled()),
        "the query has ended before it was given up"
    );
    let stopped = || async {
        let (running, cancelled) = (sum(RUNNING).await?, sum(CANCELLED).await?);
        ensure!(running == 0.0 && cancelled >= 3.0, "{running} run, {cancelled} were cancelled");
        ensure!(metric(&proxy, "tricord_proxy_queries_running").await? == 0.0, "the query keeps its turn");
        Ok(())
    };
    eventually(LIMIT, stopped).await.context("after the asker went")?;

    // A deadline stops them as well.
    let mut late = slow.to_vec();
    late.push(("timeout", "300ms"));
    let answer = proxy.post_form("/api/v1/query_range", &late).await?;
    ensure!(answer.status == 503 && answer.json()?["errorType"] == "timeout", "{}", answer.text());
    let stopped = || async {
        let (running, cancelled) = (sum(RUNNING).await?, sum(CANCELLED).await?);
        ensure!(running == 0.0 && cancelled >= 6.0, "{running} run, {cancelled} were cancelled");
        Ok(())
    };
    eventually(LIMIT, stopped).await.context("after the deadline")
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_counted_over_all_shards() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let client = tricord.client();
    let lines = (0..40).map(|host| format!("load{{instance=\"host-{host}\",job=\"j\"}} {host}\n"));
    client.import(&lines.collect::<String>()).await?;
    for query in ["load", "sum(load)", "load + on (instance) group_left () load"] {
        let data = client.api("/api/v1/query", &[("query", query), ("stats", "all")]).await?;
        let samples = &data["stats"]["samples"];
        let expected = 40 * query.matches("load").count();
        ensure!(samples["totalQueryableSamples"] == expected, "{query}: {samples}");
        ensure!(samples["totalQueryableSamplesPerStep"][0][1] == expected, "{query}: {samples}");
    }
    Ok(())
}
