//! The small RocksDB of a metadata member: identity, vote, log and snapshot. Every write is one synced batch.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tricord_rocks::{Family, Options, Rocks};
use tricord_wire::{Error, ErrorKind};

use crate::state::Birth;

const FAMILY: &str = "raft";
/// Prefix of log entries; the index follows, big-endian.
const ENTRY: u8 = b'e';

/// Who this member is. Allocated once; a lost disk is a new member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its Raft id.
    pub(crate) member: u64,
    /// Its cluster, and how that is to be born where it is not yet.
    pub(crate) birth: Birth,
}

/// Single values beside the log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Identity,
    Vote,
    Purged,
    Committed,
    Snapshot,
}

impl Key {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Identity => b"m/identity",
            Self::Vote => b"m/vote",
            Self::Purged => b"m/purged",
            Self::Committed => b"m/committed",
            Self::Snapshot => b"m/snapshot",
        }
    }
}

/// The open database.
pub(crate) struct Disk {
    rocks: Rocks,
}

fn options() -> Options {
    let family = Family { name: FAMILY, compress: false, bloom: false, block_bytes: 4 << 10 };
    Options {
        families: vec![family],
        block_cache_bytes: 4 << 20,
        write_buffer_bytes: 8 << 20,
        max_open_files: 64,
        ..Options::default()
    }
}

fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The first key after all entries.
const AFTER_ENTRIES: [u8; 1] = [ENTRY + 1];

impl Disk {
    /// Opens the database of a data directory.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, &options())
    }

    /// As [`Disk::open`], but what is not synced is lost when the files are looked at from outside.
    #[cfg(test)]
    pub(super) fn open_before_a_power_cut(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, &Options { holds_unsynced: true, ..options() })
    }

    fn open_with(dir: &Path, options: &Options) -> Result<Self, Error> {
        std::fs::create_dir_all(dir)
            .map_err(|error| Error::internal(format!("{}: {error}", dir.display())))?;
        Ok(Self { rocks: Rocks::open(dir, options).map_err(|error| rocks_error(&error))? })
    }

    /// Looks at all of a database that nobody has open, and writes nothing.
    ///
    /// # Errors
    /// `Corrupt` with what is damaged, `Internal` when it cannot be read.
    pub(crate) fn check(dir: &Path) -> Result<(), Error> {
        let wrap = |error: tricord_rocks::Error| rocks_error(&error);
        tricord_rocks::verify_logs(dir).map_err(wrap)?;
        let disk = Self { rocks: Rocks::open_read_only(dir, &options()).map_err(wrap)? };
        disk.get::<Identity>(Key::Identity)?;
        let mut broken = None;
        let scanned: Result<(), tricord_rocks::Error> =
            disk.rocks.scan(FAMILY, &[], &[0xff], &mut |_, value| {
                broken = parse::<serde::de::IgnoredAny>(value).err();
                Ok(broken.is_none())
            });
        scanned.map_err(wrap)?;
        broken.map_or(Ok(()), Err)
    }

    /// A single value.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>, Error> {
        let bytes = self.rocks.get(FAMILY, key.bytes()).map_err(|error| rocks_error(&error))?;
        bytes.map(|bytes| parse(&bytes)).transpose()
    }

    /// Writes a single value; with `sync` it is on the disk on return.
    pub(crate) fn put<T: Serialize>(&self, key: Key, value: &T, sync: bool) -> Result<(), Error> {
        let mut batch = self.rocks.batch();
        batch.put(FAMILY, key.bytes(), &print(value)?);
        self.rocks.write(batch, sync).map_err(|error| rocks_error(&error))
    }

    /// Appends log entries, durably.
    pub(crate) fn append(&self, entries: &[(u64, Vec<u8>)]) -> Result<(), Error> {
        let mut batch = self.rocks.batch();
        for (index, entry) in entries {
            batch.put(FAMILY, &entry_key(*index), entry);
        }
        self.rocks.write(batch, true).map_err(|error| rocks_error(&error))
    }

    /// Removes the entries from an index on, durably.
    pub(crate) fn truncate(&self, from: u64) -> Result<(), Error> {
        let mut batch = self.rocks.batch();
        batch.delete_range(FAMILY, &entry_key(from), &AFTER_ENTRIES);
        self.rocks.write(batch, true).map_err(|error| rocks_error(&error))
    }

    /// Removes the entries up to an index and notes the last removed one, durably and together.
    pub(crate) fn purge<T: Serialize>(&self, through: u64, last: &T) -> Result<(), Error> {
        let mut batch = self.rocks.batch();
        batch.put(FAMILY, Key::Purged.bytes(), &print(last)?);
        batch.delete_range(FAMILY, &entry_key(0), &entry_key(through.saturating_add(1)));
        self.rocks.write(batch, true).map_err(|error| rocks_error(&error))
    }

    /// The entries with indices in `[from, to)`, at most about `max_bytes` of them but at least one.
    pub(crate) fn entries<T: DeserializeOwned>(
        &self,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<T>, Error> {
        let (mut entries, mut bytes, mut broken) = (Vec::new(), 0, None);
        let mut visit = |_: &[u8], value: &[u8]| {
            bytes += value.len();
            match parse(value) {
                Ok(entry) => entries.push(entry),
                Err(error) => broken = Some(error),
            }
            Ok(broken.is_none() && bytes < max_bytes)
        };
        let scanned: Result<(), tricord_rocks::Error> =
            self.rocks.scan(FAMILY, &entry_key(from), &entry_key(to), &mut visit);
        scanned.map_err(|error| rocks_error(&error))?;
        broken.map_or(Ok(entries), Err)
    }

    /// The last entry, where there is one.
    pub(crate) fn last_entry<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let wrap = |error: tricord_rocks::Error| rocks_error(&error);
        let mut cursor = self.rocks.cursor(FAMILY, &entry_key(0), &AFTER_ENTRIES).map_err(wrap)?;
        cursor.seek_back(&AFTER_ENTRIES);
        let last =
            cursor.item().filter(|(key, _)| key.first() == Some(&ENTRY)).map(|(_, value)| parse(value));
        cursor.status().map_err(wrap)?;
        last.transpose()
    }
}

fn print<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(Error::internal)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(ErrorKind::Corrupt, format!("the metadata store holds what cannot be read: {error}"))
    })
}

fn rocks_error(error: &tricord_rocks::Error) -> Error {
    let kind = if error.is_corruption() { ErrorKind::Corrupt } else { ErrorKind::Internal };
    Error::new(kind, error.to_string())
}
