//! Backups of a cluster, or of a single process: `tricord cluster backup` takes a copy of every shard, `tricord cluster
//! restore` fills an empty cluster with them, `tricord check` looks at them. A backup is a directory of files with
//! checksums, and a manifest that is written last.

mod check;
mod manifest;
mod parts;
mod progress;
mod restore;
mod take;

pub(crate) use check::{is_backup, look};
pub(crate) use restore::restore;
pub(crate) use take::backup;

use std::time::Duration;

use clap::ArgMatches;
use tricord_runtime::Throttle;

/// Shards that are copied at once; each takes a few MiB of memory.
const AT_ONCE: usize = 4;
/// How often a shard is tried again while its replicas change, and after which wait.
const ATTEMPTS: usize = 20;
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Bytes in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// A backup has all tenants' data: only its owner may read it.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

fn throttle(matches: &ArgMatches) -> Throttle {
    Throttle::new(matches.get_one::<u64>("max-bytes-per-s").copied().unwrap_or(0))
}
