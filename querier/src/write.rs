//! Writes: judged and appended in the shard's order, acknowledged when every in-sync replica has them.

mod forget;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tricord_model::codec::Reader;
use tricord_model::{BatchView, Deletion, Epoch, Seq, ShardId, Tenant};
use tricord_replication::{Refusal, Shard};
use tricord_runtime::{MemoryBudget, Metrics as Registry, Pool, Reservation};
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind};

use crate::Config;
use crate::metrics::Metrics;
use crate::replica::{Acknowledged, Hosted, Replicas};
use crate::storage::{self, Counts, Entry, Judged, Store};

/// What is written on the way takes about so many times the room of a batch.
const DECODED_FACTOR: u64 = 3;
/// When a caller should come back that met a bound.
const COME_BACK: Duration = Duration::from_millis(500);

/// Takes writes for the shards of this node.
pub(crate) struct Writer {
    replicas: Arc<Replicas>,
    /// Judging is computing, so as many at once as there are processors and a few.
    pool: Pool,
    in_flight: Arc<Semaphore>,
    memory: MemoryBudget,
    limit: Duration,
    metrics: Metrics,
}

/// An entry on its way to the disks.
struct Appended {
    hosted: Arc<Hosted>,
    seq: Seq,
    tenure: u64,
    counts: Counts,
}

/// What the parts of a request share on a blocking thread.
struct Request {
    replicas: Arc<Replicas>,
    tenant: Tenant,
    /// Counts against the bounds until everything of the request is durable.
    held: Arc<(OwnedSemaphorePermit, Reservation)>,
    runtime: Handle,
}

/// What became of one shard's part before it is acknowledged.
enum Started {
    Appended(Appended),
    /// There was nothing to append.
    Empty(Counts),
    Failed(Error),
}

impl Writer {
    pub(crate) fn new(
        config: &Config,
        replicas: Arc<Replicas>,
        memory: MemoryBudget,
        registry: &Registry,
        metrics: Metrics,
    ) -> Self {
        let threads = std::thread::available_parallelism().map_or(4, |n| n.get() + 2);
        Self {
            replicas,
            pool: Pool::observed("writes", threads, registry),
            in_flight: Arc::new(Semaphore::new(config.max_concurrent_writes.max(1))),
            memory,
            limit: Duration::from_millis(config.write_timeout_ms.max(1)),
            metrics,
        }
    }

    /// Writes a request's parts; each has its own outcome.
    pub(crate) async fn write(&self, request: pb::WriteRequest) -> Result<pb::WriteResponse, Error> {
        let started = Instant::now();
        self.replicas.check_meant(&request.cluster_id, 0)?;
        let tenant = Tenant::new(&request.tenant)
            .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        let bytes: u64 = request.shards.iter().map(|part| part.batch.len() as u64).sum();
        self.metrics.write_bytes.observe(bytes as f64);
        let shards: Vec<u32> = request.shards.iter().map(|part| part.shard).collect();
        let job = self.admit(tenant, bytes)?;
        let judge = move || request.shards.into_iter().map(|part| job.start(part)).collect();
        let answer = self.answer(shards, judge, started, request.timeout_ms).await;
        self.metrics.write_seconds.observe(started.elapsed().as_secs_f64());
        Ok(answer)
    }

    /// Deletes from shards; each has its own outcome.
    pub(crate) async fn delete(&self, request: pb::DeleteRequest) -> Result<pb::WriteResponse, Error> {
        let started = Instant::now();
        self.replicas.check_meant(&request.cluster_id, 0)?;
        let invalid = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Invalid, error.to_string());
        let tenant = Tenant::new(&request.tenant).map_err(|error| invalid(&error))?;
        if request.deletion.len() > Deletion::MAX_BYTES {
            return Err(invalid(&format!("a deletion takes more than {} bytes", Deletion::MAX_BYTES)));
        }
        let deletion = Deletion::decode(&mut Reader::new(&request.deletion));
        let deletion = deletion.map_err(|error| invalid(&format_args!("cannot read a deletion: {error}")))?;
        let shards: Vec<u32> = request.shards.iter().map(|of| of.shard).collect();
        let job = self.admit(tenant, request.deletion.len() as u64)?;
        let judge = move || request.shards.into_iter().map(|of| job.start_delete(of, &deletion)).collect();
        Ok(self.answer(shards, judge, started, request.timeout_ms).await)
    }

    /// Judges a request's parts, and waits until each is acknowledged.
    async fn answer(
        &self,
        shards: Vec<u32>,
        judge: impl FnOnce() -> Vec<Started> + Send + 'static,
        started: Instant,
        timeout_ms: u64,
    ) -> pb::WriteResponse {
        let asked = Duration::from_millis(timeout_ms);
        let deadline = started + if asked.is_zero() { self.limit } else { asked.min(self.limit) };
        let replicas = self.replicas.clone();
        // Once begun it goes on when the caller goes away: what the log has taken is noted all the same.
        let judge = move || {
            let _wake = WakeLog(&replicas.store);
            judge()
        };
        let parts = self.pool.run(judge).await;
        let mut results = Vec::with_capacity(parts.len());
        for (shard, part) in shards.into_iter().zip(parts) {
            let outcome = self.finish(part, deadline).await;
            results.push(self.result(shard, outcome));
        }
        pb::WriteResponse { shards: results }
    }

    fn admit(&self, tenant: Tenant, bytes: u64) -> Result<Request, Error> {
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| {
            Error::overloaded("too many writes at once on this data node: come back shortly", COME_BACK)
        })?;
        let reservation = self.memory.try_reserve(bytes.saturating_mul(DECODED_FACTOR)).ok_or_else(|| {
            Error::overloaded("this data node is at its memory bound: come back shortly", COME_BACK)
        })?;
        let held = Arc::new((permit, reservation));
        Ok(Request { replicas: self.replicas.clone(), tenant, held, runtime: Handle::current() })
    }

    /// Waits until a part is acknowledged.
    async fn finish(&self, part: Started, deadline: Instant) -> Result<Counts, Error> {
        let appended = match part {
            Started::Appended(appended) => appended,
            Started::Empty(counts) => return Ok(counts),
            Started::Failed(error) => return Err(error),
        };
        let (tenure, seq) = (appended.tenure, appended.seq);
        let mut acknowledged = appended.hosted.acknowledged.subscribe();
        let done = |now: &Acknowledged| now.tenure != tenure || now.seq >= seq;
        let shard = appended.hosted.id;
        match timeout_at(deadline, acknowledged.wait_for(done)).await {
            Ok(Ok(now)) if now.tenure == tenure => Ok(appended.counts),
            Ok(_) => {
                let text = format!("shard {shard} got another primary during the write: send it again");
                Err(Error::new(ErrorKind::NotServing, text))
            }
            Err(_) => {
                let text = format!("not every in-sync replica of shard {shard} has stored the write in time");
                Err(Error::new(ErrorKind::Timeout, text))
            }
        }
    }

    fn result(&self, shard: u32, outcome: Result<Counts, Error>) -> pb::ShardWriteResult {
        match outcome {
            Ok(counts) => {
                self.metrics.write("acknowledged");
                self.metrics.samples.inc_by(counts.samples + counts.histograms);
                self.metrics.spans.inc_by(counts.spans);
                self.metrics.reject("samples", counts.rejected_samples);
                self.metrics.reject("exemplars", counts.rejected_exemplars);
                self.metrics.reject("spans", counts.rejected_spans);
                pb::ShardWriteResult { shard, failure: None, counts: Some(counts_to_proto(counts)) }
            }
            Err(error) => {
                self.metrics.write(error.kind.as_str());
                pb::ShardWriteResult { shard, failure: Some(error.to_failure()), counts: None }
            }
        }
    }
}

/// Lets the log begin with what a request has appended, however its judging ends.
struct WakeLog<'a>(&'a Store);

impl Drop for WakeLog<'_> {
    fn drop(&mut self) {
        self.0.wake_log();
    }
}

impl Request {
    /// Judges one shard's part and appends it.
    fn start(&self, part: pb::ShardWrite) -> Started {
        self.try_start(part).unwrap_or_else(Started::Failed)
    }

    fn try_start(&self, part: pb::ShardWrite) -> Result<Started, Error> {
        let (shard, epoch) = (ShardId(part.shard), Epoch(part.epoch));
        let hosted = self.writable(shard, epoch)?;
        let batch = BatchView::read(&part.batch)
            .map_err(|error| Error::new(ErrorKind::Invalid, format!("cannot read a batch: {error}")))?;
        let store = &self.replicas.store;
        self.append(&hosted, epoch, || store.judge(shard, &self.tenant, batch, wall_clock_ms()))
    }

    /// Judges a delete for one shard and appends it, unless the shard has no such series.
    fn start_delete(&self, of: pb::ShardEpoch, deletion: &Deletion) -> Started {
        let (shard, epoch) = (ShardId(of.shard), Epoch(of.epoch));
        let start = || {
            let hosted = self.writable(shard, epoch)?;
            let store = &self.replicas.store;
            let has_any = store.reader(&[shard], &self.tenant, i64::MIN).has_any(deletion)?;
            // Another primary may have taken writes while this one looked.
            self.writable(shard, epoch)?;
            match has_any {
                true => self.append(&hosted, epoch, || store.judge_delete(shard, &self.tenant, deletion)),
                false => Ok(Started::Empty(Counts::default())),
            }
        };
        start().unwrap_or_else(Started::Failed)
    }

    /// The shard, if it takes writes here.
    fn writable(&self, shard: ShardId, epoch: Epoch) -> Result<Arc<Hosted>, Error> {
        let gone = || Error::new(ErrorKind::NotServing, format!("shard {shard} is not on this node"));
        let hosted = self.replicas.shard(shard).ok_or_else(gone)?;
        self.check_writable(&hosted, epoch)?;
        Ok(hosted)
    }

    fn check_writable(&self, hosted: &Hosted, epoch: Epoch) -> Result<(), Error> {
        let now_ms = self.replicas.now_ms();
        hosted.peek(|machine: &Shard| machine.writable(now_ms, epoch).map_err(|why| refused(hosted.id, why)))
    }

    /// Judges an entry in the shard's order and appends it.
    fn append(
        &self,
        hosted: &Arc<Hosted>,
        epoch: Epoch,
        judge: impl FnOnce() -> Result<Judged, storage::Error>,
    ) -> Result<Started, Error> {
        let replicas = &self.replicas;
        let order = hosted.order.lock();
        // Again, since the role may have changed while this thread waited; it cannot while the order is held.
        self.check_writable(hosted, epoch)?;
        let judged = judge()?;
        if judged.is_empty {
            return Ok(Started::Empty(judged.counts));
        }
        let tenure = hosted.acknowledged.borrow().tenure;
        let payload = judged.payload;
        let seq = replicas.with(hosted, |state, now_ms| {
            let place = state.machine.append(now_ms);
            let entry = Entry { shard: hosted.id, seq: place.seq, epoch: place.epoch, payload };
            state.tail.push(entry.clone());
            replicas.store.append_later(vec![entry], self.note_durable(hosted, place.seq));
            place.seq
        });
        drop(order);
        Ok(Started::Appended(Appended { hosted: Arc::clone(hosted), seq, tenure, counts: judged.counts }))
    }

    /// Tells a shard's machine that an entry is durable, whether or not the caller still waits.
    fn note_durable(
        &self,
        hosted: &Arc<Hosted>,
        seq: Seq,
    ) -> Box<dyn FnOnce(Result<(), storage::Error>) + Send> {
        let (replicas, hosted) = (self.replicas.clone(), hosted.clone());
        let (held, runtime) = (self.held.clone(), self.runtime.clone());
        Box::new(move |durable| {
            let _held = held;
            match durable {
                Ok(()) => {
                    // What the machine asks for may be a task.
                    let _runtime = runtime.enter();
                    replicas.machine(&hosted, |machine, now_ms| machine.durable(now_ms, seq));
                    hosted.progressed.notify_waiters();
                }
                // The machine may be in use by the one who appends: nothing is asked of it here.
                Err(error) => tracing::error!(shard = hosted.id.0, %error, "cannot append to the log"),
            }
        })
    }
}

/// The wall clock, in milliseconds: what a primary judges late and future samples by.
fn wall_clock_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn refused(shard: ShardId, why: Refusal) -> Error {
    let kind = match why {
        Refusal::StaleEpoch(_) => ErrorKind::StaleEpoch,
        Refusal::NotPrimary | Refusal::NotReady => ErrorKind::NotServing,
        Refusal::TooFewReplicas(..) | Refusal::LeaseLapsed | Refusal::LogFailed => ErrorKind::Unavailable,
    };
    Error { kind, message: format!("shard {shard}: {why}"), retry_after: Some(COME_BACK) }
}

fn counts_to_proto(counts: Counts) -> pb::WriteCounts {
    pb::WriteCounts {
        samples: counts.samples,
        histograms: counts.histograms,
        exemplars: counts.exemplars,
        spans: counts.spans,
        rejected_samples: counts.rejected_samples,
        rejected_exemplars: counts.rejected_exemplars,
        rejected_spans: counts.rejected_spans,
        reasons: counts.reasons,
    }
}
