//! Limits that the metadata group keeps for single tenants: ingesters follow them, also while metadata is away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tricord_testkit::{Client, LocalCluster, Shape, eventually};

use crate::faults::tricord;

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");
const LIMIT: Duration = Duration::from_secs(60);

/// A series with four labels, its name included.
async fn write(client: &Client, serial: u32) -> Result<()> {
    client.import(&format!("limited{{a=\"1\",b=\"2\",c=\"3\"}} {serial}\n")).await
}

async fn refused(client: &Client) -> Result<()> {
    let error = write(client, 1).await.err().context("four labels are taken")?.to_string();
    ensure!(error.contains("max_labels"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_limits_are_kept_by_metadata() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let metadata = cluster.metadata_addresses();
    let limits = async |args: &[&str]| {
        tricord(&[&["cluster", "limits", "--metadata", &metadata][..], args].concat()).await
    };
    let (shop, other) = (cluster.ingester()?.tenant("shop"), cluster.ingester()?.tenant("other"));
    eventually(LIMIT, || write(&shop, 0)).await?;
    ensure!(limits(&[]).await?.contains("no tenant has limits of its own"), "nothing is said yet");

    let said = limits(&["shop", "--max-labels", "3", "--rate", "500"]).await?;
    ensure!(said.contains("shop") && said.contains("500"), "{said}");
    eventually(LIMIT, || refused(&shop)).await?;
    write(&other, 1).await.context("another tenant is as the settings say")?;
    limits(&["shop", "--burst", "900"]).await?;
    let all: serde_json::Value = serde_json::from_str(&limits(&["--json"]).await?)?;
    let expected = serde_json::json!({ "rate": 500, "burst": 900, "max_labels": 3 });
    ensure!(all["tenants"]["shop"] == expected, "{all}");
    for (wrong, text) in [(&["a/b", "--rate", "1"], "a/b"), (&["tricord", "--rate", "1"], "own tenant")] {
        let error = limits(wrong).await.err().context("it cannot be")?.to_string();
        ensure!(error.contains(text), "{error}");
    }

    // The whole metadata group dies, and is there again: ingesters keep what they know, metadata what it was told.
    let members = ["metadata-1", "metadata-2", "metadata-3"];
    for member in members {
        cluster.kill(member).await?;
    }
    refused(&shop).await.context("metadata is away")?;
    for member in members {
        cluster.start_again(member, &[], &[])?;
    }
    eventually(LIMIT, async || {
        let limits = limits(&["shop"]).await?;
        ensure!(limits.contains("900"), "{limits}");
        Ok(())
    })
    .await?;
    refused(&shop).await?;

    limits(&["shop", "--clear"]).await?;
    eventually(LIMIT, || write(&shop, 2)).await
}
