//! Which windows are merged, and when.

use std::collections::BTreeMap;
use std::sync::Arc;

use tricord_model::Seq;

use crate::storage::deletes::Tombstone;
use crate::storage::head::Mark;
use crate::storage::store::{Cell, Inner};

/// Generations of a shard that are merged at once at most; what is left over comes with the next merge.
const MAX_SOURCES: usize = 256;
/// Late generations beside a merged one are taken in when there are so many of them …
const LATE_GENERATIONS: usize = 8;
/// … or when they have at least this part of its samples.
const LATE_PART: u64 = 8;

/// Generations: start of the window and mark, in the order of the log.
pub(super) type Sources = Vec<(i64, Mark)>;

/// A shard's part of a merge.
pub(super) struct Part {
    pub(super) cell: Arc<Cell>,
    pub(super) sources: Sources,
    /// What was deleted by entries before the base: none of it goes into the merge.
    pub(super) deletes: Vec<Arc<Tombstone>>,
}

impl Part {
    /// The entry up to which deletes are carried out in the merge.
    pub(super) fn deleted(&self) -> Seq {
        let before = self.sources.iter().map(|(_, mark)| mark.deleted);
        before.chain(self.deletes.last().map(|one| one.seq)).max().unwrap_or_default()
    }
}

/// A merge.
pub(super) struct Plan {
    /// The number of the retention class.
    pub(super) class: u8,
    /// Where it starts, in milliseconds.
    pub(super) start_ms: i64,
    /// Over how many windows it goes.
    pub(super) windows: u16,
    pub(super) parts: Vec<Part>,
}

impl Plan {
    /// Where a window stands among the merged ones.
    pub(super) fn place(&self, window_ms: i64, window_len_ms: i64) -> usize {
        usize::try_from((window_ms - self.start_ms) / window_len_ms.max(1)).unwrap_or(0)
    }
}

impl Inner {
    /// What is to be merged at this time, longest first, then oldest first. Forced, that is everything that can be, but
    /// not over more time than is over.
    pub(super) fn merge_plans(&self, now_ms: i64, forced: bool) -> Vec<Plan> {
        let mut plans = Vec::new();
        // Of a time that a longer merge takes, a shorter one would be done in vain.
        let mut taken: Vec<(u8, i64, i64)> = Vec::new();
        let mut lengths = self.config.merge_windows.clone();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        for (nth, windows) in lengths.iter().copied().enumerate() {
            let span_ms = self.config.window_ms.saturating_mul(i64::from(windows));
            let is_last = nth + 1 == lengths.len();
            for ((class, start_ms), parts) in self.by_span(windows, span_ms) {
                // Windows are dropped whole.
                if self.classes.keep_ms(class).is_some_and(|keep_ms| span_ms > keep_ms / 4) {
                    continue;
                }
                let end_ms = start_ms.saturating_add(span_ms);
                let is_over = end_ms.saturating_add(2 * self.config.window_ms) <= now_ms;
                let may = is_over || (forced && is_last);
                let is_spoiled = self.merges.spoiled.lock().contains(&(class, start_ms, windows));
                let is_apart = |of: &(u8, i64, i64)| of.0 != class || end_ms <= of.1 || start_ms >= of.2;
                let is_free = !is_spoiled && taken.iter().all(is_apart);
                if may && is_free && (is_worth_it(&parts, windows) || (forced && !parts.is_empty())) {
                    taken.push((class, start_ms, end_ms));
                    plans.push(Plan { class, start_ms, windows, parts });
                }
            }
        }
        plans
    }

    /// What each shard has more than once in spans of so many windows of a class, and nothing longer.
    fn by_span(&self, windows: u16, span_ms: i64) -> BTreeMap<(u8, i64), Vec<Part>> {
        let mut spans: BTreeMap<(u8, i64), Vec<Part>> = BTreeMap::new();
        for cell in self.cells() {
            let mut of_shard: BTreeMap<(u8, i64), (Sources, bool)> = BTreeMap::new();
            let deletes = {
                let shard = cell.state.read();
                if shard.damage.is_some() {
                    continue;
                }
                for (window_ms, marks) in &shard.marks {
                    let start_ms = window_ms.div_euclid(span_ms) * span_ms;
                    for mark in marks {
                        let of = of_shard.entry((mark.class, start_ms));
                        let (sources, fits) = of.or_insert_with(|| (Vec::new(), true));
                        // Until the log's begin is behind them, a replay must know what each window has.
                        *fits &= mark.windows <= windows && mark.through <= shard.base.seq;
                        sources.push((*window_ms, *mark));
                    }
                }
                shard.tombstones.through(shard.base.seq)
            };
            for (place, (mut sources, fits)) in of_shard {
                // A merge would fail over what is damaged, and would seem to hold what is lost.
                let (_, start_ms) = place;
                let is_whole = !self.damages.touches(cell.id, start_ms, start_ms.saturating_add(span_ms));
                if fits && is_whole && sources.len() > 1 {
                    sources.truncate(MAX_SOURCES);
                    let part = Part { cell: Arc::clone(&cell), sources, deletes: deletes.clone() };
                    spans.entry(place).or_default().push(part);
                }
            }
        }
        spans
    }
}

/// Whether a merge saves more than it costs.
fn is_worth_it(parts: &[Part], windows: u16) -> bool {
    let (mut merged, mut late, mut most) = (0, 0, 0);
    for part in parts {
        let (long, short): (Vec<_>, Vec<_>) =
            part.sources.iter().partition(|(_, mark)| mark.windows == windows);
        if long.is_empty() {
            return true;
        }
        merged += long.iter().map(|(_, mark)| mark.samples + mark.spans).sum::<u64>();
        late += short.iter().map(|(_, mark)| mark.samples + mark.spans).sum::<u64>();
        most = most.max(short.len());
    }
    most >= LATE_GENERATIONS || (most > 0 && late * LATE_PART >= merged)
}

/// All entries up to this one are in some generations, as far as they touch their windows.
pub(super) fn through(sources: &[(i64, Mark)]) -> Seq {
    sources.iter().map(|(_, mark)| mark.through).max().unwrap_or_default()
}
