//! The rows of a shard's state in RocksDB: what outlives the log and belongs to no window.

use std::collections::BTreeSet;
use std::sync::Arc;

use tricord_model::codec::{Reader, Writer};
use tricord_model::{Epoch, Labels, Sample, Seq, ShardId, Tenant, decode_samples, encode_samples};
use tricord_rocks::Rocks;

use super::head::part::Window;
use super::head::payload::{decode_metadata, encode_metadata};
use super::head::registry::DeltaState;
use super::head::{PendingRow, Shard};
use super::keys::{self, Row};
use super::mend::RowsHealth;
use super::store::{Cell, Inner};
use super::{Error, Position, deletes};

const VERSION: u8 = 1;

/// A shard's own row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The highest epoch seen.
    pub(crate) epoch: Epoch,
    /// The entry up to which nothing of the log is needed.
    pub(crate) base: Position,
    /// Ids below this one are used up.
    pub(crate) next_id: u32,
}

/// A shard as it is found when the store is opened.
pub(crate) struct StoredShard {
    pub(crate) id: ShardId,
    /// Its own row, or why it cannot be had.
    pub(crate) meta: Result<Meta, Error>,
    /// Whether it was being replaced or removed when the process ended, so that nothing of it counts.
    pub(crate) is_void: bool,
}

impl Meta {
    fn of(shard: &Shard) -> Self {
        Self { epoch: shard.epoch, base: shard.base, next_id: shard.registry.next_id() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let out = &mut Writer::new(&mut bytes);
        out.u64(self.epoch.0);
        out.u64(self.base.seq.0);
        out.u64(self.base.epoch.0);
        out.u64(u64::from(self.next_id));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let input = &mut checked(bytes)?;
        let epoch = Epoch(input.u64()?);
        let base = Position { seq: Seq(input.u64()?), epoch: Epoch(input.u64()?) };
        Ok(Self { epoch, base, next_id: input.u32()? })
    }
}

pub(super) fn checked(bytes: &[u8]) -> Result<Reader<'_>, Error> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(Reader::new(rest)),
        _ => Err(Error::corrupt("a row has an unknown version: it may be of a newer build")),
    }
}

fn series_row(tenant: &Tenant, labels: &Labels) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let out = &mut Writer::new(&mut bytes);
    out.str(tenant.as_str());
    labels.encode(out);
    bytes
}

fn delta_row(state: &DeltaState) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let total = Sample { t_ms: state.end_ms, start_ms: state.start_ms, value: state.total.clone() };
    encode_samples(&[total], &mut Writer::new(&mut bytes));
    bytes
}

pub(super) fn read_delta(bytes: &[u8]) -> Result<DeltaState, Error> {
    let total = decode_samples(&mut checked(bytes)?)?.pop();
    let total = total.ok_or_else(|| Error::corrupt("the row of a total is empty"))?;
    Ok(DeltaState { start_ms: total.start_ms, end_ms: total.t_ms, total: total.value })
}

pub(super) fn id_of(key: &[u8]) -> Result<u32, Error> {
    let id = key.get(5..).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
    id.ok_or_else(|| Error::corrupt("the key of a row is malformed"))
}

/// The shards that have rows, and those that must have some; what is read of rows goes by `health`.
pub(crate) fn stored_shards(
    rocks: &Rocks,
    known: impl Iterator<Item = ShardId>,
    health: &RowsHealth,
) -> Result<Vec<StoredShard>, Error> {
    let known: BTreeSet<ShardId> = known.collect();
    let mut ids = known.clone();
    let mut cursor = rocks.cursor(keys::STATE, &[], &[0xff; 8])?;
    while let Some(id) = cursor.item().and_then(|(key, _)| key.first_chunk::<4>()).copied() {
        let shard = ShardId(u32::from_be_bytes(id));
        ids.insert(shard);
        cursor.seek(&keys::after(&keys::state(shard)));
    }
    match cursor.status() {
        // Those that are known are looked at one by one.
        Err(error) if error.is_corruption() && !known.is_empty() => {
            tracing::error!(%error, "rows of shards cannot be read");
            let _ = health.note::<()>(Err(error.into()));
        }
        status => status?,
    }
    let shards = ids.into_iter().map(|id| stored_shard(rocks, id, known.contains(&id)));
    Ok(shards.collect())
}

fn stored_shard(rocks: &Rocks, id: ShardId, is_known: bool) -> StoredShard {
    let row = |row| rocks.get(keys::STATE, &keys::row(id, row));
    let read = || -> Result<(Option<Meta>, bool), Error> {
        let meta = row(Row::Meta)?.map(|bytes| Meta::decode(&bytes)).transpose()?;
        Ok((meta, row(Row::Installing)?.is_some()))
    };
    let gone = || Error::corrupt(format!("the rows of shard {id} are gone"));
    match read() {
        Ok((Some(meta), is_void)) => StoredShard { id, meta: Ok(meta), is_void },
        Ok((None, is_installing)) => {
            StoredShard { id, meta: Err(gone()), is_void: is_installing || !is_known }
        }
        Err(error) => StoredShard { id, meta: Err(error), is_void: false },
    }
}

impl Inner {
    /// A shard as its rows say, without its windows.
    pub(crate) fn load(&self, id: ShardId, meta: Meta) -> Result<Shard, Error> {
        self.rows_health.note(self.read_rows(id, meta))
    }

    fn read_rows(&self, id: ShardId, meta: Meta) -> Result<Shard, Error> {
        let mut shard = Shard::new(id, meta.base, meta.epoch, self.config.window_ms);
        shard.registry.raise_next_id(meta.next_id);
        let range = |row| (keys::row(id, row), keys::after(&keys::row(id, row)));
        let (from, to) = range(Row::Series);
        self.rocks.scan::<Error>(keys::STATE, &from, &to, &mut |key, row| {
            let input = &mut checked(row)?;
            let tenant = Tenant::new(input.str()?).map_err(|error| Error::corrupt(error.to_string()))?;
            let labels = Labels::decode(input)?;
            let tenant = shard.registry.tenant(&tenant);
            shard.registry.insert(id_of(key)?, tenant, &labels, labels.fingerprint(), Epoch(0));
            Ok(true)
        })?;
        let (from, to) = range(Row::Delta);
        self.rocks.scan::<Error>(keys::STATE, &from, &to, &mut |key, row| {
            shard.restore_delta(id_of(key)?, read_delta(row)?);
            Ok(true)
        })?;
        let (from, to) = range(Row::Tombstone);
        self.rocks.scan::<Error>(keys::STATE, &from, &to, &mut |key, row| {
            let seq = key.get(5..).and_then(|seq| seq.try_into().ok()).map(u64::from_be_bytes);
            let seq = Seq(seq.ok_or_else(|| Error::corrupt("the key of a row is malformed"))?);
            shard.tombstones.insert(Arc::new(deletes::decode(checked(row)?.rest(), seq)?));
            Ok(true)
        })?;
        let (from, to) = range(Row::Metadata);
        self.rocks.scan::<Error>(keys::STATE, &from, &to, &mut |key, row| {
            let tenant =
                key.get(5..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
            let tenant = std::str::from_utf8(tenant).ok().and_then(|name| Tenant::new(name).ok());
            let tenant = tenant.ok_or_else(|| Error::corrupt("the key of a row is malformed"))?;
            let (family, metadata) = decode_metadata(&mut checked(row)?)?;
            shard.metadata.insert((tenant, family), metadata);
            Ok(true)
        })?;
        Ok(shard)
    }

    /// Marks a shard as void, durably: whatever else says so, nothing counts that is there of it.
    pub(crate) fn make_void(&self, shard: ShardId) -> Result<(), Error> {
        let mut batch = self.rocks.batch();
        batch.put(keys::STATE, &keys::row(shard, Row::Installing), &[1]);
        Ok(self.rocks.write(batch, true)?)
    }

    /// Whether a shard has any row: one that is not there may be void, and its removal is not done then.
    pub(crate) fn has_rows(&self, shard: ShardId) -> Result<bool, Error> {
        let prefix = keys::state(shard);
        let cursor = self.rocks.cursor(keys::STATE, &prefix, &keys::after(&prefix))?;
        match cursor.status() {
            // What cannot be read is there.
            Err(error) if error.is_corruption() => {
                let _ = self.rows_health.note::<()>(Err(error.into()));
                Ok(true)
            }
            status => Ok(status.map(|()| cursor.item().is_some())?),
        }
    }

    /// Removes a shard with everything of it. It is void before the ledger forgets it, so that after a crash in between
    /// nothing of it comes back; where this fails it can be repeated. While nothing is flushed.
    pub(crate) fn remove_shard(&self, shard: ShardId) -> Result<(), Error> {
        let _no_rows = self.writing_rows.lock();
        // What comes in its place must be readable.
        self.mend_rows()?;
        self.make_void(shard)?;
        drop(self.shards.write().remove(&shard));
        self.damages.forget_shard(shard);
        self.write_ledger()?;
        self.erase(shard)
    }

    /// Writes a shard's own row; durable on return.
    pub(crate) fn write_meta(&self, cell: &Cell) -> Result<(), Error> {
        let _in_order = self.writing_rows.lock();
        let meta = Meta::of(&cell.state.read());
        let mut batch = self.rocks.batch();
        batch.put(keys::STATE, &keys::row(cell.id, Row::Meta), &meta.encode());
        Ok(self.rocks.write(batch, true)?)
    }

    /// Writes the rows of committed entries, and moves the shards' bases to what is no longer needed of their logs.
    /// All of it becomes durable together: a series is only removed once no entry that names it is replayed.
    pub(crate) fn write_rows(&self, cells: &[Arc<Cell>]) -> Result<(), Error> {
        let _in_order = self.writing_rows.lock();
        let mut batch = self.rocks.batch();
        let mut written = Vec::new();
        for cell in cells {
            if let Some((through, base)) = self.collect_rows(&cell.state.read(), &mut batch) {
                written.push((cell, through, base));
            }
        }
        if written.is_empty() {
            return Ok(());
        }
        self.sync_log()?;
        self.rocks.write(batch, true)?;
        for (cell, through, base) in written {
            let mut shard = cell.state.write();
            shard.rows.written(through, base.seq);
            shard.base = base;
            drop(shard);
            cell.measure();
        }
        Ok(())
    }

    /// Puts a shard's rows into a batch; answers up to where they go and the new base, or `None` when nothing is new.
    fn collect_rows(&self, shard: &Shard, batch: &mut tricord_rocks::Batch<'_>) -> Option<(Seq, Position)> {
        shard.check().ok()?;
        let through = shard.committed.min(shard.applied.seq);
        let before = batch.size_bytes();
        shard.rows.through(through).for_each(|row| put_row(batch, shard, row));
        // As the floor will be with these rows on disk.
        let parts = shard.windows.values().flat_map(Window::parts);
        let floor = parts.map(|part| Seq(part.from.0.saturating_sub(1))).fold(through, Seq::min);
        let base = match self.log_epoch_at(shard.id, floor) {
            Some(epoch) if floor > shard.base.seq => Position { seq: floor, epoch },
            _ => shard.base,
        };
        for id in shard.rows.evicted_through(base.seq) {
            if shard.registry.get(id).is_none_or(|series| series.evicted) {
                batch.delete(keys::STATE, &keys::series_row(shard.id, Row::Series, id));
                batch.delete(keys::STATE, &keys::series_row(shard.id, Row::Delta, id));
            }
        }
        if batch.size_bytes() == before && base == shard.base {
            return None;
        }
        let (key, value) = meta_row(shard.id, Meta { base, ..Meta::of(shard) });
        batch.put(keys::STATE, &key, &value);
        Some((through, base))
    }
}

fn put_row(batch: &mut tricord_rocks::Batch<'_>, shard: &Shard, row: &PendingRow) {
    match row {
        PendingRow::Series(id) => {
            let Some(series) = shard.registry.get(*id) else { return };
            let Some(tenant) = shard.registry.tenant_name(series.tenant) else { return };
            let key = keys::series_row(shard.id, Row::Series, *id);
            batch.put(keys::STATE, &key, &series_row(tenant, &series.labels));
        }
        PendingRow::Delta(id, state) => {
            batch.put(keys::STATE, &keys::series_row(shard.id, Row::Delta, *id), &delta_row(state));
        }
        PendingRow::Tombstone(seq) => {
            let Some(of) = shard.tombstones.get(*seq) else { return };
            let mut value = vec![VERSION];
            deletes::encode(&of.tenant, &of.deletion, &mut Writer::new(&mut value));
            batch.put(keys::STATE, &keys::tombstone_row(shard.id, *seq), &value);
        }
        PendingRow::Metadata(tenant, family, metadata) => {
            let mut value = vec![VERSION];
            encode_metadata(family, metadata, &mut Writer::new(&mut value));
            batch.put(keys::STATE, &keys::metadata_row(shard.id, tenant, family), &value);
        }
    }
}

/// The key and value of a shard's own row, for a shard that is put together elsewhere.
pub(crate) fn meta_row(shard: ShardId, meta: Meta) -> (Vec<u8>, Vec<u8>) {
    (keys::row(shard, Row::Meta), meta.encode())
}
