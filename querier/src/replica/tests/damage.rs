//! Sorted files of a replica that are gone or not what they were: it leaves the in-sync set by itself and is copied again,
//! from the log where that is whole, else by a snapshot.

use std::path::PathBuf;

use super::*;

/// RocksDB's family of rows.
const ROWS: &str = "state";

/// What becomes of a sorted file.
type Harm = fn(&PathBuf);

fn remove(path: &PathBuf) {
    std::fs::remove_file(path).unwrap();
}

/// Flips a bit in every block.
fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.iter_mut().step_by(50).for_each(|byte| *byte ^= 0x10);
    std::fs::write(path, bytes).unwrap();
}

/// Flips a bit of the first block alone.
fn flip_first(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[7] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Waits until all copies are whole and in sync again, and looks whether each has everything up to `serial`.
async fn must_be_copied_again(cluster: &Cluster, third: &Querier, serial: u64) {
    let store = third.replicas.store.clone();
    let started = Instant::now();
    while store.stats().damaged_shards > 0 {
        assert!(started.elapsed() < DEADLINE, "it is not copied again: {:?}", cluster.map().shards);
        // Writes go on without it.
        must_write(cluster, 0, serial).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let rejoined = |map: &ShardMap| map.shards.iter().all(|config| config.in_sync.contains(&NodeId(3)));
    let waited = cluster.wait_for(DEADLINE, rejoined).await;
    assert!(waited.is_ok(), "it is not in sync again: {:?}", cluster.map().shards);
    for shard in 0..SHARDS {
        must_write(cluster, shard, serial).await;
    }
    for node in 1..=3 {
        assert_eq!(read(cluster, node).await, expected(0..serial + 1), "node {node}");
    }
}

/// The files that are harmed.
#[derive(Clone, Copy, PartialEq)]
enum Harmed {
    /// All, which are those of windows alone.
    Windows,
    /// All, those of rows among them.
    All,
    /// Those of rows.
    Rows,
}

/// Three replicas, of which the third finds sorted files harmed when it starts again. Where it `joins` already when its
/// process ends, it asks for another epoch first: it may be about to be let in.
async fn a_harmed_copy_is_copied_again(is_trimmed: bool, joins: bool, harmed: Harmed, harm: Harm) {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::fixed(map(1, &[1, 2, 3], &[], 3, 2));
    let small = Config { log_segment_bytes: 1024, log_keep_segments: 0, ..Config::default() };
    let mut queriers = Vec::new();
    for node in 1..=3 {
        queriers.push(start_with(&cluster, dir.path(), node, small.clone()).await);
    }
    for serial in 0..50 {
        for shard in 0..SHARDS {
            must_write(&cluster, shard, serial).await;
        }
    }
    let flushed = if is_trimmed { &queriers[..] } else { &queriers[2..] };
    for querier in flushed {
        let store = &querier.replicas.store;
        let started = Instant::now();
        while (0..SHARDS).any(|shard| store.committed(ShardId(shard)).0 < 50) {
            assert!(started.elapsed() < DEADLINE, "a follower does not hear what is committed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        querier.service().flush(pb::FlushRequest::default()).await.unwrap();
    }
    let rocks = &queriers[2].replicas.store.inner.rocks;
    if harmed != Harmed::Windows {
        rocks.flush(ROWS).unwrap();
    }
    let of_rows: Vec<_> = rocks.paths(ROWS).unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(of_rows.is_empty(), harmed == Harmed::Windows);
    if joins {
        cluster.set_map(map(100, &[1, 2], &[3], 3, 2));
        let store = &queriers[2].replicas.store;
        let started = Instant::now();
        while (0..SHARDS).any(|shard| store.stored_epoch(ShardId(shard)).0 < 100) {
            assert!(started.elapsed() < DEADLINE, "a follower does not hear that it is left out");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    kill(&cluster, queriers.remove(2), 3).await;
    let rocks = dir.path().join("node-3/store/rocks");
    let files = std::fs::read_dir(rocks).unwrap().map(|entry| entry.unwrap().path());
    let mut sorted: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
    sorted.retain(|path| harmed != Harmed::Rows || of_rows.contains(path));
    assert!(!sorted.is_empty());
    sorted.iter().for_each(harm);
    queriers.push(start_with(&cluster, dir.path(), 3, small.clone()).await);
    assert_eq!(queriers[2].replicas.store.stats().damaged_shards, u64::from(SHARDS));
    must_be_copied_again(&cluster, &queriers[2], 50).await;
    // What it has by now is whole, and stays so.
    kill(&cluster, queriers.remove(2), 3).await;
    queriers.push(start_with(&cluster, dir.path(), 3, small).await);
    assert_eq!(queriers[2].replicas.store.stats().damage_found, 0);
    must_be_copied_again(&cluster, &queriers[2], 51).await;
    for querier in queriers {
        querier.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_copied_again_from_another_replica() {
    for (is_trimmed, joins) in [(false, false), (true, false), (true, true)] {
        a_harmed_copy_is_copied_again(is_trimmed, joins, Harmed::Windows, remove).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_rows_are_gone_is_copied_again() {
    for is_trimmed in [false, true] {
        a_harmed_copy_is_copied_again(is_trimmed, false, Harmed::All, remove).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_rows_are_flipped_is_copied_again() {
    for harm in [flip, flip_first] {
        a_harmed_copy_is_copied_again(true, false, Harmed::Rows, harm).await;
    }
}
