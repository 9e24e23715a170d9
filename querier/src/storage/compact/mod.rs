//! Merging windows that are over into longer ones, so that a query over much time reads few indexes and few blocks.
//!
//! A merge reads the generations of some neighbouring windows, writes one generation that goes over all of them, and
//! makes it count with one mark for each shard, which says what it replaces. What was replaced goes when nobody reads it
//! any more; opening the store removes what a crash has left of it. Writing goes on meanwhile: data that comes late is a
//! generation behind the merged one, and joins it with a later merge.

mod build;
mod clean;
pub(super) mod hidden;
mod plan;
mod retired;
pub(super) mod source;
mod write;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
pub(crate) use retired::Retired;

use super::head::Mark;
use super::keys::{self, Generation};
use super::store::{Cell, Inner};
use super::{Error, MergeReport, Store, damage};
use build::{Builder, Built};
use plan::Plan;

/// Told of bytes that a merge has written, it waits as it likes, and answers whether the merge goes on.
pub(crate) type Pace<'p> = &'p dyn Fn(u64) -> bool;

/// Counts of merges since the start.
#[derive(Default)]
pub(crate) struct Merges {
    merged: AtomicU64,
    bytes: AtomicU64,
    waiting: AtomicU64,
    /// Start and number of windows of merges that met damage: they are not tried again before a restart.
    pub(super) spoiled: Mutex<HashSet<(u8, i64, u16)>>,
}

impl Merges {
    /// Merged windows, bytes written for them, and merges that were due when they were last looked for.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.merged), read(&self.bytes), read(&self.waiting))
    }
}

impl Store {
    /// Merges what is due, oldest first; forced, everything that can be, and RocksDB's own log goes. One caller at a time,
    /// others wait.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when `pace` says so; [`Error`] when stored data is damaged or the disk fails. What was merged
    /// until then stays merged, and nothing is lost.
    pub(crate) fn merge(&self, now_ms: i64, forced: bool, pace: Pace<'_>) -> Result<MergeReport, Error> {
        let inner = &self.inner;
        let _one_at_a_time = inner.merging.lock();
        let (mut report, mut damaged) = (MergeReport::default(), None);
        let plans = inner.merge_plans(now_ms, forced);
        let mut left = plans.len() as u64;
        for plan in plans {
            inner.merges.waiting.store(left, Ordering::Relaxed);
            left -= 1;
            match inner.merge_one(&plan, pace) {
                Ok(Some(bytes)) => {
                    report.windows += 1;
                    report.bytes += bytes;
                    inner.merges.merged.fetch_add(1, Ordering::Relaxed);
                    inner.merges.bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Ok(None) => {}
                // What is damaged stays as it is, and the rest is merged.
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, from = damage::time(plan.start_ms), "windows are damaged and not merged");
                    inner.merges.spoiled.lock().insert((plan.class, plan.start_ms, plan.windows));
                    damaged.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
            inner.remove_retired()?;
        }
        inner.merges.waiting.store(0, Ordering::Relaxed);
        inner.retire_tombstones()?;
        if forced {
            // RocksDB's log goes once every family's part of it is in sorted files.
            keys::FAMILIES.iter().try_for_each(|family| inner.rocks.flush(family.name))?;
        }
        damaged.map_or(Ok(report), Err)
    }
}

impl Inner {
    /// Answers the bytes written, or `None` where the shards have changed meanwhile.
    fn merge_one(&self, plan: &Plan, pace: Pace<'_>) -> Result<Option<u64>, Error> {
        // Under a number behind those of its sources; what is written out from now on comes behind it.
        let number = {
            let _no_flush = self.flushing.lock();
            if !self.is_current(plan) || !self.is_first(plan) {
                return Ok(None);
            }
            self.next_generation(plan.start_ms)
        };
        let of = Generation { class: plan.class, window_ms: plan.start_ms, number };
        // Keeps what is read from being removed.
        let _reading = self.retired.guard();
        let built = Builder::new(self, plan, of, pace)?.build()?;
        let _no_flush = self.flushing.lock();
        if !self.is_current(plan) {
            return Ok(None);
        }
        self.adopt(plan, built).map(Some)
    }

    /// Whether the shards still have all of what a plan reads.
    fn is_current(&self, plan: &Plan) -> bool {
        plan.parts.iter().all(|part| {
            let same = self.find(part.cell.id).is_some_and(|cell| Arc::ptr_eq(&cell, &part.cell));
            let state = part.cell.state.read();
            let has =
                |(window_ms, mark)| state.marks.get(window_ms).is_some_and(|marks| marks.contains(mark));
            same && part.sources.iter().all(|(window_ms, mark)| has((window_ms, mark)))
        })
    }

    /// Whether nothing came to the window that a merge begins with since it was planned: the merge would come behind it.
    fn is_first(&self, plan: &Plan) -> bool {
        plan.parts.iter().all(|part| {
            let state = part.cell.state.read();
            let known =
                |mark: &Mark| mark.class != plan.class || part.sources.contains(&(plan.start_ms, *mark));
            state.marks.get(&plan.start_ms).is_none_or(|marks| marks.iter().all(known))
        })
    }

    /// Makes a merge count. While nothing is flushed or installed.
    fn adopt(&self, plan: &Plan, built: Built<'_>) -> Result<u64, Error> {
        let Built { index, data, marks, duplicates, deleted } = built;
        let bytes = index.ingest()? + data.ingest()?;
        let mut replaced: Vec<(Generation, Arc<Cell>)> = Vec::new();
        for (part, mark) in plan.parts.iter().zip(marks) {
            let mut shard = part.cell.state.write();
            for (window_ms, old) in &part.sources {
                if let Some(marks) = shard.marks.get_mut(window_ms) {
                    marks.retain(|mark| mark != old);
                    if marks.is_empty() {
                        shard.marks.remove(window_ms);
                    }
                }
                replaced.push((old.generation(*window_ms), Arc::clone(&part.cell)));
            }
            let marks = shard.marks.entry(plan.start_ms).or_default();
            marks.push(mark);
            marks.sort_unstable_by_key(|mark| mark.number);
        }
        self.counters.duplicate(duplicates);
        self.counters.deleted(deleted);
        self.retired.push(replaced);
        self.write_ledger()?;
        Ok(bytes)
    }
}
