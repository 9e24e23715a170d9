//! The thread that keeps the store in order: seals old windows, applies retention, trims the log.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tricord_runtime::MemoryBudget;

use crate::Error;
use crate::metrics::Metrics;
use crate::storage::Store;

const EVERY: Duration = Duration::from_secs(2);

/// The running thread.
pub(crate) struct Maintenance {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Maintenance {
    pub(crate) fn start(store: Arc<Store>, memory: MemoryBudget, metrics: Metrics) -> Result<Self, Error> {
        let (stop, stopped) = channel();
        let body = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
                if let Err(error) = store.maintain(now_ms) {
                    metrics.maintenance_failures.inc();
                    tracing::error!(%error, "store maintenance failed");
                }
                memory.set_held(store.memory());
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-maintenance".to_owned())
            .spawn(body)
            .map_err(|error| Error::Io(format!("cannot start the maintenance thread: {error}")))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread after its current round.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the maintenance thread had panicked");
        }
    }
}
