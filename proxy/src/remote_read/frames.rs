//! The answer with `STREAMED_XOR_CHUNKS`: frames, each a length, a checksum and a message with chunks of one series.

use std::iter::Peekable;

use prost::Message;
use tricord_model::{Labels, Points};

use super::chunks::Chunks;
use super::wire::{self, pb};

/// A frame's message is at most this long, in bytes, unless a single chunk is longer.
const FRAME_BYTES: usize = 1 << 20;
/// Short frames are sent together up to this size, in bytes.
const BATCH_BYTES: usize = 256 << 10;

/// The frames of one query's series, batch by batch.
pub(super) struct Frames {
    query_index: i64,
    series: std::vec::IntoIter<(Labels, Points)>,
    current: Option<(Vec<pb::Label>, Peekable<Chunks>)>,
}

impl Frames {
    /// The frames of the query at a place in the request; its series sorted by labels.
    pub(super) fn new(query_index: usize, series: Vec<(Labels, Points)>) -> Self {
        Self { query_index: query_index as i64, series: series.into_iter(), current: None }
    }

    /// The next bytes of the body; `None` behind the last frame.
    pub(super) fn next_batch(&mut self) -> Option<Vec<u8>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_BYTES {
            let Some(message) = self.next_message() else { break };
            append_frame(&message.encode_to_vec(), &mut batch);
        }
        (!batch.is_empty()).then_some(batch)
    }

    fn next_message(&mut self) -> Option<pb::ChunkedReadResponse> {
        loop {
            let Some((labels, chunks)) = &mut self.current else {
                let (labels, points) = self.series.next()?;
                self.current = Some((wire::labels(&labels), Chunks::new(points).peekable()));
                continue;
            };
            if chunks.peek().is_none() {
                self.current = None;
                continue;
            }
            let series = pb::ChunkedSeries { labels: labels.clone(), chunks: vec![] };
            let mut message =
                pb::ChunkedReadResponse { chunked_series: vec![series], query_index: self.query_index };
            // What the message's own keys and lengths may add.
            let mut left = FRAME_BYTES.saturating_sub(message.encoded_len() + 32);
            while let Some(chunk) = chunks.peek() {
                let size = chunk.encoded_len() + 8;
                let is_first = message.chunked_series[0].chunks.is_empty();
                if size > left && !is_first {
                    break;
                }
                left = left.saturating_sub(size);
                message.chunked_series[0].chunks.extend(chunks.next());
            }
            return Some(message);
        }
    }
}

/// Length, CRC-32 (Castagnoli) with its highest byte first, and the message.
fn append_frame(message: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_varint(message.len() as u64, out);
    out.extend_from_slice(&crc32c::crc32c(message).to_be_bytes());
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use tricord_model::Sample;
    use tricord_testkit::remote_read::frames;

    use super::*;

    #[test]
    fn a_long_series_is_split_over_frames_of_bounded_size() {
        // Values whose bits have nothing in common make the longest chunks.
        let noise = |at: u64| f64::from_bits(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
        let points: Points = (0..400_000u64).map(|at| Sample::float(at as i64 * 1000, noise(at))).collect();
        let labels = Labels::from_pairs([("__name__", "noise")]);
        let short: Points = std::iter::once(Sample::float(5, 1.5)).collect();
        let series = vec![(Labels::from_pairs([("__name__", "m")]), short.clone()), (labels, points.clone())];
        let mut source = Frames::new(3, series);
        let mut body = Vec::new();
        while let Some(batch) = source.next_batch() {
            assert!(batch.len() < BATCH_BYTES + FRAME_BYTES + 64, "{}", batch.len());
            body.extend(batch);
        }
        let frames = frames(&body).unwrap();
        assert!(frames.len() > 3, "{}", frames.len());
        assert!(frames.iter().all(|frame| frame.bytes <= FRAME_BYTES && frame.query_index == 3));
        let samples: Vec<(i64, u64)> = frames
            .iter()
            .filter(|frame| frame.labels[0].1 == "noise")
            .flat_map(|frame| frame.floats().unwrap())
            .map(|(t_ms, value)| (t_ms, value.to_bits()))
            .collect();
        let expected: Vec<(i64, u64)> =
            points.t_ms.iter().zip(&points.floats).map(|(t_ms, value)| (*t_ms, value.to_bits())).collect();
        assert!(samples == expected, "{} samples of {}", samples.len(), expected.len());
        assert_eq!(frames[0].floats().unwrap(), [(5, 1.5)]);
        assert!(Frames::new(0, vec![]).next_batch().is_none());
    }
}
