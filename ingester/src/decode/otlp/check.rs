//! Judges a protobuf request in place: wire types, UTF-8, nesting, and what it would cost once decoded.
//!
//! A generated decoder turns two bytes into a struct of hundreds; here the bill is made out before anything is built.
//! Spans are stored as they came, so this check is also what keeps garbage out of the store.

use super::super::Allowance;
use super::super::wire::{Field as Value, Message as Walk, WireError};
use super::Signal;
use super::schema::{Field, Kind, Message, SPAN};
use crate::Error;

/// How deep messages may lie in one another; an attribute value takes three levels for each list or map.
pub(super) const MAX_DEPTH: u32 = 96;

/// Checks a request and charges its decoded size. Spans are never built, only cut out: of those, each costs its record.
///
/// # Errors
/// [`Error::Invalid`] naming the message that is broken, [`Error::TooLarge`] when the allowance is spent.
pub fn check(signal: Signal, bytes: &[u8], allowance: &mut Allowance) -> Result<(), Error> {
    let built = signal == Signal::Metrics;
    message(signal.request(), bytes, MAX_DEPTH, built, allowance)
}

/// Checks a message that lies so many levels deep in its request, and charges what it takes once built.
///
/// # Errors
/// As [`check`].
pub(super) fn check_piece(
    schema: &'static Message,
    level: u32,
    bytes: &[u8],
    allowance: &mut Allowance,
) -> Result<(), Error> {
    message(schema, bytes, MAX_DEPTH - level, true, allowance)
}

fn message(
    schema: &'static Message,
    bytes: &[u8],
    depth: u32,
    built: bool,
    allowance: &mut Allowance,
) -> Result<(), Error> {
    let wrong = |error: WireError| {
        let name = schema.name.to_lowercase().replace('_', " ");
        Error::Invalid(format!("body is not a valid OTLP request: {name}: {error}"))
    };
    if depth == 0 {
        return Err(wrong(WireError::TooDeep(MAX_DEPTH)));
    }
    if built || std::ptr::eq(schema, &SPAN) {
        schema.pay(allowance)?;
    }
    let mut walk = Walk::new(bytes);
    while let Some((number, value)) = walk.next().map_err(wrong)? {
        // Unknown fields are legal: senders may be newer than this build.
        let Some(field) = schema.field(number) else { continue };
        match field.kind {
            Kind::Message(inner) => {
                message(inner, value.bytes(number).map_err(wrong)?, depth - 1, built, allowance)?
            }
            _ => {
                let size = scalar(field, value).map_err(wrong)?;
                allowance.charge(if built { size } else { 0 })?;
            }
        }
    }
    Ok(())
}

/// Checks a field that is no message; the answer is its decoded size on the heap.
fn scalar(field: &Field, value: Value<'_>) -> Result<usize, WireError> {
    let number = field.number;
    let packed = |width: usize| match value {
        Value::Bytes(bytes) if field.repeated && bytes.len() % width == 0 => Ok(bytes.len()),
        _ => Err(WireError::WrongType(number)),
    };
    match (field.kind, value) {
        (Kind::Str, value) => Ok(value.str(number)?.len() + if field.repeated { 24 } else { 0 }),
        (Kind::Bytes | Kind::Id, value) => Ok(value.bytes(number)?.len()),
        (Kind::Fixed64 | Kind::Double, Value::Fixed64(_)) => Ok(8),
        (Kind::Fixed64 | Kind::Double, _) => packed(8),
        (Kind::Fixed32, Value::Fixed32(_)) => Ok(4),
        (Kind::Fixed32, _) => packed(4),
        (_, Value::Varint(_)) => Ok(8),
        (_, Value::Bytes(bytes)) if field.repeated => {
            let mut inside = Walk::new(bytes);
            while !inside.is_empty() {
                inside.varint()?;
            }
            Ok(8 * bytes.len())
        }
        _ => Err(WireError::WrongType(number)),
    }
}
