//! Following the shard map: hosting new shards, storing epochs, adopting configurations, letting go of shards.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tricord_model::{Epoch, ShardId};
use tricord_replication::{Boot, Position, Shard, View};
use tricord_routing::{ShardConfig, ShardMap};
use tricord_runtime::blocking;

use super::Replicas;
use super::hosted::{Hosted, LogEpochs};
use crate::storage;

/// Shards whose configuration is adopted at once; each may wait for a sync of the disk.
const CONCURRENCY: usize = 32;
/// How long the map waits for the answer to a proposal that is under way.
const ANSWER_FIRST: Duration = Duration::from_millis(100);
/// How often shards that have moved away are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

pub(crate) fn view_of(config: &ShardConfig) -> View {
    View {
        epoch: config.epoch,
        primary: config.primary,
        in_sync: config.in_sync.clone(),
        joining: config.joining.clone(),
    }
}

impl Replicas {
    /// Makes a machine for a shard that the store has, and that may have answered in an earlier process.
    pub(super) fn host(self: &Arc<Self>, shard: ShardId) -> Arc<Hosted> {
        self.host_after(shard, self.store.stored_epoch(shard))
    }

    /// As [`Replicas::host`], for a shard that has answered under no later epoch than this one.
    fn host_after(self: &Arc<Self>, shard: ShardId, answered: Epoch) -> Arc<Hosted> {
        let mut shards = self.shards.write();
        if let Some(hosted) = shards.get(&shard) {
            return hosted.clone();
        }
        let hosted = Arc::new(Hosted::new(self.new_machine(shard, answered)));
        shards.insert(shard, hosted.clone());
        hosted
    }

    /// A machine for what the store has of a shard.
    pub(super) fn new_machine(&self, shard: ShardId, answered: Epoch) -> Shard {
        let end = self.store.position(shard);
        let boot = Boot {
            node: self.node,
            shard,
            end: Position { seq: end.seq, epoch: end.epoch },
            committed: self.store.committed(shard),
            stored_epoch: answered,
            now_ms: self.now_ms(),
            older: Box::new(LogEpochs(self.store.clone(), shard)),
        };
        let mut machine = Shard::new(boot, self.timing);
        machine.epoch_stored(self.store.stored_epoch(shard));
        machine
    }

    /// Adopts every map until shutdown.
    pub(super) async fn follow_map(self: Arc<Self>) {
        let mut maps = self.cluster.changed();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            let map = maps.borrow_and_update().clone();
            self.adopt(&map).await;
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = maps.changed() => if changed.is_err() { return },
                _ = sweep.tick() => {
                    let newest = self.cluster.map();
                    self.sweep(&newest).await;
                }
            }
        }
    }

    async fn adopt(self: &Arc<Self>, map: &ShardMap) {
        if map.cluster_id != self.cluster_id {
            return;
        }
        let min_insync = map.min_insync as usize;
        let mut work = futures::stream::FuturesUnordered::new();
        for config in map.shards.iter().filter(|config| self.concerns(map, config)) {
            let (replicas, config) = (self.clone(), config.clone());
            work.push(async move {
                replicas.let_proposal_end(config.shard).await;
                replicas.adopt_shard(&config, min_insync).await;
            });
            if work.len() >= CONCURRENCY {
                work.next().await;
            }
        }
        while work.next().await.is_some() {}
    }

    /// What metadata took of this node and what it made of it at once come as an answer and as a map. In that order no epoch
    /// is missed, and a former primary can tell its successor that nobody else led in between.
    async fn let_proposal_end(&self, shard: ShardId) {
        if let Some(hosted) = self.shard(shard) {
            let _ = tokio::time::timeout(ANSWER_FIRST, hosted.proposal.lock()).await;
        }
    }

    fn concerns(&self, map: &ShardMap, config: &ShardConfig) -> bool {
        if self.shard(config.shard).is_some() {
            return true;
        }
        let is_old = config.holds(self.node) && !self.floor.allows(map.version);
        if is_old {
            let (shard, version) = (config.shard.0, map.version);
            tracing::warn!(
                shard,
                version,
                "a shard is not made: this map is older than one that was followed before"
            );
        }
        config.holds(self.node) && !is_old
    }

    /// Adopts one shard's configuration.
    pub(super) async fn adopt_shard(self: &Arc<Self>, config: &ShardConfig, min_insync: usize) {
        let hosted = match self.shard(config.shard) {
            Some(hosted) => hosted,
            None => match self.create(config.shard, config.epoch).await {
                Ok(hosted) => hosted,
                Err(error) => {
                    tracing::error!(shard = config.shard.0, %error, "cannot make a shard");
                    return;
                }
            },
        };
        // It adopts the newest one when it is done.
        if hosted.is_aside() {
            return;
        }
        let known = hosted.peek(|machine| machine.view().epoch);
        if known >= config.epoch && known > Epoch(0) {
            self.with(&hosted, |state, now_ms| state.configure(now_ms, view_of(config), min_insync));
            return;
        }
        let _turn = hosted.turn.lock().await;
        tracing::debug!(
            shard = config.shard.0, epoch = config.epoch.0, known = known.0, primary = ?config.primary,
            in_sync = ?config.in_sync, joining = ?config.joining, "a shard has another configuration"
        );
        if let Err(error) = self.store_epoch(&hosted, config.epoch, Some((view_of(config), min_insync))).await
        {
            tracing::error!(shard = config.shard.0, %error, "cannot store an epoch");
        }
    }

    /// Makes a shard with its epoch stored: an empty replica that answered under an older one could stand in for what
    /// it had held before it moved away.
    async fn create(self: &Arc<Self>, shard: ShardId, epoch: Epoch) -> Result<Arc<Hosted>, storage::Error> {
        let replicas = self.clone();
        blocking(move || {
            let answered = replicas.store.stored_epoch(shard);
            replicas.store.create_shard(shard)?;
            replicas.store.store_epoch(shard, epoch)?;
            Ok(replicas.host_after(shard, answered))
        })
        .await
    }

    /// Stores an epoch durably, then adopts the configuration that came with it. The caller has the shard's turn.
    pub(super) async fn store_epoch(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        epoch: Epoch,
        view: Option<(View, usize)>,
    ) -> Result<(), storage::Error> {
        let (replicas, hosted) = (self.clone(), hosted.clone());
        blocking(move || {
            let _order = hosted.order.lock();
            if hosted.peek(Shard::stored_epoch) < epoch {
                replicas.store.store_epoch(hosted.id, epoch)?;
            }
            replicas.with(&hosted, |state, now_ms| {
                state.machine.epoch_stored(epoch);
                if let Some((view, min_insync)) = view {
                    state.configure(now_ms, view, min_insync);
                }
            });
            Ok(())
        })
        .await
    }

    /// Drops shards that live elsewhere, with all copies there.
    async fn sweep(self: &Arc<Self>, map: &ShardMap) {
        let mut dropped_shards = 0_usize;
        for hosted in self.all() {
            let Some(config) = map.shard(hosted.id) else { continue };
            let complete = config.in_sync.len() >= (map.replicas.max(map.min_insync)) as usize;
            if config.holds(self.node) || !complete {
                continue;
            }
            // Nothing is stored while the turn is held: what the machine knows then is all there is.
            let _turn = hosted.turn.lock().await;
            if !hosted.peek(|machine| machine.may_leave(config.epoch)) {
                continue;
            }
            let (replicas, id, version) = (self.clone(), hosted.id, map.version);
            let dropped = blocking(move || {
                replicas.forget_after(version)?;
                replicas.shards.write().remove(&id);
                replicas.store.drop_shard(id)
            });
            match dropped.await {
                Ok(()) => dropped_shards += 1,
                Err(error) => tracing::warn!(shard = id.0, %error, "cannot drop a shard that has moved"),
            }
        }
        if dropped_shards > 0 {
            tracing::info!(shards = dropped_shards, "dropped shards that have moved to other nodes");
        }
    }
}
