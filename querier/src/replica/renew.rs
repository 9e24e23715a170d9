//! Copies that are damaged here: they ask to be left out, begin anew as joiners, and are copied again from another replica.
//! What a copy does next its machine says (`tricord_replication::Renewal`).
//!
//! What is there stays in its place until a snapshot comes, and serves nobody meanwhile: if no other replica can give
//! one, nothing more is lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tricord_model::{Epoch, ShardId};
use tricord_replication::{Position, Renewal, Shard};
use tricord_runtime::blocking;

use super::{Hosted, Replicas};
use crate::storage;

/// How often damaged copies are looked for.
const EVERY: Duration = Duration::from_millis(500);

/// A copy that is damaged again sooner stays, fenced: its neighbours in a damaged file are in the way, or the disk is bad.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// The damaged copies of a node.
#[derive(Default)]
struct Damaged {
    /// Those that have asked to be left out.
    leaving: HashSet<ShardId>,
    /// When copies began to leave.
    renewed: HashMap<ShardId, Instant>,
}

impl Replicas {
    /// Renews damaged copies until shutdown.
    pub(super) async fn renew_damaged(self: Arc<Self>) {
        let mut damaged = Damaged::default();
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // A node that stops leaves all its shards.
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            for hosted in self.all() {
                match self.store.damage(hosted.id) {
                    Some(damage) => self.renew(&hosted, &damage, &mut damaged).await,
                    None if damaged.leaving.remove(&hosted.id) => {
                        self.machine(&hosted, |machine, now_ms| machine.stay(now_ms));
                    }
                    None => {}
                }
            }
        }
    }

    async fn renew(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        damage: &storage::Error,
        Damaged { leaving, renewed }: &mut Damaged,
    ) {
        let shard = hosted.id.0;
        match hosted.peek(Shard::renewal) {
            Renewal::Leave if renewed.get(&hosted.id).is_some_and(|at| at.elapsed() < AGAIN_AFTER) => {}
            Renewal::Leave if leaving.insert(hosted.id) => {
                renewed.insert(hosted.id, Instant::now());
                tracing::warn!(shard, %damage, "this copy of the shard is damaged: it is to be copied again from another");
                self.machine(hosted, |machine, _| machine.resign());
            }
            Renewal::BeginAnew | Renewal::Ask => {
                leaving.remove(&hosted.id);
                let _turn = hosted.turn.lock().await;
                self.begin_anew(hosted);
            }
            Renewal::Leave | Renewal::Wait => {}
        }
    }

    /// Says that a joiner holds nothing, so that it gets everything, or asks for an epoch in which it may say so. The caller
    /// has the shard's turn.
    fn begin_anew(self: &Arc<Self>, hosted: &Arc<Hosted>) {
        let (renewal, asks) = self.machine(hosted, |machine, now_ms| {
            let (renewal, asked) = (machine.renewal(), machine.asks_after());
            match renewal {
                Renewal::BeginAnew => machine.installed(Position::default()),
                Renewal::Ask => machine.ask_for_epoch(),
                Renewal::Leave | Renewal::Wait => return (renewal, false),
            }
            machine.stay(now_ms);
            (renewal, asked != machine.asks_after())
        });
        if renewal == Renewal::BeginAnew {
            self.metrics.renewed.inc();
            tracing::info!(shard = hosted.id.0, "a damaged copy begins anew");
        } else if asks {
            tracing::info!(shard = hosted.id.0, "a damaged copy is counted on, and asks for another epoch");
        }
    }

    /// Before a message of a primary is looked at: a damaged copy takes none as long as it may be counted on for what it
    /// holds. The caller has the shard's turn.
    pub(super) fn withhold(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        epoch: Epoch,
    ) -> Result<(), storage::Error> {
        if self.store.damage(hosted.id).is_none() {
            return Ok(());
        }
        if hosted.peek(|machine| machine.view().epoch >= epoch) {
            self.begin_anew(hosted);
        }
        if hosted.peek(|machine| machine.withholds(epoch)) {
            let text = "this copy is damaged, and cannot begin anew in the newest configuration yet";
            return Err(storage::Error::Corrupt(text.to_owned()));
        }
        Ok(())
    }

    /// Makes room for a log that comes from its first entry on: what is there is of a copy that has begun anew, or damaged
    /// though it holds nothing.
    pub(super) async fn make_room(self: &Arc<Self>, hosted: &Arc<Hosted>) -> Result<(), storage::Error> {
        let (last, epoch) = hosted.peek(|machine| (machine.last().seq, machine.stored_epoch()));
        let is_whole = self.store.damage(hosted.id).is_none();
        if last.0 > 0 || (self.store.position(hosted.id).seq.0 == 0 && is_whole) {
            return Ok(());
        }
        let (replicas, store, shard) = (self.clone(), self.store.clone(), hosted.id);
        blocking(move || {
            replicas.forget_after(0)?;
            store.drop_shard(shard)?;
            store.create_shard(shard)?;
            store.store_epoch(shard, epoch)
        })
        .await
    }
}
