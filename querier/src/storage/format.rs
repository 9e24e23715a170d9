//! What format a store's directory has, and how long its windows are: both are fixed when it is made.

use std::path::Path;

use super::ledger::Ledger;
use super::{Error, StoreConfig, guard, log};

/// The format of the directory that this build writes.
pub(crate) const FORMAT: u32 = 4;
/// Directories have a ledger since this format.
pub(crate) const LEDGER_SINCE: u32 = 3;
/// Where the format stands.
const FILE: &str = "FORMAT";

/// Format and length of a window, in milliseconds, as a directory says them; `None` where it does not.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::NewerFormat`], or the disk's failure.
pub(crate) fn read(dir: &Path) -> Result<Option<(u32, i64)>, Error> {
    let path = dir.join(FILE);
    let damaged = || Error::corrupt(format!("{} does not say what format the directory has", path.display()));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(damaged()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", &path, &error)),
    };
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.trim().parse::<i64>().ok())
    };
    let found = u32::try_from(field("format").ok_or_else(damaged)?).map_err(|_| damaged())?;
    if found > FORMAT {
        return Err(Error::NewerFormat { found, known: FORMAT });
    }
    Ok(Some((found, field("window_ms").ok_or_else(damaged)?)))
}

/// Checks what a directory says, or makes it say so; answers its format.
///
/// # Errors
/// As [`read`], and [`Error::Invalid`] where windows have another length.
pub(crate) fn check(config: &StoreConfig) -> Result<u32, Error> {
    let Some((found, window_ms)) = read(&config.dir)? else { return begin(config) };
    if window_ms != config.window_ms {
        return Err(Error::Invalid(format!(
            "{} was made with windows of {window_ms} ms; they cannot become {} ms",
            config.dir.display(),
            config.window_ms
        )));
    }
    Ok(found)
}

/// Makes an older directory one of this build: from now on there may be what an older build does not understand.
///
/// # Errors
/// The disk's failure.
pub(crate) fn raise(config: &StoreConfig, found: u32) -> Result<(), Error> {
    if found < FORMAT { write(config) } else { Ok(()) }
}

/// Whether no store was ever made in a directory: there is no database, no log, and no ledger that names shards.
fn is_new(dir: &Path) -> Result<bool, Error> {
    if guard::directory(dir).join("CURRENT").exists() {
        return Ok(false);
    }
    let log = log::directory(dir);
    match std::fs::read_dir(&log) {
        Ok(mut files) => {
            if files.next().is_some() {
                return Ok(false);
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("list", &log, &error)),
    }
    match Ledger::read(dir) {
        Ok(ledger) => Ok(ledger.is_none_or(|ledger| ledger.shards.is_empty())),
        // A start that was cut short leaves a whole one.
        Err(error) if error.is_damage() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a directory's format known, where nothing is there yet.
fn begin(config: &StoreConfig) -> Result<u32, Error> {
    if !is_new(&config.dir)? {
        let window_ms = config.window_ms;
        return Err(Error::corrupt(format!(
            "{} is missing, and there was a store: it has the lines format={FORMAT} and window_ms={window_ms}, unless \
             another length of windows was set; restore it with whatever else is gone of the directory, or give this node \
             a new data directory so that its shards are copied again",
            config.dir.join(FILE).display()
        )));
    }
    // A directory without a database has nothing to say in it.
    Ledger::default().write(&config.dir)?;
    write(config)?;
    Ok(FORMAT)
}

fn write(config: &StoreConfig) -> Result<(), Error> {
    let path = config.dir.join(FILE);
    let failed = |error: std::io::Error| Error::io("write", &path, &error);
    let staged = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        std::fs::write(&staged, format!("format={FORMAT}\nwindow_ms={}\n", config.window_ms))?;
        std::fs::File::open(&staged)?.sync_all()?;
        std::fs::rename(&staged, &path)?;
        std::fs::File::open(&config.dir)?.sync_all()
    };
    write().map_err(failed)
}
