//! The file system as the log uses it, so that a test can take away what was not synced.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::storage::Error;

/// A directory of files that only grow.
pub(crate) trait Files: Send + Sync {
    /// Makes a directory, durably.
    fn create_dir(&self, dir: &Path) -> Result<(), Error>;
    /// The files of a directory.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, Error>;
    /// Makes an empty file.
    fn create(&self, path: &Path) -> Result<Box<dyn LogFile>, Error>;
    /// Opens a file to append, cut to a length, durably.
    fn open_at(&self, path: &Path, len: u64) -> Result<Box<dyn LogFile>, Error>;
    /// All bytes of a file.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error>;
    /// Some bytes of a file.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<(), Error>;
    /// Makes the directory's list of files durable.
    fn sync_dir(&self, dir: &Path) -> Result<(), Error>;
}

/// A file that is appended to.
pub(crate) trait LogFile: Send {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// Makes everything appended durable.
    fn sync(&mut self) -> Result<(), Error>;
}

/// The real file system.
pub(crate) struct RealFiles;

struct RealFile {
    file: File,
    path: PathBuf,
}

impl Files for RealFiles {
    fn create_dir(&self, dir: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::io("make directory", dir, &error))?;
        dir.parent().map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, Error> {
        let failed = |error: std::io::Error| Error::io("list", dir, &error);
        let entries = std::fs::read_dir(dir).map_err(failed)?;
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
    }

    fn create(&self, path: &Path) -> Result<Box<dyn LogFile>, Error> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        let file = file.map_err(|error| Error::io("create", path, &error))?;
        Ok(Box::new(RealFile { file, path: path.to_owned() }))
    }

    fn open_at(&self, path: &Path, len: u64) -> Result<Box<dyn LogFile>, Error> {
        let failed = |error: std::io::Error| Error::io("open", path, &error);
        let mut file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() != len {
            file.set_len(len).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Box::new(RealFile { file, path: path.to_owned() }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let failed = |error: std::io::Error| Error::io("read", path, &error);
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let failed = |error: std::io::Error| Error::io("read", path, &error);
        let mut bytes = vec![0; len];
        File::open(path).map_err(failed)?.read_exact_at(&mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        std::fs::remove_file(path).map_err(|error| Error::io("remove", path, &error))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), Error> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let synced = File::open(dir).and_then(|file| file.sync_all());
        synced.map_err(|error| Error::io("sync directory", dir, &error))
    }
}

impl LogFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, &error))
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, &error))
    }
}
