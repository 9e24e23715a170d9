//! The data directory: made if it is missing, and held by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The file that a process locks.
pub(crate) const LOCK: &str = "LOCK";

/// Keeps other processes out of a data directory until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Makes the directory and locks it. The lock ends with the process, however that ends.
pub(crate) fn lock(dir: &Path) -> Result<Lock> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).with_context(|| explain(dir, "cannot make"))?;
    let path = dir.join(LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = opened.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            anyhow::anyhow!(
                "data directory {shown} cannot be written ({error}); choose another one with --data-dir"
            )
        }
        ErrorKind::StorageFull => {
            anyhow::anyhow!(
                "the disk of data directory {shown} is full; free space or choose another --data-dir"
            )
        }
        _ => anyhow::anyhow!("data directory {shown}: {error}"),
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let by =
                if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") };
            bail!(
                "data directory {shown} is in use by {by}; stop that one or choose another directory with --data-dir"
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock data directory {shown}"));
        }
    }
    // Only for the message above: failing to write it is harmless.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(Lock { _file: file })
}

/// The process that holds a data directory, if one does.
pub(crate) fn holder(dir: &Path) -> Option<i32> {
    let mut file = File::open(dir.join(LOCK)).ok()?;
    if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let mut holder = String::new();
    file.read_to_string(&mut holder).ok()?;
    holder.trim().parse().ok()
}

fn explain(dir: &Path, what: &str) -> String {
    format!("{what} data directory {}; choose another one with --data-dir", dir.display())
}
