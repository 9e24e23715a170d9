//! How long a thread took for something, and how much of it the thread was at work.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A clock that was started on this thread, and is read on it.
pub(super) struct Clock {
    started: Instant,
    cpu: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu() }
    }

    /// The time since the start, and the processor time of this thread in it.
    pub(super) fn read(&self) -> (Duration, Duration) {
        (self.started.elapsed(), cpu().saturating_sub(self.cpu))
    }
}

/// Processor time of this thread so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn waiting_is_not_working() {
        let clock = Clock::start();
        let (_sender, never) = std::sync::mpsc::channel::<()>();
        assert!(never.recv_timeout(Duration::from_millis(30)).is_err());
        let (took, computed) = clock.read();
        assert!(took >= Duration::from_millis(30) && computed < took / 2, "{computed:?} of {took:?}");
    }

    #[test]
    fn working_is_seen() {
        let clock = Clock::start();
        while clock.read().1 < Duration::from_millis(5) {
            black_box((0..1000_u64).sum::<u64>());
        }
        assert!(clock.read().0 >= Duration::from_millis(5));
    }
}
