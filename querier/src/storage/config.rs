//! How a store is set up, and the small types that its calls give and take.

use std::path::PathBuf;

use bytes::Bytes;
use tricord_model::{Epoch, Retention, Seq, ShardId};

/// When log entries reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FsyncMode {
    /// Before they are called durable; writes that arrive meanwhile share the next sync.
    Always,
    /// Every so many milliseconds: a crash of the machine may lose what was written since.
    Interval(u64),
}

/// How a store works.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    /// Where everything lies; made where missing.
    pub(crate) dir: PathBuf,
    /// How long samples and spans of each tenant are kept.
    pub(crate) retention: Retention,
    /// When log entries reach the disk.
    pub(crate) fsync: FsyncMode,
    /// The bound for data not yet written out, in bytes; writes past it are refused.
    pub(crate) memory_limit_bytes: u64,
    /// The length of a window, in milliseconds. Fixed once data is written.
    pub(crate) window_ms: i64,
    /// Over how many windows those that are over are merged, each an aligned number of them; empty to merge nothing.
    pub(crate) merge_windows: Vec<u16>,
    /// How far ahead of the clock a sample may lie, in milliseconds.
    pub(crate) future_ms: i64,
    /// The size from which a new log segment is begun, in bytes.
    pub(crate) segment_bytes: u64,
    /// The most log segments that are kept for replicas that lag, once everything in them is written out here.
    pub(crate) keep_segments: usize,
    /// RocksDB's block cache, in bytes.
    pub(crate) block_cache_bytes: usize,
    /// What reading keeps beside it, in bytes.
    pub(crate) read_cache_bytes: usize,
}

impl StoreConfig {
    /// The defaults for a directory.
    #[must_use]
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            retention: Retention::keeping(Some(30 * 86_400_000)),
            fsync: FsyncMode::Always,
            memory_limit_bytes: 2 << 30,
            window_ms: 30 * 60_000,
            // Six hours, as most panels show no more, and a day, which keeps a month at 30 reads.
            merge_windows: vec![12, 48],
            future_ms: 10 * 60_000,
            segment_bytes: 64 << 20,
            keep_segments: 8,
            block_cache_bytes: 256 << 20,
            read_cache_bytes: 64 << 20,
        }
    }
}

/// One log entry of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The shard.
    pub(crate) shard: ShardId,
    /// Its place in the shard's log.
    pub(crate) seq: Seq,
    /// The epoch of the primary that ordered it.
    pub(crate) epoch: Epoch,
    /// What the primary judged.
    pub(crate) payload: Bytes,
}

/// A place in a shard's log; zeros before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The entry.
    pub(crate) seq: Seq,
    /// The epoch it was written under.
    pub(crate) epoch: Epoch,
}

/// What a primary made of a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judged {
    /// The entry to append. A judged batch must be appended, unless it is empty.
    pub(crate) payload: Bytes,
    /// Whether nothing was accepted, so that nothing needs to be appended.
    pub(crate) is_empty: bool,
    /// What was accepted and refused.
    pub(crate) counts: Counts,
}

/// What of a batch was accepted and refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Float samples accepted.
    pub(crate) samples: u64,
    /// Native histograms accepted.
    pub(crate) histograms: u64,
    /// Exemplars accepted.
    pub(crate) exemplars: u64,
    /// Spans accepted.
    pub(crate) spans: u64,
    /// Delta points that were there already; accepted, and without effect.
    pub(crate) duplicates: u64,
    /// Samples refused for good.
    pub(crate) rejected_samples: u64,
    /// Exemplars refused for good.
    pub(crate) rejected_exemplars: u64,
    /// Spans refused for good.
    pub(crate) rejected_spans: u64,
    /// The first reasons, for people.
    pub(crate) reasons: Vec<String>,
}

/// How far [`super::Store::open`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Log bytes read back so far.
    pub(crate) done_bytes: u64,
    /// Log bytes there are.
    pub(crate) total_bytes: u64,
}

/// What a flush has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlushReport {
    /// Windows written (one per node and window, however many shards).
    pub(crate) windows: u64,
    /// Bytes of the files written.
    pub(crate) bytes: u64,
    /// Samples written.
    pub(crate) samples: u64,
    /// Spans written.
    pub(crate) spans: u64,
    /// Parts that had to stay in memory, since their last entries are not committed yet.
    pub(crate) uncommitted: u64,
}

/// What merging has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MergeReport {
    /// Merged windows written.
    pub(crate) windows: u64,
    /// Bytes of their files.
    pub(crate) bytes: u64,
}

/// What cleaning has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanReport {
    /// Generations written anew.
    pub(crate) windows: u64,
    /// Bytes of their files.
    pub(crate) bytes: u64,
    /// Deletes from before that are not carried out on disk yet: the commitment of their entries is not known here.
    pub(crate) left: u64,
}

/// What a retention class has on disk, over all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClassStats {
    /// What settings call it.
    pub(crate) name: String,
    /// Generations of windows, those of each shard counted apart.
    pub(crate) generations: u64,
    /// Samples in them.
    pub(crate) samples: u64,
    /// Spans in them.
    pub(crate) spans: u64,
    /// Generations dropped since the start as they were past.
    pub(crate) dropped: u64,
}

/// Counts of what a store holds and did, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreStats {
    /// Bytes of data not yet written out.
    pub(crate) memory_bytes: u64,
    /// Series in memory.
    pub(crate) series: u64,
    /// Samples appended to the head since the start.
    pub(crate) samples: u64,
    /// Samples dropped since their series had a value for the same time, found when windows were written.
    pub(crate) duplicate_samples: u64,
    /// Spans appended to the head since the start.
    pub(crate) spans: u64,
    /// Entries appended to the log since the start.
    pub(crate) log_entries: u64,
    /// Syncs of the log since the start.
    pub(crate) log_syncs: u64,
    /// Bytes of log on disk.
    pub(crate) log_bytes: u64,
    /// Bytes of log that only replicas that lag need.
    pub(crate) log_kept_bytes: u64,
    /// Bytes of RocksDB files.
    pub(crate) disk_bytes: u64,
    /// Windows written since the start.
    pub(crate) flushed_windows: u64,
    /// Merged windows written since the start.
    pub(crate) merged_windows: u64,
    /// Bytes of their files.
    pub(crate) merged_bytes: u64,
    /// Merges that are due.
    pub(crate) merges_waiting: u64,
    /// Windows of shards of which something is damaged or lost.
    pub(crate) damaged_windows: u64,
    /// Shards with such windows, or damaged as a whole.
    pub(crate) damaged_shards: u64,
    /// How often damage was met since the start.
    pub(crate) damage_found: u64,
    /// Deletes that may hide something on disk.
    pub(crate) tombstones: u64,
    /// Samples that deletes have removed from memory, and from disk as windows were merged or cleaned.
    pub(crate) deleted_samples: u64,
}
