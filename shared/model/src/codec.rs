//! A small binary encoding: LEB128 integers, zigzag for signed ones, little-endian floats, length-prefixed bytes.
//!
//! It is what log entries, partial results and stored blocks are made of. A reader never trusts a length: every
//! count is checked against the bytes that are left before anything is allocated.

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The input ended inside a value.
    #[error("unexpected end of input")]
    Truncated,
    /// The input breaks a rule of its format.
    #[error("invalid encoding: {0}")]
    Invalid(&'static str),
}

/// Appends encoded values to a buffer.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// An unsigned integer in 1 to 10 bytes.
    #[inline]
    pub fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A signed integer, small magnitudes in few bytes.
    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.u64(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A float by its 8 bytes, so that NaN payloads and the sign of zero stay.
    #[inline]
    pub fn f64(&mut self, value: f64) {
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// Floats as [`Writer::f64`] writes each.
    #[inline]
    pub fn f64s(&mut self, values: &[f64]) {
        let at = self.out.len();
        self.out.resize(at + values.len() * 8, 0);
        let (chunks, _) = self.out[at..].as_chunks_mut::<8>();
        chunks.iter_mut().zip(values).for_each(|(chunk, value)| *chunk = value.to_bits().to_le_bytes());
    }

    /// A fingerprint by its 16 bytes.
    pub fn u128(&mut self, value: u128) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes behind their length.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// Text behind its length in bytes.
    #[inline]
    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Bytes as they are, without a length.
    #[inline]
    pub fn raw(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }
}

/// Splits a LEB128 integer off the start of some bytes.
///
/// # Errors
/// [`CodecError`] when the bytes end or the integer does not fit 64 bits.
#[inline]
pub fn split_varint(bytes: &[u8]) -> Result<(u64, &[u8]), CodecError> {
    match bytes {
        [byte @ 0..0x80, rest @ ..] => Ok((u64::from(*byte), rest)),
        _ => split_long_varint(bytes),
    }
}

fn split_long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), CodecError> {
    // Up to 56 bits, as times in milliseconds, are put together without a loop: the bytes' upper bits are taken out in
    // three steps, each of which joins pairs of groups.
    if let Some(eight) = bytes.first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let ends = !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            let len = (ends.trailing_zeros() / 8 + 1) as usize;
            let word = word & 0x7f7f_7f7f_7f7f_7f7f & (u64::MAX >> (64 - 8 * len));
            let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
            let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
            let word = (word & 0x0000_0000_0fff_ffff) | (word & 0x0fff_ffff_0000_0000) >> 4;
            return Ok((word, &bytes[len..]));
        }
    }
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        if at == 9 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    if bytes.len() < 10 {
        return Err(CodecError::Truncated);
    }
    Err(CodecError::Invalid("integer is longer than 64 bits"))
}

/// Reads encoded values from a slice.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over the whole of `input`.
    #[must_use]
    #[inline]
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Whether everything has been read.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not read yet.
    #[must_use]
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// `n` bytes as they are.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when fewer are left.
    #[inline]
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(CodecError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] at the end of the input.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// [`CodecError`] when the input ends or the integer does not fit 64 bits.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        let (value, rest) = split_varint(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    /// A signed integer.
    ///
    /// # Errors
    /// As [`Reader::u64`].
    #[inline]
    pub fn i64(&mut self) -> Result<i64, CodecError> {
        let raw = self.u64()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// `count` signed integers, one after the other: much faster than asking for each, as most of them are short.
    ///
    /// # Errors
    /// As [`Reader::u64`].
    #[inline]
    pub fn i64s(&mut self, count: usize, mut each: impl FnMut(i64)) -> Result<(), CodecError> {
        let bytes = self.rest;
        let zigzag = |raw: u64| (raw >> 1) as i64 ^ -((raw & 1) as i64);
        let (mut at, mut left) = (0, count);
        while left > 0 {
            // Runs of small differences: eight bytes without a continuation bit are eight integers.
            if left >= 8
                && let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>())
                && u64::from_le_bytes(*eight) & 0x8080_8080_8080_8080 == 0
            {
                eight.iter().for_each(|byte| each(zigzag(u64::from(*byte))));
                (at, left) = (at + 8, left - 8);
                continue;
            }
            left -= 1;
            // One or two bytes hold nearly all differences between neighbours.
            let raw = match bytes.get(at..) {
                Some([first, ..]) if *first < 0x80 => {
                    at += 1;
                    u64::from(*first)
                }
                Some([first, second, ..]) if *second < 0x80 => {
                    at += 2;
                    u64::from(*first & 0x7f) | u64::from(*second) << 7
                }
                rest => {
                    let mut long = Reader { rest: rest.unwrap_or_default() };
                    let value = long.u64()?;
                    at = bytes.len() - long.rest.len();
                    value
                }
            };
            each(zigzag(raw));
        }
        self.rest = &bytes[at..];
        Ok(())
    }

    /// `count` floats, to the bit.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when fewer are left.
    #[inline]
    pub fn f64s(&mut self, count: usize) -> Result<Vec<f64>, CodecError> {
        let bytes = self.raw(count.checked_mul(8).ok_or(CodecError::Truncated)?)?;
        let (floats, _) = bytes.as_chunks::<8>();
        Ok(floats.iter().map(|bytes| f64::from_bits(u64::from_le_bytes(*bytes))).collect())
    }

    /// An unsigned integer that must fit 32 bits.
    ///
    /// # Errors
    /// As [`Reader::u64`], and when the value is too large.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.u64()?).map_err(|_| CodecError::Invalid("integer is longer than 32 bits"))
    }

    /// An unsigned integer in 4 little-endian bytes.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] at the end of the input.
    #[inline]
    pub fn u32_le(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A float.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] at the end of the input.
    #[inline]
    pub fn f64(&mut self) -> Result<f64, CodecError> {
        Ok(f64::from_bits(u64::from_le_bytes(self.array()?)))
    }

    /// A fingerprint.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] at the end of the input.
    pub fn u128(&mut self) -> Result<u128, CodecError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// Bytes behind their length.
    ///
    /// # Errors
    /// [`CodecError`] when the length is malformed or larger than what is left.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = usize::try_from(self.u64()?).map_err(|_| CodecError::Truncated)?;
        self.raw(len)
    }

    /// Text behind its length.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and when the bytes are not UTF-8.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Invalid("text is not UTF-8"))
    }

    /// A count of items of which each takes at least `min_bytes`, so that a count never allocates more than the
    /// input could fill.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when the input is too short for that many items.
    #[inline]
    pub fn count(&mut self, min_bytes: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u64()?).map_err(|_| CodecError::Truncated)?;
        let fits = count.checked_mul(min_bytes.max(1)).is_some_and(|need| need <= self.rest.len());
        if fits { Ok(count) } else { Err(CodecError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_and_floats_round_trip(u: u64, i: i64, bits: u64) {
            let mut bytes = Vec::new();
            let mut out = Writer::new(&mut bytes);
            out.u64(u);
            out.i64(i);
            out.f64(f64::from_bits(bits));
            let mut input = Reader::new(&bytes);
            prop_assert_eq!(input.u64(), Ok(u));
            prop_assert_eq!(input.i64(), Ok(i));
            prop_assert_eq!(input.f64().map(f64::to_bits), Ok(bits));
            prop_assert!(input.is_empty());
        }
    }

    proptest! {
        #[test]
        fn runs_are_read_like_single_values(values in prop::collection::vec(any::<(i64, u8)>(), 0..40)) {
            let values: Vec<i64> = values.into_iter().map(|(value, shift)| value >> (shift % 64)).collect();
            let mut bytes = Vec::new();
            values.iter().for_each(|value| Writer::new(&mut bytes).i64(*value));
            let as_floats: Vec<f64> = values.iter().map(|value| *value as f64).collect();
            Writer::new(&mut bytes).f64s(&as_floats);
            let mut input = Reader::new(&bytes);
            let mut read = Vec::new();
            prop_assert_eq!(input.i64s(values.len(), |value| read.push(value)), Ok(()));
            prop_assert_eq!(&read, &values);
            let mut single = input.clone();
            let singly: Result<Vec<f64>, _> = values.iter().map(|_| single.f64()).collect();
            prop_assert_eq!(singly, Ok(as_floats.clone()));
            prop_assert_eq!(input.clone().f64s(values.len()), Ok(as_floats));
            prop_assert!(input.f64s(values.len() + 1).is_err());
            prop_assert!(input.i64s(values.len() * 8 + 1, |_| ()).is_err());
        }
    }

    proptest! {
        #[test]
        fn integers_of_any_length_are_split_off(value: u64, shift in 0u32..64, tail in prop::collection::vec(any::<u8>(), 0..9)) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).u64(value);
            let len = bytes.len();
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(split_varint(&bytes), Ok((value, &tail[..])));
            for cut in 0..len {
                prop_assert_eq!(split_varint(&bytes[..cut]), Err(CodecError::Truncated));
            }
            // Longer than it need be, but not too long.
            bytes.truncate(len);
            if len < 9 {
                bytes[len - 1] |= 0x80;
                bytes.extend_from_slice(&[0x80, 0]);
                prop_assert_eq!(split_varint(&bytes), Ok((value, &[][..])));
            }
        }
    }

    #[test]
    fn a_count_larger_than_the_input_is_refused() {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).u64(1 << 40);
        assert_eq!(Reader::new(&bytes).count(1), Err(CodecError::Truncated));
    }

    #[test]
    fn an_overlong_integer_is_refused() {
        assert!(Reader::new(&[0xff; 11]).u64().is_err());
    }
}
