//! Fragments over spans: a trace by its id, search, and lists of operations, attribute names and values.

mod filter;
mod search;
#[cfg(test)]
mod tests;
mod view;

use std::sync::atomic::AtomicBool;

use tricord_fragment::trace::{Condition, Field, SearchQuery, TraceById};
use tricord_fragment::{FragmentStats, Partial, PartialBody, QueryLimits};
use tricord_model::TraceId;
use tricord_wire::ErrorKind;

use super::Error;
use crate::storage::Reader;
use filter::Filter;
use search::{Found, Spans, end_or_open};

/// The spans of one trace.
pub(super) fn by_id(
    reader: &Reader,
    query: &TraceById,
    limits: &QueryLimits,
    _cancelled: &AtomicBool,
) -> Result<Partial, Error> {
    let spans = Spans::trace(reader, &TraceId(query.trace_id), query.start_ns, end_or_open(query.end_ns))?;
    let size: u64 = spans.iter().map(|span| (span.span.len() + 64) as u64).sum();
    if size > limits.max_bytes {
        let text = format!(
            "the trace has {} spans of {size} bytes, more than the limit of {}: give a time range, or raise the \
             proxy's max_partial_bytes",
            spans.len(),
            limits.max_bytes
        );
        return Err(Error::new(ErrorKind::Limit, text));
    }
    let found = Found { spans: spans.len() as u64, items: spans, truncated: false };
    Ok(partial(reader, found, PartialBody::Spans))
}

/// Traces by conditions, newest first.
pub(super) fn search(
    reader: &Reader,
    query: &SearchQuery,
    limits: &QueryLimits,
    cancelled: &AtomicBool,
) -> Result<Partial, Error> {
    Ok(partial(reader, search::search(reader, query, limits, cancelled)?, PartialBody::Traces))
}

/// Services and operations of the newest spans.
pub(super) fn operations(
    reader: &Reader,
    service: &str,
    start_ns: u64,
    end_ns: u64,
    _limits: &QueryLimits,
    cancelled: &AtomicBool,
) -> Result<Partial, Error> {
    let found = search::operations(reader, service, (start_ns, end_ns), cancelled)?;
    Ok(partial(reader, found, PartialBody::Operations))
}

/// Attribute names of the newest spans.
pub(super) fn tags(
    reader: &Reader,
    start_ns: u64,
    end_ns: u64,
    _limits: &QueryLimits,
    cancelled: &AtomicBool,
) -> Result<Partial, Error> {
    Ok(partial(reader, search::tags(reader, (start_ns, end_ns), cancelled)?, PartialBody::Names))
}

/// Values of a field of the newest spans.
pub(super) fn tag_values(
    reader: &Reader,
    field: &Field,
    conditions: &[Condition],
    range: (u64, u64),
    limit: u64,
    cancelled: &AtomicBool,
) -> Result<Partial, Error> {
    let filter = Filter::new(conditions, &[])?;
    Ok(partial(
        reader,
        search::tag_values(reader, field, &filter, range, limit, cancelled)?,
        PartialBody::Names,
    ))
}

fn partial<T>(reader: &Reader, found: Found<T>, body: fn(Vec<T>) -> PartialBody) -> Partial {
    let stats = FragmentStats { spans: found.spans, bytes: reader.bytes_read(), ..FragmentStats::default() };
    Partial { stats, truncated: found.truncated, ..Partial::of(body(found.items)) }
}
