//! A sorted file that is written beside the database and ingested when it is complete.

use std::path::{Path, PathBuf};

use rocksdb::SstFileWriter;

use crate::Error;

/// Pairs not yet handed to RocksDB; the file is written when it is finished.
///
/// RocksDB's writer borrows its options, so pairs are kept until [`SortedFile::finish`] in order to own nothing
/// borrowed in between; callers bound how much they put into one file.
pub struct SortedFile {
    options: rocksdb::Options,
    path: PathBuf,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl SortedFile {
    pub(crate) fn create(options: &rocksdb::Options, path: &Path) -> Result<Self, Error> {
        Ok(Self { options: options.clone(), path: path.to_owned(), pairs: Vec::new() })
    }

    /// Adds a pair; in any order, each key once.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.pairs.push((key, value));
    }

    /// Whether nothing was put.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Sorts, writes and syncs the file; answers its size in bytes.
    ///
    /// # Errors
    /// [`Error`] when the disk is full or fails, when a key was put twice, or when nothing was put.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.pairs.sort_unstable();
        let failed = |error: rocksdb::Error| Error::at(&self.path, &error);
        let mut writer = SstFileWriter::create(&self.options);
        // The writer's `open` borrows it for its own lifetime; a scope keeps that borrow apart from the puts.
        open(&writer, &self.path)?;
        for (key, value) in &self.pairs {
            writer.put(key, value).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        Ok(writer.file_size())
    }
}

fn open<'a>(writer: &'a SstFileWriter<'a>, path: &Path) -> Result<(), Error> {
    writer.open(path).map_err(|error| Error::at(path, &error))
}
