//! What RocksDB reports, told so that a person knows what to do.

use std::path::Path;

/// Why RocksDB refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The directory is in use.
    #[error("{path} is locked by another process: stop it, or use another data directory")]
    Locked {
        /// The directory.
        path: String,
    },
    /// No space is left.
    #[error("the disk of {path} is full: free space, then restart")]
    DiskFull {
        /// The directory.
        path: String,
    },
    /// Stored bytes fail their checksum or cannot be read back.
    #[error("{path} is damaged: {message}")]
    Corruption {
        /// The directory.
        path: String,
        /// What was found, and in which file.
        message: String,
    },
    /// A caller's mistake.
    #[error("{0}")]
    Invalid(String),
    /// Anything else.
    #[error("{path}: {message}")]
    Other {
        /// The directory.
        path: String,
        /// RocksDB's text.
        message: String,
    },
}

impl Error {
    pub(crate) fn at(path: &Path, error: &rocksdb::Error) -> Self {
        let (path, message) = (path.display().to_string(), error.to_string());
        if message.contains("lock hold by current process") || message.contains("While lock file") {
            return Self::Locked { path };
        }
        if message.contains("No space left on device") {
            return Self::DiskFull { path };
        }
        // A file that the database names is not there.
        let is_missing = message.contains("No such file or directory");
        match error.kind() {
            _ if is_missing => Self::Corruption { path, message },
            rocksdb::ErrorKind::Corruption => Self::Corruption { path, message },
            _ => Self::Other { path, message },
        }
    }

    /// Whether stored data is damaged.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corruption { .. })
    }

    /// Whether space is missing.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}
