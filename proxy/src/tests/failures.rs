//! Nodes that refuse, and shards that nobody answers for.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::json;
use tricord_model::{NodeId, ShardId};
use tricord_wire::{Error as WireError, ErrorKind};

use super::cluster::{FakeCluster, escaped, example};

fn refuse(cluster: &FakeCluster, node: usize, kind: ErrorKind, times: usize) {
    *cluster.nodes[node].refusals.lock() = vec![WireError::new(kind, "refused by the test"); times];
}

#[tokio::test]
async fn another_replica_answers_when_one_refuses() {
    for kind in [ErrorKind::Unavailable, ErrorKind::StaleEpoch, ErrorKind::NotServing, ErrorKind::Corrupt] {
        let cluster = FakeCluster::new(&example(), 7, 3, 3);
        let (_, expected) = cluster.get("/api/v1/query?query=sum(up)&time=400").await;
        refuse(&cluster, 0, kind, 1000);
        let (status, body) = cluster.get("/api/v1/query?query=sum(up)&time=400").await;
        assert_eq!((status, &body), (StatusCode::OK, &expected), "{kind:?}");
    }
}

#[tokio::test]
async fn a_passing_refusal_of_the_only_replica_is_waited_out() {
    let cluster = FakeCluster::new(&example(), 3, 3, 1);
    refuse(&cluster, 1, ErrorKind::StaleEpoch, 2);
    let (_, body) = cluster.get("/api/v1/query?query=count(up)&time=400").await;
    assert_eq!(body["data"]["result"][0]["value"][1], json!("12"));
    assert!(body.get("warnings").is_none(), "{body}");
}

#[tokio::test]
async fn a_shard_without_a_replica_is_named_and_absence_is_not_told() {
    let cluster = FakeCluster::new(&example(), 3, 3, 1);
    refuse(&cluster, 1, ErrorKind::Unavailable, 100_000);
    let warning = "partial answer: shard 1 has no live replica";
    let (status, body) = cluster.get("/api/v1/query?query=up&time=400").await;
    assert_eq!((status, &body["warnings"]), (StatusCode::OK, &json!([warning])));
    let (status, body) = cluster.get("/api/v1/query?query=up&time=400&partial_response=deny").await;
    assert_eq!((status, &body["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(warning)));
    for query in
        ["absent(nothing)", "absent_over_time(nothing[1m])", "absent(sum(nothing))", "sum(absent(nothing))"]
    {
        let (status, body) = cluster.get(&format!("/api/v1/query?time=400&query={}", escaped(query))).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{query}: {body}");
    }
    let (status, body) = cluster.get("/api/v1/labels").await;
    assert_eq!((status, &body["warnings"]), (StatusCode::OK, &json!([warning])));
}

#[tokio::test]
async fn a_newer_map_is_followed() {
    let cluster = FakeCluster::new(&example(), 3, 3, 1);
    refuse(&cluster, 1, ErrorKind::Unavailable, 100_000);
    let mut map = (*cluster.cluster.map()).clone();
    map.version = 2;
    map.shards[ShardId(1).0 as usize].in_sync = vec![NodeId(3)];
    let asking = tokio::spawn({
        let cluster = cluster.cluster.clone();
        async move { cluster.set_map(map) }
    });
    let (_, body) = cluster.get("/api/v1/query?query=count(up)&time=400").await;
    assert!(asking.await.unwrap());
    assert_eq!(body["data"]["result"][0]["value"][1], json!("12"), "{body}");
}

#[tokio::test]
async fn what_every_replica_would_answer_is_asked_once() {
    let cluster = FakeCluster::new(&example(), 1, 3, 3);
    for node in 0..3 {
        refuse(&cluster, node, ErrorKind::Limit, 1);
    }
    let (status, body) = cluster.get("/api/v1/query?query=up&time=400").await;
    assert_eq!((status, &body["error"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("refused by the test")));
    let asked: usize = cluster.nodes.iter().map(|node| node.asked.load(Ordering::Relaxed)).sum();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_shard_that_is_damaged_everywhere_is_named_at_once_and_the_others_answer() {
    let cluster = FakeCluster::new(&example(), 7, 2, 2);
    let (_, whole) = cluster.get("/api/v1/query?query=count(up)&time=400").await;
    let has_up = |memory: &super::cluster::Memory| memory.0.iter().any(|(labels, _)| labels.name() == "up");
    let shards = &cluster.nodes[0].shards;
    let shard = *shards.iter().find(|(_, memory)| has_up(memory)).unwrap().0;
    cluster.nodes.iter().for_each(|node| node.damaged.lock().push(shard));
    let warning = format!("partial answer: shard {shard} is damaged on its live replicas");
    let (status, body) = cluster.get("/api/v1/query?query=count(up)&time=400").await;
    assert_eq!((status, &body["warnings"]), (StatusCode::OK, &json!([warning])), "{body}");
    let count = |body: &serde_json::Value| -> u32 {
        body["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap()
    };
    assert!(count(&body) > 0 && count(&body) < count(&whole), "{body} {whole}");
    let (status, body) = cluster.get("/api/v1/query?query=up&time=400&partial_response=deny").await;
    assert_eq!((status, &body["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(warning)));
    // Of one that only one replica has damaged, the other one answers.
    cluster.nodes[1].damaged.lock().clear();
    let (_, body) = cluster.get("/api/v1/query?query=count(up)&time=400").await;
    assert_eq!(body, whole);
}

#[tokio::test]
async fn a_deadline_ends_a_query() {
    let cluster = FakeCluster::new(&example(), 1, 1, 1);
    refuse(&cluster, 0, ErrorKind::Unavailable, 1000);
    let (status, body) = cluster.get("/api/v1/query?query=up&time=400&timeout=10ms").await;
    assert_eq!((status, &body["errorType"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("timeout")));
}

#[tokio::test]
async fn a_node_that_hangs_does_not_hold_up_the_answer() {
    let cluster = FakeCluster::new(&example(), 3, 3, 3);
    let (_, expected) = cluster.get("/api/v1/query?query=sum(up)&time=400").await;
    cluster.nodes[0].hangs.store(true, Ordering::Relaxed);
    let (_, body) = cluster.get("/api/v1/query?query=sum(up)&time=400").await;
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_node_that_hangs_is_given_up_when_the_map_says_so() {
    let cluster = FakeCluster::new(&example(), 1, 2, 1);
    cluster.nodes[0].hangs.store(true, Ordering::Relaxed);
    let mut map = (*cluster.cluster.map()).clone();
    map.version = 2;
    map.shards[0].in_sync = vec![NodeId(2)];
    let asked = cluster.nodes[0].clone();
    let handle = cluster.cluster.clone();
    let change = tokio::spawn(async move {
        while asked.asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        handle.set_map(map)
    });
    let (_, body) = cluster.get("/api/v1/query?query=count(up)&time=400").await;
    assert_eq!(body["data"]["result"][0]["value"][1], json!("12"), "{body}");
    assert!(change.await.unwrap());
}
