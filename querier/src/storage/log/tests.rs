//! Tests of the log, over a file system that forgets what was not synced.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parking_lot::Mutex;

use super::files::{LogFile, RealFiles};
use super::*;

/// Files in memory; a power cut takes away bytes that were not synced and names whose directory was not synced.
#[derive(Clone, Default)]
pub(crate) struct LossyFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<PathBuf, Contents>,
    /// Names that are durable.
    named: BTreeSet<PathBuf>,
    off: bool,
}

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    synced: usize,
}

impl LossyFiles {
    /// What is left after the power went: of each file's unsynced bytes the first `keep`.
    pub(crate) fn power_cut(&self, keep: usize) -> Self {
        let mut disk = self.disk.lock();
        disk.off = true;
        let named = disk.named.clone();
        let left = |(path, contents): (&PathBuf, &Contents)| {
            let len = (contents.synced + keep).min(contents.bytes.len());
            (path.clone(), Contents { bytes: contents.bytes[..len].to_vec(), synced: len })
        };
        let files = disk.files.iter().filter(|(path, _)| named.contains(*path)).map(left).collect();
        Self { disk: Arc::new(Mutex::new(Disk { files, named, off: false })) }
    }

    /// Changes a byte of the only file, or of the first one.
    pub(crate) fn flip(&self, at: usize) {
        let mut disk = self.disk.lock();
        let contents = disk.files.values_mut().next().unwrap();
        contents.bytes[at] ^= 1;
    }
}

fn gone(path: &Path) -> Error {
    Error::Io(format!("no file {}", path.display()))
}

struct LossyFile(LossyFiles, PathBuf);

impl LogFile for LossyFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut disk = self.0.disk.lock();
        if disk.off {
            return Err(gone(&self.1));
        }
        disk.files.get_mut(&self.1).ok_or_else(|| gone(&self.1))?.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        let mut disk = self.0.disk.lock();
        if disk.off {
            return Err(gone(&self.1));
        }
        let contents = disk.files.get_mut(&self.1).ok_or_else(|| gone(&self.1))?;
        contents.synced = contents.bytes.len();
        Ok(())
    }
}

impl Files for LossyFiles {
    fn create_dir(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn list(&self, _: &Path) -> Result<Vec<PathBuf>, Error> {
        Ok(self.disk.lock().files.keys().cloned().collect())
    }

    fn create(&self, path: &Path) -> Result<Box<dyn LogFile>, Error> {
        self.disk.lock().files.insert(path.to_owned(), Contents::default());
        Ok(Box::new(LossyFile(self.clone(), path.to_owned())))
    }

    fn open_at(&self, path: &Path, len: u64) -> Result<Box<dyn LogFile>, Error> {
        let mut disk = self.disk.lock();
        let contents = disk.files.get_mut(path).ok_or_else(|| gone(path))?;
        contents.bytes.truncate(len as usize);
        contents.synced = contents.bytes.len();
        Ok(Box::new(LossyFile(self.clone(), path.to_owned())))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        Ok(self.disk.lock().files.get(path).ok_or_else(|| gone(path))?.bytes.clone())
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let bytes = self.read(path)?;
        bytes.get(offset as usize..offset as usize + len).map(<[u8]>::to_vec).ok_or_else(|| gone(path))
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        let mut disk = self.disk.lock();
        disk.files.remove(path);
        disk.named.remove(path);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> Result<(), Error> {
        let mut disk = self.disk.lock();
        let names = disk.files.keys().cloned().collect();
        disk.named = names;
        Ok(())
    }
}

/// Remembers what was applied.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Entry>>>);

impl Sink for Seen {
    fn apply(&mut self, entry: &Entry) -> Result<(), Error> {
        self.0.lock().push(entry.clone());
        Ok(())
    }
}

fn config(fsync: FsyncMode, segment_bytes: u64) -> LogConfig {
    LogConfig { dir: PathBuf::from("log"), fsync, segment_bytes }
}

fn open(files: &LossyFiles, segment_bytes: u64) -> Result<(Log, Vec<Entry>), Error> {
    let opened = Opened::open(config(FsyncMode::Always, segment_bytes), Arc::new(files.clone()))?;
    let mut replayed = Vec::new();
    opened.replay(&mut |entries, _| {
        replayed.extend(entries);
        Ok(())
    })?;
    Ok((opened.start(Box::new(Seen::default()))?, replayed))
}

fn entry(shard: u32, seq: u64) -> Entry {
    let payload = Bytes::from(format!("shard {shard} entry {seq} {}", "x".repeat(seq as usize % 50)));
    Entry { shard: ShardId(shard), seq: Seq(seq), epoch: Epoch(1 + seq / 10), payload }
}

fn error_of<T>(result: Result<T, Error>) -> Error {
    result.err().expect("an error")
}

#[test]
fn everything_acknowledged_survives_a_power_cut() {
    for keep in [0, 1, 9, 40, 1000] {
        let files = LossyFiles::default();
        let (log, _) = open(&files, 2000).unwrap();
        let mut acknowledged = Vec::new();
        for seq in 1..=100 {
            for shard in 0..3 {
                log.append_and_wait(vec![entry(shard, seq)]).unwrap();
                acknowledged.push(entry(shard, seq));
            }
        }
        // Submitted, and perhaps on its way when the power goes.
        let _in_flight: Vec<_> = (101..120).map(|seq| log.append(vec![entry(0, seq)])).collect();
        let after = files.power_cut(keep);
        drop(log);
        let (log, replayed) = open(&after, 2000).unwrap();
        for shard in 0..3 {
            let of = |entries: &[Entry]| -> Vec<Entry> {
                entries.iter().filter(|entry| entry.shard == ShardId(shard)).cloned().collect()
            };
            let (found, expected) = (of(&replayed), of(&acknowledged));
            assert_eq!(found[..expected.len()], expected[..], "shard {shard}, {keep} unsynced bytes kept");
            assert_eq!(log.position(ShardId(shard)).seq, Seq(found.len() as u64));
        }
        let next = log.position(ShardId(1)).seq.next();
        log.append_and_wait(vec![entry(1, next.0)]).unwrap();
    }
}

#[test]
fn writes_that_wait_share_a_sync() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 1 << 20).unwrap();
    let held = files.disk.lock();
    let waiting: Vec<_> = (1..=500).map(|seq| log.append(vec![entry(0, seq)])).collect();
    drop(held);
    waiting.into_iter().for_each(|done| done.blocking_recv().unwrap().unwrap());
    let (entries, syncs) = log.counts();
    assert_eq!(entries, 500);
    assert!(syncs < 50, "{syncs} syncs");
}

#[test]
fn a_torn_tail_is_cut_at_any_byte() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 1 << 20).unwrap();
    (1..=3).for_each(|seq| log.append_and_wait(vec![entry(0, seq)]).unwrap());
    drop(log);
    let full = files.disk.lock().files.values().next().unwrap().bytes.clone();
    let path = segment::path(Path::new("log"), 1);
    let ends: Vec<usize> =
        segment::records(&full).map(|r| r.unwrap().0).map(|r| r.offset as usize + r.len as usize).collect();
    for len in 0..full.len() {
        let cut = LossyFiles::default();
        cut.disk.lock().files.insert(path.clone(), Contents { bytes: full[..len].to_vec(), synced: len });
        let (log, replayed) = open(&cut, 1 << 20).unwrap();
        let whole = ends.iter().filter(|end| **end <= len).count();
        assert_eq!(replayed.len(), whole, "cut at {len}");
        log.append_and_wait(vec![entry(0, whole as u64 + 1)]).unwrap();
        drop(log);
        assert_eq!(open(&cut, 1 << 20).unwrap().1.len(), whole + 1);
    }
}

#[test]
fn a_flipped_byte_before_synced_records_is_reported_with_its_place() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 1 << 20).unwrap();
    (1..=3).for_each(|seq| log.append_and_wait(vec![entry(0, seq)]).unwrap());
    drop(log);
    files.flip(30);
    let error = error_of(open(&files, 1 << 20)).to_string();
    assert!(error.contains("00000000000000000001.log at byte 8"), "{error}");
    assert!(error.contains("copied again"), "{error}");
}

#[test]
fn damage_in_an_older_segment_is_no_torn_tail() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 100).unwrap();
    (1..=9).for_each(|seq| log.append_and_wait(vec![entry(0, seq)]).unwrap());
    drop(log);
    let last = files.disk.lock().files.values().next().unwrap().bytes.len() - 1;
    files.flip(last);
    assert!(matches!(error_of(open(&files, 100)), Error::Corrupt(_)));
}

#[test]
fn cuts_and_resets_are_kept() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 300).unwrap();
    (1..=9).for_each(|seq| log.append_and_wait(vec![entry(0, seq), entry(1, seq)]).unwrap());
    log.control(Kind::Cut, ShardId(0), Position { seq: Seq(4), epoch: Epoch(9) }).unwrap();
    log.append_and_wait(vec![Entry { epoch: Epoch(9), ..entry(0, 5) }]).unwrap();
    log.control(Kind::Reset, ShardId(1), Position { seq: Seq(100), epoch: Epoch(3) }).unwrap();
    log.append_and_wait(vec![entry(1, 101)]).unwrap();
    drop(log);
    let (log, replayed) = open(&files, 300).unwrap();
    let seqs = |shard| -> Vec<u64> {
        replayed.iter().filter(|entry| entry.shard == ShardId(shard)).map(|entry| entry.seq.0).collect()
    };
    assert_eq!((seqs(0), seqs(1)), (vec![1, 2, 3, 4, 5], vec![101]));
    assert_eq!(log.position(ShardId(0)), Position { seq: Seq(5), epoch: Epoch(9) });
    assert_eq!(log.epoch_at(ShardId(0), Seq(4)), Some(Epoch(1)));
    assert_eq!(log.epoch_at(ShardId(1), Seq(100)), Some(Epoch(3)));
    assert_eq!(log.epoch_at(ShardId(1), Seq(99)), None);
}

#[test]
fn a_cut_outlives_the_first_of_the_entries_that_it_undoes() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 300).unwrap();
    log.append_and_wait(vec![entry(0, 1)]).unwrap();
    (1..=9).for_each(|seq| log.append_and_wait(vec![entry(1, seq)]).unwrap());
    log.append_and_wait(vec![entry(0, 2), entry(1, 10)]).unwrap();
    log.control(Kind::Cut, ShardId(0), Position { seq: Seq(0), epoch: Epoch(2) }).unwrap();
    log.append_and_wait(vec![Entry { epoch: Epoch(2), ..entry(0, 1) }]).unwrap();
    // The undone entry 1 needs no segment any more; the undone entry 2 lies in one that shard 1 needs.
    let done = |shard| Some(Seq(if shard == ShardId(1) { 9 } else { 0 }));
    assert!(log.trim(0, &done, &|_| None).unwrap().removed > 0);
    drop(log);
    let (log, replayed) = open(&files, 300).unwrap();
    let kept: Vec<_> = replayed.iter().filter(|entry| entry.shard == ShardId(0)).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].seq, kept[0].epoch), (Seq(1), Epoch(2)));
    assert_eq!(log.position(ShardId(0)), Position { seq: Seq(1), epoch: Epoch(2) });
}

#[test]
fn entries_are_read_back_until_they_are_trimmed() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 300).unwrap();
    (1..=40).for_each(|seq| log.append_and_wait(vec![entry(0, seq)]).unwrap());
    let read = log.entries(ShardId(0), Seq(10), 200).unwrap().unwrap();
    assert_eq!(read, (11..11 + read.len() as u64).map(|seq| entry(0, seq)).collect::<Vec<_>>());
    assert_eq!(log.entries(ShardId(0), Seq(10), 0).unwrap().unwrap(), [entry(0, 11)]);
    assert_eq!(log.entries(ShardId(0), Seq(40), 100).unwrap(), Some(Vec::new()));

    assert_eq!(log.trim(0, &|_| Some(Seq(0)), &|_| None).unwrap(), Trimmed::default());
    assert!(log.trim(0, &|_| Some(Seq(25)), &|_| None).unwrap().removed > 0);
    assert_eq!(log.entries(ShardId(0), Seq(1), 200).unwrap(), None);
    assert_eq!(log.entries(ShardId(0), Seq(25), 1).unwrap(), Some(vec![entry(0, 26)]));
    let base = log.shared.index.read().held_by(u64::MAX);
    assert_eq!(base, [(ShardId(0), Seq(40))]);
    drop(log);
    let (log, replayed) = open(&files, 300).unwrap();
    assert!(replayed.first().unwrap().seq <= Seq(26));
    assert_eq!(log.position(ShardId(0)).seq, Seq(40));
}

#[test]
fn segments_stay_for_replicas_that_lag_up_to_a_bound() {
    let (log, _) = open(&LossyFiles::default(), 300).unwrap();
    (1..=80).for_each(|seq| log.append_and_wait(vec![entry(0, seq)]).unwrap());
    let all = |_| Some(Seq(80));
    let wanted = |seq| move |_| Some(Seq(seq));
    let closed = || log.shared.closed_segments().len();
    let before = closed();
    assert!(before > 8, "{before} segments");
    let kept = log.trim(100, &all, &wanted(0)).unwrap();
    assert_eq!(kept.removed, 0);
    assert!(kept.kept_bytes > 300 * before as u64 && kept.kept_bytes < log.bytes());
    assert!(log.trim(100, &all, &wanted(20)).unwrap().removed > 0);
    assert!(log.entries(ShardId(0), Seq(20), 1).unwrap().is_some());
    let left = closed();
    assert_eq!(log.trim(3, &all, &wanted(20)).unwrap().removed, left - 3, "who lags too far gets a snapshot");
    assert_eq!(log.entries(ShardId(0), Seq(20), 1).unwrap(), None);
    assert_eq!(log.trim(3, &all, &|_| None).unwrap(), Trimmed { removed: 3, kept_bytes: 0 });
}

#[test]
fn no_segment_is_removed_twice_by_two_who_trim_at_once() {
    let (log, _) = open(&LossyFiles::default(), 300).unwrap();
    (1..=40).for_each(|seq| log.append_and_wait(vec![entry(0, seq)]).unwrap());
    let closed = log.shared.closed_segments().len();
    let done = |_| Some(Seq(40));
    // The other one is done while this one still asks.
    let other = |shard| {
        assert_eq!(log.trim(0, &done, &|_| None).unwrap().removed, closed);
        done(shard)
    };
    assert_eq!(log.trim(0, &other, &|_| None).unwrap().removed, 0);
}

#[test]
fn a_segment_is_closed_when_asked_but_not_an_empty_one() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 1 << 20).unwrap();
    (1..=3).for_each(|seq| log.append_and_wait(vec![entry(0, seq)]).unwrap());
    (0..3).for_each(|_| log.roll().unwrap());
    assert_eq!(log.shared.closed_segments(), [1]);
    log.append_and_wait(vec![entry(0, 4)]).unwrap();
    assert_eq!(log.trim(0, &|_| Some(Seq(3)), &|_| None).unwrap().removed, 1);
    drop(log);
    let (log, replayed) = open(&files.power_cut(0), 1 << 20).unwrap();
    assert_eq!(replayed, [entry(0, 4)]);
    assert_eq!(log.position(ShardId(0)).seq, Seq(4));
}

#[test]
fn an_entry_out_of_order_is_refused_and_harms_nobody() {
    let files = LossyFiles::default();
    let (log, _) = open(&files, 1 << 20).unwrap();
    log.append_and_wait(vec![entry(0, 1)]).unwrap();
    assert!(matches!(error_of(log.append_and_wait(vec![entry(1, 1), entry(0, 3)])), Error::Gap { .. }));
    log.append_and_wait(vec![entry(1, 1), entry(0, 2)]).unwrap();
    drop(log);
    assert_eq!(open(&files, 1 << 20).unwrap().1.len(), 3);
}

#[test]
fn a_newer_segment_is_named_as_such() {
    let files = LossyFiles::default();
    drop(open(&files, 1 << 20).unwrap());
    files.disk.lock().files.values_mut().next().unwrap().bytes[7] = 9;
    assert!(matches!(error_of(open(&files, 1 << 20)), Error::NewerFormat { found: 9, known: 1 }));
}

#[test]
fn real_files_do_as_well() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let config =
            LogConfig { dir: dir.path().join("log"), fsync: FsyncMode::Interval(1), segment_bytes: 500 };
        let opened = Opened::open(config, Arc::new(RealFiles)).unwrap();
        let mut count = 0;
        opened
            .replay(&mut |entries, _| {
                count += entries.len() as u64;
                Ok(())
            })
            .unwrap();
        assert_eq!(count, round * 20);
        let log = opened.start(Box::new(Seen::default())).unwrap();
        (1..=20).for_each(|n| log.append_and_wait(vec![entry(0, round * 20 + n)]).unwrap());
    }
}
