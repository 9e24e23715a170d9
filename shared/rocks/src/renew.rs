//! Writing a family anew, for one of which files are damaged: RocksDB keeps such files, and every read and compaction beside
//! them fails.
//!
//! The new family is one of RocksDB's own, `NAME~2` after `NAME` and so on. It counts once it has its last key, which is
//! synced behind all others; from then on the former one does not count, and is dropped. Callers know the family by its
//! name alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rocksdb::{BoundColumnFamily, WriteBatch, WriteOptions};

use crate::{Db, Error, Rocks};

/// The key that a family has which was written anew to its end; no other key may be as high.
pub const LAST_KEY: [u8; 8] = [0xff; 8];

/// Bytes that are handed to RocksDB at once.
const BATCH_BYTES: usize = 1 << 20;

/// A family as it is open.
pub(crate) struct Open {
    pub(crate) name: &'static str,
    pub(crate) options: rocksdb::Options,
    /// Which one of RocksDB's families it is.
    number: AtomicU32,
}

/// A family that is being written anew.
pub struct Fresh<'a> {
    db: &'a Db,
    path: &'a Path,
    handle: Arc<BoundColumnFamily<'a>>,
    batch: WriteBatch,
}

/// What RocksDB calls a family.
fn own_name(name: &str, number: u32) -> String {
    if number <= 1 { name.to_owned() } else { format!("{name}~{number}") }
}

/// The number of a family by what RocksDB calls it; `None` for one of another name.
fn number_of(name: &str, own: &str) -> Option<u32> {
    match own.strip_prefix(name)? {
        "" => Some(1),
        rest => rest.strip_prefix('~')?.parse().ok().filter(|number| *number > 1),
    }
}

/// The families that there are, or `None` where RocksDB will say why it cannot open them.
pub(crate) fn listed(options: &rocksdb::Options, path: &Path) -> Vec<String> {
    if path.join("CURRENT").exists() { Db::list_cf(options, path).unwrap_or_default() } else { Vec::new() }
}

/// What RocksDB calls those of a family that there are, or is to call it.
pub(crate) fn own_names(name: &'static str, listed: &[String]) -> Vec<String> {
    let mut found: Vec<String> =
        listed.iter().filter(|own| number_of(name, own).is_some()).cloned().collect();
    if found.is_empty() {
        found.push(name.to_owned());
    }
    found
}

impl Open {
    /// The one that counts of a family's; the highest that was written to its end. One that cannot be read counts, too:
    /// what it lacks shows.
    pub(crate) fn choose(db: &Db, name: &'static str, options: rocksdb::Options, listed: &[String]) -> Self {
        let mut numbers: Vec<u32> =
            own_names(name, listed).iter().filter_map(|own| number_of(name, own)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let is_whole = |number: u32| {
            let handle = db.cf_handle(&own_name(name, number));
            number == 1
                || handle.is_some_and(|handle| !matches!(db.get_pinned_cf(&handle, LAST_KEY), Ok(None)))
        };
        let whole = numbers.iter().copied().find(|number| is_whole(*number));
        let number = whole.or(numbers.first().copied()).unwrap_or(1);
        Self { name, options, number: AtomicU32::new(number) }
    }

    /// What RocksDB calls it.
    pub(crate) fn own_name(&self) -> String {
        own_name(self.name, self.number.load(Ordering::Acquire))
    }

    /// The handle of the one that counts.
    pub(crate) fn handle<'a>(&self, db: &'a Db) -> Option<Arc<BoundColumnFamily<'a>>> {
        loop {
            let number = self.number.load(Ordering::Acquire);
            let handle = match number {
                1 => db.cf_handle(self.name),
                number => db.cf_handle(&own_name(self.name, number)),
            };
            // It may just have been written anew.
            if handle.is_some() || number == self.number.load(Ordering::Acquire) {
                return handle;
            }
        }
    }
}

impl Rocks {
    /// Drops families that do not count any more, or not yet: a crash has left them.
    pub(crate) fn drop_leftovers(&self, listed: &[String]) -> Result<(), Error> {
        for family in &self.families {
            let counts = family.own_name();
            let left = own_names(family.name, listed).into_iter().filter(|own| *own != counts);
            for own in left {
                self.wrap(self.db.drop_cf(&own))?;
            }
        }
        Ok(())
    }

    /// Writes a family anew: then it has what `fill` has put and nothing else, and its former files are gone. Nobody else
    /// may write to it meanwhile. After a crash there is all that was there before, or all that was put.
    ///
    /// # Errors
    /// What `fill` answers, or [`Error`] when the disk fails; the family is as before then.
    pub fn renew<E: From<Error>>(
        &self,
        family: &str,
        fill: &mut dyn FnMut(&mut Fresh<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let open = self.open_family(family)?;
        let (former, number) = (open.own_name(), open.number.load(Ordering::Acquire) + 1);
        let own = own_name(open.name, number);
        if self.db.cf_handle(&own).is_some() {
            // An earlier attempt could not even be taken back.
            self.wrap(self.db.drop_cf(&own))?;
        }
        self.wrap(self.db.create_cf(&own, &open.options))?;
        let filled = self.fill(&own, fill);
        if let Err(error) = filled {
            if let Err(error) = self.db.drop_cf(&own) {
                tracing::warn!(family = own, %error, "a family that was not finished cannot be dropped");
            }
            return Err(error);
        }
        open.number.store(number, Ordering::Release);
        // Whoever still reads the former one goes on with what it holds of it.
        if let Err(error) = self.db.drop_cf(&former) {
            tracing::warn!(family = former, %error, "a family that was written anew is dropped with the next start");
        }
        Ok(())
    }

    fn fill<E: From<Error>>(
        &self,
        own: &str,
        fill: &mut dyn FnMut(&mut Fresh<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let handle = self.db.cf_handle(own);
        let handle = handle.ok_or_else(|| Error::Invalid(format!("no column family {own:?}")))?;
        let mut fresh = Fresh { db: &self.db, path: self.path(), handle, batch: WriteBatch::default() };
        fill(&mut fresh)?;
        let Fresh { batch, handle, .. } = &mut fresh;
        batch.put_cf(handle, LAST_KEY, b"");
        Ok(fresh.write(true)?)
    }
}

impl Fresh<'_> {
    /// Puts a pair, its key lower than [`LAST_KEY`].
    ///
    /// # Errors
    /// [`Error`] when the disk is full or fails.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.batch.put_cf(&self.handle, key, value);
        if self.batch.size_in_bytes() >= BATCH_BYTES { self.write(false) } else { Ok(()) }
    }

    fn write(&mut self, sync: bool) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let batch = std::mem::take(&mut self.batch);
        self.db.write_opt(batch, &options).map_err(|error| Error::at(self.path, &error))
    }
}
