//! Where copies belong, who is primary, and the next step from what is to what should be. Pure: the leader calls
//! [`plan`] with the agreed state and what its clock says, and puts the answer through Raft.
//!
//! A shard's *homes* are where its copies belong. A copy that is missing at a home joins there; a copy elsewhere leaves
//! once all homes are in sync. A home changes when its node is gone for good, drained, or has far more than others.
//! Promoting a joiner is never decided here: only the primary knows that it has caught up.

mod even;

use std::collections::{BTreeMap, BTreeSet};

use tricord_model::{NodeId, ShardId};
use tricord_routing::{NodeInfo, ShardConfig};

use crate::state::{Change, State};

/// How many copies a node may be catching up with at once.
const MAX_JOINING_PER_NODE: usize = 16;

/// What the leader's clock says.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Nodes that have been dead for so long that their copies are made elsewhere.
    pub gone: BTreeSet<NodeId>,
    /// Whether the first data nodes have had time to arrive.
    pub settled: bool,
    /// Whether nothing has happened for a while, so that load may be evened out.
    pub calm: bool,
    /// The load of each shard, as numbers that can be added up: of those that are not there none is known.
    pub weights: BTreeMap<ShardId, u64>,
}

/// How many copies and primaries each node has while a plan is made.
struct Loads {
    copies: BTreeMap<NodeId, usize>,
    primaries: BTreeMap<NodeId, usize>,
    joining: BTreeMap<NodeId, usize>,
}

impl Loads {
    fn of(state: &State) -> Self {
        let mut loads =
            Self { copies: BTreeMap::new(), primaries: BTreeMap::new(), joining: BTreeMap::new() };
        for node in state.data_nodes() {
            loads.copies.insert(node.id, 0);
            loads.primaries.insert(node.id, 0);
        }
        for node in state.homes.iter().flatten() {
            *loads.copies.entry(*node).or_default() += 1;
        }
        for config in &state.shards {
            if let Some(primary) = config.primary {
                *loads.primaries.entry(primary).or_default() += 1;
            }
            for node in &config.joining {
                *loads.joining.entry(*node).or_default() += 1;
            }
        }
        loads
    }

    fn copies(&self, node: NodeId) -> usize {
        self.copies.get(&node).copied().unwrap_or(0)
    }

    fn primaries(&self, node: NodeId) -> usize {
        self.primaries.get(&node).copied().unwrap_or(0)
    }

    /// Who of these should be primary, counted as such.
    fn take_primary(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        let chosen =
            nodes.iter().copied().min_by_key(|node| (self.primaries(*node), self.copies(*node), *node))?;
        *self.primaries.entry(chosen).or_default() += 1;
        Some(chosen)
    }

    /// The best further home: another zone first, then the fewest copies; counted as such.
    fn take_home(&mut self, state: &State, candidates: &[NodeId], homes: &[NodeId]) -> Option<NodeId> {
        let free = candidates.iter().copied().filter(|node| !homes.contains(node));
        let chosen = free.min_by_key(|node| (shares_zone(state, *node, homes), self.copies(*node), *node))?;
        *self.copies.entry(chosen).or_default() += 1;
        Some(chosen)
    }
}

/// Whether a node's zone (where it has one) already has one of these nodes.
fn shares_zone(state: &State, node: NodeId, others: &[NodeId]) -> bool {
    let zone = |node: &NodeId| {
        state.nodes.get(node).map(|node| node.info.zone.as_str()).filter(|zone| !zone.is_empty())
    };
    let own = zone(&node);
    own.is_some() && others.iter().filter(|other| **other != node).any(|other| zone(other) == own)
}

/// The next steps. Calling it again after they are applied gives the steps that follow, until there are none.
#[must_use]
pub fn plan(state: &State, facts: &Facts) -> Vec<Change> {
    if !state.is_born() {
        return Vec::new();
    }
    if state.shards.iter().any(|config| config.primary.is_none()) {
        return if facts.settled { place(state) } else { Vec::new() };
    }
    let mut loads = Loads::of(state);
    let mut changes: Vec<Change> = Vec::new();
    for (config, homes) in state.shards.iter().zip(&state.homes) {
        let wanted = rehome(state, facts, homes, &mut loads);
        if wanted != *homes {
            changes.push(Change::Home { shard: config.shard, from: homes.clone(), to: wanted.clone() });
        }
        if let Some(next) = step(state, config, &wanted, &mut loads) {
            changes.push(Change::Configure { expected: config.epoch, config: next });
        }
    }
    if changes.is_empty() && facts.calm {
        changes.extend(even::even_out(state, facts, &loads));
    }
    changes
}

/// The first placement: every shard empty and in sync everywhere.
fn place(state: &State) -> Vec<Change> {
    let usable = |node: &&NodeInfo| node.alive && !node.draining;
    let candidates: Vec<NodeId> = state.data_nodes().filter(usable).map(|node| node.id).collect();
    if candidates.len() < state.min_insync.max(1) as usize {
        return Vec::new();
    }
    let copies = candidates.len().min(state.replicas as usize);
    let mut loads = Loads::of(state);
    let mut changes = Vec::new();
    for config in state.shards.iter().filter(|config| config.primary.is_none()) {
        let mut homes = Vec::with_capacity(copies);
        while homes.len() < copies
            && let Some(home) = loads.take_home(state, &candidates, &homes)
        {
            homes.push(home);
        }
        let primary = loads.take_primary(&homes);
        let from = state.homes.get(config.shard.0 as usize).cloned().unwrap_or_default();
        changes.push(Change::Home { shard: config.shard, from, to: homes.clone() });
        let config = ShardConfig { primary, in_sync: homes, joining: Vec::new(), ..config.clone() };
        changes.push(Change::Configure { expected: config.epoch, config });
    }
    changes
}

/// Where a shard's copies belong now.
fn rehome(state: &State, facts: &Facts, homes: &[NodeId], loads: &mut Loads) -> Vec<NodeId> {
    let stays = |node: &NodeInfo| !node.draining && !facts.gone.contains(&node.id);
    let usable: Vec<&NodeInfo> = state.data_nodes().filter(|node| stays(node)).collect();
    let candidates: Vec<NodeId> = usable.iter().filter(|node| node.alive).map(|node| node.id).collect();
    let wanted = (state.replicas as usize).min(usable.len());
    let (mut kept, left): (Vec<NodeId>, Vec<NodeId>) =
        homes.iter().partition(|home| usable.iter().any(|node| node.id == **home));
    while kept.len() < wanted
        && let Some(home) = loads.take_home(state, &candidates, &kept)
    {
        kept.push(home);
    }
    // Rather a leaving home than fewer copies than writes need.
    let missing = (state.min_insync as usize).saturating_sub(kept.len());
    kept.extend(left.into_iter().take(missing));
    kept
}

/// The next configuration of one shard, or none where it is as it should be.
fn step(state: &State, config: &ShardConfig, homes: &[NodeId], loads: &mut Loads) -> Option<ShardConfig> {
    let mut next = config.clone();
    let live: Vec<NodeId> = config.in_sync.iter().copied().filter(|node| state.is_alive(*node)).collect();
    if !config.primary.is_some_and(|primary| state.is_alive(primary)) {
        // Without a live in-sync member there is nothing to do but wait: any other copy may lack acknowledged writes.
        next.primary = Some(loads.take_primary(&live)?);
        // With too few the dead stay members: writes wait for them, reads go on.
        if live.len() >= state.min_insync as usize {
            next.in_sync = live;
        }
    }
    leave(state, &mut next, homes, loads);
    next.joining.retain(|node| homes.contains(node) && state.is_alive(*node));
    for home in homes {
        let joining = loads.joining.entry(*home).or_default();
        if state.is_alive(*home) && !next.holds(*home) && *joining < MAX_JOINING_PER_NODE {
            next.joining.push(*home);
            *joining += 1;
        }
    }
    (next != *config).then_some(next)
}

/// Drops copies that are not at home, once all homes live and are in sync.
fn leave(state: &State, next: &mut ShardConfig, homes: &[NodeId], loads: &mut Loads) {
    let complete = homes.iter().all(|home| next.in_sync.contains(home) && state.is_alive(*home));
    if !complete || homes.len() < state.min_insync.max(1) as usize || next.in_sync.len() == homes.len() {
        return;
    }
    next.in_sync.retain(|node| homes.contains(node));
    if !next.primary.is_some_and(|primary| homes.contains(&primary)) {
        next.primary = loads.take_primary(homes);
    }
}

#[cfg(test)]
pub(crate) mod tests;
