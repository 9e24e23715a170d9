//! Samples as the chunks of Prometheus, which remote read streams: floats in XOR chunks, native histograms in chunks of
//! float histograms. The encodings are those of its own blocks, so that readers take them as they are.

mod bits;
mod histogram;
mod xor;

use tricord_model::Points;

use super::wire::pb;
use histogram::HistogramChunk;

/// Samples per chunk: as many as Prometheus itself puts into one.
const SAMPLES: usize = 120;
/// A chunk of histograms ends at this size, in bytes, so that a frame holds several.
const HISTOGRAM_BYTES: usize = 64 << 10;

/// The chunks of a series, in order of time.
pub(super) struct Chunks {
    points: Points,
    /// The next sample, and which of the histograms is the next.
    at: usize,
    histogram: usize,
}

impl Chunks {
    pub(super) fn new(points: Points) -> Self {
        Self { points, at: 0, histogram: 0 }
    }

    /// Floats up to the next histogram.
    fn floats(&mut self) -> pb::Chunk {
        let next_histogram = self.points.histograms.get(self.histogram).map(|(at, _)| *at as usize);
        let end = next_histogram.unwrap_or(self.points.len()).min(self.at + SAMPLES);
        let data = xor::encode(&self.points.t_ms[self.at..end], &self.points.floats[self.at..end]);
        self.chunk(pb::chunk::Encoding::Xor, end, data)
    }

    /// Histograms up to the next float, or to one that the chunk does not take.
    fn histograms(&mut self) -> pb::Chunk {
        let mut end = self.at;
        let mut chunk: Option<HistogramChunk> = None;
        while let Some((_, next)) =
            self.points.histograms.get(self.histogram).filter(|(at, _)| *at as usize == end)
        {
            let t_ms = self.points.t_ms[end];
            match &mut chunk {
                None => chunk = Some(HistogramChunk::new(t_ms, next)),
                Some(chunk)
                    if end - self.at < SAMPLES && chunk.len() < HISTOGRAM_BYTES && chunk.takes(next) =>
                {
                    chunk.push(t_ms, next);
                }
                Some(_) => break,
            }
            end += 1;
            self.histogram += 1;
        }
        let data = chunk.map(HistogramChunk::finish).unwrap_or_default();
        self.chunk(pb::chunk::Encoding::FloatHistogram, end, data)
    }

    fn chunk(&mut self, encoding: pb::chunk::Encoding, end: usize, data: Vec<u8>) -> pb::Chunk {
        let (min_time_ms, max_time_ms) = (self.points.t_ms[self.at], self.points.t_ms[end - 1]);
        self.at = end;
        pb::Chunk { min_time_ms, max_time_ms, r#type: encoding.into(), data }
    }
}

impl Iterator for Chunks {
    type Item = pb::Chunk;

    fn next(&mut self) -> Option<pb::Chunk> {
        if self.at >= self.points.len() {
            return None;
        }
        let is_histogram =
            self.points.histograms.get(self.histogram).is_some_and(|(at, _)| *at as usize == self.at);
        Some(if is_histogram { self.histograms() } else { self.floats() })
    }
}

#[cfg(test)]
mod tests;
