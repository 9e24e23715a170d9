//! The bytes of stored blocks: how columns, postings and spans are written and read back.
//!
//! Every block begins with a version, and every column with the number of its codec, so that new codecs can be added
//! beside the old ones. Reading never trusts a count or a length. Checksums are RocksDB's, which verifies each read.

pub(crate) mod floats;
mod integers;
pub(crate) mod postings;
pub(crate) mod spans;
pub(crate) mod times;
pub(crate) mod values;

use std::cell::RefCell;

use super::Error;

/// The zstd level of blocks: higher ones cost more than they save on columns that are coded already.
const LEVEL: i32 = 1;
/// No block inflates to more than this, whatever it claims.
const MAX_INFLATED_BYTES: usize = 64 << 20;

/// Compresses a block's body behind its version.
pub(crate) fn pack(version: u8, body: &[u8]) -> Result<Vec<u8>, Error> {
    pack_at(LEVEL, version, body)
}

/// As [`pack`], at another level of zstd.
pub(crate) fn pack_at(level: i32, version: u8, body: &[u8]) -> Result<Vec<u8>, Error> {
    let packed =
        zstd::bulk::compress(body, level).map_err(|error| Error::Io(format!("cannot compress: {error}")))?;
    let mut block = Vec::with_capacity(packed.len() + 5);
    block.push(version);
    block.extend_from_slice(&(body.len() as u32).to_le_bytes());
    block.extend_from_slice(&packed);
    Ok(block)
}

thread_local! {
    /// Setting a decompressor up costs more than inflating a small block.
    static INFLATER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn inflate(packed: &[u8], len: usize) -> std::io::Result<Vec<u8>> {
    INFLATER.with_borrow_mut(|inflater| {
        let inflater = match inflater {
            Some(inflater) => inflater,
            None => inflater.insert(zstd::bulk::Decompressor::new()?),
        };
        inflater.decompress(packed, len)
    })
}

/// Reads what [`pack`] wrote.
pub(crate) fn unpack(version: u8, block: &[u8], what: &str) -> Result<Vec<u8>, Error> {
    let damaged = |why: &str| Error::corrupt(format!("a {what} block {why}"));
    let (found, rest) = block.split_first().ok_or_else(|| damaged("is empty"))?;
    if *found != version {
        return Err(damaged("has an unknown version: it may be of a newer build"));
    }
    let (len, packed) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("is cut off"))?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_INFLATED_BYTES {
        return Err(damaged("claims an impossible size"));
    }
    let body = inflate(packed, len).map_err(|_| damaged("cannot be decompressed"))?;
    if body.len() == len { Ok(body) } else { Err(damaged("has another size than it claims")) }
}
