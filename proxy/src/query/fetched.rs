//! Raw samples that were fetched for selectors which stay at the proxy.
//!
//! Which selections an evaluation makes is known best by the engine itself: it is run over what is there, the selections
//! that it misses are noted, fetched, and it is run again.

use std::sync::Arc;

use parking_lot::Mutex;
use tricord_model::{Labels, Matcher, Points};
use tricord_promql::storage::{Selection, Storage, StorageError};

use crate::error::{HOLD_FEWER_SAMPLES, TOO_MANY_SAMPLES};

/// A selection that the evaluation made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) matchers: Vec<Matcher>,
    pub(super) after_ms: i64,
    pub(super) until_ms: i64,
}

type Series = Arc<Vec<(Labels, Points)>>;

/// What was fetched so far, and what is missing.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    known: Vec<(Wanted, Series)>,
    wanted: Mutex<Vec<Wanted>>,
}

impl Clone for Fetched {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), wanted: Mutex::default() }
    }
}

impl Fetched {
    /// The selections that were missing since the last call.
    pub(super) fn take_wanted(&self) -> Vec<Wanted> {
        std::mem::take(&mut self.wanted.lock())
    }

    /// Whether there are no samples at all.
    pub(super) fn is_empty(&self) -> bool {
        self.known.iter().all(|(_, series)| series.is_empty())
    }

    /// Adds the samples of a selection.
    pub(super) fn put(&mut self, wanted: Wanted, series: Vec<(Labels, Points)>) {
        self.known.push((wanted, Arc::new(series)));
    }
}

impl Storage for Fetched {
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError> {
        let wanted = Wanted {
            matchers: selection.matchers.to_vec(),
            after_ms: selection.after_ms,
            until_ms: selection.until_ms,
        };
        let Some((_, series)) = self.known.iter().find(|(known, _)| *known == wanted) else {
            let mut missing = self.wanted.lock();
            if !missing.contains(&wanted) {
                missing.push(wanted);
            }
            return Ok(vec![]);
        };
        let samples: usize = series.iter().map(|(_, points)| points.len()).sum();
        if samples as u64 > selection.max_samples {
            let text = format!("{TOO_MANY_SAMPLES}: {HOLD_FEWER_SAMPLES}");
            return Err(StorageError::Limit(text));
        }
        Ok(series.to_vec())
    }
}
