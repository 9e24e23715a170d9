//! What can go wrong in storage, and what it means to a caller.

use tricord_model::codec::CodecError;
use tricord_model::{Seq, ShardId};
use tricord_wire::ErrorKind;

/// Why storage refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// Memory is at its bound; the writes already taken must be written out first.
    #[error(
        "{used} bytes of data not yet written out reach the limit of {limit}: retry later or raise the memory limit"
    )]
    Overloaded {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A query would read more than it may.
    #[error(
        "the query reads more than {limit} {what}: narrow its selectors or its time range, or raise the proxy's max_{what}"
    )]
    Limit {
        /// samples, series, …
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// A shard has as many deletes as it may, by number or size, that are not carried out on disk.
    #[error(
        "shard {shard} has {deletes} deletes that are not carried out on disk: POST /api/v1/admin/tsdb/clean_tombstones first"
    )]
    TooManyDeletes {
        /// The shard.
        shard: ShardId,
        /// How many there are.
        deletes: usize,
    },
    /// The shard is not on this node.
    #[error("shard {0} is not stored on this node")]
    UnknownShard(ShardId),
    /// A batch names a series by its fingerprint alone that is not known here.
    #[error("shard {0} does not know a series by its fingerprint: send its labels")]
    UnknownSeries(ShardId),
    /// An entry does not follow the one before it.
    #[error("entry {seq} of shard {shard} does not follow entry {last}")]
    Gap {
        /// The shard.
        shard: ShardId,
        /// The entry that was given.
        seq: Seq,
        /// The last one there is.
        last: Seq,
    },
    /// Stored bytes are not what was written.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// Stored bytes of a known place are not what was written, or are gone.
    #[error("shard {shard} is damaged from {from} to {until}: {why}")]
    Damaged {
        /// The shard.
        shard: ShardId,
        /// Where the damage begins, for people.
        from: String,
        /// Where it ends.
        until: String,
        /// What is wrong.
        why: String,
    },
    /// What is read was removed meanwhile: it is past retention, or the copy of the shard is another one now.
    #[error("what shard {shard} had from {from} to {until} was removed while it was read: try again")]
    Removed {
        /// The shard.
        shard: ShardId,
        /// Where it begins, for people.
        from: String,
        /// Where it ends.
        until: String,
    },
    /// The directory belongs to a newer build.
    #[error(
        "the data directory has format {found}, this build knows formats up to {known}: use a newer build"
    )]
    NewerFormat {
        /// The directory's format.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// A caller's mistake.
    #[error("{0}")]
    Invalid(String),
    /// The query's caller is gone or its time is over.
    #[error("the query was cancelled")]
    Cancelled,
    /// The store is closed, or an earlier write failed: what is on disk is no longer known, so nothing more is taken.
    #[error("storage takes no more writes: {0}")]
    Closed(String),
    /// The operating system failed.
    #[error("{0}")]
    Io(String),
    /// RocksDB failed.
    #[error(transparent)]
    Rocks(#[from] tricord_rocks::Error),
}

impl Error {
    /// What kind of failure it is, for the wire.
    #[must_use]
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::Limit { .. } | Self::TooManyDeletes { .. } => ErrorKind::Limit,
            Self::UnknownShard(_) => ErrorKind::NotServing,
            Self::UnknownSeries(_) => ErrorKind::UnknownSeries,
            Self::Gap { .. } => ErrorKind::Conflict,
            Self::Corrupt(_) | Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Closed(_) | Self::Removed { .. } => ErrorKind::Unavailable,
            Self::NewerFormat { .. } | Self::Io(_) => ErrorKind::Internal,
            Self::Rocks(error) if error.is_corruption() => ErrorKind::Corrupt,
            Self::Rocks(error) if error.is_disk_full() => ErrorKind::Unavailable,
            Self::Rocks(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Io(format!(
                "the disk is full: cannot {what} {}: free space and restart",
                path.display()
            ));
        }
        Self::Io(format!("cannot {what} {}: {error}", path.display()))
    }

    /// Whether stored data is damaged.
    #[must_use]
    pub(crate) fn is_damage(&self) -> bool {
        self.kind() == ErrorKind::Corrupt
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<Error> for tricord_wire::Error {
    fn from(error: Error) -> Self {
        let mut out = Self::new(error.kind(), error.to_string());
        if matches!(error, Error::Overloaded { .. }) {
            out.retry_after = Some(std::time::Duration::from_secs(1));
        }
        out
    }
}
