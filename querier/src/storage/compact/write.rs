//! Writing a merged generation: files of bounded size, and columns of timestamps that series share.

use std::collections::HashMap;
use std::path::PathBuf;

use tricord_rocks::{Rocks, SortedFile};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::storage::Error;
use crate::storage::block::times::{self, LONG_COLUMNS_PER_BLOCK};

/// Pairs of about so many bytes go into one file, and are in memory until it is written.
const FILE_BYTES: u64 = 64 << 20;

/// The files of one family. Those that are not ingested are removed.
pub(super) struct Files<'a> {
    rocks: &'a Rocks,
    family: &'static str,
    /// Where files lie, without the ending that tells them apart.
    stem: PathBuf,
    open: Option<SortedFile>,
    /// Bytes in the open file.
    held: u64,
    paths: Vec<PathBuf>,
    /// Bytes put since they were last asked for.
    put: u64,
    written: u64,
}

impl<'a> Files<'a> {
    pub(super) fn new(rocks: &'a Rocks, family: &'static str, stem: PathBuf) -> Self {
        Self { rocks, family, stem, open: None, held: 0, paths: Vec::new(), put: 0, written: 0 }
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        let bytes = (key.len() + value.len()) as u64;
        self.put += bytes;
        self.held += bytes;
        let file = match &mut self.open {
            Some(file) => file,
            None => {
                let name = self.stem.file_name().unwrap_or_default().to_string_lossy();
                let path =
                    self.stem.with_file_name(format!("{name}-{}-{}.sst", self.family, self.paths.len()));
                let file = self.rocks.sorted_file(self.family, &path)?;
                self.paths.push(path);
                self.open.insert(file)
            }
        };
        file.put(key, value);
        Ok(())
    }

    /// Begins another file where this one is large: all keys to come must be behind those so far.
    pub(super) fn split(&mut self) -> Result<(), Error> {
        if self.held >= FILE_BYTES { self.close() } else { Ok(()) }
    }

    /// Writes the open file.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        self.held = 0;
        if let Some(file) = self.open.take() {
            self.written += file.finish()?;
        }
        Ok(())
    }

    /// Bytes put since the last call.
    pub(super) fn take_put(&mut self) -> u64 {
        std::mem::take(&mut self.put)
    }

    /// Makes all files part of the database at once; answers their bytes.
    pub(super) fn ingest(mut self) -> Result<u64, Error> {
        self.close()?;
        if !self.paths.is_empty() {
            self.rocks.ingest(self.family, &self.paths)?;
        }
        self.paths.clear();
        Ok(self.written)
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a file of a merge that was given up stays");
            }
        }
    }
}

/// The distinct columns of timestamps of a tenant, numbered in the order of first use. They are told apart by 128 bits
/// under a key of this process, since all of them may be more than fits.
pub(super) struct LongTimes {
    numbers: HashMap<u128, u32>,
    seed: u64,
    bytes: Vec<u8>,
    open: Vec<Vec<i64>>,
    blocks: Vec<Vec<u8>>,
}

impl LongTimes {
    pub(super) fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            seed: rand::random(),
            bytes: Vec::new(),
            open: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// The number of a column.
    pub(super) fn number(&mut self, column: &[i64]) -> Result<u32, Error> {
        self.bytes.clear();
        column.iter().for_each(|time| self.bytes.extend_from_slice(&time.to_le_bytes()));
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(xxh3_128_with_seed(&self.bytes, self.seed)).or_insert(next);
        if number == next {
            self.open.push(column.to_vec());
            if self.open.len() == LONG_COLUMNS_PER_BLOCK {
                self.close()?;
            }
        }
        Ok(number)
    }

    fn close(&mut self) -> Result<(), Error> {
        self.blocks.push(times::encode(&self.open)?);
        self.open.clear();
        Ok(())
    }

    /// The blocks in order.
    pub(super) fn finish(mut self) -> Result<Vec<Vec<u8>>, Error> {
        if !self.open.is_empty() {
            self.close()?;
        }
        Ok(self.blocks)
    }
}
