//! Spans as bytes: in batches, in log entries and in blocks.

use std::collections::HashMap;

use bytes::Bytes;

use crate::SpanRecord;
use crate::codec::{CodecError, Reader, Writer};

/// The first bytes of encoded spans: a version, and two counts of what once could stand before spans.
const HEAD: [u8; 3] = [1, 0, 0];

/// Spans as bytes, with each distinct pair of resource and scope written once.
#[must_use]
pub fn encode_spans(spans: &[SpanRecord]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + spans.len() * 256);
    bytes.extend_from_slice(&HEAD);
    write_spans(spans, &mut Writer::new(&mut bytes));
    bytes
}

/// Reads what [`encode_spans`] wrote.
///
/// # Errors
/// [`CodecError`] when the bytes end early, are malformed, or carry another version.
pub fn decode_spans(bytes: &[u8]) -> Result<Vec<SpanRecord>, CodecError> {
    let input = &mut Reader::new(bytes);
    if input.raw(HEAD.len())? != HEAD {
        return Err(CodecError::Invalid("unknown version of spans"));
    }
    let spans = read_spans(input)?;
    if input.is_empty() { Ok(spans) } else { Err(CodecError::Invalid("bytes after the end of spans")) }
}

fn write_spans(spans: &[SpanRecord], out: &mut Writer<'_>) {
    let context = |span: &SpanRecord| {
        (
            span.resource.clone(),
            span.resource_schema_url.clone(),
            span.scope.clone(),
            span.scope_schema_url.clone(),
        )
    };
    let mut contexts = Vec::new();
    let mut numbers = HashMap::new();
    let mut places = Vec::with_capacity(spans.len());
    for span in spans {
        let number = *numbers.entry(context(span)).or_insert_with(|| {
            contexts.push(context(span));
            contexts.len() as u64 - 1
        });
        places.push(number);
    }
    out.u64(contexts.len() as u64);
    for (resource, resource_url, scope, scope_url) in &contexts {
        out.bytes(resource);
        out.str(resource_url);
        out.bytes(scope);
        out.str(scope_url);
    }
    out.u64(spans.len() as u64);
    for (span, place) in spans.iter().zip(places) {
        out.u64(place);
        span.encode_span(out);
    }
}

fn read_spans(input: &mut Reader<'_>) -> Result<Vec<SpanRecord>, CodecError> {
    let mut contexts = Vec::new();
    for _ in 0..input.count(4)? {
        let resource = Bytes::copy_from_slice(input.bytes()?);
        let resource_url = input.str()?.to_owned();
        let scope = Bytes::copy_from_slice(input.bytes()?);
        contexts.push((resource, resource_url, scope, input.str()?.to_owned()));
    }
    let mut spans = Vec::new();
    for _ in 0..input.count(28)? {
        let place = input.u64()? as usize;
        let (resource, resource_url, scope, scope_url) =
            contexts.get(place).ok_or(CodecError::Invalid("span of an unknown resource"))?;
        let mut span = SpanRecord::decode_span(input)?;
        span.resource = resource.clone();
        span.resource_schema_url.clone_from(resource_url);
        span.scope = scope.clone();
        span.scope_schema_url.clone_from(scope_url);
        spans.push(span);
    }
    Ok(spans)
}
