//! Log lines for things that may happen thousands of times a second: one in a while, with a count of the others.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one of many same events through in each interval.
#[derive(Debug)]
pub struct Seldom {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    /// At most one event per interval is let through.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Counts an event. When it is to be told, this gives how many were held back since the last one that was.
    pub fn happened(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| last.elapsed() < self.interval) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_the_next_are_counted() {
        let seldom = Seldom::every(Duration::from_secs(3600));
        assert_eq!(seldom.happened(), Some(0));
        assert_eq!((seldom.happened(), seldom.happened()), (None, None));
        let always = Seldom::every(Duration::ZERO);
        assert_eq!((always.happened(), always.happened()), (Some(0), Some(0)));
    }
}
