//! What reading keeps in memory of the generations on disk, which never change once they are written: inflated blocks,
//! which series a query chose, and the names and values of labels. RocksDB's own cache holds the blocks as stored.
//!
//! A key is a hash of what is asked for and of the generation as the shard's mark describes it, so that a number that is
//! ever given twice is not taken for the same generation.

use std::sync::{Arc, LazyLock};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use roaring::RoaringBitmap;
use smallvec::SmallVec;
use tricord_model::{Labels, Matcher};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::block::values::Block;

/// Where the values of a series are in a generation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) block: u32,
    pub(crate) slot: u32,
}

/// A series that a query chose in a generation.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) fingerprint: u128,
    pub(crate) labels: Labels,
    pub(crate) place: Place,
}

/// Times of samples, in the columns of a block.
pub(crate) type Times = Vec<Vec<i64>>;

#[derive(Clone)]
enum Item {
    Block(Arc<Block>),
    Times(Arc<Times>),
    Rows(Arc<Vec<Row>>),
    Texts(Arc<Vec<String>>),
    Places(Arc<RoaringBitmap>),
}

/// What an item costs beside its content, in bytes.
const OVERHEAD: u64 = 96;
/// What a row takes: mostly labels, which rows of other generations may share.
const ROW_BYTES: u64 = 256;
/// No item may take more than this part of the cache.
const LARGEST_PART: u64 = 64;

#[derive(Clone)]
struct Bytes;

impl Weighter<u128, Item> for Bytes {
    fn weight(&self, _key: &u128, item: &Item) -> u64 {
        OVERHEAD
            + match item {
                Item::Block(block) => block.bytes() as u64,
                Item::Times(columns) => columns.iter().map(|column| 24 + column.len() as u64 * 8).sum(),
                Item::Rows(rows) => rows.len() as u64 * ROW_BYTES,
                Item::Texts(texts) => texts.iter().map(|text| 24 + text.len() as u64).sum(),
                Item::Places(places) => places.serialized_size() as u64,
            }
    }
}

/// The cache of a data node, bounded in bytes.
pub(crate) struct ReadCache {
    items: Cache<u128, Item, Bytes>,
    largest: u64,
}

/// What kind of item a key is for.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Block = 1,
    Times = 2,
    Rows = 3,
    Texts = 4,
    Places = 5,
    /// Places of generations among those of a shard.
    Having = 6,
}

/// Puts a key together.
pub(crate) struct Key(SmallVec<[u8; 256]>);

impl Key {
    pub(crate) fn new(kind: Kind) -> Self {
        Self(SmallVec::from_slice(&[kind as u8]))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn matcher(&mut self, matcher: &Matcher) -> &mut Self {
        self.bytes(matcher.name.as_bytes())
            .bytes(matcher.op.as_str().as_bytes())
            .bytes(matcher.value.as_bytes())
    }

    /// A hash that nobody outside can foresee: a query could otherwise be made to find what another has read.
    pub(crate) fn finish(&self) -> u128 {
        static SEED: LazyLock<u64> = LazyLock::new(rand::random);
        xxh3_128_with_seed(&self.0, *SEED)
    }
}

impl ReadCache {
    /// A cache of so many bytes; 0 keeps nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = bytes as u64;
        let items = (bytes / 8192).max(64) as usize;
        Self { items: Cache::with_weighter(items, bytes, Bytes), largest: bytes / LARGEST_PART }
    }

    fn put(&self, key: u128, item: Item) {
        if Bytes.weight(&key, &item) <= self.largest {
            self.items.insert(key, item);
        }
    }

    /// What is kept under a key; it is read where nothing is.
    fn get<T, E>(
        &self,
        key: u128,
        read: impl FnOnce() -> Result<T, E>,
        found: impl FnOnce(Item) -> Option<Arc<T>>,
        item: impl FnOnce(Arc<T>) -> Item,
    ) -> Result<Arc<T>, E> {
        if let Some(known) = self.items.get(&key).and_then(found) {
            return Ok(known);
        }
        let new = Arc::new(read()?);
        self.put(key, item(Arc::clone(&new)));
        Ok(new)
    }

    /// A block of values.
    pub(crate) fn block<E>(
        &self,
        key: u128,
        read: impl FnOnce() -> Result<Block, E>,
    ) -> Result<Arc<Block>, E> {
        let found = |item| if let Item::Block(block) = item { Some(block) } else { None };
        self.get(key, read, found, Item::Block)
    }

    /// A block of times.
    pub(crate) fn times<E>(
        &self,
        key: u128,
        read: impl FnOnce() -> Result<Times, E>,
    ) -> Result<Arc<Times>, E> {
        let found = |item| if let Item::Times(times) = item { Some(times) } else { None };
        self.get(key, read, found, Item::Times)
    }

    /// How many series of a generation may be kept with their labels.
    pub(crate) fn most_rows(&self) -> u64 {
        // Tests have few.
        if cfg!(test) { 3 } else { self.largest / ROW_BYTES }
    }

    /// The series of a generation that satisfy some matchers, where they are kept.
    pub(crate) fn known_rows(&self, key: u128) -> Option<Arc<Vec<Row>>> {
        self.items.get(&key).and_then(|item| if let Item::Rows(rows) = item { Some(rows) } else { None })
    }

    /// The series of a generation that satisfy some matchers.
    pub(crate) fn rows<E>(
        &self,
        key: u128,
        read: impl FnOnce() -> Result<Vec<Row>, E>,
    ) -> Result<Arc<Vec<Row>>, E> {
        let found = |item| if let Item::Rows(rows) = item { Some(rows) } else { None };
        self.get(key, read, found, Item::Rows)
    }

    /// Places under a key, where they are kept.
    pub(crate) fn known_places(&self, key: u128) -> Option<Arc<RoaringBitmap>> {
        self.items
            .get(&key)
            .and_then(|item| if let Item::Places(places) = item { Some(places) } else { None })
    }

    /// The places of the series of a generation that satisfy some matchers, or of generations that have some.
    pub(crate) fn places<E>(
        &self,
        key: u128,
        read: impl FnOnce() -> Result<RoaringBitmap, E>,
    ) -> Result<Arc<RoaringBitmap>, E> {
        let found = |item| if let Item::Places(places) = item { Some(places) } else { None };
        self.get(key, read, found, Item::Places)
    }

    /// Names or values of labels.
    pub(crate) fn texts<E>(
        &self,
        key: u128,
        read: impl FnOnce() -> Result<Vec<String>, E>,
    ) -> Result<Arc<Vec<String>>, E> {
        let found = |item| if let Item::Texts(texts) = item { Some(texts) } else { None };
        self.get(key, read, found, Item::Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(cache: &ReadCache, key: u128, text: &str) -> Arc<Vec<String>> {
        cache.texts(key, || Ok::<_, ()>(vec![text.to_owned()])).unwrap()
    }

    #[test]
    fn what_was_read_is_kept_until_the_bound() {
        let cache = ReadCache::new(64 << 10);
        let key = |n: u64| {
            let mut key = Key::new(Kind::Texts);
            key.number(n);
            key.finish()
        };
        assert_eq!(*texts(&cache, key(0), "a"), ["a"]);
        assert_eq!(*texts(&cache, key(0), "b"), ["a"], "it is not read again");
        for n in 1..10_000 {
            texts(&cache, key(n), &"x".repeat(200));
        }
        assert!(cache.items.weight() <= 64 << 10);
        let large = "y".repeat(4 << 10);
        texts(&cache, key(1 << 40), &large);
        assert_eq!(*texts(&cache, key(1 << 40), "z"), ["z"], "what would push much out is not kept");
    }

    #[test]
    fn a_cache_of_nothing_reads_every_time() {
        let cache = ReadCache::new(0);
        assert_eq!(*texts(&cache, 1, "a"), ["a"]);
        assert_eq!(*texts(&cache, 1, "b"), ["b"]);
    }

    #[test]
    fn keys_tell_kinds_and_boundaries_apart() {
        let key = |kind, parts: &[&[u8]], number: Option<u64>| {
            let mut key = Key::new(kind);
            for part in parts {
                key.bytes(part);
            }
            if let Some(number) = number {
                key.number(number);
            }
            key.finish()
        };
        let keys = [
            key(Kind::Rows, &[b"ab", b"c"], None),
            key(Kind::Rows, &[b"a", b"bc"], None),
            key(Kind::Texts, &[b"ab", b"c"], None),
            key(Kind::Rows, &[b"ab", b"c"], Some(0)),
        ];
        let distinct: std::collections::HashSet<u128> = keys.into_iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
