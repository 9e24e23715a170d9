//! The store: one per data node.

use std::sync::Arc;

use tokio::sync::oneshot;
use tricord_model::{Batch, Epoch, Seq, ShardId, Tenant};

use super::{Entry, Error, FlushReport, Judged, Position, Progress, Reader, StoreConfig, StoreStats};

/// A shard's state in chunks of at most 1 MiB.
pub type SnapshotChunks = Box<dyn Iterator<Item = Result<Vec<u8>, Error>> + Send>;

/// Everything that one data node stores.
pub struct Store {
    config: StoreConfig,
}

impl Store {
    /// Opens or creates a store: replays the log, cuts a torn tail, reports other damage.
    pub fn open(config: StoreConfig, progress: &dyn Fn(Progress)) -> Result<Arc<Self>, Error> { let _ = (config, progress); Err(nyb()) }
    /// Shards with local state, ascending.
    pub fn shards(&self) -> Vec<ShardId> { let _ = &self.config; Vec::new() }
    /// Makes an empty shard; nothing happens where it exists.
    pub fn create_shard(&self, shard: ShardId) -> Result<(), Error> { let _ = shard; Err(nyb()) }
    /// Forgets a shard with all its data.
    pub fn drop_shard(&self, shard: ShardId) -> Result<(), Error> { let _ = shard; Err(nyb()) }
    /// The last durable entry.
    pub fn position(&self, shard: ShardId) -> Position { let _ = shard; Position::default() }
    /// The last committed entry known.
    pub fn committed(&self, shard: ShardId) -> Seq { let _ = shard; Seq(0) }
    /// The highest epoch seen.
    pub fn stored_epoch(&self, shard: ShardId) -> Epoch { let _ = shard; Epoch(0) }
    /// Stores the highest epoch seen; durable on return.
    pub fn store_epoch(&self, shard: ShardId, epoch: Epoch) -> Result<(), Error> { let _ = (shard, epoch); Err(nyb()) }
    /// Primary: judges a batch; call under the shard's order lock, in sequence order. What it accepts must be appended.
    pub fn judge(&self, shard: ShardId, tenant: &Tenant, batch: Batch, now_ms: i64) -> Result<Judged, Error> { let _ = (shard, tenant, batch, now_ms); Err(nyb()) }
    /// Appends entries of any mix of shards; resolves when they are durable and applied. Never blocks.
    pub fn append(&self, entries: Vec<Entry>) -> oneshot::Receiver<Result<(), Error>> { let _ = entries; oneshot::channel().1 }
    /// Entries up to this one are committed.
    pub fn commit(&self, shard: ShardId, seq: Seq) { let _ = (shard, seq); }
    /// Entries after `after`; `None` where they are trimmed and a snapshot is needed. At least one entry when there is any.
    pub fn entries(&self, shard: ShardId, after: Seq, max_bytes: usize) -> Result<Option<Vec<Entry>>, Error> { let _ = (shard, after, max_bytes); Err(nyb()) }
    /// The epoch of an entry that is still in the log (or is the last trimmed one).
    pub fn epoch_at(&self, shard: ShardId, seq: Seq) -> Option<Epoch> { let _ = (shard, seq); None }
    /// Cuts everything after an entry, durably.
    pub fn cut(&self, shard: ShardId, after: Seq) -> Result<(), Error> { let _ = (shard, after); Err(nyb()) }
    /// The shard's committed state.
    pub fn snapshot(self: &Arc<Self>, shard: ShardId) -> Result<(Position, SnapshotChunks), Error> { let _ = shard; Err(nyb()) }
    /// Replaces a shard by a snapshot.
    pub fn install(&self, shard: ShardId, position: Position, chunks: &mut dyn Iterator<Item = Result<Vec<u8>, Error>>) -> Result<(), Error> { let _ = (shard, position, chunks); Err(nyb()) }
    /// Seals and writes out everything committed.
    pub fn flush(&self) -> Result<FlushReport, Error> { Err(nyb()) }
    /// Seals idle and old windows, applies retention, trims the log. Call every few seconds.
    pub fn maintain(&self, now_ms: i64) -> Result<FlushReport, Error> { let _ = now_ms; Err(nyb()) }
    /// Bytes of data not yet written out.
    pub fn memory(&self) -> u64 { 0 }
    /// Series in memory of one shard.
    pub fn series_in(&self, shard: ShardId) -> u64 { let _ = shard; 0 }
    /// Counts for metrics.
    pub fn stats(&self) -> StoreStats { StoreStats::default() }
    /// A view over shards of one tenant; data before `horizon_ms` (`i64::MIN` for none) is not shown.
    pub fn reader(self: &Arc<Self>, shards: &[ShardId], tenant: &Tenant, horizon_ms: i64) -> Reader { let _ = (shards, tenant, horizon_ms); Reader {} }
    /// Stops the log's threads after everything submitted is durable; later appends fail.
    pub fn close(&self) {}
}

fn nyb() -> Error { Error::Closed("not built yet".into()) }
