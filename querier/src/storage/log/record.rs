//! One record of a segment: `len u32, crc32c u32, kind u8, shard u32, seq u64, epoch u64, payload`, little-endian.
//!
//! `len` counts the bytes after the checksum, and the checksum covers those and `len` itself, so that a damaged length
//! is not taken for a torn tail.

use bytes::Bytes;
use tricord_model::{Epoch, Seq, ShardId};

use crate::storage::Entry;

/// What a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry of a shard.
    Entry,
    /// The shard's entries after `seq` are cut.
    Cut,
    /// The shard begins anew after `seq`; everything about it before this record is void.
    Reset,
}

/// A record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// What it stands for.
    pub(crate) kind: Kind,
    /// Whose it is.
    pub(crate) shard: ShardId,
    /// Its place in the shard's log.
    pub(crate) seq: Seq,
    /// The epoch it was written under.
    pub(crate) epoch: Epoch,
    /// Whether everything before it was synced when it was written: damage before it is no torn tail.
    pub(crate) after_sync: bool,
    /// Where it begins in its segment.
    pub(crate) offset: u64,
    /// All its bytes.
    pub(crate) len: u32,
}

/// Bytes of a record before its payload.
pub(crate) const HEADER_BYTES: usize = 8 + BODY_HEADER_BYTES;
const BODY_HEADER_BYTES: usize = 1 + 4 + 8 + 8;
/// No payload may be larger: a damaged length must not allocate.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 256 << 20;

impl Record {
    /// The entry, with the payload that was read beside it.
    pub(crate) fn entry(&self, payload: Bytes) -> Entry {
        Entry { shard: self.shard, seq: self.seq, epoch: self.epoch, payload }
    }
}

/// Set in the kind's byte of the first record after a sync.
const AFTER_SYNC: u8 = 0x80;

/// Appends a record and answers its length.
pub(crate) fn write(out: &mut Vec<u8>, kind: Kind, after_sync: bool, entry: &Entry) -> u32 {
    let Entry { shard, seq, epoch, payload } = entry;
    let start = out.len();
    out.extend_from_slice(&((BODY_HEADER_BYTES + payload.len()) as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let number = match kind {
        Kind::Entry => 1,
        Kind::Cut => 2,
        Kind::Reset => 3,
    };
    out.push(if after_sync { number | AFTER_SYNC } else { number });
    out.extend_from_slice(&shard.0.to_le_bytes());
    out.extend_from_slice(&seq.0.to_le_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = checksum(&out[start..start + 4], &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    (out.len() - start) as u32
}

fn checksum(len: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), body)
}

/// Whether a record may begin here, as far as its kind and its numbers tell: to look for the next record among bytes that
/// are none, a checksum at each place would cost too much.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(8..HEADER_BYTES) else { return false };
    let is_small = |number: &[u8]| number.iter().skip(6).all(|byte| *byte == 0);
    matches!(header.first().map(|kind| kind & !AFTER_SYNC), Some(1..=3))
        && header.get(5..13).is_some_and(is_small)
        && header.get(13..21).is_some_and(is_small)
}

/// Reads the record at the start of `bytes`; its `offset` is left 0.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Record, &[u8]), &'static str> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or("a record's header is cut off")?;
    let (crc, rest) = rest.split_first_chunk::<4>().ok_or("a record's header is cut off")?;
    let body_len = u32::from_le_bytes(*len) as usize;
    if !(BODY_HEADER_BYTES..=BODY_HEADER_BYTES + MAX_PAYLOAD_BYTES).contains(&body_len) {
        return Err("a record's length is impossible");
    }
    let body = rest.get(..body_len).ok_or("a record is cut off")?;
    if checksum(len, body) != u32::from_le_bytes(*crc) {
        return Err("a record's checksum does not match");
    }
    let cut = "a record's header is cut off";
    let (kind, body) = body.split_first().ok_or(cut)?;
    let (shard, body) = body.split_first_chunk::<4>().ok_or(cut)?;
    let (seq, body) = body.split_first_chunk::<8>().ok_or(cut)?;
    let (epoch, payload) = body.split_first_chunk::<8>().ok_or(cut)?;
    let after_sync = kind & AFTER_SYNC != 0;
    let kind = match kind & !AFTER_SYNC {
        1 => Kind::Entry,
        2 => Kind::Cut,
        3 => Kind::Reset,
        _ => return Err("a record's kind is unknown: it may be of a newer build"),
    };
    let record = Record {
        kind,
        shard: ShardId(u32::from_le_bytes(*shard)),
        seq: Seq(u64::from_le_bytes(*seq)),
        epoch: Epoch(u64::from_le_bytes(*epoch)),
        after_sync,
        offset: 0,
        len: (8 + body_len) as u32,
    };
    Ok((record, payload))
}
