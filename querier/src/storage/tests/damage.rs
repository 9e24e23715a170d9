//! A bit flipped, a file cut, removed or an old one in its place, anywhere: it is found when the store is opened or read,
//! what is read is never wrong and never silently less, and nothing panics.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tricord_wire::ErrorKind;

use super::merges::{DAY, LATER, fill};
use super::*;

/// A window that is over, and some behind it are.
const OLD: i64 = T0 - 20 * WINDOW;

const THREADS: u64 = 4;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many directories are damaged at least.
fn least_rounds() -> u64 {
    number("DAMAGE_ROUNDS", 2_000)
}

/// How long directories are damaged at least.
fn least_time() -> Duration {
    Duration::from_secs(number("DAMAGE_SECONDS", 0))
}

/// The first seed; a failing round says its own.
fn first_round() -> u64 {
    number("DAMAGE_SEED", 0)
}

/// A directory with merged windows, others, data in the log alone, and rows in RocksDB's log and in its files.
fn directory() -> Node {
    let mut node = Node::with(|config| config.segment_bytes = 2000);
    fill(&node, 0..12);
    node.store().merge(LATER, false, &|_| true).unwrap();
    fill(&node, 12..15);
    // Enough that a file has many blocks, of which one is damaged.
    let value = |n: u32, at: i64| (f64::from(n) + at as f64).sin();
    let samples = |n| (0..20).map(|at| (DAY + 13 * WINDOW + at, value(n, at))).collect::<Vec<_>>();
    node.write(0, batch((0..2000).map(|n| series("wide", n, &samples(n))).collect()));
    node.store().flush().unwrap();
    renew_rows(&node);
    node.store().inner.rocks.flush(keys::STATE).unwrap();
    node.write(1, batch((0..200).map(|n| series("late", n, &samples(n))).collect()));
    node.store().flush().unwrap();
    for n in 0..60 {
        let t_ms = DAY + 15 * WINDOW + n * 1000;
        node.write(n as u32 % 2, batch((0..5).map(|i| series("a", i, &[(t_ms, n as f64)])).collect()));
    }
    node.store = None;
    node
}

/// Writes the rows anew, as is done where some of them cannot be read.
fn renew_rows(node: &Node) {
    let inner = &node.store().inner;
    let mut rows = Vec::new();
    let gather = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(true)
    };
    inner.rocks.scan::<Error>(keys::STATE, &[], &[0xff; 8], gather).unwrap();
    let fill = &mut |fresh: &mut tricord_rocks::Fresh<'_>| {
        rows.iter().try_for_each(|(key, value)| fresh.put(key, value))
    };
    inner.rocks.renew::<tricord_rocks::Error>(keys::STATE, fill).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.metadata().unwrap().len() > 0 {
            all.push(path);
        }
    }
    all.sort();
    all
}

fn named(path: &Path, what: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(what))
}

/// A directory that costs no waiting for a disk, where there is one.
fn directory_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Flips a bit of some file, or cuts or removes it; answers what was done.
fn damage(dir: &Path, rng: &mut StdRng) -> String {
    let mut files = files(dir);
    // There are many more segments of the log than other files.
    let kinds = ["LEDGER", "FORMAT", "CURRENT", "MANIFEST", ".log", ".log", ".sst", ".sst", ""];
    let kind = kinds[rng.random_range(0..kinds.len())];
    let of_rocks = rng.random_bool(0.6);
    files.retain(|path| {
        named(path, kind) && (kind != ".log" || path.starts_with(dir.join("rocks")) == of_rocks)
    });
    let path = &files[rng.random_range(0..files.len())];
    let mut bytes = std::fs::read(path).unwrap();
    // Ends and beginnings of files are where a cut or a flip is hardest to see.
    let at = match rng.random_range(0..4) {
        0 => bytes.len() - 1 - rng.random_range(0..bytes.len().min(40)),
        _ => rng.random_range(0..bytes.len()),
    };
    let shown = path.strip_prefix(dir).unwrap().display().to_string();
    match rng.random_range(0..10) {
        0 => {
            std::fs::remove_file(path).unwrap();
            return format!("{shown} removed");
        }
        1..4 => bytes.truncate(at),
        _ => bytes[at] ^= 1 << rng.random_range(0..8),
    }
    std::fs::write(path, &bytes).unwrap();
    format!("{shown} flipped or cut at {at}, {} bytes", bytes.len())
}

/// What a shard answers.
type Answer = (Vec<(Labels, Vec<(i64, u64)>)>, usize, Vec<String>);

fn answer(store: &Arc<Store>, shard: u32) -> Result<Answer, Error> {
    let reader = store.reader(&[ShardId(shard)], &Tenant::default(), i64::MIN);
    let samples = reader.select(&[], i64::MIN, i64::MAX - 1, u64::MAX)?;
    let bits = |points: Points| {
        points.t_ms.iter().zip(&points.floats).map(|(t_ms, value)| (*t_ms, value.to_bits())).collect()
    };
    let samples = samples.into_iter().map(|(labels, points)| (labels, bits(points))).collect();
    let mut spans = 0;
    reader.scan_spans(0, u64::MAX, &mut |_| {
        spans += 1;
        ControlFlow::Continue(())
    })?;
    Ok((samples, spans, reader.label_values("instance", &[], (i64::MIN, i64::MAX), 0, None)?))
}

/// What became of a damaged directory.
#[derive(Default)]
struct Outcomes {
    refused: u64,
    fenced: u64,
    harmless: u64,
    wrong: Vec<String>,
}

impl Outcomes {
    fn add(&mut self, more: Self) {
        self.refused += more.refused;
        self.fenced += more.fenced;
        self.harmless += more.harmless;
        self.wrong.extend(more.wrong);
    }

    /// Opens a damaged directory some times, and each time reads everything of two shards.
    fn look(&mut self, config: &StoreConfig, expected: &[Answer], times: usize, what: &str) {
        for round in 0..times {
            let store = match Store::open(config.clone(), &|_| {}) {
                Ok(store) => store,
                Err(error) => {
                    let kind = error.kind();
                    let is_told = matches!(kind, ErrorKind::Corrupt | ErrorKind::Invalid)
                        || matches!(error, Error::NewerFormat { .. });
                    if !is_told {
                        self.wrong.push(format!("{what}: {kind:?}: {error}"));
                    }
                    self.refused += 1;
                    return;
                }
            };
            let mut damaged = false;
            for (shard, expected) in expected.iter().enumerate() {
                match answer(&store, shard as u32) {
                    Ok(found) if found == *expected => {}
                    Ok(_) => {
                        self.wrong.push(format!("{what}: shard {shard} answers otherwise, time {round}"))
                    }
                    Err(error) if error.kind() == ErrorKind::Corrupt => damaged = true,
                    Err(error) => self.wrong.push(format!("{what}: {:?}: {error}", error.kind())),
                }
            }
            match damaged {
                true if store.stats().damage_found == 0 => self.wrong.push(format!("{what}: is not counted")),
                true => self.fenced += 1,
                false => self.harmless += 1,
            }
        }
    }
}

#[test]
fn damage_is_found_and_never_read() {
    let mut node = directory();
    let undamaged = tempfile::tempdir().unwrap();
    super::crash::copy(&node.config.dir, undamaged.path());
    node.open().unwrap();
    let expected: Vec<Answer> = (0..2).map(|shard| answer(node.store(), shard).unwrap()).collect();
    assert!(expected.iter().all(|(samples, spans, _)| samples.len() >= 5 && *spans > 10));
    node.store = None;
    let (started, next) = (Instant::now(), AtomicU64::new(first_round()));
    let outcomes = Mutex::new(Outcomes::default());
    let work = || {
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= first_round() + least_rounds() && started.elapsed() >= least_time() {
                return;
            }
            let mut rng = StdRng::seed_from_u64(round);
            let dir = directory_in_memory();
            let config = StoreConfig { dir: dir.path().join("store"), ..node.config.clone() };
            super::crash::copy(undamaged.path(), &config.dir);
            let what = format!("DAMAGE_SEED={round}, {}", damage(&config.dir, &mut rng));
            let mut found = Outcomes::default();
            // What the first start has made of it must do, too.
            found.look(&config, &expected, if round % 4 == 0 { 2 } else { 1 }, &what);
            outcomes.lock().add(found);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    // Each of the threads has taken one more number.
    let rounds = next.into_inner() - first_round() - THREADS;
    let Outcomes { refused, fenced, harmless, wrong } = outcomes.into_inner();
    println!("{rounds} directories: {refused} refused, {fenced} fenced, {harmless} fine");
    assert!(wrong.is_empty(), "{} of {rounds} rounds:\n{}", wrong.len(), wrong.join("\n"));
    let is_all = rounds < 100 || (refused > 0 && fenced > 0 && harmless > 0);
    assert!(is_all, "{refused} refused, {fenced} fenced, {harmless} fine");
}

/// RocksDB as it was before windows were written out, in the place of what it is: it opens, and lacks them.
#[test]
fn windows_that_rocksdb_forgets_are_fenced_and_the_rest_serves() {
    let mut node = Node::new();
    for n in 0..3 {
        node.write(0, batch(vec![series("a", 1, &[(OLD + n * WINDOW, 1.0)])]));
    }
    node.write(1, batch(vec![series("b", 1, &[(OLD, 1.0)])]));
    node.store().flush().unwrap();
    node.reopen();
    let rocks = node.config.dir.join("rocks");
    let lists = || files(&rocks).into_iter().filter(|path| named(path, "MANIFEST") || named(path, "CURRENT"));
    let before: Vec<_> = lists().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    node.write(0, batch(vec![series("a", 1, &[(OLD + 10 * WINDOW, 5.0)])]));
    node.store().flush().unwrap();
    node.store = None;
    lists().for_each(|path| std::fs::remove_file(path).unwrap());
    before.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    for _ in 0..3 {
        node.open().unwrap();
        let store = node.store();
        let read = |shard, from: i64, until: i64| {
            let reader = store.reader(&[ShardId(shard)], &Tenant::default(), i64::MIN);
            reader.select(&[], from - 1, until, u64::MAX)
        };
        let error = read(0, OLD, OLD + 10 * WINDOW).unwrap_err();
        let Error::Damaged { shard, from, .. } = &error else { panic!("{error}") };
        assert_eq!(
            (*shard, from.as_str()),
            (ShardId(0), crate::storage::damage::time(OLD + 10 * WINDOW).as_str())
        );
        assert_eq!(read(0, OLD, OLD + 10 * WINDOW - 1).unwrap()[0].1.len(), 3, "other windows answer");
        assert_eq!(read(1, OLD, OLD + 10 * WINDOW).unwrap().len(), 1, "other shards answer");
        let stats = store.stats();
        assert_eq!((stats.damaged_windows, stats.damaged_shards), (1, 1));
        assert!(store.snapshot(ShardId(0)).is_err(), "no replica may be made of what is not whole");
        // Writing goes on, into the very window too, which stays fenced.
        node.write(0, batch(vec![series("a", 1, &[(OLD + 10 * WINDOW + 1, 6.0)])]));
        store.flush().unwrap();
        store.merge(T0 + 1000 * WINDOW, true, &|_| true).unwrap();
        assert!(read(0, OLD + 10 * WINDOW, OLD + 11 * WINDOW).is_err());
        node.store = None;
    }
    let lost = files(&node.config.dir.join("lost"));
    assert!(lost.iter().any(|path| named(path, ".sst")), "what RocksDB would have removed is kept: {lost:?}");
    // Past retention there is nothing to miss.
    node.config.retention = Retention::keeping(Some(WINDOW));
    node.open().unwrap();
    node.store().maintain(T0 + 10_000 * WINDOW).unwrap();
    node.reopen();
    assert_eq!((node.store().stats().damaged_windows, node.all().len()), (0, 0));
}

#[test]
fn a_sorted_file_that_is_gone_fences_its_window() {
    let mut node = Node::new();
    for n in 0..4 {
        node.write(0, batch(vec![series("a", 1, &[(OLD + n * WINDOW, 1.0)])]));
        node.store().flush().unwrap();
    }
    let newest = node.store().inner.rocks.paths(keys::DATA).unwrap().remove(0).0;
    node.store = None;
    std::fs::remove_file(newest).unwrap();
    node.open().unwrap();
    let reader = node.reader();
    let read = |until: i64| reader.select(&[], OLD - 1, until, u64::MAX);
    assert!(read(OLD + 3 * WINDOW).unwrap_err().is_damage());
    assert_eq!(read(OLD + 3 * WINDOW - 1).unwrap()[0].1.len(), 3);
    node.write(0, batch(vec![series("a", 1, &[(OLD + 9 * WINDOW, 1.0)])]));
    node.store().flush().unwrap();
    drop(reader);
    node.reopen();
    assert_eq!(node.reader().select(&[], OLD + 9 * WINDOW - 1, i64::MAX - 1, 9).unwrap().len(), 1);
    assert!(node.reader().select(&[], i64::MIN, i64::MAX - 1, 9).unwrap_err().is_damage());
}

#[test]
fn cleaning_neither_hides_a_loss_nor_forgets_what_is_deleted_in_it() {
    let mut node = Node::new();
    for (at, value) in [(OLD, 1.0), (OLD + 1, 2.0)] {
        node.write(0, batch(vec![series("a", 1, &[(at, value)])]));
        node.store().flush().unwrap();
    }
    let selectors = vec![vec![Matcher::equal("__name__", "a")]];
    node.delete(0, &Deletion { selectors, start_ms: OLD, end_ms: OLD + 1 });
    node.store().flush().unwrap();
    let first = node.store().inner.rocks.paths(keys::DATA).unwrap().remove(1).0;
    let kept = std::fs::read(&first).unwrap();
    node.store = None;
    std::fs::remove_file(&first).unwrap();
    for _ in 0..2 {
        node.open().unwrap();
        let _ = node.store().clean(&|_| true);
        node.store().maintain(NOW).unwrap();
        assert!(node.reader().select(&[], OLD - 1, OLD, 10).unwrap_err().is_damage());
        assert_eq!(node.store().stats().tombstones, 1, "the file may come back");
        node.store = None;
    }
    std::fs::write(&first, kept).unwrap();
    node.open().unwrap();
    assert_eq!(node.select(&[]), [], "what was deleted stays deleted");
    assert_eq!(node.store().clean(&|_| true).unwrap().left, 0);
    assert_eq!(node.store().stats().tombstones, 0);
}

#[test]
fn a_log_that_ends_too_early_and_files_that_are_gone_are_refused() {
    let mut node = Node::with(|config| config.segment_bytes = 500);
    for n in 0..40 {
        node.write(n as u32 % 2, batch(vec![series("a", 1, &[(OLD + n, 1.0)])]));
    }
    node.store = None;
    let undamaged = tempfile::tempdir().unwrap();
    super::crash::copy(&node.config.dir, undamaged.path());
    let refused = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        super::crash::copy(undamaged.path(), dir.path());
        change(dir.path());
        let config = StoreConfig { dir: dir.path().to_owned(), ..node.config.clone() };
        let error = Store::open(config, &|_| {}).err().expect("it is refused");
        assert!(error.is_damage(), "{error}");
        error.to_string()
    };
    let segments = |dir: &Path| files(&dir.join("log"));
    let text = refused(&|dir| std::fs::remove_file(segments(dir).last().unwrap()).unwrap());
    assert!(text.contains("the segment is missing"), "{text}");
    // At the border of a record, where nothing looks torn.
    let text = refused(&|dir| {
        let path = segments(dir).pop().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..8]).unwrap();
    });
    assert!(text.contains("that were synced") || text.contains("had been stored"), "{text}");
    for name in ["rocks/CURRENT", "FORMAT"] {
        let text = refused(&|dir| std::fs::remove_file(dir.join(name)).unwrap());
        assert!(text.contains("is missing"), "{text}");
    }
    // Without a format and a database, the ledger or the log alone still say that there was a store.
    for others in [&["rocks"][..], &["rocks", "log"]] {
        let text = refused(&|dir| {
            std::fs::remove_file(dir.join("FORMAT")).unwrap();
            others.iter().for_each(|name| std::fs::remove_dir_all(dir.join(name)).unwrap());
        });
        assert!(text.contains("FORMAT is missing"), "{text}");
    }
    let text = refused(&|dir| {
        ["FORMAT", "LEDGER"].iter().for_each(|name| std::fs::remove_file(dir.join(name)).unwrap());
        std::fs::remove_dir_all(dir.join("rocks")).unwrap();
    });
    assert!(text.contains("FORMAT is missing"), "{text}");
    // A ledger that names what never was here.
    node.open().unwrap();
    node.store().create_shard(ShardId(7)).unwrap();
    node.reopen();
    let stale = std::fs::read(node.config.dir.join("LEDGER")).unwrap();
    node.store().drop_shard(ShardId(7)).unwrap();
    node.store = None;
    // Without the ledger what is there is served, and it is written again.
    std::fs::remove_file(node.config.dir.join("LEDGER")).unwrap();
    node.open().unwrap();
    assert_eq!(node.select(&[]).iter().map(|(_, points)| points.len()).sum::<usize>(), 40);
    assert!(node.config.dir.join("LEDGER").exists() && node.store().stats().damage_found == 1);
    // A directory of a build that had none gets one, and one that is there does not count.
    for ledger in [None, Some(stale.as_slice())] {
        node.store = None;
        let path = node.config.dir.join("LEDGER");
        std::fs::remove_file(&path).unwrap();
        ledger.map_or(Ok(()), |bytes| std::fs::write(&path, bytes)).unwrap();
        std::fs::write(node.config.dir.join("FORMAT"), "format=2\nwindow_ms=1800000\n").unwrap();
        node.open().unwrap();
        assert!(path.exists() && node.store().stats().damage_found == 0);
        assert!(node.store().damage(ShardId(7)).is_none());
    }
    let format = std::fs::read_to_string(node.config.dir.join("FORMAT")).unwrap();
    assert!(format.starts_with("format=4\n") && node.all().len() == 1, "{format}");
}

#[test]
fn an_epoch_does_not_lift_the_fence_of_a_shard_without_rows() {
    let mut node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(OLD, 1.0)])]));
    node.write(1, batch(vec![series("b", 1, &[(OLD, 1.0)])]));
    node.store().flush().unwrap();
    let rocks = &node.store().inner.rocks;
    let mut lost = rocks.batch();
    lost.delete(keys::STATE, &keys::row(ShardId(0), keys::Row::Meta));
    rocks.write(lost, true).unwrap();
    for epoch in 7..10 {
        node.reopen();
        let store = node.store();
        assert!(store.damage(ShardId(0)).is_some(), "before epoch {epoch}");
        assert!(epoch == 7 || store.stored_epoch(ShardId(0)) == Epoch(epoch - 1));
        store.store_epoch(ShardId(0), Epoch(epoch)).unwrap();
        store.store_epoch(ShardId(1), Epoch(epoch)).unwrap();
        assert!(store.damage(ShardId(1)).is_none());
    }
}
