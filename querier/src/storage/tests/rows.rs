//! Rows that cannot be read: their shards are fenced until they are copied again, and the others keep theirs.

use std::path::{Path, PathBuf};

use super::crash::copy;
use super::*;
use crate::storage::check::check;

/// Three shards with data in windows and in the log alone. Shard 0 has many blocks of rows.
fn node() -> Node {
    let node = Node::new();
    for shard in 0..3 {
        node.store().store_epoch(ShardId(shard), Epoch(4)).unwrap();
        let count = if shard == 0 { 2000 } else { 3 };
        node.write(shard, batch((0..count).map(|n| series("a", n, &[(T0, f64::from(n))])).collect()));
    }
    node.store().flush().unwrap();
    node.write(1, batch(vec![series("late", 1, &[(T0 + WINDOW, 1.0)])]));
    node.store().inner.rocks.flush(keys::STATE).unwrap();
    node
}

/// The files of the rows.
fn files(node: &Node) -> Vec<PathBuf> {
    let files = node.store().inner.rocks.paths(keys::STATE).unwrap();
    assert!(!files.is_empty());
    files.into_iter().map(|(path, _)| path).collect()
}

/// Flips bits of the first block, or of all of them.
fn flip(path: &Path, all: bool) {
    let mut bytes = std::fs::read(path).unwrap();
    let end = if all { bytes.len() } else { 20 };
    bytes[..end].iter_mut().step_by(10).for_each(|byte| *byte ^= 4);
    std::fs::write(path, bytes).unwrap();
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn fenced(node: &Node) -> Vec<u32> {
    (0..3).filter(|shard| node.store().damage(ShardId(*shard)).is_some()).collect()
}

/// The shards of which a check says that their rows are damaged.
fn named(node: &Node) -> Vec<u32> {
    let found = check(&node.config.dir, &|_| {}).unwrap().findings;
    let mut shards: Vec<u32> = found.iter().filter_map(|finding| finding.shard).collect();
    let is_of_rows = |finding: &crate::storage::check::Finding| finding.what.starts_with("rows of shard");
    assert!(found.iter().all(|finding| finding.shard.is_none() || is_of_rows(finding)), "{found:?}");
    shards.sort_unstable();
    shards
}

fn replace(node: &Node, source: &Node, shard: u32) {
    let (position, mut chunks) = source.store().snapshot(ShardId(shard)).unwrap();
    node.store().install(ShardId(shard), position, &mut chunks).unwrap();
}

fn read(node: &Node, shard: u32) -> Result<usize, Error> {
    let reader = node.store().reader(&[ShardId(shard)], &Tenant::default(), i64::MIN);
    Ok(reader.select(&[], i64::MIN, i64::MAX - 1, u64::MAX)?.len())
}

#[test]
fn a_shard_with_a_block_of_rows_that_is_damaged_is_replaced_and_the_others_keep_theirs() {
    let (mut node, source) = (node(), node());
    let paths = files(&node);
    node.store = None;
    paths.iter().for_each(|path| flip(path, false));
    assert_eq!(named(&node), [0]);
    node.open().unwrap();
    assert_eq!(fenced(&node), [0]);
    // What the others get meanwhile is theirs, too.
    for node in [&node, &source] {
        node.write(2, batch(vec![series("new", 1, &[(T0 + 1, 7.0)])]));
        node.store().flush().unwrap();
    }
    replace(&node, &source, 0);
    for _ in 0..2 {
        assert!(fenced(&node).is_empty());
        assert_eq!(node.all(), source.all());
        assert_eq!(node.store().stored_epoch(ShardId(2)), Epoch(4));
        assert!(node.store().snapshot(ShardId(2)).is_ok());
        node.store = None;
        assert!(named(&node).is_empty());
        node.open().unwrap();
        assert_eq!(node.store().stats().damage_found, 0);
        node.write(0, batch(vec![series("more", 1, &[(T0 + 2, 7.0)])]));
        source.write(0, batch(vec![series("more", 1, &[(T0 + 2, 7.0)])]));
    }
}

#[test]
fn shards_whose_rows_are_lost_stay_fenced_until_each_is_replaced() {
    for harm in [remove, |path: &Path| flip(path, true)] {
        let (mut node, source) = (node(), node());
        let paths = files(&node);
        node.store = None;
        paths.iter().for_each(|path| harm(path));
        node.open().unwrap();
        assert_eq!(fenced(&node), [0, 1, 2]);
        let is_kept = paths.iter().any(|path| path.exists());
        for replaced in 0..3 {
            node.store().store_epoch(ShardId(2), Epoch(5 + u64::from(replaced))).unwrap();
            replace(&node, &source, replaced);
            for _ in 0..2 {
                let left: Vec<u32> = (replaced + 1..3).collect();
                assert_eq!(fenced(&node), left);
                assert!(left.iter().all(|shard| read(&node, *shard).is_err()), "nothing less, nothing else");
                assert!(node.store().stored_epoch(ShardId(2)) >= Epoch(5 + u64::from(replaced)));
                node.store = None;
                assert_eq!(named(&node), left);
                node.open().unwrap();
            }
        }
        assert_eq!(node.all(), source.all());
        let lost = node.config.dir.join("lost");
        assert_eq!(lost.exists(), is_kept, "what was left out is kept aside");
    }
}

#[test]
fn an_epoch_outlives_the_rows() {
    let node = Node::new();
    node.write(1, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    node.store().maintain(NOW).unwrap();
    for epoch in 7..9 {
        node.store().store_epoch(ShardId(1), Epoch(epoch)).unwrap();
        node.store().inner.rocks.flush(keys::STATE).unwrap();
        // As a crash right behind it leaves the directory.
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { dir: dir.path().join("store"), ..node.config.clone() };
        copy(&node.config.dir, &config.dir);
        let rows = files(&node);
        rows.iter().for_each(|path| remove(&config.dir.join("rocks").join(path.file_name().unwrap())));
        let store = Store::open(config, &|_| {}).unwrap();
        assert!(store.damage(ShardId(1)).is_some());
        assert_eq!(store.stored_epoch(ShardId(1)), Epoch(epoch));
    }
}

#[test]
fn rows_that_memory_alone_has_are_not_guessed() {
    let (mut node, source) = (node(), node());
    files(&node).iter().for_each(|path| flip(path, true));
    assert!(node.store().snapshot(ShardId(0)).is_err());
    let before = node.all();
    let (position, mut chunks) = source.store().snapshot(ShardId(0)).unwrap();
    let refused = node.store().install(ShardId(0), position, &mut chunks).unwrap_err();
    assert!(refused.is_damage() && refused.to_string().contains("restart this data node"), "{refused}");
    node.store().maintain(NOW).unwrap();
    assert_eq!((node.all(), fenced(&node)), (before, vec![]), "nothing has changed");
    assert!(node.store().stats().damage_found > 0);
    node.reopen();
    assert_eq!(fenced(&node), [0, 1, 2]);
    (0..3).for_each(|shard| replace(&node, &source, shard));
    node.reopen();
    assert_eq!(node.all(), source.all());
}

#[test]
fn without_rows_and_a_ledger_nothing_is_opened() {
    for all in [false, true] {
        let mut node = node();
        let paths = files(&node);
        node.store = None;
        paths.iter().for_each(|path| flip(path, all));
        std::fs::remove_file(node.config.dir.join("LEDGER")).unwrap();
        let refused = node.open().unwrap_err();
        assert!(refused.is_damage(), "{refused}");
        assert!(!check(&node.config.dir, &|_| {}).unwrap().findings.is_empty());
    }
}
