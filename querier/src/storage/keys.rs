//! The keys of RocksDB. FORMAT.md describes them; numbers given here are never reused for something else.
//!
//! Windows lie in two families with equal prefixes, `class, window, generation`: the index goes in first, then the
//! data, whose file also has the marks that make the generation count.

use tricord_model::{Seq, ShardId, Tenant, TraceId};
use tricord_rocks::Family;

/// Rows of the shards' states, written through RocksDB's own log.
pub(crate) const STATE: &str = "state";
/// Labels, postings and trace ids of windows.
pub(crate) const INDEX: &str = "index";
/// Marks and blocks of windows.
pub(crate) const DATA: &str = "data";

/// The families: fixed, never one per shard or window.
pub(crate) const FAMILIES: [Family; 3] = [
    Family { name: STATE, compress: true, bloom: false, block_bytes: 16 << 10 },
    Family { name: INDEX, compress: true, bloom: true, block_bytes: 16 << 10 },
    Family { name: DATA, compress: false, bloom: false, block_bytes: 16 << 10 },
];

const MARKS: u8 = 0;
const CONTENT: u8 = 1;

/// What a key under a shard and tenant of a generation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Section {
    /// Index: counts of the tenant's series.
    Header = 1,
    /// Index: labels of series, in blocks.
    Series = 2,
    /// Index: label name and value to series.
    Postings = 3,
    /// Index: trace id to span block.
    Traces = 4,
    /// Data: blocks of timestamps.
    Times = 5,
    /// Data: blocks of values.
    Values = 6,
    /// Data: blocks of exemplars.
    Exemplars = 7,
    /// Data: blocks of spans.
    Spans = 8,
    /// Data: blocks of timestamps of merged windows.
    LongTimes = 9,
}

/// In merged windows the number of a span block is the place of its window among the merged ones times this, and its
/// number there.
pub(crate) const SPAN_BLOCKS_PER_WINDOW: u32 = 1 << 20;

/// A window's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation {
    /// The number of the retention class.
    pub(crate) class: u8,
    /// The window's start, in milliseconds.
    pub(crate) window_ms: i64,
    /// Counted from 1 in each window, over all classes.
    pub(crate) number: u32,
}

/// Flips the sign bit, so that bytes sort like numbers.
fn sortable(time_ms: i64) -> [u8; 8] {
    ((time_ms as u64) ^ (1 << 63)).to_be_bytes()
}

fn unsortable(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

/// Everything of a window and class sorts at or after this, and before [`window`] of any later one.
pub(crate) fn window(class: u8, window_ms: i64) -> Vec<u8> {
    let mut key = vec![class];
    key.extend_from_slice(&sortable(window_ms));
    key
}

/// The first key after all windows.
pub(crate) fn windows_end() -> Vec<u8> {
    vec![u8::MAX]
}

/// The prefix of a generation.
pub(crate) fn generation(generation: Generation) -> Vec<u8> {
    let mut key = window(generation.class, generation.window_ms);
    key.extend_from_slice(&generation.number.to_be_bytes());
    key
}

/// The generation that a key belongs to.
pub(crate) fn parse_generation(key: &[u8]) -> Option<Generation> {
    let (class, rest) = key.split_first()?;
    let (window, rest) = rest.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<4>()?;
    let (window_ms, number) = (unsortable(*window), u32::from_be_bytes(*number));
    Some(Generation { class: *class, window_ms, number })
}

/// The key of a shard's mark in a generation.
pub(crate) fn mark(of: Generation, shard: ShardId) -> Vec<u8> {
    let mut key = generation(of);
    key.push(MARKS);
    key.extend_from_slice(&shard.0.to_be_bytes());
    key
}

/// The shard of a key of a mark; `None` for other keys.
pub(crate) fn parse_mark(key: &[u8]) -> Option<ShardId> {
    let (kind, shard) = key.get(13..)?.split_first()?;
    (*kind == MARKS).then_some(())?;
    Some(ShardId(u32::from_be_bytes(shard.try_into().ok()?)))
}

/// Whether a mark's family of keys has ended: what follows is content.
pub(crate) fn marks_end(of: Generation) -> Vec<u8> {
    let mut key = generation(of);
    key.push(CONTENT);
    key
}

/// The prefix of a shard in a generation.
pub(crate) fn shard(of: Generation, shard: ShardId) -> Vec<u8> {
    let mut key = marks_end(of);
    key.extend_from_slice(&shard.0.to_be_bytes());
    key
}

/// The prefix of a tenant in a shard of a generation.
pub(crate) fn tenant(of: Generation, of_shard: ShardId, tenant: &Tenant) -> Vec<u8> {
    let mut key = shard(of, of_shard);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(0);
    key
}

/// The tenant of a key under the prefix of a shard.
pub(crate) fn parse_tenant<'k>(prefix: &[u8], key: &'k [u8]) -> Option<&'k str> {
    let rest = key.strip_prefix(prefix)?;
    std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()
}

/// The prefix of a section of a tenant.
pub(crate) fn section(prefix: &[u8], section: Section) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.push(section as u8);
    key
}

/// The key of a numbered block of a section.
pub(crate) fn block(prefix: &[u8], of: Section, number: u32) -> Vec<u8> {
    let mut key = section(prefix, of);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The prefix of the postings of a label name.
pub(crate) fn label_name(prefix: &[u8], name: &str) -> Vec<u8> {
    let mut key = section(prefix, Section::Postings);
    for byte in name.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, 1]);
    key
}

/// The key of the postings of a label name and value.
pub(crate) fn label_value(prefix: &[u8], name: &str, value: &str) -> Vec<u8> {
    let mut key = label_name(prefix, name);
    key.extend_from_slice(value.as_bytes());
    key
}

/// Name and value behind the prefix of the postings' section.
pub(crate) fn parse_label(rest: &[u8]) -> Option<(String, &str)> {
    let mut name = Vec::new();
    let mut at = 0;
    loop {
        match (rest.get(at)?, rest.get(at + 1)) {
            (0, Some(0xff)) => {
                name.push(0);
                at += 2;
            }
            (0, Some(1)) => break,
            (0, _) => return None,
            (byte, _) => {
                name.push(*byte);
                at += 1;
            }
        }
    }
    Some((String::from_utf8(name).ok()?, std::str::from_utf8(&rest[at + 2..]).ok()?))
}

/// The key of a trace id.
pub(crate) fn trace(prefix: &[u8], id: &TraceId) -> Vec<u8> {
    let mut key = section(prefix, Section::Traces);
    key.extend_from_slice(&id.0);
    key
}

/// The first key after all that begin with a prefix.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < 0xff {
            key.push(last + 1);
            break;
        }
    }
    key
}

/// What a row of a shard's state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Row {
    /// The shard itself: epoch, base, next id.
    Meta = 1,
    /// The shard is being replaced by a snapshot: what is there of it is void.
    Installing = 2,
    /// A series: tenant and labels.
    Series = 3,
    /// The total of a series of increments.
    Delta = 4,
    /// Metadata of a family.
    Metadata = 5,
    /// A delete that may hide something on disk.
    Tombstone = 6,
}

/// The prefix of all rows of a shard.
pub(crate) fn state(shard: ShardId) -> Vec<u8> {
    shard.0.to_be_bytes().to_vec()
}

/// The prefix of the rows of a kind.
pub(crate) fn row(shard: ShardId, row: Row) -> Vec<u8> {
    let mut key = state(shard);
    key.push(row as u8);
    key
}

/// The row of a series.
pub(crate) fn series_row(shard: ShardId, kind: Row, id: u32) -> Vec<u8> {
    let mut key = row(shard, kind);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// The row of the delete of an entry.
pub(crate) fn tombstone_row(shard: ShardId, seq: Seq) -> Vec<u8> {
    let mut key = row(shard, Row::Tombstone);
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

/// The row of a family's metadata.
pub(crate) fn metadata_row(shard: ShardId, tenant: &Tenant, family: &str) -> Vec<u8> {
    let mut key = row(shard, Row::Metadata);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(family.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_sort_by_time() {
        let times = [i64::MIN, -1_800_000, 0, 1_800_000, i64::MAX];
        let keys: Vec<_> = times.iter().map(|time| window(0, *time)).collect();
        assert!(keys.is_sorted());
        let of = Generation { class: 3, window_ms: -1_800_000, number: 7 };
        assert_eq!(parse_generation(&shard(of, ShardId(3))), Some(of));
        assert_eq!(parse_mark(&mark(of, ShardId(3))), Some(ShardId(3)));
        assert_eq!(parse_mark(&shard(of, ShardId(3))), None);
    }

    #[test]
    fn label_names_do_not_run_into_values() {
        let key = |name: &str, value: &str| label_value(b"", name, value)[1..].to_vec();
        for (name, value) in [("a", "b"), ("a\0", "b"), ("", "\0\u{1}"), ("ab", "")] {
            assert_eq!(parse_label(&key(name, value)), Some((name.to_owned(), value)));
        }
        assert_ne!(key("a", "bc"), key("ab", "c"));
        assert!(key("a", "\u{10ffff}") < key("a\0", ""));
        assert!(!key("ab", "c").starts_with(&label_name(b"", "a")[1..]));
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(after(&[1, 2]), [1, 3]);
        assert_eq!(after(&[1, 0xff]), [2]);
    }
}
