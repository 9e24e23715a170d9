//! `tricord check` on the directory of a backup.

use std::path::Path;

use anyhow::{Context, Result};
use tricord_querier::{CheckReport, Finding};

use super::manifest::{FILE, Manifest};
use super::parts;
use super::progress::Progress;
use crate::table;

/// Whether a directory is one of a backup, whole or not.
pub(crate) fn is_backup(dir: &Path) -> bool {
    let is_part = |entry: std::fs::DirEntry| entry.file_name().to_str().is_some_and(parts::is_name);
    dir.join(FILE).exists()
        || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(is_part)))
}

fn left_out(dir: &Path, shard: u32) -> Finding {
    Finding {
        place: dir.display().to_string(),
        what: format!("shard {shard} is not in this backup: it was left out, as --partial allows"),
        shard: Some(shard),
        lost: format!("shard {shard} cannot be restored from here"),
        advice: "make another backup once its replicas answer; `cluster restore --partial` restores the rest of this one"
            .to_owned(),
        ..Finding::default()
    }
}

/// Reads a whole backup, and answers what is damaged, and what there was to look at, as text.
///
/// # Errors
/// Where it is not whole, or its manifest cannot be used.
pub(crate) fn look(dir: &Path) -> Result<(CheckReport, String)> {
    let manifest = Manifest::read(dir)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let progress = Progress::default();
    let reading = async {
        let mut findings: Vec<Finding> = manifest.missing.iter().map(|shard| left_out(dir, *shard)).collect();
        for copy in &manifest.copies {
            for part in &copy.files {
                if let Err(error) = parts::verify(dir, part, &progress).await {
                    findings.push(Finding {
                        place: dir.join(&part.name).display().to_string(),
                        what: format!("{error:#}"),
                        lost: format!("shard {} cannot be restored from here", copy.shard),
                        advice: "use another backup, or a copy of this file from elsewhere".to_owned(),
                        ..Finding::default()
                    });
                }
            }
            progress.add_shard();
        }
        findings
    };
    let telling = progress.tell("looked at", manifest.copies.len(), Some(manifest.bytes()), reading);
    let findings = runtime.block_on(telling);
    let looked = format!(
        "a backup of {} shards from {}, with {} files and {}",
        manifest.copies.len(),
        manifest.created,
        manifest.files().count(),
        table::bytes(manifest.bytes())
    );
    Ok((CheckReport { findings, ..CheckReport::default() }, looked))
}
