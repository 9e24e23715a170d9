//! Segment files: `<number>.log`, eight bytes of magic and version, then records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::files::Files;
use super::record::{self, Record};
use crate::storage::Error;

/// The first bytes of every segment; the last one is the version.
pub(crate) const MAGIC: &[u8; 8] = b"TRCLOG\0\x01";

/// A segment file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Its number; segments are read in ascending order.
    pub(crate) number: u64,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Its bytes that count.
    pub(crate) len: u64,
}

/// What a segment holds.
pub(crate) struct Scanned {
    /// Its records in order.
    pub(crate) records: Vec<Record>,
    /// The bytes that count; what follows in the file is a torn tail.
    pub(crate) len: u64,
}

pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.log"))
}

/// The segments of a directory in order.
pub(crate) fn list(files: &dyn Files, dir: &Path) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    for path in files.list(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(number) = name.strip_suffix(".log").and_then(|number| number.parse().ok()) else { continue };
        segments.push(Segment { number, path, len: 0 });
    }
    segments.sort_by_key(|segment| segment.number);
    for pair in segments.windows(2) {
        if pair[1].number != pair[0].number + 1 {
            return Err(Error::corrupt(format!(
                "log segment {} is missing in {}: restore it, or give this node a new data directory so that its \
                 shards are copied again",
                pair[0].number + 1,
                dir.display()
            )));
        }
    }
    Ok(segments)
}

/// Says what is wrong where, and what to do.
pub(crate) fn damaged(path: &Path, offset: u64, why: &str) -> Error {
    Error::corrupt(format!(
        "{} at byte {offset}: {why}: restore the file, or give this node a new data directory so that its shards are \
         copied again",
        path.display()
    ))
}

/// The records of a segment's bytes, each with its payload; an error tells the place and ends the walk.
pub(crate) fn records(bytes: &[u8]) -> impl Iterator<Item = Result<(Record, &[u8]), (u64, &'static str)>> {
    let mut at = MAGIC.len();
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || at >= bytes.len() {
            return None;
        }
        match record::parse(&bytes[at..]) {
            Ok((mut record, payload)) => {
                record.offset = at as u64;
                at += record.len as usize;
                Some(Ok((record, payload)))
            }
            Err(why) => {
                failed = true;
                Some(Err((at as u64, why)))
            }
        }
    })
}

/// Reads a segment. Of the last segment, a tail that does not read as records, and is followed by no record written
/// after a later sync, is what a crash left of a write that was never acknowledged: it does not count.
pub(crate) fn scan(files: &dyn Files, path: &Path, is_last: bool) -> Result<Scanned, Error> {
    let bytes = files.read(path)?;
    if is_last && bytes.len() < MAGIC.len() {
        return Ok(Scanned { records: Vec::new(), len: 0 });
    }
    match bytes.first_chunk::<8>() {
        Some(MAGIC) => {}
        Some(other) if other[..7] == MAGIC[..7] => {
            return Err(Error::NewerFormat { found: other[7].into(), known: 1 });
        }
        _ => return Err(damaged(path, 0, "it does not begin like a log segment")),
    }
    let mut scanned = Scanned { records: Vec::new(), len: MAGIC.len() as u64 };
    for record in records(&bytes) {
        match record {
            Ok((record, _)) => {
                scanned.len = record.offset + u64::from(record.len);
                scanned.records.push(record);
            }
            Err((at, _)) if is_last && !synced_record_follows(&bytes[at as usize..]) => {
                tracing::warn!(path = %path.display(), at, bytes = bytes.len() as u64 - at, "torn tail of the log is cut");
            }
            Err((at, why)) => return Err(damaged(path, at, why)),
        }
    }
    Ok(scanned)
}

/// At most so many segments are read at once: each is in memory as a whole.
const SCANNED_AT_ONCE: usize = 4;

/// Scans segments, several at once. Of several that are damaged the first one is told.
pub(crate) fn scan_all(files: &dyn Files, segments: &[Segment]) -> Result<Vec<Scanned>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SCANNED_AT_ONCE);
    let (next, scanned) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(segment) = segments.get(at) else { return };
            let of = scan(files, &segment.path, at + 1 == segments.len());
            scanned.lock().insert(at, of);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(segments.len()) {
            scope.spawn(work);
        }
    });
    scanned.into_inner().into_values().collect()
}

/// Whether a whole record that was written after a sync begins behind the first byte: then what comes before it had
/// been synced, and is damage and not a torn tail.
fn synced_record_follows(tail: &[u8]) -> bool {
    let places = 1..tail.len().saturating_sub(record::HEADER_BYTES - 1);
    places
        .into_iter()
        .map(|at| &tail[at..])
        .any(|rest| record::may_begin(rest) && record::parse(rest).is_ok_and(|(record, _)| record.after_sync))
}
