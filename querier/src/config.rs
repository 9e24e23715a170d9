//! The data node's settings. Reading them from files, flags and the environment is the root package's business.

use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use tricord_model::{Retention, RetentionTexts};
use tricord_replication::Timing;

use crate::Error;
use crate::storage::{FsyncMode, StoreConfig};

/// How a data node works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where shards and the node's identity lie; made where missing.
    pub data_dir: PathBuf,
    /// How long samples and spans are kept: a number and one of s, m, h, d, w, y, as in `30d`. `0` keeps everything.
    pub retention: String,
    /// The other classes, and which tenant is in which.
    #[serde(skip)]
    pub retention_texts: RetentionTexts,
    /// When log entries reach the disk: `always` (before they are acknowledged) or `interval` (every
    /// `fsync_interval_ms`; a crash of the machine may lose that much).
    pub fsync: Fsync,
    /// The interval of `fsync: interval`, in milliseconds.
    pub fsync_interval_ms: u64,
    /// The bound for data not yet written out, in bytes. 0 takes a quarter of the machine's memory.
    pub memory_limit_bytes: u64,
    /// RocksDB's block cache, in bytes. 0 takes a sixteenth of the machine's memory.
    pub block_cache_bytes: u64,
    /// What queries keep of the disk beside it, inflated and looked up, in bytes. 0 takes a 64th of the machine's memory,
    /// 256 MiB at most.
    pub read_cache_bytes: u64,
    /// The size from which a new log segment is begun, in bytes.
    pub log_segment_bytes: u64,
    /// The most log segments that are kept for replicas that lag, once everything in them is written out here. A replica
    /// that lacks more catches up by a snapshot; while none lags, none are kept.
    pub log_keep_segments: usize,
    /// Bytes that merging windows which are over into longer ones may write per second. 0 is without bound.
    pub merge_bytes_per_s: u64,
    /// This node's failure domain: copies of a shard are spread over zones. May be empty.
    pub zone: String,
    /// How long a primary may serve after its followers last answered, in milliseconds.
    pub lease_ms: u64,
    /// How long a new primary waits for older leases to end, in milliseconds; longer than `lease_ms` by what clocks may
    /// drift apart meanwhile.
    pub grace_ms: u64,
    /// After how long without an answer a follower is taken out of the in-sync set, in milliseconds.
    pub follower_timeout_ms: u64,
    /// Bytes of snapshots that are sent per second to replicas that join, for all of them together. 0 is without bound.
    pub snapshot_bytes_per_s: u64,
    /// How long a write may take when its caller names no limit, in milliseconds.
    pub write_timeout_ms: u64,
    /// Writes being worked on at once; more are told to come back.
    pub max_concurrent_writes: usize,
    /// Query fragments run at once.
    pub max_concurrent_queries: usize,
    /// Query fragments that may wait; more are told to come back.
    pub max_queued_queries: usize,
}

/// When log entries reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Before they are acknowledged.
    Always,
    /// Every so often.
    Interval,
}

impl Default for Config {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            data_dir: PathBuf::from("./tricord-data"),
            retention: "30d".to_owned(),
            retention_texts: RetentionTexts::default(),
            fsync: Fsync::Always,
            fsync_interval_ms: 1_000,
            memory_limit_bytes: 0,
            block_cache_bytes: 0,
            read_cache_bytes: 0,
            log_segment_bytes: 64 << 20,
            log_keep_segments: 8,
            merge_bytes_per_s: 8 << 20,
            zone: String::new(),
            lease_ms: timing.lease_ms,
            grace_ms: timing.grace_ms,
            follower_timeout_ms: timing.follower_timeout_ms,
            snapshot_bytes_per_s: 64 << 20,
            write_timeout_ms: 10_000,
            max_concurrent_writes: 256,
            max_concurrent_queries: std::thread::available_parallelism().map_or(4, |n| n.get() * 2),
            max_queued_queries: 256,
        }
    }
}

impl Config {
    /// How long the data of every tenant is kept.
    ///
    /// # Errors
    /// [`Error::Config`] with the setting that makes no sense.
    pub fn retention(&self) -> Result<Retention, Error> {
        Retention::read(&self.retention, &self.retention_texts).map_err(Error::Config)
    }

    /// The bound for data not yet written out, in bytes.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        match self.memory_limit_bytes {
            0 => (tricord_runtime::machine_memory_bytes() / 4).max(64 << 20),
            bytes => bytes,
        }
    }

    /// Whether a data node could start with these.
    ///
    /// # Errors
    /// [`Error::Config`] with the setting that makes no sense.
    pub fn check(&self) -> Result<(), Error> {
        self.retention()?;
        self.timing()?;
        if self.max_concurrent_writes == 0 || self.max_concurrent_queries == 0 {
            let text = "max_concurrent_writes and max_concurrent_queries must be at least 1: with 0 nothing would run";
            return Err(Error::Config(text.to_owned()));
        }
        Ok(())
    }

    pub(crate) fn store(&self) -> Result<StoreConfig, Error> {
        let block_cache_bytes = match self.block_cache_bytes {
            0 => (tricord_runtime::machine_memory_bytes() / 16).clamp(16 << 20, 4 << 30),
            bytes => bytes,
        };
        let read_cache_bytes = match self.read_cache_bytes {
            0 => (tricord_runtime::machine_memory_bytes() / 64).clamp(8 << 20, 256 << 20),
            bytes => bytes,
        };
        Ok(StoreConfig {
            retention: self.retention()?,
            fsync: match self.fsync {
                Fsync::Always => FsyncMode::Always,
                Fsync::Interval => FsyncMode::Interval(self.fsync_interval_ms.max(1)),
            },
            memory_limit_bytes: self.memory_limit(),
            block_cache_bytes: usize::try_from(block_cache_bytes).unwrap_or(usize::MAX),
            read_cache_bytes: usize::try_from(read_cache_bytes).unwrap_or(usize::MAX),
            segment_bytes: self.log_segment_bytes.max(1024),
            keep_segments: self.log_keep_segments,
            ..StoreConfig::new(self.data_dir.join("store"))
        })
    }

    pub(crate) fn timing(&self) -> Result<Timing, Error> {
        if self.grace_ms <= self.lease_ms || self.lease_ms < 100 {
            let text = format!(
                "grace_ms ({}) must be longer than lease_ms ({}), which must be at least 100",
                self.grace_ms, self.lease_ms
            );
            return Err(Error::Config(text));
        }
        Ok(Timing {
            lease_ms: self.lease_ms,
            grace_ms: self.grace_ms,
            beacon_every_ms: (self.lease_ms / 8).max(10),
            follower_timeout_ms: self.follower_timeout_ms,
            ..Timing::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_shorter_than_the_lease_is_refused() {
        let config = Config { lease_ms: 3_000, ..Config::default() };
        assert!(config.timing().is_err());
    }
}
