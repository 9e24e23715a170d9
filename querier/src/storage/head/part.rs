//! What a shard holds of one window and has not written out: an open part, and sealed ones that wait to be written.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use tricord_model::{Exemplar, Sample, Seq, SpanRecord, TraceId};

use super::columns::Columns;
use super::payload::Single;
use super::registry::FastMap;

/// Samples and spans of one window.
#[derive(Clone, Default)]
pub(crate) struct Part {
    /// Samples by series id.
    pub(crate) columns: Columns,
    /// Spans by tenant and trace.
    pub(crate) spans: BTreeMap<u32, FastMap<TraceId, Vec<SpanRecord>>>,
    /// The first entry with something for the part.
    pub(crate) from: Seq,
    /// The shard's last applied entry when the part was sealed: all up to it is in this part or in earlier ones.
    pub(crate) through: Seq,
    /// The last entry that deleted something of it.
    pub(crate) deleted: Seq,
    /// Samples in it.
    pub(crate) samples: u64,
    /// Spans in it.
    pub(crate) span_count: u64,
    /// An estimate of its memory, in bytes.
    pub(crate) bytes: usize,
    /// When it was first seen by maintenance, in milliseconds of the caller's clock.
    pub(crate) seen_ms: Option<i64>,
}

/// Memory of a column before its first sample: itself, and its place among the others.
const COLUMN_BYTES: usize = 88;

impl Part {
    /// The last entry that has changed it, once it is sealed: before that one is committed, it must not be written out.
    pub(crate) fn changed(&self) -> Seq {
        self.through.max(self.deleted)
    }

    /// Appends samples of a series; answers whether the series is new to the part. `guess` is as in
    /// [`Columns::entry`].
    #[inline]
    pub(crate) fn push(&mut self, window_ms: i64, id: u32, samples: &[Sample], guess: &mut usize) -> bool {
        let (column, is_new) = self.columns.entry(id, guess);
        let added: usize = samples.iter().map(|sample| column.push(window_ms, sample)).sum();
        self.bytes += added + if is_new { COLUMN_BYTES } else { 0 };
        self.samples += samples.len() as u64;
        is_new
    }

    /// Appends a float without a start timestamp to a series that the part has already; answers whether it has.
    #[inline]
    pub(crate) fn push_known(&mut self, window_ms: i64, single: Single, guess: &mut usize) -> bool {
        let Some(column) = self.columns.get_mut(single.id, guess) else { return false };
        self.bytes += column.push_float(window_ms, single.t_ms, single.value);
        self.samples += 1;
        true
    }

    /// Appends an exemplar; answers whether the series is new to the part.
    pub(crate) fn push_exemplar(&mut self, id: u32, exemplar: Exemplar, guess: &mut usize) -> bool {
        let (column, is_new) = self.columns.entry(id, guess);
        self.bytes += column.push_exemplar(exemplar) + if is_new { COLUMN_BYTES } else { 0 };
        is_new
    }

    /// Removes samples and exemplars of some series between two times, both included. Series of which nothing is left
    /// go, and are added to `released`.
    pub(crate) fn delete(
        &mut self,
        window_ms: i64,
        ids: &RoaringBitmap,
        (from_ms, until_ms): (i64, i64),
        released: &mut Vec<u32>,
    ) {
        let Self { columns, bytes, samples, .. } = self;
        columns.retain(|id, column| {
            let kept = if ids.contains(id) { column.without(window_ms, from_ms, until_ms) } else { None };
            let Some(kept) = kept else { return true };
            *samples = samples.saturating_sub((column.len() - kept.len()) as u64);
            *bytes = bytes.saturating_sub(column.bytes().saturating_sub(kept.bytes()));
            *column = kept;
            let stays = column.len() > 0 || !column.exemplars().is_empty();
            if !stays {
                *bytes = bytes.saturating_sub(COLUMN_BYTES);
                released.push(id);
            }
            stays
        });
    }

    /// Appends a span.
    pub(crate) fn push_span(&mut self, tenant: u32, span: SpanRecord) {
        self.bytes += 240 + span.span.len();
        self.span_count += 1;
        self.spans.entry(tenant).or_default().entry(span.trace_id).or_default().push(span);
    }
}

/// The parts of one window.
#[derive(Default)]
pub(crate) struct Window {
    /// Parts that take nothing more, in the order of the log.
    pub(crate) sealed: Vec<Arc<Part>>,
    /// The part that takes what arrives.
    pub(crate) open: Option<Part>,
}

impl Window {
    /// All parts in the order of the log.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.sealed.iter().map(|part| &**part).chain(&self.open)
    }

    /// Seals the open part, where there is one.
    pub(crate) fn seal(&mut self, through: Seq) {
        if let Some(mut part) = self.open.take() {
            part.through = through;
            self.sealed.push(Arc::new(part));
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.is_none()
    }
}
