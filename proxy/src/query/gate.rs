//! How many queries run at once, and how many may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tricord_runtime::Counted;

use crate::error::Error;
use crate::metrics::Metrics;

/// Lets queries in, a bounded number at a time.
pub(crate) struct Gate {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
    metrics: Metrics,
}

/// A query's turn; ends when dropped.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _running: Counted,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(crate) fn new(running: usize, waiting: usize, metrics: Metrics) -> Self {
        let permits = Arc::new(Semaphore::new(running.max(1)));
        Self { permits, waiting: Arc::default(), max_waiting: waiting, metrics }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when too many wait already, [`Error::Timeout`] at the deadline.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<Turn, Error> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(Turn { _permit: permit, _running: Counted::new(&self.metrics.running) });
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.refused.inc();
            let message = format!(
                "{} queries wait already: come back later, or raise the proxy's max_concurrent_queries or \
                 max_queued_queries",
                self.max_waiting
            );
            return Err(Error::Overloaded { message, retry_after: Duration::from_secs(1) });
        }
        let _waiting = Waiting(&self.waiting);
        let _queued = Counted::new(&self.metrics.queued);
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, _running: Counted::new(&self.metrics.running) }),
            Ok(Err(_)) => Err(Error::Canceled("the proxy is shutting down".to_owned())),
            Err(_) => Err(Error::Timeout("query timed out in query queue".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_runs_one_waits_and_the_next_is_refused() {
        let metrics = Metrics::new(&tricord_runtime::Metrics::new());
        let gate = Arc::new(Gate::new(1, 1, metrics.clone()));
        let deadline = Instant::now() + Duration::from_secs(30);
        let first = gate.enter(deadline).await.unwrap();
        let second = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(deadline).await.map(|_| ()) }
        });
        while metrics.queued.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(gate.enter(deadline).await, Err(Error::Overloaded { .. })));
        drop(first);
        assert!(second.await.unwrap().is_ok());
        assert_eq!((metrics.queued.get(), metrics.running.get()), (0, 0));
        let _held = gate.enter(deadline).await.unwrap();
        assert!(matches!(gate.enter(Instant::now()).await, Err(Error::Timeout(_))));
    }
}
