//! A shard as a stream of bytes, for a replica that joins or for a backup; [`Store::install`] is the way back.
//!
//! The stream is a list of items: the shard's own row, its other rows, the pairs of its windows, and the entries that
//! are committed and not in windows. While a stream is read nothing that it needs is removed, but with the whole shard:
//! then it ends with an error.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tricord_model::codec::Writer as Out;
use tricord_model::{Seq, ShardId};

use super::flush::{decode_mark, encode_mark};
use super::format::FORMAT;
use super::head::Shard;
use super::keys;
use super::store::{Cell, Inner};
use super::{Error, Position, Store};

/// A shard's state in chunks of at most 1 MiB, without meaningful borders between them.
pub(crate) type SnapshotChunks = Box<dyn Iterator<Item = Result<Vec<u8>, Error>> + Send>;

const CHUNK_BYTES: usize = 1 << 20;

/// A piece of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Item {
    State = 1,
    Index = 2,
    Data = 3,
    Entry = 4,
    /// The number that a retention class has in keys, and its name.
    Class = 5,
}

impl Item {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::State, Self::Index, Self::Data, Self::Entry, Self::Class]
            .into_iter()
            .find(|item| *item as u8 == number)
    }
}

fn put(out: &mut Vec<u8>, item: Item, key: &[u8], value: &[u8]) {
    out.push(item as u8);
    let out = &mut Out::new(out);
    out.bytes(key);
    out.bytes(value);
}

/// The numbers of the classes of which there is data, but the default one.
fn named_classes(shard: &Shard) -> BTreeSet<u8> {
    shard.marks.values().flatten().map(|mark| mark.class).filter(|class| *class > 0).collect()
}

/// Keeps what a snapshot reads from being removed.
struct Pin(Arc<Inner>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is still to be sent.
struct Sending {
    pin: Pin,
    /// What the shard was as the snapshot began. Who removes it unmaps it first, so that what was read while it is still
    /// mapped was there.
    cell: Arc<Cell>,
    buffer: Vec<u8>,
    /// Family, the key to go on from, and the end of the range.
    ranges: VecDeque<(Item, Vec<u8>, Vec<u8>)>,
    after: Seq,
    last: Seq,
}

impl Store {
    /// A shard's committed state: the position it reaches, and the chunks to hand to [`Store::install`] elsewhere.
    ///
    /// # Errors
    /// [`Error::UnknownShard`], or the disk's failure; chunks may be errors too, [`Error::Removed`] where the shard is
    /// dropped or replaced before the last one was read.
    pub(crate) fn snapshot(&self, shard: ShardId) -> Result<(Position, SnapshotChunks), Error> {
        let inner = &self.inner;
        let _no_flush = inner.flushing.lock();
        let _no_rows = inner.writing_rows.lock();
        // Under the lock of whoever removes shards, so that it is the one of which the rows are read.
        let cell = inner.cell(shard)?;
        inner.pins.fetch_add(1, Ordering::AcqRel);
        let pin = Pin(Arc::clone(inner));
        let mut ranges = VecDeque::new();
        let mut buffer = Vec::new();
        let (position, base) = {
            let state = cell.state.read();
            state.check()?;
            // Another replica must not come to lack what this one has lost, nor begin with what cannot be read.
            inner.damages.of_shard(shard).map_or(Ok(()), Err)?;
            let seq = state.committed.min(state.applied.seq).max(state.base.seq);
            for class in named_classes(&state) {
                let name = inner.classes.name(class).unwrap_or_default();
                put(&mut buffer, Item::Class, &[class], name.as_bytes());
            }
            for (window_ms, marks) in &state.marks {
                for mark in marks {
                    let of = mark.generation(*window_ms);
                    let prefix = keys::shard(of, shard);
                    ranges.push_back((Item::Index, prefix.clone(), keys::after(&prefix)));
                    ranges.push_back((Item::Data, prefix.clone(), keys::after(&prefix)));
                    let key = keys::mark(of, shard);
                    ranges.push_back((Item::Data, key.clone(), keys::after(&key)));
                }
            }
            let epoch = inner.log_epoch_at(shard, seq).unwrap_or(state.base.epoch);
            (Position { seq, epoch }, state.base)
        };
        let prefix = keys::state(shard);
        let rows =
            inner.rocks.scan::<Error>(keys::STATE, &prefix, &keys::after(&prefix), &mut |key, value| {
                put(&mut buffer, Item::State, key, value);
                Ok(true)
            });
        inner.rows_health.note(rows)?;
        let sending = Sending { pin, cell, buffer, ranges, after: base.seq, last: position.seq };
        Ok((position, Box::new(sending)))
    }

    /// The retention classes of which a shard has data, but the default one.
    ///
    /// # Errors
    /// [`Error::UnknownShard`].
    pub(crate) fn classes_of(&self, shard: ShardId) -> Result<Vec<String>, Error> {
        let cell = self.inner.cell(shard)?;
        let classes = named_classes(&cell.state.read()).into_iter();
        Ok(classes.map(|class| self.inner.classes.name(class).unwrap_or_default().to_owned()).collect())
    }

    /// What a snapshot from here is made of, which whoever takes it must know: the version of keys and values, and the
    /// length of windows in milliseconds.
    #[must_use]
    pub(crate) fn layout(&self) -> (u32, i64) {
        (FORMAT, self.inner.config.window_ms)
    }

    /// The retention classes of the settings, but the default one.
    #[must_use]
    pub(crate) fn classes(&self) -> Vec<String> {
        self.inner.config.retention.classes().iter().skip(1).map(|class| class.name.clone()).collect()
    }
}

/// What a mark said when the entries ended at `last`, where it says something else by now: deletes that have been carried
/// out since are none to whoever ends there, who may give their numbers to others.
fn as_of(last: Seq, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let of = keys::parse_mark(key).and_then(|_| keys::parse_generation(key));
    let Some(of) = of else { return Ok(None) };
    let (mut mark, replaced) = decode_mark(of, value)?;
    if mark.deleted <= last {
        return Ok(None);
    }
    mark.deleted = last;
    Ok(Some(encode_mark(&mark, &replaced)))
}

impl Sending {
    /// Whether all that was read so far was there, and whole.
    fn is_there(&self) -> Result<(), Error> {
        let (inner, shard) = (&self.pin.0, self.cell.id);
        if !inner.find(shard).is_some_and(|now| Arc::ptr_eq(&now, &self.cell)) {
            let (from, until) = ("its begin".to_owned(), "its end".to_owned());
            return Err(Error::Removed { shard, from, until });
        }
        // What is found to be lost while it is sent, is not there to be found.
        inner.damages.of_shard(shard).map_or(Ok(()), Err)
    }

    /// Puts the next items into the buffer; answers whether there were any.
    fn fill(&mut self) -> Result<bool, Error> {
        let inner = &self.pin.0;
        if let Some((item, from, to)) = self.ranges.pop_front() {
            let family = if item == Item::Index { keys::INDEX } else { keys::DATA };
            let buffer = &mut self.buffer;
            let mut next = None;
            let last = self.last;
            let read = inner.rocks.scan::<Error>(family, &from, &to, &mut |key, value| {
                if buffer.len() >= CHUNK_BYTES {
                    next = Some(key.to_vec());
                    return Ok(false);
                }
                match as_of(last, key, value)? {
                    Some(older) => put(buffer, item, key, &older),
                    None => put(buffer, item, key, value),
                }
                Ok(true)
            });
            self.is_there()?;
            read?;
            if let Some(key) = next {
                self.ranges.push_front((item, key, to));
            }
            return Ok(true);
        }
        if self.after >= self.last {
            self.is_there()?;
            return Ok(false);
        }
        let read = inner.log()?.entries(self.cell.id, self.after, CHUNK_BYTES);
        self.is_there()?;
        let entries = read?.ok_or_else(|| Error::corrupt("the log was trimmed under a snapshot"))?;
        for entry in entries.iter().take_while(|entry| entry.seq <= self.last) {
            let mut key = Vec::new();
            let out = &mut Out::new(&mut key);
            out.u64(entry.seq.0);
            out.u64(entry.epoch.0);
            put(&mut self.buffer, Item::Entry, &key, &entry.payload);
        }
        match entries.last() {
            Some(last) => self.after = last.seq,
            None => return Err(Error::corrupt("committed entries are not in the log")),
        }
        Ok(true)
    }
}

impl Iterator for Sending {
    type Item = Result<Vec<u8>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.buffer.len() < CHUNK_BYTES {
            match self.fill() {
                Ok(true) => {}
                Ok(false) if self.buffer.is_empty() => return None,
                Ok(false) => return Some(Ok(std::mem::take(&mut self.buffer))),
                Err(error) => return Some(Err(error)),
            }
        }
        let rest = self.buffer.split_off(CHUNK_BYTES);
        Some(Ok(std::mem::replace(&mut self.buffer, rest)))
    }
}
