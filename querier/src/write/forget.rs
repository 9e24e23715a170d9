//! Forgetting idle series where no write carries that along: nobody writes to their shard, or memory is short and writes
//! are refused. Without this a flood of new series would keep everybody out for ever.

use std::sync::Arc;
use std::time::Duration;

use tricord_model::Tenant;
use tricord_runtime::Shutdown;

use super::{Request, Started, WakeLog, Writer, wall_clock_ms};
use crate::replica::Hosted;

/// How often idle series are looked for; the store finds some every few seconds.
const EVERY: Duration = Duration::from_secs(2);
/// Entries of one shard at a time: each forgets a thousand series.
const MOST_TOGETHER: usize = 64;

impl Writer {
    /// Has this node's primaries forget idle series, until shutdown.
    pub(crate) async fn keep_forgetting(&self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            // At the bound of writes there is no hurry: those carry it along.
            let Ok(job) = self.admit(Tenant::own(), 0) else { continue };
            self.pool.run(move || job.forget_idle()).await;
        }
    }
}

impl Request {
    fn forget_idle(&self) {
        let _wake = WakeLog(&self.replicas.store);
        for hosted in self.replicas.all() {
            self.forget_idle_of(&hosted);
        }
    }

    fn forget_idle_of(&self, hosted: &Arc<Hosted>) {
        let epoch = hosted.peek(|machine| machine.view().epoch);
        for _ in 0..MOST_TOGETHER {
            let judge = || self.replicas.store.judge_idle(hosted.id, wall_clock_ms());
            // Where another replica leads, that one does it.
            if !matches!(self.append(hosted, epoch, judge), Ok(Started::Appended(_))) {
                return;
            }
        }
    }
}
