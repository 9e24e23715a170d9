//! What the leading member does on its own: decides who lives, and moves the shard map towards what it should be.
//!
//! [`Watchman`] is the decision, a plain value that is told the time; the loop around it puts its commands through Raft.
//! Ages are counted on this member's monotonic clock, and begin anew whenever it begins to lead or was itself asleep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tricord_model::{NodeId, ShardId};
use tricord_wire::proto::metadata::HeartbeatRequest;

use crate::config::Config;
use crate::placement::{self, Facts};
use crate::state::{Change, Command, State};

/// At most one move per this time evens out load.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);

/// When a node was last heard, and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) said: HeartbeatRequest,
}

/// What the leader remembers; nothing of it is agreed on.
pub(crate) struct Watchman {
    lease: Duration,
    gone_after: Duration,
    settle: Duration,
    calm_after: Duration,
    /// The term in which this member leads.
    term: Option<u64>,
    looked: Instant,
    heard: BTreeMap<NodeId, Heard>,
    dead_since: BTreeMap<NodeId, Instant>,
    data_nodes: BTreeSet<NodeId>,
    /// When the last new data node arrived.
    arrived: Instant,
    /// The newest version of the map that was seen, and when it changed last.
    version: u64,
    changed: Instant,
    moved: Option<Instant>,
    /// Shards of which a copy is on its way to even out load: what changes meanwhile is mostly that.
    moving: BTreeSet<ShardId>,
    /// How many copies each node had when this leader first saw it draining.
    drains: BTreeMap<NodeId, u32>,
    /// Whether people were told that too few data nodes are there.
    complained: bool,
}

impl Watchman {
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        Self {
            lease: Duration::from_millis(config.node_lease_ms),
            gone_after: Duration::from_millis(config.node_gone_after_ms),
            settle: Duration::from_millis(config.settle_ms),
            calm_after: Duration::from_millis(config.calm_after_ms),
            term: None,
            looked: now,
            heard: BTreeMap::new(),
            dead_since: BTreeMap::new(),
            data_nodes: BTreeSet::new(),
            arrived: now,
            version: 0,
            changed: now,
            moved: None,
            moving: BTreeSet::new(),
            drains: BTreeMap::new(),
            complained: false,
        }
    }

    /// Notes a heartbeat or a registration.
    pub(crate) fn hear(&mut self, node: NodeId, said: HeartbeatRequest, now: Instant) {
        self.heard.insert(node, Heard { at: now, said });
    }

    /// What was last heard of each node.
    pub(crate) fn heard(&self) -> &BTreeMap<NodeId, Heard> {
        &self.heard
    }

    /// How many copies a node had when it was first seen draining.
    pub(crate) fn began_with(&self, node: NodeId) -> Option<u32> {
        self.drains.get(&node).copied()
    }

    /// This member does not lead.
    pub(crate) fn rest(&mut self) {
        if self.term.take().is_some() {
            self.drains.clear();
            self.heard.clear();
            self.dead_since.clear();
        }
    }

    /// The next commands, in order. To be asked again soon after they are applied, and every few milliseconds.
    pub(crate) fn look(&mut self, state: &State, term: u64, now: Instant) -> Vec<Command> {
        // A leader that was stopped or starved has missed heartbeats that were sent: nobody is dead for that.
        let asleep = now.duration_since(self.looked) > self.lease / 2;
        self.looked = now;
        if self.term != Some(term) || asleep {
            self.begin(state, term, now);
        }
        self.note_arrivals(state, now);
        self.note_drains(state);
        if state.version != self.version {
            self.version = state.version;
            if self.moving.is_empty() {
                self.changed = now;
            }
        }
        let moving = self.moving.len();
        self.moving.retain(|shard| !has_arrived(state, *shard));
        if self.moving.len() < moving {
            // Whoever has lost its place is to hear of that before the shard changes again.
            self.moved = Some(now);
        }
        let liveness = self.liveness(state, now);
        if !liveness.is_empty() {
            self.moving.clear();
            self.changed = now;
            return vec![Command::Liveness(liveness)];
        }
        let forgotten = self.forgotten(state, now);
        if !forgotten.is_empty() {
            return vec![Command::Forget(forgotten)];
        }
        self.plan(state, now)
    }

    fn begin(&mut self, state: &State, term: u64, now: Instant) {
        if self.term != Some(term) {
            self.moving.clear();
            self.dead_since.clear();
            self.arrived = now;
            self.changed = now;
        }
        self.term = Some(term);
        for id in state.nodes.keys().filter(|id| state.is_alive(**id)) {
            let unheard = || Heard { at: now, said: HeartbeatRequest { node: id.0, ..Default::default() } };
            let heard = self.heard.entry(*id).or_insert_with(unheard);
            heard.at = now;
        }
    }

    fn note_arrivals(&mut self, state: &State, now: Instant) {
        let data_nodes: BTreeSet<NodeId> = state.data_nodes().map(|node| node.id).collect();
        if !data_nodes.is_subset(&self.data_nodes) {
            self.moving.clear();
            self.arrived = now;
            self.changed = now;
        }
        self.data_nodes = data_nodes;
    }

    fn note_drains(&mut self, state: &State) {
        let draining = |id: &NodeId| state.nodes.get(id).is_some_and(|node| node.info.draining);
        self.drains.retain(|id, _| draining(id));
        for id in state.data_nodes().map(|node| node.id).filter(draining) {
            self.drains.entry(id).or_insert_with(|| state.copies_on(id));
        }
    }

    fn liveness(&mut self, state: &State, now: Instant) -> Vec<(NodeId, bool)> {
        let mut changes = Vec::new();
        for (id, node) in &state.nodes {
            let heard = self.heard.get(id);
            let lives =
                heard.is_some_and(|heard| !heard.said.leaving && now.duration_since(heard.at) <= self.lease);
            if lives {
                self.dead_since.remove(id);
            } else {
                self.dead_since.entry(*id).or_insert(now);
            }
            if lives != node.info.alive {
                changes.push((*id, lives));
            }
        }
        self.dead_since.retain(|id, _| state.nodes.contains_key(id));
        self.heard.retain(|id, _| state.nodes.contains_key(id));
        changes
    }

    fn gone(&self, now: Instant) -> BTreeSet<NodeId> {
        let gone = self.dead_since.iter().filter(|(_, since)| now.duration_since(**since) >= self.gone_after);
        gone.map(|(id, _)| *id).collect()
    }

    /// Processes that are gone and hold nothing: they come back as new or by their identity, both are fine.
    fn forgotten(&self, state: &State, now: Instant) -> Vec<NodeId> {
        self.gone(now).into_iter().filter(|id| state.copies_on(*id) == 0).collect()
    }

    /// Says once what the first placement waits for.
    fn complain(&mut self, state: &State, facts: &Facts) {
        let unplaced = state.shards.iter().any(|shard| shard.primary.is_none());
        if unplaced && facts.settled && !self.complained {
            let alive = state.data_nodes().filter(|node| node.alive).count();
            let wanted = state.min_insync;
            tracing::info!(alive, wanted, "shards wait for data nodes: writes need {wanted} copies");
            self.complained = true;
        }
    }

    /// The load of the shards: series in use, as their primaries count them, which writes, memory and most queries go with.
    fn weights(&self, state: &State) -> BTreeMap<ShardId, u64> {
        let mut weights = BTreeMap::new();
        for (node, heard) in &self.heard {
            for replica in &heard.said.replicas {
                let config = state.shards.get(replica.shard as usize);
                if config.is_some_and(|config| config.primary == Some(*node)) {
                    weights.insert(ShardId(replica.shard), replica.series);
                }
            }
        }
        weights
    }

    fn plan(&mut self, state: &State, now: Instant) -> Vec<Command> {
        let enough = state.data_nodes().count() >= state.replicas as usize;
        // Fewer nodes than copies: the missing ones get more time to arrive.
        let settle = if enough { self.settle } else { self.settle * 5 };
        let rested = self.moved.is_none_or(|moved| now.duration_since(moved) >= MOVE_INTERVAL);
        let calm = rested && now.duration_since(self.changed) >= self.calm_after;
        let facts = Facts {
            gone: self.gone(now),
            settled: now.duration_since(self.arrived) >= settle,
            calm,
            // Nothing else asks for them, and this is done every few milliseconds.
            weights: if calm { self.weights(state) } else { BTreeMap::new() },
        };
        let changes = placement::plan(state, &facts);
        if changes.is_empty() {
            self.complain(state, &facts);
            return Vec::new();
        }
        if facts.calm && is_move(state, &changes) {
            self.moved = Some(now);
            // The move's own change of the map does not end the calm.
            self.version = state.version + changes.len() as u64;
        } else if facts.calm && is_rehoming(state, &changes) {
            self.moved = Some(now);
            self.moving.extend(changes.iter().map(Change::shard));
        }
        vec![Command::Plan(changes)]
    }
}

/// Whether a plan only says of shards that are where they belong that a copy belongs elsewhere.
fn is_rehoming(state: &State, changes: &[Change]) -> bool {
    let is = |change: &Change| matches!(change, Change::Home { shard, .. } if has_arrived(state, *shard));
    changes.iter().all(is)
}

/// Whether a shard's copies are where they belong, and nowhere else.
fn has_arrived(state: &State, shard: ShardId) -> bool {
    let at = shard.0 as usize;
    let Some((config, homes)) = state.shards.get(at).zip(state.homes.get(at)) else { return true };
    let is_home = |node: &NodeId| homes.contains(node);
    config.joining.is_empty() && config.in_sync.len() == homes.len() && config.in_sync.iter().all(is_home)
}

/// Whether a plan only changes primaries among the same copies.
fn is_move(state: &State, changes: &[Change]) -> bool {
    let moves = |change: &Change| {
        let Change::Configure { config, .. } = change else { return false };
        let current = state.shards.get(config.shard.0 as usize);
        current.is_some_and(|current| current.in_sync == config.in_sync && current.joining == config.joining)
    };
    changes.iter().all(moves)
}

#[cfg(test)]
mod tests;
