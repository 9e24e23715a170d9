//! What must happen from time to time: sealing, writing out, retention, trimming the log, forgetting idle series.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use tricord_model::{Seq, ShardId};

use super::head::Mark;
use super::head::idle::Idle;
use super::store::Inner;
use super::{Error, FlushReport, Store, keys};

/// A part stays open at least so long, so that late data comes together in few files.
const MIN_OPEN_MS: i64 = 5 * 60_000;
/// From this share of the memory limit on, the oldest windows are written early …
const HIGH_PERCENT: u64 = 60;
/// … until this share is left.
const LOW_PERCENT: u64 = 40;
/// How often idle series are looked for in a shard.
const LOOK_FOR_IDLE_MS: i64 = 10_000;
/// How long nobody has written to a series that counts as idle where memory is short: longer than between most scrapes.
const SHORT_IDLE_MS: i64 = 2 * 60_000;
/// Who has sent nothing for so long is not about to catch up with old data.
const QUIET_MS: i64 = 15_000;

impl Store {
    /// Seals windows that are over, or that must go to make room; writes them out; drops what is past retention; trims
    /// the log; finds idle series. To be called every few seconds.
    ///
    /// # Errors
    /// [`Error`] when the disk is full or fails; the next call tries again.
    pub(crate) fn maintain(&self, now_ms: i64) -> Result<FlushReport, Error> {
        let inner = &self.inner;
        inner.apply_retention(now_ms)?;
        let chosen = inner.windows_to_seal(now_ms);
        let report = inner.write_out(&|shard, window_ms| chosen.contains(&(shard.id, window_ms)))?;
        inner.trim()?;
        inner.remove_retired()?;
        inner.retire_tombstones()?;
        inner.find_idle(now_ms);
        inner.refresh_ledger()?;
        self.mend_unneeded();
        Ok(report)
    }
}

impl Inner {
    fn windows_to_seal(&self, now_ms: i64) -> HashSet<(ShardId, i64)> {
        let mut chosen = HashSet::new();
        let mut open: BTreeMap<i64, Vec<(ShardId, usize)>> = BTreeMap::new();
        for cell in self.cells() {
            let mut shard = cell.state.write();
            for (window_ms, window) in &mut shard.windows {
                let Some(part) = &mut window.open else { continue };
                let seen_ms = *part.seen_ms.get_or_insert(now_ms);
                let is_over = window_ms.saturating_add(2 * self.config.window_ms) <= now_ms;
                if is_over && now_ms.saturating_sub(seen_ms) >= MIN_OPEN_MS {
                    chosen.insert((cell.id, *window_ms));
                } else {
                    open.entry(*window_ms).or_default().push((cell.id, part.bytes));
                }
            }
        }
        self.make_room(&open, &mut chosen);
        self.unpin(&mut chosen);
        chosen
    }

    /// Chooses the oldest windows while memory is short.
    fn make_room(&self, open: &BTreeMap<i64, Vec<(ShardId, usize)>>, chosen: &mut HashSet<(ShardId, i64)>) {
        let limit = self.config.memory_limit_bytes;
        let mut used = self.memory();
        if used < limit / 100 * HIGH_PERCENT {
            return;
        }
        for (window_ms, parts) in open {
            for (shard, bytes) in parts {
                chosen.insert((*shard, *window_ms));
                used = used.saturating_sub(*bytes as u64);
            }
            if used < limit / 100 * LOW_PERCENT {
                return;
            }
        }
    }

    /// Chooses the windows of shards that hold on to the oldest segment of a log that has grown long.
    fn unpin(&self, chosen: &mut HashSet<(ShardId, i64)>) {
        let Some(log) = self.log.get() else { return };
        let most = (self.config.memory_limit_bytes / 2).max(4 * self.config.segment_bytes);
        if log.bytes() <= most {
            return;
        }
        for shard in log.pinning(&|shard| self.done(shard)) {
            let Some(cell) = self.find(shard) else { continue };
            let state = cell.state.read();
            let first =
                state.windows.iter().min_by_key(|(_, window)| window.parts().map(|part| part.from).min());
            chosen.extend(first.map(|(window_ms, _)| (shard, *window_ms)));
        }
    }

    /// The entry up to which a shard needs nothing of the log; `None` for a shard that is not there.
    fn done(&self, shard: ShardId) -> Option<Seq> {
        self.find(shard).map(|cell| cell.state.read().base.seq)
    }

    /// Removes what neither this node nor a replica that lags needs of the log.
    pub(crate) fn trim(&self) -> Result<(), Error> {
        if self.pins.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let (log, keep) = (self.log()?, self.config.keep_segments);
        let wanted = |shard| self.find(shard).and_then(|cell| cell.held());
        let mut trimmed = log.would_trim(keep, &|shard| self.done(shard), &wanted);
        if trimmed.removed > 0 {
            // What the log says no more, the ledger must.
            self.write_ledger()?;
            trimmed = log.trim(keep, &|shard| self.ledgered(shard), &wanted)?;
        }
        self.counters.kept(trimmed.kept_bytes);
        if trimmed.removed > 0 {
            tracing::debug!(removed = trimmed.removed, "log segments are written out and removed");
        }
        Ok(())
    }

    /// Drops whole windows that are past retention, class by class.
    fn apply_retention(&self, now_ms: i64) -> Result<(), Error> {
        if self.pins.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let _no_flush = self.flushing.lock();
        for class in self.classes.numbers() {
            if let Some(keep_ms) = self.classes.keep_ms(class) {
                self.drop_before(class, now_ms.saturating_sub(keep_ms))?;
            }
        }
        Ok(())
    }

    /// Drops the windows of a class that end before a time. While nothing is flushed or installed.
    fn drop_before(&self, class: u8, kept_from_ms: i64) -> Result<(), Error> {
        let window_ms = self.config.window_ms;
        let cells = self.cells();
        // A merged window that is partly inside stays, and so does all that begins with it or later.
        let mut end_ms = kept_from_ms.saturating_sub(window_ms).saturating_add(1);
        for cell in &cells {
            for (start_ms, marks) in cell.state.read().marks.range(..end_ms) {
                let span_ms = |mark: &Mark| window_ms.saturating_mul(i64::from(mark.windows));
                let is_inside = |mark: &Mark| start_ms.saturating_add(span_ms(mark)) > kept_from_ms;
                if marks.iter().any(|mark| mark.class == class && is_inside(mark)) {
                    end_ms = *start_ms;
                    break;
                }
            }
        }
        let mut dropped = 0;
        for cell in &cells {
            let mut shard = cell.state.write();
            let old = shard.marks.range_mut(..end_ms);
            let of_shard: usize =
                old.map(|(_, marks)| marks.extract_if(.., |mark| mark.class == class).count()).sum();
            if of_shard > 0 {
                shard.marks.retain(|_, marks| !marks.is_empty());
                dropped += of_shard as u64;
            }
        }
        if self.damages.forget_before(class, kept_from_ms) || dropped > 0 {
            // A disk that is full must not keep what makes room from going. Should the ledger then name what is gone, that
            // is past retention when it is looked at.
            if let Err(error) = self.write_ledger() {
                tracing::warn!(%error, "the ledger cannot be written before windows are dropped");
            }
        }
        if dropped > 0 {
            self.classes.dropped(class, dropped);
            let (from, to) = (keys::window(class, i64::MIN), keys::window(class, end_ms));
            // The marks go first: an index without marks is removed when the store is opened.
            self.rocks.delete_range(keys::DATA, &from, &to)?;
            self.rocks.delete_range(keys::INDEX, &from, &to)?;
        }
        Ok(())
    }

    /// Finds series that nobody writes to and that are written out, for the primary to forget. Where the data itself has
    /// moved on by as much as the clock would have to, they go at once: what is written faster than time passes must not
    /// pile up. Where memory is short, those that are not in use go.
    fn find_idle(&self, now_ms: i64) {
        let idle_ms = 2 * self.config.window_ms;
        let is_short = self.memory() >= self.config.memory_limit_bytes / 100 * HIGH_PERCENT;
        let used_before_ms = now_ms.saturating_sub(if is_short { SHORT_IDLE_MS } else { idle_ms });
        for cell in self.cells() {
            let mut shard = cell.state.write();
            if shard.scanned_ms.is_some_and(|at| now_ms.saturating_sub(at) < LOOK_FOR_IDLE_MS) {
                continue;
            }
            shard.scanned_ms = Some(now_ms);
            let newest_ms = shard.newest_window().map_or(i64::MIN, |window_ms| window_ms.min(now_ms));
            let left_before_ms = newest_ms.saturating_sub(idle_ms).saturating_add(1);
            let quiet_before_ms = now_ms.saturating_sub(QUIET_MS);
            shard.idle = Idle { used_before_ms, left_before_ms, quiet_before_ms };
            let idle = shard.idle;
            shard.evictable = shard.registry.idle(idle, now_ms);
        }
    }
}
