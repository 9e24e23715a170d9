//! What the engine asks of a store.

use tricord_model::{Labels, Matcher, Points};

pub use crate::histogram::{set_reset_hints, stored_reset_hint};

/// A request for raw samples.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// All must match.
    pub matchers: &'a [Matcher],
    /// Samples later than this, in milliseconds (exclusive, as ranges are left-open).
    pub after_ms: i64,
    /// Samples up to this, in milliseconds (inclusive).
    pub until_ms: i64,
    /// At most this many samples may be returned in all; one more is an error of kind `Limit`.
    pub max_samples: u64,
    /// Whether any order of the series will do.
    pub any_order: bool,
}

/// Why a store could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The query reads more than it may.
    #[error("{0}")]
    Limit(String),
    /// The query was cancelled or ran out of time.
    #[error("query was cancelled")]
    Cancelled,
    /// The store failed.
    #[error("{0}")]
    Failed(String),
}

/// Where the engine reads samples: a data node's head and RocksDB, or a test's memory.
///
/// Stale markers are returned like any sample: the engine needs them. Histograms carry the hints of
/// [`set_reset_hints`], which tell where a counter is known not to have been reset.
pub trait Storage {
    /// The series that match, sorted by labels unless any order will do, each label set once, with their samples in the
    /// range, ascending by time. Series without a sample in the range may be left out.
    ///
    /// # Errors
    /// [`StorageError`] when a limit is passed, the query is cancelled, or the store fails.
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError>;
}
