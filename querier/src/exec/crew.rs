//! The threads that work off one task: one begins, and calls others only where the work is worth waking them. The last
//! one out puts the answer together, so that nobody is woken for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tricord_runtime::{Metrics, Pool};
use tricord_wire::ErrorKind;

use super::task::Help;
use super::{Error, Task};

/// What the last one out does.
type Finish = Box<dyn FnOnce(&Task) -> Result<Bytes, Error> + Send>;
/// Whom the answer goes to.
type Asker = oneshot::Sender<Result<Bytes, Error>>;

/// Where fragments run.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    /// Threads that compute, and so are not many more than processors.
    pub(crate) computing: Pool,
    /// Further threads for fragments that wait for the disk.
    pub(crate) reading: Pool,
    /// How many threads are enough for one fragment that computes; for one that waits for the disk [`WAITING`] times as
    /// many.
    pub(crate) each: usize,
}

impl Threads {
    /// Threads for so many fragments at once.
    pub(crate) fn new(fragments: usize, metrics: &Metrics) -> Self {
        let fragments = fragments.max(1);
        Self {
            computing: Pool::observed("queries", fragments, metrics),
            reading: Pool::observed(
                "query_reads",
                fragments.saturating_mul(WAITING).min(MAX_READING),
                metrics,
            ),
            each: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The threads at a task.
struct Crew {
    task: Task,
    threads: Threads,
    /// How many there are, or have been called.
    called: AtomicUsize,
    working: AtomicUsize,
    failed: Mutex<Option<Error>>,
    end: Mutex<Option<(Finish, Asker)>>,
    cancelled: Counter,
}

/// So many threads wait for the disk together where one would compute: disks, and most of all those behind a network,
/// serve many reads in the time of one.
const WAITING: usize = 8;
/// Readers at most, however many processors there are: writes need some of the process' blocking threads too.
const MAX_READING: usize = 128;

/// Works a task off on as many threads as it is worth, and answers what `finish` makes of it. `cancelled` counts tasks
/// that ended since their flag was set.
///
/// # Errors
/// Those of [`Task::work`] and of `finish`.
pub(crate) async fn work_off(
    task: Task,
    threads: &Threads,
    cancelled: Counter,
    finish: impl FnOnce(&Task) -> Result<Bytes, Error> + Send + 'static,
) -> Result<Bytes, Error> {
    let (sender, receiver) = oneshot::channel();
    let crew = Arc::new(Crew {
        task,
        threads: threads.clone(),
        called: AtomicUsize::new(1),
        working: AtomicUsize::new(1),
        failed: Mutex::default(),
        end: Mutex::new(Some((Box::new(finish), sender))),
        cancelled,
    });
    threads.computing.run(move || Member(crew).work()).await;
    receiver
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a fragment ended without an answer")))
}

/// One thread at the task; whatever becomes of it, it leaves.
struct Member(Arc<Crew>);

impl Member {
    fn work(self) {
        let crew = &self.0;
        if let Err(error) = crew.task.work(&|help| crew.call_helpers(help)) {
            crew.failed.lock().get_or_insert(error);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = Error::new(ErrorKind::Internal, "a thread of the fragment panicked: this is a bug");
            self.0.failed.lock().get_or_insert(error);
        }
        if self.0.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.end();
        }
    }
}

impl Crew {
    fn call_helpers(self: &Arc<Self>, help: Help) {
        let Threads { computing, reading, each } = &self.threads;
        let (wanted, pool) = match help {
            Help::ToCompute => (*each, computing),
            Help::ToWait => (each.saturating_mul(WAITING), reading),
        };
        let wanted = wanted.min(self.task.width());
        for _ in self.called.fetch_max(wanted, Ordering::Relaxed)..wanted {
            let (crew, pool) = (Arc::clone(self), pool.clone());
            tokio::spawn(async move {
                pool.run(move || {
                    if let Some(member) = crew.join() {
                        member.work()
                    }
                })
                .await;
            });
        }
    }

    /// A further member, unless all have left by now.
    fn join(self: Arc<Self>) -> Option<Member> {
        let more = |working: usize| (working > 0).then_some(working + 1);
        let joined = self.working.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        joined.is_ok().then(|| Member(self))
    }

    fn end(&self) {
        let Some((finish, sender)) = self.end.lock().take() else { return };
        let result = match self.failed.lock().take() {
            None => finish(&self.task),
            Some(error) => {
                // Counted here: the caller, who would count the outcome, may be gone.
                self.cancelled.inc_by(u64::from(error.kind == ErrorKind::Cancelled));
                Err(error)
            }
        };
        // Whoever asked may have gone away.
        let _ = sender.send(result);
    }
}
