//! A whole cluster in one thread, a seed that decides everything, and the checks after each step.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tricord_model::{NodeId, Seq, ShardId};
use tricord_routing::ShardConfig;

use crate::faults::{Fault, Faults};
use crate::ledger::Ledger;
use crate::metadata::Metadata;
use crate::mutation::Mutation;
use crate::network::{METADATA, Message, Network, Weather};
use crate::node::{Node, Turn};

/// How much time passes in one step.
const STEP_MS: u64 = 10;
/// How many steps things go wrong, and how many they may then take to become healthy.
const HOSTILE_STEPS: u64 = 1_000;
const HEALING_STEPS: u64 = 3_000;
/// Until when a shard waits for a restore, without writes.
const RESTORE_UNTIL_MS: u64 = 3_000;

/// The size of one simulated cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) shards: u32,
    pub(crate) min_insync: u32,
}

/// What a run has seen, so that a simulation in which nothing happens is noticed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) acknowledged: u64,
    pub(crate) reads: u64,
    pub(crate) epochs: u64,
    pub(crate) snapshots: u64,
    pub(crate) cuts: u64,
    pub(crate) dropped: u64,
    pub(crate) releases: u64,
    pub(crate) lost_disks: u64,
    pub(crate) restored: u64,
    /// Joiners that were about to be in sync when they were started again or damaged.
    pub(crate) in_doubt: u64,
    /// Disks of which something became unreadable, …
    pub(crate) damages: u64,
    /// … replicas that asked to be left out for that, said that they hold nothing, or asked for an epoch to say it in …
    pub(crate) left: u64,
    pub(crate) renewed: u64,
    pub(crate) asked: u64,
    /// … and joiners that asked for one since they were to put a snapshot in the place of what an earlier process had.
    pub(crate) refused: u64,
    /// Shards that were not made, as the map was older than one by which shards were let go.
    pub(crate) not_made: u64,
    pub(crate) faults: BTreeMap<Fault, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.epochs += other.epochs;
        self.snapshots += other.snapshots;
        self.cuts += other.cuts;
        self.dropped += other.dropped;
        self.releases += other.releases;
        self.lost_disks += other.lost_disks;
        self.restored += other.restored;
        self.damages += other.damages;
        self.in_doubt += other.in_doubt;
        self.left += other.left;
        self.asked += other.asked;
        self.renewed += other.renewed;
        self.refused += other.refused;
        self.not_made += other.not_made;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) now_ms: u64,
    pub(crate) scenario: Scenario,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// When processes that are down come back.
    pub(crate) restarts: BTreeMap<NodeId, u64>,
    /// Whether anybody writes.
    writes: bool,
    /// Until when processes that are told to stop hand over.
    pub(crate) stops: BTreeMap<NodeId, u64>,
    pub(crate) network: Network,
    pub(crate) metadata: Metadata,
    pub(crate) faults: Faults,
    pub(crate) tally: Tally,
    ledger: Ledger,
    mutation: Option<Mutation>,
    next_payload: u64,
    /// Shards that nobody writes to until they are restored.
    unfilled: BTreeSet<ShardId>,
}

/// Runs one seed: a hostile time, then a quiet one at whose end everything must be healthy.
///
/// # Errors
/// The invariant that was broken, and when.
pub(crate) fn run(seed: u64, mutation: Option<Mutation>) -> Result<Tally, String> {
    let mut world = World::new(seed, mutation);
    world.live().map_err(|what| {
        let World { scenario, now_ms, .. } = &world;
        format!("seed {seed} ({scenario:?}) at {now_ms} ms: {what}\n{}", world.describe())
    })?;
    world.tally.epochs = world.metadata.state.shards.iter().map(|config| config.epoch.0).sum();
    world.tally.acknowledged = world.shards().map(|shard| world.ledger.acknowledged(shard) as u64).sum();
    Ok(world.tally)
}

impl World {
    fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (replicas, min_insync) =
            [(3, 2), (3, 2), (3, 2), (3, 1), (2, 2), (3, 3), (2, 1), (5, 3), (1, 1)][rng.random_range(0..9)];
        let nodes = rng.random_range(replicas.max(2)..=5);
        let scenario = Scenario { shards: rng.random_range(1..=2), min_insync };
        let (faults, weather) = Faults::new(&mut rng);
        let unfilled = (0..scenario.shards).map(ShardId).filter(|_| rng.random_bool(0.3)).collect();
        let known = if mutation == Some(Mutation::ShrinkBelowTheMinimum) { 1 } else { min_insync };
        let mut world = Self {
            rng,
            now_ms: 1,
            scenario,
            nodes: BTreeMap::new(),
            restarts: BTreeMap::new(),
            stops: BTreeMap::new(),
            network: Network::new(weather),
            metadata: Metadata::new(scenario.shards, replicas, known),
            faults,
            writes: true,
            tally: Tally::default(),
            ledger: Ledger::default(),
            mutation,
            next_payload: 1,
            unfilled,
        };
        (0..nodes).for_each(|_| world.join());
        world
    }

    fn live(&mut self) -> Result<(), String> {
        for _ in 0..HOSTILE_STEPS {
            self.break_things();
            self.step()?;
        }
        self.heal();
        let before: Vec<usize> = self.shards().map(|shard| self.ledger.acknowledged(shard)).collect();
        for _ in 0..HEALING_STEPS {
            self.step()?;
            self.mend_disks();
            let written = self.shards().zip(&before).all(|(s, before)| self.ledger.acknowledged(s) > *before);
            if self.tally.steps.is_multiple_of(50) && written && self.ill().is_none() {
                return self.heals_without_writes();
            }
        }
        Err(format!("it does not heal: {}", self.ill().unwrap_or_else(|| "no write is taken".to_owned())))
    }

    /// A node starts again quickly, and nothing is written that would tell others of it.
    fn heals_without_writes(&mut self) -> Result<(), String> {
        self.writes = false;
        let running: Vec<NodeId> = self.living().collect();
        if let Some(id) = running.choose(&mut self.rng).copied() {
            self.crash(id, 100);
        }
        for _ in 0..HEALING_STEPS {
            self.step()?;
            if self.tally.steps.is_multiple_of(50) && self.ill().is_none() {
                return Ok(());
            }
        }
        Err(format!("it does not heal without writes: {}", self.ill().unwrap_or_default()))
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.scenario.shards).map(ShardId)
    }

    /// Nodes whose disk is there.
    pub(crate) fn living(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.values().filter(|node| !node.lost).map(|node| node.id)
    }

    /// A new node with an empty disk.
    pub(crate) fn join(&mut self) {
        if let Some(id) = self.metadata.register(self.now_ms, None) {
            self.nodes.insert(id, Node::new(id));
            self.restarts.insert(id, self.now_ms);
        }
    }

    pub(crate) fn on_node(&mut self, id: NodeId, work: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&id) {
            work(node);
        }
    }

    pub(crate) fn crash(&mut self, id: NodeId, most_ms: u64) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up) else { return };
        node.crash(&mut self.rng, self.mutation);
        self.restarts.insert(id, self.now_ms + self.rng.random_range(10..most_ms));
    }

    /// Everything is mended, and stays so.
    fn heal(&mut self) {
        self.network.mend();
        self.network.weather = Weather::default();
        self.metadata.away_until_ms = 0;
        self.restarts.values_mut().for_each(|at| *at = 0);
        // A log that failed stays so until the process starts again.
        self.stops.values_mut().for_each(|until_ms| *until_ms = 0);
        for node in self.nodes.values_mut() {
            node.paused_until_ms = 0;
            node.sync_ms = node.sync_ms.min(15);
            self.metadata.drain(node.id, true);
        }
    }

    /// Where no copy is to spare a damaged one stays in its place, until somebody mends it.
    fn mend_disks(&mut self) {
        let least = self.scenario.min_insync as usize;
        for config in self.metadata.state.shards.iter().filter(|config| config.in_sync.len() <= least) {
            let members = config.in_sync.iter().filter_map(|id| self.nodes.get(id));
            let disks = members.filter_map(|node| node.disks.get(&config.shard));
            disks.for_each(|disk| disk.lock().damaged = false);
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now_ms += STEP_MS;
        self.tally.steps += 1;
        let due: Vec<NodeId> =
            self.restarts.iter().filter(|(_, at)| **at <= self.now_ms).map(|(id, _)| *id).collect();
        for id in due {
            self.restarts.remove(&id);
            let drift = if self.mutation == Some(Mutation::ClocksDriftTooFar) { 350 } else { 50 };
            self.turn(id, |node, turn| node.boot(drift, turn))?;
        }
        self.stop_those_that_handed_over();
        self.metadata_acts();
        self.restore()?;
        self.deliver()?;
        let running: Vec<NodeId> =
            self.nodes.values().filter(|node| node.runs(self.now_ms)).map(|node| node.id).collect();
        for id in running {
            self.turn(id, |node, turn| node.tick(turn))?;
            self.write(id)?;
        }
        self.check()
    }

    /// Perhaps fills a shard from a backup, at its primary, before anybody writes to it.
    fn restore(&mut self) -> Result<(), String> {
        let Some(shard) = self.unfilled.first().copied() else { return Ok(()) };
        if self.now_ms > RESTORE_UNTIL_MS {
            self.unfilled.remove(&shard);
            return Ok(());
        }
        let Some(config) = self.metadata.state.shards.get(shard.0 as usize).cloned() else { return Ok(()) };
        let Some(id) = config.primary.filter(|_| self.rng.random_bool(0.05)) else { return Ok(()) };
        let node = self.nodes.get(&id).filter(|node| node.runs(self.now_ms) && !node.lost && !node.broken);
        let machine = node.and_then(|node| node.replicas.get(&shard)).map(|replica| &replica.machine);
        let knows = machine.is_some_and(|m| m.view().epoch == config.epoch && m.last().seq == Seq(0));
        if !knows || self.metadata.is_away(self.now_ms) {
            return Ok(());
        }
        let alone = match self.mutation {
            Some(Mutation::RestoreBesideOthers) => Some(crate::metadata::view_of(&config)),
            _ => self.metadata.restore(shard),
        };
        let Some(view) = alone else { return Ok(()) };
        let payloads: Vec<u64> = {
            let count = self.rng.random_range(1..20);
            (self.next_payload..self.next_payload + count).collect()
        };
        self.next_payload += payloads.len() as u64;
        self.unfilled.remove(&shard);
        self.tally.restored += 1;
        let min_insync = self.metadata.state.min_insync as usize;
        self.turn(id, |node, turn| {
            if let Some(replica) = node.replicas.get_mut(&shard) {
                replica.configure(view, min_insync, turn);
                replica.fill(&payloads, turn);
            }
        })
    }

    fn stop_those_that_handed_over(&mut self) {
        let done = |(id, until_ms): (&NodeId, &u64)| {
            let node = self.nodes.get(id)?;
            let leads = node.replicas.values().any(|replica| replica.machine.is_resigning());
            (!leads || self.now_ms >= *until_ms).then_some(*id)
        };
        let stopped: Vec<NodeId> = self.stops.iter().filter_map(done).collect();
        for id in stopped {
            self.stops.remove(&id);
            self.metadata.doubt(id);
            self.crash(id, 500);
        }
    }

    fn metadata_acts(&mut self) {
        if self.metadata.is_away(self.now_ms) {
            return;
        }
        if let Some(map) = self.metadata.act(self.now_ms, &mut self.rng, self.mutation) {
            for to in self.nodes.values().filter(|node| node.up).map(|node| node.id) {
                let map = Message::Map(map.clone());
                self.network.send(self.now_ms, &mut self.rng, METADATA, to, map);
            }
        }
    }

    fn deliver(&mut self) -> Result<(), String> {
        while let Some((from, to, message)) = self.network.arrived(self.now_ms) {
            if to != METADATA {
                self.turn(to, |node, turn| node.receive(from, message, turn))?;
            } else if !self.metadata.is_away(self.now_ms)
                && let Some(answer) = self.metadata.receive(self.now_ms, from, message)
            {
                self.network.send(self.now_ms, &mut self.rng, METADATA, from, answer);
            }
        }
        Ok(())
    }

    fn write(&mut self, id: NodeId) -> Result<(), String> {
        if !self.writes || !self.rng.random_bool(0.25) {
            return Ok(());
        }
        let shard = ShardId(self.rng.random_range(0..self.scenario.shards));
        if self.unfilled.contains(&shard) {
            return Ok(());
        }
        let payload = self.next_payload;
        self.next_payload += 1;
        self.turn(id, |node, turn| {
            if let Some(replica) = node.replicas.get_mut(&shard) {
                replica.write(payload, turn);
            }
        })
    }

    /// Lets a node do something, and takes what came of it.
    fn turn(&mut self, id: NodeId, work: impl FnOnce(&mut Node, &mut Turn)) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.lost) else { return Ok(()) };
        let mut turn = Turn {
            now_ms: self.now_ms,
            local_ms: node.clock.at(self.now_ms),
            sync_ms: node.sync_ms,
            broken: node.broken,
            mutation: self.mutation,
            rng: &mut self.rng,
            tally: &mut self.tally,
            out: Vec::new(),
            news: Vec::new(),
            gone: None,
        };
        work(node, &mut turn);
        let Turn { out, news, gone, .. } = turn;
        if let Some(shard) = gone {
            node.lose(shard, &mut self.rng, self.mutation);
            self.restarts.insert(id, self.now_ms + self.rng.random_range(10..500));
        }
        for (to, message) in out {
            self.network.send(self.now_ms, &mut self.rng, id, to, message);
        }
        for one in news {
            self.note(id, one)?;
        }
        Ok(())
    }

    fn note(&mut self, id: NodeId, news: crate::ledger::News) -> Result<(), String> {
        use crate::ledger::News;
        let (News::Committed(shard, _) | News::Acknowledged(shard, ..)) = news;
        let disk = self.nodes.get(&id).and_then(|node| node.disks.get(&shard)).cloned();
        let Some(disk) = disk else { return Ok(()) };
        self.ledger.take(id, &mut disk.lock(), news)?;
        if let News::Acknowledged(_, epoch, seq) = news {
            let holds = |node: &&Node| {
                let disk = node.disks.get(&shard);
                disk.is_some_and(|disk| disk.lock().durable() >= seq)
            };
            let copies = self.nodes.values().filter(holds).count();
            if copies < self.scenario.min_insync as usize {
                return Err(format!("{id} acknowledges entry {seq} in epoch {epoch} with {copies} copies"));
            }
        }
        Ok(())
    }

    /// What holds at every moment.
    fn check(&mut self) -> Result<(), String> {
        for config in &self.metadata.state.shards {
            for id in &config.in_sync {
                // What a lost disk held is on the others, of which enough are left.
                let Some(node) = self.nodes.get(id).filter(|node| !node.lost) else { continue };
                let checked = match node.disks.get(&config.shard) {
                    Some(disk) => self.ledger.holds_all(config.shard, &mut disk.lock()),
                    None if self.ledger.acknowledged(config.shard) > 0 => Err("has no copy".to_owned()),
                    None => Ok(()),
                };
                checked.map_err(|what| format!("{id}, in sync in epoch {}, {what}", config.epoch))?;
            }
            self.check_knowledge(config)?;
        }
        for node in self.nodes.values().filter(|node| node.runs(self.now_ms)) {
            let local_ms = node.clock.at(self.now_ms);
            for replica in node.replicas.values().filter(|replica| replica.machine.may_read(local_ms)) {
                self.tally.reads += 1;
                let checked = self.ledger.holds_all(replica.shard, &mut replica.disk.lock());
                let epoch = replica.machine.view().epoch;
                checked.map_err(|what| format!("{} answers in epoch {epoch} but {what}", node.id))?;
            }
        }
        Ok(())
    }

    /// Replicas in sync must also know of what they have, and not all of them may be damaged.
    fn check_knowledge(&self, config: &ShardConfig) -> Result<(), String> {
        let acknowledged = Seq(self.ledger.acknowledged(config.shard) as u64);
        let members = || config.in_sync.iter().filter_map(|id| self.nodes.get(id));
        for node in members().filter(|node| !node.lost) {
            let known = node.replicas.get(&config.shard).map(|replica| replica.machine.durable_seq());
            if let Some(known) = known.filter(|known| *known < acknowledged) {
                let of = (node.id, config.epoch, config.shard);
                return Err(format!("{of:?}, in sync, has thrown away entry {acknowledged}: it has {known}"));
            }
        }
        let is_well = |node: &Node| !node.lost && !node.is_damaged(config.shard);
        if acknowledged > Seq(0) && !members().any(is_well) {
            return Err(format!("every replica in sync is damaged or lost: {config:?}"));
        }
        Ok(())
    }

    /// What keeps the cluster from being healthy.
    fn ill(&self) -> Option<String> {
        let state = &self.metadata.state;
        let usable = state.data_nodes().filter(|node| node.alive && !node.draining).count();
        let copies = usable.min(state.replicas as usize);
        for config in &state.shards {
            if config.in_sync.len() != copies || !config.joining.is_empty() {
                return Some(format!("{config:?} should have {copies} copies"));
            }
            for id in &config.in_sync {
                let node = self.nodes.get(id)?;
                let replica = node.replicas.get(&config.shard);
                let local_ms = node.clock.at(self.now_ms);
                if node.is_damaged(config.shard) {
                    return Some(format!("{id} is damaged in {config:?}"));
                }
                if !replica.is_some_and(|replica| replica.machine.may_read(local_ms)) {
                    return Some(format!("{id} does not answer for {config:?}"));
                }
            }
        }
        None
    }

    fn describe(&self) -> String {
        let mut lines: Vec<String> =
            self.metadata.state.shards.iter().map(|config| format!("metadata: {config:?}")).collect();
        for node in self.nodes.values() {
            let local_ms = node.clock.at(self.now_ms);
            let state = (node.up, node.lost, node.paused_until_ms);
            lines.push(format!("{} at {local_ms} (up, lost, paused until) {state:?}", node.id));
            for replica in node.replicas.values() {
                let disk = replica.disk.lock();
                let (status, len) = (replica.machine.status(local_ms), disk.len());
                lines.push(format!("  {:?} log {len}: {}", status, replica.machine.describe()));
            }
        }
        lines.join("\n")
    }
}
