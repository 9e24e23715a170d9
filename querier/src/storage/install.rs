//! Putting the snapshot of a shard in place, from another replica or from a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tricord_model::codec::{CodecError, Reader as In};
use tricord_model::{Epoch, Seq, ShardId};

use super::keys::{self, Generation, Row};
use super::log::Kind;
use super::snapshot::Item;
use super::state::{Meta, meta_row};
use super::store::{Cell, Inner};
use super::{Entry, Error, Position, Store};

/// Pairs of so many bytes go into one file.
const FILE_BYTES: usize = 64 << 20;
/// No item may be larger: a damaged length must not allocate.
const MAX_ITEM_BYTES: usize = 300 << 20;

impl Store {
    /// Replaces a shard by a snapshot that reaches `position`. A crash in between leaves no shard.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the chunks are not a snapshot of this shard up to the position; an error among the
    /// chunks; the disk's failure. The shard is gone then.
    pub(crate) fn install(
        &self,
        shard: ShardId,
        position: Position,
        chunks: &mut dyn Iterator<Item = Result<Vec<u8>, Error>>,
    ) -> Result<(), Error> {
        self.put_in_place(shard, position, chunks, Origin::Replica)
    }

    /// As [`Store::install`], from the snapshot of a backup that ends at entry `last`: epochs of the cluster that it was
    /// taken from mean nothing here, so that its entries have epoch 0, under which none is ever written.
    ///
    /// # Errors
    /// As [`Store::install`].
    pub(crate) fn install_backup(
        &self,
        shard: ShardId,
        last: Seq,
        chunks: &mut dyn Iterator<Item = Result<Vec<u8>, Error>>,
    ) -> Result<(), Error> {
        self.put_in_place(shard, Position { seq: last, epoch: Epoch(0) }, chunks, Origin::Backup)
    }

    fn put_in_place(
        &self,
        shard: ShardId,
        position: Position,
        chunks: &mut dyn Iterator<Item = Result<Vec<u8>, Error>>,
        origin: Origin,
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let _no_flush = inner.flushing.lock();
        let epoch = inner.find(shard).map(|cell| cell.state.read().epoch);
        inner.remove_shard(shard)?;
        let mut installing = Installing::begin(inner, shard, origin)?;
        let result = installing.run(chunks).and_then(|()| installing.finish(position, epoch));
        if result.is_err() {
            drop(installing);
            inner.remove_shard(shard)?;
            return result;
        }
        // It may be counted on as soon as this is told, and rows may be lost.
        inner.tell_ledger()
    }
}

/// Where a snapshot comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Another replica of this cluster.
    Replica,
    /// A backup, perhaps of another cluster.
    Backup,
}

impl Origin {
    /// The epoch of an entry as it counts here.
    fn epoch(self, epoch: Epoch) -> Epoch {
        match self {
            Self::Replica => epoch,
            Self::Backup => Epoch(0),
        }
    }
}

/// A snapshot that is being put in place.
struct Installing<'a> {
    inner: &'a Arc<Inner>,
    shard: ShardId,
    origin: Origin,
    meta: Option<Meta>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    index: Vec<(Vec<u8>, Vec<u8>)>,
    data: Vec<(Vec<u8>, Vec<u8>)>,
    /// The numbers of classes here, by those in the snapshot.
    classes: BTreeMap<u8, u8>,
    bytes: usize,
    files: u32,
    entries: Vec<Entry>,
    /// The prefixes of the generations that have come.
    generations: BTreeSet<Vec<u8>>,
    cell: Option<Arc<Cell>>,
}

impl<'a> Installing<'a> {
    /// Marks the shard as void until the end.
    fn begin(inner: &'a Arc<Inner>, shard: ShardId, origin: Origin) -> Result<Self, Error> {
        inner.make_void(shard)?;
        Ok(Self {
            inner,
            shard,
            origin,
            meta: None,
            rows: Vec::new(),
            index: Vec::new(),
            data: Vec::new(),
            classes: BTreeMap::from([(0, 0)]),
            bytes: 0,
            files: 0,
            entries: Vec::new(),
            generations: BTreeSet::new(),
            cell: None,
        })
    }

    fn run(&mut self, chunks: &mut dyn Iterator<Item = Result<Vec<u8>, Error>>) -> Result<(), Error> {
        let mut buffer = Vec::new();
        for chunk in chunks {
            buffer.extend_from_slice(&chunk?);
            let mut used = 0;
            while let Some((item, key, value, len)) = next_item(&buffer[used..])? {
                self.take(item, key, value)?;
                used += len;
            }
            buffer.drain(..used);
            if buffer.len() > MAX_ITEM_BYTES {
                return Err(Error::corrupt("a snapshot has an impossible item"));
            }
        }
        if buffer.is_empty() { Ok(()) } else { Err(Error::corrupt("a snapshot is cut off")) }
    }

    fn take(&mut self, item: Item, key: &[u8], value: &[u8]) -> Result<(), Error> {
        match item {
            Item::Entry => return self.take_entry(key, value),
            Item::Class => return self.take_class(key, value),
            Item::State | Item::Index | Item::Data => {}
        }
        let mut pair = (key.to_vec(), value.to_vec());
        if matches!(item, Item::Index | Item::Data) {
            let (class, _) =
                key.split_first().ok_or_else(|| Error::corrupt("a snapshot has an empty key"))?;
            let here = self.classes.get(class);
            pair.0[0] = *here.ok_or_else(|| Error::corrupt("a snapshot does not name a retention class"))?;
        }
        let prefix = keys::state(self.shard);
        match item {
            Item::State if !key.starts_with(&prefix) => {
                return Err(Error::corrupt("a snapshot is of another shard"));
            }
            Item::State if *key == keys::row(self.shard, Row::Meta) => {
                let meta = Meta::decode(value)?;
                let base = Position { epoch: self.origin.epoch(meta.base.epoch), ..meta.base };
                self.meta = Some(Meta { epoch: self.origin.epoch(meta.epoch), base, ..meta });
            }
            Item::State if *key == keys::row(self.shard, Row::Installing) => {
                return Err(Error::corrupt("a snapshot is of a shard that is not complete"));
            }
            Item::State => self.rows.push(pair),
            Item::Index => {
                self.raise_generation(&pair.0);
                self.index.push(pair);
            }
            Item::Data => {
                if let Some(of) = self.raise_generation(&pair.0)
                    && keys::parse_mark(&pair.0).is_some()
                {
                    self.generations.insert(keys::generation(of));
                }
                self.data.push(pair);
            }
            Item::Entry | Item::Class => {}
        }
        self.bytes += key.len() + value.len();
        if self.bytes >= FILE_BYTES { self.ingest() } else { Ok(()) }
    }

    /// Keeps the number of a key's generation from being given to another one, from its first pair on.
    fn raise_generation(&self, key: &[u8]) -> Option<Generation> {
        let of = keys::parse_generation(key)?;
        let mut generations = self.inner.generations.lock();
        let highest = generations.entry(of.window_ms).or_default();
        *highest = of.number.max(*highest);
        Some(of)
    }

    fn take_class(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let name = String::from_utf8_lossy(value);
        let ([number], Some(here)) = (key, self.inner.classes.number(&name)) else {
            return Err(Error::Invalid(format!(
                "shard {} has data of retention class {name:?}, which retention_classes lacks on this node: give all \
                 data nodes the same",
                self.shard
            )));
        };
        self.classes.insert(*number, here);
        Ok(())
    }

    fn take_entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let input = &mut In::new(key);
        let (seq, epoch) = (Seq(input.u64()?), self.origin.epoch(Epoch(input.u64()?)));
        self.entries.push(Entry { shard: self.shard, seq, epoch, payload: Bytes::copy_from_slice(value) });
        self.bytes += value.len();
        if self.bytes >= FILE_BYTES { self.append() } else { Ok(()) }
    }

    /// Moves the pairs gathered so far into the database.
    fn ingest(&mut self) -> Result<(), Error> {
        let dir = self.inner.staging();
        std::fs::create_dir_all(&dir).map_err(|error| Error::io("make directory", &dir, &error))?;
        for (family, pairs) in [(keys::INDEX, &mut self.index), (keys::DATA, &mut self.data)] {
            if pairs.is_empty() {
                continue;
            }
            self.files += 1;
            let path: PathBuf = dir.join(format!("install-{}-{}.sst", self.shard, self.files));
            let mut file = self.inner.rocks.sorted_file(family, &path)?;
            pairs.drain(..).for_each(|(key, value)| file.put(key, value));
            file.finish()?;
            self.inner.rocks.ingest(family, &[path])?;
        }
        let mut batch = self.inner.rocks.batch();
        self.rows.drain(..).for_each(|(key, value)| batch.put(keys::STATE, &key, &value));
        self.inner.rocks.write(batch, true)?;
        self.bytes = 0;
        Ok(())
    }

    /// Brings the shard to life, once everything but entries is there.
    fn start(&mut self) -> Result<Arc<Cell>, Error> {
        if let Some(cell) = &self.cell {
            return Ok(Arc::clone(cell));
        }
        self.ingest()?;
        let meta = self.meta.ok_or_else(|| Error::corrupt("a snapshot lacks the shard's own row"))?;
        let mut shard = self.inner.load(self.shard, meta)?;
        let mut marks = self.inner.read_marks(&self.generations)?;
        if !self
            .generations
            .iter()
            .filter_map(|key| keys::parse_generation(key))
            .all(|of| marks.has(self.shard, of))
        {
            return Err(Error::corrupt("windows of a snapshot cannot be read back"));
        }
        shard.marks = marks.live.remove(&self.shard).unwrap_or_default();
        self.inner.log()?.control(Kind::Reset, self.shard, meta.base)?;
        let cell = Cell::new(shard);
        self.inner.shards.write().insert(self.shard, Arc::clone(&cell));
        self.cell = Some(Arc::clone(&cell));
        Ok(cell)
    }

    fn append(&mut self) -> Result<(), Error> {
        self.start()?;
        self.bytes = 0;
        let entries = std::mem::take(&mut self.entries);
        if entries.is_empty() { Ok(()) } else { self.inner.log()?.append_and_wait(entries) }
    }

    fn finish(&mut self, position: Position, epoch: Option<Epoch>) -> Result<(), Error> {
        self.append()?;
        let cell = self.start()?;
        let reached = self.inner.log()?.position(self.shard);
        if reached != position {
            return Err(Error::corrupt(format!(
                "a snapshot reaches entry {} of epoch {}, not {} of {}",
                reached.seq, reached.epoch, position.seq, position.epoch
            )));
        }
        let meta = {
            let mut state = cell.state.write();
            state.epoch = state.epoch.max(epoch.unwrap_or_default());
            state.committed = state.committed.max(position.seq);
            Meta { epoch: state.epoch, base: state.base, next_id: state.registry.next_id() }
        };
        let mut batch = self.inner.rocks.batch();
        let (key, value) = meta_row(self.shard, meta);
        batch.put(keys::STATE, &key, &value);
        batch.delete(keys::STATE, &keys::row(self.shard, Row::Installing));
        Ok(self.inner.rocks.write(batch, true)?)
    }
}

/// An item with its key, its value and all its bytes.
type Read<'a> = (Item, &'a [u8], &'a [u8], usize);

/// The item at the start of a buffer and its length; `None` when it is not whole yet.
fn next_item(buffer: &[u8]) -> Result<Option<Read<'_>>, Error> {
    let input = &mut In::new(buffer);
    let read = (|| -> Result<_, CodecError> { Ok((input.u8()?, input.bytes()?, input.bytes()?)) })();
    match read {
        Ok((number, key, value)) => {
            let item =
                Item::from_number(number).ok_or_else(|| Error::corrupt("a snapshot has an unknown item"))?;
            Ok(Some((item, key, value, buffer.len() - input.rest().len())))
        }
        Err(CodecError::Truncated) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
