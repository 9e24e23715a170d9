//! Opening a store: the directory's format, the shards' rows, the windows on disk, and the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tricord_model::{Seq, ShardId};
use tricord_rocks::{Options, Rocks};

use super::cache::ReadCache;
use super::compact::{Merges, Retired};
use super::flush::{MAX_WINDOWS, decode_mark};
use super::head::{Mark, Shard};
use super::keys::{self, Generation};
use super::log::files::{Files, RealFiles};
use super::log::{self, Log, LogConfig, Opened};
use super::store::{Applier, Cell, Inner};
use super::{Entry, Error, Progress, Store, StoreConfig};

/// The format of the directory that this build writes.
const FORMAT: u32 = 2;
/// Indexes of so many bytes are read ahead when the store is opened.
const READ_AHEAD_BYTES: u64 = 256 << 20;
/// Where the format stands.
const FORMAT_FILE: &str = "FORMAT";

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
        check_format(&config)?;
        let options = Options {
            families: keys::FAMILIES.to_vec(),
            block_cache_bytes: config.block_cache_bytes,
            ..Options::default()
        };
        let rocks = Rocks::open(&config.dir.join("rocks"), &options)?;
        let cache = ReadCache::new(config.read_cache_bytes);
        let inner = Arc::new(Inner {
            config,
            rocks,
            cache,
            shards: RwLock::default(),
            flushing: Mutex::new(()),
            merging: Mutex::new(()),
            merges: Merges::default(),
            retired: Retired::default(),
            writing_rows: Mutex::new(()),
            generations: Mutex::default(),
            counters: super::store::Counters::default(),
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
        inner.restore(&mut opened)?;
        inner.replay(&opened, progress)?;
        let log = Arc::new(opened.start(Box::new(Applier(Arc::clone(&inner))))?);
        // Nobody else has seen the store yet.
        let _ = inner.log.set(log);
        inner.read_ahead();
        Ok(Arc::new(Self { inner }))
    }
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

/// The format and the length of a window are fixed when the directory is made.
fn check_format(config: &StoreConfig) -> Result<(), Error> {
    let path = config.dir.join(FORMAT_FILE);
    let damaged = || Error::corrupt(format!("{} does not say what format the directory has", path.display()));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(damaged()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return write_format(config, &path),
        Err(error) => return Err(Error::io("read", &path, &error)),
    };
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.trim().parse::<i64>().ok())
    };
    let found = u32::try_from(field("format").ok_or_else(damaged)?).map_err(|_| damaged())?;
    if found > FORMAT {
        return Err(Error::NewerFormat { found, known: FORMAT });
    }
    let window_ms = field("window_ms").ok_or_else(damaged)?;
    if window_ms != config.window_ms {
        return Err(Error::Invalid(format!(
            "{} was made with windows of {window_ms} ms; they cannot become {} ms",
            config.dir.display(),
            config.window_ms
        )));
    }
    // From now on there may be what an older build does not understand.
    if found < FORMAT { write_format(config, &path) } else { Ok(()) }
}

fn write_format(config: &StoreConfig, path: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::io("write", path, &error);
    let staged = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        std::fs::write(&staged, format!("format={FORMAT}\nwindow_ms={}\n", config.window_ms))?;
        std::fs::File::open(&staged)?.sync_all()?;
        std::fs::rename(&staged, path)?;
        std::fs::File::open(&config.dir)?.sync_all()
    };
    write().map_err(failed)
}

/// The marks on disk.
#[derive(Default)]
pub(crate) struct Marks {
    /// Those that count, by shard and window.
    pub(crate) live: HashMap<ShardId, BTreeMap<i64, Vec<Mark>>>,
    /// What merged generations have replaced, and a crash has left.
    replaced: BTreeMap<Generation, Vec<ShardId>>,
}

impl Marks {
    /// Takes generations of a window up to a number out of what counts.
    fn replace(&mut self, shard: ShardId, window_ms: i64, highest: u32) {
        let Some(of_shard) = self.live.get_mut(&shard) else { return };
        let Some(marks) = of_shard.get_mut(&window_ms) else { return };
        for mark in marks.extract_if(.., |mark| mark.number <= highest) {
            self.replaced.entry(Generation { window_ms, number: mark.number }).or_default().push(shard);
        }
        if marks.is_empty() {
            of_shard.remove(&window_ms);
        }
    }
}

/// The generations that a shard's marks are of.
pub(crate) fn generations_of(marks: &BTreeMap<i64, Vec<Mark>>) -> impl Iterator<Item = Generation> {
    marks.iter().flat_map(|(window_ms, marks)| {
        marks.iter().map(|mark| Generation { window_ms: *window_ms, number: mark.number })
    })
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

    /// Lets the kernel read the newest indexes while nobody asks yet: every query begins with them.
    fn read_ahead(&self) {
        let mut left = READ_AHEAD_BYTES.min(self.config.block_cache_bytes as u64);
        for (path, bytes) in self.rocks.paths(keys::INDEX).unwrap_or_default() {
            if bytes > left {
                return;
            }
            left -= bytes;
            let advised = std::fs::File::open(&path)
                .and_then(|file| Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::WillNeed)?));
            if let Err(error) = advised {
                tracing::debug!(path = %path.display(), %error, "a file is not read ahead");
            }
        }
    }

    /// Brings the shards back as rows and marks say, and tells the log where each begins.
    fn restore(&self, opened: &mut Opened) -> Result<(), Error> {
        let Marks { live: mut marks, replaced } = self.read_marks()?;
        let used = marks.values().flat_map(generations_of).collect();
        self.remove_parts(&replaced, &used)?;
        self.remove_orphans(&used)?;
        let mut cells = BTreeMap::new();
        for (id, meta, is_void) in self.stored_shards()? {
            let of_shard = marks.remove(&id).unwrap_or_default();
            if is_void {
                tracing::warn!(shard = id.0, "a copy of the shard was not complete: it is removed");
                self.erase(id)?;
                continue;
            }
            let mut shard = self.load(id, meta)?;
            let through = of_shard.values().flatten().map(|mark| mark.through).max().unwrap_or(Seq(0));
            shard.marks = of_shard;
            // Only committed entries are written out.
            shard.committed = shard.committed.max(through);
            opened.set_base(id, meta.base)?;
            cells.insert(id, Cell::new(shard));
        }
        for shard in opened.shards() {
            if !cells.contains_key(&shard) {
                opened.forget(shard);
            }
        }
        for shard in marks.into_keys() {
            self.erase(shard)?;
        }
        *self.shards.write() = cells;
        Ok(())
    }

    /// The marks of all windows.
    pub(crate) fn read_marks(&self) -> Result<Marks, Error> {
        let mut marks = Marks::default();
        // What merged generations say that they replace, for each shard and window.
        let mut replaced: HashMap<(ShardId, i64), u32> = HashMap::new();
        let mut cursor = self.rocks.cursor(keys::DATA, &[], &keys::windows_end())?;
        let mut generations = self.generations.lock();
        let mut raise = |window_ms: i64, number: u32| {
            let highest = generations.entry(window_ms).or_default();
            *highest = number.max(*highest);
        };
        while let Some((key, value)) = cursor.item() {
            let of = keys::parse_generation(key)
                .ok_or_else(|| Error::corrupt("a key of the data is malformed"))?;
            // Behind the marks of one generation come its blocks: on to the next generation.
            let Some(shard) = keys::parse_mark(key) else {
                cursor.seek(&keys::after(&keys::generation(of)));
                continue;
            };
            let (mark, of_windows) = decode_mark(of.number, value)?;
            raise(of.window_ms, of.number);
            for (place, number) in of_windows.into_iter().enumerate().filter(|(_, number)| *number > 0) {
                let window_ms =
                    of.window_ms.saturating_add(self.config.window_ms.saturating_mul(place as i64));
                // A number of what was replaced is never given again.
                raise(window_ms, number);
                let highest = replaced.entry((shard, window_ms)).or_default();
                *highest = number.max(*highest);
            }
            let of_shard = marks.live.entry(shard).or_default();
            of_shard.entry(of.window_ms).or_default().push(mark);
            cursor.advance();
        }
        cursor.status()?;
        for ((shard, window_ms), highest) in replaced {
            marks.replace(shard, window_ms, highest);
        }
        Ok(marks)
    }

    /// Removes indexes whose data never went in.
    fn remove_orphans(&self, known: &HashSet<Generation>) -> Result<(), Error> {
        let mut orphans = Vec::new();
        let mut cursor = self.rocks.cursor(keys::INDEX, &[], &keys::windows_end())?;
        while let Some((key, _)) = cursor.item() {
            let of = keys::parse_generation(key)
                .ok_or_else(|| Error::corrupt("a key of the index is malformed"))?;
            if !known.contains(&of) {
                orphans.push(of);
            }
            cursor.seek(&keys::after(&keys::generation(of)));
        }
        cursor.status()?;
        for of in orphans {
            let prefix = keys::generation(of);
            self.rocks.delete_range(keys::INDEX, &prefix, &keys::after(&prefix))?;
        }
        Ok(())
    }

    /// Removes a shard's rows and windows. The rows go last, so that a crash in between is found and finished.
    pub(crate) fn erase(&self, shard: ShardId) -> Result<(), Error> {
        let mut mark = self.rocks.batch();
        mark.put(keys::STATE, &keys::row(shard, keys::Row::Installing), &[1]);
        self.rocks.write(mark, true)?;
        self.erase_windows(shard)?;
        let mut rows = self.rocks.batch();
        let prefix = keys::state(shard);
        rows.delete_range(keys::STATE, &prefix, &keys::after(&prefix));
        Ok(self.rocks.write(rows, true)?)
    }

    /// Removes a shard's windows from the disk, with what merges have replaced of them.
    fn erase_windows(&self, shard: ShardId) -> Result<(), Error> {
        let mut batch = self.rocks.batch();
        let windows: Vec<(i64, u32)> =
            self.generations.lock().iter().map(|(window_ms, highest)| (*window_ms, *highest)).collect();
        for (window_ms, highest) in windows {
            for number in 1..=highest {
                let of = Generation { window_ms, number };
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

    /// Puts a shard together again from its rows and what is left of its log.
    pub(crate) fn rebuild(&self, cell: &Arc<Cell>) -> Result<(), Error> {
        {
            let mut state = cell.state.write();
            let meta = self.rocks.get(keys::STATE, &keys::row(cell.id, keys::Row::Meta))?;
            let meta = meta.ok_or_else(|| Error::corrupt(format!("shard {} has no row", cell.id)))?;
            let meta = super::state::Meta::decode(&meta)?;
            let mut shard: Shard = self.load(cell.id, meta)?;
            shard.marks = std::mem::take(&mut state.marks);
            shard.committed = state.committed;
            shard.epoch = state.epoch;
            shard.registry.raise_next_id(state.registry.next_id());
            let mut after = shard.base.seq;
            let log: &Arc<Log> = self.log()?;
            loop {
                let entries = log.entries(cell.id, after, 8 << 20)?;
                let entries = entries
                    .ok_or_else(|| Error::corrupt(format!("the log of shard {} has a gap", cell.id)))?;
                let Some(last) = entries.last() else { break };
                after = last.seq;
                for entry in &entries {
                    shard.apply(entry)?;
                }
            }
            *state = shard;
        }
        cell.measure();
        Ok(())
    }
}
