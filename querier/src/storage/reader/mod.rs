//! Reading head and files as one.
//!
//! Of each shard, what is in memory is copied first, together with the list of what is on disk at that moment; then the
//! disk is read. A window that is written out in between is thus seen exactly once.

mod counts;
mod deletes;
mod ordered;
mod samples;
mod series;
mod spans;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLockReadGuard;
use tricord_model::{ShardId, Tenant};

use super::Error;
use super::disk::Disk;
use super::flush::MAX_WINDOWS;
use super::head::{Mark, Shard};
use super::store::{Cell, Inner};

/// Up to so many series of a generation are looked at themselves, with all their labels, by lists of series, names and
/// values.
const FEW: u64 = 256;

/// A view over some shards of one tenant.
pub(crate) struct Reader {
    inner: Arc<Inner>,
    cells: Vec<Arc<Cell>>,
    tenant: Tenant,
    horizon_ms: i64,
    cancel: Arc<AtomicBool>,
    bytes: AtomicU64,
    /// While it is held, no generation is removed that it may have found.
    _guard: Arc<()>,
}

/// A range of time in milliseconds, both ends included.
#[derive(Clone, Copy, Debug)]
struct Range {
    from_ms: i64,
    until_ms: i64,
}

impl Range {
    /// How many of ascending times lie in the range; none of them may be behind it.
    fn count(self, times: &[i64]) -> usize {
        times.len() - times.partition_point(|t_ms| *t_ms < self.from_ms)
    }
}

impl Reader {
    pub(crate) fn new(inner: Arc<Inner>, cells: Vec<Arc<Cell>>, tenant: Tenant, horizon_ms: i64) -> Self {
        let _guard = inner.retired.guard();
        Self { inner, cells, tenant, horizon_ms, cancel: Arc::default(), bytes: AtomicU64::new(0), _guard }
    }

    /// Stops with [`Error::Cancelled`] once the flag is set.
    #[must_use]
    pub(crate) fn with_cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = cancel;
        self
    }

    /// Stored bytes read and inflated so far.
    #[must_use]
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn check_cancel(&self) -> Result<(), Error> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Takes a shard's lock for reading; a damaged shard is an error, never less data.
    fn read<'c>(&self, cell: &'c Cell) -> Result<RwLockReadGuard<'c, Shard>, Error> {
        let shard = cell.state.read();
        shard.check()?;
        Ok(shard)
    }

    /// The part of a range that is not past retention; `None` when nothing is left.
    fn range(&self, from_ms: i64, until_ms: i64) -> Option<Range> {
        let from_ms = from_ms.max(self.horizon_ms);
        (from_ms <= until_ms).then_some(Range { from_ms, until_ms })
    }

    /// The windows that overlap a range, out of a map by start.
    fn windows<'a, T>(
        &self,
        map: &'a BTreeMap<i64, T>,
        range: Range,
    ) -> impl Iterator<Item = (i64, &'a T)> + use<'a, T> {
        let first = range.from_ms.saturating_sub(self.inner.config.window_ms - 1);
        map.range(first..=range.until_ms).map(|(window_ms, of)| (*window_ms, of))
    }

    /// The generations of a shard that overlap a range and have something of a kind, oldest window first.
    /// What is lost in the range is an error, never less data.
    fn generations(
        &self,
        shard: &Shard,
        range: Range,
        has: impl Fn(&Mark) -> bool,
    ) -> Result<Vec<(i64, Mark)>, Error> {
        self.inner.damages.check(shard.id, range.from_ms, range.until_ms)?;
        let first = range.from_ms.saturating_sub(self.longest_ms());
        let overlaps =
            |window_ms: i64, mark: &Mark| window_ms.saturating_add(self.span_ms(mark)) > range.from_ms;
        let mut generations = Vec::new();
        for (window_ms, marks) in shard.marks.range(first..=range.until_ms) {
            let found = marks.iter().filter(|mark| has(mark) && overlaps(*window_ms, mark));
            generations.extend(found.map(|mark| (*window_ms, *mark)));
        }
        Ok(generations)
    }

    /// No generation is for more time, in milliseconds.
    fn longest_ms(&self) -> i64 {
        self.inner.config.window_ms.saturating_mul(MAX_WINDOWS as i64)
    }

    /// How much time a generation is for, in milliseconds.
    fn span_ms(&self, mark: &Mark) -> i64 {
        self.inner.config.window_ms.saturating_mul(i64::from(mark.windows))
    }

    fn disk(&self, of: (i64, Mark), shard: ShardId) -> Disk<'_> {
        Disk::new(self.inner.on_disk(), &self.inner.cache, of, shard, &self.tenant, &self.bytes)
    }
}
