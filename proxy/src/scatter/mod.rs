//! Runs a fragment on one in-sync replica per shard and collects the partials: choice of replicas, retries on other
//! ones, deadlines and bounds. What the partials mean is for `merge`.
//!
//! Dropping the future cancels what is in flight.

mod assign;
mod call;
mod hedge;
mod missing;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tricord_fragment::{Fragment, FragmentStats, Partial};
use tricord_metadata_client::Cluster;
use tricord_model::{Epoch, NodeId, ShardId, Tenant};
use tricord_runtime::Seldom;
use tricord_wire::ErrorKind as WireKind;

use crate::error::Error;
use crate::metrics::Metrics;

pub use assign::Spread;
pub use missing::MissingShard;

/// Which shards a fragment runs over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shards {
    /// All of them.
    All,
    /// Those that hold what is asked for.
    Only(Vec<ShardId>),
}

/// A fragment to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Whose data.
    pub tenant: Tenant,
    /// Where.
    pub shards: Shards,
    /// What.
    pub fragment: Fragment,
    /// How it is spread over replicas.
    pub spread: Spread,
    /// When the asker gives up.
    pub deadline: Instant,
}

/// What one node did for a fragment.
#[derive(Clone, Debug)]
pub struct CallReport {
    /// The node.
    pub node: NodeId,
    /// The shards it answered for.
    pub shards: Vec<ShardId>,
    /// What it says it has cost.
    pub stats: FragmentStats,
    /// Time from request to last byte, in microseconds.
    pub micros: u64,
    /// Size of the encoded partial, in bytes.
    pub bytes: u64,
}

/// The answers to a fragment.
#[derive(Clone, Debug, Default)]
pub struct Scattered {
    /// One per node that was asked, in no order that means anything.
    pub partials: Vec<Partial>,
    /// Shards for which no live replica answered, or none with undamaged data.
    pub missing: Vec<MissingShard>,
    /// Who did what.
    pub calls: Vec<CallReport>,
}

/// Bounds of scattering.
#[derive(Clone, Copy, Debug)]
pub struct ScatterConfig {
    /// Requests to data nodes in flight, over all queries.
    pub max_in_flight: usize,
    /// How long to look for a live replica before a shard counts as missing.
    pub retry_for: Duration,
    /// How long a node may take at most before another replica is asked too: that is sooner where nearly all calls are
    /// answered sooner. `None` never asks twice.
    pub hedge_after: Option<Duration>,
}

impl Default for ScatterConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            retry_for: Duration::from_secs(2),
            hedge_after: Some(Duration::from_secs(2)),
        }
    }
}

/// The waits between rounds in which nobody could answer for a shard.
const FIRST_WAIT: Duration = Duration::from_millis(25);
const MAX_WAIT: Duration = Duration::from_millis(400);
/// How often the log says that answers are partial.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Sends fragments to data nodes.
pub struct Scatter {
    cluster: Cluster,
    permits: Arc<Semaphore>,
    config: ScatterConfig,
    metrics: Metrics,
    turn: AtomicU64,
    hedges: hedge::Allowance,
    recent: hedge::Recent,
    told_missing: Seldom,
}

/// What is still to be answered.
struct Progress {
    waiting: Vec<ShardId>,
    tried: HashSet<(ShardId, NodeId)>,
    /// After a batch was refused for one of its shards, each is asked for alone.
    alone: bool,
    /// Shards that a replica could not answer for since its data is damaged.
    damaged: HashSet<ShardId>,
    /// The latest reason why a shard was not answered.
    last_error: Option<tricord_wire::Error>,
    wait: Duration,
}

impl Progress {
    /// Whether every replica was asked, and what is left failed in a way that waiting does not heal.
    fn is_hopeless(&self) -> bool {
        let is_broken = self.last_error.as_ref().is_some_and(|error| error.kind == WireKind::Internal);
        is_broken || self.waiting.iter().all(|shard| self.damaged.contains(shard))
    }
}

impl Scatter {
    /// A scatterer over a cluster.
    #[must_use]
    pub fn new(cluster: Cluster, config: ScatterConfig, metrics: Metrics) -> Self {
        let permits = Arc::new(Semaphore::new(config.max_in_flight));
        Self {
            cluster,
            permits,
            config,
            metrics,
            turn: AtomicU64::new(0),
            hedges: hedge::Allowance::default(),
            recent: hedge::Recent::default(),
            told_missing: Seldom::every(TELL_EVERY),
        }
    }

    /// The cluster it asks.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs a fragment and collects its partials.
    ///
    /// # Errors
    /// [`Error::Unavailable`] before the cluster has shards, [`Error::Timeout`] at the deadline, and what data nodes
    /// answer where another replica would answer the same. A shard without a live replica is no error: it is named in
    /// [`Scattered::missing`].
    pub async fn run(&self, job: &Job) -> Result<Scattered, Error> {
        let run = self.run_to_end(job);
        let left = job.deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, run).await {
            Ok(result) => result,
            Err(_) => Err(timed_out()),
        }
    }

    async fn run_to_end(&self, job: &Job) -> Result<Scattered, Error> {
        let waiting = self.shards(&job.shards).await?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let encoded: bytes::Bytes = job.fragment.encode()?.into();
        let give_up = Instant::now() + self.config.retry_for;
        let (tried, damaged, wait) = (HashSet::new(), HashSet::new(), FIRST_WAIT);
        let mut progress = Progress { waiting, tried, alone: false, damaged, last_error: None, wait };
        let mut done = Scattered::default();
        let mut in_flight = FuturesUnordered::new();
        loop {
            let map = self.cluster.map();
            let waiting = std::mem::take(&mut progress.waiting);
            let local = |node| self.cluster.is_local(node);
            let assigned = assign::assign(&map, &waiting, &progress.tried, &local, job.spread, turn);
            for (node, shards) in assigned.by_node {
                for shards in batches(shards, progress.alone) {
                    in_flight.push(self.ask(job, map.clone(), node, shards, encoded.clone()));
                }
            }
            progress.waiting = assigned.nobody;
            match in_flight.next().await {
                Some(Ok(answers)) => {
                    for (partial, report) in answers {
                        done.partials.push(partial);
                        done.calls.push(report);
                    }
                }
                Some(Err(refused)) => self.refused(refused, &mut progress)?,
                None if progress.waiting.is_empty() => break,
                None if Instant::now() >= give_up || progress.is_hopeless() => {
                    done.missing = missing(progress)?;
                    break;
                }
                None => {
                    let _ = self.cluster.newer_than(map.version, progress.wait).await;
                    progress.wait = (progress.wait * 2).min(MAX_WAIT);
                    progress.tried.clear();
                }
            }
        }
        self.metrics.missing_shards.inc_by(done.missing.len() as u64);
        if !done.missing.is_empty()
            && let Some(others) = self.told_missing.happened()
        {
            let shards = crate::api::shard_numbers(&MissingShard::numbers(&done.missing));
            tracing::warn!(shards, others, "answers lack shards that have no live replica, or are damaged");
        }
        Ok(done)
    }

    /// The shards to ask, once the cluster has any.
    async fn shards(&self, wanted: &Shards) -> Result<Vec<ShardId>, Error> {
        let mut map = self.cluster.map();
        if map.shards.is_empty()
            && let Ok(newer) = self.cluster.newer_than(map.version, self.config.retry_for).await
        {
            map = newer;
        }
        if map.shards.is_empty() {
            let text = "the cluster has no shards yet: it was not initialized, or metadata cannot be reached";
            return Err(Error::Unavailable(text.to_owned()));
        }
        Ok(match wanted {
            Shards::All => map.shards.iter().map(|config| config.shard).collect(),
            Shards::Only(shards) => shards.clone(),
        })
    }

    fn refused(&self, refused: call::Refused, progress: &mut Progress) -> Result<(), Error> {
        let elsewhere = match refused.error.kind {
            WireKind::StaleEpoch | WireKind::NotServing => {
                progress.alone |= refused.shards.len() > 1 && !progress.tried.is_empty();
                true
            }
            // One of them is damaged: which one shows when each is asked for alone.
            WireKind::Corrupt if refused.shards.len() > 1 => {
                progress.alone = true;
                progress.waiting.extend(refused.shards);
                return Ok(());
            }
            WireKind::Corrupt => {
                tracing::warn!(node = refused.node.0, error = %refused.error, "a data node met damage");
                progress.damaged.extend(&refused.shards);
                true
            }
            // NotFound: the node has left the map since.
            WireKind::Unavailable | WireKind::NotFound | WireKind::Overloaded => true,
            // A machine may be broken; a bug would be everywhere.
            WireKind::Internal => {
                !refused.shards.iter().any(|shard| progress.tried.iter().any(|(s, _)| s == shard))
            }
            // The node's deadline is the query's own.
            WireKind::Timeout => return Err(timed_out()),
            _ => false,
        };
        if !elsewhere {
            return Err(refused.error.into());
        }
        self.metrics.retries.inc();
        tracing::debug!(node = refused.node.0, error = %refused.error, "a data node refused a fragment");
        progress.tried.extend(refused.shards.iter().map(|shard| (*shard, refused.node)));
        progress.waiting.extend(refused.shards);
        progress.last_error = Some(refused.error);
        Ok(())
    }
}

/// The error at a query's deadline.
pub(crate) fn timed_out() -> Error {
    let text = "query timed out in query execution: ask for less, or raise the request's timeout and the proxy's \
                query_timeout";
    Error::Timeout(text.to_owned())
}

/// One request per node, or one per shard.
fn batches(shards: Vec<(ShardId, Epoch)>, alone: bool) -> Vec<Vec<(ShardId, Epoch)>> {
    if alone { shards.into_iter().map(|shard| vec![shard]).collect() } else { vec![shards] }
}

/// The shards that nobody answered for; a node that is alive and fails is an error rather than a missing shard.
fn missing(progress: Progress) -> Result<Vec<MissingShard>, Error> {
    match progress.last_error {
        Some(error) if matches!(error.kind, WireKind::Overloaded | WireKind::Internal) => Err(error.into()),
        _ => Ok(MissingShard::of(progress.waiting, &progress.damaged)),
    }
}
