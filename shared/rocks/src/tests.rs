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
