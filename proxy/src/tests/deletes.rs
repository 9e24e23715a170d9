//! Deleting series: to every primary, again while that may help, and by name where it does not.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use tricord_model::codec::Reader;
use tricord_model::{Deletion, Labels};
use tricord_wire::{Error as WireError, ErrorKind};

use super::cluster::{FakeCluster, example};
use crate::Config;

const DELETE: &str = "/api/v1/admin/tsdb/delete_series";
const CLEAN: &str = "/api/v1/admin/tsdb/clean_tombstones";

fn enabled() -> FakeCluster {
    let config = Config { enable_admin_api: true, query_timeout: "1s".into(), ..Config::default() };
    FakeCluster::with(&example(), 7, 3, 2, config)
}

async fn delete(cluster: &FakeCluster, method: &str, form: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(DELETE).header("X-Scope-OrgID", "shop");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let (status, _, body) = cluster.send(request.body(Body::from(form.to_owned())).unwrap()).await;
    (status, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn every_shard_is_asked_once() {
    let form = "match[]=up&match[]=%7Bjob%3D~%22a.*%22%7D&start=10&end=20.5";
    for method in ["POST", "PUT"] {
        let cluster = enabled();
        assert_eq!(delete(&cluster, method, form).await, (StatusCode::NO_CONTENT, String::new()));
        let mut shards = Vec::new();
        for node in &cluster.nodes {
            for request in node.deletes.lock().iter() {
                let deletion = Deletion::decode(&mut Reader::new(&request.deletion)).unwrap();
                assert_eq!((deletion.start_ms, deletion.end_ms), (10_000, 20_500));
                assert!(deletion.matches(&Labels::from_pairs([("__name__", "up")])));
                assert!(deletion.matches(&Labels::from_pairs([("job", "abc")])));
                assert!(!deletion.matches(&Labels::from_pairs([("job", "b")])));
                assert_eq!(request.tenant, "shop");
                shards.extend(request.shards.iter().map(|of| of.shard));
            }
        }
        shards.sort_unstable();
        assert_eq!(shards, [0, 1, 2, 3, 4, 5, 6]);
    }
}

#[tokio::test]
async fn mistakes_are_told_and_nothing_is_sent() {
    let cluster = enabled();
    for (form, error) in [
        ("", "no match[] parameter provided"),
        ("match[]=%7B", "invalid parameter \"match[]\""),
        ("match[]=%7Ba%3D%22%22%7D", "match[] must contain at least one non-empty matcher"),
        ("match[]=up&start=x", "invalid parameter \"start\""),
        ("match[]=up&start=2&end=1", "end timestamp must not be before start time"),
    ] {
        let (status, body) = delete(&cluster, "POST", form).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].as_str().unwrap().contains(error), "{body}");
    }
    let long = format!("match[]=%7Ba%3D%22{}%22%7D", "x".repeat(Deletion::MAX_BYTES));
    assert_eq!(delete(&cluster, "POST", &long).await.0, StatusCode::BAD_REQUEST);
    assert!(cluster.nodes.iter().all(|node| node.deletes.lock().is_empty()));
}

#[tokio::test]
async fn a_passing_refusal_is_waited_out_and_a_lasting_one_is_named() {
    let cluster = enabled();
    let refuse = |kind, times| {
        *cluster.nodes[1].refusals.lock() = vec![WireError::new(kind, "refused by the test"); times];
    };
    refuse(ErrorKind::NotServing, 2);
    assert_eq!(delete(&cluster, "POST", "match[]=up").await.0, StatusCode::NO_CONTENT);
    refuse(ErrorKind::Unavailable, 10_000);
    let (status, body) = delete(&cluster, "POST", "match[]=up").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("shards 1, 4: data node 2: refused by the test"), "{body}");
    refuse(ErrorKind::Limit, 1);
    let (status, body) = delete(&cluster, "POST", "match[]=up").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "it is not tried again: {body}");
}

#[tokio::test]
async fn cleaning_says_when_something_is_left() {
    let cluster = enabled();
    let post = || Request::post(CLEAN).body(Body::empty()).unwrap();
    let (status, _, body) = cluster.send(post()).await;
    assert_eq!((status, body.is_empty()), (StatusCode::NO_CONTENT, true));
    cluster.nodes[2].deletes_left.store(3, Ordering::Relaxed);
    let (status, _, body) = cluster.send(post()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8(body).unwrap().contains("3 deletes are not carried out"));
}
