//! Raft's log and vote on disk. Nothing is reported done before it is synced, and writes keep their order because each
//! is awaited before the next one starts.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use tricord_wire::Error;

use super::TypeConfig;
use super::disk::{Disk, Key};

/// The most that one read of the log for a lagging member returns, in bytes.
const MAX_READ_BYTES: usize = 1 << 20;

/// The log; clones read the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Arc<Disk>,
}

impl LogStore {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// Runs a synced write away from the tasks that must keep answering.
    async fn write(
        &self,
        work: impl FnOnce(&Disk) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || work(&disk)).await.map_err(Error::internal)?
    }
}

fn reading(error: Error) -> StorageError<u64> {
    StorageIOError::read_logs(openraft::AnyError::new(&error)).into()
}

fn writing(error: Error) -> StorageError<u64> {
    StorageIOError::write_logs(openraft::AnyError::new(&error)).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError<u64>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.disk.entries(from, to, usize::MAX).map_err(reading)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError<u64>> {
        self.disk.entries(start, end, MAX_READ_BYTES).map_err(reading)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<u64>> {
        let last_purged_log_id: Option<LogId<u64>> = self.disk.get(Key::Purged).map_err(reading)?;
        let last: Option<Entry<TypeConfig>> = self.disk.last_entry().map_err(reading)?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let vote = *vote;
        let written = self.write(move |disk| disk.put(Key::Vote, &vote, true)).await;
        written.map_err(|error| StorageIOError::write_vote(openraft::AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        let vote = self.disk.get(Key::Vote);
        vote.map_err(|error| StorageIOError::read_vote(openraft::AnyError::new(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), StorageError<u64>> {
        // Only a hint for a quicker start: what is lost with it is found again from the leader, so it is not synced.
        self.disk.put(Key::Committed, &committed, false).map_err(writing)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        Ok(self.disk.get::<Option<LogId<u64>>>(Key::Committed).map_err(reading)?.flatten())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        for entry in entries {
            let bytes = serde_json::to_vec(&entry).map_err(|error| writing(Error::internal(error)))?;
            encoded.push((entry.log_id.index, bytes));
        }
        match self.write(move |disk| disk.append(&encoded)).await {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.clone())));
                Err(writing(error))
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.write(move |disk| disk.truncate(log_id.index)).await.map_err(writing)
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.write(move |disk| disk.purge(log_id.index, &log_id)).await.map_err(writing)
    }
}
