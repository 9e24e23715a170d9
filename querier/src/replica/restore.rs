//! Filling an empty shard from a backup, at its primary.
//!
//! The primary first has metadata leave it alone in sync, so that nobody without the data can ever be primary. Then it gives
//! up its role, puts the snapshot in place, and goes on like a replica whose process has just started. The others join, and
//! are copied from it as joiners are.

use std::sync::Arc;
use std::time::Duration;

use tricord_model::{Epoch, Seq, ShardId};
use tricord_replication::{Shard, View};
use tricord_routing::ShardConfig;
use tricord_runtime::blocking;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};

use super::chunks::{invalid, next_chunk, take_chunks};
use super::hosted::State;
use super::{Hosted, Replicas, not_here};
use crate::storage;

/// How long metadata may take to answer.
const PROPOSE_LIMIT: Duration = Duration::from_secs(5);

impl Replicas {
    /// Fills a shard. The work ends in an orderly way when the caller is gone.
    ///
    /// # Errors
    /// `StaleEpoch` and `NotServing` where another map or another node is to be asked; `Invalid` where the shard has had
    /// entries or the backup does not fit this node, before anything is changed; `Corrupt` where the stream is damaged or
    /// interrupted, and the shard is empty again then.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        let replicas = self.clone();
        tokio::spawn(async move { replicas.take_backup(chunks).await }).await.map_err(Error::internal)?
    }

    async fn take_backup(
        self: &Arc<Self>,
        mut chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        let first = next_chunk(&mut chunks).await?;
        let header = first.header.clone().ok_or_else(|| invalid("the first chunk has no header"))?;
        self.check_meant(&header.cluster_id, header.to_node)?;
        self.check_fits(&header)?;
        let (shard, last) = (ShardId(header.shard), Seq(header.last_seq));
        let hosted = self.shard(shard).ok_or_else(|| not_here(shard))?;
        let _fill = self.fills.acquire().await.map_err(Error::internal)?;
        let config = self.stand_alone(&hosted, Epoch(header.epoch)).await?;
        let filled = {
            let _turn = hosted.turn.lock().await;
            self.step_aside(&hosted, config.epoch).await?;
            let (replicas, target) = (self.clone(), hosted.clone());
            take_chunks(first, chunks, move |chunks| replicas.fill(&target, last, chunks)).await
        };
        // What metadata said meanwhile was left for now.
        let map = self.cluster.map();
        let latest = map.shard(shard).filter(|latest| latest.epoch > config.epoch).unwrap_or(&config);
        self.adopt_shard(latest, map.min_insync as usize).await;
        filled?;
        self.metrics.restored.inc();
        tracing::info!(shard = shard.0, last = last.0, "restored from a backup");
        Ok(pb::SnapshotResponse { shard: shard.0, durable_seq: last.0 })
    }

    fn check_fits(&self, header: &pb::SnapshotHeader) -> Result<(), Error> {
        let (format, window_ms) = self.store.layout();
        if header.last_seq == 0 {
            return Err(invalid("a backup of a shard without entries is nothing to restore"));
        }
        if header.format == 0 || header.format > format {
            let text = format!(
                "the backup has format {}, this node knows up to {format}: use a newer build",
                header.format
            );
            return Err(invalid(&text));
        }
        if header.window_ms != window_ms {
            let text = format!(
                "the backup has windows of {} ms, this node has windows of {window_ms} ms",
                header.window_ms
            );
            return Err(invalid(&text));
        }
        let known = self.store.classes();
        match header.classes.iter().find(|class| !known.contains(class)) {
            Some(class) => Err(invalid(&format!(
                "the backup has data of retention class {class:?}, which retention_classes lacks on this node"
            ))),
            None => Ok(()),
        }
    }

    /// Has the other replicas leave the in-sync set of an empty shard, and answers what holds then.
    async fn stand_alone(self: &Arc<Self>, hosted: &Arc<Hosted>, epoch: Epoch) -> Result<ShardConfig, Error> {
        let (view, stored, last) =
            hosted.peek(|machine| (machine.view().clone(), machine.stored_epoch(), machine.last().seq));
        let shard = hosted.id;
        if view.primary != Some(self.node) {
            let text = format!("node {} is not the primary of shard {shard}", self.node);
            return Err(Error::new(ErrorKind::NotServing, text));
        }
        if view.epoch != epoch || stored != epoch {
            let text = format!("shard {shard} is under epoch {stored} here, not {epoch}");
            return Err(Error::new(ErrorKind::StaleEpoch, text));
        }
        if last > Seq(0) {
            return Err(has_data(shard));
        }
        // Nobody else is there to be added. Otherwise an earlier proposal may add an empty joiner yet: a new epoch voids it.
        if view.in_sync == [self.node] && view.joining.is_empty() {
            let View { epoch, primary, in_sync, joining } = view;
            return Ok(ShardConfig { shard, epoch, primary, in_sync, joining });
        }
        let answer = self.cluster.propose_restore(self.node, epoch, shard, PROPOSE_LIMIT).await?;
        if !answer.accepted {
            return Err(Error::new(ErrorKind::StaleEpoch, answer.message));
        }
        let min_insync = self.cluster.map().min_insync as usize;
        self.adopt_shard(&answer.config, min_insync).await;
        Ok(answer.config)
    }

    /// Gives up the role of the primary, unless entries came in after all. The caller has the shard's turn.
    async fn step_aside(self: &Arc<Self>, hosted: &Arc<Hosted>, epoch: Epoch) -> Result<(), Error> {
        let (replicas, hosted) = (self.clone(), hosted.clone());
        blocking(move || {
            let _order = hosted.order.lock();
            let (id, node) = (hosted.id, replicas.node);
            replicas.with(&hosted, |state, now_ms| {
                let view = state.machine.view();
                let alone = view.epoch == epoch && view.primary == Some(node) && view.in_sync == [node];
                if !alone || state.machine.stored_epoch() != epoch {
                    let text = format!("shard {id} got another configuration meanwhile");
                    return Err(Error::new(ErrorKind::StaleEpoch, text));
                }
                if state.machine.last().seq > Seq(0) {
                    return Err(has_data(id));
                }
                if state.machine.may_grow() {
                    let text =
                        format!("shard {id} has just asked for another in-sync replica, which is empty");
                    return Err(Error::new(ErrorKind::StaleEpoch, text));
                }
                state.step_aside(now_ms);
                Ok(())
            })
        })
        .await
    }

    /// Puts a snapshot in place, and lets the replica begin anew with it; without it where that fails.
    fn fill(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        last: Seq,
        chunks: &mut dyn Iterator<Item = Result<Vec<u8>, storage::Error>>,
    ) -> Result<(), Error> {
        let _order = hosted.order.lock();
        let answered = hosted.peek(Shard::stored_epoch);
        let filled = self.forget_after(0).and_then(|()| self.store.install_backup(hosted.id, last, chunks));
        let ready = match &filled {
            Ok(()) => Ok(()),
            Err(_) => self.store.create_shard(hosted.id),
        };
        let ready = ready.and_then(|()| self.store.store_epoch(hosted.id, answered));
        let machine = self.new_machine(hosted.id, answered);
        self.with(hosted, |state, _| state.begin_anew(machine));
        Ok(filled.and(ready)?)
    }
}

impl State {
    /// Takes the replica's role away, and lets no configuration give it one.
    fn step_aside(&mut self, now_ms: u64) {
        let none = View { epoch: self.machine.view().epoch, ..View::default() };
        self.configure(now_ms, none, 1);
        self.aside = true;
    }

    /// Goes on with another machine, which has no configuration yet.
    fn begin_anew(&mut self, machine: Shard) {
        self.machine = machine;
        self.aside = false;
    }
}

fn has_data(shard: ShardId) -> Error {
    invalid(&format!("shard {shard} has data: a backup is restored into an empty cluster"))
}
