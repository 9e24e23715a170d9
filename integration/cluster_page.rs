//! The state of the cluster as a page and as JSON: what is served and how, that it says what the command says, and what it
//! says when metadata is away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::header::{ACCEPT, LOCATION};
use serde_json::{Value, json};
use tricord_testkit::{Client, LocalCluster, Shape, Single, eventually};

use crate::faults::{status, tricord};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);
const PATH: &str = "/api/v1/status/cluster";

/// Takes out what changes from call to call.
fn settled(mut view: Value) -> Value {
    for (list, names) in [
        ("nodes", ["heartbeat_age_ms", "disk_used_bytes", "disk_free_bytes"].as_slice()),
        ("members", ["heard_age_ms"].as_slice()),
    ] {
        for one in view[list].as_array_mut().into_iter().flatten() {
            names.iter().for_each(|name| one[*name] = Value::Null);
        }
    }
    view
}

/// The endpoint says what the command says.
async fn same(client: &Client, metadata: &str) -> Result<Value> {
    let answer = client.get(PATH, &[]).await?.success()?;
    ensure!(answer.headers["cache-control"] == "no-store", "{:?}", answer.headers);
    let body = answer.json()?;
    ensure!(body["status"] == "success", "{body}");
    let (page, command) = (settled(body["data"].clone()), settled(status(metadata).await?));
    ensure!(page == command, "the page says {page}, the command {command}");
    Ok(page)
}

/// What a browser gets at a path, without following it: the status, and where it is led.
async fn browse(client: &Client, path: &str) -> Result<(u16, String)> {
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let asked = browser.get(client.url(path)).header(ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8");
    let answer = asked.send().await?;
    let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned();
    Ok((answer.status().as_u16(), to))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_the_page() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let client = tricord.client();
    let page = client.get("/ui/cluster", &[]).await?.success()?;
    ensure!(page.headers["content-type"] == "text/html; charset=utf-8", "{:?}", page.headers);
    ensure!(page.headers["x-content-type-options"] == "nosniff", "{:?}", page.headers);
    ensure!(page.headers["cache-control"] == "no-cache", "{:?}", page.headers);
    let policy = page.headers["content-security-policy"].to_str()?;
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        ensure!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    for (file, kind) in
        [("cluster.js", "text/javascript"), ("render.js", "text/javascript"), ("cluster.css", "text/css")]
    {
        ensure!(page.text().contains(file) || file == "render.js", "the page does not load {file}");
        let answer = client.get(&format!("/ui/{file}"), &[]).await?.success()?;
        ensure!(answer.headers["content-type"].to_str()?.starts_with(kind), "{file}: {:?}", answer.headers);
        // The browser's copy is good until another build runs.
        let tag = answer.headers["etag"].to_str()?.to_owned();
        let again = reqwest::Client::new().get(client.url(&format!("/ui/{file}")));
        let again = again.header("If-None-Match", tag).send().await?;
        ensure!(again.status() == 304, "{file}: {}", again.status());
    }

    // Browsers are led there; what else asks gets what it always got.
    for (path, to) in [("/", "ui/cluster"), ("/ui", "ui/cluster"), ("/ui/", "cluster")] {
        ensure!(browse(&client, path).await? == (307, to.to_owned()), "{path}");
        let other = client.get(path, &[]).await?;
        ensure!(other.status == 404 && other.json()?["errorType"] == "not_found", "{path}: {}", other.text());
    }
    ensure!(browse(&client, "/ui/clusters").await?.0 == 404, "an unknown page");
    ensure!(client.post("/", &[], "").await?.status == 404, "a POST is not led anywhere");

    let view = eventually(LIMIT, || same(&client, tricord.rpc())).await?;
    ensure!(view["level"] == "ok", "{view}");
    let shards = view["shards"].as_array().context("shards")?.len();
    let headline = format!("everything is in sync: {shards} shards with 1 copy each");
    ensure!(view["headline"] == headline.as_str(), "{view}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_says_what_it_lacks() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (proxy, metadata) = (cluster.proxy()?, cluster.metadata_addresses());
    let view = eventually(LIMIT, || same(&proxy, &metadata)).await?;
    ensure!(view["headline"] == "everything is in sync: 16 shards with 3 copies each", "{view}");
    ensure!(view["members"].as_array().map(Vec::len) == Some(3), "{view}");

    // A node is emptied.
    let id = cluster.member("querier-3")?.id;
    let node = id.to_string();
    let drain = ["cluster", "drain", &node, "--no-wait", "--allow-fewer-copies", "--metadata", &metadata];
    tricord(&drain).await?;
    eventually(LIMIT, async || {
        let view = same(&proxy, &metadata).await?;
        let nodes = view["nodes"].as_array().context("nodes")?;
        let node = nodes.iter().find(|node| node["id"] == id).context("the node")?;
        ensure!(node["drain"] == json!({ "left": 0, "of": 16, "waits_for": "" }), "{node}");
        let note = format!("node {id} is drained and can be switched off");
        ensure!(view["notes"].as_array().is_some_and(|notes| notes.contains(&note.into())), "{view}");
        Ok(())
    })
    .await?;

    // One of the two that are left dies, and a metadata member.
    let dead = cluster.member("querier-2")?.id;
    cluster.kill("querier-2").await?;
    cluster.kill("metadata-3").await?;
    eventually(LIMIT, async || {
        let view = same(&proxy, &metadata).await?;
        ensure!(view["level"] == "trouble" && view["shard_states"] == json!({ "read-only": 16 }), "{view}");
        ensure!(
            view["headline"].as_str().is_some_and(|text| text.starts_with("writes have stopped on 16")),
            "{view}"
        );
        let notes = view["notes"].to_string();
        ensure!(notes.contains(&format!("data node {dead} does not answer")), "{notes}");
        ensure!(notes.contains("1 of 3 metadata members does not answer"), "{notes}");
        Ok(())
    })
    .await?;

    // Without metadata the state is not known, and that is said soon. The page itself is there.
    cluster.kill("metadata-1").await?;
    cluster.kill("metadata-2").await?;
    eventually(LIMIT, async || {
        let asked = Instant::now();
        let answer = proxy.get(PATH, &[]).await?;
        let took = asked.elapsed();
        ensure!(answer.status == 503 && took < Duration::from_secs(5), "{} after {took:?}", answer.status);
        let body = answer.json()?;
        ensure!(body["status"] == "error" && body["errorType"] == "unavailable", "{body}");
        let error = body["error"].as_str().unwrap_or_default();
        ensure!(error.starts_with("no metadata leader answered"), "{error}");
        Ok(())
    })
    .await?;
    proxy.get("/ui/cluster", &[]).await?.success()?;
    // Neither is ready without the other.
    cluster.start_again("metadata-1", &[], &[])?;
    cluster.restart("metadata-2").await?;
    eventually(LIMIT, || same(&proxy, &metadata)).await.map(|_| ())
}
