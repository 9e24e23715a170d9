//! Blocks of spans, sorted by trace, with their resources and scopes written once.

use tricord_model::{SpanRecord, decode_spans, encode_spans};

use super::{pack, unpack};
use crate::storage::Error;

const VERSION: u8 = 1;
/// A block is closed when its spans have so many bytes before compression.
pub(crate) const BLOCK_BYTES: usize = 128 << 10;

/// When the spans of a block start, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The earliest start.
    pub(crate) min_ns: u64,
    /// The latest start.
    pub(crate) max_ns: u64,
}

/// Spans as a block: their bounds, uncompressed, then the rest.
pub(crate) fn encode(spans: Vec<SpanRecord>) -> Result<Vec<u8>, Error> {
    let starts = spans.iter().map(|span| span.start_ns);
    let (min, max) = (starts.clone().min().unwrap_or(0), starts.max().unwrap_or(0));
    let mut block = Vec::new();
    block.extend_from_slice(&min.to_le_bytes());
    block.extend_from_slice(&max.to_le_bytes());
    block.extend(pack(VERSION, &encode_spans(&spans))?);
    Ok(block)
}

/// A block's bounds, without inflating it.
pub(crate) fn bounds(block: &[u8]) -> Result<Bounds, Error> {
    split(block).map(|(bounds, _)| bounds)
}

/// A block's spans.
pub(crate) fn decode(block: &[u8]) -> Result<Vec<SpanRecord>, Error> {
    let (_, packed) = split(block)?;
    Ok(decode_spans(&unpack(VERSION, packed, "span")?)?)
}

fn split(block: &[u8]) -> Result<(Bounds, &[u8]), Error> {
    let cut = || Error::corrupt("a span block is cut off");
    let (min, rest) = block.split_first_chunk::<8>().ok_or_else(cut)?;
    let (max, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    Ok((Bounds { min_ns: u64::from_le_bytes(*min), max_ns: u64::from_le_bytes(*max) }, rest))
}

/// About how many bytes a span takes in a block before compression, its share of resources aside.
pub(crate) fn size(span: &SpanRecord) -> usize {
    span.span.len() + 48
}
