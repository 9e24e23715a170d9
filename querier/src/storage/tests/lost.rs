//! What is removed under whoever reads it is no damage; what goes with a file that several shards share is.

use std::sync::atomic::AtomicU64;

use tricord_wire::ErrorKind;

use super::*;
use crate::storage::cache::ReadCache;
use crate::storage::disk::Disk;

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
