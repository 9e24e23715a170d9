//! All shards of this node: it applies the shard map, and drives the machines of `tricord_replication` over the store
//! and the network. What a write or a query means is left to the service.

mod backup;
mod beacon;
mod chunks;
mod configure;
mod floor;
mod hosted;
mod propose;
mod receive;
mod renew;
mod restore;
mod send;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tricord_metadata_client::Cluster;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{Action, Answers, Links, RoleName, Shard, Timing};
use tricord_runtime::{Seldom, Shutdown, Throttle};
use tricord_wire::{Error, ErrorKind};

pub(crate) use hosted::{Acknowledged, Hosted};

use crate::metrics::Metrics;
use crate::storage::{self, Store};
use floor::Floor;
use hosted::State;
use send::Peer;

/// The shards of this node.
pub(crate) struct Replicas {
    pub(crate) node: NodeId,
    pub(crate) cluster_id: String,
    pub(crate) store: Arc<Store>,
    cluster: Cluster,
    floor: Floor,
    timing: Timing,
    metrics: Metrics,
    origin: Instant,
    /// Random number of this process; see `tricord_replication::Pulse`.
    session: u64,
    shards: RwLock<BTreeMap<ShardId, Arc<Hosted>>>,
    peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
    answers: Mutex<HashMap<NodeId, Answers>>,
    links: Mutex<Links>,
    snapshots: tokio::sync::Semaphore,
    backups: Arc<tokio::sync::Semaphore>,
    /// Taken before a shard's turn by whoever puts a snapshot in place.
    fills: tokio::sync::Semaphore,
    throttle: Throttle,
    told_unanswered: Seldom,
    /// Whether the machines know that the log has failed.
    log_failed: AtomicBool,
    /// Releases that are on their way.
    releasing: AtomicUsize,
    /// Whether the node stops, and leaves all its shards.
    stopping: AtomicBool,
    shutdown: Shutdown,
}

/// What a set of replicas is made of.
pub(crate) struct Parts {
    pub(crate) node: NodeId,
    pub(crate) cluster_id: String,
    pub(crate) store: Arc<Store>,
    pub(crate) cluster: Cluster,
    /// Where the node keeps its identity.
    pub(crate) dir: PathBuf,
    pub(crate) timing: Timing,
    pub(crate) snapshot_bytes_per_s: u64,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
}

/// Snapshots sent at once to joiners, and as many for backups: each reads a shard's whole state.
const MAX_SNAPSHOTS: usize = 2;
/// Snapshots put in place at once: each keeps windows from being written out for as long as its sender takes, so that more
/// would only wait for one another, each with a thread.
const MAX_FILLS: usize = 1;
/// How long a node that stops waits for others to lead its shards; metadata may be away.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
const HAND_OVER_POLL: Duration = Duration::from_millis(10);

impl Replicas {
    /// Takes over the shards that the store has, and begins to follow the shard map. Within a tokio runtime.
    pub(crate) fn start(parts: Parts) -> Arc<Self> {
        let replicas = Arc::new(Self {
            node: parts.node,
            cluster_id: parts.cluster_id,
            store: parts.store,
            cluster: parts.cluster,
            floor: Floor::open(&parts.dir),
            timing: parts.timing,
            metrics: parts.metrics,
            origin: Instant::now(),
            session: rand::random(),
            shards: RwLock::default(),
            peers: Mutex::default(),
            answers: Mutex::default(),
            links: Mutex::new(Links::new(parts.timing.follower_timeout_ms)),
            snapshots: tokio::sync::Semaphore::new(MAX_SNAPSHOTS),
            backups: Arc::new(tokio::sync::Semaphore::new(MAX_SNAPSHOTS)),
            fills: tokio::sync::Semaphore::new(MAX_FILLS),
            throttle: Throttle::new(parts.snapshot_bytes_per_s),
            told_unanswered: Seldom::every(Duration::from_secs(10)),
            log_failed: AtomicBool::new(false),
            releasing: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            shutdown: parts.shutdown,
        });
        for shard in replicas.store.shards() {
            replicas.host(shard);
        }
        tokio::spawn(replicas.clone().follow_map());
        tokio::spawn(replicas.clone().drive());
        tokio::spawn(replicas.clone().renew_damaged());
        replicas
    }

    /// Milliseconds of this process' monotonic clock. It starts late enough that an age can be taken off it.
    pub(crate) fn now_ms(&self) -> u64 {
        3_600_000 + u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<Arc<Hosted>> {
        self.shards.read().get(&shard).cloned()
    }

    /// Whether this is the shard's machine still, and not one whose data was let go.
    fn is_hosted(&self, hosted: &Arc<Hosted>) -> bool {
        self.shard(hosted.id).is_some_and(|current| Arc::ptr_eq(&current, hosted))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Hosted>> {
        self.shards.read().values().cloned().collect()
    }

    /// Runs `work` on a shard's machine and does what it asks for.
    pub(crate) fn with<R>(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        work: impl FnOnce(&mut State, u64) -> R,
    ) -> R {
        let now_ms = self.now_ms();
        let (result, actions) = hosted.with(&self.store, |state| work(state, now_ms));
        for action in actions {
            self.act(hosted, action);
        }
        result
    }

    /// As [`Replicas::with`], for work on the machine alone.
    pub(crate) fn machine<R>(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        work: impl FnOnce(&mut Shard, u64) -> R,
    ) -> R {
        self.with(hosted, |state, now_ms| work(&mut state.machine, now_ms))
    }

    fn act(self: &Arc<Self>, hosted: &Arc<Hosted>, action: Action) {
        match action {
            Action::Send(peer) => self.peer(peer).wake(),
            Action::Snapshot(peer) => {
                tokio::spawn(self.clone().send_snapshot(hosted.clone(), peer));
            }
            Action::Propose(wish) => {
                tokio::spawn(self.clone().propose(hosted.clone(), wish));
            }
            Action::Release(peer, epoch) => {
                self.releasing.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(self.clone().send_release(self.peer(peer), hosted.id, epoch));
            }
            // The map is watched: the newer one is on its way.
            Action::Refresh => {
                self.metrics.stale_epochs.inc();
            }
            Action::Commit(_) | Action::Acknowledge(_) | Action::SteppedDown => {}
        }
    }

    /// Refuses requests that were meant for another cluster or another node: a second cluster is never mixed in by
    /// accident, nor an old address believed.
    pub(crate) fn check_meant(&self, cluster_id: &str, to_node: u64) -> Result<(), Error> {
        if cluster_id != self.cluster_id {
            let text = format!("this node belongs to cluster {}, not {cluster_id}", self.cluster_id);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if to_node != 0 && to_node != self.node.0 {
            let text = format!("this is node {}, not {to_node}", self.node);
            return Err(Error::new(ErrorKind::NotServing, text));
        }
        Ok(())
    }

    /// The shard, if it may answer a query that was planned under `epoch` now.
    pub(crate) fn readable(&self, shard: ShardId, epoch: Epoch) -> Result<(), Error> {
        let hosted = self.shard(shard).ok_or_else(|| not_here(shard))?;
        let now_ms = self.now_ms();
        let (known, may_read) = hosted.peek(|machine| (machine.stored_epoch(), machine.may_read(now_ms)));
        if known != epoch {
            let text = format!("shard {shard} is under epoch {known} here, not {epoch}");
            return Err(Error::new(ErrorKind::StaleEpoch, text));
        }
        if !may_read {
            let text = format!("node {} may not answer for shard {shard} at the moment", self.node);
            return Err(Error::new(ErrorKind::NotServing, text));
        }
        Ok(())
    }

    /// Lets the other replicas go on without this node, as far as that is possible in time: they lead the shards that it
    /// leads, and do not wait for it to store entries.
    pub(crate) async fn hand_over(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Release);
        let all = self.all();
        let led = |hosted: &&Arc<Hosted>| hosted.peek(Shard::is_resigning);
        for hosted in &all {
            self.machine(hosted, |machine, _| machine.resign());
        }
        let shards = all.iter().filter(led).count();
        let done = async {
            while all.iter().any(|hosted| led(&hosted)) || self.releasing.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(HAND_OVER_POLL).await;
            }
        };
        if tokio::time::timeout(HAND_OVER_LIMIT, done).await.is_err() {
            let left = all.iter().filter(led).count();
            tracing::warn!(
                shards = left,
                "others cannot go on without this node in time: writes to these shards wait"
            );
        } else if shards > 0 {
            tracing::info!(shards, "others go on with this node's shards");
        }
    }

    /// Before the store forgets a shard, with the epoch that was stored for it: only newer maps may make it again.
    /// Blocks for the disk.
    fn forget_after(&self, version: u64) -> Result<(), storage::Error> {
        self.floor.raise(version.max(self.cluster.map().version))
    }

    /// Tells the store what of its log the replicas lack that follow this node.
    pub(crate) fn hold_log(&self) {
        let now_ms = self.now_ms();
        for hosted in self.all() {
            let lacking = hosted.peek(|machine| {
                let (view, last) = (machine.view(), machine.status(now_ms).last.0);
                let lags = view.in_sync.iter().chain(&view.joining).filter_map(|peer| machine.lag(*peer));
                lags.filter(|lag| *lag > 0).max().map(|lag| Seq(last.saturating_sub(lag)))
            });
            // What lies before the log's begin takes a snapshot anyway.
            let in_log = |after: &Seq| self.store.epoch_at(hosted.id, *after).is_some();
            self.store.hold(hosted.id, lacking.filter(in_log));
        }
    }

    /// Whether the node answers for what the map gives it; else what it waits for.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if let Some(failure) = self.store.log_failure() {
            return Err(format!("the log failed, restart this data node once its disk is well: {failure}"));
        }
        let map = self.cluster.map();
        if map.version == 0 {
            return Err("no shard map from metadata yet".to_owned());
        }
        let mine = map.shards.iter().filter(|config| config.holds(self.node));
        let waiting = mine.filter(|config| self.waits(config.shard)).count();
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} shards are not in sync yet")) }
    }

    fn waits(&self, shard: ShardId) -> bool {
        let now_ms = self.now_ms();
        let role = self.shard(shard).map(|hosted| hosted.peek(|machine| machine.status(now_ms).role));
        !matches!(role, Some(RoleName::Primary | RoleName::Follower))
    }
}

fn not_here(shard: ShardId) -> Error {
    Error::new(ErrorKind::NotServing, format!("shard {shard} is not on this node"))
}
