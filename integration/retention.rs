//! Retention classes: tenants keep data for different times, may change their class, and no class goes while it has data.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tricord_testkit::{Client, RemoteSeries, Single, eventually};

use crate::faults::oracle::now_ms;
use crate::prometheus_api::metric;

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const DAY_MS: i64 = 86_400_000;

/// Settings with the times that two classes keep data, and the class of the tenant `archive`.
fn settings(file: &Path, classes: &str, archive: &str) -> Result<()> {
    let text = format!(
        "retention: 30d\nretention_classes: {classes}\ningester:\n  limits:\n    named:\n      retention_class: short\n    \
         tenants:\n      archive:\n        retention_class: {archive}\n"
    );
    Ok(std::fs::write(file, text)?)
}

async fn write(client: &Client, days_ago: &[i64]) -> Result<()> {
    let series = RemoteSeries::new("kept", &[]);
    let at =
        |series: RemoteSeries, days: &i64| series.at(now_ms() - days * DAY_MS - 40 * 60_000, *days as f64);
    client.remote_write(&[days_ago.iter().fold(series, at)]).await
}

/// How many samples a tenant sees.
async fn seen(client: &Client) -> Result<f64> {
    let found = client.query("count_over_time(kept[500d])", None).await?;
    Ok(found.first().map_or(0.0, |(_, count)| count.parse().unwrap_or(f64::NAN)))
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_keep_data_as_long_as_their_class_says() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("tricord.yaml");
    settings(&file, "{short: 3d, long: 400d}", "long")?;
    let flag = format!("--config={}", file.display());
    let mut tricord = Single::builder(BINARY).flags([flag]).start().await?;
    let default = tricord.client();
    let [archive, app] = ["archive", "app"].map(|tenant| tricord.client().tenant(tenant));
    write(&archive, &[100, 10, 0]).await?;
    write(&default, &[10, 0]).await?;
    write(&app, &[1, 0]).await?;
    let refused = write(&app, &[5]).await.expect_err("it is past").to_string();
    ensure!(refused.contains("where retention ends"), "{refused}");
    default.post("/api/v1/admin/flush", &[], "").await?.success()?;
    let check = |expected: [f64; 3]| {
        let clients = [archive.clone(), default.clone(), app.clone()];
        async move {
            let [archive, default, app] = &clients;
            let found = [seen(archive).await?, seen(default).await?, seen(app).await?];
            ensure!(found == expected, "{found:?}, not {expected:?}");
            Ok(())
        }
    };
    check([3.0, 2.0, 2.0]).await?;
    for (class, windows) in [("long", 3.0), ("default", 2.0), ("short", 2.0)] {
        let name = format!("tricord_querier_class_samples{{class=\"{class}\"}}");
        ensure!(class_metric(&default, &name).await? == windows, "{name}");
    }

    // In another class a tenant sees no further than that, and what it has stays where it is.
    settings(&file, "{short: 3d, long: 400d}", "short")?;
    tricord.terminate().await?;
    tricord.restart().await?;
    check([1.0, 2.0, 2.0]).await?;
    settings(&file, "{short: 3d, long: 400d}", "long")?;
    tricord.kill().await?;
    tricord.restart().await?;
    check([3.0, 2.0, 2.0]).await?;

    // What is past is dropped, in its class alone.
    settings(&file, "{short: 5m, long: 400d}", "long")?;
    tricord.terminate().await?;
    tricord.restart().await?;
    let name = "tricord_querier_class_dropped_windows_total{class=\"short\"}";
    eventually(Duration::from_secs(30), || async {
        ensure!(class_metric(&default, name).await? == 2.0, "{name}");
        Ok(())
    })
    .await?;
    check([3.0, 2.0, 0.0]).await?;
    ensure!(metric(&default, "tricord_querier_class_samples").await? == 5.0);

    // A class that has data cannot be left out; one whose data is past can.
    tricord.terminate().await?;
    settings(&file, "{short: 5m}", "short")?;
    let error = format!("{:#}", tricord.restart().await.expect_err("a class is missing"));
    ensure!(error.contains("retention class \"long\" has data on this node"), "{error}");
    settings(&file, "{short: 3d, long: 400d, new: 1d}", "new")?;
    tricord.restart().await?;
    check([1.0, 2.0, 0.0]).await
}

/// A line of `/metrics`, by its name with labels.
async fn class_metric(client: &Client, name: &str) -> Result<f64> {
    let text = client.get("/metrics", &[]).await?.success()?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.map_or(0.0, |value| value.trim().parse().unwrap_or(f64::NAN)))
}
