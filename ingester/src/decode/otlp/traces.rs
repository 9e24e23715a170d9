//! Spans, cut out of the request as they came.

use bytes::Bytes;
use tricord_model::{SpanRecord, TraceId};

use super::super::wire::{Message, WireError};
use super::super::{Allowance, Decoded};
use super::Signal;
use crate::Error;

/// Decodes a traces request. Spans without valid ids are counted in `rejected`; the others are kept.
///
/// The records point into `body`: nothing is copied.
///
/// # Errors
/// [`Error::Invalid`] for what is not such a request, [`Error::TooLarge`] when the allowance is spent.
pub fn decode(body: &Bytes, allowance: &mut Allowance) -> Result<Decoded, Error> {
    super::check(Signal::Traces, body, allowance)?;
    let mut decoded = Decoded::default();
    let mut message = Message::new(body);
    while let Some((number, field)) = message.next()? {
        if number == 1 {
            resource_spans(body, field.bytes(number)?, &mut decoded)?;
        }
    }
    Ok(decoded)
}

/// Who the spans of a `ScopeSpans` come from.
#[derive(Clone, Default)]
struct Context {
    resource: Bytes,
    resource_schema_url: String,
    scope: Bytes,
    scope_schema_url: String,
}

fn resource_spans(body: &Bytes, bytes: &[u8], decoded: &mut Decoded) -> Result<(), WireError> {
    let mut context = Context::default();
    // Fields may come in any order, and the schema URL usually comes last.
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => context.resource = body.slice_ref(field.bytes(number)?),
            3 => field.str(number)?.clone_into(&mut context.resource_schema_url),
            _ => {}
        }
    }
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        if number == 2 {
            scope_spans(body, field.bytes(number)?, context.clone(), decoded)?;
        }
    }
    Ok(())
}

fn scope_spans(
    body: &Bytes,
    bytes: &[u8],
    mut context: Context,
    decoded: &mut Decoded,
) -> Result<(), WireError> {
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => context.scope = body.slice_ref(field.bytes(number)?),
            3 => field.str(number)?.clone_into(&mut context.scope_schema_url),
            _ => {}
        }
    }
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        if number == 2 {
            match span(body, field.bytes(number)?, &context)? {
                Ok(record) => decoded.batch.spans.push(record),
                Err(reason) => {
                    decoded.rejected.spans += 1;
                    decoded.rejected.reason(reason);
                }
            }
        }
    }
    Ok(())
}

/// A span's record, or why it is refused.
fn span(body: &Bytes, bytes: &[u8], context: &Context) -> Result<Result<SpanRecord, String>, WireError> {
    let (mut trace_id, mut span_id, mut name): (&[u8], &[u8], &str) = (&[], &[], "");
    let (mut start_ns, mut end_ns) = (0, 0);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => trace_id = field.bytes(number)?,
            2 => span_id = field.bytes(number)?,
            5 => name = field.str(number)?,
            7 => start_ns = field.fixed64(number)?,
            8 => end_ns = field.fixed64(number)?,
            _ => {}
        }
    }
    let name = super::super::labels::short(name);
    let Some(trace_id) = id::<16>(trace_id) else {
        return Ok(Err(format!("span {name:?} has no trace id of 16 bytes that are not all zero")));
    };
    let Some(span_id) = id::<8>(span_id) else {
        return Ok(Err(format!("span {name:?} has no span id of 8 bytes that are not all zero")));
    };
    let Context { resource, resource_schema_url, scope, scope_schema_url } = context.clone();
    Ok(Ok(SpanRecord {
        trace_id: TraceId(trace_id),
        span_id,
        start_ns,
        end_ns,
        resource,
        resource_schema_url,
        scope,
        scope_schema_url,
        span: body.slice_ref(bytes),
    }))
}

fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    <[u8; N]>::try_from(bytes).ok().filter(|id| id.iter().any(|byte| *byte != 0))
}
