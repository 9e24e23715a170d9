//! Bits in a row, the first one highest in its byte, and the numbers of Prometheus' chunks over them.

/// A growing row of bits.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Bits that are still free in the last byte.
    free: u32,
}

/// A prefix of so many bits and then a value of so many bits, from short to long.
const VARBITS: [(u64, u32, u32); 7] = [
    (0b10, 2, 3),
    (0b110, 3, 6),
    (0b1110, 4, 9),
    (0b1_1110, 5, 12),
    (0b11_1110, 6, 18),
    (0b111_1110, 7, 25),
    (0b1111_1110, 8, 56),
];

impl Bits {
    /// A row that starts with whole bytes.
    pub(super) fn after(header: &[u8]) -> Self {
        Self { bytes: header.to_vec(), free: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes, with a count of samples put into the first two.
    pub(super) fn finish(mut self, samples: u16) -> Vec<u8> {
        self.bytes[..2].copy_from_slice(&samples.to_be_bytes());
        self.bytes
    }

    pub(super) fn bit(&mut self, bit: bool) {
        self.bits(u64::from(bit), 1);
    }

    /// The lowest `count` bits of a number, 64 at most.
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let piece = (value >> (left - take)) & (u64::MAX >> (64 - take));
            if let Some(last) = self.bytes.last_mut() {
                *last |= (piece << (self.free - take)) as u8;
            }
            self.free -= take;
            left -= take;
        }
    }

    pub(super) fn float(&mut self, value: f64) {
        self.bits(value.to_bits(), 64);
    }

    /// Seven bits to a byte, the lowest first; the highest bit of a byte says that more follow.
    pub(super) fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bits(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.bits(value, 8);
    }

    /// As [`Bits::uvarint`], with the sign in the lowest bit.
    pub(super) fn varint(&mut self, value: i64) {
        self.uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Small numbers in few bits.
    pub(super) fn varbit_uint(&mut self, value: u64) {
        if value == 0 {
            return self.bit(false);
        }
        match VARBITS.iter().find(|(_, _, size)| value >> size == 0) {
            Some((prefix, length, size)) => {
                self.bits(*prefix, *length);
                self.bits(value, *size);
            }
            None => {
                self.bits(0xff, 8);
                self.bits(value, 64);
            }
        }
    }

    /// Numbers near zero in few bits.
    pub(super) fn varbit_int(&mut self, value: i64) {
        if value == 0 {
            return self.bit(false);
        }
        match VARBITS.iter().find(|(_, _, size)| fits(value, *size)) {
            Some((prefix, length, size)) => {
                self.bits(*prefix, *length);
                self.bits(value as u64, *size);
            }
            None => {
                self.bits(0xff, 8);
                self.bits(value as u64, 64);
            }
        }
    }
}

/// Whether a number has a place in so many bits: one more above zero than below it.
pub(super) fn fits(value: i64, bits: u32) -> bool {
    let half = 1i64 << (bits - 1);
    (1 - half..=half).contains(&value)
}

/// A float that is written as the difference of its bits from the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct XorFloat {
    value: f64,
    /// Zero bits before and behind the last difference that was written with its bounds.
    bounds: Option<(u32, u32)>,
}

impl XorFloat {
    pub(super) fn new(first: f64) -> Self {
        Self { value: first, bounds: None }
    }

    pub(super) fn write(&mut self, next: f64, out: &mut Bits) {
        let delta = next.to_bits() ^ self.value.to_bits();
        self.value = next;
        if delta == 0 {
            return out.bit(false);
        }
        out.bit(true);
        // Five bits hold the number of leading zeros.
        let (leading, trailing) = (delta.leading_zeros().min(31), delta.trailing_zeros());
        if let Some((known_leading, known_trailing)) = self.bounds
            && leading >= known_leading
            && trailing >= known_trailing
        {
            out.bit(false);
            return out.bits(delta >> known_trailing, 64 - known_leading - known_trailing);
        }
        self.bounds = Some((leading, trailing));
        let significant = 64 - leading - trailing;
        out.bit(true);
        out.bits(u64::from(leading), 5);
        // 64 does not fit into six bits and reads as 0, which a difference never has.
        out.bits(u64::from(significant), 6);
        out.bits(delta >> trailing, significant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fill_bytes_from_the_top() {
        let mut bits = Bits::after(&[0xab]);
        bits.bit(true);
        bits.bits(0b01, 2);
        bits.bits(0x1ff, 9);
        assert_eq!(bits.bytes, [0xab, 0b1011_1111, 0b1111_0000]);
        bits.bits(u64::MAX, 64);
        assert_eq!(bits.bytes.len(), 11);
        assert_eq!(bits.bytes[10], 0xf0);
    }

    #[test]
    fn ranges_are_one_longer_above_zero() {
        assert!(fits(4, 3) && fits(-3, 3) && !fits(5, 3) && !fits(-4, 3));
        let mut bits = Bits::default();
        bits.varbit_int(4);
        bits.varbit_int(-3);
        assert_eq!(bits.bytes, [0b1010_0101, 0b0100_0000 | 0b01 << 6]);
    }

    #[test]
    fn varints_are_those_of_protobuf() {
        let mut bits = Bits::default();
        bits.varint(-1);
        bits.varint(150);
        bits.uvarint(300);
        assert_eq!(bits.bytes, [0x01, 0xac, 0x02, 0xac, 0x02]);
    }
}
