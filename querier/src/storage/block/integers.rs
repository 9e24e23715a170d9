//! Columns of integers as differences between neighbours, or as differences of those, each folded so that small ones of
//! either sign are small.
//!
//! Mostly all differences of a column take as many bytes: then their lowest bytes come first, then the next ones and so
//! on, which is read in a loop without branches. Where a few are much longer than the others each has its own length.

use tricord_model::codec::{CodecError, Reader, Writer};

use crate::storage::Error;

/// How a column's differences are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Differences of differences.
    pub(super) double: bool,
    /// All of the same width, in planes of bytes.
    pub(super) planes: bool,
}

/// Wider differences are written one by one.
const MAX_WIDTH: u32 = 4;
/// Integers read at once: they fit the stack.
const CHUNK: usize = 128;

/// Differences of a column: the first ones, which are large, and all others.
struct Differences {
    heads: Vec<u64>,
    others: Vec<u64>,
}

impl Differences {
    fn of(integers: &[i64], double: bool) -> Self {
        let (mut previous, mut delta) = (0i64, 0i64);
        let mut all = integers.iter().map(|integer| {
            let next = integer.wrapping_sub(previous);
            let found = if double { next.wrapping_sub(delta) } else { next };
            (previous, delta) = (*integer, next);
            fold(found)
        });
        let heads = all.by_ref().take(heads(double)).collect();
        Self { heads, others: all.collect() }
    }

    /// The width that all but the first are written with; `None` where each is better off with its own length.
    fn planes(&self) -> Option<u32> {
        let (width, len) = (self.width(), len(&self.others));
        // Planes are read without a branch for each value, which is worth some bytes; zstd takes most of them away again.
        let is_worth_it = width as usize * self.others.len() <= len + len / 2;
        (width <= MAX_WIDTH && is_worth_it).then_some(width)
    }

    /// Bytes of all.
    fn size(&self) -> usize {
        let others =
            self.planes().map_or_else(|| len(&self.others), |width| width as usize * self.others.len());
        len(&self.heads) + others
    }

    /// Bytes that the widest of all but the first takes.
    fn width(&self) -> u32 {
        let all = self.others.iter().fold(0, |all, difference| all | difference);
        (64 - all.leading_zeros()).div_ceil(8)
    }
}

/// How many differences stand before those that are alike.
fn heads(double: bool) -> usize {
    if double { 2 } else { 1 }
}

/// Small integers of either sign as small ones without a sign.
#[inline]
fn fold(integer: i64) -> u64 {
    ((integer << 1) ^ (integer >> 63)) as u64
}

#[inline]
fn unfold(folded: u64) -> i64 {
    (folded >> 1) as i64 ^ -((folded & 1) as i64)
}

/// Bytes of differences that are written one by one.
fn len(differences: &[u64]) -> usize {
    differences.iter().map(|difference| (64 - (difference | 1).leading_zeros()).div_ceil(7) as usize).sum()
}

/// Appends a column in the layout that is answered.
pub(super) fn encode(integers: &[i64], out: &mut Vec<u8>) -> Layout {
    let (single, double) = (Differences::of(integers, false), Differences::of(integers, true));
    let is_double = double.size() < single.size();
    let chosen = if is_double { double } else { single };
    let planes = chosen.planes();
    let mut writer = Writer::new(out);
    planes.iter().for_each(|width| writer.u8(*width as u8));
    chosen.heads.iter().for_each(|difference| writer.u64(*difference));
    match planes {
        None => chosen.others.iter().for_each(|difference| writer.u64(*difference)),
        Some(width) => {
            for plane in 0..width {
                chosen.others.iter().for_each(|difference| writer.u8((difference >> (8 * plane)) as u8));
            }
        }
    }
    Layout { double: is_double, planes: planes.is_some() }
}

/// Reads a column of `count` integers and hands the first `wanted` of them on, many at once; the input is left behind
/// the whole column.
pub(super) fn decode(
    input: &mut Reader<'_>,
    layout: Layout,
    count: usize,
    wanted: usize,
    take: impl FnMut(&[i64]),
) -> Result<(), Error> {
    let sum = Sum { previous: 0, delta: 0, sums: [0; CHUNK], take };
    match (layout.planes, layout.double) {
        (true, false) => decode_planes::<false>(input, count, wanted, sum),
        (true, true) => decode_planes::<true>(input, count, wanted, sum),
        (false, false) => decode_lengths::<false>(input, count, wanted, sum),
        (false, true) => decode_lengths::<true>(input, count, wanted, sum),
    }
}

/// Adds differences up again.
struct Sum<F> {
    previous: i64,
    delta: i64,
    /// Room for what is handed on.
    sums: [i64; CHUNK],
    take: F,
}

impl<F: FnMut(&[i64])> Sum<F> {
    /// At most [`CHUNK`] differences.
    #[inline]
    fn add<const DOUBLE: bool>(&mut self, differences: &[i64]) {
        let (mut previous, mut delta) = (self.previous, self.delta);
        for (sum, difference) in self.sums.iter_mut().zip(differences) {
            delta = if DOUBLE { delta.wrapping_add(*difference) } else { *difference };
            previous = previous.wrapping_add(delta);
            *sum = previous;
        }
        (self.previous, self.delta) = (previous, delta);
        (self.take)(&self.sums[..differences.len().min(CHUNK)]);
    }
}

fn decode_lengths<const DOUBLE: bool>(
    input: &mut Reader<'_>,
    count: usize,
    wanted: usize,
    mut sum: Sum<impl FnMut(&[i64])>,
) -> Result<(), Error> {
    if count > input.rest().len() {
        return Err(CodecError::Truncated.into());
    }
    let (wanted, mut differences) = (wanted.min(count), [0i64; CHUNK]);
    let mut from = 0;
    while from < wanted {
        let chunk = &mut differences[..CHUNK.min(wanted - from)];
        for difference in &mut *chunk {
            *difference = unfold(input.u64()?);
        }
        sum.add::<DOUBLE>(chunk);
        from += chunk.len();
    }
    for _ in wanted..count {
        input.u64()?;
    }
    Ok(())
}

fn decode_planes<const DOUBLE: bool>(
    input: &mut Reader<'_>,
    count: usize,
    wanted: usize,
    mut sum: Sum<impl FnMut(&[i64])>,
) -> Result<(), Error> {
    let width = usize::from(input.u8()?);
    if width > MAX_WIDTH as usize {
        return Err(Error::corrupt("a column of integers is malformed"));
    }
    let heads = heads(DOUBLE).min(count);
    let mut first = [0i64; 2];
    for difference in &mut first[..heads] {
        *difference = unfold(input.u64()?);
    }
    sum.add::<DOUBLE>(&first[..heads.min(wanted)]);
    let others = count - heads;
    let planes = input.raw(others * width)?;
    let (mut folded, mut differences) = ([0u32; CHUNK], [0i64; CHUNK]);
    let mut from = 0;
    let wanted = wanted.saturating_sub(heads).min(others);
    while from < wanted {
        let len = CHUNK.min(wanted - from);
        let (folded, differences) = (&mut folded[..len], &mut differences[..len]);
        folded.fill(0);
        for plane in 0..width {
            let bytes = &planes[plane * others + from..][..len];
            folded
                .iter_mut()
                .zip(bytes)
                .for_each(|(folded, byte)| *folded |= u32::from(*byte) << (8 * plane));
        }
        differences
            .iter_mut()
            .zip(&*folded)
            .for_each(|(difference, folded)| *difference = unfold_narrow(*folded));
        sum.add::<DOUBLE>(differences);
        from += len;
    }
    Ok(())
}

/// As [`unfold`], in half as many bits.
#[inline]
fn unfold_narrow(folded: u32) -> i64 {
    i64::from((folded >> 1) as i32 ^ -((folded & 1) as i32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(integers: &[i64]) -> (Layout, usize) {
        let mut bytes = Vec::new();
        let layout = encode(integers, &mut bytes);
        for wanted in [0, 1, integers.len() / 2, integers.len()] {
            let (mut input, mut back) = (Reader::new(&bytes), Vec::new());
            decode(&mut input, layout, integers.len(), wanted, |more| back.extend_from_slice(more)).unwrap();
            assert_eq!(back, integers[..wanted.min(integers.len())]);
            assert!(input.is_empty());
        }
        (layout, bytes.len())
    }

    #[test]
    fn a_line_takes_nothing_but_its_begin() {
        let (layout, len) = check(&(0..480).map(|n| 1_000_000 + n * 15).collect::<Vec<_>>());
        assert_eq!((layout, len), (Layout { double: true, planes: true }, 7));
    }

    #[test]
    fn one_leap_does_not_widen_all_others() {
        let mut integers: Vec<i64> = (0..480).map(|n| n % 7).collect();
        assert!(check(&integers).0.planes);
        integers[100] = i64::MAX;
        let (layout, len) = check(&integers);
        assert!(!layout.planes && len < 520, "{layout:?} {len}");
    }

    proptest! {
        #[test]
        fn any_integers_come_back(
            integers in prop::collection::vec(prop_oneof![-300i64..300, -(1i64 << 40)..1 << 40, any::<i64>()], 0..300),
            small in prop::collection::vec(-70_000i64..70_000, 0..300),
        ) {
            check(&integers);
            check(&small);
        }

        #[test]
        fn garbage_is_an_error_or_integers_but_no_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            count in 0usize..300,
            (double, planes) in any::<(bool, bool)>(),
        ) {
            let mut left = count / 2;
            let _ = decode(&mut Reader::new(&bytes), Layout { double, planes }, count, count / 2, |more| left -= more.len());
        }
    }
}
