//! Crashes at every step of a flush, power cuts, damage, and directories of other builds.

use super::*;
use crate::storage::log::tests::LossyFiles;

/// A node whose log loses what is not synced.
fn lossy() -> (Node, LossyFiles) {
    let files = LossyFiles::default();
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { segment_bytes: 1000, ..StoreConfig::new(dir.path().join("store")) };
    let mut node = Node { dir, config, files: Arc::new(files.clone()), store: None };
    node.open().unwrap();
    (0..2).for_each(|shard| node.store().create_shard(ShardId(shard)).unwrap());
    (node, files)
}

#[test]
fn everything_acknowledged_survives_a_power_cut() {
    let (mut node, mut files) = lossy();
    let mut expected: Vec<(i64, f64)> = Vec::new();
    for round in 0..6i64 {
        for n in 0..20 {
            let at = T0 + (round * 20 + n) * 1000;
            node.write(0, batch(vec![series("a", 1, &[(at, n as f64)])]));
            expected.push((at, n as f64));
        }
        match round % 3 {
            1 => drop(node.store().flush().unwrap()),
            2 => drop(node.store().maintain(NOW).unwrap()),
            _ => {}
        }
        files = files.power_cut(7 * round as usize);
        node.store = None;
        node.files = Arc::new(files.clone());
        node.open().unwrap();
        assert_eq!(floats(&node.all()[&labels("a", 1)]), expected);
    }
}

/// Copies a directory, as a crash would leave it.
pub(super) fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_crash_between_index_and_data_repeats_the_flush() {
    let mut node = Node::new();
    node.write(0, batch((0..20).map(|n| series("a", n, &[(T0, 1.0)])).collect()));
    // Only the index of the generation that the flush will write went in.
    let inner = &node.store().inner;
    let path = inner.config.dir.join("half.sst");
    let of = keys::Generation { class: 0, window_ms: T0, number: 1 };
    let prefix = keys::tenant(of, ShardId(0), &Tenant::default());
    let mut file = inner.rocks.sorted_file(keys::INDEX, &path).unwrap();
    file.put(keys::label_value(&prefix, "job", "left over"), vec![1]);
    file.finish().unwrap();
    inner.rocks.ingest(keys::INDEX, &[path]).unwrap();
    node.reopen();
    let expected = node.all();
    assert_eq!(expected.len(), 20);
    node.store().flush().unwrap();
    assert_eq!(node.all(), expected);
    assert_eq!(node.reader().label_values("job", &[], (T0, T0), 0, None).unwrap(), ["test"]);
}

#[test]
fn a_crash_after_the_files_went_in_repeats_nothing() {
    let node = Node::new();
    for n in 0..5 {
        node.write(0, batch(vec![series("a", 1, &[(T0 + n, n as f64), (T0 - WINDOW + n, n as f64)])]));
    }
    let log = tempfile::tempdir().unwrap();
    copy(&node.config.dir.join("log"), log.path());
    node.store().flush().unwrap();
    let expected = node.all();
    // Files are in, the log still has all entries: as after a kill right behind the flush.
    let crashed = tempfile::tempdir().unwrap();
    copy(&node.config.dir, crashed.path());
    copy(log.path(), &crashed.path().join("log"));
    let config = StoreConfig { dir: crashed.path().to_owned(), ..node.config.clone() };
    let store = Store::open(config, &|_| {}).unwrap();
    let reader = store.reader(&store.shards(), &Tenant::default(), i64::MIN);
    let found = reader.select(&[], i64::MIN, i64::MAX - 1, u64::MAX).unwrap();
    assert_eq!(found[0].1.iter().collect::<Vec<_>>(), expected[&labels("a", 1)]);
    assert_eq!(store.flush().unwrap().samples, 0);
    assert_eq!(store.position(ShardId(0)).seq, Seq(5));
}

#[test]
fn uncommitted_entries_are_seen_but_not_written_out() {
    let mut node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    node.append(0, batch(vec![series("a", 1, &[(T0 + 1, 2.0)])]), NOW);
    let report = node.store().flush().unwrap();
    assert_eq!((report.windows, report.uncommitted), (0, 1));
    assert_eq!(node.select(&[])[0].1.len(), 2);
    node.store().commit(ShardId(0), Seq(2));
    assert_eq!(node.store().flush().unwrap().samples, 2);
    node.reopen();
    assert_eq!(node.store().committed(ShardId(0)), Seq(2));
    assert_eq!(node.select(&[])[0].1.len(), 2);
}

#[test]
fn damaged_files_of_a_window_are_reported() {
    let mut node = Node::new();
    node.write(
        0,
        batch((0..2000).map(|n| series("a", n, &[(T0, f64::from(n) * 0.37), (T0 + 7, 1.0)])).collect()),
    );
    node.store().flush().unwrap();
    node.store = None;
    let rocks = node.config.dir.join("rocks");
    let files = std::fs::read_dir(rocks).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "sst")) {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }
    let error = match node.open() {
        Err(error) => error,
        Ok(()) => node.reader().select(&[], i64::MIN, i64::MAX - 1, u64::MAX).expect_err("damage"),
    };
    assert_eq!(error.kind(), tricord_wire::ErrorKind::Corrupt, "{error}");
}

#[test]
fn directories_of_other_builds_and_in_use_are_refused() {
    let mut node = Node::new();
    let second = Store::open(node.config.clone(), &|_| {}).err().unwrap().to_string();
    assert!(second.contains("locked by another process"), "{second}");
    node.store = None;
    let other = StoreConfig { window_ms: 60_000, ..node.config.clone() };
    assert!(matches!(Store::open(other, &|_| {}), Err(Error::Invalid(_))));
    std::fs::write(node.config.dir.join("FORMAT"), "format=5\nwindow_ms=1800000\n").unwrap();
    assert!(matches!(node.open(), Err(Error::NewerFormat { found: 5, known: 4 })));
    for damaged in [&b""[..], b"format=\xff\nwindow_ms=1800000\n"] {
        std::fs::write(node.config.dir.join("FORMAT"), damaged).unwrap();
        assert!(matches!(node.open(), Err(Error::Corrupt(_))));
    }
    assert!(node.dir.path().exists());
}

#[test]
fn an_entry_that_cannot_be_applied_fences_its_shard_alone() {
    let (mut node, source) = (Node::new(), Node::new());
    for node in [&node, &source] {
        node.write(0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
        node.write(1, batch(vec![series("b", 1, &[(T0, 1.0)])]));
    }
    let garbage = Bytes::from_static(b"garbage");
    let entry = Entry { shard: ShardId(0), seq: Seq(2), epoch: Epoch(1), payload: garbage };
    let done = node.store().append(vec![entry]).blocking_recv().unwrap();
    assert!(matches!(done, Err(Error::Corrupt(_))));
    for _ in 0..2 {
        let store = node.store();
        let read = |shard| {
            store.reader(&[ShardId(shard)], &Tenant::default(), i64::MIN).select(&[], 0, i64::MAX - 1, 10)
        };
        assert!(matches!(read(0), Err(Error::Corrupt(_))), "never less data");
        assert_eq!(read(1).unwrap().len(), 1);
        assert!(judge(store, ShardId(0), &Tenant::default(), &batch(vec![]), NOW).is_err());
        node.write(1, batch(vec![series("b", 1, &[(T0 + 1, 1.0)])]));
        node.store().flush().unwrap();
        node.reopen();
    }
    let (position, mut chunks) = source.store().snapshot(ShardId(0)).unwrap();
    node.store().install(ShardId(0), position, &mut chunks).unwrap();
    assert_eq!(node.all().len(), 2);
}
