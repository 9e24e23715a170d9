//! When a process that ended is started again: soon, and less and less often while it keeps ending.

use std::time::{Duration, Instant};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A process that has run for so long is well again.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// The restarts of one process.
#[derive(Debug)]
pub(super) struct Restart {
    started: Instant,
    wait: Duration,
    due: Option<Instant>,
}

impl Restart {
    /// The process starts for the first time.
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, wait: FIRST_WAIT, due: None }
    }

    /// It has ended. Tells when it is to start again.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.started) >= WELL_AFTER {
            self.wait = FIRST_WAIT;
        }
        let wait = self.wait;
        self.due = Some(now + wait);
        self.wait = (wait * 2).min(LONGEST_WAIT);
        wait
    }

    /// Whether it is to start now; it is then taken as started.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.due = None;
            self.started = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_until_the_process_has_run_for_a_while() {
        let start = Instant::now();
        let mut restart = Restart::new(start);
        let mut waits = Vec::new();
        for second in 0..8 {
            let now = start + Duration::from_secs(second * 31);
            waits.push(restart.ended(now).as_millis());
            assert!(!restart.is_due(now));
            assert!(restart.is_due(now + LONGEST_WAIT));
            assert!(!restart.is_due(now + LONGEST_WAIT), "once");
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(restart.ended(start + Duration::from_secs(600)), FIRST_WAIT);
    }
}
