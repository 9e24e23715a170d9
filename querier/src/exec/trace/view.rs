//! Looks into the protobuf of a span without decoding all of it: a scan touches most spans for one or two fields.
//!
//! The ingester has checked every message, so bytes that are no protobuf simply end an iteration here.

use smallvec::SmallVec;

/// A field of a message, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    fn number(self) -> u64 {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => number,
            Self::Fixed32(number) => u64::from(number),
            Self::Bytes(_) => 0,
        }
    }
}

/// The fields of a message, in the order of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for at in 0..10 {
            let byte = *self.0.get(at)?;
            value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Wire<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, wire))
    }
}

/// A repeated or nested message's bytes.
pub(super) fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields(message).filter(move |(found, _)| *found == number).map(|(_, wire)| wire.bytes())
}

/// A text; empty where it is not there.
pub(super) fn text(message: &[u8], number: u32) -> &str {
    std::str::from_utf8(bytes(message, number)).unwrap_or_default()
}

/// Bytes; empty where they are not there.
pub(super) fn bytes(message: &[u8], number: u32) -> &[u8] {
    // Of a field that is there twice, the last one counts.
    messages(message, number).last().unwrap_or_default()
}

/// A number; 0 where it is not there.
pub(super) fn number(message: &[u8], number: u32) -> u64 {
    Fields(message).filter(|(found, _)| *found == number).last().map_or(0, |(_, wire)| wire.number())
}

/// Field numbers of `opentelemetry.proto.trace.v1.Span`.
pub(super) mod span {
    use super::{bytes, number, text};

    pub(in super::super) const ATTRIBUTES: u32 = 9;
    pub(in super::super) const EVENTS: u32 = 11;
    pub(in super::super) const LINKS: u32 = 13;
    const PARENT: u32 = 4;
    const NAME: u32 = 5;
    const KIND: u32 = 6;
    const STATUS: u32 = 15;

    pub(in super::super) fn name(span: &[u8]) -> &str {
        text(span, NAME)
    }

    /// The kind in Jaeger's words, empty where it is not given.
    pub(in super::super) fn kind(span: &[u8]) -> &'static str {
        match number(span, KIND) {
            1 => "internal",
            2 => "server",
            3 => "client",
            4 => "producer",
            5 => "consumer",
            _ => "",
        }
    }

    pub(in super::super) fn status(span: &[u8]) -> &'static str {
        match number(bytes(span, STATUS), 3) {
            1 => "ok",
            2 => "error",
            _ => "unset",
        }
    }

    pub(in super::super) fn status_message(span: &[u8]) -> &str {
        text(bytes(span, STATUS), 2)
    }

    /// The parent's id; `None` for a root span.
    pub(in super::super) fn parent(span: &[u8]) -> Option<&[u8]> {
        Some(bytes(span, PARENT)).filter(|id| id.iter().any(|byte| *byte != 0))
    }
}

/// Field number of the attributes of a resource.
pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
/// Field number of the attributes of a scope or an event.
pub(super) const SCOPE_ATTRIBUTES: u32 = 3;
/// Field number of the attributes of an event.
pub(super) const EVENT_ATTRIBUTES: u32 = 3;
/// Field number of the attributes of a link.
pub(super) const LINK_ATTRIBUTES: u32 = 4;

/// An attribute: the whole `KeyValue`, and its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) key_value: &'a [u8],
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

/// The attributes of a message.
pub(super) fn attributes(message: &[u8], number: u32) -> impl Iterator<Item = Attribute<'_>> {
    messages(message, number).map(|key_value| Attribute {
        key_value,
        key: text(key_value, 1),
        value: bytes(key_value, 2),
    })
}

/// The attributes with one key.
pub(super) fn attributes_of<'a>(
    message: &'a [u8],
    number: u32,
    key: &'a str,
) -> impl Iterator<Item = Attribute<'a>> {
    attributes(message, number).filter(move |attribute| attribute.key == key)
}

/// The `service.name` of a resource; empty where it has none.
pub(super) fn service(resource: &[u8]) -> &str {
    attributes_of(resource, RESOURCE_ATTRIBUTES, "service.name")
        .next()
        .map_or("", |found| text(found.value, 1))
}

/// A value that can be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Id(&'a [u8]),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// A map or bytes: it is there, and equal to nothing.
    Other,
}

impl Scalar<'_> {
    /// The name of its type, as tag searches show it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Id(_) | Self::Other => "string",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bool(_) => "bool",
        }
    }
}

impl std::fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Id(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::Other => Ok(()),
        }
    }
}

/// Values of a field on one span.
pub(super) type Scalars<'a> = SmallVec<[Scalar<'a>; 2]>;

/// Adds an `AnyValue`; of an array, its elements.
pub(super) fn scalars<'a>(any_value: &'a [u8], out: &mut Scalars<'a>) {
    let Some((number, wire)) = Fields(any_value).last() else {
        return;
    };
    out.push(match number {
        1 => Scalar::Text(std::str::from_utf8(wire.bytes()).unwrap_or_default()),
        2 => Scalar::Bool(wire.number() != 0),
        3 => Scalar::Int(wire.number() as i64),
        4 => Scalar::Float(f64::from_bits(wire.number())),
        5 => {
            // One level: an array within an array is equal to nothing.
            for element in messages(wire.bytes(), 1) {
                let mut inner = Scalars::new();
                if Fields(element).last().is_some_and(|(number, _)| number < 5) {
                    scalars(element, &mut inner);
                } else {
                    inner.push(Scalar::Other);
                }
                out.extend(inner);
            }
            return;
        }
        _ => Scalar::Other,
    });
}
