//! Copies that are damaged here: they ask to be left out, begin anew as joiners, and are copied again from another replica.
//!
//! What is there stays in its place until a snapshot comes, and serves nobody meanwhile: if no other replica can give
//! one, nothing more is lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tricord_model::{Epoch, ShardId};
use tricord_replication::Position;
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

/// What a replica that is damaged can do about it.
enum Step {
    /// It asks to be left out.
    Leave,
    /// It is out, and nobody counts on what it holds.
    BeginAnew,
    /// It is about to be let in, and leaves then.
    Join,
    Wait,
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
                        self.machine(&hosted, |machine, _| machine.stay());
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
        let (node, shard) = (self.node, hosted.id.0);
        let step = hosted.peek(|machine| {
            let view = machine.view();
            match (view.in_sync.contains(&node), view.joining.contains(&node)) {
                (true, _) if view.in_sync.len() > 1 => Step::Leave,
                (false, true) if machine.may_begin_anew() => Step::BeginAnew,
                (false, true) if machine.durable_seq().0 > 0 => Step::Join,
                _ => Step::Wait,
            }
        });
        match step {
            Step::Leave if renewed.get(&hosted.id).is_some_and(|at| at.elapsed() < AGAIN_AFTER) => {}
            Step::Leave if leaving.insert(hosted.id) => {
                renewed.insert(hosted.id, Instant::now());
                tracing::warn!(shard, %damage, "this copy of the shard is damaged: it is to be copied again from another");
                self.machine(hosted, |machine, _| machine.resign());
            }
            Step::BeginAnew => {
                leaving.remove(&hosted.id);
                let _turn = hosted.turn.lock().await;
                self.begin_anew(hosted);
            }
            Step::Join if leaving.remove(&hosted.id) => self.machine(hosted, |machine, _| machine.stay()),
            Step::Leave | Step::Join | Step::Wait => {}
        }
    }

    /// Says that a joiner holds nothing, so that it gets everything. The caller has the shard's turn.
    fn begin_anew(self: &Arc<Self>, hosted: &Arc<Hosted>) {
        let begun = self.machine(hosted, |machine, _| {
            let may = machine.may_begin_anew() && machine.last().seq.0 > 0;
            if may {
                machine.installed(Position::default());
            }
            machine.stay();
            may
        });
        if begun {
            self.metrics.renewed.inc();
            tracing::info!(shard = hosted.id.0, "a damaged copy begins anew");
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
        let (known, is_joiner) = hosted.peek(|machine| {
            let view = machine.view();
            (view.epoch, !view.in_sync.contains(&self.node))
        });
        if known < epoch {
            let text =
                "this copy is damaged, and its place in the newest configuration is not known here yet";
            return Err(storage::Error::Corrupt(text.to_owned()));
        }
        if is_joiner {
            self.begin_anew(hosted);
        }
        Ok(())
    }

    /// Makes room for a log that comes from its first entry on: what is there is of a copy that has begun anew.
    pub(super) async fn make_room(self: &Arc<Self>, hosted: &Arc<Hosted>) -> Result<(), storage::Error> {
        let (last, epoch) = hosted.peek(|machine| (machine.last().seq, machine.stored_epoch()));
        if last.0 > 0 || self.store.position(hosted.id).seq.0 == 0 {
            return Ok(());
        }
        let (store, shard) = (self.store.clone(), hosted.id);
        blocking(move || {
            store.drop_shard(shard)?;
            store.create_shard(shard)?;
            store.store_epoch(shard, epoch)
        })
        .await
    }
}
