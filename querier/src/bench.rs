//! The inside of the store, for `benches/` alone: it is no interface, and may change with any commit.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use tricord_model::codec::Reader as In;
use tricord_model::{BatchView, Epoch, Matcher, Points, Retention, Sample, Seq, ShardId, Tenant};
use tricord_wire::Error;

use crate::storage::block::{floats, postings, times, values};
use crate::storage::log::files::RealFiles;
use crate::storage::log::{self, LogConfig, Opened};
use crate::storage::{self, Entry, FsyncMode, Store, StoreConfig};

/// The one shard of a [`Head`].
const SHARD: ShardId = ShardId(0);

type Result<T> = std::result::Result<T, Error>;

/// A column of floats as it is stored.
#[must_use]
pub fn encode_floats(values: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    floats::encode(values, &mut bytes);
    bytes
}

/// Appends the values of a column.
///
/// # Errors
/// An error where it is damaged.
pub fn decode_floats(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<()> {
    Ok(floats::decode(&mut In::new(bytes), count, count, out)?)
}

/// A block of timestamps as it is stored.
///
/// # Errors
/// An error where it cannot be compressed.
pub fn encode_times(columns: &[Vec<i64>]) -> Result<Vec<u8>> {
    Ok(times::encode(columns)?)
}

/// The columns of a block of timestamps.
///
/// # Errors
/// An error where it is damaged.
pub fn decode_times(block: &[u8]) -> Result<Vec<Vec<i64>>> {
    Ok(times::decode(block)?)
}

/// A set of series as it is stored.
///
/// # Errors
/// An error where it cannot be written.
pub fn encode_postings(ids: &RoaringBitmap) -> Result<Vec<u8>> {
    Ok(postings::encode(ids)?)
}

/// The series of a set.
///
/// # Errors
/// An error where it is damaged.
pub fn decode_postings(bytes: &[u8]) -> Result<RoaringBitmap> {
    Ok(postings::decode(bytes)?)
}

/// Columns of equal length as blocks with their numbers of columns, in the order given; `is_long` as in merged windows.
///
/// # Errors
/// An error where a block cannot be compressed.
pub fn encode_blocks(columns: &[&[f64]], is_long: bool) -> Result<Vec<(usize, Vec<u8>)>> {
    let mut builder = if is_long { values::BlockBuilder::sliced() } else { values::BlockBuilder::default() };
    let mut blocks = Vec::new();
    for column in columns {
        if builder.is_full() {
            blocks.push((builder.len(), builder.finish()?));
        }
        let samples = column.iter().enumerate().map(|(at, value)| Sample::float(at as i64, *value));
        builder.push(0, &samples.collect::<Points>());
    }
    blocks.push((builder.len(), builder.finish()?));
    Ok(blocks)
}

/// Reads some columns of blocks, by their places in ascending order; answers how many blocks that took.
///
/// # Errors
/// An error where a block is damaged.
pub fn read_blocks(
    blocks: &[(usize, Vec<u8>)],
    wanted: &[usize],
    times: &[i64],
    into: &mut Points,
) -> Result<usize> {
    let (mut opened, mut first, mut wanted) = (0, 0, wanted.iter().peekable());
    let mut scratch = values::Scratch::default();
    for (count, bytes) in blocks {
        let mut block = None;
        while let Some(place) = wanted.next_if(|place| **place < first + count) {
            let block = match &mut block {
                Some(block) => block,
                none => {
                    opened += 1;
                    none.insert(values::Block::open(bytes)?)
                }
            };
            *into = Points::default();
            block.append(place - first, times, 0..times.len(), &mut scratch, into)?;
        }
        first += count;
    }
    Ok(opened)
}

/// A log as the store has it, with a sync before each answer.
pub struct Log(log::Log);

/// Takes entries and does nothing.
struct Nowhere;

impl log::Sink for Nowhere {
    fn apply(&mut self, _: &Entry) -> std::result::Result<(), storage::Error> {
        Ok(())
    }
}

impl Log {
    /// Opens a log in a directory.
    ///
    /// # Errors
    /// An error where the directory cannot be used.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = LogConfig { dir: dir.to_owned(), fsync: FsyncMode::Always, segment_bytes: 64 << 20 };
        Ok(Self(Opened::open(config, Arc::new(RealFiles))?.start(Box::new(Nowhere))?))
    }

    /// Appends a shard's next entry, and waits until it is durable.
    ///
    /// # Errors
    /// An error where the disk fails.
    pub fn append(&self, shard: u32, seq: u64, payload: Bytes) -> Result<()> {
        let entry = Entry { shard: ShardId(shard), seq: Seq(seq), epoch: Epoch(1), payload };
        Ok(self.0.append_and_wait(vec![entry])?)
    }
}

/// A store of one shard, whose log is not waited for.
pub struct Head {
    store: Arc<Store>,
}

impl Head {
    /// Opens a store in a directory.
    ///
    /// # Errors
    /// An error where the directory cannot be used.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut config = StoreConfig::new(dir);
        config.fsync = FsyncMode::Interval(60_000);
        config.retention = Retention::keeping(None);
        let store = Store::open(config, &|_| {})?;
        store.create_shard(SHARD)?;
        Ok(Self { store })
    }

    /// Judges, appends and commits an encoded batch, as a primary without followers does.
    ///
    /// # Errors
    /// An error where the batch is malformed or the disk fails.
    pub fn write(&self, batch: &[u8], now_ms: i64) -> Result<()> {
        let view = BatchView::read(batch).map_err(storage::Error::from)?;
        let judged = self.store.judge(SHARD, &Tenant::default(), view, now_ms)?;
        if judged.is_empty {
            return Ok(());
        }
        let seq = self.store.position(SHARD).seq.next();
        let entry = Entry { shard: SHARD, seq, epoch: Epoch(1), payload: judged.payload };
        let appended = self.store.append(vec![entry]).blocking_recv();
        appended.map_err(|_| storage::Error::Cancelled)??;
        self.store.commit(SHARD, seq);
        Ok(())
    }

    /// Seals all windows, and writes them out.
    ///
    /// # Errors
    /// An error where the disk fails.
    pub fn flush(&self) -> Result<()> {
        self.store.flush()?;
        Ok(())
    }

    /// How many series satisfy the matchers.
    ///
    /// # Errors
    /// An error where the index is damaged.
    pub fn count(&self, matchers: &[Matcher]) -> Result<u64> {
        let reader = self.store.reader(&[SHARD], &Tenant::default(), i64::MIN);
        Ok(reader.estimate(&[matchers.to_vec()], i64::MIN, i64::MAX)?.series)
    }
}
