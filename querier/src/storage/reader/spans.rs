//! Traces by id, and spans by time.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::ControlFlow;

use tricord_model::{SpanRecord, TraceId};

use super::{Range, Reader};
use crate::storage::Error;
use crate::storage::flush::encode::sort_spans;
use crate::storage::head::Mark;
use crate::storage::head::part::Window;
use crate::storage::store::Cell;

fn milliseconds(start_ns: u64, end_ns: u64) -> (i64, i64) {
    ((start_ns / 1_000_000) as i64, (end_ns / 1_000_000) as i64)
}

impl Reader {
    /// The spans of one trace that start between `start_ns` and `end_ns` (both included), without exact repetitions,
    /// sorted by start and span id.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored data is damaged, [`Error::Cancelled`].
    pub(crate) fn trace(&self, id: &TraceId, start_ns: u64, end_ns: u64) -> Result<Vec<SpanRecord>, Error> {
        let (from_ms, until_ms) = milliseconds(start_ns, end_ns);
        let Some(range) = self.range(from_ms, until_ms) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for cell in &self.cells {
            let generations = {
                let shard = self.read(cell)?;
                if let Some(tenant) = shard.registry.find_tenant(&self.tenant) {
                    let parts = self.windows(&shard.windows, range).flat_map(|(_, window)| window.parts());
                    let spans = parts.filter_map(|part| part.spans.get(&tenant)?.get(id));
                    spans.for_each(|spans| found.extend_from_slice(spans));
                }
                self.generations(&shard, range, |mark| mark.spans > 0)?
            };
            for of in generations {
                self.check_cancel()?;
                found.extend(self.disk(of, cell.id).trace(id)?);
            }
        }
        found.retain(|span| self.shows(span, start_ns, end_ns));
        sort_spans(&mut found);
        Ok(found)
    }

    fn shows(&self, span: &SpanRecord, start_ns: u64, end_ns: u64) -> bool {
        (start_ns..=end_ns).contains(&span.start_ns) && span.start_ms() >= self.horizon_ms
    }

    /// Visits spans that start between `start_ns` and `end_ns` (both included), newest window first, without exact
    /// repetitions, until the visitor breaks. Within a window the order is that of storage.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when stored data is damaged, [`Error::Cancelled`].
    pub(crate) fn scan_spans(
        &self,
        start_ns: u64,
        end_ns: u64,
        visit: &mut dyn FnMut(&SpanRecord) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (from_ms, until_ms) = milliseconds(start_ns, end_ns);
        let Some(range) = self.range(from_ms, until_ms) else { return Ok(()) };
        let mut windows: BTreeMap<i64, Vec<Source<'_>>> = BTreeMap::new();
        for cell in &self.cells {
            self.check_cancel()?;
            self.span_sources(cell, range, (start_ns, end_ns), &mut windows)?;
        }
        // Newest first.
        while let Some((_, sources)) = windows.pop_last() {
            let repeats = |source: &Source<'_>| matches!(source, Source::Disk(_, _, Some(_)));
            let mut seen = Seen::new(sources.len() > 1 || sources.iter().any(repeats));
            for source in sources {
                let mut each = |spans: Vec<SpanRecord>| -> Result<bool, Error> {
                    self.check_cancel()?;
                    let mut shown = spans.iter().filter(|span| self.shows(span, start_ns, end_ns));
                    Ok(!shown.any(|span| seen.is_first(span) && visit(span).is_break()))
                };
                let mut goes_on = true;
                match source {
                    Source::Head(spans) => goes_on = each(spans)?,
                    Source::Disk(cell, of, place) => {
                        self.disk(of, cell.id).span_blocks(place, start_ns, end_ns, &mut |spans| {
                            goes_on = each(spans)?;
                            Ok(goes_on)
                        })?;
                    }
                }
                if !goes_on {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn span_sources<'a>(
        &self,
        cell: &'a Cell,
        range: Range,
        (start_ns, end_ns): (u64, u64),
        windows: &mut BTreeMap<i64, Vec<Source<'a>>>,
    ) -> Result<(), Error> {
        let shard = self.read(cell)?;
        for of in self.generations(&shard, range, |mark| mark.spans > 0)? {
            if !of.1.is_merged {
                windows.entry(of.0).or_default().push(Source::Disk(cell, of, None));
                continue;
            }
            // Merged windows keep their spans apart.
            let window_ms = self.inner.config.window_ms;
            for place in 0..of.1.windows {
                let start_ms = of.0.saturating_add(window_ms.saturating_mul(i64::from(place)));
                if start_ms <= range.until_ms && start_ms.saturating_add(window_ms) > range.from_ms {
                    windows.entry(start_ms).or_default().push(Source::Disk(cell, of, Some(place)));
                }
            }
        }
        let Some(tenant) = shard.registry.find_tenant(&self.tenant) else { return Ok(()) };
        for (window_ms, window) in self.windows(&shard.windows, range) {
            let mut spans = head_spans(window, tenant);
            spans.retain(|span| self.shows(span, start_ns, end_ns));
            if !spans.is_empty() {
                sort_spans(&mut spans);
                windows.entry(window_ms).or_default().push(Source::Head(spans));
            }
        }
        Ok(())
    }
}

fn head_spans(window: &Window, tenant: u32) -> Vec<SpanRecord> {
    let traces = window.parts().filter_map(|part| part.spans.get(&tenant)).flatten();
    traces.flat_map(|(_, spans)| spans.iter().cloned()).collect()
}

/// Where spans of a window are.
enum Source<'a> {
    Head(Vec<SpanRecord>),
    /// With the place of the window where several were merged; these may hold repetitions.
    Disk(&'a Cell, (i64, Mark), Option<u16>),
}

/// The spans visited in a window that has several sources, by a hash of 64 bits of the whole span under a key of this
/// query: a repetition may lie in another source, and within one source there is none.
struct Seen {
    hashes: Option<HashSet<u64>>,
    key: foldhash::quality::RandomState,
}

impl Seen {
    fn new(needed: bool) -> Self {
        Self { hashes: needed.then(HashSet::new), key: foldhash::quality::RandomState::default() }
    }

    fn is_first(&mut self, span: &SpanRecord) -> bool {
        let Some(hashes) = &mut self.hashes else { return true };
        let mut hasher = self.key.build_hasher();
        (span.trace_id, span.span_id, span.start_ns).hash(&mut hasher);
        (&span.span, &span.resource, &span.scope).hash(&mut hasher);
        hashes.insert(hasher.finish())
    }
}
