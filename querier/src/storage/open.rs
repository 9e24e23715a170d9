//! Opening a store: the directory's format, the shards' rows, the windows on disk, and the log.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use rustix::fs::Advice::WillNeed;
use tricord_model::{Seq, ShardId};
use tricord_rocks::Rocks;

use super::books::Books;
use super::cache::ReadCache;
use super::classes::Classes;
use super::compact::{Merges, Retired};
use super::damage::Damages;
use super::flush::MAX_WINDOWS;
use super::head::Shard;
use super::keys::{self, Generation};
use super::ledger::{self, Account, Ledger};
use super::log::files::{Files, RealFiles};
use super::log::{self, Log, LogConfig, Opened};
use super::marks::{Marks, Next, generations_of, walk};
use super::mend::RowsHealth;
use super::state::{Meta, StoredShard, stored_shards};
use super::store::{Applier, Cell, Inner};
use super::{Entry, Error, Progress, Store, StoreConfig, format, guard};

/// So many bytes are read ahead when the store is opened.
const READ_AHEAD_BYTES: u64 = 256 << 20;

impl Store {
    /// Opens or creates a store: replays the log, cuts a torn tail, and reports any other damage. `progress` is called
    /// as the log is read.
    ///
    /// # Errors
    /// [`Error`] when another process holds the directory, when it is of a newer build, when it is damaged (the text
    /// names the place and what to do), or when the disk fails.
    pub(crate) fn open(config: StoreConfig, progress: &dyn Fn(Progress)) -> Result<Arc<Self>, Error> {
        Self::open_with(config, Arc::new(RealFiles), progress)
    }

    pub(crate) fn open_with(
        config: StoreConfig,
        files: Arc<dyn Files>,
        progress: &dyn Fn(Progress),
    ) -> Result<Arc<Self>, Error> {
        check(&config)?;
        std::fs::create_dir_all(&config.dir)
            .map_err(|error| Error::io("make directory", &config.dir, &error))?;
        let format = format::check(&config)?;
        let (ledger, is_known) = read_ledger(&config, format)?;
        let rocks = guard::open(&config, &ledger)?;
        let cache = ReadCache::new(config.read_cache_bytes);
        let classes = Classes::open(&config.dir, &config.retention, || uses_classes(&rocks, &ledger))?;
        let inner = Arc::new(Inner {
            config,
            rocks,
            cache,
            classes,
            shards: RwLock::default(),
            flushing: Mutex::new(()),
            merging: Mutex::new(()),
            merges: Merges::default(),
            retired: Retired::default(),
            writing_rows: Mutex::new(()),
            generations: Mutex::default(),
            counters: super::store::Counters::default(),
            books: Books::default(),
            rows_health: RowsHealth::default(),
            damages: Damages::default(),
            pins: AtomicUsize::new(0),
            log: OnceLock::new(),
        });
        inner.clear_staging()?;
        let log_config = LogConfig {
            dir: log::directory(&inner.config.dir),
            fsync: inner.config.fsync,
            segment_bytes: inner.config.segment_bytes,
        };
        let mut opened = Opened::open(log_config, files)?;
        opened.check_end(ledger.log_end)?;
        if !is_known {
            inner.damages.count();
        }
        let void = inner.restore(&mut opened, &ledger)?;
        inner.replay(&opened, progress)?;
        let log = Arc::new(opened.start(Box::new(Applier(Arc::clone(&inner))))?);
        // Nobody else has seen the store yet.
        let _ = inner.log.set(log);
        // From here on a failure closes the log, and lets go of the directory.
        let store = Arc::new(Self { inner });
        let inner = &store.inner;
        inner.write_ledger()?;
        // Only now: as long as the ledger names a shard it must be void, and not without rows.
        void.into_iter().try_for_each(|shard| inner.erase(shard))?;
        format::raise(&inner.config, format)?;
        inner.read_ahead();
        Ok(store)
    }
}

/// Why a store is not opened of which a shard's rows cannot be read, and nothing else says what it has answered.
fn unknown(shard: ShardId, error: &Error) -> Error {
    Error::corrupt(format!(
        "the rows of shard {shard} cannot be read, and the ledger does not say what they were ({error}): restore the \
         directory, or give this node a new data directory so that its shards are copied again"
    ))
}

fn check(config: &StoreConfig) -> Result<(), Error> {
    if !(1_000..=7 * 86_400_000).contains(&config.window_ms) {
        return Err(Error::Invalid("a window must be between one second and seven days long".to_owned()));
    }
    if config.merge_windows.iter().any(|windows| !(2..=MAX_WINDOWS).contains(&u64::from(*windows))) {
        return Err(Error::Invalid(format!("2 to {MAX_WINDOWS} windows can be merged")));
    }
    if config.segment_bytes > 1 << 30 {
        return Err(Error::Invalid("a log segment must not be larger than 1 GiB".to_owned()));
    }
    Ok(())
}

/// Whether there is, or must be, data of any retention class but the default one.
fn uses_classes(rocks: &Rocks, ledger: &Ledger) -> Result<bool, Error> {
    let mut marks = ledger.shards.values().flat_map(|account| &account.marks);
    if marks.any(|(_, mark)| mark.class > 0) {
        return Ok(true);
    }
    let cursor = rocks.cursor(keys::DATA, &keys::window(1, i64::MIN), &keys::windows_end())?;
    match cursor.status() {
        // What cannot be read is there.
        Err(error) if error.is_corruption() => Ok(true),
        status => Ok(status.map(|()| cursor.item().is_some())?),
    }
}

/// The ledger, and whether it says everything. A store can do without: then what is missing goes unnoticed this once.
fn read_ledger(config: &StoreConfig, format: u32) -> Result<(Ledger, bool), Error> {
    let path = config.dir.join(ledger::FILE);
    if format < format::LEDGER_SINCE {
        // One that is there nevertheless is of other days.
        return Ok((Ledger::default(), true));
    }
    match Ledger::read(&config.dir) {
        Ok(Some(ledger)) => Ok((ledger, true)),
        Ok(None) => {
            tracing::error!(path = %path.display(), "the ledger is missing: what else is missing cannot be told");
            Ok((Ledger::default(), false))
        }
        Err(error) if error.is_damage() => {
            tracing::error!(%error, "the ledger is damaged: what is missing cannot be told; it is written anew");
            Ok((Ledger::default(), false))
        }
        Err(error) => Err(error),
    }
}

impl Inner {
    /// Removes files that a crash left before they became part of the database.
    fn clear_staging(&self) -> Result<(), Error> {
        let dir = self.staging();
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("clear", &dir, &error))
            }
            _ => Ok(()),
        }
    }

    /// Lets the kernel read the newest indexes, and then the newest data, while nobody asks yet: every query begins with
    /// the ones, and most are about the others.
    fn read_ahead(&self) {
        let mut left = READ_AHEAD_BYTES.min(self.config.block_cache_bytes as u64);
        for family in [keys::INDEX, keys::DATA] {
            for (path, bytes) in self.rocks.paths(family).unwrap_or_default() {
                // The highest keys, and so the newest windows, are at a file's end.
                let ahead = bytes.min(left);
                let advise =
                    |file| rustix::fs::fadvise(file, bytes - ahead, NonZeroU64::new(ahead), WillNeed);
                let advised = std::fs::File::open(&path).and_then(|file| Ok(advise(file)?));
                if let Err(error) = advised {
                    tracing::debug!(path = %path.display(), %error, "a file is not read ahead");
                }
                left -= ahead;
                if left == 0 {
                    return;
                }
            }
        }
    }

    /// Brings the shards back as rows and marks say, and tells the log where each begins. What the ledger expects and is
    /// not there is fenced. Answers the shards that are to be erased.
    fn restore(&self, opened: &mut Opened, ledger: &Ledger) -> Result<Vec<ShardId>, Error> {
        let known = ledger.generations();
        let marks = self.read_marks(&known)?;
        let stored = stored_shards(&self.rocks, ledger.shards.keys().copied(), &self.rows_health)?;
        let is_void: HashSet<ShardId> =
            stored.iter().filter(|shard| shard.is_void).map(|shard| shard.id).collect();
        let mut used: HashSet<Generation> = marks.live.values().flat_map(generations_of).collect();
        for (shard, window_ms, mark) in ledger.missing(&marks) {
            if !is_void.contains(&shard) {
                let span_ms = self.config.window_ms.saturating_mul(i64::from(mark.windows));
                self.damages.lose(shard, window_ms, mark, span_ms);
                used.insert(mark.generation(window_ms));
                // Its number stays its own.
                let mut generations = self.generations.lock();
                let highest = generations.entry(window_ms).or_default();
                *highest = mark.number.max(*highest);
            }
        }
        let Marks { live: mut marks, replaced, .. } = marks;
        let classes: BTreeSet<u8> =
            marks.values().flat_map(BTreeMap::values).flatten().map(|mark| mark.class).collect();
        classes.into_iter().try_for_each(|class| self.classes.check(class))?;
        self.remove_parts(&replaced, &used)?;
        let bare = self.remove_orphans(&used, &known)?;
        for (shard, of_shard) in marks.iter_mut().filter(|(shard, _)| !is_void.contains(shard)) {
            // A mark without an index answers nothing at all, which must not be taken for what it had.
            self.lose(*shard, of_shard, |_, of| bare.contains(&of));
        }
        let (mut cells, mut void) = (BTreeMap::new(), Vec::new());
        for stored in stored {
            let (id, of_shard) = (stored.id, marks.remove(&stored.id).unwrap_or_default());
            if stored.is_void {
                tracing::warn!(shard = id.0, "a copy of the shard was not complete: it is removed");
                void.push(id);
                continue;
            }
            let mut shard = self.revive(stored, ledger.shards.get(&id), opened)?;
            let through = of_shard.values().flatten().map(|mark| mark.through).max().unwrap_or(Seq(0));
            shard.marks = of_shard;
            // Only committed entries are written out.
            shard.committed = shard.committed.max(through);
            opened.set_base(id, shard.base)?;
            let account = ledger.shards.get(&id).filter(|account| account.last > opened.last(id));
            if let Some(Account { last, .. }) = account {
                return Err(Error::corrupt(format!(
                    "the log of shard {id} ends at entry {}, and entry {last} had been stored: restore the log, or give \
                     this node a new data directory so that its shards are copied again",
                    opened.last(id)
                )));
            }
            cells.insert(id, Cell::new(shard));
        }
        for shard in opened.shards() {
            if !cells.contains_key(&shard) {
                opened.forget(shard);
            }
        }
        void.extend(marks.into_keys());
        *self.shards.write() = cells;
        Ok(void)
    }

    /// A shard as its rows say, without its windows; fenced as a whole where they cannot be read, or are older ones than
    /// the ledger knows and the log does not make up for it.
    fn revive(
        &self,
        stored: StoredShard,
        account: Option<&Account>,
        opened: &Opened,
    ) -> Result<Shard, Error> {
        let id = stored.id;
        let read = self.rows_health.note(stored.meta);
        // Whatever says under which epoch it may have answered, and where its log begins.
        let row = read.as_ref().copied().unwrap_or_default();
        let known = account.cloned().unwrap_or_default();
        let epoch = row.epoch.max(known.epoch).max(opened.last_epoch(id));
        let base = if row.base.seq < known.base.seq { known.base } else { row.base };
        let loaded = read.and_then(|meta| {
            let meta = Meta { epoch, ..meta };
            if meta.base.seq < known.base.seq && !opened.reaches_back_to(id, meta.base.seq) {
                let (found, base) = (meta.base.seq, known.base.seq);
                let why = format!(
                    "the rows of shard {id} are those of entry {found}, and had been of entry {base}"
                );
                return Err(Error::corrupt(why));
            }
            self.load(id, meta)
        });
        match loaded {
            Err(error) if error.is_damage() && account.is_none() => Err(unknown(id, &error)),
            Err(error) if error.is_damage() => {
                tracing::error!(
                    shard = id.0, %error,
                    "the shard's rows are damaged: it is fenced until it is restored or copied again from another \
                     replica. Look at the directory with `tricord check`"
                );
                self.damages.count();
                let mut shard = Shard::new(id, base, epoch, self.config.window_ms);
                shard.damage = Some(error);
                Ok(shard)
            }
            loaded => loaded,
        }
    }

    /// Removes indexes whose data never went in. Answers the generations that are used and have no index.
    fn remove_orphans(
        &self,
        used: &HashSet<Generation>,
        known: &BTreeSet<Vec<u8>>,
    ) -> Result<HashSet<Generation>, Error> {
        let (mut orphans, mut bare) = (Vec::new(), used.clone());
        walk(&self.rocks, keys::INDEX, known, &mut |of, _, _| {
            bare.remove(&of);
            if !used.contains(&of) {
                orphans.push(of);
            }
            Ok(Next::Generation)
        })?;
        for of in orphans {
            let prefix = keys::generation(of);
            self.rocks.delete_range(keys::INDEX, &prefix, &keys::after(&prefix))?;
        }
        // What is there and cannot be read says so by itself.
        let is_there = |of: &Generation| -> Result<bool, Error> {
            let prefix = keys::generation(*of);
            let cursor = self.rocks.cursor(keys::INDEX, &prefix, &keys::after(&prefix))?;
            Ok(cursor.item().is_some() || cursor.status().is_err())
        };
        let mut without = HashSet::new();
        for of in bare {
            if !is_there(&of)? {
                without.insert(of);
            }
        }
        Ok(without)
    }

    /// Removes a shard's rows and windows. The rows go last, so that a crash in between is found and finished.
    pub(crate) fn erase(&self, shard: ShardId) -> Result<(), Error> {
        self.make_void(shard)?;
        self.erase_windows(shard)?;
        let mut rows = self.rocks.batch();
        let prefix = keys::state(shard);
        rows.delete_range(keys::STATE, &prefix, &keys::after(&prefix));
        Ok(self.rocks.write(rows, true)?)
    }

    /// Removes a shard's windows from the disk, with what merges have replaced of them.
    fn erase_windows(&self, shard: ShardId) -> Result<(), Error> {
        self.give_up_broken(shard)?;
        let mut batch = self.rocks.batch();
        let windows: Vec<(i64, u32)> =
            self.generations.lock().iter().map(|(window_ms, highest)| (*window_ms, *highest)).collect();
        for (window_ms, highest) in windows {
            let numbers =
                (1..=highest).flat_map(|number| self.classes.numbers().map(move |class| (class, number)));
            for (class, number) in numbers {
                let of = Generation { class, window_ms, number };
                let prefix = keys::shard(of, shard);
                batch.delete(keys::DATA, &keys::mark(of, shard));
                batch.delete_range(keys::DATA, &prefix, &keys::after(&prefix));
                batch.delete_range(keys::INDEX, &prefix, &keys::after(&prefix));
            }
        }
        Ok(self.rocks.write(batch, true)?)
    }

    /// Applies what is in the log, shards side by side.
    fn replay(&self, opened: &Opened, progress: &dyn Fn(Progress)) -> Result<(), Error> {
        let total_bytes = opened.bytes();
        let done = AtomicU64::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        opened.replay(&mut |entries, bytes| {
            let mut lanes: Vec<Vec<Entry>> = vec![Vec::new(); threads];
            for entry in entries {
                let lane = entry.shard.0 as usize % threads;
                lanes[lane].push(entry);
            }
            // A shard that cannot be applied is fenced, and the others are not held up.
            let work = |lane: &Vec<Entry>| lane.iter().for_each(|entry| drop(self.apply(entry)));
            std::thread::scope(|scope| {
                let running: Vec<_> = lanes.iter().map(|lane| scope.spawn(move || work(lane))).collect();
                let ended = |_| Error::Io("a thread that replays the log panicked".to_owned());
                running.into_iter().try_for_each(|thread| thread.join().map_err(ended))
            })?;
            let done_bytes = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(Progress { done_bytes, total_bytes });
            Ok(())
        })
    }

    /// Puts a shard together again from its rows and what is left of its log. Where that fails it is fenced, as it has
    /// what the log has no more.
    pub(crate) fn rebuild(&self, cell: &Arc<Cell>) -> Result<(), Error> {
        {
            let mut state = cell.state.write();
            match self.rebuilt(&state) {
                Ok(shard) => *state = shard,
                Err(error) => {
                    state.damage = Some(error.clone());
                    return Err(error);
                }
            }
        }
        cell.measure();
        Ok(())
    }

    fn rebuilt(&self, state: &Shard) -> Result<Shard, Error> {
        let meta = self.rocks.get(keys::STATE, &keys::row(state.id, keys::Row::Meta)).map_err(Error::from);
        let meta = self.rows_health.note(meta)?;
        let meta = meta.ok_or_else(|| Error::corrupt(format!("shard {} has no row", state.id)))?;
        let meta = Meta::decode(&meta)?;
        let mut shard = self.load(state.id, meta)?;
        shard.marks = state.marks.clone();
        shard.committed = state.committed;
        shard.epoch = state.epoch;
        shard.registry.raise_next_id(state.registry.next_id());
        let mut after = shard.base.seq;
        let log: &Arc<Log> = self.log()?;
        loop {
            let entries = log.entries(state.id, after, 8 << 20)?;
            let entries =
                entries.ok_or_else(|| Error::corrupt(format!("the log of shard {} has a gap", state.id)))?;
            let Some(last) = entries.last() else { return Ok(shard) };
            after = last.seq;
            for entry in &entries {
                shard.apply(entry)?;
            }
        }
    }
}
