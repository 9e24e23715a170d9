//! Looking at a store that nobody has open: everything in it is read, decoded and compared, and nothing is written.
//!
//! What is damaged becomes a [`Finding`], which says what is lost and what to do; the check goes on behind it as far as
//! it can. Memory is bounded by a segment of the log, a block of a window, and the lists of them.

mod log;
mod rows;
mod windows;

use std::path::Path;

use serde::Serialize;
use tricord_rocks::Rocks;

use super::ledger::{self, Ledger};
use super::{Error, StoreConfig, format, guard};

/// Findings that are kept; more are counted.
const MAX_FINDINGS: usize = 1000;
/// RocksDB's block cache while a store is looked at, in bytes: everything is read once.
const CACHE_BYTES: usize = 16 << 20;

/// What to do about what can only be had from elsewhere.
const RESTORE: &str = "restore the directory from a copy, or give this node a new data directory so that its shards are \
                       copied again from other replicas";
/// What to do about a window or a shard alone.
const REPLACE: &str =
    "all else goes on; let another replica copy the shard here, or restore the directory from a copy";

/// Something that is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, or the directory where the file is not known.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// The shard that lacks something; none where all of them do, or where nothing is lost.
    pub shard: Option<u32>,
    /// From when on its data is concerned, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Until when, that time excluded.
    pub until_ms: Option<i64>,
    /// What is lost.
    pub lost: String,
    /// What to do.
    pub advice: String,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// Segments of the log.
    pub log_segments: u64,
    /// Entries in them.
    pub log_entries: u64,
    /// Shards with rows.
    pub shards: u64,
    /// Rows of shards.
    pub rows: u64,
    /// Generations of windows, each counted for each of its shards.
    pub windows: u64,
    /// Series in them.
    pub series: u64,
    /// Samples in them.
    pub samples: u64,
    /// Spans in them.
    pub spans: u64,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// What is damaged.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more_findings: u64,
    /// What was looked at.
    pub looked: Looked,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// What is looked at.
    pub what: &'static str,
    /// How many of them are done.
    pub done: u64,
    /// How many there are.
    pub total: u64,
}

/// A check at work.
struct Check<'c> {
    dir: &'c Path,
    window_ms: i64,
    ledger: Ledger,
    report: CheckReport,
    progress: &'c dyn Fn(CheckProgress),
}

/// Looks at a store. `progress` is called again and again.
///
/// # Errors
/// [`Error`] when it cannot be looked at: there is none, it is of a newer build, or it cannot be read.
pub(crate) fn check(dir: &Path, progress: &dyn Fn(CheckProgress)) -> Result<CheckReport, Error> {
    let window_ms = StoreConfig::new(dir).window_ms;
    let report = CheckReport::default();
    let mut check = Check { dir, window_ms, ledger: Ledger::default(), report, progress };
    let rocks = guard::directory(dir);
    if !dir.join("FORMAT").exists() && !rocks.exists() {
        return Err(Error::Invalid(format!("there is no store in {}", dir.display())));
    }
    let has_ledger = check.format()?;
    check.ledger(has_ledger)?;
    match check.open() {
        Ok(rocks) => {
            let bases = check.rows(&rocks)?;
            check.log(&bases)?;
            check.windows(&rocks, &bases)?;
        }
        Err(error) if error.is_damage() => {
            check.find(&rocks.display().to_string(), error.to_string(), "all that is written out", RESTORE);
            check.log(&Default::default())?;
        }
        Err(error) => return Err(error),
    }
    Ok(check.report)
}

impl Check<'_> {
    /// Looks at the format; answers whether there must be a ledger.
    fn format(&mut self) -> Result<bool, Error> {
        let place = self.dir.join("FORMAT").display().to_string();
        let advice =
            format!("write its two lines again: format={} and window_ms={}", format::FORMAT, self.window_ms);
        match format::read(self.dir) {
            Ok(Some((found, window_ms))) if window_ms == self.window_ms => {
                return Ok(found >= format::LEDGER_SINCE);
            }
            Ok(Some((_, window_ms))) => {
                self.find(&place, format!("it says that windows have {window_ms} ms"), "nothing", &advice);
            }
            Ok(None) => self.find(&place, "it is missing".to_owned(), "nothing", &advice),
            Err(error) if error.is_damage() => self.find(&place, error.to_string(), "nothing", &advice),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn ledger(&mut self, must_be: bool) -> Result<(), Error> {
        if !must_be {
            return Ok(());
        }
        let place = self.dir.join(ledger::FILE).display().to_string();
        let advice = "remove it, or leave it: it is written again when the node starts";
        let lost = "nothing by itself; but what else is missing cannot be told";
        match Ledger::read(self.dir) {
            Ok(Some(ledger)) => self.ledger = ledger,
            Ok(None) => self.find(&place, "it is missing".to_owned(), lost, advice),
            Err(error) if error.is_damage() => self.find(&place, error.to_string(), lost, advice),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn open(&self) -> Result<Rocks, Error> {
        let dir = guard::directory(self.dir);
        tricord_rocks::verify_logs(&dir)?;
        let config = StoreConfig { block_cache_bytes: CACHE_BYTES, ..StoreConfig::new(self.dir) };
        Ok(Rocks::open_read_only(&dir, &guard::options(&config, false))?)
    }

    fn find(&mut self, place: &str, what: String, lost: &str, advice: &str) {
        let (place, lost, advice) = (place.to_owned(), lost.to_owned(), advice.to_owned());
        self.add(Finding { place, what, lost, advice, ..Finding::default() });
    }

    fn add(&mut self, finding: Finding) {
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        } else {
            self.report.more_findings += 1;
        }
    }

    fn tell(&self, what: &'static str, done: u64, total: u64) {
        (self.progress)(CheckProgress { what, done, total });
    }
}
