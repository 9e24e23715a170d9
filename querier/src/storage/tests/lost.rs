//! What is removed under whoever reads it is no damage; what goes with a file that several shards share is.

use std::sync::atomic::AtomicU64;

use tricord_wire::ErrorKind;

use super::*;
use crate::storage::cache::ReadCache;
use crate::storage::disk::Disk;

/// A window that is over, and some behind it are.
const OLD: i64 = T0 - 20 * WINDOW;

#[test]
fn what_is_removed_under_a_reader_is_no_damage() {
    let node = Node::with(|config| config.retention = Retention::keeping(Some(2 * WINDOW)));
    for shard in 0..2 {
        node.write(shard, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    }
    node.store().flush().unwrap();
    let inner = &node.store().inner;
    let (cache, bytes, tenant) = (ReadCache::new(0), AtomicU64::new(0), Tenant::default());
    let disk = |shard: u32| {
        let cell = inner.find(ShardId(shard)).unwrap();
        let mark = cell.state.read().marks[&T0][0];
        Disk::new(inner.on_disk(), &cache, (T0, mark), ShardId(shard), &tenant, &bytes)
    };
    let (dropped, past) = (disk(0), disk(1));
    assert!(dropped.value_block(0).is_ok() && past.value_block(0).is_ok());
    node.store().drop_shard(ShardId(0)).unwrap();
    node.store().maintain(T0 + 100 * WINDOW).unwrap();
    for disk in [dropped, past] {
        let error = disk.value_block(0).err().expect("it is gone");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(node.store().stats().damage_found, 0);
    assert!(node.store().damage(ShardId(1)).is_none());
}

#[test]
fn a_block_that_is_missing_of_what_counts_is_damage() {
    let node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(T0, 1.0)])]));
    node.store().flush().unwrap();
    let inner = &node.store().inner;
    let (cache, bytes, tenant) = (ReadCache::new(0), AtomicU64::new(0), Tenant::default());
    let mark = inner.find(ShardId(0)).unwrap().state.read().marks[&T0][0];
    // Deletes that were noted as carried out since it began to read do not make it another one.
    let older = crate::storage::head::Mark { deleted: Seq(0), ..mark };
    let disk = Disk::new(inner.on_disk(), &cache, (T0, older), ShardId(0), &tenant, &bytes);
    assert!(disk.value_block(7).err().is_some_and(|error| error.is_damage()));
    assert!(node.store().damage(ShardId(0)).is_some());
}

#[test]
fn a_shared_file_that_is_given_up_fences_its_other_shards() {
    let (mut node, source) = (Node::new(), Node::new());
    for node in [&node, &source] {
        for shard in 0..3 {
            // Shard 2 has nothing in the first window.
            let at = OLD + i64::from(shard / 2) * WINDOW;
            node.write(shard, batch(vec![series("a", shard, &[(at, 1.0)])]));
        }
        node.store().flush().unwrap();
    }
    let first = |(_, key): &(_, Vec<u8>)| keys::parse_generation(key).unwrap().window_ms == OLD;
    let file = node.store().inner.rocks.first_keys(keys::INDEX).unwrap().into_iter().find(first).unwrap().0;
    node.store = None;
    std::fs::remove_file(file).unwrap();
    node.open().unwrap();
    let read = |node: &Node, shard| {
        let reader = node.store().reader(&[ShardId(shard)], &Tenant::default(), i64::MIN);
        reader.select(&[], i64::MIN, i64::MAX - 1, 9)
    };
    (0..2).for_each(|shard| assert!(read(&node, shard).unwrap_err().is_damage()));
    let (position, mut chunks) = source.store().snapshot(ShardId(0)).unwrap();
    node.store().install(ShardId(0), position, &mut chunks).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&node, 0).unwrap().len(), 1);
        assert!(read(&node, 1).unwrap_err().is_damage(), "not less data");
        assert!(node.store().damage(ShardId(1)).is_some() && node.store().snapshot(ShardId(1)).is_err());
        assert_eq!(read(&node, 2).unwrap().len(), 1);
        assert!(node.store().damage(ShardId(2)).is_none());
        node.reopen();
    }
    let (position, mut chunks) = source.store().snapshot(ShardId(1)).unwrap();
    node.store().install(ShardId(1), position, &mut chunks).unwrap();
    assert_eq!(node.all(), source.all());
}

#[test]
fn a_window_without_its_index_is_fenced() {
    let mut node = Node::new();
    node.write(0, batch(vec![series("a", 1, &[(OLD, 1.0), (OLD + WINDOW, 2.0)])]));
    node.store().flush().unwrap();
    let prefix = keys::window(0, OLD);
    node.store().inner.rocks.delete_range(keys::INDEX, &prefix, &keys::window(0, OLD + 1)).unwrap();
    for _ in 0..2 {
        node.reopen();
        let reader = node.reader();
        assert!(reader.select(&[], OLD - 1, OLD, 9).unwrap_err().is_damage(), "not less data");
        assert_eq!(reader.select(&[], OLD + WINDOW - 1, OLD + WINDOW, 9).unwrap().len(), 1);
    }
}
