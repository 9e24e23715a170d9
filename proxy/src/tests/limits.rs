//! Bounds on queries: what is said when one is passed, and what becomes of queries whose askers go.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt;

use super::cluster::{FakeCluster, escaped, example};
use crate::Config;

async fn refused(config: Config, path: &str) -> (StatusCode, String, String) {
    let cluster = FakeCluster::with(&example(), 3, 3, 1, config);
    let (status, body) = cluster.get(&format!("/api/v1/{path}")).await;
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (status, text("errorType"), text("error"))
}

#[tokio::test]
async fn too_many_samples_are_refused_with_the_setting_that_bounds_them() {
    let few = || Config { max_samples: 20, ..Config::default() };
    for query in
        ["up[10m]", "sum(sum(requests_total))", "quantile_over_time(scalar(k) / 4, requests_total[1m])"]
    {
        let (status, kind, text) = refused(few(), &format!("query?time=400&query={}", escaped(query))).await;
        let got = (status, kind.as_str());
        assert_eq!(got, (StatusCode::UNPROCESSABLE_ENTITY, "execution"), "{query}: {text}");
        assert!(text.contains("would load too many samples into memory"), "{query}: {text}");
        assert!(text.contains("raise the proxy's max_samples"), "{query}: {text}");
    }
}

#[tokio::test]
async fn too_many_bytes_are_refused_with_the_setting_that_bounds_them() {
    let few = Config { max_partial_bytes: 100, ..Config::default() };
    let (status, kind, text) = refused(few, "query_range?query=up&start=0&end=600&step=1").await;
    assert_eq!((status, kind.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "execution"), "{text}");
    assert!(text.contains("more than 100 bytes") && text.contains("max_partial_bytes"), "{text}");
}

#[tokio::test]
async fn what_takes_too_long_is_told_how_to_get_more_time() {
    let cluster = FakeCluster::new(&example(), 1, 1, 1);
    cluster.nodes[0].hangs.store(true, Ordering::Relaxed);
    let (status, body) = cluster.get("/api/v1/query?query=up&time=400&timeout=20ms").await;
    assert_eq!((status, &body["errorType"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("timeout")));
    let text = body["error"].as_str().unwrap();
    assert!(text.contains("timed out in query execution") && text.contains("query_timeout"), "{text}");
}

#[tokio::test]
async fn one_runs_one_waits_and_more_are_refused() {
    let config = Config { max_concurrent_queries: 1, max_queued_queries: 1, ..Config::default() };
    let cluster = FakeCluster::with(&example(), 1, 1, 1, config);
    cluster.nodes[0].hangs.store(true, Ordering::Relaxed);
    let ask = || {
        let request = Request::get("/api/v1/query?query=up&time=400").body(Body::empty()).unwrap();
        tokio::spawn(cluster.router().oneshot(request))
    };
    let running = ask();
    cluster.until(|cluster| cluster.metrics().running.get() == 1).await;
    let waiting = ask();
    cluster.until(|cluster| cluster.metrics().queued.get() == 1).await;
    let response = ask().await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(cluster.metrics().refused.get(), 1);
    let (_, body) = cluster.get("/api/v1/labels").await;
    let text = body["error"].as_str().unwrap();
    assert!(text.contains("max_concurrent_queries") && text.contains("max_queued_queries"), "{text}");
    // Whoever goes makes room, be it from the queue or in the middle of a query.
    waiting.abort();
    cluster.until(|cluster| cluster.metrics().queued.get() == 0).await;
    running.abort();
    cluster.until(|cluster| cluster.metrics().running.get() == 0).await;
    cluster.nodes[0].hangs.store(false, Ordering::Relaxed);
    let (status, _) = cluster.get("/api/v1/query?query=up&time=400").await;
    assert_eq!(status, StatusCode::OK);
}
