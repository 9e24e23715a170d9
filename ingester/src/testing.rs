//! A data node that keeps what it gets in memory, and the cluster around it. Only for tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tricord_metadata_client::Cluster;
use tricord_model::{Batch, BatchView, Epoch, Labels, LabelsView, NodeId, SeriesBatch, ShardId, Value};
use tricord_routing::{NodeInfo, NodeRole, ShardConfig, ShardMap};
use tricord_runtime::MemoryBudget;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{DataNode, Error as WireError, ErrorKind, ResponseStream};

use crate::{Config, Deps, Ingester};

/// What the node does with the next request instead of taking it.
pub(crate) enum Trick {
    /// Fails the whole call.
    Fail(WireError),
    /// Fails one shard and takes the others.
    FailShard(u32, WireError),
    /// Puts another map in place, then fails the call.
    Move(Cluster, ShardMap),
    /// Takes the data but answers that these many samples were refused.
    Refuse(u64),
    /// Never answers.
    Hang,
}

/// A data node in memory.
#[derive(Default)]
pub(crate) struct FakeNode {
    pub(crate) taken: Mutex<Vec<(ShardId, u64, String, Batch)>>,
    pub(crate) calls: Mutex<usize>,
    pub(crate) tricks: Mutex<VecDeque<Trick>>,
    /// Bytes of each batch.
    pub(crate) sizes: Mutex<Vec<usize>>,
    /// Labels by fingerprint, as they were sent.
    pub(crate) known: Mutex<BTreeMap<u128, Labels>>,
}

impl FakeNode {
    pub(crate) fn trick(&self, trick: Trick) {
        self.tricks.lock().push_back(trick);
    }

    /// All batches put together.
    pub(crate) fn batch(&self) -> Batch {
        let mut all = Batch::default();
        for (_, _, _, batch) in self.taken.lock().iter() {
            all.series.extend(batch.series.clone());
            all.metadata.extend(batch.metadata.clone());
            all.spans.extend(batch.spans.clone());
        }
        all
    }

    /// A shard's batch with labels, unless some are neither known nor sent.
    fn read(&self, bytes: &[u8]) -> Option<Batch> {
        self.sizes.lock().push(bytes.len());
        let BatchView { series, metadata, spans } = BatchView::read(bytes).unwrap();
        let mut known = self.known.lock();
        let mut batch = Batch { metadata, spans, ..Batch::default() };
        for one in &series {
            let labels = match one.labels {
                LabelsView::Known => known.get(&one.fingerprint)?.clone(),
                _ => one.decode_labels().unwrap(),
            };
            known.insert(one.fingerprint, labels.clone());
            batch.series.push(SeriesBatch {
                labels,
                samples: one.samples().iter().collect(),
                exemplars: one.exemplars().to_vec(),
                delta: one.is_delta(),
            });
        }
        Some(batch)
    }

    fn take(&self, tenant: &str, write: &pb::ShardWrite, batch: Batch) -> pb::WriteCounts {
        let floats = |s: &&tricord_model::Sample| matches!(s.value, Value::Float(_));
        let samples = || batch.series.iter().flat_map(|series| &series.samples);
        let counts = pb::WriteCounts {
            samples: samples().filter(floats).count() as u64,
            histograms: samples().filter(|s| !floats(s)).count() as u64,
            exemplars: batch.series.iter().map(|series| series.exemplars.len() as u64).sum(),
            spans: batch.spans.len() as u64,
            ..pb::WriteCounts::default()
        };
        self.taken.lock().push((ShardId(write.shard), write.epoch, tenant.to_owned(), batch));
        counts
    }
}

fn no<T>() -> Result<T, WireError> {
    Err(WireError::new(ErrorKind::Internal, "not part of this test"))
}

#[async_trait::async_trait]
impl DataNode for FakeNode {
    async fn write(&self, request: pb::WriteRequest) -> Result<pb::WriteResponse, WireError> {
        *self.calls.lock() += 1;
        let trick = self.tricks.lock().pop_front();
        let (mut failing, mut refused) = (None, 0);
        match trick {
            Some(Trick::Fail(error)) => return Err(error),
            Some(Trick::Move(cluster, map)) => {
                cluster.set_map(map);
                return Err(WireError::new(ErrorKind::NotServing, "not the primary any more"));
            }
            Some(Trick::Hang) => return std::future::pending().await,
            Some(Trick::FailShard(shard, error)) => failing = Some((shard, error)),
            Some(Trick::Refuse(samples)) => refused = samples,
            None => {}
        }
        let answer = |write: &pb::ShardWrite| {
            if let Some((_, error)) = failing.as_ref().filter(|(shard, _)| *shard == write.shard) {
                return pb::ShardWriteResult {
                    shard: write.shard,
                    failure: Some(error.to_failure()),
                    counts: None,
                };
            }
            let Some(batch) = self.read(&write.batch) else {
                let error = WireError::new(ErrorKind::UnknownSeries, "send the labels");
                return pb::ShardWriteResult {
                    shard: write.shard,
                    failure: Some(error.to_failure()),
                    counts: None,
                };
            };
            let mut counts = self.take(&request.tenant, write, batch);
            counts.samples -= refused;
            counts.rejected_samples = refused;
            if refused > 0 {
                counts.reasons.push("too far in the future".to_owned());
            }
            pb::ShardWriteResult { shard: write.shard, failure: None, counts: Some(counts) }
        };
        Ok(pb::WriteResponse { shards: request.shards.iter().map(answer).collect() })
    }

    async fn delete(&self, _: pb::DeleteRequest) -> Result<pb::WriteResponse, WireError> {
        no()
    }

    async fn replicate(&self, _: pb::ReplicateRequest) -> Result<pb::ReplicateResponse, WireError> {
        no()
    }

    async fn beacon(&self, _: pb::BeaconRequest) -> Result<pb::BeaconResponse, WireError> {
        no()
    }

    async fn install_snapshot(
        &self,
        _: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, WireError> {
        no()
    }

    async fn backup(&self, _: pb::BackupRequest) -> Result<ResponseStream<pb::SnapshotChunk>, WireError> {
        no()
    }

    async fn restore(&self, _: ResponseStream<pb::SnapshotChunk>) -> Result<pb::SnapshotResponse, WireError> {
        no()
    }

    async fn execute(&self, _: pb::ExecuteRequest) -> Result<ResponseStream<pb::ExecuteChunk>, WireError> {
        no()
    }

    async fn flush(&self, _: pb::FlushRequest) -> Result<pb::FlushResponse, WireError> {
        no()
    }

    async fn status(&self, _: pb::NodeStatusRequest) -> Result<pb::NodeStatusResponse, WireError> {
        no()
    }
}

/// A map of so many shards, dealt out to the primaries in turn.
pub(crate) fn map(version: u64, shards: u32, primaries: &[u64]) -> ShardMap {
    let shard = |at: u32| {
        let primary = NodeId(primaries[at as usize % primaries.len()]);
        ShardConfig {
            shard: ShardId(at),
            epoch: Epoch(version),
            primary: Some(primary),
            in_sync: vec![primary],
            joining: Vec::new(),
        }
    };
    let node = |id: &u64| NodeInfo {
        id: NodeId(*id),
        role: NodeRole::Querier,
        rpc: String::new(),
        http: String::new(),
        zone: String::new(),
        version: String::new(),
        alive: true,
        draining: false,
    };
    ShardMap {
        version,
        cluster_id: "test".to_owned(),
        shards: (0..shards).map(shard).collect(),
        nodes: primaries.iter().map(node).collect(),
        replicas: 1,
        min_insync: 1,
        ..ShardMap::default()
    }
}

/// An ingester before two nodes with four shards each.
pub(crate) struct Setup {
    pub(crate) ingester: Arc<Ingester>,
    pub(crate) cluster: Cluster,
    pub(crate) nodes: [Arc<FakeNode>; 2],
    pub(crate) metrics: tricord_runtime::Metrics,
    pub(crate) memory: MemoryBudget,
}

pub(crate) fn setup(config: Config) -> Setup {
    let cluster = Cluster::fixed(map(1, 8, &[1, 2]));
    let nodes = [Arc::new(FakeNode::default()), Arc::new(FakeNode::default())];
    for (id, node) in (1..).zip(&nodes) {
        cluster.set_local(NodeId(id), Arc::<FakeNode>::clone(node));
    }
    let (metrics, memory) = (tricord_runtime::Metrics::new(), MemoryBudget::new(1 << 30));
    let deps = Deps { cluster: cluster.clone(), metrics: metrics.clone(), memory: memory.clone() };
    Setup { ingester: Ingester::new(config, deps), cluster, nodes, metrics, memory }
}

impl Setup {
    /// What both nodes took.
    pub(crate) fn batch(&self) -> Batch {
        let [mut all, more] = [self.nodes[0].batch(), self.nodes[1].batch()];
        all.series.extend(more.series);
        all.metadata.extend(more.metadata);
        all.spans.extend(more.spans);
        all
    }
}
