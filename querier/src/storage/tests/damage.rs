//! A bit flipped or a file cut, anywhere: it is found when the store is opened or read, what is read is never wrong, and
//! nothing panics.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tricord_wire::ErrorKind;

use super::merges::{DAY, LATER, fill};
use super::*;

/// Damages tried; `DAMAGES=5000` tries more.
fn rounds() -> u64 {
    std::env::var("DAMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

/// A directory with merged windows, others, data in the log alone, and rows.
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
    for n in 0..60 {
        let t_ms = DAY + 15 * WINDOW + n * 1000;
        node.write(n as u32 % 2, batch((0..5).map(|i| series("a", i, &[(t_ms, n as f64)])).collect()));
    }
    // A damaged last entry cannot be told from one that was never acknowledged: this one is not looked at.
    node.write(2, batch(vec![series("last", 0, &[(NOW, 1.0)])]));
    node.store = None;
    node
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

/// Flips a bit of some file or cuts it; answers what was done.
fn damage(dir: &Path, rng: &mut StdRng) -> String {
    // There are many more segments of the log than files of the database.
    let files = files(&dir.join(["log", "rocks", "rocks", ""][rng.random_range(0..4)]));
    let path = &files[rng.random_range(0..files.len())];
    let mut bytes = std::fs::read(path).unwrap();
    let at = rng.random_range(0..bytes.len());
    // What ends too early is not noticed where a crash may leave it so: in segments of the log, and in RocksDB's own log
    // and list of files.
    let may_end = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("MANIFEST") || name.ends_with(".log")
    };
    let what = if rng.random_bool(0.3) && !may_end(path) {
        bytes.truncate(at);
        "cut"
    } else {
        bytes[at] ^= 1 << rng.random_range(0..8);
        "flipped"
    };
    std::fs::write(path, bytes).unwrap();
    format!("{} {what} at {at}", path.strip_prefix(dir).unwrap().display())
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
    Ok((samples, spans, reader.label_values("instance", &[], i64::MIN, i64::MAX, 0)?))
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
    let (mut refused, mut fenced, mut wrong) = (0, 0, Vec::new());
    for round in 0..rounds() {
        let mut rng = StdRng::seed_from_u64(round);
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { dir: dir.path().join("store"), ..node.config.clone() };
        super::crash::copy(undamaged.path(), &config.dir);
        let what = damage(&config.dir, &mut rng);
        let store = match Store::open(config, &|_| {}) {
            Ok(store) => store,
            Err(error) => {
                let kind = error.kind();
                let is_told = matches!(kind, ErrorKind::Corrupt | ErrorKind::Invalid)
                    || matches!(error, Error::NewerFormat { .. });
                if !is_told {
                    wrong.push(format!("round {round}, {what}: {kind:?}: {error}"));
                }
                refused += 1;
                continue;
            }
        };
        for (shard, expected) in expected.iter().enumerate() {
            match answer(&store, shard as u32) {
                Ok(found) if found == *expected => {}
                Ok(_) => wrong.push(format!("round {round}, {what}: shard {shard} answers otherwise")),
                Err(error) if error.kind() == ErrorKind::Corrupt => fenced += 1,
                Err(error) => wrong.push(format!("round {round}, {what}: {:?}: {error}", error.kind())),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} rounds:\n{}", wrong.len(), rounds(), wrong.join("\n"));
    assert!(refused > 0 && fenced > 0, "{refused} refused, {fenced} fenced");
}
