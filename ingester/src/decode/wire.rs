//! Walks protobuf messages in place: fields one after another, nothing allocated, every length checked.
//!
//! Generated decoders build a struct for each nested message before anyone can judge the request; two bytes of input
//! can cost a few hundred of memory. What the hot paths need is read straight from the bytes instead.

use tricord_model::codec::{CodecError, split_varint};

/// Why bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// The bytes end inside a field.
    #[error("message ends inside a field")]
    Truncated,
    /// A tag or varint that no encoder writes.
    #[error("malformed field")]
    Malformed,
    /// A field has another wire type than its definition says.
    #[error("field {0} has the wrong wire type")]
    WrongType(u32),
    /// Text that is not UTF-8.
    #[error("field {0} is not valid UTF-8")]
    NotUtf8(u32),
    /// Messages inside messages beyond the bound.
    #[error("messages are nested deeper than {0} levels")]
    TooDeep(u32),
}

/// A field's value as the wire has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Field<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes of a length-delimited field.
    pub(crate) fn bytes(self, number: u32) -> Result<&'a [u8], WireError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(WireError::WrongType(number)) }
    }

    /// The text of a string field.
    pub(crate) fn str(self, number: u32) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(number)?).map_err(|_| WireError::NotUtf8(number))
    }

    /// An unsigned or two's complement varint.
    pub(crate) fn varint(self, number: u32) -> Result<u64, WireError> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(WireError::WrongType(number)) }
    }

    /// A zigzag varint.
    pub(crate) fn zigzag(self, number: u32) -> Result<i64, WireError> {
        Ok(unzigzag(self.varint(number)?))
    }

    /// A fixed64 field.
    pub(crate) fn fixed64(self, number: u32) -> Result<u64, WireError> {
        if let Self::Fixed64(value) = self { Ok(value) } else { Err(WireError::WrongType(number)) }
    }

    /// A double, bit by bit.
    pub(crate) fn double(self, number: u32) -> Result<f64, WireError> {
        Ok(f64::from_bits(self.fixed64(number)?))
    }
}

/// Undoes the zigzag encoding of signed varints.
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A message being walked.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// Starts at the first field.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field with its number, or `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Malformed)?;
        if number == 0 || number >= 1 << 29 {
            return Err(WireError::Malformed);
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            // Groups were never part of proto3.
            _ => return Err(WireError::Malformed),
        };
        Ok(Some((number, field)))
    }

    /// Whether everything is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A varint by itself, as inside a packed field.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let (value, rest) = split_varint(self.rest).map_err(|error| match error {
            CodecError::Truncated => WireError::Truncated,
            CodecError::Invalid(_) => WireError::Malformed,
        })?;
        self.rest = rest;
        Ok(value)
    }

    /// Eight bytes by themselves, as inside a packed field.
    pub(crate) fn fixed64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Writes the few messages that are put together by hand.
pub(crate) mod put {
    /// Appends a bare varint, as inside a packed field.
    pub(crate) fn raw_varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// Appends a tag.
    pub(crate) fn tag(number: u32, wire_type: u8, out: &mut Vec<u8>) {
        raw_varint(u64::from(number) << 3 | u64::from(wire_type), out);
    }

    /// Appends a varint field.
    pub(crate) fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
        tag(number, 0, out);
        raw_varint(value, out);
    }

    /// Appends a fixed64 or double field.
    pub(crate) fn fixed64(number: u32, value: u64, out: &mut Vec<u8>) {
        tag(number, 1, out);
        out.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a length-delimited field.
    pub(crate) fn bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
        tag(number, 2, out);
        raw_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_one_after_another() {
        let mut bytes = Vec::new();
        put::varint(1, u64::MAX, &mut bytes);
        put::bytes(2, b"text", &mut bytes);
        put::fixed64(300, 7, &mut bytes);
        let mut message = Message::new(&bytes);
        assert_eq!(message.next(), Ok(Some((1, Field::Varint(u64::MAX)))));
        assert_eq!(message.next(), Ok(Some((2, Field::Bytes(b"text")))));
        assert_eq!(message.next(), Ok(Some((300, Field::Fixed64(7)))));
        assert_eq!(message.next(), Ok(None));
    }

    #[test]
    fn broken_fields_are_named() {
        let check =
            |bytes: &[u8], expected| assert_eq!(Message::new(bytes).next(), Err(expected), "{bytes:?}");
        check(&[0x08], WireError::Truncated);
        check(&[0x0a, 5, 1], WireError::Truncated);
        check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], WireError::Truncated);
        check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], WireError::Malformed);
        check(&[0x0b], WireError::Malformed);
        check(&[0x00, 0], WireError::Malformed);
    }

    #[test]
    fn zigzag_turns_back() {
        let all: Vec<i64> = [0, 1, 2, 3, u64::MAX].into_iter().map(unzigzag).collect();
        assert_eq!(all, [0, -1, 1, -2, i64::MIN]);
    }
}
