//! What the kernel tells of a process and of files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};

/// Clock ticks in a second, as `/proc` counts: the same on all of Linux' common architectures.
const TICKS: f64 = 100.0;

/// Seconds of processor that a process has used, its threads' and the kernel's for it.
///
/// # Errors
/// When it is gone.
pub(crate) fn cpu_s(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
    // The name may hold spaces, and stands in parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let used = ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) / TICKS);
    used.context("/proc/PID/stat has another form than expected")
}

/// Seconds that all processors of the machine were busy.
pub(crate) fn machine_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, irq, softirq, steal: all but idle and waiting.
    [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum::<f64>() / TICKS
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// The most that was resident at any time, files that are mapped among it.
    pub(crate) highest: u64,
    /// Resident, and not of a file.
    pub(crate) anonymous: u64,
}

/// What a process holds.
///
/// # Errors
/// When it is gone.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the server is gone")?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib =
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    };
    Ok(Memory { highest: bytes("VmHWM:"), anonymous: bytes("RssAnon:") })
}

/// Lets the highest memory of a process begin anew at what it has now.
///
/// # Errors
/// When it is gone, or another user's.
pub(crate) fn forget_highest(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the highest memory of the server")
}

/// Visits all files below a folder; a file that has gone meanwhile is passed over.
fn files(folder: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if metadata.is_dir() {
            files(&entry.path(), visit);
        } else if metadata.is_file() {
            visit(&entry.path(), &metadata);
        }
    }
}

/// Bytes of all files below a folder; one of several names counts once.
pub(crate) fn bytes_below(folder: &Path) -> u64 {
    let (mut seen, mut bytes) = (std::collections::HashSet::new(), 0);
    files(folder, &mut |_, metadata| {
        if seen.insert(metadata.ino()) {
            bytes += metadata.len();
        }
    });
    bytes
}

/// Drops what the kernel keeps in memory of all files below a folder.
pub(crate) fn forget_files(folder: &Path) {
    rustix::fs::sync();
    files(folder, &mut |path, _| {
        if let Ok(file) = fs::File::open(path) {
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    });
}
