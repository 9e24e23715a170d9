//! The ledger: what the store must have, written down a second time, beside RocksDB and the log.
//!
//! RocksDB's list of files and its own log may be cut, or be an older one, so that it opens without what was written out;
//! the log may end too early. Neither shows by itself. So the ledger says of each shard its marks, its base and its last
//! committed entry, and how far the log reaches. It never says more than is durable, and nothing is trimmed of the log,
//! or removed from RocksDB, before it says so; it may say less than there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tricord_model::codec::{Reader as In, Writer as Out};
use tricord_model::{Epoch, Seq, ShardId};

use super::block::{pack, unpack};
use super::head::Mark;
use super::keys::{self, Generation};
use super::marks::Marks;
use super::{Error, Position};

/// The file in the store's directory.
pub(crate) const FILE: &str = "LEDGER";
const MAGIC: &[u8; 8] = b"TRCLDGR\x01";
const VERSION: u8 = 1;

/// How far the log reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogEnd {
    /// The last segment's number; 0 where there was no log yet.
    pub(crate) segment: u64,
    /// Its bytes that are durable, at least.
    pub(crate) len: u64,
}

/// What a shard must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// It has seen this epoch.
    pub(crate) epoch: Epoch,
    /// Its row says at least this.
    pub(crate) base: Position,
    /// Its log goes up to this entry at least, or its base does.
    pub(crate) last: Seq,
    /// Its generations, with the start of their windows.
    pub(crate) marks: Vec<(i64, Mark)>,
}

/// What a store must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) log_end: LogEnd,
    pub(crate) shards: BTreeMap<ShardId, Account>,
}

impl Ledger {
    /// Reads the ledger of a store; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the file is not what was written, [`Error::NewerFormat`], or the disk's failure.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path, &error)),
        };
        let damaged = |why: &str| Error::corrupt(format!("{} {why}", path.display()));
        let (magic, rest) =
            bytes.split_first_chunk::<8>().ok_or_else(|| damaged("does not begin like a ledger"))?;
        if magic[..7] == MAGIC[..7] && magic[7] > MAGIC[7] {
            return Err(Error::NewerFormat { found: magic[7].into(), known: MAGIC[7].into() });
        }
        let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("is cut off"))?;
        if magic != MAGIC || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("does not match its checksum"));
        }
        let body = unpack(VERSION, body, "ledger")?;
        Self::decode(&body).map(Some)
    }

    /// Writes the ledger of a store, durably and at once: after a crash there is the former one or this one.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full or fails.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let body = pack(VERSION, &self.encode())?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let (path, staged) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let write = || -> std::io::Result<()> {
            std::fs::write(&staged, &bytes)?;
            std::fs::File::open(&staged)?.sync_all()?;
            std::fs::rename(&staged, &path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(|error| Error::io("write", &path, &error))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let out = &mut Out::new(&mut bytes);
        out.u64(self.log_end.segment);
        out.u64(self.log_end.len);
        out.u64(self.shards.len() as u64);
        for (shard, account) in &self.shards {
            out.u64(u64::from(shard.0));
            out.u64(account.epoch.0);
            out.u64(account.base.seq.0);
            out.u64(account.base.epoch.0);
            out.u64(account.last.0);
            out.u64(account.marks.len() as u64);
            for (window_ms, mark) in &account.marks {
                out.bytes(&keys::generation(mark.generation(*window_ms)));
                out.u64(mark.through.0);
                out.u64(mark.samples);
                out.u64(mark.spans);
                out.u64(u64::from(mark.windows));
                out.u64(mark.deleted.0);
                out.u64(u64::from(mark.is_merged));
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let input = &mut In::new(bytes);
        let log_end = LogEnd { segment: input.u64()?, len: input.u64()? };
        let mut shards = BTreeMap::new();
        for _ in 0..input.count(6)? {
            let shard = ShardId(input.u32()?);
            let epoch = Epoch(input.u64()?);
            let base = Position { seq: Seq(input.u64()?), epoch: Epoch(input.u64()?) };
            let mut account = Account { epoch, base, last: Seq(input.u64()?), marks: Vec::new() };
            for _ in 0..input.count(7)? {
                let of = keys::parse_generation(input.bytes()?)
                    .ok_or_else(|| Error::corrupt("the ledger names an impossible window"))?;
                let (through, samples, spans) = (Seq(input.u64()?), input.u64()?, input.u64()?);
                let windows = u16::try_from(input.u32()?)
                    .map_err(|_| Error::corrupt("the ledger names an impossible window"))?;
                let (deleted, is_merged) = (Seq(input.u64()?), input.u64()? != 0);
                let Generation { class, number, .. } = of;
                let mark = Mark { class, number, through, deleted, samples, spans, windows, is_merged };
                account.marks.push((of.window_ms, mark));
            }
            shards.insert(shard, account);
        }
        Ok(Self { log_end, shards })
    }

    /// The prefixes of all generations that must be there, sorted.
    pub(crate) fn generations(&self) -> BTreeSet<Vec<u8>> {
        let marks = self.shards.values().flat_map(|account| &account.marks);
        marks.map(|(window_ms, mark)| mark.generation(*window_ms)).map(keys::generation).collect()
    }

    /// What must be there and is neither, nor was merged into what is there.
    pub(crate) fn missing(&self, found: &Marks) -> Vec<(ShardId, i64, Mark)> {
        let mut missing = Vec::new();
        for (shard, account) in &self.shards {
            let lacks = |(window_ms, mark): &&(i64, Mark)| !found.has(*shard, mark.generation(*window_ms));
            let lost = account.marks.iter().filter(lacks);
            missing.extend(lost.map(|(window_ms, mark)| (*shard, *window_ms, *mark)));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mark = |number| Mark {
            samples: 100,
            spans: 2,
            windows: 12,
            is_merged: true,
            ..Mark::written_out(Generation { class: 1, window_ms: 0, number }, Seq(9))
        };
        let base = Position { seq: Seq(8), epoch: Epoch(3) };
        let marks = vec![(-1_800_000, mark(1)), (0, mark(7))];
        let account = Account { epoch: Epoch(4), base, last: Seq(11), marks };
        let shards = BTreeMap::from([(ShardId(0), account), (ShardId(9), Account::default())]);
        Ledger { log_end: LogEnd { segment: 3, len: 4_711 }, shards }
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Ledger::read(dir.path()).unwrap(), None);
        for ledger in [Ledger::default(), ledger()] {
            ledger.write(dir.path()).unwrap();
            assert_eq!(Ledger::read(dir.path()).unwrap(), Some(ledger));
        }
    }

    #[test]
    fn any_flip_and_any_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        ledger().write(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert!(Ledger::read(dir.path()).is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Ledger::read(dir.path()).is_err(), "cut at {at}");
        }
    }
}
