//! `tricord check DIR`: looks at a data directory that no process has open, or at a backup, and says what is damaged.

use std::cell::Cell;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use serde_json::json;
use tricord_querier::{CheckProgress, CheckReport, Finding};
use tricord_wire::ErrorKind;

use crate::{backup, banner, data_dir, table};

/// How often long work tells how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Something is damaged.
const DAMAGED: u8 = 1;
/// The directory could not be looked at.
const FAILED: u8 = 2;

/// Runs the command: 0 where all is well, 1 where something is damaged, 2 where the directory cannot be looked at.
pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let as_json = matches.get_flag("json");
    let Some(dir) = matches.get_one::<PathBuf>("dir") else { return ExitCode::from(FAILED) };
    let looked = match backup::is_backup(dir) {
        true => backup::look(dir),
        false => look(dir).map(|report| {
            let looked = what_was(&report);
            (report, looked)
        }),
    };
    let said = looked.and_then(|(report, looked)| {
        let text = if as_json { as_machine(dir, &report)? } else { as_text(dir, &report, &looked) };
        table::print(&text)?;
        Ok(report.findings.is_empty())
    });
    match said {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DAMAGED),
        Err(error) => {
            banner::say(&format!("tricord: {error:#}\n"));
            ExitCode::from(FAILED)
        }
    }
}

fn look(dir: &Path) -> Result<CheckReport> {
    tricord_runtime::init_logging(tricord_runtime::LogFormat::Text, "off", None)?;
    let _lock = lock(dir)?;
    let last = Cell::new(Instant::now());
    let progress = |progress: CheckProgress| {
        if last.get().elapsed() >= TELL_EVERY {
            last.set(Instant::now());
            let CheckProgress { what, done, total } = progress;
            banner::say(&format!("tricord: {done} of {total} {what} are looked at\n"));
        }
    };
    let metadata = dir.join("metadata");
    let has_metadata = metadata.is_dir();
    let mut report = match dir.join("store").is_dir() || !has_metadata {
        true => tricord_querier::check(dir, &progress)?,
        false => CheckReport::default(),
    };
    match has_metadata.then(|| tricord_metadata::check(&metadata)) {
        Some(Err(error)) if error.kind == ErrorKind::Corrupt => report.findings.push(Finding {
            place: metadata.display().to_string(),
            what: error.to_string(),
            lost: "this member's copy of the metadata: nodes and the shard map".to_owned(),
            advice: "restore the directory from a copy, or put a new member in its place with `tricord cluster replace`"
                .to_owned(),
            ..Finding::default()
        }),
        Some(Err(error)) => return Err(error.into()),
        Some(Ok(())) | None => {}
    }
    Ok(report)
}

/// Keeps processes from starting in the directory; without writing to it, so that one without a lock file is not locked.
fn lock(dir: &Path) -> Result<Option<File>> {
    if !dir.is_dir() {
        bail!("there is no directory {}", dir.display());
    }
    let file = match File::open(dir.join(data_dir::LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", dir.display())),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let holder = data_dir::holder(dir).map_or("a process".to_owned(), |id| format!("process {id}"));
            bail!("data directory {} is in use by {holder}: stop it first", dir.display());
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock data directory {}", dir.display()))
        }
    }
}

fn as_machine(dir: &Path, report: &CheckReport) -> Result<String> {
    let is_clean = report.findings.is_empty();
    let all = json!({
        "dir": dir, "clean": is_clean, "findings": report.findings,
        "more_findings": report.more_findings, "looked": report.looked,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&all)?))
}

fn what_was(report: &CheckReport) -> String {
    let looked = report.looked;
    format!(
        "{} log segments with {} entries, {} shards with {} rows, and {} windows of shards with {} series, {} samples and \
         {} spans",
        looked.log_segments,
        looked.log_entries,
        looked.shards,
        looked.rows,
        looked.windows,
        looked.series,
        looked.samples,
        looked.spans
    )
}

fn as_text(dir: &Path, report: &CheckReport, looked: &str) -> String {
    let mut text = String::new();
    for Finding { place, what, lost, advice, .. } in &report.findings {
        text.push_str(&format!("{place}\n  damaged: {what}\n  lost:    {lost}\n  to do:   {advice}\n\n"));
    }
    if report.more_findings > 0 {
        text.push_str(&format!("and {} more findings\n\n", report.more_findings));
    }
    let found = match report.findings.len() as u64 + report.more_findings {
        0 => "nothing is damaged".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    text.push_str(&format!("{}: {found}. Looked at {looked}\n", dir.display()));
    text
}
