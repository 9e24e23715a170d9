//! The log: one per node, shared by all its shards, in segment files.
//!
//! One thread writes. Entries that arrive while a sync runs share the next one (group commit). Cutting a shard's tail
//! and starting a shard anew are records themselves. A torn tail of the last segment is cut on opening; any other
//! damage is an error that names the file and the place. What an entry means is left to the head.

pub(crate) mod files;
mod index;
pub(crate) mod record;
pub(crate) mod segment;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::oneshot;
use tricord_model::{Epoch, Seq, ShardId};

use super::ledger::LogEnd;
use super::{Entry, Error, FsyncMode, Position};
use files::Files;
use index::Index;
pub(crate) use record::{Kind, Record};
use writer::{Shared, Submission, Work};

/// Called once with how an append ended; it must not wait for the log.
pub(crate) type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What the log hands over once it is durable, in log order.
pub(crate) trait Sink: Send + 'static {
    /// Applies an entry; an error goes to who appended it.
    fn apply(&mut self, entry: &Entry) -> Result<(), Error>;
}

/// How a log works.
#[derive(Clone)]
pub(crate) struct LogConfig {
    /// Directory of the segments.
    pub(crate) dir: PathBuf,
    /// When to sync.
    pub(crate) fsync: FsyncMode,
    /// Size from which a new segment is begun, in bytes.
    pub(crate) segment_bytes: u64,
}

/// An open log.
pub(crate) struct Log {
    shared: Arc<Shared>,
    threads: parking_lot::Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// What trimming has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// Segments removed.
    pub(crate) removed: usize,
    /// Bytes of segments that stay for other replicas alone.
    pub(crate) kept_bytes: u64,
}

/// For each shard the entry up to which it needs nothing of the log itself, and the one up to which the others do not.
type Asked = HashMap<ShardId, (Option<Seq>, Option<Seq>)>;

/// A log that has been read but takes no writes yet.
pub(crate) struct Opened {
    config: LogConfig,
    files: Arc<dyn Files>,
    index: Index,
    segments: Vec<segment::Segment>,
}

impl Opened {
    /// Reads all segments: checks them, cuts a torn tail, and finds which entries still count.
    pub(crate) fn open(config: LogConfig, files: Arc<dyn Files>) -> Result<Self, Error> {
        files.create_dir(&config.dir)?;
        let mut index = Index::default();
        let mut segments = segment::list(&*files, &config.dir)?;
        let scanned = segment::scan_all(&*files, &segments)?;
        for (segment, scanned) in segments.iter_mut().zip(scanned) {
            segment.len = scanned.len;
            for record in &scanned.records {
                index
                    .replay(segment.number, record)
                    .map_err(|why| segment::damaged(&segment.path, record.offset, &why))?;
            }
        }
        Ok(Self { config, files, index, segments })
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Refuses a log that ends before where it is known to have reached.
    pub(crate) fn check_end(&self, reached: LogEnd) -> Result<(), Error> {
        let last = self.segments.last().map_or(0, |segment| segment.number);
        let len = self.segments.iter().find(|segment| segment.number == reached.segment);
        let path = segment::path(&self.config.dir, reached.segment);
        match len.map(|segment| segment.len) {
            _ if last < reached.segment => Err(segment::damaged(&path, 0, "the segment is missing")),
            Some(len) if len < reached.len => {
                let why = format!("the file ends here, and had {} bytes that were synced", reached.len);
                Err(segment::damaged(&path, len, &why))
            }
            _ => Ok(()),
        }
    }

    /// The last entry of a shard.
    pub(crate) fn last(&self, shard: ShardId) -> Seq {
        self.index.last(shard).seq
    }

    /// The epoch of a shard's last entry, under which the shard was at least.
    pub(crate) fn last_epoch(&self, shard: ShardId) -> Epoch {
        self.index.last(shard).epoch
    }

    /// Whether all entries after one are there, and any at all.
    pub(crate) fn reaches_back_to(&self, shard: ShardId, seq: Seq) -> bool {
        self.index.places(shard, seq, 1).is_some_and(|places| !places.is_empty())
    }

    /// Tells where a shard's log begins when it holds none of its entries any more.
    pub(crate) fn set_base(&mut self, shard: ShardId, base: Position) -> Result<(), Error> {
        self.index.set_base(shard, base)
    }

    /// Shards that the log knows.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.index.shards()
    }

    /// Forgets a shard that the state says is gone.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        self.index.forget(shard);
    }

    /// Reads each segment again and hands the entries that still count to `visit`, a segment at a time; the next one is
    /// read meanwhile.
    pub(crate) fn replay(
        &self,
        visit: &mut dyn FnMut(Vec<Entry>, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        std::thread::scope(|scope| {
            // Without a queue: two segments are in memory at most.
            let (sender, read) = std::sync::mpsc::sync_channel(0);
            scope.spawn(move || {
                for segment in &self.segments {
                    let entries = self.entries_in(segment);
                    let is_over = entries.is_err();
                    if sender.send((entries, segment.len)).is_err() || is_over {
                        return;
                    }
                }
            });
            for (entries, bytes) in read {
                visit(entries?, bytes)?;
            }
            Ok(())
        })
    }

    /// The entries of a segment that still count.
    fn entries_in(&self, segment: &segment::Segment) -> Result<Vec<Entry>, Error> {
        let bytes = Bytes::from(self.files.read(&segment.path)?);
        // Behind what counts there may be a torn tail.
        let counts = usize::try_from(segment.len).unwrap_or(usize::MAX).min(bytes.len());
        let mut entries = Vec::new();
        for record in segment::records(&bytes[..counts]) {
            let (record, payload) = record.map_err(|(at, why)| segment::damaged(&segment.path, at, why))?;
            if record.kind == Kind::Entry && self.index.holds(&record, segment.number) {
                entries.push(record.entry(bytes.slice_ref(payload)));
            }
        }
        Ok(entries)
    }

    /// Starts the threads: from now on the log takes writes.
    pub(crate) fn start(self, sink: Box<dyn Sink>) -> Result<Log, Error> {
        let (shared, threads) = writer::start(self.config, self.files, self.index, self.segments, sink)?;
        Ok(Log { shared, threads: parking_lot::Mutex::new(threads) })
    }
}

impl Log {
    /// Appends entries; resolves when they are durable and applied.
    pub(crate) fn append(&self, entries: Vec<Entry>) -> oneshot::Receiver<Result<(), Error>> {
        self.submit(Work::Entries(entries))
    }

    /// As [`Log::append`], but begun at the next [`Log::wake`] at the latest, and told by a call on a thread of the log,
    /// or on this one when the log takes nothing more.
    pub(crate) fn append_later(&self, entries: Vec<Entry>, done: Done) {
        self.shared.push(Submission { work: Work::Entries(entries), done });
    }

    /// Begins with what was appended.
    pub(crate) fn wake(&self) {
        self.shared.wake();
    }

    /// Appends entries, and waits until they are durable and applied.
    pub(crate) fn append_and_wait(&self, entries: Vec<Entry>) -> Result<(), Error> {
        wait(self.append(entries))
    }

    /// Writes a control record; returns when it is durable and done.
    pub(crate) fn control(&self, kind: Kind, shard: ShardId, position: Position) -> Result<(), Error> {
        wait(self.submit(Work::Control(kind, shard, position)))
    }

    /// Makes everything appended so far durable, in any mode, and waits until it is applied.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        wait(self.submit(Work::Sync))
    }

    /// As [`Log::sync`]; what follows goes into a new segment, so that those up to now can be removed.
    pub(crate) fn roll(&self) -> Result<(), Error> {
        wait(self.submit(Work::Roll))
    }

    fn submit(&self, work: Work) -> oneshot::Receiver<Result<(), Error>> {
        let (done, waiting) = oneshot::channel();
        // A caller may go away, which is its own affair.
        let done: Done = Box::new(move |result| drop(done.send(result)));
        self.shared.push(Submission { work, done });
        self.shared.wake();
        waiting
    }

    /// The last durable entry of a shard.
    pub(crate) fn position(&self, shard: ShardId) -> Position {
        self.shared.index.read().last(shard)
    }

    /// The epoch of an entry that is still there, or of the last one trimmed.
    pub(crate) fn epoch_at(&self, shard: ShardId, seq: Seq) -> Option<Epoch> {
        self.shared.index.read().epoch_at(shard, seq)
    }

    /// Entries after one, at least one when there is any; `None` when some of them are trimmed.
    pub(crate) fn entries(
        &self,
        shard: ShardId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Option<Vec<Entry>>, Error> {
        // Trimming removes files under this lock, so places stay readable while it is held.
        let index = self.shared.index.read();
        let Some(places) = index.places(shard, after, max_bytes) else { return Ok(None) };
        let mut entries = Vec::with_capacity(places.len());
        for place in places {
            let path = segment::path(&self.shared.config.dir, place.segment);
            let bytes = self.shared.files.read_at(&path, u64::from(place.offset), place.len as usize)?;
            let (record, payload) =
                record::parse(&bytes).map_err(|why| segment::damaged(&path, u64::from(place.offset), why))?;
            if record.shard != shard || record.kind != Kind::Entry {
                return Err(segment::damaged(
                    &path,
                    u64::from(place.offset),
                    "it is the record of another shard",
                ));
            }
            entries.push(record.entry(Bytes::copy_from_slice(payload)));
        }
        Ok(Some(entries))
    }

    /// Removes the oldest segments while, for every shard, all entries in them are at or before `done(shard)`, which
    /// must be stored durably as where the shard's log begins, and at or before `wanted(shard)`, up to which other
    /// replicas have them (`None`: none lacks any). At most `keep` segments stay for other replicas alone.
    pub(crate) fn trim(
        &self,
        keep: usize,
        done: &dyn Fn(ShardId) -> Option<Seq>,
        wanted: &dyn Fn(ShardId) -> Option<Seq>,
    ) -> Result<Trimmed, Error> {
        let asked = self.ask(done, wanted);
        let mut index = self.shared.index.write();
        // Listed under the lock: another trim may have removed some meanwhile.
        let (removed, trimmed) = self.spare(&index, keep, &asked);
        if let Some(through) = removed.last() {
            index.trim(*through);
            self.shared.remove_segments(&removed)?;
        }
        Ok(trimmed)
    }

    /// What [`Log::trim`] would do.
    pub(crate) fn would_trim(
        &self,
        keep: usize,
        done: &dyn Fn(ShardId) -> Option<Seq>,
        wanted: &dyn Fn(ShardId) -> Option<Seq>,
    ) -> Trimmed {
        let asked = self.ask(done, wanted);
        self.spare(&self.shared.index.read(), keep, &asked).1
    }

    /// Asks before the index is locked: who answers may hold a lock under which the index is read.
    fn ask(&self, done: &dyn Fn(ShardId) -> Option<Seq>, wanted: &dyn Fn(ShardId) -> Option<Seq>) -> Asked {
        let shards = self.shared.index.read().shards();
        shards.into_iter().map(|shard| (shard, (done(shard), wanted(shard)))).collect()
    }

    /// The segments that may go, and what they come to.
    fn spare(&self, index: &Index, keep: usize, asked: &Asked) -> (Vec<u64>, Trimmed) {
        let of = |shard: ShardId| asked.get(&shard).copied().unwrap_or((Some(Seq(0)), None));
        let closed = self.shared.closed_segments();
        let mut spare: Vec<u64> =
            closed.into_iter().take_while(|segment| index.is_done(*segment, &|shard| of(shard).0)).collect();
        let too_many = spare.len().saturating_sub(keep);
        let sent = spare.iter().take_while(|segment| index.is_done(**segment, &|shard| of(shard).1)).count();
        let kept = spare.split_off(sent.max(too_many));
        let trimmed = Trimmed { removed: spare.len(), kept_bytes: self.shared.bytes_of(&kept) };
        (spare, trimmed)
    }

    /// Shards that have entries after `done(shard)` in the oldest segment.
    pub(crate) fn pinning(&self, done: &dyn Fn(ShardId) -> Option<Seq>) -> Vec<ShardId> {
        let closed = self.shared.closed_segments();
        let Some(oldest) = closed.first() else { return Vec::new() };
        let held = self.shared.index.read().held_by(*oldest);
        held.into_iter()
            .filter(|(shard, last)| done(*shard).is_some_and(|done| *last > done))
            .map(|(shard, _)| shard)
            .collect()
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Where the log ends; durable only after the next [`Log::sync`].
    pub(crate) fn end(&self) -> LogEnd {
        self.shared.end()
    }

    /// Bytes submitted and not yet written.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.shared.queued_bytes()
    }

    /// Entries and syncs since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.shared.counts()
    }

    /// Whether an earlier failure stopped the log.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }

    /// Whether it takes entries.
    pub(crate) fn is_open(&self) -> bool {
        self.failure().is_none() && !self.threads.lock().is_empty()
    }

    /// Makes everything submitted durable, then ends the threads.
    pub(crate) fn close(&self) {
        self.shared.close();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

fn wait(mut waiting: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
    let gone = || Err(Error::Closed("the log's thread has ended".to_owned()));
    loop {
        // Not `blocking_recv`, which panics on a thread of an async runtime.
        match waiting.try_recv() {
            Ok(done) => return done,
            Err(oneshot::error::TryRecvError::Closed) => return gone(),
            Err(oneshot::error::TryRecvError::Empty) => {
                std::thread::park_timeout(std::time::Duration::from_micros(200))
            }
        }
    }
}

/// An index that readers share with the writer.
type SharedIndex = RwLock<Index>;

/// Where the segments of a store lie.
pub(crate) fn directory(store: &Path) -> PathBuf {
    store.join("log")
}
