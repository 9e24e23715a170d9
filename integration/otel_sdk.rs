//! OpenTelemetry's Python SDK as a real client: every instrument and a trace, over gRPC and HTTP.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tricord_testkit::{Client, Single};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");

/// The Python of the tests' environment, which `make test` makes; without it the story cannot be told.
fn python() -> PathBuf {
    match std::env::var("TRICORD_VENV") {
        Ok(venv) => Path::new(&venv).join("bin/python3"),
        Err(_) => PathBuf::from("python3"),
    }
}

fn send(protocol: &str, endpoint: &str, service: &str) -> Result<Value> {
    let script = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("integration/clients/otel_sdk.py");
    let output = Command::new(python()).arg(script).args([protocol, endpoint, service]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the SDK failed (run by `make test`, it has its packages): {told}");
    ensure!(!told.contains("Failed to export"), "{told}");
    serde_json::from_slice(&output.stdout).context("what the SDK printed")
}

async fn check_metrics(client: &Client, service: &str) -> Result<()> {
    let of = |name: &str, more: &str| format!("{name}{{job=\"{service}\",instance=\"sdk-1\"{more}}}");
    let expected = [
        (of("sdk_requests_total", ",code=\"200\""), 5.0),
        (of("sdk_connections", ""), 3.0),
        (of("sdk_temperature_celsius", ",room=\"kitchen\""), 21.5),
        (of("sdk_duration_seconds_count", ""), 4.0),
        (of("sdk_duration_seconds_sum", ""), 55.55),
        (of("sdk_duration_seconds_bucket", ",le=\"1\""), 2.0),
        (of("sdk_duration_seconds_bucket", ",le=\"+Inf\""), 4.0),
        (format!("histogram_count({})", of("sdk_exponential_bytes", "")), 4.0),
        (format!("histogram_sum({})", of("sdk_exponential_bytes", "")), 55.55),
        (of("sdk_ticks_total", ""), 7.0),
        (of("sdk_queue", ""), -2.0),
        (of("sdk_load_ratio", ""), 0.25),
        (of("sdk_delta_requests_total", ",code=\"200\""), 5.0),
        (of("sdk_delta_duration_seconds_count", ""), 4.0),
        (format!("histogram_count({})", of("sdk_delta_exponential_bytes", "")), 4.0),
        (of("target_info", ",deployment_environment_name=\"test\""), 1.0),
    ];
    for (query, value) in expected {
        let found = client.value(&query, None).await.with_context(|| query.clone())?;
        ensure!((found - value).abs() < 1e-9, "{query}: {found}, not {value}");
    }
    Ok(())
}

async fn check_trace(client: &Client, sent: &Value, service: &str) -> Result<()> {
    let id = sent["trace_id"].as_str().context("no trace id")?;
    let tempo = client.get(&format!("/tempo/api/traces/{id}"), &[]).await?.success()?.text();
    for name in ["GET /cart", "SELECT cart", "retry", "no such table", service] {
        ensure!(tempo.contains(name), "no {name:?} in Tempo's trace {tempo}");
    }
    let jaeger = client.get(&format!("/jaeger/api/traces/{id}"), &[]).await?.success()?.json()?;
    ensure!(jaeger["data"][0]["spans"].as_array().map(Vec::len) == Some(2), "{jaeger}");
    let query = format!("{{ resource.service.name = \"{service}\" && status = error }}");
    let found = client.get("/tempo/api/search", &[("q", &query)]).await?.success()?.json()?;
    ensure!(found["traces"][0]["traceID"] == id, "{query}: {found}");
    let services = client.get("/jaeger/api/services", &[]).await?.success()?.text();
    ensure!(services.contains(service), "{services}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instrument_and_a_trace_arrive() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let endpoints = [
        ("grpc", format!("http://{}", tricord.otlp_grpc())),
        ("http", format!("http://{}", tricord.otlp_http())),
    ];
    for (protocol, endpoint) in endpoints {
        let service = format!("cart-{protocol}");
        let sent = tokio::task::block_in_place(|| send(protocol, &endpoint, &service))?;
        check_metrics(&tricord.client(), &service).await.with_context(|| protocol)?;
        check_trace(&tricord.client(), &sent, &service).await.with_context(|| protocol)?;
    }
    Ok(())
}
