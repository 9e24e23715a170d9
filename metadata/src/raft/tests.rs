use std::path::Path;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite, blank_ent};
use openraft::{RaftSnapshotBuilder, StorageError, Vote};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::machine::Machine;
use super::*;
use crate::state::Birth;

fn open(dir: &Path) -> (LogStore, Machine) {
    over(Disk::open(dir).unwrap())
}

fn over(disk: Disk) -> (LogStore, Machine) {
    let disk = Arc::new(disk);
    let states = Arc::new(watch::Sender::new(Arc::default()));
    (LogStore::new(disk.clone()), Machine::open(disk, states).unwrap())
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = open(dir.path());
        Ok((dir, log, machine))
    }
}

#[test]
fn openraft_is_content_with_the_storage() {
    Suite::test_all(Builder).unwrap();
}

fn birth() -> Birth {
    Birth { cluster_id: "c".into(), shards: 4, replicas: 1, min_insync: 1, members: vec!["m:1".into()] }
}

fn command(index: u64, command: Command) -> openraft::Entry<TypeConfig> {
    let payload = openraft::EntryPayload::Normal(command);
    openraft::Entry { log_id: openraft::testing::log_id(1, 1, index), payload }
}

#[tokio::test]
async fn vote_log_and_purge_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Vote::new(7, 2);
    {
        let (mut log, _) = open(dir.path());
        log.save_vote(&vote).await.unwrap();
        log.blocking_append((1..=10).map(|index| blank_ent(1, 1, index))).await.unwrap();
        log.purge(openraft::testing::log_id(1, 1, 4)).await.unwrap();
        log.truncate(openraft::testing::log_id(1, 1, 9)).await.unwrap();
        log.save_committed(Some(openraft::testing::log_id(1, 1, 8))).await.unwrap();
    }
    let (mut log, _) = open(dir.path());
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id.unwrap().index, 4);
    assert_eq!(state.last_log_id.unwrap().index, 8);
    let entries = openraft::RaftLogReader::try_get_log_entries(&mut log, ..).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [5, 6, 7, 8]);
    assert_eq!(log.read_committed().await.unwrap().unwrap().index, 8);
}

#[tokio::test]
async fn a_snapshot_survives_a_restart_and_an_older_one_never_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (_, mut machine) = open(dir.path());
        machine.apply([command(1, Command::Born(birth()))]).await.unwrap();
        let mut early = machine.get_snapshot_builder().await;
        machine.apply([command(2, Command::AllocateMember)]).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        early.build_snapshot().await.unwrap();
        // Applied but in no snapshot: it comes from the log again.
        machine.apply([command(3, Command::AllocateMember)]).await.unwrap();
    }
    let (_, mut machine) = open(dir.path());
    assert_eq!(machine.applied_state().await.unwrap().0.unwrap().index, 2);
    let reply = machine.apply([command(3, Command::AllocateMember)]).await.unwrap();
    assert_eq!(reply, [Reply::Member(3)]);
}

/// What a power cut now would leave of a database that is open.
fn left_of(dir: &Path) -> (TempDir, LogStore, Machine) {
    let left = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        if file.file_name() != "LOCK" {
            std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
        }
    }
    let (log, machine) = open(left.path());
    (left, log, machine)
}

#[tokio::test]
async fn a_power_cut_takes_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, mut machine) = over(Disk::open_before_a_power_cut(dir.path()).unwrap());
    // What need not be synced shows that the rest would be lost too.
    log.save_committed(Some(openraft::testing::log_id(1, 1, 1))).await.unwrap();
    let (_left, mut after, _) = left_of(dir.path());
    assert_eq!(after.read_committed().await.unwrap(), None);

    let vote = Vote::new(7, 2);
    log.save_vote(&vote).await.unwrap();
    let (_left, mut after, _) = left_of(dir.path());
    assert_eq!(after.read_vote().await.unwrap(), Some(vote), "no second vote in a term");
    let last = async |dir: &Path| {
        let (_left, mut after, _) = left_of(dir);
        let state = after.get_log_state().await.unwrap();
        (state.last_purged_log_id.map(|id| id.index), state.last_log_id.map(|id| id.index))
    };
    log.blocking_append((1..=10).map(|index| blank_ent(1, 1, index))).await.unwrap();
    assert_eq!(last(dir.path()).await, (None, Some(10)));
    log.truncate(openraft::testing::log_id(1, 1, 9)).await.unwrap();
    assert_eq!(last(dir.path()).await, (None, Some(8)));
    log.purge(openraft::testing::log_id(1, 1, 4)).await.unwrap();
    assert_eq!(last(dir.path()).await, (Some(4), Some(8)));
    machine.apply([command(9, Command::Born(birth()))]).await.unwrap();
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let (_left, _, mut after) = left_of(dir.path());
    assert_eq!(after.applied_state().await.unwrap().0.unwrap().index, 9);
}

#[tokio::test]
async fn a_damaged_entry_is_an_error_and_not_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(dir.path()).unwrap());
    disk.append(&[(1, b"{\"log_id\":".to_vec())]).unwrap();
    let mut log = LogStore::new(disk);
    assert!(openraft::RaftLogReader::try_get_log_entries(&mut log, 0..9).await.is_err());
    assert!(log.get_log_state().await.is_err());
}

#[test]
fn a_store_in_use_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Disk::open(dir.path()).unwrap();
    let error = Disk::open(dir.path()).err().unwrap();
    assert!(error.message.contains("locked by another process"), "{}", error.message);
}
