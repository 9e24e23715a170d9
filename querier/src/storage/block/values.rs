//! Blocks of values: many series of one window, sorted by name and then by labels, behind a directory.
//!
//! A series' times lie in the blocks of [`super::times`], named by number.

use std::sync::Arc;

use tricord_model::codec::{Reader, Writer};
use tricord_model::{FloatHistogram, Points};

use super::{floats, pack, unpack};
use crate::storage::Error;

const VERSION: u8 = 1;
/// A block is closed when it has so many series …
pub(crate) const SERIES_PER_BLOCK: usize = 64;
/// … or so many bytes before compression.
const BLOCK_BYTES: usize = 128 << 10;

const HAS_FLOATS: u8 = 1;
const HAS_HISTOGRAMS: u8 = 2;
const HAS_STARTS: u8 = 4;

/// Puts blocks together.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    directory: Vec<(u32, usize)>,
    data: Vec<u8>,
}

impl BlockBuilder {
    /// Adds a series, whose times have this number.
    pub(crate) fn push(&mut self, times: u32, points: &Points) {
        let start = self.data.len();
        encode_points(points, &mut self.data);
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
        pack(VERSION, &body)
    }
}

/// A block that is being read.
pub(crate) struct Block {
    body: Vec<u8>,
    /// Number of the times, begin and end in the body, for each series.
    directory: Vec<(u32, usize, usize)>,
}

impl Block {
    /// Inflates a block and reads its directory.
    pub(crate) fn open(block: &[u8]) -> Result<Self, Error> {
        let body = unpack(VERSION, block, "value")?;
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
        Ok(Self { body, directory })
    }

    /// The number of the times of a series.
    pub(crate) fn times(&self, slot: usize) -> Result<u32, Error> {
        self.entry(slot).map(|(times, ..)| times)
    }

    /// The samples of a series, at these times.
    pub(crate) fn points(&self, slot: usize, times: &[i64]) -> Result<Points, Error> {
        let (_, from, to) = self.entry(slot)?;
        decode_points(&self.body[from..to], times)
    }

    /// Bytes of the block before compression.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    fn entry(&self, slot: usize) -> Result<(u32, usize, usize), Error> {
        self.directory.get(slot).copied().ok_or_else(|| Error::corrupt("a series is not in its value block"))
    }
}

fn encode_points(points: &Points, out: &mut Vec<u8>) {
    let has_floats = points.histograms.len() < points.len();
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        flag(has_floats, HAS_FLOATS)
            | flag(!points.histograms.is_empty(), HAS_HISTOGRAMS)
            | flag(!points.start_ms.is_empty(), HAS_STARTS),
    );
    if has_floats {
        floats::encode(&points.floats, out);
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

fn decode_points(bytes: &[u8], times: &[i64]) -> Result<Points, Error> {
    let input = &mut Reader::new(bytes);
    let flags = input.u8()?;
    let count = times.len();
    let mut points = Points { t_ms: times.to_vec(), ..Points::default() };
    points.floats = if flags & HAS_FLOATS != 0 { floats::decode(input, count)? } else { vec![0.0; count] };
    if flags & HAS_HISTOGRAMS != 0 {
        let mut at = 0u32;
        for _ in 0..input.count(2)? {
            at = at.saturating_add(input.u32()?);
            if at as usize >= count {
                return Err(Error::corrupt("a histogram lies outside its column"));
            }
            points.histograms.push((at, Arc::new(FloatHistogram::decode(input)?)));
        }
    }
    if flags & HAS_STARTS != 0 {
        let mut previous = 0i64;
        for _ in 0..count {
            previous = previous.wrapping_add(input.i64()?);
            points.start_ms.push(previous);
        }
    }
    if input.is_empty() { Ok(points) } else { Err(Error::corrupt("bytes follow the end of a column")) }
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
            assert_eq!(block.points(n as usize, &expected.t_ms).unwrap(), expected);
        }
        assert!(block.points(10, &[]).is_err());
        assert!(block.points(0, &[1]).is_err(), "another number of times is noticed");
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
