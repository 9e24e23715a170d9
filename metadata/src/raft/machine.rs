//! The state machine: commands applied in memory, snapshots of it on disk. After a restart it is the last snapshot plus
//! the log entries behind it, which Raft applies again.

use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tricord_wire::{Error, ErrorKind};

use super::TypeConfig;
use super::disk::{Disk, Key};
use crate::state::{Reply, SCHEMA, State};

/// The state and how far the log has been applied to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    state: State,
}

/// A snapshot as it lies on disk: one value, so that it is there whole or not at all.
#[derive(Clone, Serialize, Deserialize)]
struct Saved {
    meta: SnapshotMeta<u64, BasicNode>,
    applied: Applied,
}

/// The state machine.
pub(crate) struct Machine {
    applied: Applied,
    snapshots: Snapshots,
    states: Arc<watch::Sender<Arc<State>>>,
}

/// The one snapshot on disk, written by builders and by installs.
#[derive(Clone)]
struct Snapshots {
    disk: Arc<Disk>,
    writing: Arc<Mutex<()>>,
}

/// Builds a snapshot of what was applied when it was made.
pub(crate) struct Builder {
    applied: Applied,
    snapshots: Snapshots,
}

impl Machine {
    /// Starts from the snapshot on disk, or empty.
    pub(crate) fn open(disk: Arc<Disk>, states: Arc<watch::Sender<Arc<State>>>) -> Result<Self, Error> {
        let saved: Option<Saved> = disk.get(Key::Snapshot)?;
        let applied = saved.map(|saved| saved.applied).unwrap_or_default();
        check_schema(&applied.state)?;
        let machine = Self { applied, snapshots: Snapshots { disk, writing: Arc::default() }, states };
        machine.publish();
        Ok(machine)
    }

    fn publish(&self) {
        let state = &self.applied.state;
        self.states.send_if_modified(|published| {
            let changed = **published != *state;
            if changed {
                *published = Arc::new(state.clone());
            }
            changed
        });
    }
}

fn check_schema(state: &State) -> Result<(), Error> {
    if state.schema <= SCHEMA {
        return Ok(());
    }
    let text = format!(
        "the metadata has format {}, this build reads up to {SCHEMA}; use a newer build",
        state.schema
    );
    Err(Error::new(ErrorKind::Invalid, text))
}

impl Snapshots {
    /// Writes a snapshot unless a newer one is there: a slow builder must not undo an install.
    async fn save(&self, saved: Saved) -> Result<(), Error> {
        let own = self.clone();
        let write = move || {
            let _one = own.writing.lock();
            let present: Option<Saved> = own.disk.get(Key::Snapshot)?;
            if present.is_some_and(|present| present.meta.last_log_id > saved.meta.last_log_id) {
                return Ok(());
            }
            own.disk.put(Key::Snapshot, &saved, true)
        };
        tokio::task::spawn_blocking(write).await.map_err(Error::internal)?
    }

    fn load(&self) -> Result<Option<Snapshot<TypeConfig>>, Error> {
        let saved: Option<Saved> = self.disk.get(Key::Snapshot)?;
        saved.map(|saved| snapshot(saved.meta, &saved.applied)).transpose()
    }
}

fn snapshot(meta: SnapshotMeta<u64, BasicNode>, applied: &Applied) -> Result<Snapshot<TypeConfig>, Error> {
    let bytes = serde_json::to_vec(applied).map_err(Error::internal)?;
    Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
}

fn broken(error: Error) -> StorageError<u64> {
    StorageIOError::write_snapshot(None, openraft::AnyError::new(&error)).into()
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<u64>> {
        let place = self.applied.last.map_or_else(|| "empty".to_owned(), |last| last.to_string());
        let meta = SnapshotMeta {
            last_log_id: self.applied.last,
            last_membership: self.applied.membership.clone(),
            snapshot_id: format!("{place}-{}", uuid::Uuid::new_v4()),
        };
        let saved = Saved { meta: meta.clone(), applied: self.applied.clone() };
        self.snapshots.save(saved).await.map_err(broken)?;
        snapshot(meta, &self.applied).map_err(broken)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            self.applied.last = Some(entry.log_id);
            replies.push(match entry.payload {
                EntryPayload::Blank => Reply::Done,
                EntryPayload::Normal(command) => self.applied.state.apply(command),
                EntryPayload::Membership(membership) => {
                    self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Reply::Done
                }
            });
        }
        self.publish();
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { applied: self.applied.clone(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let parsed: Result<Applied, _> = serde_json::from_slice(snapshot.get_ref());
        let applied = parsed.map_err(|error| broken(Error::new(ErrorKind::Corrupt, error.to_string())))?;
        check_schema(&applied.state).map_err(broken)?;
        // The header decides how far the state goes; the body only repeats it.
        let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone(), ..applied };
        self.snapshots.save(Saved { meta: meta.clone(), applied: applied.clone() }).await.map_err(broken)?;
        self.applied = applied;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError<u64>> {
        self.snapshots.load().map_err(broken)
    }
}
