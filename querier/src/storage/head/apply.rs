//! Applying entries: what the log says becomes series, samples and spans in memory, the same on every replica.

use tricord_model::{Exemplar, Sample, Seq};

use super::part::Part;
use super::payload::{AppliedSeries, PayloadReader, Single};
use super::{Applied, PendingRow, Shard, delta};
use crate::storage::deletes::is_delete;
use crate::storage::{Entry, Error, Position};

/// Where the series before the current one was found. Senders mostly keep an order, so the next one is looked for behind
/// it; and most samples are of the same window.
#[derive(Default)]
struct Cursor {
    slot: u32,
    column: usize,
    window: Option<OpenWindow>,
}

/// A window that an entry touches.
#[derive(Clone, Copy)]
struct OpenWindow {
    start_ms: i64,
    end_ms: i64,
    /// Whether the entry is on disk already, as far as it touches the window.
    is_written: bool,
}

impl OpenWindow {
    #[inline]
    fn contains(&self, t_ms: i64) -> bool {
        (self.start_ms..self.end_ms).contains(&t_ms)
    }
}

/// What became of a run of floats.
struct Run {
    pushed: u64,
    /// The one that is of another window, or of a series that the part does not have yet.
    left: Option<Single>,
}

/// Appends floats to a part of a window as long as they are for it. It holds on to their series, which need not be looked
/// at.
fn push_run(
    part: &mut Part,
    window: OpenWindow,
    first: Single,
    payload: &mut PayloadReader<'_>,
    guess: &mut usize,
) -> Result<Run, Error> {
    let (mut single, mut pushed) = (first, 0);
    while window.contains(single.t_ms) && part.push_known(window.start_ms, single, guess) {
        pushed += 1;
        match payload.single()? {
            Some(next) => single = next,
            None => return Ok(Run { pushed, left: None }),
        }
    }
    Ok(Run { pushed, left: Some(single) })
}

impl Shard {
    /// Applies an entry. Samples and spans of windows that have it on disk already are skipped, which is what makes
    /// replaying after a crash safe.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Applied, Error> {
        if entry.seq <= self.base.seq {
            return Ok(Applied::default());
        }
        let applied = if is_delete(&entry.payload) {
            self.apply_delete(entry)
        } else {
            let mut samples = std::mem::take(&mut self.scratch);
            let applied = self.apply_payload(entry, &mut samples);
            samples.clear();
            self.scratch = samples;
            applied
        };
        let applied = applied.map_err(|error| match error {
            Error::Corrupt(why) => self.damaged(entry, &why),
            other => other,
        })?;
        self.applied = Position { seq: entry.seq, epoch: entry.epoch };
        Ok(applied)
    }

    fn damaged(&self, entry: &Entry, why: &dyn std::fmt::Display) -> Error {
        Error::corrupt(format!("entry {} of shard {} cannot be applied: {why}", entry.seq, self.id))
    }

    fn apply_payload(&mut self, entry: &Entry, samples: &mut Vec<Sample>) -> Result<Applied, Error> {
        let mut payload = PayloadReader::new(&entry.payload)?;
        let mut applied = Applied::default();
        let name = payload.tenant.clone();
        let tenant = self.registry.tenant(&name);
        let mut cursor = Cursor::default();
        loop {
            applied.samples += self.apply_singles(tenant, &mut payload, &mut cursor, entry)?;
            let Some(series) = payload.next(samples)? else { break };
            applied.samples += self.apply_series(tenant, series, samples, &mut cursor, entry)?;
        }
        let others = payload.finish()?;
        for (family, metadata) in others.metadata {
            self.rows.push(entry.seq, PendingRow::Metadata(name.clone(), family.clone(), metadata.clone()));
            self.metadata.insert((name.clone(), family), metadata);
        }
        for span in others.spans {
            let window = self.window_at(span.start_ms(), entry.seq, &mut cursor);
            if !window.is_written {
                self.grow(window, entry.seq, |part| part.push_span(tenant, span));
                applied.spans += 1;
            }
        }
        for id in others.evicted {
            self.registry.evict(id, entry.epoch);
            self.rows.evict(entry.seq, id);
        }
        Ok(applied)
    }

    /// Applies the following series that bring no more than one float; answers how many are new in memory.
    fn apply_singles(
        &mut self,
        tenant: u32,
        payload: &mut PayloadReader<'_>,
        cursor: &mut Cursor,
        entry: &Entry,
    ) -> Result<u64, Error> {
        let (mut count, mut next) = (0, payload.single()?);
        while let Some(single) = next {
            let window = self.window_at(single.t_ms, entry.seq, cursor);
            if window.is_written {
                next = payload.single()?;
                continue;
            }
            let guess = &mut cursor.column;
            let run = self.grow(window, entry.seq, |part| push_run(part, window, single, payload, guess))?;
            count += run.pushed;
            next = run.left;
            if let Some(new) = run.left.filter(|left| window.contains(left.t_ms)) {
                let series = AppliedSeries { id: new.id, ..AppliedSeries::default() };
                count +=
                    self.apply_series(tenant, series, &[Sample::float(new.t_ms, new.value)], cursor, entry)?;
                next = payload.single()?;
            }
        }
        Ok(count)
    }

    /// Answers how many samples are new in memory.
    fn apply_series(
        &mut self,
        tenant: u32,
        series: AppliedSeries<'_>,
        samples: &[Sample],
        cursor: &mut Cursor,
        entry: &Entry,
    ) -> Result<u64, Error> {
        let id = series.id;
        let slot = match series.labels {
            Some(labels) => {
                self.rows.push(entry.seq, PendingRow::Series(id));
                self.registry.insert_encoded(id, tenant, labels, entry.epoch)?
            }
            None => self.registry.slot(id, cursor.slot),
        };
        cursor.slot = slot.map_or(cursor.slot, |slot| slot + 1);
        let (mut rest, mut count) = (samples, 0);
        while let Some(first) = rest.first() {
            let window = self.window_at(first.t_ms, entry.seq, cursor);
            let is_outside = |sample: &Sample| !window.contains(sample.t_ms);
            let (run, later) = rest.split_at(rest.iter().position(is_outside).unwrap_or(rest.len()));
            rest = later;
            if window.is_written {
                continue;
            }
            let slot = slot.ok_or_else(|| unknown(id))?;
            let guess = &mut cursor.column;
            let is_new = self.grow(window, entry.seq, |part| part.push(window.start_ms, id, run, guess));
            self.count_part(slot, is_new);
            count += run.len() as u64;
        }
        for exemplar in series.exemplars {
            self.apply_exemplar(id, slot, exemplar, cursor, entry.seq)?;
        }
        if series.is_delta && slot.is_some() {
            self.apply_total(id, samples, entry.seq);
        }
        Ok(count)
    }

    fn apply_exemplar(
        &mut self,
        id: u32,
        slot: Option<u32>,
        exemplar: Exemplar,
        cursor: &mut Cursor,
        seq: Seq,
    ) -> Result<(), Error> {
        let window = self.window_at(exemplar.t_ms, seq, cursor);
        if window.is_written {
            return Ok(());
        }
        let slot = slot.ok_or_else(|| unknown(id))?;
        let guess = &mut cursor.column;
        let is_new = self.grow(window, seq, |part| part.push_exemplar(id, exemplar, guess));
        self.count_part(slot, is_new);
        Ok(())
    }

    fn count_part(&mut self, slot: u32, is_new: bool) {
        if let (true, Some(series)) = (is_new, self.registry.in_slot(slot)) {
            series.parts += 1;
        }
    }

    /// The window of a time, as an entry finds it.
    #[inline]
    fn window_at(&self, time_ms: i64, seq: Seq, cursor: &mut Cursor) -> OpenWindow {
        match cursor.window {
            Some(window) if window.contains(time_ms) => window,
            _ => {
                let start_ms = self.window_of(time_ms);
                let is_written = self.flushed_through(start_ms) >= seq;
                let end_ms = start_ms.saturating_add(self.window_len_ms);
                *cursor.window.insert(OpenWindow { start_ms, end_ms, is_written })
            }
        }
    }

    /// Puts something into the open part of a window.
    #[inline]
    fn grow<R>(&mut self, window: OpenWindow, seq: Seq, work: impl FnOnce(&mut Part) -> R) -> R {
        let open = &mut self.windows.entry(window.start_ms).or_default().open;
        let part = open.get_or_insert_with(|| Part { from: seq, bytes: 512, ..Part::default() });
        let before = part.bytes;
        let result = work(part);
        self.part_bytes += part.bytes - before;
        result
    }

    /// Takes over the total that an entry says; the primary has it already, and perhaps a later one.
    fn apply_total(&mut self, id: u32, totals: &[Sample], seq: Seq) {
        let Some(state) = delta::state_after(totals) else { return };
        self.rows.push(seq, PendingRow::Delta(id, state.clone()));
        let Some(series) = self.registry.get_mut(id) else { return };
        if series.delta.as_ref().is_none_or(|known| known.end_ms < state.end_ms) {
            series.delta = Some(Box::new(state));
        }
    }
}

/// What is on disk already needs no series, which may have been forgotten since; anything else does.
fn unknown(id: u32) -> Error {
    Error::corrupt(format!("series {id} is not known"))
}
