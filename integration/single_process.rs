//! One process: what was acknowledged is in the next answer, and survives both a stop and a kill.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tricord_testkit::{RemoteSeries, Single};

const BINARY: &str = env!("CARGO_BIN_EXE_tricord");

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_what_it_acknowledged() -> Result<()> {
    let mut tricord = Single::start(BINARY).await?;
    let client = tricord.client();

    client.import("# TYPE greetings counter\ngreetings_total{from=\"me\"} 41\ntemperature 21.5\n").await?;
    assert_eq!(client.value("greetings_total + 1", None).await?, 42.0);
    assert_eq!(client.query("temperature", None).await?, [("temperature{}".to_owned(), "21.5".to_owned())]);

    let status = tricord.terminate().await?;
    assert!(status.success(), "a stop is a success: {status}");
    tricord.restart().await?;
    assert_eq!(client.value("greetings_total", None).await?, 41.0, "after SIGTERM and a start");

    // Times of their own: of two samples for one millisecond only the first would count.
    let start = now_ms() - 1_000;
    let series = |n: i64| RemoteSeries::new("serial", &[("writer", "a")]).at(start + n, n as f64);
    for n in 0..20 {
        client.remote_write(&[series(n)]).await?;
    }
    tricord.kill().await?;
    tricord.restart().await?;
    assert_eq!(client.value("max_over_time(serial[5m])", None).await?, 19.0, "after kill -9 and a start");
    assert_eq!(client.value("count_over_time(serial[5m])", None).await?, 20.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() -> Result<()> {
    let tricord = Single::start(BINARY).await?;
    let (one, two) = (tricord.client().tenant("one"), tricord.client().tenant("two"));
    one.import("secret 1\n").await?;
    assert_eq!(one.value("secret", None).await?, 1.0);
    assert!(two.query("secret", None).await?.is_empty());
    assert!(tricord.client().query("secret", None).await?.is_empty());
    Ok(())
}
