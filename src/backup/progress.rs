//! How far a backup or a restore is, told again and again on stderr.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{banner, table};

/// How often it is told.
const EVERY: Duration = Duration::from_secs(2);

/// What is done so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    shards: AtomicU64,
}

impl Progress {
    pub(super) fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_shard(&self) {
        self.shards.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs work, and tells how far it is in the meantime; `total_bytes` where that is known.
    pub(super) async fn tell<T>(
        &self,
        what: &str,
        shards: usize,
        total_bytes: Option<u64>,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(work);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {}
            }
            let (done, bytes) = (self.shards.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
            let of = total_bytes.map(|total| format!(" of {}", table::bytes(total))).unwrap_or_default();
            let bytes = table::bytes(bytes);
            banner::say(&format!("tricord: {what} {done} of {shards} shards, {bytes}{of}\n"));
        }
    }
}
