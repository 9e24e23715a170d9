//! The threads of the log: one writes and syncs, one applies what is durable, so that both go on at once.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use tricord_model::ShardId;

use super::files::{Files, LogFile};
use super::index::{Index, Place};
use super::segment::{self, MAGIC, Segment};
use super::{Done, Kind, LogConfig, SharedIndex, Sink, record};
use crate::storage::ledger::LogEnd;
use crate::storage::{Entry, Error, FsyncMode, Position};

/// Something to write, and whom to tell.
pub(super) struct Submission {
    pub(super) work: Work,
    pub(super) done: Done,
}

/// What is written.
pub(super) enum Work {
    Entries(Vec<Entry>),
    Control(Kind, ShardId, Position),
    /// Nothing; but everything before is synced, whatever the mode.
    Sync,
    /// As `Sync`; and what follows goes into a new segment, so that this one can be removed.
    Roll,
}

impl Work {
    fn bytes(&self) -> u64 {
        match self {
            Self::Entries(entries) => {
                entries.iter().map(|e| (e.payload.len() + record::HEADER_BYTES) as u64).sum()
            }
            Self::Control(..) | Self::Sync | Self::Roll => record::HEADER_BYTES as u64,
        }
    }
}

/// What the threads and the callers share.
pub(super) struct Shared {
    pub(super) config: LogConfig,
    pub(super) files: Arc<dyn Files>,
    pub(super) index: SharedIndex,
    queue: Mutex<Queue>,
    arrived: Condvar,
    segments: Mutex<Vec<Segment>>,
    queued_bytes: AtomicU64,
    entries: AtomicU64,
    syncs: AtomicU64,
    failure: Mutex<Option<Error>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Submission>,
    closed: bool,
}

/// Batches that are durable and not yet applied; a bound, so that a slow head slows the log.
const APPLY_QUEUE: usize = 64;
/// Callers are told when so many bytes are applied, and at the end of a batch: the parts of a request are waited for
/// together, and each telling may wake a thread.
const TELL_BYTES: u64 = 256 << 10;
/// Bytes taken into one sync at most.
const MAX_GROUP_BYTES: u64 = 16 << 20;

impl Shared {
    /// Puts work into the queue; the thread looks there at the next [`Shared::wake`] at the latest.
    pub(super) fn push(&self, submission: Submission) {
        let failed = self.failure();
        let mut queue = self.queue.lock();
        if let Some(error) =
            failed.or_else(|| queue.closed.then(|| Error::Closed("it is closing".to_owned())))
        {
            drop(queue);
            (submission.done)(Err(error));
            return;
        }
        self.queued_bytes.fetch_add(submission.work.bytes(), Ordering::Relaxed);
        queue.waiting.push_back(submission);
    }

    /// Tells the thread that there is work.
    pub(super) fn wake(&self) {
        // Under the lock, so that a thread that has just found nothing is waiting by now.
        let _queue = self.queue.lock();
        self.arrived.notify_one();
    }

    /// Waits for work, at most so long; `None` when the log is closed and nothing is left.
    fn take(&self, wait: Option<Duration>) -> Option<Vec<Submission>> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() && !queue.closed {
            match wait {
                None => self.arrived.wait(&mut queue),
                Some(wait) if self.arrived.wait_for(&mut queue, wait).timed_out() => return Some(Vec::new()),
                Some(_) => {}
            }
        }
        if queue.waiting.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(submission) = queue.waiting.pop_front() {
            bytes += submission.work.bytes();
            taken.push(submission);
            if bytes > MAX_GROUP_BYTES {
                break;
            }
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(taken)
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_all();
    }

    fn fail(&self, error: &Error) {
        tracing::error!(%error, "the log takes no more writes until a restart");
        self.failure.lock().get_or_insert_with(|| Error::Closed(error.to_string()));
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Relaxed), self.syncs.load(Ordering::Relaxed))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.lock().iter().map(|segment| segment.len).sum()
    }

    /// The last segment and what is written of it.
    pub(super) fn end(&self) -> LogEnd {
        let segments = self.segments.lock();
        segments.last().map_or_else(LogEnd::default, |last| LogEnd { segment: last.number, len: last.len })
    }

    /// The segments that are not written to any more, in order.
    pub(super) fn closed_segments(&self) -> Vec<u64> {
        let segments = self.segments.lock();
        segments.iter().take(segments.len().saturating_sub(1)).map(|segment| segment.number).collect()
    }

    /// The bytes of some segments.
    pub(super) fn bytes_of(&self, numbers: &[u64]) -> u64 {
        let segments = self.segments.lock();
        segments.iter().filter(|segment| numbers.contains(&segment.number)).map(|segment| segment.len).sum()
    }

    /// Oldest first, so that a crash in between leaves no hole.
    pub(super) fn remove_segments(&self, numbers: &[u64]) -> Result<(), Error> {
        for number in numbers {
            self.files.remove(&segment::path(&self.config.dir, *number))?;
            self.segments.lock().retain(|segment| segment.number != *number);
        }
        self.files.sync_dir(&self.config.dir)
    }
}

struct Writer {
    shared: Arc<Shared>,
    file: Box<dyn LogFile>,
    number: u64,
    len: u64,
    /// Whether bytes were appended since the last sync.
    dirty: bool,
    /// Room for the records of one sync.
    buffer: Vec<u8>,
}

/// A larger buffer is not kept.
const MAX_KEPT_BYTES: usize = 4 << 20;

/// A batch that is durable.
struct Durable {
    submissions: Vec<Submission>,
}

pub(super) fn start(
    config: LogConfig,
    files: Arc<dyn Files>,
    index: Index,
    mut segments: Vec<Segment>,
    sink: Box<dyn Sink>,
) -> Result<(Arc<Shared>, Vec<JoinHandle<()>>), Error> {
    let (file, number, len) = match segments.last() {
        Some(last) if last.len >= MAGIC.len() as u64 => {
            (files.open_at(&last.path, last.len)?, last.number, last.len)
        }
        last => {
            // Nothing, or a segment that a crash left without its magic.
            let number = last.map_or(1, |last| last.number);
            if let Some(last) = segments.pop() {
                files.remove(&last.path)?;
            }
            let segment =
                Segment { number, path: segment::path(&config.dir, number), len: MAGIC.len() as u64 };
            let file = begin(&*files, &config.dir, &segment.path)?;
            segments.push(segment);
            (file, number, MAGIC.len() as u64)
        }
    };
    let shared = Arc::new(Shared {
        config,
        files,
        index: RwLock::new(index),
        queue: Mutex::default(),
        arrived: Condvar::new(),
        segments: Mutex::new(segments),
        queued_bytes: AtomicU64::new(0),
        entries: AtomicU64::new(0),
        syncs: AtomicU64::new(0),
        failure: Mutex::new(None),
    });
    let (sender, receiver) = sync_channel(APPLY_QUEUE);
    let writer = Writer { shared: Arc::clone(&shared), file, number, len, dirty: false, buffer: Vec::new() };
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        thread.map_err(|error| Error::Io(format!("cannot start a thread: {error}")))
    };
    let threads = vec![
        spawn("log-write", Box::new(move || writer.run(&sender)))?,
        spawn("log-apply", Box::new(move || apply(&receiver, sink)))?,
    ];
    Ok((shared, threads))
}

/// Makes a segment, durably, its place in the directory included.
fn begin(files: &dyn Files, dir: &Path, path: &Path) -> Result<Box<dyn LogFile>, Error> {
    let mut file = files.create(path)?;
    file.append(MAGIC)?;
    file.sync()?;
    files.sync_dir(dir)?;
    Ok(file)
}

impl Writer {
    fn run(mut self, applier: &SyncSender<Durable>) {
        let wait = match self.shared.config.fsync {
            FsyncMode::Always => None,
            FsyncMode::Interval(ms) => Some(Duration::from_millis(ms.max(1))),
        };
        let mut synced = std::time::Instant::now();
        while let Some(submissions) = self.shared.take(wait) {
            let durable = self.write(submissions);
            let due = wait.is_none_or(|wait| synced.elapsed() >= wait);
            if due && self.dirty {
                if let Err(error) = self.sync().and_then(|()| self.roll_when_full()) {
                    self.shared.fail(&error);
                    refuse(durable.submissions, &error);
                    continue;
                }
                synced = std::time::Instant::now();
            }
            if !durable.submissions.is_empty() && applier.send(durable).is_err() {
                self.shared.fail(&Error::Closed("the thread that applies entries has ended".to_owned()));
            }
        }
        if let Err(error) = self.sync() {
            self.shared.fail(&error);
        }
    }

    /// Writes what follows its shard's last entry, and refuses the rest.
    fn write(&mut self, submissions: Vec<Submission>) -> Durable {
        let mut kept = Vec::with_capacity(submissions.len());
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        let mut places = Vec::new();
        for submission in submissions {
            match self.encode(&submission.work, &mut bytes, &mut places) {
                Ok(()) => kept.push(submission),
                Err(error) => refuse(vec![submission], &error),
            }
        }
        let put = self.put(&bytes);
        if bytes.capacity() <= MAX_KEPT_BYTES {
            self.buffer = bytes;
        }
        if let Err(error) = put {
            self.shared.fail(&error);
            refuse(kept, &error);
            return Durable { submissions: Vec::new() };
        }
        let must_sync = kept.iter().any(|submission| !matches!(submission.work, Work::Entries(_)));
        let must_roll = kept.iter().any(|submission| matches!(submission.work, Work::Roll));
        if (must_sync || self.shared.config.fsync == FsyncMode::Always)
            && let Err(error) = self.sync()
        {
            self.shared.fail(&error);
            refuse(kept, &error);
            return Durable { submissions: Vec::new() };
        }
        // Only then may the segment be closed: of a closed one, what the index does not know may be removed.
        self.publish(places);
        let is_empty = self.len == MAGIC.len() as u64;
        let rolled = if must_roll && !is_empty { self.roll() } else { self.roll_when_full() };
        if let Err(error) = rolled {
            self.shared.fail(&error);
        }
        Durable { submissions: kept }
    }

    fn encode(&self, work: &Work, bytes: &mut Vec<u8>, places: &mut Vec<Placed>) -> Result<(), Error> {
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        let first = places.len();
        let start = bytes.len();
        let mut one = |kind, entry: &Entry| {
            let after_sync = !self.dirty && bytes.is_empty();
            let offset = self.len + bytes.len() as u64;
            let len = record::write(bytes, kind, after_sync, entry);
            let place = Place { segment: self.number, offset: offset as u32, len };
            let position = Position { seq: entry.seq, epoch: entry.epoch };
            places.push(Placed { kind, shard: entry.shard, position, place });
        };
        match work {
            Work::Control(kind, shard, Position { seq, epoch }) => {
                one(*kind, &Entry { shard: *shard, seq: *seq, epoch: *epoch, payload: bytes::Bytes::new() });
            }
            Work::Entries(entries) => entries.iter().for_each(|entry| one(Kind::Entry, entry)),
            Work::Sync | Work::Roll => {}
        }
        let checked = (first..places.len()).try_for_each(|at| self.check(&places[..at], &places[at]));
        if checked.is_err() {
            places.truncate(first);
            bytes.truncate(start);
        }
        checked
    }

    /// Whether an entry follows the last one of its shard, those of this batch included.
    fn check(&self, before: &[Placed], placed: &Placed) -> Result<(), Error> {
        if placed.kind != Kind::Entry {
            return Ok(());
        }
        let Placed { shard, position, .. } = *placed;
        match before.iter().rev().find(|earlier| earlier.shard == shard) {
            Some(earlier) if earlier.position.seq.next() == position.seq => Ok(()),
            Some(earlier) => Err(Error::Gap { shard, seq: position.seq, last: earlier.position.seq }),
            None => self.shared.index.read().check(shard, position.seq),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.append(bytes)?;
        self.len += bytes.len() as u64;
        self.dirty = true;
        if let Some(segment) = self.shared.segments.lock().last_mut() {
            segment.len = self.len;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        if !self.dirty {
            return Ok(());
        }
        self.file.sync()?;
        self.dirty = false;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Closes a segment that is large enough, once all of it is durable.
    fn roll_when_full(&mut self) -> Result<(), Error> {
        let is_full = !self.dirty && self.len >= self.shared.config.segment_bytes;
        if is_full { self.roll() } else { Ok(()) }
    }

    fn roll(&mut self) -> Result<(), Error> {
        let config = &self.shared.config;
        let number = self.number + 1;
        let path = segment::path(&config.dir, number);
        self.file = begin(&*self.shared.files, &config.dir, &path)?;
        self.number = number;
        self.len = MAGIC.len() as u64;
        self.shared.segments.lock().push(Segment { number, path, len: self.len });
        Ok(())
    }

    fn publish(&self, places: Vec<Placed>) {
        let mut index = self.shared.index.write();
        self.shared.entries.fetch_add(places.len() as u64, Ordering::Relaxed);
        for Placed { kind, shard, position, place } in places {
            match kind {
                Kind::Entry => index.append(shard, position, place),
                Kind::Cut | Kind::Reset => index.control(kind, shard, position),
            }
        }
    }
}

/// A record and where it went.
struct Placed {
    kind: Kind,
    shard: ShardId,
    position: Position,
    place: Place,
}

fn refuse(submissions: Vec<Submission>, error: &Error) {
    for submission in submissions {
        (submission.done)(Err(error.clone()));
    }
}

fn apply(batches: &Receiver<Durable>, mut sink: Box<dyn Sink>) {
    let mut told: Vec<(Done, Result<(), Error>)> = Vec::new();
    while let Ok(durable) = batches.recv() {
        let mut bytes = 0;
        for Submission { work, done } in durable.submissions {
            let applied = match &work {
                Work::Entries(entries) => entries.iter().try_for_each(|entry| sink.apply(entry)),
                Work::Control(..) | Work::Sync | Work::Roll => Ok(()),
            };
            // Durable all the same: what it means for the shard is the sink's to remember.
            told.push((done, applied));
            bytes += work.bytes();
            if bytes >= TELL_BYTES {
                told.drain(..).for_each(|(done, applied)| done(applied));
                bytes = 0;
            }
        }
        told.drain(..).for_each(|(done, applied)| done(applied));
    }
}
