//! A column of floats, to the bit: NaN payloads, stale markers and the sign of zero come back as they were.
//!
//! Most metrics are decimal numbers with few digits: such a column is kept as integers under a common power of ten,
//! as differences or differences of differences. What does not fit that exactly is kept as XORs of neighbours, byte
//! planes apart, which zstd shrinks. The number of values is the caller's to know.

use tricord_model::STALE_NAN;
use tricord_model::codec::{Reader, Writer};

use super::integers::{self, Layout};
use crate::storage::Error;

/// All values have the same bits.
const CONSTANT: u8 = 0;
/// Integers under a power of ten, as differences of any length.
const DELTA: u8 = 1;
/// The same, as differences of differences.
const DELTA2: u8 = 2;
/// XORs of neighbours in eight byte planes.
const XOR: u8 = 3;
/// Integers under a power of ten, as differences of one width.
const PLANES: u8 = 4;
/// The same, as differences of differences.
const PLANES2: u8 = 5;
/// The codecs of integers.
const CODECS: [(Layout, u8); 4] = [
    (Layout { double: false, planes: false }, DELTA),
    (Layout { double: true, planes: false }, DELTA2),
    (Layout { double: false, planes: true }, PLANES),
    (Layout { double: true, planes: true }, PLANES2),
];
/// Set beside a codec of integers: they are kept as multiples of a common factor, counted from the first one.
const FACTOR: u8 = 0x40;
/// Set beside a codec: stale markers lie apart, and each place repeats the value before it.
const STALES: u8 = 0x80;

/// Decimal digits tried behind the point.
const MAX_SCALE: usize = 9;
const POWERS: [f64; MAX_SCALE + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Integers up to this are exact as floats.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Appends a column.
pub(crate) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let stale_bits = STALE_NAN.to_bits();
    let stales: Vec<usize> = (0..values.len()).filter(|at| values[*at].to_bits() == stale_bits).collect();
    if stales.is_empty() || stales.len() == values.len() {
        return encode_plain(values, 0, out);
    }
    let mut plain = values.to_vec();
    // A marker at the start repeats the first value behind it.
    let mut previous = values.iter().copied().find(|value| value.to_bits() != stale_bits).unwrap_or(0.0);
    for value in &mut plain {
        if value.to_bits() == stale_bits {
            *value = previous;
        }
        previous = *value;
    }
    encode_plain(&plain, STALES, out);
    let mut writer = Writer::new(out);
    writer.u64(stales.len() as u64);
    let mut before = 0;
    for at in stales {
        writer.u64((at - before) as u64);
        before = at;
    }
}

fn encode_plain(values: &[f64], flags: u8, out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return out.push(CONSTANT | flags) };
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        out.push(CONSTANT | flags);
        return out.extend_from_slice(&first.to_bits().to_le_bytes());
    }
    match decimals(values) {
        Some((scale, integers)) => encode_integers(scale, &integers, flags, out),
        None => encode_xor(values, flags, out),
    }
}

/// The values as integers under a power of ten, where that is exact to the bit.
fn decimals(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut scale = 0;
    for value in values {
        while to_integer(*value, scale).is_none() {
            scale += 1;
            if scale > MAX_SCALE {
                return None;
            }
        }
    }
    let integers: Option<Vec<i64>> = values.iter().map(|value| to_integer(*value, scale)).collect();
    integers.map(|integers| (scale as u8, integers))
}

fn to_integer(value: f64, scale: usize) -> Option<i64> {
    let integer = (value * POWERS[scale]).round();
    if integer.is_nan() || integer.abs() > MAX_EXACT {
        return None;
    }
    let integer = integer as i64;
    (from_integer(integer, scale).to_bits() == value.to_bits()).then_some(integer)
}

fn from_integer(integer: i64, scale: usize) -> f64 {
    integer as f64 / POWERS[scale]
}

fn encode_integers(scale: u8, integers: &[i64], flags: u8, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0, scale]);
    encode_column(integers, start, flags, out);
    // Sizes in bytes are mostly whole pages or blocks.
    let (first, factor) = (integers.first().copied().unwrap_or(0), common_factor(integers));
    if factor < 2 {
        return;
    }
    let multiples: Vec<i64> = integers.iter().map(|integer| (integer - first) / factor).collect();
    let mut bytes = vec![0, scale];
    let writer = &mut Writer::new(&mut bytes);
    writer.i64(factor);
    writer.i64(first);
    encode_column(&multiples, 0, flags | FACTOR, &mut bytes);
    // Reading costs a multiplication for each: some bytes at the head are not worth it.
    if bytes.len() + integers.len() / 16 < out.len() - start {
        out.truncate(start);
        out.extend(bytes);
    }
}

/// Appends integers and sets the codec, which stands at `start`.
fn encode_column(integers: &[i64], start: usize, flags: u8, out: &mut Vec<u8>) {
    let layout = integers::encode(integers, out);
    let (_, codec) = CODECS.iter().find(|(known, _)| *known == layout).unwrap_or(&CODECS[0]);
    out[start] = codec | flags;
}

/// The greatest common factor of the distances from the first of some integers, which are at most [`MAX_EXACT`].
fn common_factor(integers: &[i64]) -> i64 {
    let first = integers.first().copied().unwrap_or(0);
    let mut factor = 0i64;
    for integer in integers {
        let mut other = (integer - first).abs();
        while other != 0 {
            (factor, other) = (other, factor % other);
        }
        if factor == 1 {
            break;
        }
    }
    factor
}

fn encode_xor(values: &[f64], flags: u8, out: &mut Vec<u8>) {
    out.push(XOR | flags);
    let mut previous = 0u64;
    let xors: Vec<u64> = values
        .iter()
        .map(|value| {
            let xor = value.to_bits() ^ previous;
            previous = value.to_bits();
            xor
        })
        .collect();
    for plane in (0..8).rev() {
        out.extend(xors.iter().map(|xor| (xor >> (plane * 8)) as u8));
    }
}

/// Reads the first `wanted` of a column's `count` values and appends them to `out`; the input is left behind the whole
/// column.
pub(crate) fn decode(
    input: &mut Reader<'_>,
    count: usize,
    wanted: usize,
    out: &mut Vec<f64>,
) -> Result<(), Error> {
    let codec = input.u8()?;
    let first = out.len();
    let wanted = wanted.min(count);
    match codec & !STALES {
        CONSTANT if count == 0 => {}
        CONSTANT => {
            let value = input.f64()?;
            out.resize(first + wanted, value);
        }
        XOR => decode_xor(input, count, wanted, out)?,
        integers => match CODECS.iter().find(|(_, known)| *known == integers & !FACTOR) {
            Some((layout, _)) => decode_integers(input, *layout, integers & FACTOR != 0, count, wanted, out)?,
            None => return Err(Error::corrupt("a column's codec is unknown: it may be of a newer build")),
        },
    }
    if codec & STALES != 0 {
        let mut at = 0usize;
        for _ in 0..input.count(1)? {
            at = at.saturating_add(input.u64()? as usize);
            match out.get_mut(first..).and_then(|column| column.get_mut(at)) {
                Some(value) => *value = STALE_NAN,
                None if at < count => {}
                None => return Err(Error::corrupt("a stale marker lies outside its column")),
            }
        }
    }
    Ok(())
}

fn decode_integers(
    input: &mut Reader<'_>,
    layout: Layout,
    has_factor: bool,
    count: usize,
    wanted: usize,
    out: &mut Vec<f64>,
) -> Result<(), Error> {
    let scale = usize::from(input.u8()?);
    if scale > MAX_SCALE {
        return Err(Error::corrupt("a column of decimals is malformed"));
    }
    let first = out.len();
    out.reserve(wanted);
    if has_factor {
        let (factor, start) = (input.i64()?, input.i64()?);
        let whole = |multiple: &i64| start.wrapping_add(multiple.wrapping_mul(factor)) as f64;
        integers::decode(input, layout, count, wanted, |multiples| out.extend(multiples.iter().map(whole)))?;
    } else {
        let whole = |integer: &i64| *integer as f64;
        integers::decode(input, layout, count, wanted, |integers| out.extend(integers.iter().map(whole)))?;
    }
    if scale > 0 {
        let power = POWERS[scale];
        out[first..].iter_mut().for_each(|value| *value /= power);
    }
    Ok(())
}

fn decode_xor(input: &mut Reader<'_>, count: usize, wanted: usize, out: &mut Vec<f64>) -> Result<(), Error> {
    let bytes = input.raw(count.checked_mul(8).ok_or_else(|| Error::corrupt("a column is too long"))?)?;
    let mut previous = 0u64;
    out.extend((0..wanted).map(|at| {
        let xor = (0..8).fold(0u64, |xor, plane| xor << 8 | u64::from(bytes[plane * count + at]));
        previous ^= xor;
        f64::from_bits(previous)
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], count: usize) -> Vec<f64> {
        let mut input = Reader::new(bytes);
        let mut values = Vec::new();
        decode(&mut input, count, count, &mut values).unwrap();
        assert!(input.is_empty());
        values
    }

    #[track_caller]
    fn check(values: &[f64], codec: u8) -> usize {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&all(&bytes, values.len())), bits(values));
        for wanted in [0, 1, values.len() / 2] {
            let mut some = vec![7.0];
            decode(&mut Reader::new(&bytes), values.len(), wanted, &mut some).unwrap();
            assert_eq!(bits(&some[1..]), bits(&values[..wanted.min(values.len())]));
        }
        assert_eq!(bytes[0], codec, "{values:?}");
        bytes.len()
    }

    #[test]
    fn each_kind_of_column_finds_its_codec() {
        check(&[], CONSTANT);
        check(&[-0.0; 9], CONSTANT);
        check(&[f64::NAN; 3], CONSTANT);
        check(&[STALE_NAN; 3], CONSTANT);
        check(&[0.1, 0.2, 0.1, 0.3, 0.1], PLANES);
        check(&[1000.0, 2000.0, 3000.0, 4000.0, 5000.0], PLANES2);
        let leap = |step: f64| (0..40).map(|n| f64::from(n) * step).chain([1e15 + 1.0]).collect::<Vec<_>>();
        check(&leap(1.0), DELTA);
        check(&leap(1000.0), DELTA2);
        check(&[1.0, -0.0], XOR);
        check(&[1.0, f64::INFINITY, f64::from_bits(0x7ff8_0000_0000_1234)], XOR);
        check(&[1e300, 0.1 + 0.2], XOR);
        check(&[STALE_NAN, 1.0, 2.0, STALE_NAN], PLANES | STALES);
    }

    #[test]
    fn a_counter_takes_a_byte_per_value_and_a_steady_one_nothing() {
        let values: Vec<f64> = (0..120).map(|n| 1e9 + f64::from(n) * 15.0 + f64::from(n * n % 7)).collect();
        assert!(check(&values, PLANES) < 130);
        let values: Vec<f64> = (0..120).map(|n| 1e9 + f64::from(n) * 15.0).collect();
        assert!(check(&values, PLANES2) < 20);
    }

    #[test]
    fn multiples_of_a_page_take_what_their_number_takes() {
        let pages = |n: i32| f64::from(n * 7919 % 61 - 30);
        let walk = |size: f64| -> Vec<f64> { (0..120).map(|n| 1e9 + size * pages(n)).collect() };
        assert!(check(&walk(4096.0), PLANES | FACTOR) < 140);
        assert!(check(&walk(12.5), PLANES | FACTOR) < 140);
        assert!(check(&walk(1.0), PLANES) < 140);
        check(&[-4e15, 4e15, 0.0, 8e15], PLANES | FACTOR);
    }

    proptest! {
        #[test]
        fn multiples_come_back(list in prop::collection::vec(-1_000_000i64..1_000_000, 0..80), factor in 1i64..1_000_000, first in any::<i32>()) {
            let values: Vec<f64> = list.iter().map(|n| (n * factor + i64::from(first)) as f64).collect();
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            prop_assert_eq!(all(&bytes, values.len()), values);
        }

        #[test]
        fn any_bits_come_back(bits in prop::collection::vec(any::<u64>(), 0..50)) {
            let values: Vec<f64> = bits.iter().map(|bits| f64::from_bits(*bits)).collect();
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            let back: Vec<u64> = all(&bytes, values.len()).iter().map(|value| value.to_bits()).collect();
            prop_assert_eq!(back, bits);
        }

        #[test]
        fn decimals_come_back(cents in prop::collection::vec(-100_000i64..100_000, 0..80), scale in 0u32..7) {
            let values: Vec<f64> = cents.iter().map(|cents| *cents as f64 / 10f64.powi(scale as i32)).collect();
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            prop_assert_eq!(all(&bytes, values.len()), values);
        }

        #[test]
        fn garbage_is_an_error_or_a_value_but_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0usize..100) {
            for wanted in [count, count / 2] {
                let _ = decode(&mut Reader::new(&bytes), count, wanted, &mut Vec::new());
            }
        }
    }
}
