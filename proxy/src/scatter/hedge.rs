//! A request to one node that does not depend on that node alone: another replica is asked when it is slow, and it is
//! given up when the map says that it no longer counts.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use tricord_fragment::Partial;
use tricord_model::{Epoch, NodeId, ShardId};
use tricord_routing::ShardMap;
use tricord_wire::{Error as WireError, ErrorKind as WireKind};

use super::call::Refused;
use super::{CallReport, Job, Scatter, assign};

/// How many calls pay for one hedge: when everything is slow, asking twice would only make it slower.
const CALLS_PER_HEDGE: i64 = 10;
/// How many hedges can be saved up.
const MAX_SAVED: i64 = 32;

/// What may be spent on hedges.
pub(super) struct Allowance(AtomicI64);

impl Default for Allowance {
    fn default() -> Self {
        Self(AtomicI64::new(MAX_SAVED * CALLS_PER_HEDGE))
    }
}

impl Allowance {
    fn earn(&self) {
        if self.0.load(Ordering::Relaxed) < MAX_SAVED * CALLS_PER_HEDGE {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn spend(&self) -> bool {
        if self.0.fetch_sub(CALLS_PER_HEDGE, Ordering::Relaxed) >= CALLS_PER_HEDGE {
            return true;
        }
        self.0.fetch_add(CALLS_PER_HEDGE, Ordering::Relaxed);
        false
    }
}

/// Answers that are remembered.
const RECENT: usize = 128;
/// So many are enough to judge by.
const ENOUGH: usize = 32;
/// No answer is so late before this that asking twice would pay.
const SOONEST: Duration = Duration::from_millis(20);

/// How long the latest calls took.
#[derive(Default)]
pub(super) struct Recent {
    taken: Mutex<VecDeque<Duration>>,
    /// What all but one in twenty of them took at most, in microseconds; 0 while too few are known.
    p95_us: AtomicU64,
}

impl Recent {
    /// Notes a call that was answered.
    pub(super) fn note(&self, took: Duration) {
        let mut taken = self.taken.lock();
        if taken.len() == RECENT {
            taken.pop_front();
        }
        taken.push_back(took);
        if taken.len() < ENOUGH {
            return;
        }
        let mut sorted: Vec<Duration> = taken.iter().copied().collect();
        drop(taken);
        let at = (sorted.len() * 95 / 100).min(sorted.len() - 1);
        let (_, p95, _) = sorted.select_nth_unstable(at);
        self.p95_us.store(u64::try_from(p95.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// After how long another replica is asked too: at the latest after `most`, and sooner where that is late already,
    /// going by the calls before.
    fn late_after(&self, most: Duration) -> Duration {
        match self.p95_us.load(Ordering::Relaxed) {
            0 => most,
            us => Duration::from_micros(us).max(SOONEST).min(most),
        }
    }
}

impl Scatter {
    /// Asks a node for some shards; the answers are its own, or those of other replicas for all of these shards.
    pub(super) async fn ask(
        &self,
        job: &Job,
        map: Arc<ShardMap>,
        node: NodeId,
        shards: Vec<(ShardId, Epoch)>,
        fragment: Bytes,
    ) -> Result<Vec<(Partial, CallReport)>, Refused> {
        self.hedges.earn();
        let mut first = pin!(self.call(job, map.cluster_id.clone(), node, shards.clone(), fragment.clone()));
        let mut gone = pin!(self.gone(node, &shards, job.deadline));
        let slow = async {
            match self.config.hedge_after {
                Some(most) => tokio::time::sleep(self.recent.late_after(most)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = &mut first => return answer.map(|answer| vec![answer]),
            () = &mut gone => return Err(refused(node, &shards)),
            () = slow => {}
        }
        let mut second = pin!(self.elsewhere(job, &map, node, &shards, fragment));
        tokio::select! {
            biased;
            answer = &mut first => return answer.map(|answer| vec![answer]),
            () = &mut gone => return Err(refused(node, &shards)),
            answers = &mut second => if let Some(answers) = answers {
                return Ok(answers);
            }
        }
        tokio::select! {
            biased;
            answer = first => answer.map(|answer| vec![answer]),
            () = gone => Err(refused(node, &shards)),
        }
    }

    /// Asks other replicas for the same shards; nothing where that is not affordable or one of them fails.
    async fn elsewhere(
        &self,
        job: &Job,
        map: &ShardMap,
        node: NodeId,
        shards: &[(ShardId, Epoch)],
        fragment: Bytes,
    ) -> Option<Vec<(Partial, CallReport)>> {
        let tried: HashSet<(ShardId, NodeId)> = shards.iter().map(|(shard, _)| (*shard, node)).collect();
        let ids: Vec<ShardId> = shards.iter().map(|(shard, _)| *shard).collect();
        let local = |node| self.cluster.is_local(node);
        let assigned = assign::assign(map, &ids, &tried, &local, job.spread, 0);
        if !assigned.nobody.is_empty() || !self.hedges.spend() {
            return None;
        }
        self.metrics.hedges.inc();
        let calls = assigned
            .by_node
            .into_iter()
            .map(|(node, shards)| self.call(job, map.cluster_id.clone(), node, shards, fragment.clone()));
        try_join_all(calls).await.ok()
    }

    /// Ends when the map no longer has the node among the live in-sync replicas of one of the shards: a node that is
    /// stopped or cut off may never answer.
    async fn gone(&self, node: NodeId, shards: &[(ShardId, Epoch)], deadline: Instant) {
        let counts = |map: &ShardMap| {
            let alive = map.node(node).is_some_and(|info| info.alive);
            alive
                && shards
                    .iter()
                    .all(|(s, _)| map.shard(*s).is_some_and(|config| config.in_sync.contains(&node)))
        };
        // Who was asked although it does not count is the last resort.
        if !counts(&self.cluster.map()) {
            return std::future::pending().await;
        }
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        if self.cluster.wait_for(left, |map| !counts(map)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn refused(node: NodeId, shards: &[(ShardId, Epoch)]) -> Refused {
    let error = WireError::new(
        WireKind::Unavailable,
        format!("data node {node} left the cluster while it was asked"),
    );
    Refused { node, shards: shards.iter().map(|(shard, _)| *shard).collect(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_what_one_call_in_twenty_is() {
        let (recent, ms) = (Recent::default(), Duration::from_millis);
        (0..31).for_each(|_| recent.note(ms(100)));
        assert_eq!(recent.late_after(ms(2_000)), ms(2_000), "too few to judge by");
        (0..1_000).for_each(|n| recent.note(ms(if n % 25 == 0 { 900 } else { 50 })));
        assert_eq!(recent.late_after(ms(2_000)), ms(50));
        (0..1_000).for_each(|n| recent.note(ms(if n % 10 == 0 { 900 } else { 1 })));
        assert_eq!(recent.late_after(ms(2_000)), ms(900));
        assert_eq!(recent.late_after(ms(300)), ms(300), "no later than told");
        (0..1_000).for_each(|_| recent.note(ms(1)));
        assert_eq!(recent.late_after(ms(2_000)), SOONEST);
    }

    #[test]
    fn hedges_must_be_earned() {
        let allowance = Allowance::default();
        let spent = (0..100).filter(|_| allowance.spend()).count();
        assert_eq!(spent, MAX_SAVED as usize);
        (0..CALLS_PER_HEDGE).for_each(|_| allowance.earn());
        assert!(allowance.spend());
        assert!(!allowance.spend());
    }
}
