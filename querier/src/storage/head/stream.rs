//! Times and floats of one series in a row of bytes: written as they arrive, read from the start.
//!
//! A sample is a control byte, then the change of its time, then what its value does not share with the one before.
//! The lower six bits of the control byte say which bytes of the XOR of both values follow; the upper two how the time
//! is given. A sample that repeats the step of time and the value only counts in a run, so constants cost next to
//! nothing. This lives in memory alone: blocks on disk have codecs of their own.

/// Times (offsets in milliseconds) with floats, in the order of arrival; times may go back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    bytes: Vec<u8>,
    /// The last value's bits.
    bits: u64,
    len: u32,
    /// The last time.
    offset: u32,
    /// The difference of the last two times.
    step: u32,
    /// Samples at the end that repeat the step and the value, and are not in the bytes yet: counting them here spares a
    /// look at the bytes, which are mostly not in the processor's cache.
    run: u8,
    /// Whether times do not ascend strictly.
    is_unsorted: bool,
}

/// The control byte of a run: how many samples, less one, follows in a byte.
const RUN: u8 = 0x3f;
/// The control byte's part for the value.
const VALUE_MASK: u8 = 0x3f;
const TIME_SHIFT: u32 = 6;

/// The step is that of the sample before.
const SAME_STEP: u8 = 0;
/// A byte follows: the step's change, signed.
const NEAR_STEP: u8 = 1;
/// Two bytes follow: the step.
const SHORT_STEP: u8 = 2;
/// Four bytes follow: the time.
const WHOLE_TIME: u8 = 3;

/// Ways for a part of 8 bytes to differ: none, or `count` bytes behind `leading` equal ones.
const VALUE_CODES: usize = 37;

/// The code for `count` bytes is `FIRST_CODE[count] + leading`.
const FIRST_CODE: [u8; 9] = {
    let mut first = [0; 9];
    let (mut count, mut code) = (1, 1);
    while count < 9 {
        first[count] = code;
        code += 9 - count as u8;
        count += 1;
    }
    first
};

/// How many bytes a code stands for, and how many equal ones come before.
const CODES: [(u8, u8); VALUE_CODES] = {
    let mut codes = [(0, 0); VALUE_CODES];
    let mut count = 1;
    while count < 9 {
        let mut leading = 0;
        while leading + count <= 8 {
            codes[FIRST_CODE[count] as usize + leading] = (count as u8, leading as u8);
            leading += 1;
        }
        count += 1;
    }
    codes
};

impl Stream {
    /// How many samples there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether times go back or repeat.
    #[inline]
    pub(crate) fn is_unsorted(&self) -> bool {
        self.is_unsorted
    }

    /// Bytes taken beside the struct itself.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends a sample.
    #[inline]
    pub(crate) fn push(&mut self, offset: u32, value: f64) {
        let (bits, step) = (value.to_bits(), offset.wrapping_sub(self.offset));
        let xor = bits ^ self.bits;
        self.is_unsorted |= self.len > 0 && offset <= self.offset;
        if xor == 0 && step == self.step && self.run < u8::MAX {
            self.run += 1;
        } else {
            self.push_change(offset, step, xor);
        }
        (self.offset, self.step, self.bits) = (offset, step, bits);
        self.len += 1;
    }

    #[inline]
    fn push_change(&mut self, offset: u32, step: u32, xor: u64) {
        let change = step.wrapping_sub(self.step) as i32;
        let (time, time_bytes, time_len) = if change == 0 {
            (SAME_STEP, 0, 0)
        } else if let Ok(change) = i8::try_from(change) {
            (NEAR_STEP, u32::from(change as u8), 1)
        } else if let Ok(step) = u16::try_from(step) {
            (SHORT_STEP, u32::from(step), 2)
        } else {
            (WHOLE_TIME, offset, 4)
        };
        let mut len = 1 + time_len;
        let mut row = u128::from(time_bytes) << 8;
        let mut code = 0;
        if xor != 0 {
            let (leading, trailing) = (xor.leading_zeros() / 8, xor.trailing_zeros() / 8);
            let count = (8 - leading - trailing) as usize;
            row |= u128::from(xor >> (8 * trailing)) << (8 * len);
            len += count;
            code = FIRST_CODE[count] + leading as u8;
        }
        row |= u128::from(code | time << TIME_SHIFT);
        // The run before, if there was one, comes before the control byte.
        if self.run > 0 {
            row = row << 16 | u128::from(self.run - 1) << 8 | u128::from(RUN);
            len += 2;
            self.run = 0;
        }
        self.append(row, len);
    }

    /// Appends the lower `len` bytes, at most 16. They go from registers to their place in one piece: bytes that are put
    /// together in a buffer and copied would have to wait until all writes before them, which are to other series and so
    /// mostly not in the processor's cache, are done.
    #[inline]
    fn append(&mut self, row: u128, len: usize) {
        let at = self.bytes.len();
        if self.bytes.capacity() < at + 16 {
            self.bytes.reserve_exact((at + at / 2 + 16).next_multiple_of(16) - at);
        }
        self.bytes.extend_from_slice(&row.to_le_bytes());
        self.bytes.truncate(at + len);
    }

    /// Hands the samples to `each` in the order of arrival, until it answers `false`.
    #[inline]
    pub(crate) fn read(&self, mut each: impl FnMut(u32, f64) -> bool) {
        let mut rest = self.bytes.as_slice();
        let (mut offset, mut step, mut bits) = (0u32, 0u32, 0u64);
        while let Some((control, after)) = rest.split_first() {
            rest = after;
            let mut repeats = 1;
            if *control == RUN {
                let Some((count, after)) = rest.split_first() else { return };
                rest = after;
                repeats = u32::from(*count) + 1;
            } else {
                let Some((new_step, after)) = read_step(control >> TIME_SHIFT, rest, offset, step) else {
                    return;
                };
                let Some((xor, after)) = read_xor(control & VALUE_MASK, after) else { return };
                (step, rest) = (new_step, after);
                bits ^= xor;
            }
            for _ in 0..repeats {
                offset = offset.wrapping_add(step);
                if !each(offset, f64::from_bits(bits)) {
                    return;
                }
            }
        }
        for _ in 0..self.run {
            offset = offset.wrapping_add(step);
            if !each(offset, f64::from_bits(bits)) {
                return;
            }
        }
    }
}

#[inline]
fn read_step(kind: u8, bytes: &[u8], offset: u32, step: u32) -> Option<(u32, &[u8])> {
    match kind {
        SAME_STEP => Some((step, bytes)),
        NEAR_STEP => {
            let (change, rest) = bytes.split_first()?;
            Some((step.wrapping_add(i32::from(*change as i8) as u32), rest))
        }
        SHORT_STEP => {
            let (short, rest) = bytes.split_first_chunk::<2>()?;
            Some((u32::from(u16::from_le_bytes(*short)), rest))
        }
        _ => {
            let (whole, rest) = bytes.split_first_chunk::<4>()?;
            Some((u32::from_le_bytes(*whole).wrapping_sub(offset), rest))
        }
    }
}

#[inline]
fn read_xor(code: u8, bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (count, leading) = *CODES.get(usize::from(code))?;
    if count == 0 {
        return Some((0, bytes));
    }
    let (count, shift) = (usize::from(count), 8 * u32::from(8 - leading - count));
    let (part, rest) = bytes.split_at_checked(count)?;
    // Eight bytes at once where there are so many: what is too much is masked away.
    let raw = match bytes.first_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight) & (u64::MAX >> (8 * (8 - count))),
        None => part.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)),
    };
    Some((raw << shift, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(stream: &Stream) -> Vec<(u32, u64)> {
        let mut read = Vec::new();
        stream.read(|offset, value| {
            read.push((offset, value.to_bits()));
            true
        });
        read
    }

    fn any_value() -> impl Strategy<Value = u64> {
        prop_oneof![
            3 => Just(0u64),
            3 => (0u32..2000).prop_map(|n| f64::from(n).to_bits()),
            2 => any::<u64>(),
            1 => (any::<u8>(), 0u32..8).prop_map(|(byte, place)| u64::from(byte) << (8 * place)),
        ]
    }

    fn any_time() -> impl Strategy<Value = u32> {
        prop_oneof![4 => Just(15_000u32), 2 => 14_900u32..15_100, 1 => any::<u32>(), 1 => 0u32..3]
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read(samples in prop::collection::vec((any_time(), any_value(), 1usize..4), 0..300)) {
            let (mut stream, mut expected, mut offset) = (Stream::default(), Vec::new(), 0u32);
            for (step, bits, repeats) in samples {
                for _ in 0..repeats {
                    offset = offset.wrapping_add(step);
                    stream.push(offset, f64::from_bits(bits));
                    expected.push((offset, bits));
                }
            }
            prop_assert_eq!(all(&stream), &expected[..]);
            prop_assert_eq!(stream.len(), expected.len());
            prop_assert_eq!(stream.is_unsorted(), !expected.is_sorted_by(|a, b| a.0 < b.0));
        }
    }

    #[test]
    fn every_shape_of_a_change_comes_back() {
        for first in 0..8 {
            for last in first..8 {
                let mut stream = Stream::default();
                let xor = (first..=last).fold(0u64, |all, place| all | 0x91 << (8 * place));
                let bits = [xor, 0, xor, xor, 1];
                bits.iter().enumerate().for_each(|(at, bits)| stream.push(at as u32, f64::from_bits(*bits)));
                assert_eq!(all(&stream).iter().map(|(_, bits)| *bits).collect::<Vec<_>>(), bits);
            }
        }
    }

    #[test]
    fn constants_take_next_to_nothing_and_reading_stops_when_told() {
        let mut stream = Stream::default();
        (0..1000u32).for_each(|n| stream.push(n * 15_000, 42.5));
        assert!(stream.bytes.len() < 30, "{}", stream.bytes.len());
        let mut seen = 0;
        stream.read(|_, _| {
            seen += 1;
            seen < 700
        });
        assert_eq!(seen, 700);
    }
}
