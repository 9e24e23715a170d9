//! What goes wrong, and when. A seed chooses some of the faults, so that each is seen alone and with others.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};
use tricord_model::{NodeId, ShardId};
use tricord_routing::ShardConfig;

use crate::network::{METADATA, Message, Weather};
use crate::node::Node;
use crate::world::World;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A process dies and comes back.
    Crash,
    /// A primary dies and is back before anybody has noticed.
    QuickRestart,
    /// All processes die at once.
    CrashAll,
    /// A process stands still, then goes on.
    Pause,
    /// A process is told to stop, and starts again.
    Stop,
    /// A log takes no more entries until its process starts again.
    LogFails,
    /// A joiner dies and is back before anybody has noticed.
    RestartJoiner,
    /// Something on a disk cannot be read any more, as is found at once or after a quick restart.
    Damage,
    /// A disk is lost; a new node comes in its place.
    LoseDisk,
    /// Syncs take long.
    SlowDisk,
    /// Messages to and from a node take long.
    SlowLink,
    /// Messages get through in one direction only.
    OneWay,
    /// A node reaches nobody.
    Isolate,
    /// A node reaches the others but not metadata.
    NoMetadata,
    /// A node reaches metadata but not the others.
    OnlyMetadata,
    /// Metadata has no majority.
    MetadataAway,
    /// A monotonic clock leaps or stands still for as long as the grace allows.
    ClockJump,
    /// A process starts again, and asks a member of metadata that lags behind.
    OldMap,
    /// Metadata takes a living node for dead.
    FalseDeath,
    /// Metadata names another primary.
    Rename,
    /// A node is emptied, or taken back.
    Drain,
    /// A node joins.
    Join,
}

impl Fault {
    pub(crate) const ALL: [Self; 22] = [
        Self::Crash,
        Self::QuickRestart,
        Self::CrashAll,
        Self::Pause,
        Self::Stop,
        Self::LogFails,
        Self::RestartJoiner,
        Self::Damage,
        Self::LoseDisk,
        Self::SlowDisk,
        Self::SlowLink,
        Self::OneWay,
        Self::Isolate,
        Self::NoMetadata,
        Self::OnlyMetadata,
        Self::MetadataAway,
        Self::ClockJump,
        Self::OldMap,
        Self::FalseDeath,
        Self::Rename,
        Self::Drain,
        Self::Join,
    ];
}

/// How far one clock may jump at once, and how long it then behaves, in milliseconds. With clocks that are off by 5 %
/// the grace leaves 50 ms in a lease of 400 ms.
const MOST_JUMP_MS: u64 = 20;
const JUMP_PAUSE_MS: u64 = 700;
/// After a disk is lost, changes that were asked for before may take so long to come about, and may have counted on it.
const LOSS_PAUSE_MS: u64 = 3_000;
/// More nodes than these are never registered at once.
const MOST_NODES: usize = 6;

/// The faults of one seed.
pub(crate) struct Faults {
    enabled: Vec<Fault>,
    last_jump_ms: u64,
    last_loss_ms: Option<u64>,
}

impl Faults {
    pub(crate) fn new(rng: &mut StdRng) -> (Self, Weather) {
        let mut all = Fault::ALL;
        all.shuffle(rng);
        let enabled = all[..rng.random_range(2..=Fault::ALL.len())].to_vec();
        let some = |rng: &mut StdRng, most: f64| {
            if rng.random_bool(0.6) { rng.random_range(0.0..most) } else { 0.0 }
        };
        let weather = Weather {
            loss: some(rng, 0.08),
            doubles: some(rng, 0.05),
            delays: some(rng, 0.06),
            longest_delay_ms: rng.random_range(30..1_500),
        };
        (Self { enabled, last_jump_ms: 0, last_loss_ms: None }, weather)
    }
}

impl World {
    /// Perhaps something breaks, perhaps something is mended.
    pub(crate) fn break_things(&mut self) {
        if self.rng.random_bool(0.015) {
            self.network.mend();
        }
        if self.rng.random_bool(0.025)
            && let Some(fault) = self.faults.enabled.choose(&mut self.rng).copied()
        {
            *self.tally.faults.entry(fault).or_default() += 1;
            self.inject(fault);
        }
        self.strike_who_is_in_doubt();
    }

    fn inject(&mut self, fault: Fault) {
        let living: Vec<NodeId> = self.living().collect();
        let Some(victim) = living.choose(&mut self.rng).copied() else { return };
        let shard = ShardId(self.rng.random_range(0..self.metadata.state.shards.len() as u32));
        let primary = self.metadata.state.shards[shard.0 as usize].primary.unwrap_or(victim);
        match fault {
            Fault::Crash => self.crash(victim, 2_500),
            Fault::QuickRestart => self.crash(primary, 80),
            Fault::CrashAll => living.into_iter().for_each(|node| self.crash(node, 800)),
            Fault::Pause => {
                let until_ms = self.now_ms + self.rng.random_range(20..2_000);
                self.on_node(victim, |node| node.paused_until_ms = until_ms);
            }
            Fault::Stop => {
                let until_ms = self.now_ms + 400;
                self.on_node(victim, Node::resign);
                self.stops.insert(victim, until_ms);
            }
            Fault::LogFails => {
                self.on_node(victim, Node::break_log);
                // Somebody sees that it is not ready, and starts it again.
                let until_ms = self.now_ms + self.rng.random_range(100..3_000);
                self.stops.insert(victim, until_ms);
            }
            Fault::RestartJoiner => {
                if let Some(joiner) = self.metadata.state.shards[shard.0 as usize].joining.first().copied() {
                    self.crash(joiner, 80);
                }
            }
            Fault::Damage => self.damage(shard, 0.5),
            Fault::LoseDisk => self.lose_disk(victim),
            Fault::SlowDisk => {
                let sync_ms = self.rng.random_range(50..700);
                self.on_node(victim, |node| node.sync_ms = sync_ms);
            }
            Fault::SlowLink => {
                let by_ms = self.rng.random_range(40..250);
                self.network.slow_down(victim, by_ms);
            }
            Fault::OneWay => {
                if let Some(other) = living.choose(&mut self.rng).copied() {
                    self.network.cut(victim, other);
                }
            }
            Fault::Isolate => {
                for other in living.into_iter().chain([METADATA]) {
                    self.network.cut(victim, other);
                    self.network.cut(other, victim);
                }
            }
            Fault::NoMetadata => {
                self.network.cut(victim, METADATA);
                self.network.cut(METADATA, victim);
            }
            Fault::OnlyMetadata => {
                for other in living {
                    self.network.cut(victim, other);
                    self.network.cut(other, victim);
                }
            }
            Fault::MetadataAway => {
                self.metadata.away_until_ms = self.now_ms + self.rng.random_range(50..2_500);
            }
            Fault::OldMap => {
                self.crash(victim, 80);
                if let Some(map) = self.metadata.old_map(&mut self.rng) {
                    self.network.put(self.now_ms + 90, METADATA, victim, Message::Map(map));
                }
            }
            Fault::ClockJump => self.jump_clock(victim),
            Fault::FalseDeath => self.metadata.doubt(primary),
            Fault::Rename => self.metadata.rename(shard, &mut self.rng),
            Fault::Drain => self.drain(victim),
            Fault::Join if living.len() < MOST_NODES => self.join(),
            Fault::Join => {}
        }
    }

    fn jump_clock(&mut self, victim: NodeId) {
        if self.now_ms < self.faults.last_jump_ms + JUMP_PAUSE_MS {
            return;
        }
        self.faults.last_jump_ms = self.now_ms;
        let (by_ms, leaps) = (self.rng.random_range(1..=MOST_JUMP_MS), self.rng.random_bool(0.5));
        let now_ms = self.now_ms;
        self.on_node(victim, |node| match leaps {
            true => node.clock.leap(now_ms, by_ms),
            false => node.clock.stall(now_ms, by_ms),
        });
    }

    fn drain(&mut self, victim: NodeId) {
        let draining = |id: &NodeId| self.metadata.state.nodes.get(id).is_some_and(|node| node.info.draining);
        let undo = draining(&victim);
        let left = self.living().filter(|id| *id != victim && !draining(id)).count();
        if undo || left >= self.metadata.state.min_insync as usize {
            self.metadata.drain(victim, undo);
        }
    }

    /// Chooses the worst moment: the primary has asked metadata to let a joiner in, or soon has.
    fn strike_who_is_in_doubt(&mut self) {
        let strikes = |fault: &&Fault| matches!(fault, Fault::Damage | Fault::RestartJoiner);
        let faults = self.faults.enabled.iter().filter(strikes).copied();
        let Some(fault) = faults.choose(&mut self.rng) else { return };
        let grows = |config: &&ShardConfig| {
            let primary = config.primary.and_then(|id| self.nodes.get(&id)?.replicas.get(&config.shard));
            primary.is_some_and(|replica| replica.machine.may_grow())
        };
        let Some(config) = self.metadata.state.shards.iter().find(grows) else { return };
        let (shard, epoch, joiner) = (config.shard, config.epoch, config.joining.first().copied());
        if fault == Fault::Damage {
            if self.rng.random_bool(0.06) {
                self.damage(shard, 1.0);
            }
        } else if let Some(joiner) = joiner {
            // What it had before it caught up may come to its next process.
            let at = self.now_ms + self.rng.random_range(50..250);
            if self.network.repeat_snapshot(at, joiner, (shard, epoch)) || self.rng.random_bool(0.06) {
                self.tally.in_doubt += 1;
                self.crash(joiner, 50);
            }
        }
    }

    /// Damages a copy of a shard where the promises allow it, with some preference for joiners.
    fn damage(&mut self, shard: ShardId, prefers_joiner: f64) {
        let config = self.metadata.state.shards[shard.0 as usize].clone();
        let of_joiner = self.rng.random_bool(prefers_joiner);
        let all = if of_joiner { &config.joining } else { &config.in_sync };
        let Some(victim) = all.choose(&mut self.rng).copied() else { return };
        let Some(node) = self.nodes.get(&victim) else { return };
        let has_data =
            node.disks.get(&shard).is_some_and(|disk| disk.lock().len() > 0) && !node.is_damaged(shard);
        let holders = config.in_sync.iter().chain(&config.joining);
        let gone = |id: &NodeId| self.nodes.get(id).is_none_or(|node| node.lost || node.is_damaged(shard));
        let others = holders.filter(|id| gone(id) && **id != victim).count();
        if node.lost || !has_data || others + 1 >= config.in_sync.len().min(self.scenario.min_insync as usize)
        {
            return;
        }
        if self.rng.random_bool(0.7) {
            self.crash(victim, 80);
        }
        self.on_node(victim, |node| {
            if let Some(disk) = node.disks.get(&shard) {
                disk.lock().damaged = true;
            }
        });
        self.tally.damages += 1;
        self.tally.in_doubt += u64::from(prefers_joiner >= 1.0);
    }

    /// A disk is lost for good where the promises allow it: fewer than `min_insync` members of any in-sync set.
    fn lose_disk(&mut self, victim: NodeId) {
        let lost = |id: &NodeId| self.nodes.get(id).is_none_or(|node| node.lost);
        let bearable = self.metadata.state.shards.iter().all(|config| {
            let gone = |id: &&NodeId| {
                let in_sync = lost(id) && config.in_sync.contains(id);
                in_sync || self.nodes.get(id).is_some_and(|node| node.is_damaged(config.shard))
            };
            let others = config.in_sync.iter().chain(&config.joining).filter(|id| **id != victim);
            let gone = others.filter(gone).count() + 1;
            let placed = config.primary.is_some();
            // A joiner may be about to become a member.
            // While a shard is restored there are fewer.
            let enough = config.in_sync.len().min(self.scenario.min_insync as usize);
            placed && (!config.holds(victim) || gone < enough)
        });
        let settled = self.faults.last_loss_ms.is_none_or(|at| self.now_ms >= at + LOSS_PAUSE_MS);
        if !bearable || !settled {
            return;
        }
        self.faults.last_loss_ms = Some(self.now_ms);
        self.crash(victim, 100);
        self.restarts.remove(&victim);
        self.stops.remove(&victim);
        self.on_node(victim, |node| node.lost = true);
        self.tally.lost_disks += 1;
        self.join();
    }
}
