//! Why a data node cannot start or go on. What single calls answer is `tricord_wire::Error`.

use tricord_wire::ErrorKind;

use crate::storage;

/// A data node's failure as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// The store cannot be opened or has failed.
    #[error("{0}")]
    Storage(tricord_wire::Error),
    /// Metadata refused the node, or does not answer.
    #[error("cannot join the cluster: {0}")]
    Cluster(tricord_wire::Error),
    /// The operating system failed.
    #[error("{0}")]
    Io(String),
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Invalid,
            Self::Storage(error) | Self::Cluster(error) => error.kind,
            Self::Io(_) => ErrorKind::Internal,
        }
    }

    /// Whether starting again later may succeed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Cluster(error) | Self::Storage(error) => error.retryable(),
            Self::Config(_) | Self::Io(_) => false,
        }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Self::Storage(error.into())
    }
}
