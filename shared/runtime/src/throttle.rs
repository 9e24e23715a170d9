//! A bound on bytes per second, for all that share it: snapshots on their way, windows that are merged, backups.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How far work may run ahead of the rate after a pause.
const BURST: Duration = Duration::from_millis(250);

/// The bound; work asks it for leave chunk by chunk.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_s: u64,
    /// When everything taken so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    /// So many bytes per second; 0 is without bound.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, paid: Mutex::new(None) }
    }

    /// Takes room for a chunk. Tells how long to wait before it.
    pub fn take(&self, now: Instant, bytes: usize) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let mut paid = self.paid.lock();
        let from = paid.unwrap_or(now).max(now.checked_sub(BURST).unwrap_or(now));
        *paid = Some(from + cost);
        from.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_wait_for_what_went_before_them() {
        let throttle = Throttle::new(1_000);
        let start = Instant::now();
        let waits = |now| throttle.take(now, 500).as_millis();
        assert_eq!((waits(start), waits(start), waits(start)), (0, 500, 1_000));
        // A second later one of them is still owed; after a long pause only a burst is free.
        assert_eq!(waits(start + Duration::from_secs(1)), 500);
        let later = start + Duration::from_secs(60);
        assert_eq!((waits(later), waits(later)), (0, 250));
        assert_eq!(Throttle::new(0).take(start, usize::MAX), Duration::ZERO);
    }
}
