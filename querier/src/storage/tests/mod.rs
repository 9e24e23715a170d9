//! Tests of the store as a whole, over real RocksDB in temporary directories.

mod classes;
mod crash;
mod damage;
mod deletes;
mod lists;
mod lost;
mod merges;
mod model;
mod removal;
mod replicas;
mod rows;
mod writes;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use tricord_model::{
    Batch, BatchView, Deletion, Epoch, Labels, Matcher, Points, Retention, Sample, Seq, SeriesBatch, ShardId,
    SpanRecord, Tenant, TraceId,
};

use super::log::files::{Files, RealFiles};
use super::*;

/// The start of a window.
const T0: i64 = 1_800_000 * 1_000_000;
const WINDOW: i64 = 1_800_000;
/// The clock of most tests.
const NOW: i64 = T0 + 60_000;

/// A store in a directory of its own.
struct Node {
    dir: TempDir,
    config: StoreConfig,
    files: Arc<dyn Files>,
    store: Option<Arc<Store>>,
}

impl Node {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut StoreConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = StoreConfig::new(dir.path().join("store"));
        config.block_cache_bytes = 4 << 20;
        change(&mut config);
        let mut node = Self { dir, config, files: Arc::new(RealFiles), store: None };
        node.open().unwrap();
        (0..3).for_each(|shard| node.store().create_shard(ShardId(shard)).unwrap());
        node
    }

    fn open(&mut self) -> Result<(), Error> {
        self.store = Some(Store::open_with(self.config.clone(), Arc::clone(&self.files), &|_| {})?);
        Ok(())
    }

    fn reopen(&mut self) {
        self.store = None;
        self.open().unwrap();
    }

    fn store(&self) -> &Arc<Store> {
        self.store.as_ref().unwrap()
    }

    /// Judges, appends and commits a batch, as a primary without followers does.
    fn write(&self, shard: u32, batch: Batch) -> Counts {
        let counts = self.append(shard, batch, NOW);
        self.store().commit(ShardId(shard), self.store().position(ShardId(shard)).seq);
        counts
    }

    /// As [`Node::write`], for a tenant.
    fn write_as(&self, tenant: &Tenant, shard: u32, batch: Batch) -> Counts {
        let counts = self.append_as(tenant, shard, batch, NOW);
        self.store().commit(ShardId(shard), self.store().position(ShardId(shard)).seq);
        counts
    }

    /// Judges and appends a batch without committing it.
    fn append(&self, shard: u32, batch: Batch, now_ms: i64) -> Counts {
        self.append_as(&Tenant::default(), shard, batch, now_ms)
    }

    fn append_as(&self, tenant: &Tenant, shard: u32, batch: Batch, now_ms: i64) -> Counts {
        let (store, shard) = (self.store(), ShardId(shard));
        let judged = judge(store, shard, tenant, &batch, now_ms).unwrap();
        if !judged.is_empty {
            let seq = store.position(shard).seq.next();
            let epoch = Epoch(store.stored_epoch(shard).0.max(1));
            let done = store.append(vec![Entry { shard, seq, epoch, payload: judged.payload }]);
            done.blocking_recv().unwrap().unwrap();
        }
        judged.counts
    }

    /// Judges, appends and commits a delete.
    fn delete(&self, shard: u32, deletion: &Deletion) {
        self.delete_as(&Tenant::default(), shard, deletion);
    }

    /// As [`Node::delete`], for a tenant.
    fn delete_as(&self, tenant: &Tenant, shard: u32, deletion: &Deletion) {
        self.append_delete_as(tenant, shard, deletion).unwrap();
        self.store().commit(ShardId(shard), self.store().position(ShardId(shard)).seq);
    }

    /// Judges and appends a delete without committing it.
    fn append_delete(&self, shard: u32, deletion: &Deletion) -> Result<(), Error> {
        self.append_delete_as(&Tenant::default(), shard, deletion)
    }

    fn append_delete_as(&self, tenant: &Tenant, shard: u32, deletion: &Deletion) -> Result<(), Error> {
        let (store, shard) = (self.store(), ShardId(shard));
        let judged = store.judge_delete(shard, tenant, deletion)?;
        let seq = store.position(shard).seq.next();
        let epoch = Epoch(store.stored_epoch(shard).0.max(1));
        store.append(vec![Entry { shard, seq, epoch, payload: judged.payload }]).blocking_recv().unwrap()
    }

    fn reader(&self) -> Reader {
        let store = self.store();
        store.reader(&store.shards(), &Tenant::default(), i64::MIN)
    }

    fn select(&self, matchers: &[Matcher]) -> Vec<(Labels, Points)> {
        self.reader().select(matchers, i64::MIN, i64::MAX - 1, u64::MAX).unwrap()
    }

    /// How many samples of a tenant are found.
    fn samples_of(&self, tenant: &Tenant) -> usize {
        let store = self.store();
        let reader = store.reader(&store.shards(), tenant, i64::MIN);
        let found = reader.select(&[], i64::MIN, i64::MAX - 1, u64::MAX).unwrap();
        found.iter().map(|(_, points)| points.len()).sum()
    }

    /// All samples by label set.
    fn all(&self) -> BTreeMap<Labels, Vec<Sample>> {
        self.select(&[]).into_iter().map(|(labels, points)| (labels, points.iter().collect())).collect()
    }

    fn spans(&self) -> Vec<SpanRecord> {
        let mut found = Vec::new();
        let visit = &mut |span: &SpanRecord| {
            found.push(span.clone());
            ControlFlow::Continue(())
        };
        self.reader().scan_spans(0, u64::MAX, visit).unwrap();
        found
    }
}

/// Judges a batch as it comes from an ingester.
fn judge(
    store: &Store,
    shard: ShardId,
    tenant: &Tenant,
    batch: &Batch,
    now_ms: i64,
) -> Result<Judged, Error> {
    store.judge(shard, tenant, BatchView::read(&batch.encode())?, now_ms)
}

fn labels(name: &str, instance: u32) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", &instance.to_string()), ("job", "test")])
}

fn series(name: &str, instance: u32, samples: &[(i64, f64)]) -> SeriesBatch {
    let samples = samples.iter().map(|(t_ms, value)| Sample::float(*t_ms, *value)).collect();
    SeriesBatch { labels: labels(name, instance), samples, ..SeriesBatch::default() }
}

fn batch(series: Vec<SeriesBatch>) -> Batch {
    Batch { series, ..Batch::default() }
}

fn span(trace: u8, id: u8, start_ms: i64) -> SpanRecord {
    SpanRecord {
        trace_id: TraceId([trace; 16]),
        span_id: [id; 8],
        start_ns: start_ms as u64 * 1_000_000,
        end_ns: start_ms as u64 * 1_000_000 + 5,
        resource: Bytes::from_static(b"resource"),
        resource_schema_url: "r".into(),
        scope: Bytes::from_static(b"scope"),
        scope_schema_url: String::new(),
        span: Bytes::from(format!("span {trace} {id}")),
    }
}

fn floats(samples: &[Sample]) -> Vec<(i64, f64)> {
    samples
        .iter()
        .map(|sample| match sample.value {
            tricord_model::Value::Float(value) => (sample.t_ms, value),
            tricord_model::Value::Histogram(_) => panic!("a histogram"),
        })
        .collect()
}
