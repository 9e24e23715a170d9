//! Searching spans for traces, newest first, and listing what spans have. Over anything that has spans, so that the
//! rules can be checked without storage.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use tricord_fragment::QueryLimits;
use tricord_fragment::trace::{Field, MatchedSpan, Operation, SearchQuery, TraceSummary};
use tricord_model::{SpanRecord, TraceId};
use tricord_wire::ErrorKind;

use super::super::Error;
use super::filter::{Filter, values};
use super::view::{self, span};
use crate::storage;

/// How far around its matching spans a trace is looked for, in nanoseconds: reading all windows for each of many
/// candidates would cost more than the rare trace that is longer is worth.
const TRACE_REACH_NS: u64 = 3_600_000_000_000;
/// A scan goes from window to window, newest first; within one, spans come in no order. No window is longer than this.
const WINDOW_REACH_NS: u64 = 3_600_000_000_000;
/// Candidates kept; beyond twice as many the older half goes.
const MAX_CANDIDATES: usize = 100_000;
/// Traces that one search returns at most.
const MAX_TRACES: usize = 10_000;
/// Matched spans returned per trace at most.
const MAX_SPANS_PER_TRACE: u32 = 1000;
/// Spans looked at for lists of names: recent data names what there is.
const MAX_LISTED_SPANS: u64 = 1_000_000;
/// Names that one list has at most, and the bytes of one value.
const MAX_NAMES: usize = 10_000;
const MAX_VALUE_BYTES: usize = 512;
/// How often a scan looks whether it can end, in spans.
const CHECK_EVERY: u64 = 1 << 14;

/// Where spans come from.
pub(super) trait Spans {
    /// The spans of one trace that start in the range, without exact duplicates.
    fn trace(&self, id: &TraceId, start_ns: u64, end_ns: u64) -> Result<Vec<SpanRecord>, storage::Error>;

    /// Visits spans that start in the range, newest window first.
    fn scan(
        &self,
        start_ns: u64,
        end_ns: u64,
        visit: &mut dyn FnMut(&SpanRecord) -> ControlFlow<()>,
    ) -> Result<(), storage::Error>;
}

impl Spans for storage::Reader {
    fn trace(&self, id: &TraceId, start_ns: u64, end_ns: u64) -> Result<Vec<SpanRecord>, storage::Error> {
        self.trace(id, start_ns, end_ns)
    }

    fn scan(
        &self,
        start_ns: u64,
        end_ns: u64,
        visit: &mut dyn FnMut(&SpanRecord) -> ControlFlow<()>,
    ) -> Result<(), storage::Error> {
        self.scan_spans(start_ns, end_ns, visit)
    }
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Found<T> {
    pub(super) items: Vec<T>,
    /// Spans looked at.
    pub(super) spans: u64,
    /// Whether a bound has ended the scan or cut the list.
    pub(super) truncated: bool,
}

/// The end of a range, where 0 stands for none.
pub(super) fn end_or_open(end_ns: u64) -> u64 {
    if end_ns == 0 { u64::MAX } else { end_ns }
}

/// Traces with a span that matches and what is known of each: the starts of its earliest and latest matching span.
struct Candidates {
    by_trace: HashMap<TraceId, (u64, u64)>,
    wanted: usize,
}

impl Candidates {
    fn add(&mut self, record: &SpanRecord) {
        let entry = self.by_trace.entry(record.trace_id).or_insert((record.start_ns, record.start_ns));
        entry.0 = entry.0.min(record.start_ns);
        entry.1 = entry.1.max(record.start_ns);
        if self.by_trace.len() > 2 * MAX_CANDIDATES
            && let Some(oldest) = self.nth_newest(MAX_CANDIDATES)
        {
            self.by_trace.retain(|_, (earliest, _)| *earliest > oldest);
        }
    }

    fn nth_newest(&self, nth: usize) -> Option<u64> {
        if self.by_trace.len() <= nth {
            return None;
        }
        let mut starts: Vec<u64> = self.by_trace.values().map(|(earliest, _)| *earliest).collect();
        let (_, found, _) = starts.select_nth_unstable_by(nth, |a, b| b.cmp(a));
        Some(*found)
    }

    /// Whether spans from here on can no longer bring a trace that is newer than those wanted: the windows that follow
    /// are older than this span's, and a trace starts at most its reach before its matching spans.
    fn are_enough(&self, at_ns: u64) -> bool {
        let worst = self.wanted.checked_sub(1).and_then(|nth| self.nth_newest(nth));
        worst
            .is_some_and(|worst| worst.saturating_sub(TRACE_REACH_NS) > at_ns.saturating_add(WINDOW_REACH_NS))
    }
}

/// Traces with a span for which all conditions hold, newest first; traces of one start by their ids.
pub(super) fn search(
    source: &dyn Spans,
    query: &SearchQuery,
    limits: &QueryLimits,
    cancelled: &AtomicBool,
) -> Result<Found<TraceSummary>, Error> {
    let filter = Filter::new(&query.conditions, &query.select)?;
    let wanted = (query.limit as usize).min(MAX_TRACES);
    let asks_traces = filter.asks_traces() || query.min_trace_ns > 0 || query.max_trace_ns > 0;
    let mut candidates = Candidates { by_trace: HashMap::new(), wanted };
    let mut found = Found::default();
    let (spans, truncated) = (&mut found.spans, &mut found.truncated);
    source.scan(query.start_ns, end_or_open(query.end_ns), &mut |record| {
        *spans += 1;
        if filter.span_matches(record) {
            candidates.add(record);
        }
        if *spans % CHECK_EVERY == 0 {
            *truncated = *spans >= limits.max_samples;
            let enough = !asks_traces && candidates.are_enough(record.start_ns);
            if *truncated || enough || cancelled.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    found.items = newest(source, query, &filter, candidates, cancelled)?;
    Ok(found)
}

/// The newest of the candidates. A trace starts no later than its earliest matching span, so once as many as wanted
/// are found that start later than the next candidate's, no other can displace them.
fn newest(
    source: &dyn Spans,
    query: &SearchQuery,
    filter: &Filter,
    candidates: Candidates,
    cancelled: &AtomicBool,
) -> Result<Vec<TraceSummary>, Error> {
    let wanted = candidates.wanted;
    let mut ordered: Vec<_> = candidates.by_trace.into_iter().collect();
    ordered.sort_unstable_by(|(a_id, (a, _)), (b_id, (b, _))| b.cmp(a).then(a_id.cmp(b_id)));
    let mut best: Vec<TraceSummary> = Vec::new();
    for (id, (earliest, latest)) in ordered {
        if wanted == 0 || (best.len() >= wanted && best.last().is_some_and(|last| last.start_ns > earliest)) {
            break;
        }
        check(cancelled)?;
        let (from, to) = (earliest.saturating_sub(TRACE_REACH_NS), latest.saturating_add(TRACE_REACH_NS));
        let spans = source.trace(&id, from, to)?;
        let Some(trace) = summary(&id, &spans, query, filter) else { continue };
        let fits = query.max_trace_ns == 0 || trace.duration_ns <= query.max_trace_ns;
        if trace.duration_ns < query.min_trace_ns || !fits || !filter.trace_matches(&trace) {
            continue;
        }
        let order = |other: &TraceSummary| {
            other.start_ns.cmp(&trace.start_ns).reverse().then(other.trace_id.cmp(&id.0))
        };
        let at = best.partition_point(|other| order(other).is_lt());
        best.insert(at, trace);
        best.truncate(wanted);
    }
    Ok(best)
}

/// What is told of a trace; `None` where no span matches (it went away since).
fn summary(id: &TraceId, spans: &[SpanRecord], query: &SearchQuery, filter: &Filter) -> Option<TraceSummary> {
    let start_ns = spans.iter().map(|record| record.start_ns).min()?;
    let end_ns = spans.iter().map(|record| record.end_ns).max()?;
    let mut services: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut errors = 0;
    for record in spans {
        let failed = u32::from(span::status(&record.span) == "error");
        let counts = services.entry(view::service(&record.resource)).or_default();
        *counts = (counts.0 + 1, counts.1 + failed);
        errors += failed;
    }
    let roots = spans.iter().filter(|record| span::parent(&record.span).is_none());
    let root = roots.min_by_key(|record| (record.start_ns, record.span_id));
    let range = query.start_ns..=end_or_open(query.end_ns);
    let matching =
        spans.iter().filter(|record| range.contains(&record.start_ns) && filter.span_matches(record));
    let mut matched: Vec<&SpanRecord> = matching.collect();
    matched.sort_by_key(|record| (record.start_ns, record.span_id));
    let matched_total = u32::try_from(matched.len()).unwrap_or(u32::MAX);
    matched.truncate(query.spans_per_trace.min(MAX_SPANS_PER_TRACE) as usize);
    (matched_total > 0).then(|| TraceSummary {
        trace_id: id.0,
        root_service: root.map_or("", |root| view::service(&root.resource)).to_owned(),
        root_name: root.map_or("", |root| span::name(&root.span)).to_owned(),
        start_ns,
        duration_ns: end_ns.saturating_sub(start_ns),
        spans: u32::try_from(spans.len()).unwrap_or(u32::MAX),
        errors,
        matched: matched.into_iter().map(|record| matched_span(record, filter)).collect(),
        matched_total,
        services: services
            .into_iter()
            .map(|(name, (spans, errors))| (name.to_owned(), spans, errors))
            .collect(),
    })
}

fn matched_span(record: &SpanRecord, filter: &Filter) -> MatchedSpan {
    MatchedSpan {
        span_id: record.span_id,
        name: span::name(&record.span).to_owned(),
        start_ns: record.start_ns,
        duration_ns: record.end_ns.saturating_sub(record.start_ns),
        attributes: filter.shown(record),
    }
}

/// Fails once the asker is gone.
fn check(cancelled: &AtomicBool) -> Result<(), Error> {
    match cancelled.load(Ordering::Relaxed) {
        true => Err(Error::new(ErrorKind::Cancelled, "the query was cancelled")),
        false => Ok(()),
    }
}

/// Visits the newest spans for a list, a bounded number of them.
fn list<T: Ord>(
    source: &dyn Spans,
    (start_ns, end_ns): (u64, u64),
    cancelled: &AtomicBool,
    max_names: usize,
    add: &mut dyn FnMut(&SpanRecord, &mut BTreeSet<T>),
) -> Result<Found<T>, Error> {
    let (mut names, mut spans, mut truncated) = (BTreeSet::new(), 0u64, false);
    source.scan(start_ns, end_or_open(end_ns), &mut |record| {
        spans += 1;
        add(record, &mut names);
        truncated = spans >= MAX_LISTED_SPANS || names.len() > max_names;
        if truncated || (spans % CHECK_EVERY == 0 && cancelled.load(Ordering::Relaxed)) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    check(cancelled)?;
    Ok(Found { items: names.into_iter().take(max_names).collect(), spans, truncated })
}

/// Services and their operations, of one service or (empty) of all.
pub(super) fn operations(
    source: &dyn Spans,
    service: &str,
    range: (u64, u64),
    cancelled: &AtomicBool,
) -> Result<Found<Operation>, Error> {
    // Most spans repeat an operation: looking it up must not allocate.
    let mut seen: HashMap<String, HashMap<String, BTreeSet<&'static str>>> = HashMap::new();
    list(source, range, cancelled, MAX_NAMES, &mut |record, names| {
        let found = view::service(&record.resource);
        if !service.is_empty() && found != service {
            return;
        }
        let (name, kind) = (span::name(&record.span), span::kind(&record.span));
        let kinds = seen.get(found).and_then(|operations| operations.get(name));
        if !kinds.is_some_and(|kinds| kinds.contains(kind)) {
            seen.entry(found.to_owned()).or_default().entry(name.to_owned()).or_default().insert(kind);
            names.insert(Operation {
                service: found.to_owned(),
                name: name.to_owned(),
                kind: kind.to_owned(),
            });
        }
    })
}

/// Attribute names as `scope NUL name`.
pub(super) fn tags(
    source: &dyn Spans,
    range: (u64, u64),
    cancelled: &AtomicBool,
) -> Result<Found<String>, Error> {
    let (mut resource, mut scope) = (bytes::Bytes::new(), bytes::Bytes::new());
    list(source, range, cancelled, MAX_NAMES, &mut |record, names| {
        let mut add = |scope: &str, message: &[u8], number: u32| {
            for attribute in view::attributes(message, number) {
                names.insert(format!("{scope}\0{}", attribute.key));
            }
        };
        add("span", &record.span, span::ATTRIBUTES);
        view::messages(&record.span, span::EVENTS)
            .for_each(|event| add("event", event, view::EVENT_ATTRIBUTES));
        view::messages(&record.span, span::LINKS).for_each(|link| add("link", link, view::LINK_ATTRIBUTES));
        // Neighbours mostly share these.
        if resource != record.resource {
            add("resource", &record.resource, view::RESOURCE_ATTRIBUTES);
            resource = record.resource.clone();
        }
        if scope != record.scope {
            add("instrumentation", &record.scope, view::SCOPE_ATTRIBUTES);
            scope = record.scope.clone();
        }
    })
}

/// Values of a field as `type NUL value`, of spans that match.
pub(super) fn tag_values(
    source: &dyn Spans,
    field: &Field,
    filter: &Filter,
    range: (u64, u64),
    limit: u64,
    cancelled: &AtomicBool,
) -> Result<Found<String>, Error> {
    let limit = usize::try_from(limit).unwrap_or(MAX_NAMES).min(MAX_NAMES);
    let limit = if limit == 0 { MAX_NAMES } else { limit };
    // Of the root's fields, the values are those of root spans.
    let (field, roots_only) = match field {
        Field::RootName => (Field::Name, true),
        Field::RootServiceName => (Field::Resource("service.name".to_owned()), true),
        other => (other.clone(), false),
    };
    let is_keyword = matches!(field, Field::Status | Field::Kind);
    list(source, range, cancelled, limit, &mut |record, names| {
        if (roots_only && span::parent(&record.span).is_some()) || !filter.span_matches(record) {
            return;
        }
        for value in values(&field, record) {
            let text = value.to_string();
            if text.len() <= MAX_VALUE_BYTES && !text.is_empty() {
                let kind = if is_keyword { "keyword" } else { value.type_name() };
                names.insert(format!("{kind}\0{text}"));
            }
        }
    })
}
