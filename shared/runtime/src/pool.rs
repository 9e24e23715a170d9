//! Blocking work (RocksDB, files, heavy computing) off the async threads, with a bound on how much runs at once and a
//! count of what waits.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Semaphore;

use crate::counted::Counted;
use crate::metrics::Metrics;

/// A bounded pool over tokio's blocking threads. Separate kinds of work take separate pools, so that queries cannot
/// starve writes.
#[derive(Clone, Debug)]
pub struct Pool {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicI64>,
    waiting_gauge: Gauge,
    running_gauge: Gauge,
}

impl Pool {
    /// A pool that runs at most `threads` pieces of work at once.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(threads.max(1))),
            waiting: Arc::default(),
            waiting_gauge: Gauge::default(),
            running_gauge: Gauge::default(),
        }
    }

    /// A pool whose waiting and running work show as `tricord_pool_<name>_waiting` and `…_running`.
    #[must_use]
    pub fn observed(name: &str, threads: usize, metrics: &Metrics) -> Self {
        let pool = Self::new(threads);
        pool.observe(name, metrics);
        pool
    }

    fn observe(&self, name: &str, metrics: &Metrics) {
        let waiting = format!("tricord_pool_{name}_waiting");
        metrics.register(&waiting, "Pieces of blocking work that wait for a thread", || {
            self.waiting_gauge.clone()
        });
        let running = format!("tricord_pool_{name}_running");
        metrics.register(&running, "Pieces of blocking work that run", || self.running_gauge.clone());
    }

    /// How many pieces of work wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        usize::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Runs work on a blocking thread and waits for it. A caller that goes away does not stop work that has begun. A
    /// panic of the work becomes a panic of the caller.
    pub async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let permit = {
            let _waiting = Counted::new(&self.waiting_gauge);
            let _count = Waiting::new(&self.waiting);
            self.permits.clone().acquire_owned().await
        };
        let running = self.running_gauge.clone();
        let span = tracing::Span::current();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let _running = Counted::new(&running);
            span.in_scope(work)
        });
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being torn down: there is nobody left to answer.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

struct Waiting<'a>(&'a AtomicI64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The process' common pool, for short pieces of work.
fn common() -> &'static Pool {
    static COMMON: OnceLock<Pool> = OnceLock::new();
    COMMON.get_or_init(|| Pool::new(std::thread::available_parallelism().map_or(4, |n| n.get() * 4).max(8)))
}

/// Runs short blocking work on the process' common pool and waits for it; see [`Pool::run`].
pub async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    common().run(work).await
}

/// Runs work on the common pool where it is heavy, and right here where handing it over would take longer than doing it.
pub async fn blocking_when<R: Send + 'static>(
    is_heavy: bool,
    work: impl FnOnce() -> R + Send + 'static,
) -> R {
    if is_heavy { blocking(work).await } else { work() }
}

/// Shows the common pool in a registry.
pub(crate) fn observe_blocking_pool(metrics: &Metrics) {
    common().observe("blocking", metrics);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_no_more_than_its_bound_at_once() {
        let pool = Pool::new(2);
        let (now, most) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let tasks = (0..16).map(|i| {
            let (pool, now, most) = (pool.clone(), now.clone(), most.clone());
            tokio::spawn(async move {
                pool.run(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    i
                })
                .await
            })
        });
        let results = futures::future::join_all(tasks.collect::<Vec<_>>()).await;
        assert_eq!(results.into_iter().map(Result::unwrap).sum::<i32>(), 120);
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(pool.waiting(), 0);
    }
}
