//! Shards that go while the disk fails or the process ends: none comes back with less than it had, and none stays fenced.

use super::*;

/// Makes writing the ledger fail until it is dropped.
struct NoLedger(std::path::PathBuf);

impl NoLedger {
    fn of(node: &Node) -> Self {
        let path = node.config.dir.join("LEDGER.new");
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for NoLedger {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A node with something of shard 0 on disk and something in its log, and something of shard 1.
fn node() -> Node {
    let node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    node.write(1, batch(vec![series("b", 1, &[(T0, 1.0)])]));
    node.store().flush().unwrap();
    node.write(0, batch(vec![series("a", 1, &[(T0 + 1, 2.0)])]));
    node
}

#[test]
fn a_shard_that_was_being_dropped_does_not_come_back() {
    let mut node = node();
    {
        let _broken = NoLedger::of(&node);
        assert!(matches!(node.store().drop_shard(ShardId(0)), Err(Error::Io(_))));
    }
    // What the ledger says from now on does not name the shard.
    node.store().inner.write_ledger().unwrap();
    for _ in 0..2 {
        node.reopen();
        assert_eq!(node.store().shards(), [ShardId(1), ShardId(2)]);
        assert_eq!((node.all().len(), node.store().stats().damaged_shards), (1, 0));
    }
}

#[test]
fn dropping_again_removes_what_is_left() {
    let node = node();
    {
        let _broken = NoLedger::of(&node);
        (0..2).for_each(|_| assert!(node.store().drop_shard(ShardId(0)).is_err()));
    }
    node.store().drop_shard(ShardId(0)).unwrap();
    let inner = &node.store().inner;
    assert!(!inner.has_rows(ShardId(0)).unwrap());
    assert!(!inner.read_marks(&Default::default()).unwrap().live.contains_key(&ShardId(0)));
    assert!(inner.has_rows(ShardId(1)).unwrap());
}

#[test]
fn a_shard_made_after_a_removal_that_failed_is_empty() {
    let mut node = node();
    {
        let _broken = NoLedger::of(&node);
        assert!(node.store().drop_shard(ShardId(0)).is_err());
        assert!(node.store().create_shard(ShardId(0)).is_err());
    }
    node.store().create_shard(ShardId(0)).unwrap();
    for _ in 0..2 {
        assert_eq!(node.store().position(ShardId(0)), Position::default());
        assert_eq!(node.all().len(), 1, "only shard 1 has something");
        node.reopen();
        assert_eq!(node.store().shards(), [ShardId(0), ShardId(1), ShardId(2)]);
    }
}

#[test]
fn a_void_shard_is_void_until_the_ledger_says_so() {
    let mut node = node();
    node.store().inner.make_void(ShardId(0)).unwrap();
    node.store = None;
    {
        let _broken = NoLedger::of(&node);
        assert!(node.open().is_err());
    }
    node.open().unwrap();
    assert_eq!(node.store().shards(), [ShardId(1), ShardId(2)]);
    assert_eq!(node.store().stats().damaged_shards, 0);
}
