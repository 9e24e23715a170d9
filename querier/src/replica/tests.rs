//! Three data nodes in one process, with stores of their own and a shard map that the test holds.

mod backup;
mod damage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tempfile::TempDir;
use tricord_fragment::{Fragment, FragmentBody, LabelQuery, Partial, PartialBody, QueryLimits};
use tricord_metadata_client::{Cluster, NodeAddress};
use tricord_model::{Batch, Epoch, Labels, NodeId, Sample, SeriesBatch, ShardId, SpanRecord, Tenant, Value};
use tricord_routing::{NodeInfo, NodeRole, ShardConfig, ShardMap};
use tricord_runtime::{Health, MemoryBudget, Metrics, Shutdown};
use tricord_wire::proto::datanode as pb;
use tricord_wire::{DataNode, Error, ErrorKind, ResponseStream};

use crate::{Config, Deps, Querier};

const SHARDS: u32 = 4;
const DEADLINE: Duration = Duration::from_secs(60);

/// A node that is gone.
struct Dead;

#[async_trait::async_trait]
impl DataNode for Dead {
    async fn write(&self, _: pb::WriteRequest) -> Result<pb::WriteResponse, Error> {
        Err(gone())
    }
    async fn delete(&self, _: pb::DeleteRequest) -> Result<pb::WriteResponse, Error> {
        Err(gone())
    }
    async fn replicate(&self, _: pb::ReplicateRequest) -> Result<pb::ReplicateResponse, Error> {
        Err(gone())
    }
    async fn beacon(&self, _: pb::BeaconRequest) -> Result<pb::BeaconResponse, Error> {
        Err(gone())
    }
    async fn install_snapshot(
        &self,
        _: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        Err(gone())
    }
    async fn backup(&self, _: pb::BackupRequest) -> Result<ResponseStream<pb::SnapshotChunk>, Error> {
        Err(gone())
    }

    async fn restore(&self, _: ResponseStream<pb::SnapshotChunk>) -> Result<pb::SnapshotResponse, Error> {
        Err(gone())
    }

    async fn execute(&self, _: pb::ExecuteRequest) -> Result<ResponseStream<pb::ExecuteChunk>, Error> {
        Err(gone())
    }
    async fn flush(&self, _: pb::FlushRequest) -> Result<pb::FlushResponse, Error> {
        Err(gone())
    }
    async fn status(&self, _: pb::NodeStatusRequest) -> Result<pb::NodeStatusResponse, Error> {
        Err(gone())
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the node is gone")
}

fn address(node: u64) -> NodeAddress {
    NodeAddress { role: "querier".to_owned(), rpc: format!("node-{node}:1"), ..NodeAddress::default() }
}

/// A map whose shards are all on `in_sync`, the first of them the primary.
fn map(epoch: u64, in_sync: &[u64], joining: &[u64], replicas: u32, min_insync: u32) -> ShardMap {
    let ids = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
    let node_of = |id: u64| NodeInfo {
        id: NodeId(id),
        role: NodeRole::Querier,
        rpc: address(id).rpc,
        http: String::new(),
        zone: String::new(),
        version: String::new(),
        alive: true,
        draining: false,
    };
    let shard_of = |shard| ShardConfig {
        shard: ShardId(shard),
        epoch: Epoch(epoch),
        primary: in_sync.first().copied().map(NodeId),
        in_sync: ids(in_sync),
        joining: ids(joining),
    };
    ShardMap {
        version: epoch * 1_000,
        cluster_id: "test".to_owned(),
        shards: (0..SHARDS).map(shard_of).collect(),
        nodes: (1..=3).map(node_of).collect(),
        replicas,
        min_insync,
        ..ShardMap::default()
    }
}

async fn start(cluster: &Cluster, dir: &Path, node: u64) -> Querier {
    start_with(cluster, dir, node, Config::default()).await
}

async fn start_with(cluster: &Cluster, dir: &Path, node: u64, config: Config) -> Querier {
    let config = Config {
        data_dir: dir.join(format!("node-{node}")),
        // The serials are at fixed times, whatever day it is.
        retention: "0".to_owned(),
        lease_ms: 600,
        grace_ms: 800,
        follower_timeout_ms: 1_500,
        memory_limit_bytes: 256 << 20,
        block_cache_bytes: 16 << 20,
        ..config
    };
    let started = Instant::now();
    loop {
        let deps = Deps {
            cluster: cluster.clone(),
            metrics: Metrics::new(),
            memory: MemoryBudget::new(1 << 30),
            health: Health::new(),
            address: address(node),
        };
        // Tasks of a node that was just killed may still hold the directory.
        match crate::start(config.clone(), deps, Shutdown::new()).await {
            Ok(querier) => return querier,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stops a node without a word to anybody.
async fn kill(cluster: &Cluster, querier: Querier, node: u64) {
    cluster.set_local(NodeId(node), Arc::new(Dead));
    querier.kill().await;
}

fn series(shard: u32) -> Labels {
    Labels::from_pairs([("__name__", "serial"), ("shard", shard.to_string().as_str())])
}

const START_MS: i64 = 1_700_000_000_000;

/// Writes one serial to a shard's primary; whether it was acknowledged.
async fn write(cluster: &Cluster, shard: u32, serial: u64) -> Result<(), Error> {
    let map = cluster.map();
    let config = map.shard(ShardId(shard)).unwrap();
    let sample = Sample { t_ms: START_MS + serial as i64, start_ms: 0, value: Value::Float(serial as f64) };
    let one = SeriesBatch { labels: series(shard), samples: vec![sample], ..SeriesBatch::default() };
    let batch = Batch { series: vec![one], metadata: vec![], spans: Vec::<SpanRecord>::new() };
    let request = pb::WriteRequest {
        cluster_id: map.cluster_id.clone(),
        tenant: Tenant::DEFAULT.to_owned(),
        shards: vec![pb::ShardWrite { shard, epoch: config.epoch.0, batch: batch.encode().into() }],
        timeout_ms: 3_000,
    };
    let answer = cluster.data_node(config.primary.unwrap())?.write(request).await?;
    match answer.shards.into_iter().next().unwrap() {
        pb::ShardWriteResult { failure: Some(failure), .. } => Err(failure.into()),
        pb::ShardWriteResult { counts, .. } => {
            assert_eq!(counts.unwrap().samples, 1);
            Ok(())
        }
    }
}

/// Tries again until the write is acknowledged.
async fn must_write(cluster: &Cluster, shard: u32, serial: u64) {
    let started = Instant::now();
    while let Err(error) = write(cluster, shard, serial).await {
        assert!(error.retryable(), "{error:?}");
        assert!(started.elapsed() < DEADLINE, "{error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The serials that a node answers with, by shard.
async fn try_read(cluster: &Cluster, node: u64) -> Result<BTreeMap<u32, Vec<u64>>, Error> {
    let map = cluster.map();
    let query = LabelQuery { matchers: vec![], start_ms: START_MS, end_ms: START_MS + 1_000_000, limit: 0 };
    let matcher = tricord_model::Matcher::new("__name__", tricord_model::MatchOp::Equal, "serial").unwrap();
    let fragment = Fragment {
        now_ms: START_MS,
        horizon_ms: i64::MIN,
        limits: QueryLimits::default(),
        body: FragmentBody::Raw(LabelQuery { matchers: vec![vec![matcher]], ..query }),
    };
    let request = pb::ExecuteRequest {
        cluster_id: map.cluster_id.clone(),
        tenant: Tenant::DEFAULT.to_owned(),
        shards: map.shards.iter().map(|c| pb::ShardEpoch { shard: c.shard.0, epoch: c.epoch.0 }).collect(),
        fragment: fragment.encode().unwrap().into(),
        ..pb::ExecuteRequest::default()
    };
    let mut chunks = cluster.data_node(NodeId(node))?.execute(request).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?.partial);
    }
    let PartialBody::Raw(rows) = Partial::decode(&bytes).unwrap().body else { panic!("not raw samples") };
    let shard_of = |labels: &Labels| labels.get("shard").unwrap().parse::<u32>().unwrap();
    Ok(rows.iter().map(|(labels, points)| (shard_of(labels), serials(points))).collect())
}

fn serials(points: &tricord_model::Points) -> Vec<u64> {
    points.iter().map(|point| (point.t_ms - START_MS) as u64).collect()
}

async fn read(cluster: &Cluster, node: u64) -> BTreeMap<u32, Vec<u64>> {
    let started = Instant::now();
    loop {
        match try_read(cluster, node).await {
            Ok(rows) => return rows,
            Err(error) => {
                assert!(error.retryable(), "{error:?}");
                assert!(started.elapsed() < DEADLINE, "node {node}: {error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn expected(serials: std::ops::Range<u64>) -> BTreeMap<u32, Vec<u64>> {
    (0..SHARDS).map(|shard| (shard, serials.clone().collect())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_primary_takes_nothing_acknowledged_with_it_and_rejoins() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1, 2, 3], &[], 3, 2));
    let first = start(&cluster, dir.path(), 1).await;
    let second = start(&cluster, dir.path(), 2).await;
    let third = start(&cluster, dir.path(), 3).await;
    for serial in 0..50 {
        for shard in 0..SHARDS {
            must_write(&cluster, shard, serial).await;
        }
    }
    for node in 1..=3 {
        assert_eq!(read(&cluster, node).await, expected(0..50), "every in-sync replica answers the same");
    }
    kill(&cluster, first, 1).await;
    assert!(write(&cluster, 0, 50).await.is_err());
    assert!(cluster.set_map(map(100, &[2, 3], &[], 3, 2)));
    for serial in 50..100 {
        for shard in 0..SHARDS {
            must_write(&cluster, shard, serial).await;
        }
    }
    assert_eq!(read(&cluster, 2).await, expected(0..100));
    assert_eq!(read(&cluster, 3).await, expected(0..100));
    cluster.set_map(map(200, &[2, 3], &[1], 3, 2));
    let first = start(&cluster, dir.path(), 1).await;
    let rejoined = |map: &ShardMap| map.shards.iter().all(|config| config.in_sync.contains(&NodeId(1)));
    cluster.wait_for(DEADLINE, rejoined).await.unwrap();
    must_write(&cluster, 0, 100).await;
    let mut all = expected(0..100);
    all.entry(0).or_default().push(100);
    for node in 1..=3 {
        assert_eq!(read(&cluster, node).await, all, "node {node}");
    }
    for querier in [first, second, third] {
        querier.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_follower_is_taken_out_and_writes_go_on() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1, 2, 3], &[], 3, 2));
    let first = start(&cluster, dir.path(), 1).await;
    let second = start(&cluster, dir.path(), 2).await;
    let third = start(&cluster, dir.path(), 3).await;
    must_write(&cluster, 0, 0).await;
    kill(&cluster, third, 3).await;
    must_write(&cluster, 0, 1).await;
    let config = cluster.map().shard(ShardId(0)).cloned().unwrap();
    assert_eq!((config.in_sync, config.joining), (vec![NodeId(1), NodeId(2)], vec![NodeId(3)]));
    kill(&cluster, second, 2).await;
    let refused = write(&cluster, 0, 2).await.unwrap_err();
    assert!(refused.retryable(), "{refused:?}");
    assert_eq!(cluster.map().shard(ShardId(0)).unwrap().in_sync.len(), 2, "never fewer than the minimum");
    first.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_copy_serves_at_once_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1], &[], 1, 1));
    let querier = start(&cluster, dir.path(), 1).await;
    for serial in 0..20 {
        must_write(&cluster, 1, serial).await;
    }
    kill(&cluster, querier, 1).await;
    let querier = start(&cluster, dir.path(), 1).await;
    must_write(&cluster, 1, 20).await;
    assert_eq!(read(&cluster, 1).await, BTreeMap::from([(1, (0..21).collect())]));
    cluster.set_local(NodeId(1), Arc::new(Dead));
    querier.stop().await.unwrap();
    let querier = start(&cluster, dir.path(), 1).await;
    assert_eq!(read(&cluster, 1).await, BTreeMap::from([(1, (0..21).collect())]), "after a flush too");
    querier.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_meant_for_others_are_refused() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1], &[], 1, 1));
    let querier = start(&cluster, dir.path(), 1).await;
    must_write(&cluster, 0, 0).await;
    let service = querier.service();
    let wrong = pb::WriteRequest { cluster_id: "other".to_owned(), ..pb::WriteRequest::default() };
    assert_eq!(service.write(wrong).await.unwrap_err().kind, ErrorKind::Invalid);
    let batch = Batch::default().encode();
    let stale = pb::WriteRequest {
        cluster_id: "test".to_owned(),
        tenant: "default".to_owned(),
        shards: vec![pb::ShardWrite { shard: 0, epoch: 7, batch: batch.into() }],
        timeout_ms: 0,
    };
    let answer = service.write(stale).await.unwrap();
    assert_eq!(answer.shards[0].failure.as_ref().unwrap().kind, "stale_epoch");
    let garbage = pb::ExecuteRequest {
        cluster_id: "test".to_owned(),
        tenant: "default".to_owned(),
        fragment: vec![9, 9].into(),
        ..pb::ExecuteRequest::default()
    };
    assert_eq!(service.execute(garbage).await.err().unwrap().kind, ErrorKind::Invalid);
    querier.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_gets_a_snapshot_of_what_the_log_has_trimmed() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1], &[], 1, 1));
    let small = Config { log_segment_bytes: 1024, log_keep_segments: 0, ..Config::default() };
    let first = start_with(&cluster, dir.path(), 1, small).await;
    for serial in 0..50 {
        for shard in 0..SHARDS {
            must_write(&cluster, shard, serial).await;
        }
    }
    first.service().flush(pb::FlushRequest::default()).await.unwrap();
    let store = first.replicas.store.clone();
    let trimmed = |shard| matches!(store.entries(ShardId(shard), tricord_model::Seq(0), 1 << 20), Ok(None));
    let started = Instant::now();
    while !(0..SHARDS).all(trimmed) {
        assert!(started.elapsed() < DEADLINE, "the log is not trimmed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for shard in 0..SHARDS {
        must_write(&cluster, shard, 50).await;
    }
    cluster.set_map(map(100, &[1], &[2], 2, 1));
    let second = start(&cluster, dir.path(), 2).await;
    let joined = |map: &ShardMap| map.shards.iter().all(|config| config.in_sync.contains(&NodeId(2)));
    cluster.wait_for(DEADLINE, joined).await.unwrap();
    must_write(&cluster, 0, 51).await;
    let mut all = expected(0..51);
    all.entry(0).or_default().push(51);
    assert_eq!(read(&cluster, 1).await, all);
    assert_eq!(read(&cluster, 2).await, all);
    drop(store);
    for querier in [first, second] {
        querier.stop().await.unwrap();
    }
}
