//! Fake data nodes over samples in memory, and a proxy before them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt;
use tricord_fragment::{
    Cardinality, Fragment, FragmentBody, FragmentStats, LabelQuery, Partial, PartialBody,
};
use tricord_metadata_client::Cluster;
use tricord_model::{Epoch, Labels, Matcher, NodeId, Points, Sample, ShardId, Tenant};
use tricord_promql::eval::{
    AggregateParam, EvalOptions, NoSources, PartialSpec, evaluate_part, evaluate_partial,
};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::storage::{Selection, Storage, StorageError};
use tricord_routing::{NodeInfo, NodeRole, ShardConfig, ShardMap, series_shard};
use tricord_wire::proto::datanode as pb;
use tricord_wire::{DataNode, Error as WireError, ErrorKind, ResponseStream};

use crate::{Config, Deps, Metrics, Proxy};

/// Series with their samples.
#[derive(Clone, Default)]
pub(super) struct Memory(pub(super) Vec<(Labels, Points)>);

impl Storage for Memory {
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError> {
        let within = |t_ms: i64| t_ms > selection.after_ms && t_ms <= selection.until_ms;
        let mut found: Vec<(Labels, Points)> = Vec::new();
        for (labels, points) in self.0.iter().filter(|(labels, _)| matches(labels, selection.matchers)) {
            let points: Points = points.iter().filter(|sample| within(sample.t_ms)).collect();
            if !points.is_empty() {
                found.push((labels.clone(), points));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

fn matches(labels: &Labels, matchers: &[Matcher]) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.name).unwrap_or("")))
}

/// A data node with some shards.
#[derive(Default)]
pub(super) struct FakeNode {
    /// All shards' samples; a node answers for those it is asked for.
    pub(super) shards: HashMap<ShardId, Memory>,
    /// What the next calls are refused with.
    pub(super) refusals: Mutex<Vec<WireError>>,
    /// Shards whose data is damaged here.
    pub(super) damaged: Mutex<Vec<ShardId>>,
    /// Whether it takes requests and never answers.
    pub(super) hangs: AtomicBool,
    /// The deletes that it took.
    pub(super) deletes: Mutex<Vec<pb::DeleteRequest>>,
    /// Deletes that it says are left when it has cleaned.
    pub(super) deletes_left: AtomicUsize,
    /// How often it was asked to execute.
    pub(super) asked: AtomicUsize,
}

impl FakeNode {
    fn run(&self, request: &pb::ExecuteRequest) -> Result<Partial, WireError> {
        if let Some(refusal) = self.refusals.lock().pop() {
            return Err(refusal);
        }
        if request.shards.iter().any(|shard| self.damaged.lock().contains(&ShardId(shard.shard))) {
            return Err(WireError::new(ErrorKind::Corrupt, "damaged by the test"));
        }
        let fragment = Fragment::decode(&request.fragment).unwrap();
        let mut memory = Memory::default();
        for shard in &request.shards {
            memory.0.extend(self.shards.get(&ShardId(shard.shard)).cloned().unwrap_or_default().0);
        }
        run(&memory, &fragment.body)
    }
}

fn run(memory: &Memory, body: &FragmentBody) -> Result<Partial, WireError> {
    let series = |query: &LabelQuery| -> Vec<Labels> {
        let any = |labels: &Labels| {
            query.matchers.is_empty() || query.matchers.iter().any(|set| matches(labels, set))
        };
        let found: BTreeSet<Labels> = memory.0.iter().map(|(l, _)| l.clone()).filter(any).collect();
        found.into_iter().collect()
    };
    let names = |names: BTreeSet<String>| Partial::of(PartialBody::Names(names.into_iter().collect()));
    Ok(match body {
        FragmentBody::Promql(fragment) => return run_promql(memory, fragment),
        FragmentBody::Raw(query) => {
            let selection = Selection {
                matchers: &query.matchers[0],
                after_ms: query.start_ms - 1,
                until_ms: query.end_ms,
                max_samples: u64::MAX,
                any_order: false,
            };
            let series = memory.select(&selection).unwrap();
            let samples = series.iter().map(|(_, points)| points.len() as u64).sum();
            let stats = FragmentStats { samples, series: series.len() as u64, ..FragmentStats::default() };
            Partial { stats, ..Partial::of(PartialBody::Raw(series)) }
        }
        FragmentBody::Estimate(query) => {
            let within = |t_ms: &&i64| (query.start_ms..=query.end_ms).contains(*t_ms);
            let matching = series(query);
            let points = memory.0.iter().filter(|(labels, _)| matching.contains(labels));
            let samples = points.map(|(_, points)| points.t_ms.iter().filter(within).count() as u64).sum();
            let series = matching.len() as u64;
            Partial::of(PartialBody::Estimate(tricord_fragment::Estimate { series, samples }))
        }
        FragmentBody::Series(query) => Partial::of(PartialBody::Series(series(query))),
        FragmentBody::LabelNames(query) => names(
            series(query)
                .iter()
                .flat_map(|l| l.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>())
                .collect(),
        ),
        FragmentBody::LabelValues { name, query } => {
            names(series(query).iter().filter_map(|labels| labels.get(name).map(str::to_owned)).collect())
        }
        FragmentBody::Exemplars(_) => Partial::of(PartialBody::Exemplars(vec![])),
        FragmentBody::Metadata { .. } => Partial::of(PartialBody::Metadata(vec![])),
        FragmentBody::Cardinality { .. } => {
            let counts = Cardinality { series: memory.0.len() as u64, ..Cardinality::default() };
            Partial::of(PartialBody::Cardinality(counts))
        }
        _ => return Err(WireError::new(ErrorKind::Invalid, "not part of this test")),
    })
}

fn run_promql(memory: &Memory, fragment: &tricord_fragment::PromqlFragment) -> Result<Partial, WireError> {
    let mut expr = parse(&fragment.expr, &ParserOptions::default()).unwrap();
    let nodes = expr.number_nodes();
    let options = EvalOptions {
        lookback_ms: fragment.lookback_ms,
        delayed_name_removal: fragment.delayed_name_removal,
        count_steps: fragment.count_steps,
        histogram_stats: fragment.histogram_stats,
        ..EvalOptions::new(fragment.query)
    };
    let failed = |error: tricord_promql::eval::EvalError| WireError::new(ErrorKind::Limit, error.to_string());
    let (body, notes, stats) = match &fragment.aggregate {
        None => {
            let (columns, notes, stats) =
                evaluate_part(&expr, fragment.grid, memory, &NoSources, &options).map_err(failed)?;
            (PartialBody::Columns(columns), notes, stats)
        }
        Some(spec) => {
            let param = match spec.param.as_slice() {
                [] => AggregateParam::None,
                [value] => AggregateParam::Constant(*value),
                values => AggregateParam::Steps(values.to_vec()),
            };
            let spec = PartialSpec::numbered(spec.op, spec.grouping.clone(), param, nodes);
            let (groups, notes, stats) =
                evaluate_partial(&spec, &expr, fragment.grid, memory, &NoSources, &options)
                    .map_err(failed)?;
            (PartialBody::Groups(groups), notes, stats)
        }
    };
    let stats = FragmentStats {
        samples: stats.samples_read,
        series: stats.series,
        peak_samples: stats.peak_samples,
        steps: stats.steps,
        ..FragmentStats::default()
    };
    Ok(Partial { notes, stats, truncated: false, body })
}

#[async_trait::async_trait]
impl DataNode for FakeNode {
    async fn write(&self, _: pb::WriteRequest) -> Result<pb::WriteResponse, WireError> {
        Err(WireError::internal("not part of this test"))
    }

    async fn delete(&self, request: pb::DeleteRequest) -> Result<pb::WriteResponse, WireError> {
        if let Some(refusal) = self.refusals.lock().pop() {
            return Err(refusal);
        }
        let done = |of: &pb::ShardEpoch| pb::ShardWriteResult { shard: of.shard, ..Default::default() };
        let shards = request.shards.iter().map(done).collect();
        self.deletes.lock().push(request);
        Ok(pb::WriteResponse { shards })
    }

    async fn replicate(&self, _: pb::ReplicateRequest) -> Result<pb::ReplicateResponse, WireError> {
        Err(WireError::internal("not part of this test"))
    }

    async fn beacon(&self, _: pb::BeaconRequest) -> Result<pb::BeaconResponse, WireError> {
        Err(WireError::internal("not part of this test"))
    }

    async fn install_snapshot(
        &self,
        _: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, WireError> {
        Err(WireError::internal("not part of this test"))
    }

    async fn backup(&self, _: pb::BackupRequest) -> Result<ResponseStream<pb::SnapshotChunk>, WireError> {
        Err(WireError::internal("not part of this test"))
    }

    async fn restore(&self, _: ResponseStream<pb::SnapshotChunk>) -> Result<pb::SnapshotResponse, WireError> {
        Err(WireError::internal("not part of this test"))
    }

    async fn execute(
        &self,
        request: pb::ExecuteRequest,
    ) -> Result<ResponseStream<pb::ExecuteChunk>, WireError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        // In pieces of 100 bytes, as a stream may cut anywhere.
        let bytes = self.run(&request)?.encode().map_err(WireError::internal)?;
        let chunks: Vec<_> =
            bytes.chunks(100).map(|piece| Ok(pb::ExecuteChunk { partial: piece.to_vec().into() })).collect();
        Ok(futures::stream::iter(chunks).boxed())
    }

    async fn flush(&self, request: pb::FlushRequest) -> Result<pb::FlushResponse, WireError> {
        let merged = u64::from(request.merge);
        let left = if request.clean { self.deletes_left.load(Ordering::Relaxed) } else { 0 };
        let deletes_left = left as u64;
        Ok(pb::FlushResponse { windows: 2, bytes: 10, merged, merged_bytes: merged * 7, deletes_left })
    }

    async fn status(&self, _: pb::NodeStatusRequest) -> Result<pb::NodeStatusResponse, WireError> {
        Err(WireError::internal("not part of this test"))
    }
}

/// A proxy over fake nodes.
pub(super) struct FakeCluster {
    pub(super) nodes: Vec<Arc<FakeNode>>,
    pub(super) cluster: Cluster,
    router: Router,
    metrics: Metrics,
}

impl FakeCluster {
    /// Spreads series over shards by the real rule, shards over nodes, each on `copies` of them.
    pub(super) fn new(data: &Memory, shards: u32, nodes: u64, copies: u64) -> Self {
        Self::with(data, shards, nodes, copies, Config::default())
    }

    /// As [`FakeCluster::new`], with other settings for queries.
    pub(super) fn with(data: &Memory, shards: u32, nodes: u64, copies: u64, config: Config) -> Self {
        let mut parts: HashMap<ShardId, Memory> = HashMap::new();
        for series in &data.0 {
            let shard = series_shard(&Tenant::default(), &series.0, shards);
            parts.entry(shard).or_default().0.push(series.clone());
        }
        let configs = (0..shards).map(|shard| {
            let in_sync: Vec<_> =
                (0..copies).map(|copy| NodeId((u64::from(shard) + copy) % nodes + 1)).collect();
            let primary = in_sync.first().copied();
            ShardConfig { shard: ShardId(shard), epoch: Epoch(1), primary, in_sync, joining: vec![] }
        });
        let infos = (1..=nodes).map(|id| NodeInfo {
            id: NodeId(id),
            role: NodeRole::Querier,
            rpc: format!("127.0.0.1:{id}"),
            http: String::new(),
            zone: String::new(),
            version: String::new(),
            alive: true,
            draining: false,
        });
        let map = ShardMap {
            version: 1,
            cluster_id: "test".to_owned(),
            shards: configs.collect(),
            nodes: infos.collect(),
            replicas: copies as u32,
            min_insync: 1,
            ..ShardMap::default()
        };
        let cluster = Cluster::fixed(map);
        let fakes: Vec<_> = (1..=nodes)
            .map(|id| {
                let node = Arc::new(FakeNode { shards: parts.clone(), ..FakeNode::default() });
                cluster.set_local(NodeId(id), node.clone());
                node
            })
            .collect();
        let config = Config {
            retention: "0".into(),
            missing_shard_wait: "100ms".into(),
            hedge_after: "50ms".into(),
            ..config
        };
        let deps = Deps { cluster: cluster.clone(), metrics: tricord_runtime::Metrics::new() };
        let proxy = Proxy::new(config, deps).unwrap();
        Self { nodes: fakes, cluster, router: proxy.router(), metrics: proxy.metrics().clone() }
    }

    pub(super) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until something holds.
    pub(super) async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            assert!(Instant::now() < deadline, "it never came to that");
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        let json =
            serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body)));
        (status, json)
    }

    pub(super) async fn post(&self, path: &str, form: &str) -> (StatusCode, Value) {
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        let (status, _, body) = self.send(request.body(Body::from(form.to_owned())).unwrap()).await;
        (status, serde_json::from_slice(&body).unwrap())
    }
}

/// A query text as part of a URL.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// 3 jobs with 4 instances each, scraped every 15 s from 0 to 600 s, and series that lack `instance`.
pub(super) fn example() -> Memory {
    let mut series = Vec::new();
    let mut add = |pairs: &[(&str, &str)], value: &dyn Fn(i64) -> f64| {
        let points = (0..=40).map(|at| Sample::float(at * 15_000, value(at))).collect();
        series.push((Labels::from_pairs(pairs.iter().copied()), points));
    };
    for job in 0..3i64 {
        for instance in 0..4i64 {
            let (j, i) = (format!("job-{job}"), format!("host-{instance}:9100"));
            let target = [("job", j.as_str()), ("instance", i.as_str())];
            let seed = (job * 4 + instance + 1) as f64;
            add(&[("__name__", "up"), target[0], target[1]], &|at| f64::from(at % 7 != instance));
            add(&[("__name__", "requests_total"), target[0], target[1], ("code", "200")], &|at| {
                at as f64 * seed * 1.1
            });
            add(&[("__name__", "requests_total"), target[0], target[1], ("code", "500")], &|at| {
                at as f64 * seed / 3.0
            });
            for (bucket, le) in ["0.1", "0.5", "1", "+Inf"].into_iter().enumerate() {
                let rate = seed * (bucket + 1) as f64;
                add(&[("__name__", "latency_bucket"), target[0], target[1], ("le", le)], &|at| {
                    at as f64 * rate
                });
            }
        }
        let j = format!("job-{job}");
        add(&[("__name__", "limits"), ("job", &j)], &|_| 10.0 * (job + 1) as f64);
    }
    add(&[("__name__", "tiny")], &|at| 1e-17 * at as f64);
    add(&[("__name__", "huge"), ("sign", "plus")], &|at| 1e300 + at as f64);
    add(&[("__name__", "huge"), ("sign", "minus")], &|at| -1e300 + at as f64);
    add(&[("__name__", "k")], &|_| 2.0);
    Memory(series)
}
