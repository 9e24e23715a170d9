use super::*;

fn families() -> Vec<Family> {
    vec![
        Family { name: "plain", compress: false, bloom: false, block_bytes: 16 << 10 },
        Family { name: "packed", compress: true, bloom: true, block_bytes: 16 << 10 },
    ]
}

fn open(path: &Path) -> Rocks {
    Rocks::open(path, &Options { families: families(), ..Options::default() }).unwrap()
}

fn keys(rocks: &Rocks, family: &str) -> Vec<Vec<u8>> {
    keys_of(rocks, family).unwrap()
}

fn keys_of(rocks: &Rocks, family: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = Vec::new();
    rocks.scan::<Error>(family, b"", b"\xff", &mut |key, _| {
        found.push(key.to_vec());
        Ok(true)
    })?;
    Ok(found)
}

#[test]
fn a_batch_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = open(dir.path());
    let mut batch = rocks.batch();
    batch.put("plain", b"a", b"1");
    batch.put("packed", b"b", b"2");
    rocks.write(batch, true).unwrap();
    drop(rocks);
    let rocks = open(dir.path());
    assert_eq!(rocks.get("plain", b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(rocks.get("packed", b"b").unwrap().as_deref(), Some(&b"2"[..]));
    assert!(rocks.get("packed", b"c").unwrap().is_none());
}

#[test]
fn a_second_process_is_told_about_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = Rocks::open(dir.path(), &Options { families: families(), ..Options::default() });
    assert!(matches!(second.err(), Some(Error::Locked { .. })));
}

#[test]
fn a_sorted_file_is_ingested_below_and_dropped_whole() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = open(&dir.path().join("db"));
    for window in 0..3u8 {
        let path = dir.path().join(format!("{window}.sst"));
        let mut file = rocks.sorted_file("packed", &path).unwrap();
        for n in (0..50u8).rev() {
            file.put(vec![window, n], vec![n; 100]);
        }
        assert!(file.finish().unwrap() > 0);
        rocks.ingest("packed", &[path]).unwrap();
    }
    assert!(rocks.files("packed").unwrap().iter().all(|(_, level, _)| *level == 6));
    let paths = rocks.paths("packed").unwrap();
    assert!(paths.iter().all(|(path, bytes)| path.metadata().unwrap().len() == *bytes));
    assert!(paths.len() == 3 && paths[0].0 > paths[2].0, "{paths:?}");
    rocks.delete_range("packed", &[1], &[2]).unwrap();
    assert_eq!(rocks.files("packed").unwrap().len(), 2);
    assert_eq!(keys(&rocks, "packed").len(), 100);
}

#[test]
fn an_unknown_family_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = open(dir.path());
    assert!(rocks.get("other", b"a").is_err());
    let mut batch = rocks.batch();
    batch.put("other", b"a", b"");
    assert!(rocks.write(batch, false).is_err());
}

#[test]
fn a_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = open(&dir.path().join("db"));
    let path = dir.path().join("a.sst");
    let mut file = rocks.sorted_file("plain", &path).unwrap();
    (0..100u8).for_each(|n| file.put(vec![n], vec![n; 1000]));
    file.finish().unwrap();
    rocks.ingest("plain", &[path]).unwrap();
    drop(rocks);
    let files = std::fs::read_dir(dir.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
    let stored = files
        .filter(|path| path.extension().is_some_and(|e| e == "sst"))
        .max_by_key(|p| p.metadata().unwrap().len());
    let stored = stored.unwrap();
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[500] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    let rocks = open(&dir.path().join("db"));
    assert!(rocks.get("plain", &[0]).err().unwrap().is_corruption());
}

#[test]
fn a_file_that_is_gone_costs_only_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = open(&dir.path().join("db"));
    for window in 0..4u8 {
        let path = dir.path().join(format!("{window}.sst"));
        let mut file = rocks.sorted_file("plain", &path).unwrap();
        file.put(vec![window, 1], vec![window; 100]);
        file.finish().unwrap();
        rocks.ingest("plain", &[path]).unwrap();
    }
    let third = rocks.paths("plain").unwrap().remove(1).0;
    drop(rocks);
    std::fs::remove_file(third).unwrap();
    let options = Options { families: families(), tolerant: true, ..Options::default() };
    assert!(Rocks::open(&dir.path().join("db"), &Options { tolerant: false, ..options.clone() }).is_err());
    for read_only in [true, false] {
        let rocks = match read_only {
            true => Rocks::open_read_only(&dir.path().join("db"), &options).unwrap(),
            false => Rocks::open(&dir.path().join("db"), &options).unwrap(),
        };
        let found = |key: &[u8]| rocks.get("plain", key).map(|value| value.is_some());
        assert!(found(&[0, 1]).unwrap() && found(&[3, 1]).unwrap());
        assert!(found(&[2, 1]).unwrap_err().is_corruption());
        let mut cursor = rocks.cursor("plain", &[], &[9]).unwrap();
        let mut seen = Vec::new();
        for target in [&[0u8, 0], &[1, 0], &[2, 0], &[3, 0]] {
            cursor.seek(target);
            seen.push(cursor.item().map(|(key, _)| key.to_vec()).ok_or(cursor.status().is_err()));
        }
        assert_eq!(seen, [Ok(vec![0, 1]), Ok(vec![1, 1]), Err(true), Ok(vec![3, 1])]);
    }
    let rocks = Rocks::open(&dir.path().join("db"), &options).unwrap();
    assert!(keys_of(&rocks, "plain").is_err());
    let broken = rocks.broken("plain").unwrap();
    assert_eq!((broken.len(), &broken[0].first, &broken[0].last), (1, &vec![2, 1], &vec![2, 1]));
    rocks.drop_broken("plain", &broken).unwrap();
    assert_eq!(rocks.broken("plain").unwrap(), []);
    assert_eq!(keys_of(&rocks, "plain").unwrap(), [vec![0, 1], vec![1, 1], vec![3, 1]]);
}

/// Sorted files of a database, with what is to become of them.
fn harm(dir: &Path, harm: impl Fn(&Path)) {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "sst")).for_each(|path| harm(&path));
}

#[test]
fn a_family_that_is_written_anew_is_rid_of_damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { families: families(), tolerant: true, ..Options::default() };
    let mut rocks = open(dir.path());
    for round in 0..3u8 {
        for n in 0..2u8 {
            let mut batch = rocks.batch();
            batch.put("plain", &[1, n], &[round]);
            batch.put("packed", &[1], &[round]);
            rocks.write(batch, true).unwrap();
            // Both are files of the first level, of which RocksDB lets nobody drop one.
            rocks.flush("plain").unwrap();
        }
        assert!(rocks.files("plain").unwrap().iter().all(|(_, level, _)| *level == 0));
        drop(rocks);
        harm(dir.path(), |path| std::fs::remove_file(path).unwrap());
        rocks = Rocks::open(dir.path(), &options).unwrap();
        assert!(keys_of(&rocks, "plain").is_err());
        let reader = rocks.cursor("plain", &[], &[9]).unwrap();
        rocks
            .renew::<Error>("plain", &mut |fresh| {
                (0..100u8).try_for_each(|n| fresh.put(&[3, n], &[n; 50_000]))
            })
            .unwrap();
        assert!(reader.status().is_err(), "who reads what was there before goes on with that");
        drop(reader);
        for _ in 0..2 {
            assert_eq!(keys(&rocks, "plain").len(), 100);
            assert!(rocks.get("plain", &[1, 0]).unwrap().is_none());
            assert_eq!(rocks.get("packed", &[1]).unwrap().as_deref(), Some(&[round][..]));
            drop(rocks);
            let looked = Rocks::open_read_only(dir.path(), &options).unwrap();
            assert_eq!(keys(&looked, "plain").len(), 100);
            rocks = Rocks::open(dir.path(), &options).unwrap();
        }
        let listed = Db::list_cf(&rocksdb::Options::default(), dir.path()).unwrap();
        assert_eq!(listed.len(), 3, "the former one is gone: {listed:?}");
        let mut batch = rocks.batch();
        batch.delete_range("plain", &[3], &[4]);
        rocks.write(batch, true).unwrap();
    }
}

#[test]
fn a_family_counts_only_when_it_was_written_anew_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let rocks = open(dir.path());
    let mut batch = rocks.batch();
    batch.put("plain", b"a", b"1");
    rocks.write(batch, true).unwrap();
    let failed = rocks.renew("plain", &mut |fresh| {
        fresh.put(b"b", b"2")?;
        Err(Error::Invalid("no".to_owned()))
    });
    assert_eq!(failed, Err(Error::Invalid("no".to_owned())));
    assert_eq!(keys(&rocks, "plain"), [b"a".to_vec()]);
    // As a crash before the end leaves it, and then one behind it.
    drop(rocks);
    for (last, expected) in [(None, b"a"), (Some(LAST_KEY), b"b")] {
        let rocks = open(dir.path());
        rocks.db.create_cf("plain~2", &rocksdb::Options::default()).unwrap();
        let handle = rocks.db.cf_handle("plain~2").unwrap();
        rocks.db.put_cf(&handle, b"b", b"2").unwrap();
        last.into_iter().for_each(|last| rocks.db.put_cf(&handle, last, b"").unwrap());
        drop(handle);
        drop(rocks);
        let looked =
            Rocks::open_read_only(dir.path(), &Options { families: families(), ..Options::default() });
        assert_eq!(keys_of(&looked.unwrap(), "plain").unwrap(), [expected.to_vec()]);
        assert_eq!(keys_of(&open(dir.path()), "plain").unwrap(), [expected.to_vec()]);
    }
}
