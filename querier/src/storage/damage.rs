//! What is known to be damaged of the windows on disk. A window that is lost fences its time in its shard; one in which a
//! block could not be read goes on answering where that block is not needed. The rest of the store is not concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tricord_model::ShardId;

use super::Error;
use super::head::Mark;

/// More is counted, and not remembered, but for what is lost: a disk that fails may show damage everywhere.
const MAX_REMEMBERED: usize = 100_000;

/// Shard, start of the window in milliseconds, number of the generation, and its retention class.
type Place = (ShardId, i64, u32, u8);

/// A damaged generation of a shard.
struct Damage {
    span_ms: i64,
    /// The mark of a generation that is not there any more.
    lost: Option<Mark>,
    why: String,
}

/// What is damaged, as far as it is known.
#[derive(Default)]
pub(crate) struct Damages {
    known: Mutex<BTreeMap<Place, Damage>>,
    lost: AtomicUsize,
    found: AtomicU64,
    /// Whether nobody is told: a check reports by itself.
    is_quiet: bool,
}

/// Counts of damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DamageCounts {
    /// Windows of shards in which something is damaged or lost.
    pub(crate) windows: u64,
    /// Shards that have such windows.
    pub(crate) shards: u64,
    /// How often damage was met since the start.
    pub(crate) found: u64,
}

impl Damages {
    /// Of which the log says nothing.
    pub(crate) fn quiet() -> Self {
        Self { is_quiet: true, ..Self::default() }
    }

    /// Notes a generation of which something could not be read; answers the error that says where.
    pub(crate) fn meet(
        &self,
        shard: ShardId,
        window_ms: i64,
        mark: &Mark,
        span_ms: i64,
        why: String,
    ) -> Error {
        self.note(
            (shard, window_ms, mark.number, mark.class),
            Damage { span_ms, lost: None, why: why.clone() },
        );
        error(shard, window_ms, span_ms, why)
    }

    /// Notes a generation that must be there and is not.
    pub(crate) fn lose(&self, shard: ShardId, window_ms: i64, mark: Mark, span_ms: i64) {
        let why = format!(
            "it was written out ({} samples, {} spans) and RocksDB does not have it any more: its MANIFEST is an older \
             one or was cut, or a sorted file is gone",
            mark.samples, mark.spans
        );
        self.note((shard, window_ms, mark.number, mark.class), Damage { span_ms, lost: Some(mark), why });
    }

    /// Counts damage that is not of a window.
    pub(crate) fn count(&self) {
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, place: Place, damage: Damage) {
        self.found.fetch_add(1, Ordering::Relaxed);
        let (shard, window_ms, generation, _) = place;
        let mut known = self.known.lock();
        match known.get(&place) {
            // What could not be read before is now gone as a whole.
            Some(before) if before.lost.is_none() && damage.lost.is_some() => {}
            None if damage.lost.is_some() || known.len() < MAX_REMEMBERED => {}
            _ => return,
        }
        let (from, until) = (time(window_ms), time(window_ms.saturating_add(damage.span_ms)));
        let why = &damage.why;
        if !self.is_quiet {
            tracing::error!(
                shard = shard.0, from, until, generation, %why,
                "stored data is damaged: queries that need it fail, all others go on. Look at the directory with \
                 `tricord check`, and restore it or let another replica copy the shard here"
            );
        }
        self.lost.fetch_add(usize::from(damage.lost.is_some()), Ordering::Relaxed);
        known.insert(place, damage);
    }

    /// Refuses a range of time, both ends included, in which a shard has lost something.
    pub(crate) fn check(&self, shard: ShardId, from_ms: i64, until_ms: i64) -> Result<(), Error> {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let known = self.known.lock();
        let overlaps = |window_ms: i64, damage: &Damage| {
            window_ms <= until_ms && window_ms.saturating_add(damage.span_ms) > from_ms
        };
        let mut of_shard = known.range((shard, i64::MIN, 0, 0)..=(shard, until_ms, u32::MAX, u8::MAX));
        match of_shard
            .find(|((_, window_ms, ..), damage)| damage.lost.is_some() && overlaps(*window_ms, damage))
        {
            Some(((_, window_ms, ..), damage)) => {
                Err(error(shard, *window_ms, damage.span_ms, damage.why.clone()))
            }
            None => Ok(()),
        }
    }

    /// Whether anything of a shard in a range of time, its end excluded, is damaged.
    pub(crate) fn touches(&self, shard: ShardId, from_ms: i64, end_ms: i64) -> bool {
        let known = self.known.lock();
        let mut of_shard = known.range((shard, i64::MIN, 0, 0)..(shard, end_ms, 0, 0));
        of_shard.any(|((_, window_ms, ..), damage)| window_ms.saturating_add(damage.span_ms) > from_ms)
    }

    /// The generations that a shard has lost.
    pub(crate) fn lost_of(&self, shard: ShardId) -> Vec<(i64, Mark)> {
        let known = self.known.lock();
        let of_shard = known.range((shard, i64::MIN, 0, 0)..=(shard, i64::MAX, u32::MAX, u8::MAX));
        of_shard.filter_map(|((_, window_ms, ..), damage)| Some((*window_ms, damage.lost?))).collect()
    }

    /// What is damaged of a shard, for people; `None` where nothing is known to be.
    pub(crate) fn of_shard(&self, shard: ShardId) -> Option<Error> {
        let known = self.known.lock();
        let mut of_shard = known.range((shard, i64::MIN, 0, 0)..=(shard, i64::MAX, u32::MAX, u8::MAX));
        let ((_, window_ms, ..), damage) = of_shard.next()?;
        Some(error(shard, *window_ms, damage.span_ms, damage.why.clone()))
    }

    /// Forgets a shard, which is not here any more or has come anew.
    pub(crate) fn forget_shard(&self, shard: ShardId) {
        let _ = self.retain(|(of, ..), _| *of != shard);
    }

    /// Forgets what ended before a time in a retention class: it is past retention. Answers whether there was anything.
    pub(crate) fn forget_before(&self, class: u8, kept_from_ms: i64) -> bool {
        self.retain(|(_, window_ms, _, of), damage| {
            *of != class || window_ms.saturating_add(damage.span_ms) > kept_from_ms
        })
    }

    fn retain(&self, stays: impl Fn(&Place, &Damage) -> bool) -> bool {
        let mut known = self.known.lock();
        let before = known.len();
        known.retain(|place, damage| stays(place, damage));
        self.lost.store(known.values().filter(|damage| damage.lost.is_some()).count(), Ordering::Relaxed);
        known.len() < before
    }

    /// Counts for metrics.
    pub(crate) fn counts(&self) -> DamageCounts {
        let known = self.known.lock();
        let windows: BTreeSet<(ShardId, i64)> =
            known.keys().map(|(shard, window_ms, ..)| (*shard, *window_ms)).collect();
        let shards: BTreeSet<ShardId> = windows.iter().map(|(shard, _)| *shard).collect();
        DamageCounts {
            windows: windows.len() as u64,
            shards: shards.len() as u64,
            found: self.found.load(Ordering::Relaxed),
        }
    }
}

fn error(shard: ShardId, window_ms: i64, span_ms: i64, why: String) -> Error {
    Error::Damaged { shard, from: time(window_ms), until: time(window_ms.saturating_add(span_ms)), why }
}

/// A time in milliseconds, for people.
pub(crate) fn time(t_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(t_ms).map_or_else(|_| format!("{t_ms} ms"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use tricord_model::Seq;

    use super::*;
    use crate::storage::keys::Generation;

    #[test]
    fn what_is_lost_fences_its_time_in_its_shard() {
        let damages = Damages::default();
        let of = Generation { class: 0, window_ms: 1_000, number: 2 };
        let mark = Mark { samples: 7, windows: 2, ..Mark::written_out(of, Seq(5)) };
        damages.lose(ShardId(1), 1_000, mark, 2_000);
        let _ = damages.meet(ShardId(1), 9_000, &mark, 1_000, "a block".to_owned());
        let fenced = |shard, from, until| damages.check(ShardId(shard), from, until).is_err();
        assert!(fenced(1, 2_999, 5_000) && fenced(1, i64::MIN, 1_000));
        assert!(!fenced(1, 3_000, 20_000) && !fenced(1, 0, 999) && !fenced(0, 0, 9_999));
        assert!(damages.touches(ShardId(1), 9_999, 20_000) && !damages.touches(ShardId(1), 3_000, 9_000));
        assert_eq!(damages.counts(), DamageCounts { windows: 2, shards: 1, found: 2 });
        assert_eq!(damages.lost_of(ShardId(1)), [(1_000, mark)]);
        assert!(!damages.forget_before(1, 9_000) && fenced(1, 0, 9_999), "it is of another class");
        assert!(!damages.forget_before(0, 2_999) && fenced(1, 0, 9_999), "its end is kept");
        assert!(damages.forget_before(0, 3_000));
        assert!(!fenced(1, 0, 9_999) && damages.of_shard(ShardId(1)).is_some());
        damages.forget_shard(ShardId(1));
        assert_eq!(damages.counts().windows, 0);
    }
}
