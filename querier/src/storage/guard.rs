//! Opening RocksDB so that nothing which the ledger expects is lost silently, or for good: RocksDB makes an empty database
//! where its `CURRENT` is gone, and removes files that its list does not name.

use std::path::{Path, PathBuf};

use tricord_rocks::{Options, Rocks};

use super::ledger::Ledger;
use super::marks::Marks;
use super::{Error, StoreConfig, keys};

/// Files are moved here that RocksDB would have removed, though something is missing.
pub(crate) const LOST: &str = "lost";

/// How the database is opened.
pub(crate) fn options(config: &StoreConfig, create: bool) -> Options {
    Options {
        families: keys::FAMILIES.to_vec(),
        block_cache_bytes: config.block_cache_bytes,
        create,
        tolerant: true,
        ..Options::default()
    }
}

/// Opens the database of a store. Nobody else may have it open.
///
/// # Errors
/// [`Error::Corrupt`] or [`Error::Rocks`] where its logs or its list of files are damaged: nothing is changed then.
pub(crate) fn open(config: &StoreConfig, ledger: &Ledger) -> Result<Rocks, Error> {
    let dir = directory(&config.dir);
    if tricord_rocks::is_new(&dir)? {
        if !ledger.shards.is_empty() {
            return Err(Error::corrupt(format!(
                "{} holds no database, and there was one: restore the directory, or give this node a new data directory \
                 so that its shards are copied again",
                dir.display()
            )));
        }
        return Ok(Rocks::open(&dir, &options(config, true))?);
    }
    tricord_rocks::verify_logs(&dir)?;
    if !ledger.shards.is_empty() {
        save_what_is_not_listed(config, &dir, ledger)?;
    }
    Ok(Rocks::open(&dir, &options(config, false))?)
}

/// Where the database of a store lies.
pub(crate) fn directory(store: &Path) -> PathBuf {
    store.join("rocks")
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |error: std::io::Error| Error::io("list", dir, &error);
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
}

/// Where windows are missing, moves files away that the database does not name: they may be what is missing.
fn save_what_is_not_listed(config: &StoreConfig, dir: &Path, ledger: &Ledger) -> Result<(), Error> {
    let rocks = Rocks::open_read_only(dir, &options(config, false))?;
    let marks = Marks::read(&rocks, config.window_ms, &ledger.generations())?;
    if ledger.missing(&marks).is_empty() {
        return Ok(());
    }
    let listed = rocks.file_names()?;
    drop(rocks);
    let lost = config.dir.join(LOST);
    for name in names(dir)?.into_iter().filter(|name| name.ends_with(".sst") && !listed.contains(name)) {
        let moved =
            std::fs::create_dir_all(&lost).and_then(|()| std::fs::rename(dir.join(&name), lost.join(&name)));
        moved.map_err(|error| Error::io("move away", &dir.join(&name), &error))?;
        tracing::warn!(file = name, to = %lost.display(), "a sorted file that RocksDB does not know is kept aside");
    }
    Ok(())
}
