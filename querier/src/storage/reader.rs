//! Reading head and files as one.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tricord_fragment::Cardinality;
use tricord_model::{Exemplar, Labels, Matcher, MetricMetadata, Points, SpanRecord, TraceId};

use super::Error;

/// A view over some shards of one tenant.
pub struct Reader {}

type E<T> = Result<T, Error>;
impl Reader {
    /// Stops with [`Error::Cancelled`] once the flag is set.
    pub fn with_cancel(self, cancel: Arc<AtomicBool>) -> Self { let _ = cancel; self }
    /// Stored bytes decoded so far.
    pub fn bytes_read(&self) -> u64 { 0 }
    /// Series that satisfy all matchers, with their samples in `(after_ms, until_ms]`; series without a sample in the
    /// range are left out. Sorted by labels, one entry per label set.
    pub fn select(&self, matchers: &[Matcher], after_ms: i64, until_ms: i64, max_samples: u64) -> E<Vec<(Labels, Points)>> { let _ = (matchers, after_ms, until_ms, max_samples); Ok(vec![]) }
    /// Label sets of series (any of the alternatives; none given matches all) present in windows that overlap
    /// `[start_ms, end_ms]`. Sorted, at most `limit` (0: no bound).
    pub fn series(&self, matchers: &[Vec<Matcher>], start_ms: i64, end_ms: i64, limit: u64) -> E<Vec<Labels>> { let _ = (matchers, start_ms, end_ms, limit); Ok(vec![]) }
    /// Label names, sorted.
    pub fn label_names(&self, matchers: &[Vec<Matcher>], start_ms: i64, end_ms: i64, limit: u64) -> E<Vec<String>> { let _ = (matchers, start_ms, end_ms, limit); Ok(vec![]) }
    /// Values of one label, sorted.
    pub fn label_values(&self, name: &str, matchers: &[Vec<Matcher>], start_ms: i64, end_ms: i64, limit: u64) -> E<Vec<String>> { let _ = (name, matchers, start_ms, end_ms, limit); Ok(vec![]) }
    /// Exemplars in `[start_ms, end_ms]` by series, sorted by labels, then time.
    pub fn exemplars(&self, matchers: &[Vec<Matcher>], start_ms: i64, end_ms: i64, limit: u64) -> E<Vec<(Labels, Vec<Exemplar>)>> { let _ = (matchers, start_ms, end_ms, limit); Ok(vec![]) }
    /// Metadata of one family or (empty) of all, sorted; `limit` families (0: no bound).
    pub fn metadata(&self, family: &str, limit: u64) -> E<Vec<(String, MetricMetadata)>> { let _ = (family, limit); Ok(vec![]) }
    /// Counts over the series in memory.
    pub fn cardinality(&self, top: usize) -> E<Cardinality> { let _ = top; Ok(Cardinality::default()) }
    /// The spans of one trace that start in `[start_ns, end_ns]`, without exact duplicates, by start.
    pub fn trace(&self, id: &TraceId, start_ns: u64, end_ns: u64) -> E<Vec<SpanRecord>> { let _ = (id, start_ns, end_ns); Ok(vec![]) }
    /// Visits spans that start in `[start_ns, end_ns]`, newest window first, without exact duplicates.
    pub fn scan_spans(&self, start_ns: u64, end_ns: u64, visit: &mut dyn FnMut(&SpanRecord) -> ControlFlow<()>) -> E<()> { let _ = (start_ns, end_ns, visit); Ok(()) }
}
