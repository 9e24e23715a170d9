//! The threads that keep the store in order: one seals old windows, applies retention and trims the log; one merges
//! windows that are over, no faster than the settings allow; one reads the newest indexes after a start.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tricord_runtime::{MemoryBudget, Throttle};

use crate::Error;
use crate::metrics::Metrics;
use crate::storage::{self, Store};

const EVERY: Duration = Duration::from_secs(2);
/// How often merges are looked for: windows end every half an hour.
const MERGE_EVERY: Duration = Duration::from_secs(60);

/// The running threads.
pub(crate) struct Maintenance {
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Maintenance {
    pub(crate) fn start(
        store: Arc<Store>,
        memory: MemoryBudget,
        metrics: Metrics,
        merge_bytes_per_s: u64,
    ) -> Result<Self, Error> {
        let mut started = Self { stop: Vec::new(), threads: Vec::new() };
        let (kept, failures) = (Arc::clone(&store), metrics.clone());
        started.warm(Arc::clone(&store))?;
        started.spawn("store-maintenance", move |stopped| {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                if let Err(error) = kept.maintain(now_ms()) {
                    failures.maintenance_failures.inc();
                    tracing::error!(%error, "store maintenance failed");
                }
                memory.set_held(kept.memory());
            }
        })?;
        started.spawn("store-merge", move |stopped| {
            let throttle = Throttle::new(merge_bytes_per_s);
            let pace = |bytes: u64| {
                let wait = throttle.take(Instant::now(), usize::try_from(bytes).unwrap_or(usize::MAX));
                matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
            };
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(MERGE_EVERY) {
                match store.merge(now_ms(), false, &pace) {
                    Ok(report) if report.windows > 0 => {
                        tracing::info!(windows = report.windows, bytes = report.bytes, "windows are merged");
                    }
                    Ok(_) | Err(storage::Error::Cancelled) => {}
                    Err(error) => {
                        metrics.maintenance_failures.inc();
                        tracing::error!(%error, "windows could not be merged");
                    }
                }
            }
        })?;
        Ok(started)
    }

    /// Reads the newest indexes in the background, once.
    fn warm(&mut self, store: Arc<Store>) -> Result<(), Error> {
        self.spawn("store-warm", move |stopped| {
            let started = Instant::now();
            match store.warm(&|| matches!(stopped.try_recv(), Err(TryRecvError::Empty))) {
                Ok(bytes) => tracing::debug!(bytes, took = ?started.elapsed(), "the newest indexes are read"),
                Err(error) => tracing::warn!(%error, "the newest indexes could not be read"),
            }
        })
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce(&Receiver<()>) + Send + 'static) -> Result<(), Error> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || body(&stopped));
        let failed = |error| Error::Io(format!("cannot start the maintenance thread: {error}"));
        self.threads.push(thread.map_err(failed)?);
        self.stop.push(stop);
        Ok(())
    }

    /// Ends the threads: maintenance after its current round, a merge where it stands.
    pub(crate) fn stop(self) {
        drop(self.stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a maintenance thread had panicked");
            }
        }
    }
}

/// The clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
