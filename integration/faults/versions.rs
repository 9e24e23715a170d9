//! Two builds side by side: a cluster of an older build becomes one of this build, process by process, under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tricord_testkit::{Client, LocalCluster, Shape, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::{BINARY, LIMIT, faces, healthy};

/// A query is answered by whoever is there, whole.
async fn answers(proxy: &Client) -> Result<()> {
    let answer = proxy.post_form("/api/v1/query", &[("query", "count(serial)")]).await?.success()?.json()?;
    ensure!(answer.get("warnings").is_none(), "copies remain, yet {answer}");
    Ok(())
}

/// `SOAK_OLD_BINARY` names the older build.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an older build: SOAK_OLD_BINARY=… make soak"]
async fn an_older_build_is_replaced_under_load() -> Result<()> {
    let Ok(old) = std::env::var("SOAK_OLD_BINARY") else {
        println!("skipped: SOAK_OLD_BINARY names no older build");
        return Ok(());
    };
    for order in [["metadata", "querier"], ["querier", "metadata"]] {
        let mut cluster = LocalCluster::start(&old, &Shape::default()).await?;
        let (ingester, proxy) = faces(&cluster)?;
        let metadata = cluster.metadata_addresses();
        let writer = Writer::start(ingester.clone());
        eventually(LIMIT, || written(proxy.clone())).await?;
        cluster.use_binary(BINARY);
        for name in order.iter().flat_map(|role| (1..=3).map(move |n| format!("{role}-{n}"))) {
            eventually(LIMIT, || healthy(&metadata)).await.with_context(|| format!("before {name}"))?;
            cluster.process(&name)?.terminate(Duration::from_secs(60)).await?;
            eventually(LIMIT, || acknowledges(&ingester)).await.with_context(|| format!("without {name}"))?;
            answers(&proxy).await?;
            cluster.restart(&name).await?;
            // Both builds also have to get along when one of them dies.
            if name.ends_with('2') {
                eventually(LIMIT, || healthy(&metadata)).await.with_context(|| format!("after {name}"))?;
                cluster.kill(&name).await?;
                eventually(LIMIT, || acknowledges(&ingester))
                    .await
                    .with_context(|| format!("{name} died"))?;
                cluster.restart(&name).await?;
            }
        }
        eventually(LIMIT, || healthy(&metadata)).await?;
        let written = writer.finish().await?;
        println!("{order:?}: {} samples, {} refused", written.samples(), written.refusals.len());
        let retryable = |why: &&String| why.contains("503") || why.contains("429");
        ensure!(written.refusals.iter().all(|why| retryable(&why)), "{:?}", written.refusals);
        for name in ["ingester-1", "proxy-1"] {
            cluster.process(name)?.terminate(Duration::from_secs(60)).await?;
            cluster.restart(name).await?;
        }
        eventually(LIMIT, || written.check_kept(&proxy)).await?;
        acknowledges(&ingester).await?;
    }
    Ok(())
}
