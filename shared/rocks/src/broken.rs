//! Sorted files that are gone, not whole, or in which something cannot be read, and how they are let go.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::{Error, Rocks};

/// A sorted file that the database names, and that is not there any more, not whole, or damaged inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name in the database's directory.
    pub name: String,
    /// The lowest key that was in it.
    pub first: Vec<u8>,
    /// The highest.
    pub last: Vec<u8>,
    /// Whether it is there as a whole, and only damaged inside: others may still be answered from it.
    pub is_there: bool,
}

/// The files in which something could not be read since the database was opened, by name.
#[derive(Default)]
pub(crate) struct Suspects(Mutex<BTreeSet<String>>);

impl Suspects {
    /// Notes the file that an error speaks of. RocksDB names it with its path.
    pub(crate) fn note(&self, error: Error) -> Error {
        if let Error::Corruption { message, .. } = &error {
            let names = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            let sorted = names.filter(|name| name.ends_with(".sst")).map(str::to_owned);
            self.0.lock().extend(sorted);
        }
        error
    }
}

impl Rocks {
    /// The files of a family that are not there any more or not whole, so that what was in them is gone and each read nearby
    /// fails; and those in which something could not be read since the database was opened.
    ///
    /// # Errors
    /// [`Error`] when RocksDB cannot tell.
    pub fn broken(&self, family: &str) -> Result<Vec<Broken>, Error> {
        let suspects = self.suspects.0.lock().clone();
        let mut broken = Vec::new();
        for file in self.live_files(family)? {
            let name = file.name.trim_start_matches('/').to_owned();
            let is_there =
                std::fs::metadata(self.path.join(&name)).is_ok_and(|found| found.len() == file.size as u64);
            let is_broken = !is_there || suspects.contains(&name);
            if let (true, Some(first), Some(last)) = (is_broken, file.start_key, file.end_key) {
                broken.push(Broken { name, first, last, is_there });
            }
        }
        Ok(broken)
    }

    /// Lets go of files that are broken: nothing is found any more between their first and their last keys.
    ///
    /// # Errors
    /// [`Error`] when the disk fails.
    pub fn drop_broken(&self, family: &str, files: &[Broken]) -> Result<(), Error> {
        let handle = self.family(family)?;
        files.iter().try_for_each(|Broken { first, last, .. }| {
            self.wrap(self.db.delete_file_in_range_cf(&handle, first, last))
        })
    }
}
