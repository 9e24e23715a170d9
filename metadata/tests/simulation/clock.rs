//! A node's monotonic clock: it runs a little fast or slow, leaps or stands still for a moment, and never goes back.

/// Where every clock stands when its process starts.
const START_MS: u64 = 3_600_000;

/// One clock.
pub(crate) struct Clock {
    /// It showed `base_ms` at `origin_ms` of the true time.
    base_ms: u64,
    origin_ms: u64,
    permille: u64,
}

impl Clock {
    /// A clock that starts at the true time `now_ms` and runs at so many thousandths of the true speed.
    pub(crate) fn new(now_ms: u64, permille: u64) -> Self {
        Self { base_ms: START_MS, origin_ms: now_ms, permille }
    }

    /// What it shows at a true time.
    pub(crate) fn at(&self, now_ms: u64) -> u64 {
        self.base_ms + now_ms.saturating_sub(self.origin_ms) * self.permille / 1000
    }

    /// It leaps ahead.
    pub(crate) fn leap(&mut self, now_ms: u64, by_ms: u64) {
        self.base_ms = self.at(now_ms) + by_ms;
        self.origin_ms = now_ms;
    }

    /// It stands still for a while.
    pub(crate) fn stall(&mut self, now_ms: u64, for_ms: u64) {
        self.base_ms = self.at(now_ms);
        self.origin_ms = now_ms + for_ms;
    }
}
