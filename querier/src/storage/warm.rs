//! After a start: the newest indexes are read while nobody asks yet, as every query begins with them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::keys::{self, Generation};
use super::marks::generations_of;
use super::store::Cell;
use super::{Error, Store};

/// Indexes of so many bytes are read at most, as they are in memory.
const WARM_BYTES: usize = 64 << 20;
/// Nor more than this part of the cache they are read into.
const WARM_PART: usize = 4;
/// How many pairs are read before it is asked whether to go on.
const PAIRS: usize = 1024;

impl Store {
    /// Reads indexes into RocksDB's cache, the newest windows first, until there are enough or `go_on` says no. Answers
    /// how many bytes were read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a block is damaged, or the disk's error. Queries then find the same.
    pub(crate) fn warm(&self, go_on: &dyn Fn() -> bool) -> Result<usize, Error> {
        let most = WARM_BYTES.min(self.inner.config.block_cache_bytes / WARM_PART);
        let mut read = 0;
        for of in self.generations() {
            let (from, to) = (keys::generation(of), keys::after(&keys::generation(of)));
            let mut pairs = 0;
            self.inner.rocks.scan::<Error>(keys::INDEX, &from, &to, &mut |key, value| {
                read += key.len() + value.len();
                pairs += 1;
                Ok(read < most && (pairs % PAIRS != 0 || go_on()))
            })?;
            if read >= most || !go_on() {
                break;
            }
        }
        Ok(read)
    }

    /// All generations that count, the newest windows first.
    fn generations(&self) -> Vec<Generation> {
        let of = |cell: &Arc<Cell>| generations_of(&cell.state.read().marks).collect::<Vec<_>>();
        let all: BTreeSet<Generation> = self.inner.cells().iter().flat_map(of).collect();
        let mut all: Vec<Generation> = all.into_iter().collect();
        all.sort_by_key(|of| Reverse(of.window_ms));
        all
    }
}
