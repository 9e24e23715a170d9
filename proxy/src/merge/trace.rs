//! Merging of spans, trace summaries and operations. A trace lies on one shard, so merging searches is ordering.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tricord_fragment::trace::{Operation, TraceSummary};
use tricord_fragment::{Partial, PartialBody};
use tricord_model::SpanRecord;

use super::lists::mismatch;
use crate::error::Error;

/// The spans of a trace, each once, by start. Two spans of one id are one only where all their bytes are the same.
///
/// # Errors
/// [`Error::Internal`] when a partial is of another kind; so for all functions here.
pub fn spans(partials: Vec<Partial>) -> Result<Vec<SpanRecord>, Error> {
    let mut all = Vec::new();
    let mut seen: HashSet<([u8; 8], Bytes, Bytes)> = HashSet::new();
    for partial in partials {
        let PartialBody::Spans(spans) = partial.body else { return Err(mismatch("spans")) };
        for span in spans {
            if seen.insert((span.span_id, span.span.clone(), span.resource.clone())) {
                all.push(span);
            }
        }
    }
    all.sort_by(|a, b| (a.start_ns, a.span_id, &a.span).cmp(&(b.start_ns, b.span_id, &b.span)));
    Ok(all)
}

/// Traces, newest first, those of one start by their ids; at most `limit`.
///
/// # Errors
/// As [`spans`].
pub fn traces(partials: Vec<Partial>, limit: usize) -> Result<Vec<TraceSummary>, Error> {
    let mut all = Vec::new();
    for partial in partials {
        let PartialBody::Traces(traces) = partial.body else { return Err(mismatch("traces")) };
        all.extend(traces);
    }
    all.sort_by(|a, b| b.start_ns.cmp(&a.start_ns).then(a.trace_id.cmp(&b.trace_id)));
    all.dedup_by_key(|trace| trace.trace_id);
    all.truncate(limit);
    Ok(all)
}

/// Operations, sorted, each once.
///
/// # Errors
/// As [`spans`].
pub fn operations(partials: Vec<Partial>) -> Result<Vec<Operation>, Error> {
    let mut all = BTreeSet::new();
    for partial in partials {
        let PartialBody::Operations(operations) = partial.body else { return Err(mismatch("operations")) };
        all.extend(operations);
    }
    Ok(all.into_iter().collect())
}

/// Spans as OTLP groups them: by resource, then by scope, in the order of their first span.
///
/// # Errors
/// [`Error::Internal`] where stored bytes are no OTLP.
pub fn resource_spans(records: &[SpanRecord]) -> Result<Vec<ResourceSpans>, Error> {
    let mut out: Vec<ResourceSpans> = Vec::new();
    let mut resources: HashMap<(&Bytes, &str), usize> = HashMap::new();
    let mut scopes: HashMap<(usize, &Bytes, &str), usize> = HashMap::new();
    for record in records {
        let resource_key = (&record.resource, record.resource_schema_url.as_str());
        let at = match resources.get(&resource_key) {
            Some(at) => *at,
            None => {
                let resource = Some(decode::<Resource>(&record.resource)?);
                let schema_url = record.resource_schema_url.clone();
                out.push(ResourceSpans { resource, scope_spans: vec![], schema_url });
                resources.insert(resource_key, out.len() - 1);
                out.len() - 1
            }
        };
        let scope_spans = &mut out[at].scope_spans;
        let scope_key = (at, &record.scope, record.scope_schema_url.as_str());
        let scope_at = match scopes.get(&scope_key) {
            Some(scope_at) => *scope_at,
            None => {
                let scope = Some(decode::<InstrumentationScope>(&record.scope)?);
                scope_spans.push(ScopeSpans {
                    scope,
                    spans: vec![],
                    schema_url: record.scope_schema_url.clone(),
                });
                scopes.insert(scope_key, scope_spans.len() - 1);
                scope_spans.len() - 1
            }
        };
        scope_spans[scope_at].spans.push(decode::<Span>(&record.span)?);
    }
    Ok(out)
}

fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, Error> {
    M::decode(bytes.clone()).map_err(|error| Error::Internal(format!("a stored span is malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tricord_model::TraceId;

    fn record(id: u8, start_ns: u64, service: &str) -> SpanRecord {
        let attribute =
            opentelemetry_proto::tonic::common::v1::KeyValue { key: service.into(), ..Default::default() };
        let resource = Resource { attributes: vec![attribute], ..Resource::default() };
        let span = Span { span_id: vec![id; 8], start_time_unix_nano: start_ns, ..Span::default() };
        SpanRecord {
            trace_id: TraceId([1; 16]),
            span_id: [id; 8],
            start_ns,
            end_ns: start_ns + 1,
            resource: resource.encode_to_vec().into(),
            resource_schema_url: String::new(),
            scope: Bytes::new(),
            scope_schema_url: String::new(),
            span: span.encode_to_vec().into(),
        }
    }

    #[test]
    fn spans_are_united_and_grouped() {
        let partials = vec![
            Partial::of(PartialBody::Spans(vec![record(2, 20, "a"), record(1, 10, "b")])),
            // A span of the same id and other bytes is another span; an exact copy is not.
            Partial::of(PartialBody::Spans(vec![record(1, 10, "b"), record(1, 30, "b")])),
        ];
        let all = spans(partials).unwrap();
        assert_eq!(all.iter().map(|span| span.start_ns).collect::<Vec<_>>(), [10, 20, 30]);
        let grouped = resource_spans(&all).unwrap();
        let counts: Vec<_> = grouped.iter().map(|group| group.scope_spans[0].spans.len()).collect();
        assert_eq!(counts, [2, 1]);
        assert!(spans(vec![Partial::of(PartialBody::Names(vec![]))]).is_err());
    }

    #[test]
    fn traces_are_newest_first_whatever_the_order_of_partials() {
        let trace =
            |id: u8, start_ns| TraceSummary { trace_id: [id; 16], start_ns, ..TraceSummary::default() };
        let mut partials = vec![
            Partial::of(PartialBody::Traces(vec![trace(1, 30), trace(2, 10)])),
            Partial::of(PartialBody::Traces(vec![trace(4, 20), trace(3, 20)])),
        ];
        let ids = |partials| -> Vec<u8> {
            traces(partials, 3).unwrap().iter().map(|trace| trace.trace_id[0]).collect()
        };
        assert_eq!(ids(partials.clone()), [1, 3, 4]);
        partials.reverse();
        assert_eq!(ids(partials), [1, 3, 4]);
    }
}
