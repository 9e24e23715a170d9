//! The store: one per data node. Calls from outside come in here and go to the log, the head or RocksDB.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tricord_model::{Epoch, Seq, ShardId, Tenant};
use tricord_rocks::Rocks;

use super::books::Books;
use super::cache::ReadCache;
use super::classes::Classes;
use super::compact::{Merges, Retired};
use super::damage::Damages;
use super::disk::OnDisk;
use super::head::Shard;
use super::keys;
use super::log::{Done, Kind, Log, Sink};
use super::mend::RowsHealth;
use super::{ClassStats, Entry, Error, FlushReport, Position, Reader, StoreConfig, StoreStats};

/// A shard with its lock.
pub(crate) struct Cell {
    pub(crate) id: ShardId,
    pub(crate) state: RwLock<Shard>,
    /// The shard's memory as last measured, so that the sum needs no locks.
    bytes: AtomicU64,
    /// The entry after which a replica that lags wants the log; `u64::MAX` while none does.
    held: AtomicU64,
    /// The base that the ledger says.
    ledgered: AtomicU64,
}

impl Cell {
    pub(crate) fn new(shard: Shard) -> Arc<Self> {
        let (bytes, held, ledgered) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let cell = Self { id: shard.id, state: RwLock::new(shard), bytes, held, ledgered };
        cell.measure();
        Arc::new(cell)
    }

    /// The entry after which a replica that lags wants the log.
    pub(crate) fn held(&self) -> Option<Seq> {
        Some(self.held.load(Ordering::Relaxed)).filter(|seq| *seq < u64::MAX).map(Seq)
    }

    /// The base that the ledger says.
    pub(crate) fn ledgered(&self) -> Seq {
        Seq(self.ledgered.load(Ordering::Acquire))
    }

    /// Notes the base that the ledger says.
    pub(crate) fn note_ledger(&self, base: Seq) {
        self.ledgered.store(base.0, Ordering::Release);
    }

    pub(crate) fn measure(&self) {
        let bytes = self.state.read().bytes() as u64;
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Counts since the start.
#[derive(Default)]
pub(crate) struct Counters {
    samples: AtomicU64,
    spans: AtomicU64,
    duplicates: AtomicU64,
    windows: AtomicU64,
    kept_bytes: AtomicU64,
    deleted: AtomicU64,
}

impl Counters {
    pub(crate) fn kept(&self, bytes: u64) {
        self.kept_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn duplicate(&self, count: u64) {
        self.duplicates.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn deleted(&self, count: u64) {
        self.deleted.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn flushed(&self, duplicates: u64) {
        self.duplicate(duplicates);
        self.windows.fetch_add(1, Ordering::Relaxed);
    }
}

/// The shards of a store.
pub(crate) type Cells = RwLock<BTreeMap<ShardId, Arc<Cell>>>;

/// What the store shares with the thread that applies entries.
pub(crate) struct Inner {
    pub(crate) config: StoreConfig,
    pub(crate) rocks: Rocks,
    pub(crate) cache: ReadCache,
    pub(crate) classes: Classes,
    pub(crate) shards: Cells,
    /// Held while windows are written: one flush at a time.
    pub(crate) flushing: Mutex<()>,
    /// Held while windows are merged: one merge at a time.
    pub(crate) merging: Mutex<()>,
    pub(crate) merges: Merges,
    /// Generations that merges have replaced.
    pub(crate) retired: Retired,
    /// Held while rows are collected and written, so that an older state never overwrites a newer one.
    pub(crate) writing_rows: Mutex<()>,
    /// The highest generation begun in each window.
    pub(crate) generations: Mutex<HashMap<i64, u32>>,
    pub(crate) counters: Counters,
    pub(crate) books: Books,
    pub(crate) rows_health: RowsHealth,
    pub(crate) damages: Damages,
    /// Snapshots being read: while there are any, nothing they read is removed.
    pub(crate) pins: AtomicUsize,
    pub(crate) log: OnceLock<Arc<Log>>,
}

/// Everything that one data node stores.
pub(crate) struct Store {
    pub(crate) inner: Arc<Inner>,
}

impl Inner {
    pub(crate) fn find(&self, shard: ShardId) -> Option<Arc<Cell>> {
        self.shards.read().get(&shard).cloned()
    }

    pub(crate) fn cell(&self, shard: ShardId) -> Result<Arc<Cell>, Error> {
        self.find(shard).ok_or(Error::UnknownShard(shard))
    }

    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        self.shards.read().values().cloned().collect()
    }

    /// Where files are written before they become part of the database; on the same file system.
    pub(crate) fn staging(&self) -> PathBuf {
        self.config.dir.join("staging")
    }

    pub(crate) fn memory(&self) -> u64 {
        let shards: u64 = self.shards.read().values().map(|cell| cell.bytes.load(Ordering::Relaxed)).sum();
        shards + self.log.get().map_or(0, |log| log.queued_bytes())
    }

    /// What windows are read with.
    pub(crate) fn on_disk(&self) -> OnDisk<'_> {
        let (rocks, damages, window_len_ms) = (&self.rocks, &self.damages, self.config.window_ms);
        OnDisk { rocks, damages, shards: Some(&self.shards), window_len_ms }
    }

    pub(crate) fn log(&self) -> Result<&Arc<Log>, Error> {
        self.log.get().ok_or_else(|| Error::Closed("it is being opened".to_owned()))
    }

    pub(crate) fn log_epoch_at(&self, shard: ShardId, seq: Seq) -> Option<Epoch> {
        self.log.get()?.epoch_at(shard, seq)
    }

    /// Shards that cannot be used at all, beside those in which windows are damaged.
    fn fenced_shards(&self) -> u64 {
        let is_fenced = |cell: &Arc<Cell>| cell.state.read().damage.is_some();
        let fenced = self.cells().into_iter().filter(is_fenced);
        fenced.filter(|cell| self.damages.of_shard(cell.id).is_none()).count() as u64
    }

    /// Makes the log durable in any mode; while opening there is nothing to do.
    pub(crate) fn sync_log(&self) -> Result<(), Error> {
        self.log.get().map_or(Ok(()), |log| log.sync())
    }

    /// Applies an entry to its shard's head. Where that fails the shard alone is fenced.
    pub(crate) fn apply(&self, entry: &Entry) -> Result<(), Error> {
        // A shard dropped meanwhile needs nothing.
        let Some(cell) = self.find(entry.shard) else { return Ok(()) };
        let (applied, bytes) = {
            let mut shard = cell.state.write();
            shard.check()?;
            let applied = match shard.apply(entry) {
                Ok(applied) => applied,
                Err(error) => {
                    tracing::error!(%error, "the shard is fenced until it is copied again from another replica");
                    shard.damage = Some(error.clone());
                    return Err(error);
                }
            };
            (applied, shard.bytes() as u64)
        };
        cell.bytes.store(bytes, Ordering::Relaxed);
        self.counters.samples.fetch_add(applied.samples, Ordering::Relaxed);
        self.counters.spans.fetch_add(applied.spans, Ordering::Relaxed);
        self.counters.deleted(applied.deleted);
        Ok(())
    }
}

/// The applying end of the log.
pub(crate) struct Applier(pub(crate) Arc<Inner>);

impl Sink for Applier {
    fn apply(&mut self, entry: &Entry) -> Result<(), Error> {
        self.0.apply(entry)
    }
}

impl Store {
    /// Shards with local state, ascending.
    #[must_use]
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.inner.shards.read().keys().copied().collect()
    }

    /// Makes an empty shard; nothing happens where it exists.
    ///
    /// # Errors
    /// [`Error`] when the disk fails.
    pub(crate) fn create_shard(&self, shard: ShardId) -> Result<(), Error> {
        if self.inner.find(shard).is_some() {
            return Ok(());
        }
        if self.inner.has_rows(shard)? {
            // Its removal was not done, or a snapshot goes in right now.
            let _no_flush = self.inner.flushing.lock();
            if self.inner.find(shard).is_some() {
                return Ok(());
            }
            self.inner.remove_shard(shard)?;
        }
        self.inner.log()?.control(Kind::Reset, shard, Position::default())?;
        let cell = Cell::new(Shard::new(shard, Position::default(), Epoch(0), self.inner.config.window_ms));
        self.inner.write_meta(&cell)?;
        self.inner.shards.write().entry(shard).or_insert(cell);
        self.inner.books.fall_behind();
        Ok(())
    }

    /// Forgets a shard with all its data; nothing happens where it is not there.
    ///
    /// # Errors
    /// [`Error`] when the disk fails. The shard may be gone then, and this may be called again to have it removed.
    pub(crate) fn drop_shard(&self, shard: ShardId) -> Result<(), Error> {
        let _no_flush = self.inner.flushing.lock();
        if self.inner.find(shard).is_none() && !self.inner.has_rows(shard)? {
            return Ok(());
        }
        self.inner.remove_shard(shard)
    }

    /// The last durable entry.
    #[must_use]
    pub(crate) fn position(&self, shard: ShardId) -> Position {
        self.inner.log.get().map(|log| log.position(shard)).unwrap_or_default()
    }

    /// The last entry known to be committed.
    #[must_use]
    pub(crate) fn committed(&self, shard: ShardId) -> Seq {
        self.inner.find(shard).map_or(Seq(0), |cell| cell.state.read().committed)
    }

    /// The highest epoch seen.
    #[must_use]
    pub(crate) fn stored_epoch(&self, shard: ShardId) -> Epoch {
        self.inner.find(shard).map_or(Epoch(0), |cell| cell.state.read().epoch)
    }

    /// Stores the highest epoch seen, durably; an older one than is stored changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownShard`], or the disk's failure.
    pub(crate) fn store_epoch(&self, shard: ShardId, epoch: Epoch) -> Result<(), Error> {
        let cell = self.inner.cell(shard)?;
        let (before, is_fenced) = {
            let mut state = cell.state.write();
            if state.epoch >= epoch {
                return Ok(());
            }
            (std::mem::replace(&mut state.epoch, epoch), state.damage.is_some())
        };
        // Of a shard that is fenced a new row would make it look whole with the next start.
        let row = if is_fenced { Ok(()) } else { self.inner.write_meta(&cell) };
        // Rows may be lost, and a replica that does not know any more under which epoch it has answered could answer
        // under an older one.
        let stored = row.and_then(|()| self.inner.tell_ledger());
        if stored.is_err() {
            // It is tried again, and must not seem done then.
            cell.state.write().epoch = before;
        }
        stored
    }

    /// Appends entries of any mix of shards to the log; resolves when they are durable and applied. Entries of a shard
    /// must follow one another. Does not block.
    #[must_use]
    pub(crate) fn append(&self, entries: Vec<Entry>) -> oneshot::Receiver<Result<(), Error>> {
        match self.inner.log() {
            Ok(log) => log.append(entries),
            Err(error) => {
                let (done, waiting) = oneshot::channel();
                let _ = done.send(Err(error));
                waiting
            }
        }
    }

    /// As [`Store::append`], but the log begins at the next [`Store::wake_log`] at the latest, so that the parts of a
    /// request come together in one sync; `done` is called on a thread of the log and must not wait for it.
    pub(crate) fn append_later(&self, entries: Vec<Entry>, done: Done) {
        match self.inner.log() {
            Ok(log) => log.append_later(entries, done),
            Err(error) => done(Err(error)),
        }
    }

    /// Lets the log begin with what was appended.
    pub(crate) fn wake_log(&self) {
        if let Ok(log) = self.inner.log() {
            log.wake();
        }
    }

    /// Entries up to this one are committed: they may be written out.
    pub(crate) fn commit(&self, shard: ShardId, seq: Seq) {
        if let Some(cell) = self.inner.find(shard) {
            let mut state = cell.state.write();
            state.committed = state.committed.max(seq);
        }
    }

    /// Entries after `after`, in order, up to about `max_bytes` but at least one when there is any; `None` where some
    /// of them are trimmed, so that a snapshot is needed.
    ///
    /// # Errors
    /// [`Error`] when the log is damaged or the disk fails.
    pub(crate) fn entries(
        &self,
        shard: ShardId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Option<Vec<Entry>>, Error> {
        self.inner.log()?.entries(shard, after, max_bytes)
    }

    /// The epoch of an entry that is in the log, or that is the last one trimmed.
    #[must_use]
    pub(crate) fn epoch_at(&self, shard: ShardId, seq: Seq) -> Option<Epoch> {
        self.inner.log_epoch_at(shard, seq)
    }

    /// Cuts a shard's entries after one, durably, and rebuilds its head from what is left.
    ///
    /// # Errors
    /// [`Error::Invalid`] when committed entries would go; [`Error`] when the disk fails.
    pub(crate) fn cut(&self, shard: ShardId, after: Seq) -> Result<(), Error> {
        let _no_flush = self.inner.flushing.lock();
        let cell = self.inner.cell(shard)?;
        let (committed, epoch) = (cell.state.read().committed, cell.state.read().epoch);
        if after < committed {
            return Err(Error::Invalid(format!(
                "entry {committed} of shard {shard} is committed and cannot be cut"
            )));
        }
        if self.position(shard).seq <= after {
            return Ok(());
        }
        let log = self.inner.log()?;
        log.control(Kind::Cut, shard, Position { seq: after, epoch })?;
        self.inner.rebuild(&cell)
    }

    /// Seals and writes out everything committed, and removes what is then no longer needed of the log.
    ///
    /// # Errors
    /// [`Error`] when the disk is full or fails; nothing is lost then, and a later flush tries again.
    pub(crate) fn flush(&self) -> Result<FlushReport, Error> {
        let report = self.inner.write_out(&|_, _| true)?;
        self.inner.log()?.roll()?;
        self.inner.trim()?;
        Ok(report)
    }

    /// Says after which entry a replica that lags wants a shard's log (`None`: none lacks any), so that it can catch up
    /// without a snapshot.
    pub(crate) fn hold(&self, shard: ShardId, after: Option<Seq>) {
        if let Some(cell) = self.inner.find(shard) {
            cell.held.store(after.map_or(u64::MAX, |seq| seq.0), Ordering::Relaxed);
        }
    }

    /// Bytes of data not yet written out.
    #[must_use]
    pub(crate) fn memory(&self) -> u64 {
        self.inner.memory()
    }

    /// Series in memory of one shard.
    #[must_use]
    pub(crate) fn series_in(&self, shard: ShardId) -> u64 {
        self.inner.find(shard).map_or(0, |cell| cell.state.read().registry.len() as u64)
    }

    /// Counts for metrics.
    #[must_use]
    pub(crate) fn stats(&self) -> StoreStats {
        let Inner { counters, rocks, log, .. } = &*self.inner;
        let (log_entries, log_syncs) = log.get().map(|log| log.counts()).unwrap_or_default();
        let (merged_windows, merged_bytes, merges_waiting) = self.inner.merges.counts();
        let (damaged, fenced) = (self.inner.damages.counts(), self.inner.fenced_shards());
        let files = |family| rocks.property(family, "rocksdb.total-sst-files-size");
        StoreStats {
            memory_bytes: self.memory(),
            series: self.shards().into_iter().map(|shard| self.series_in(shard)).sum(),
            samples: counters.samples.load(Ordering::Relaxed),
            duplicate_samples: counters.duplicates.load(Ordering::Relaxed),
            spans: counters.spans.load(Ordering::Relaxed),
            log_entries,
            log_syncs,
            log_bytes: log.get().map_or(0, |log| log.bytes()),
            log_kept_bytes: counters.kept_bytes.load(Ordering::Relaxed),
            disk_bytes: keys::FAMILIES.iter().map(|family| files(family.name)).sum(),
            flushed_windows: counters.windows.load(Ordering::Relaxed),
            merged_windows,
            merged_bytes,
            merges_waiting,
            damaged_windows: damaged.windows,
            damaged_shards: damaged.shards + fenced,
            damage_found: damaged.found,
            tombstones: self.inner.cells().iter().map(|cell| cell.state.read().tombstones.len() as u64).sum(),
            deleted_samples: counters.deleted.load(Ordering::Relaxed),
        }
    }

    /// What each retention class has on disk, for metrics.
    #[must_use]
    pub(crate) fn class_stats(&self) -> Vec<ClassStats> {
        let inner = &self.inner;
        let mut stats: BTreeMap<u8, ClassStats> = BTreeMap::new();
        for number in inner.classes.numbers() {
            let name = inner.classes.name(number).unwrap_or_default().to_owned();
            let dropped = inner.classes.dropped_of(number);
            stats.insert(number, ClassStats { name, dropped, ..ClassStats::default() });
        }
        for cell in inner.cells() {
            for mark in cell.state.read().marks.values().flatten() {
                if let Some(of) = stats.get_mut(&mark.class) {
                    of.generations += 1;
                    of.samples += mark.samples;
                    of.spans += mark.spans;
                }
            }
        }
        stats.into_values().collect()
    }

    /// A view over shards of one tenant; data before `horizon_ms` (`i64::MIN` for none) is not shown. Shards that are
    /// not here are left out: whether they may be read is the caller's to know.
    #[must_use]
    pub(crate) fn reader(self: &Arc<Self>, shards: &[ShardId], tenant: &Tenant, horizon_ms: i64) -> Reader {
        let cells = shards.iter().filter_map(|shard| self.inner.find(*shard)).collect();
        Reader::new(Arc::clone(&self.inner), cells, tenant.clone(), horizon_ms)
    }

    /// What is damaged of a shard; `None` where nothing is known to be.
    #[must_use]
    pub(crate) fn damage(&self, shard: ShardId) -> Option<Error> {
        let of_all = self.inner.find(shard).and_then(|cell| cell.state.read().damage.clone());
        of_all.or_else(|| self.inner.damages.of_shard(shard))
    }

    /// Why the log takes no more entries, if it does not.
    #[must_use]
    pub(crate) fn log_failure(&self) -> Option<Error> {
        self.inner.log.get()?.failure()
    }

    /// Makes everything submitted durable and applied, and says so in the ledger; later appends fail.
    pub(crate) fn close(&self) {
        let Some(log) = self.inner.log.get() else { return };
        // So that what is cut off the log while nobody looks is noticed.
        if log.is_open()
            && let Err(error) = self.inner.write_ledger()
        {
            tracing::warn!(%error, "the ledger could not be written at the end");
        }
        log.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
