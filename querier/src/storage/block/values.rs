//! Blocks of values: many series of one window, sorted by name and then by labels, behind a directory.
//!
//! A series' times lie in the blocks of [`super::times`], named by number.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use tricord_model::codec::{Reader, Writer};
use tricord_model::{FloatHistogram, Points};

use super::{floats, pack, pack_at, unpack};
use crate::storage::Error;

/// A series' floats are one column.
const VERSION: u8 = 1;
/// A series' floats are columns of [`SLICE`] each behind their lengths, so that a part of a long series is read alone.
const SLICED: u8 = 2;
const SLICE: usize = 256;
/// The zstd level of sliced blocks, which are written once and for long.
const SLICED_LEVEL: i32 = 9;
/// A block is closed when it has so many series …
pub(crate) const SERIES_PER_BLOCK: usize = 64;
/// … or so many bytes before compression, which only long series reach. Smaller blocks make narrow questions faster that
/// find nothing in memory, as a block is read and unpacked whole: at 128 KiB they take half as long again, and the files
/// are as large.
const BLOCK_BYTES: usize = 32 << 10;

const HAS_FLOATS: u8 = 1;
const HAS_HISTOGRAMS: u8 = 2;
const HAS_STARTS: u8 = 4;

/// Puts blocks together.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    directory: Vec<(u32, usize)>,
    data: Vec<u8>,
    sliced: bool,
}

impl BlockBuilder {
    /// A builder of blocks with long series.
    pub(crate) fn sliced() -> Self {
        Self { sliced: true, ..Self::default() }
    }

    /// Adds a series, whose times have this number.
    pub(crate) fn push(&mut self, times: u32, points: &Points) {
        let start = self.data.len();
        encode_points(points, self.sliced, &mut self.data);
        self.directory.push((times, self.data.len() - start));
    }

    /// How many series the block has.
    pub(crate) fn len(&self) -> usize {
        self.directory.len()
    }

    /// Whether the next series should go into another block.
    pub(crate) fn is_full(&self) -> bool {
        self.directory.len() >= SERIES_PER_BLOCK || self.data.len() >= BLOCK_BYTES
    }

    /// The block; the builder is empty afterwards.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::with_capacity(self.data.len() + self.directory.len() * 6);
        let out = &mut Writer::new(&mut body);
        out.u64(self.directory.len() as u64);
        for (times, len) in self.directory.drain(..) {
            out.u64(u64::from(times));
            out.u64(len as u64);
        }
        out.raw(&self.data);
        self.data.clear();
        if self.sliced { pack_at(SLICED_LEVEL, SLICED, &body) } else { pack(VERSION, &body) }
    }
}

/// A block that is being read.
pub(crate) struct Block {
    sliced: bool,
    body: Vec<u8>,
    /// Number of the times, begin and end in the body, for each series.
    directory: Vec<(u32, usize, usize)>,
}

impl Block {
    /// Inflates a block and reads its directory.
    pub(crate) fn open(block: &[u8]) -> Result<Self, Error> {
        let sliced = block.first() == Some(&SLICED);
        let body = unpack(if sliced { SLICED } else { VERSION }, block, "value")?;
        let mut input = Reader::new(&body);
        let count = input.count(2)?;
        let mut lens = Vec::with_capacity(count);
        for _ in 0..count {
            lens.push((input.u32()?, input.u64()? as usize));
        }
        let mut at = body.len() - input.rest().len();
        let mut directory = Vec::with_capacity(count);
        for (times, len) in lens {
            let end = at.checked_add(len).filter(|end| *end <= body.len());
            let end = end.ok_or_else(|| Error::corrupt("a value block's directory points outside of it"))?;
            directory.push((times, at, end));
            at = end;
        }
        Ok(Self { sliced, body, directory })
    }

    /// The number of the times of a series.
    #[inline]
    pub(crate) fn times(&self, slot: usize) -> Result<u32, Error> {
        self.entry(slot).map(|(times, ..)| times)
    }

    /// Appends samples of a series, by their places, to earlier ones; `times` are those of all its samples.
    #[inline]
    pub(crate) fn append(
        &self,
        slot: usize,
        times: &[i64],
        places: Range<usize>,
        scratch: &mut Scratch,
        into: &mut Points,
    ) -> Result<(), Error> {
        let (_, from, to) = self.entry(slot)?;
        let column = Column { bytes: &self.body[from..to], sliced: self.sliced };
        column.append(times, places.start, places.end, scratch, into)
    }

    /// Whether any sample of a series is a histogram.
    pub(crate) fn has_histograms(&self, slot: usize) -> Result<bool, Error> {
        let (_, from, to) = self.entry(slot)?;
        Ok(self.body[from..to].first().is_some_and(|flags| flags & HAS_HISTOGRAMS != 0))
    }

    /// Bytes of the block before compression.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    #[inline]
    fn entry(&self, slot: usize) -> Result<(u32, usize, usize), Error> {
        self.directory.get(slot).copied().ok_or_else(|| Error::corrupt("a series is not in its value block"))
    }
}

fn encode_points(points: &Points, sliced: bool, out: &mut Vec<u8>) {
    let has_floats = points.histograms.len() < points.len();
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        flag(has_floats, HAS_FLOATS)
            | flag(!points.histograms.is_empty(), HAS_HISTOGRAMS)
            | flag(!points.start_ms.is_empty(), HAS_STARTS),
    );
    match has_floats {
        true if sliced => encode_slices(&points.floats, out),
        true => floats::encode(&points.floats, out),
        false => {}
    }
    if !points.histograms.is_empty() {
        let writer = &mut Writer::new(out);
        writer.u64(points.histograms.len() as u64);
        let mut before = 0;
        for (at, histogram) in &points.histograms {
            writer.u64(u64::from(at - before));
            before = *at;
            histogram.encode(writer);
        }
    }
    if !points.start_ms.is_empty() {
        // Starts repeat until a counter is reset.
        let writer = &mut Writer::new(out);
        let mut previous = 0i64;
        for start in &points.start_ms {
            writer.i64(start.wrapping_sub(previous));
            previous = *start;
        }
    }
}

/// Room for a whole column of which a part is wanted.
#[derive(Default)]
pub(crate) struct Scratch {
    floats: Vec<f64>,
}

/// The lengths of all slices, then the slices.
fn encode_slices(values: &[f64], out: &mut Vec<u8>) {
    let mut slices = Vec::new();
    let mut writer = Writer::new(out);
    for slice in values.chunks(SLICE) {
        let before = slices.len();
        floats::encode(slice, &mut slices);
        writer.u64((slices.len() - before) as u64);
    }
    writer.raw(&slices);
}

/// The bytes of a series.
struct Column<'b> {
    bytes: &'b [u8],
    sliced: bool,
}

impl Column<'_> {
    fn append(
        &self,
        times: &[i64],
        from: usize,
        to: usize,
        scratch: &mut Scratch,
        into: &mut Points,
    ) -> Result<(), Error> {
        let input = &mut Reader::new(self.bytes);
        let flags = input.u8()?;
        let (count, at) = (times.len(), into.len());
        // Of floats alone what comes after the range need not be read.
        let wanted = if flags == HAS_FLOATS { to } else { count };
        if flags & HAS_FLOATS == 0 {
            into.floats.resize(at + to - from, 0.0);
        } else if self.sliced {
            append_slices(input, count, from, to, scratch, &mut into.floats)?;
        } else {
            append_floats(input, count, from..to, wanted, scratch, &mut into.floats)?;
        }
        into.t_ms.extend_from_slice(&times[from..to]);
        if flags & HAS_HISTOGRAMS != 0 {
            append_histograms(input, count, from, to, at, into)?;
        }
        if flags & HAS_STARTS != 0 {
            into.start_ms.resize(at, 0);
            let (mut previous, mut place) = (0i64, 0);
            input.i64s(count, |difference| {
                previous = previous.wrapping_add(difference);
                if (from..to).contains(&place) {
                    into.start_ms.push(previous);
                }
                place += 1;
            })?;
        } else if !into.start_ms.is_empty() {
            into.start_ms.resize(at + to - from, 0);
        }
        if input.is_empty() { Ok(()) } else { Err(Error::corrupt("bytes follow the end of a column")) }
    }
}

/// Appends some floats of a column of `count`, of which the first `wanted` are read.
fn append_floats(
    input: &mut Reader<'_>,
    count: usize,
    places: Range<usize>,
    wanted: usize,
    scratch: &mut Scratch,
    into: &mut Vec<f64>,
) -> Result<(), Error> {
    if places.start == 0 && places.end == wanted {
        return floats::decode(input, count, wanted, into);
    }
    scratch.floats.clear();
    floats::decode(input, count, wanted, &mut scratch.floats)?;
    into.extend_from_slice(&scratch.floats[places]);
    Ok(())
}

/// Appends some floats of slices; only those that have some are read.
fn append_slices(
    input: &mut Reader<'_>,
    count: usize,
    from: usize,
    to: usize,
    scratch: &mut Scratch,
    into: &mut Vec<f64>,
) -> Result<(), Error> {
    let mut lens = SmallVec::<[usize; 32]>::new();
    for _ in 0..count.div_ceil(SLICE) {
        lens.push(input.u64()? as usize);
    }
    for (number, len) in lens.into_iter().enumerate() {
        let slice = &mut Reader::new(input.raw(len)?);
        let first = number * SLICE;
        let size = (count - first).min(SLICE);
        let (from, to) = (from.max(first), to.min(first + size));
        if from < to {
            append_floats(slice, size, from - first..to - first, to - first, scratch, into)?;
            if !slice.is_empty() {
                return Err(Error::corrupt("bytes follow the end of a slice"));
            }
        }
    }
    Ok(())
}

fn append_histograms(
    input: &mut Reader<'_>,
    count: usize,
    from: usize,
    to: usize,
    at: usize,
    into: &mut Points,
) -> Result<(), Error> {
    let mut place = 0u32;
    for _ in 0..input.count(2)? {
        place = place.saturating_add(input.u32()?);
        if place as usize >= count {
            return Err(Error::corrupt("a histogram lies outside its column"));
        }
        let histogram = FloatHistogram::decode(input)?;
        if (from..to).contains(&(place as usize)) {
            into.histograms.push(((at + place as usize - from) as u32, Arc::new(histogram)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tricord_model::{Sample, Value};

    use super::*;

    fn example(seed: i64) -> Points {
        let histogram = Arc::new(FloatHistogram { count: seed as f64, ..FloatHistogram::default() });
        let samples = [
            Sample::float(seed, 1.5),
            Sample { t_ms: seed + 5, start_ms: 3, value: Value::Histogram(histogram) },
            Sample::float(seed + 9, -0.0),
        ];
        samples.into_iter().collect()
    }

    #[test]
    fn any_series_of_a_block_is_read_alone() {
        let mut builder = BlockBuilder::default();
        (0..10).for_each(|n| builder.push(n, &example(i64::from(n))));
        let bytes = builder.finish().unwrap();
        assert_eq!(builder.len(), 0);
        let block = Block::open(&bytes).unwrap();
        for n in [7u32, 0, 9] {
            let expected = example(i64::from(n));
            assert_eq!(block.times(n as usize).unwrap(), n);
            assert_eq!(read(&block, n as usize, &expected.t_ms, 0..3).unwrap(), expected);
        }
        assert!(read(&block, 10, &[], 0..0).is_err());
        assert!(read(&block, 0, &[1], 0..1).is_err(), "another number of times is noticed");
    }

    fn read(block: &Block, slot: usize, times: &[i64], places: Range<usize>) -> Result<Points, Error> {
        let mut points = Points::default();
        block.append(slot, times, places, &mut Scratch::default(), &mut points).map(|()| points)
    }

    #[test]
    fn a_range_of_a_series_is_that_part_of_all_its_samples() {
        let floats: Points = (0..20).map(|n| Sample::float(n * 10, n as f64 * 0.5)).collect();
        let mixed = example(100);
        let mut builder = BlockBuilder::default();
        builder.push(0, &floats);
        builder.push(1, &mixed);
        let block = Block::open(&builder.finish().unwrap()).unwrap();
        for (slot, all) in [(0, &floats), (1, &mixed)] {
            for places in [0..0, 0..1, 1..2, 0..all.len(), 1..all.len(), all.len()..all.len()] {
                let expected: Points = places.clone().filter_map(|at| all.get(at)).collect();
                let got = read(&block, slot, &all.t_ms, places.clone()).unwrap();
                assert_eq!(got.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>(), "{places:?}");
            }
        }
    }

    #[test]
    fn any_part_of_a_long_series_is_read_alone() {
        let starts = |n: i64| if n > 300 { n / 100 } else { 0 };
        let floats: Points = (0..700).map(|n| Sample::float(n * 10, (n % 31) as f64 * 0.5)).collect();
        let stale = |n: i64| if n % 97 == 5 { tricord_model::STALE_NAN } else { (n as f64).sqrt() };
        let odd: Points = (0..513)
            .map(|n| Sample { t_ms: n, start_ms: starts(n), value: Value::Float(stale(n)) })
            .collect();
        let mixed = example(100);
        let mut builder = BlockBuilder::sliced();
        [&floats, &odd, &mixed].into_iter().for_each(|points| builder.push(0, points));
        let bytes = builder.finish().unwrap();
        let block = Block::open(&bytes).unwrap();
        let bits = |points: &Points| -> Vec<(i64, i64, u64)> {
            let start = |at: usize| points.start_ms.get(at).copied().unwrap_or(0);
            (0..points.len()).map(|at| (points.t_ms[at], start(at), points.floats[at].to_bits())).collect()
        };
        for (slot, all) in [&floats, &odd, &mixed].into_iter().enumerate() {
            for from in (0..all.len()).step_by(51).chain([255, 256, 257, 512]) {
                for to in [from + 1, from + 2, 256, 512, all.len()].map(|to| to.min(all.len())) {
                    let from = from.min(to);
                    let got = read(&block, slot, &all.t_ms, from..to).unwrap();
                    assert_eq!(bits(&got), bits(all)[from..to], "{slot}: {from}..{to}");
                    let inside = |(at, _): &&(u32, _)| (from..to).contains(&(*at as usize));
                    assert_eq!(got.histograms.len(), all.histograms.iter().filter(inside).count());
                }
            }
        }
        for len in 0..bytes.len() {
            assert!(Block::open(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn series_of_several_windows_are_put_together() {
        let mut builder = BlockBuilder::default();
        let parts: [Points; 3] = [
            [Sample::float(1, 1.0), Sample::float(2, 2.0)].into_iter().collect(),
            example(100),
            [Sample::float(200, 3.0)].into_iter().collect(),
        ];
        parts.iter().for_each(|part| builder.push(0, part));
        let block = Block::open(&builder.finish().unwrap()).unwrap();
        let mut all = Points::default();
        for (slot, part) in parts.iter().enumerate() {
            block.append(slot, &part.t_ms, 0..part.len(), &mut Scratch::default(), &mut all).unwrap();
        }
        let expected: Points = parts.iter().flat_map(Points::iter).collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        assert_eq!(all.start_ms.len(), all.len());
    }

    #[test]
    fn every_cut_is_noticed() {
        let mut builder = BlockBuilder::default();
        builder.push(0, &example(1));
        let bytes = builder.finish().unwrap();
        for len in 0..bytes.len() {
            assert!(Block::open(&bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
