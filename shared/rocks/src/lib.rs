//! A thin face of RocksDB: what Tricord uses of it, with bounded memory and errors that say what to do.
//!
//! It owns options, error texts and the borrowing of column families; keys and values are its callers'. Every read
//! verifies checksums. Everything is synchronous.

mod broken;
mod error;
mod logs;
mod options;
mod renew;
mod sorted_file;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BoundColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, IngestExternalFileOptions,
    MultiThreaded, ReadOptions, WriteOptions,
};

pub use broken::Broken;
use broken::Suspects;
pub use error::Error;
pub use logs::{LogReport, is_new, verify_log, verify_logs};
pub use options::{Family, Options};
pub use renew::{Fresh, LAST_KEY};
pub use sorted_file::SortedFile;

/// RocksDB, with families that can be made and dropped while it is in use.
type Db = DBWithThreadMode<MultiThreaded>;

/// A value that lies in RocksDB's memory while it is held.
pub type Pinned<'a> = rocksdb::DBPinnableSlice<'a>;

/// Visits a pair; answers whether to go on.
pub type Visit<'v, E> = &'v mut dyn FnMut(&[u8], &[u8]) -> Result<bool, E>;

/// An open database. The handle is shared by reference; closing is dropping it.
pub struct Rocks {
    db: Db,
    path: PathBuf,
    families: Vec<renew::Open>,
    suspects: Suspects,
}

/// Writes that become visible, and durable, together.
#[derive(Default)]
pub struct Batch<'a> {
    inner: rocksdb::WriteBatch,
    db: Option<&'a Rocks>,
    failed: Option<Error>,
}

/// RocksDB's families for those of the code.
fn own_families(
    families: &[(&'static str, rocksdb::Options)],
    listed: &[String],
) -> Vec<(String, rocksdb::Options)> {
    let own = |(name, options): &(&'static str, rocksdb::Options)| {
        let names = renew::own_names(name, listed).into_iter();
        let with_options: Vec<_> = names.map(|own| (own, options.clone())).collect();
        with_options
    };
    families.iter().flat_map(own).collect()
}

impl Rocks {
    /// Opens a database, making it and its families where missing.
    ///
    /// # Errors
    /// [`Error`] when another process holds it, it is damaged, or the disk fails.
    pub fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        if options.create {
            is_new(path)?;
        }
        let (db_options, families) = options::build(options);
        let listed = renew::listed(&db_options, path);
        let db = Db::open_cf_with_opts(&db_options, path, own_families(&families, &listed));
        let rocks = Self::of(db.map_err(|error| Error::at(path, &error))?, path, families, &listed);
        rocks.drop_leftovers(&listed)?;
        Ok(rocks)
    }

    /// Opens a database that nothing is written to, not even a log of its own.
    ///
    /// # Errors
    /// [`Error`] when there is none, a family is missing, its logs are damaged, or the disk fails.
    pub fn open_read_only(path: &Path, options: &Options) -> Result<Self, Error> {
        let (mut db_options, families) = options::build(options);
        db_options.create_if_missing(false);
        let listed = renew::listed(&db_options, path);
        let own = own_families(&families, &listed);
        let db = Db::open_cf_with_opts_for_read_only(&db_options, path, own, false);
        let db = db.map_err(|error| match Error::at(path, &error) {
            // Nobody has opened it to write without making them: its list of files was cut.
            Error::Other { path, message } if message.contains("Column family not found") => {
                Error::Corruption { path, message }
            }
            error => error,
        })?;
        Ok(Self::of(db, path, families, &listed))
    }

    fn of(db: Db, path: &Path, families: Vec<(&'static str, rocksdb::Options)>, listed: &[String]) -> Self {
        let choose = |(name, options)| renew::Open::choose(&db, name, options, listed);
        let families = families.into_iter().map(choose).collect();
        Self { db, path: path.to_owned(), families, suspects: Suspects::default() }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_family(&self, name: &str) -> Result<&renew::Open, Error> {
        let open = self.families.iter().find(|family| family.name == name);
        open.ok_or_else(|| Error::Invalid(format!("no column family {name:?}")))
    }

    fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>, Error> {
        let handle = self.open_family(name)?.handle(&self.db);
        handle.ok_or_else(|| Error::Invalid(format!("no column family {name:?}")))
    }

    /// The files of a family.
    fn live_files(&self, family: &str) -> Result<Vec<rocksdb::LiveFile>, Error> {
        let own = self.open_family(family)?.own_name();
        let mut files = self.wrap(self.db.live_files())?;
        files.retain(|file| file.column_family_name == own);
        Ok(files)
    }

    fn wrap<T>(&self, result: Result<T, rocksdb::Error>) -> Result<T, Error> {
        result.map_err(|error| self.suspects.note(Error::at(&self.path, &error)))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error`] when the stored block is damaged or the disk fails.
    pub fn get(&self, family: &str, key: &[u8]) -> Result<Option<Pinned<'_>>, Error> {
        self.wrap(self.db.get_pinned_cf(&self.family(family)?, key))
    }

    /// The values of ascending keys, read in one batch.
    ///
    /// # Errors
    /// The first error of any key.
    pub fn get_sorted(&self, family: &str, keys: &[Vec<u8>]) -> Result<Vec<Option<Pinned<'_>>>, Error> {
        let found = self.db.batched_multi_get_cf(&self.family(family)?, keys.iter(), true);
        found.into_iter().map(|value| self.wrap(value)).collect()
    }

    /// Visits pairs of `[from, to)` in order, until the visitor answers `false`.
    ///
    /// # Errors
    /// [`Error`] when a stored block is damaged or the disk fails, or the visitor's own.
    pub fn scan<E: From<Error>>(
        &self,
        family: &str,
        from: &[u8],
        to: &[u8],
        visit: Visit<'_, E>,
    ) -> Result<(), E> {
        let mut cursor = self.cursor(family, from, to)?;
        while let Some((key, value)) = cursor.item() {
            if !visit(key, value)? {
                return Ok(());
            }
            cursor.advance();
        }
        Ok(cursor.status()?)
    }

    /// A cursor on the first pair of `[from, to)`.
    ///
    /// # Errors
    /// [`Error`] when the family is unknown.
    pub fn cursor(&self, family: &str, from: &[u8], to: &[u8]) -> Result<Cursor<'_>, Error> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_iterate_upper_bound(to);
        let mut inner = self.db.raw_iterator_cf_opt(&self.family(family)?, options);
        inner.seek(from);
        Ok(Cursor { inner, path: &self.path, suspects: &self.suspects })
    }

    /// A batch for [`Rocks::write`].
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch { inner: rocksdb::WriteBatch::default(), db: Some(self), failed: None }
    }

    /// Writes a batch; with `sync` it is on disk when this returns.
    ///
    /// # Errors
    /// [`Error`] when the disk is full or fails.
    pub fn write(&self, batch: Batch<'_>, sync: bool) -> Result<(), Error> {
        if let Some(error) = batch.failed {
            return Err(error);
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.wrap(self.db.write_opt(batch.inner, &options))
    }

    /// Begins a sorted file for a family, to be ingested later.
    ///
    /// # Errors
    /// [`Error`] when the file cannot be made.
    pub fn sorted_file(&self, family: &str, path: &Path) -> Result<SortedFile, Error> {
        SortedFile::create(&self.open_family(family)?.options, path)
    }

    /// Moves finished sorted files into a family; all of them become visible at once and durably.
    ///
    /// # Errors
    /// [`Error`] when a file is damaged or the disk fails.
    pub fn ingest(&self, family: &str, paths: &[PathBuf]) -> Result<(), Error> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.wrap(self.db.ingest_external_file_cf_opts(&self.family(family)?, &options, paths.to_vec()))
    }

    /// Removes `[from, to)`: whole files at once, then what is left by a tombstone. Durable on return.
    ///
    /// # Errors
    /// [`Error`] when the disk fails.
    pub fn delete_range(&self, family: &str, from: &[u8], to: &[u8]) -> Result<(), Error> {
        let handle = self.family(family)?;
        self.wrap(self.db.delete_file_in_range_cf(&handle, from, to))?;
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.wrap(self.db.delete_range_cf_opt(&handle, from, to, &options))
    }

    /// Writes the memtable of a family out.
    ///
    /// # Errors
    /// [`Error`] when the disk fails.
    pub fn flush(&self, family: &str) -> Result<(), Error> {
        self.wrap(self.db.flush_cf(&self.family(family)?))
    }

    /// A consistent copy in another directory, by hard links where the file system allows.
    ///
    /// # Errors
    /// [`Error`] when the directory exists or the disk fails.
    pub fn checkpoint(&self, into: &Path) -> Result<(), Error> {
        let checkpoint = self.wrap(Checkpoint::new(&self.db))?;
        self.wrap(checkpoint.create_checkpoint(into))
    }

    /// An integer property of a family, such as `rocksdb.total-sst-files-size`; 0 where RocksDB has none.
    #[must_use]
    pub fn property(&self, family: &str, name: &str) -> u64 {
        let Ok(handle) = self.family(family) else { return 0 };
        self.db.property_int_value_cf(&handle, name).ok().flatten().unwrap_or(0)
    }

    /// Path and size in bytes of each file of a family, those with the highest keys first.
    ///
    /// # Errors
    /// [`Error`] when RocksDB cannot tell.
    pub fn paths(&self, family: &str) -> Result<Vec<(PathBuf, u64)>, Error> {
        let mut own = self.live_files(family)?;
        own.sort_by(|a, b| b.end_key.cmp(&a.end_key));
        let path = |name: &str| self.path.join(name.trim_start_matches('/'));
        Ok(own.into_iter().map(|file| (path(&file.name), file.size as u64)).collect())
    }

    /// Path and first key of each file of a family.
    ///
    /// # Errors
    /// [`Error`] when RocksDB cannot tell.
    pub fn first_keys(&self, family: &str) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
        let own = self.live_files(family)?.into_iter();
        let path = |name: &str| self.path.join(name.trim_start_matches('/'));
        Ok(own.map(|file| (path(&file.name), file.start_key.unwrap_or_default())).collect())
    }

    /// The names of all files that hold pairs, those of all families.
    ///
    /// # Errors
    /// [`Error`] when RocksDB cannot tell.
    pub fn file_names(&self) -> Result<HashSet<String>, Error> {
        let files = self.wrap(self.db.live_files())?;
        Ok(files.into_iter().map(|file| file.name.trim_start_matches('/').to_owned()).collect())
    }

    /// Size in bytes, level and number of pairs of each file of a family.
    ///
    /// # Errors
    /// [`Error`] when RocksDB cannot tell.
    pub fn files(&self, family: &str) -> Result<Vec<(u64, i32, u64)>, Error> {
        let own = self.live_files(family)?.into_iter();
        Ok(own.map(|file| (file.size as u64, file.level, file.num_entries)).collect())
    }
}

impl Batch<'_> {
    fn with(
        &mut self,
        family: &str,
        write: impl FnOnce(&mut rocksdb::WriteBatch, &Arc<BoundColumnFamily<'_>>),
    ) {
        match self.db.map(|db| db.family(family)) {
            Some(Ok(handle)) => write(&mut self.inner, &handle),
            Some(Err(error)) => self.failed = Some(error),
            None => self.failed = Some(Error::Invalid("a batch without a database".to_owned())),
        }
    }

    /// Sets a key.
    pub fn put(&mut self, family: &str, key: &[u8], value: &[u8]) {
        self.with(family, |batch, handle| batch.put_cf(handle, key, value));
    }

    /// Removes a key.
    pub fn delete(&mut self, family: &str, key: &[u8]) {
        self.with(family, |batch, handle| batch.delete_cf(handle, key));
    }

    /// Removes `[from, to)`.
    pub fn delete_range(&mut self, family: &str, from: &[u8], to: &[u8]) {
        self.with(family, |batch, handle| batch.delete_range_cf(handle, from, to));
    }

    /// How many bytes the batch has.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.inner.size_in_bytes()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

/// A place in a range of a family.
pub struct Cursor<'a> {
    inner: DBRawIteratorWithThreadMode<'a, Db>,
    path: &'a Path,
    suspects: &'a Suspects,
}

impl Cursor<'_> {
    /// The pair at the cursor; `None` at the end or after an error, which [`Cursor::status`] tells.
    #[must_use]
    pub fn item(&self) -> Option<(&[u8], &[u8])> {
        self.inner.item()
    }

    /// Goes to the next pair.
    pub fn advance(&mut self) {
        self.inner.next();
    }

    /// Goes to the first pair at or after a key.
    pub fn seek(&mut self, key: &[u8]) {
        self.inner.seek(key);
    }

    /// Goes to the last pair at or before a key.
    pub fn seek_back(&mut self, key: &[u8]) {
        self.inner.seek_for_prev(key);
    }

    /// Whether the cursor stopped for a reason other than the end.
    ///
    /// # Errors
    /// [`Error`] when a stored block is damaged or the disk fails.
    pub fn status(&self) -> Result<(), Error> {
        self.inner.status().map_err(|error| self.suspects.note(Error::at(self.path, &error)))
    }
}

#[cfg(test)]
mod tests;
