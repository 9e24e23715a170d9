//! The version of the shard map under which this node last let go of what it held of a shard.
//!
//! With a shard its stored epoch goes, and so does the knowledge of what was answered under it. A member of metadata that
//! lags may tell a process that has just started of an older configuration, in which the node had a place in that shard
//! still: an empty replica would then answer in the place of the one that was let go. So the version is written down
//! before anything goes, and shards are made by maps that are at least as new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::storage::Error;

const FILE: &str = "map-floor";

/// The version, and the file that keeps it.
pub(super) struct Floor {
    dir: PathBuf,
    version: Mutex<u64>,
}

impl Floor {
    /// Reads what is in a node's directory. A file that cannot be read is as good as none: it guards against metadata
    /// that lags, for a moment after a start.
    pub(super) fn open(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let version = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|error: std::num::ParseIntError| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.to_string()),
        };
        let version = version.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), error, "the oldest shard map to make shards by is not known");
            0
        });
        Self { dir: dir.to_owned(), version: Mutex::new(version) }
    }

    /// Whether shards may be made by a map of this version.
    pub(super) fn allows(&self, version: u64) -> bool {
        version >= *self.version.lock()
    }

    /// Allows only maps of this version or newer ones from now on, durably. Blocks for the disk where that is news.
    pub(super) fn raise(&self, version: u64) -> Result<(), Error> {
        let mut known = self.version.lock();
        if version > *known {
            self.write(version).map_err(|error| Error::io("write", &self.dir.join(FILE), &error))?;
            *known = version;
        }
        Ok(())
    }

    /// After a crash the file is the old one or the new one.
    fn write(&self, version: u64) -> io::Result<()> {
        let fresh = self.dir.join(format!("{FILE}.new"));
        let mut file = File::create(&fresh)?;
        file.write_all(version.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_outlives_the_process_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let floor = Floor::open(dir.path());
        assert!(floor.allows(0));
        floor.raise(7).unwrap();
        floor.raise(5).unwrap();
        assert!(!floor.allows(6) && floor.allows(7));
        drop(floor);
        let floor = Floor::open(dir.path());
        assert!(!floor.allows(6) && floor.allows(7));
        fs::write(dir.path().join(FILE), "x").unwrap();
        assert!(Floor::open(dir.path()).allows(0));
    }
}
