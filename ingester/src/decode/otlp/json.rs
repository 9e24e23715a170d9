//! OTLP's JSON form, turned into protobuf while it is parsed, so that one path reads both.
//!
//! As the specification has it: ids are hex in any case, 64-bit integers strings or numbers, enums integers, unknown
//! fields ignored; as protobuf's JSON has it: `null` is the default, `NaN` and `Infinity` are strings. Nothing but
//! the output is allocated, and protobuf is never longer than the JSON it came from.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::wire::put;
use super::Signal;
use super::schema::{Field, Kind, Message};
use crate::Error;

/// Turns a JSON request into its protobuf form.
///
/// # Errors
/// [`Error::Invalid`] with the line and column of what is wrong.
pub fn to_protobuf(signal: Signal, json: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(json.len() / 2);
    let invalid = |error| Error::Invalid(format!("body is not valid OTLP JSON: {error}"));
    // serde_json stops at 128 levels by itself.
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Object { schema: signal.request(), out: &mut out }.deserialize(&mut deserializer).map_err(invalid)?;
    deserializer.end().map_err(invalid)?;
    Ok(out)
}

/// Reads one object into a message's fields.
struct Object<'a> {
    schema: &'static Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.schema.name.to_lowercase().replace('_', " "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.schema.named(&name) {
                Some(field) => map.next_value_seed(Value { field, out: self.out, inside: false })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Reads one field's value, or each of its values.
struct Value<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
    /// Whether this is an element of the field's list.
    inside: bool,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    fn varint(&mut self, value: u64) {
        put::varint(self.field.number, value, self.out);
    }

    fn fixed64(&mut self, value: u64) {
        put::fixed64(self.field.number, value, self.out);
    }

    fn unexpected<E: serde::de::Error>(&self, what: &str) -> E {
        E::custom(format!("field {:?} does not take {what}", self.field.json))
    }

    /// An integer, wherever the field stores integers; `value` is two's complement.
    fn integer<E: serde::de::Error>(&mut self, value: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Varint | Kind::Enum(_) => self.varint(value),
            Kind::Zigzag => {
                let value = value as i64;
                self.varint(((value << 1) ^ (value >> 63)) as u64);
            }
            Kind::Fixed64 => self.fixed64(value),
            Kind::Fixed32 => {
                let value =
                    u32::try_from(value).map_err(|_| self.unexpected::<E>("numbers beyond 32 bits"))?;
                put::tag(self.field.number, 5, self.out);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            _ => return Err(self.unexpected("a number")),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {:?}", self.field.json)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.inside { Err(self.unexpected("null inside its list")) } else { Ok(()) }
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => {
                self.varint(u64::from(value));
                Ok(())
            }
            _ => Err(self.unexpected("true or false")),
        }
    }

    fn visit_u64<E: serde::de::Error>(mut self, value: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.visit_f64(value as f64),
            _ => self.integer(value),
        }
    }

    fn visit_i64<E: serde::de::Error>(mut self, value: i64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.visit_f64(value as f64),
            _ => self.integer(value as u64),
        }
    }

    fn visit_f64<E: serde::de::Error>(mut self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                self.fixed64(value.to_bits());
                Ok(())
            }
            // Some encoders write whole numbers with an exponent or a fraction of zero.
            Kind::Varint | Kind::Zigzag | Kind::Fixed64 | Kind::Fixed32
                if value.fract() == 0.0 && value.abs() < 9e15 =>
            {
                self.integer(value as i64 as u64)
            }
            _ => Err(self.unexpected("a fraction")),
        }
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::Str => put::bytes(self.field.number, text.as_bytes(), self.out),
            Kind::Id => {
                let id = hex::decode(text).map_err(|_| self.unexpected::<E>("text that is not hex"))?;
                put::bytes(self.field.number, &id, self.out);
            }
            Kind::Bytes => {
                let bytes = base64(text).ok_or_else(|| self.unexpected::<E>("text that is not base64"))?;
                put::bytes(self.field.number, &bytes, self.out);
            }
            Kind::Double => {
                let value: f64 =
                    text.parse().map_err(|_| self.unexpected::<E>("text that is not a number"))?;
                self.fixed64(value.to_bits());
            }
            Kind::Enum(names) => match names.iter().find(|(name, _)| *name == text) {
                Some((_, number)) => self.varint(*number),
                None => return self.whole(text),
            },
            Kind::Varint | Kind::Zigzag | Kind::Fixed64 | Kind::Fixed32 => return self.whole(text),
            Kind::Bool | Kind::Message(_) => return Err(self.unexpected("text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { field, out, inside } = self;
        if inside || !field.repeated {
            return Err(A::Error::custom(format!("field {:?} does not take a list", field.json)));
        }
        while list.next_element_seed(Value { field, out: &mut *out, inside: true })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Kind::Message(schema) = self.field.kind else { return Err(self.unexpected("an object")) };
        if self.field.repeated && !self.inside {
            return Err(self.unexpected("an object: it is a list"));
        }
        let mut message = Vec::new();
        Object { schema, out: &mut message }.visit_map(map)?;
        put::bytes(self.field.number, &message, self.out);
        Ok(())
    }
}

impl Value<'_> {
    /// An integer written as text.
    fn whole<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        let value = text.parse::<u64>().or_else(|_| text.parse::<i64>().map(|value| value as u64));
        self.integer(value.map_err(|_| self.unexpected::<E>("text that is not a whole number"))?)
    }
}

/// Decodes base64, in the standard or the URL alphabet, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        bits <<= 6 * (4 - group.len()) + 8;
        match group.len() {
            4 => out.extend_from_slice(&bits.to_be_bytes()[..3]),
            3 => out.extend_from_slice(&bits.to_be_bytes()[..2]),
            2 => out.extend_from_slice(&bits.to_be_bytes()[..1]),
            _ => return None,
        }
    }
    Some(out)
}
