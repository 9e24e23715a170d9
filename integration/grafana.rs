//! The calls that Grafana's Prometheus, Tempo and Jaeger data sources make, in their forms.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tricord_testkit::{Client, Single};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

async fn success(client: &Client, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
    let answer = client.get(path, parameters).await?;
    let text = answer.text();
    let body = answer.success().with_context(|| path.to_owned())?.json()?;
    ensure!(body["status"] == "success", "{path}: {text}");
    Ok(body["data"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_data_source() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let client = tricord.client();
    client
        .import("# HELP requests_total Requests.\n# TYPE requests_total counter\nrequests_total{job=\"a\",code=\"200\"} 7\n")
        .await?;

    // Save & test.
    let tested =
        client.post_form("/api/v1/query", &[("query", "1+1"), ("time", "4")]).await?.success()?.json()?;
    ensure!(tested["data"] == json!({"resultType": "scalar", "result": [4, "2"]}), "{tested}");
    let build = success(&client, "/api/v1/status/buildinfo", &[]).await?;
    ensure!(build["version"].as_str().is_some_and(|version| version.starts_with("3.")), "{build}");
    ensure!(
        build.get("features").is_none() && build.get("application").is_none(),
        "taken for Mimir: {build}"
    );
    ensure!(client.get("/api/v1/status/flags", &[]).await?.status == 404, "taken for Thanos");

    // A panel, with seconds as floats.
    let (start, end) = (format!("{:.3}", now_s() - 300.0), format!("{:.3}", now_s()));
    let range = [("start", start.as_str()), ("end", end.as_str()), ("step", "15")];
    let mut panel = vec![("query", "sum by (code) (requests_total)")];
    panel.extend(range);
    let drawn = client.post_form("/api/v1/query_range", &panel).await?.success()?.json()?;
    ensure!(drawn["data"]["result"][0]["metric"] == json!({"code": "200"}), "{drawn}");

    // Completion and variables; a data source may be set to GET or POST.
    let window = [("start", start.as_str()), ("end", end.as_str()), ("limit", "40000")];
    for form in
        [client.post_form("/api/v1/labels", &window).await?, client.get("/api/v1/labels", &window).await?]
    {
        ensure!(form.success()?.json()?["data"] == json!(["__name__", "code", "job"]), "labels");
    }
    let values = success(&client, "/api/v1/label/code/values", &window).await?;
    ensure!(values == json!(["200"]), "{values}");
    let mut matching = window.to_vec();
    matching.push(("match[]", "requests_total"));
    let series = client.post_form("/api/v1/series", &matching).await?.success()?.json()?;
    ensure!(series["data"] == json!([{"__name__": "requests_total", "code": "200", "job": "a"}]), "{series}");
    let metadata = success(&client, "/api/v1/metadata", &[("limit", "40000")]).await?;
    ensure!(metadata["requests_total"][0]["type"] == "counter", "{metadata}");
    for list in ["rules", "alerts", "targets"] {
        success(&client, &format!("/api/v1/{list}"), &[]).await?;
    }

    // The exemplar probe comes with milliseconds.
    let (start, end) = (format!("{:.0}", (now_s() - 60.0) * 1000.0), format!("{:.0}", now_s() * 1000.0));
    let probe = [("query", "requests_total"), ("start", start.as_str()), ("end", end.as_str())];
    success(&client, "/api/v1/query_exemplars", &probe).await?;

    // An error is an envelope that the data source can read.
    let wrong = client.post_form("/api/v1/query", &[("query", "sum(")]).await?;
    ensure!(wrong.status == 400 && wrong.json()?["errorType"] == "bad_data", "{}", wrong.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_data_sources() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let client = tricord.client();
    let now_ns = (now_s() * 1e9) as u64;
    let span = |id: &str, parent: &str, name: &str, kind: u8| {
        json!({"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": id, "parentSpanId": parent, "name": name,
               "kind": kind, "startTimeUnixNano": now_ns.to_string(), "endTimeUnixNano": (now_ns + 2_000_000).to_string()})
    };
    let spans =
        [span("EEE19B7EC3C1B174", "", "GET /", 2), span("EEE19B7EC3C1B173", "EEE19B7EC3C1B174", "SELECT", 3)];
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]});
    let body =
        json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}).to_string();
    client.post("/v1/traces", &[("Content-Type", "application/json")], body).await?.success()?;

    // Tempo.
    ensure!(client.get("/tempo/api/echo", &[]).await?.status == 200, "health");
    let id = "5b8efff798038103d269b633813fc60c";
    let http = reqwest::Client::new();
    let url = client.url(&format!("/tempo/api/v2/traces/{id}"));
    let trace = http.get(url).header("Accept", "application/protobuf").send().await?;
    ensure!(trace.status() == 200, "trace by id v2: {}", trace.status());
    ensure!(trace.headers()["content-type"] == "application/protobuf", "{:?}", trace.headers());
    ensure!(!trace.bytes().await?.is_empty(), "an empty trace");
    let window = [(now_s() - 60.0) as u64, now_s() as u64 + 60].map(|second| second.to_string());
    let search = [
        ("q", "{ resource.service.name = \"shop\" && duration > 1ms }"),
        ("limit", "20"),
        ("spss", "3"),
        ("start", window[0].as_str()),
        ("end", window[1].as_str()),
    ];
    let found = client.get("/tempo/api/search", &search).await?.success()?.json()?;
    ensure!(found["traces"][0]["rootServiceName"] == "shop", "{found}");
    ensure!(found["traces"][0]["startTimeUnixNano"] == json!(now_ns.to_string()), "{found}");
    let absent = client.get("/tempo/api/traces/00000000000000000000000000000001", &[]).await?;
    ensure!(absent.status == 404, "an unknown trace: {}", absent.status);

    // Jaeger.
    let services = client.get("/jaeger/api/services", &[]).await?.success()?.json()?;
    ensure!(services["data"] == json!(["shop"]), "{services}");
    let operations = client.get("/jaeger/api/services/shop/operations", &[]).await?.success()?.text();
    ensure!(operations.contains("GET /"), "{operations}");
    let window = [now_s() - 60.0, now_s() + 60.0].map(|second| format!("{:.0}", second * 1e6));
    let search =
        [("service", "shop"), ("limit", "20"), ("start", window[0].as_str()), ("end", window[1].as_str())];
    let found = client.get("/jaeger/api/traces", &search).await?.success()?.json()?;
    ensure!(found["data"][0]["traceID"] == id, "{found}");
    ensure!(found["data"][0]["spans"].as_array().map(Vec::len) == Some(2), "{found}");
    Ok(())
}
