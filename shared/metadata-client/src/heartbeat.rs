//! Heartbeats, from a thread with a runtime of its own: a process whose workers are all busy is slow, not dead.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tricord_wire::proto::metadata as pb;
use tricord_wire::{Error, ErrorKind};

use crate::identity::Identity;
use crate::members::Members;
use crate::metrics::Metrics;
use crate::{NodeAddress, ReplicaReport};

/// How long one member may take for a heartbeat; well below the lease, so that another member is asked in time.
pub(crate) const TRY_TIMEOUT: Duration = Duration::from_millis(700);
/// Until metadata says how long the lease is.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// How long a process that ends waits for its goodbye to be taken.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a node tells with each heartbeat. Stateless roles send the default.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each replica that the node holds.
    pub replicas: Vec<ReplicaReport>,
    /// Bytes used by the data directory.
    pub disk_used_bytes: u64,
    /// Bytes free on its file system.
    pub disk_free_bytes: u64,
}

/// Running heartbeats. They end when this is dropped, without a goodbye: the node counts as dead when its lease ends.
pub struct Heartbeat {
    stop: oneshot::Sender<Stop>,
    done: oneshot::Receiver<()>,
}

/// Whether to say goodbye.
struct Stop;

impl Heartbeat {
    /// Ends the heartbeats with a goodbye, so that nobody waits for the lease. Takes at most a second.
    pub async fn stop(self) {
        // Both fail only when the thread has ended already.
        let _ = self.stop.send(Stop);
        let _ = self.done.await;
    }
}

/// Everything the thread needs.
pub(crate) struct Sender {
    pub(crate) members: Option<Members>,
    pub(crate) identity: Identity,
    pub(crate) address: NodeAddress,
    pub(crate) report: Box<dyn Fn() -> Report + Send>,
    pub(crate) metrics: Metrics,
}

impl Sender {
    /// Starts the thread.
    pub(crate) fn start(self) -> Result<Heartbeat, Error> {
        let (stop, stopped) = oneshot::channel();
        let (ended, done) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::internal(format!("cannot start the heartbeat thread: {error}")))?;
        let body = move || {
            runtime.block_on(self.run(stopped));
            let _ = ended.send(());
        };
        thread::Builder::new()
            .name("heartbeat".into())
            .spawn(body)
            .map_err(|error| Error::internal(format!("cannot start the heartbeat thread: {error}")))?;
        Ok(Heartbeat { stop, done })
    }

    async fn run(self, mut stopped: oneshot::Receiver<Stop>) {
        // A fixed map has nobody to tell.
        let Some(members) = &self.members else {
            let _ = stopped.await;
            return;
        };
        let mut interval = FIRST_INTERVAL;
        let mut failing = false;
        let goodbye = loop {
            // The call's own limit keeps heartbeats coming while no member answers.
            let beat = members.call(interval * 2, |member| self.beat(member, false));
            let result = tokio::select! {
                end = &mut stopped => break end.is_ok(),
                result = beat => result,
            };
            match result {
                Ok(answer) => {
                    self.metrics.heartbeats.inc();
                    interval = Duration::from_millis((answer.lease_ms / 3).clamp(50, 10_000));
                }
                Err(ref error) => {
                    self.metrics.heartbeat_failures.inc();
                    if !failing {
                        tracing::warn!(%error, "no metadata member takes this node's heartbeats");
                    }
                }
            }
            if failing && result.is_ok() {
                tracing::info!("metadata takes this node's heartbeats again");
            }
            failing = result.is_err();
            if let Ok(end) = timeout(interval, &mut stopped).await {
                break end.is_ok();
            }
        };
        if goodbye {
            let sent = members.call(GOODBYE, |member| self.beat(member, true));
            if let Err(error) =
                timeout(GOODBYE, sent).await.unwrap_or_else(|_| Err(Error::internal("no answer")))
            {
                tracing::debug!(%error, "metadata did not take the goodbye");
            }
        }
    }

    async fn beat(
        &self,
        member: Arc<dyn tricord_wire::Metadata>,
        leaving: bool,
    ) -> Result<pb::HeartbeatResponse, Error> {
        let report = (self.report)();
        let request = pb::HeartbeatRequest {
            node: self.identity.node_id.0,
            cluster_id: self.identity.cluster_id.clone(),
            address: Some(self.address.clone()),
            replicas: report.replicas,
            disk_used_bytes: report.disk_used_bytes,
            disk_free_bytes: report.disk_free_bytes,
            leaving,
        };
        match member.heartbeat(request).await {
            // Forgotten while it was away: the same identity is let in again.
            Err(error) if error.kind == ErrorKind::NotFound && !leaving => {
                member.register(self.identity.register_request(&self.address)).await?;
                Err(Error::new(ErrorKind::Unavailable, "registered again, the next heartbeat counts"))
            }
            answer => answer,
        }
    }
}
