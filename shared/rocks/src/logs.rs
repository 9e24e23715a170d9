//! RocksDB's own logs, looked at without RocksDB: the list of files (`MANIFEST-…`), which `CURRENT` names, and the logs of
//! what is not in sorted files yet (`….log`).
//!
//! Both are blocks of 32 KiB with checksummed fragments of records. A log may end in the middle of a record, as a crash
//! leaves it; anything else that does not fit is damage. Whether a log ends too early cannot be seen here.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::Error;

const BLOCK_BYTES: usize = 32 << 10;
/// Checksum, length and type of a fragment.
const HEADER_BYTES: usize = 7;
/// Fragments of reused files also say which log they are of.
const REUSED_HEADER_BYTES: usize = HEADER_BYTES + 4;

/// What a log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Whole records.
    pub records: u64,
    /// Bytes behind the last whole record, which do not count.
    pub torn_bytes: u64,
}

/// Looks at the logs of a database.
///
/// # Errors
/// [`Error::Corruption`] with the file and the place, [`Error::Other`] when a file cannot be read.
pub fn verify_logs(dir: &Path) -> Result<(), Error> {
    verify_log(&manifest(dir)?)?;
    let entries = std::fs::read_dir(dir).map_err(|error| unreadable(dir, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(dir, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            verify_log(&path)?;
        }
    }
    Ok(())
}

/// Whether there is no database in a directory yet. RocksDB takes one without `CURRENT` for that, and would remove it.
///
/// # Errors
/// [`Error::Corruption`] when `CURRENT` is missing beside files of a database, [`Error::Other`] when the directory cannot
/// be read.
pub fn is_new(dir: &Path) -> Result<bool, Error> {
    let path = dir.join("CURRENT");
    if path.exists() {
        return Ok(false);
    }
    let mut lists = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(unreadable(dir, &error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| unreadable(dir, &error))?.file_name().to_string_lossy().into_owned();
        if is_manifest(&name) || name.ends_with(".sst") {
            lists.push(name);
        }
    }
    if lists.is_empty() {
        return Ok(true);
    }
    lists.retain(|name| is_manifest(name));
    let why = format!(
        "it is missing: it is one line that names the newest list of files, of which there are: {}; write it again",
        lists.join(", ")
    );
    Err(damaged(&path, &why))
}

/// The list of files that is in use.
fn manifest(dir: &Path) -> Result<PathBuf, Error> {
    let path = dir.join("CURRENT");
    let text = match std::fs::read(&path) {
        Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(&path, "it is missing")),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let name = text.strip_suffix('\n').filter(|name| is_manifest(name));
    let name = name.ok_or_else(|| damaged(&path, "it does not name the list of files in use"))?;
    let named = dir.join(name);
    if named.exists() {
        Ok(named)
    } else {
        Err(damaged(&path, &format!("it names {name}, which is missing")))
    }
}

fn is_manifest(name: &str) -> bool {
    let number = name.strip_prefix("MANIFEST-").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::Corruption { path: path.display().to_string(), message: why.to_owned() }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Other { path: path.display().to_string(), message: format!("cannot be read: {error}") }
}

/// Looks at every record of a log.
///
/// # Errors
/// As [`verify_logs`].
pub fn verify_log(path: &Path) -> Result<LogReport, Error> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => damaged(path, "it is missing"),
        _ => unreadable(path, &error),
    })?;
    let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut walk = Walk::default();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    loop {
        block.clear();
        let read = (&mut input).take(BLOCK_BYTES as u64).read_to_end(&mut block);
        read.map_err(|error| unreadable(path, &error))?;
        let is_last = block.len() < BLOCK_BYTES;
        let at = walk.at;
        walk.block(&block, is_last)
            .map_err(|(place, why)| damaged(path, &format!("at byte {}: {why}", at + place as u64)))?;
        walk.at += block.len() as u64;
        if is_last {
            break;
        }
    }
    Ok(LogReport { records: walk.records, torn_bytes: walk.at - walk.whole })
}

#[derive(Default)]
struct Walk {
    /// Where the block begins.
    at: u64,
    /// Behind the last whole record.
    whole: u64,
    records: u64,
    in_record: bool,
}

impl Walk {
    fn block(&mut self, block: &[u8], is_last: bool) -> Result<(), (usize, &'static str)> {
        let mut at = 0;
        loop {
            let rest = block.get(at..).unwrap_or_default();
            let Some((header, _)) = rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(()) };
            let [c0, c1, c2, c3, len_low, len_high, kind] = *header;
            let len = usize::from(u16::from_le_bytes([len_low, len_high]));
            if kind == 0 && len == 0 {
                // Room that was allocated ahead: nothing more of this block counts.
                return if rest.iter().all(|byte| *byte == 0) { Ok(()) } else { Err((at, "it is zeroed")) };
            }
            let header_bytes = if is_reused(kind) { REUSED_HEADER_BYTES } else { HEADER_BYTES };
            let Some(fragment) = rest.get(..header_bytes + len) else {
                return if is_last { Ok(()) } else { Err((at, "a record's length is impossible")) };
            };
            // The checksum is over everything from the type on.
            let covered = fragment.get(HEADER_BYTES - 1..).unwrap_or_default();
            if mask(crc32c::crc32c(covered)) != u32::from_le_bytes([c0, c1, c2, c3]) {
                return Err((at, "a record's checksum does not match"));
            }
            self.in_record = match (kind, self.in_record) {
                (1 | 5, false) | (4 | 8, true) => false,
                (2 | 6, false) | (3 | 7, true) => true,
                (1..=8, _) => return Err((at, "a piece of a record is missing")),
                // Notes between records.
                (_, in_record) => in_record,
            };
            at += fragment.len();
            if !self.in_record {
                self.records += 1;
                self.whole = self.at + at as u64;
            }
        }
    }
}

fn is_reused(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

/// RocksDB changes checksums that it stores, so that data with checksums in it can be checksummed.
fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Options, Rocks};

    /// A database of which something is in the log still.
    fn database(dir: &Path) {
        let family = Family { name: "plain", compress: false, bloom: false, block_bytes: 16 << 10 };
        let options = Options { families: vec![family], ..Options::default() };
        let rocks = Rocks::open(dir, &options).unwrap();
        for n in 0..30u8 {
            let mut batch = rocks.batch();
            batch.put("plain", &[n], &vec![n; 5000]);
            rocks.write(batch, true).unwrap();
        }
    }

    fn find(dir: &Path, what: fn(&str) -> bool) -> PathBuf {
        let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut found = paths.filter(|path| what(path.file_name().unwrap().to_str().unwrap()));
        found.next().unwrap()
    }

    #[test]
    fn every_flipped_bit_is_found_or_tears_the_end() {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path());
        verify_logs(dir.path()).unwrap();
        let log = find(dir.path(), |name| name.ends_with(".log"));
        assert_eq!(verify_log(&log).unwrap(), LogReport { records: 30, torn_bytes: 0 });
        let whole = std::fs::read(&log).unwrap();
        assert!(whole.len() > 4 * BLOCK_BYTES);
        for at in (0..whole.len()).step_by(997) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&log, &bytes).unwrap();
            let found = verify_log(&log);
            assert!(found.as_ref().is_err() || found.unwrap().records < 30, "byte {at}");
            std::fs::write(&log, &whole[..at]).unwrap();
            assert!(verify_log(&log).unwrap().records < 30, "cut at {at}");
        }
    }

    #[test]
    fn current_must_name_a_list_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path());
        let current = dir.path().join("CURRENT");
        for text in ["", "MANIFEST-", "MANIFEST-000001", "MANIFEST-999999\n", "../MANIFEST-000001\n"] {
            std::fs::write(&current, text).unwrap();
            assert!(verify_logs(dir.path()).unwrap_err().is_corruption(), "{text:?}");
        }
        std::fs::remove_file(current).unwrap();
        assert!(verify_logs(dir.path()).unwrap_err().is_corruption());
    }
}
