//! Evening out: one small step at a time towards equal numbers of primaries and of copies on all nodes, and from there
//! towards equal load, by swapping a heavy shard for a lighter one.

use tricord_model::{NodeId, ShardId};
use tricord_routing::{NodeInfo, ShardConfig};

use super::{Facts, Loads, shares_zone};
use crate::state::{Change, State};

/// Two nodes whose loads differ by less than this percentage of the mean are even.
const EVEN_PERCENT: u64 = 25;
/// A swap must bring them closer by at least this percentage of the mean, as it costs something itself.
const GAIN_PERCENT: u64 = 10;

/// One step, or none where nothing is worth one.
pub(super) fn even_out(state: &State, facts: &Facts, loads: &Loads) -> Vec<Change> {
    let stays = |node: &&NodeInfo| !node.draining;
    let nodes: Vec<NodeId> = state.data_nodes().filter(stays).map(|node| node.id).collect();
    let is_busy = state.shards.iter().any(|config| !config.joining.is_empty());
    if is_busy || nodes.iter().any(|node| !state.is_alive(*node)) {
        return Vec::new();
    }
    let primaries = Primaries { state, facts };
    let copies = Copies { state, facts };
    let step = one_over(&primaries, &nodes, |node| loads.primaries(node))
        .or_else(|| one_over(&copies, &nodes, |node| loads.copies(node)));
    match step {
        Some(change) => vec![change],
        None => swap(&primaries, &nodes).or_else(|| swap(&copies, &nodes)).unwrap_or_default(),
    }
}

/// What can be moved from node to node.
trait Movable {
    /// The shards that a node has, with their weights.
    fn on(&self, node: NodeId) -> Vec<(u64, ShardId)>;

    /// The change by which one goes from one node to another, where it may.
    fn change(&self, shard: ShardId, from: NodeId, to: NodeId) -> Option<Change>;

    fn load(&self, node: NodeId) -> u64 {
        self.on(node).iter().map(|(weight, _)| weight).sum()
    }
}

/// The role of the primary, which goes to another in-sync replica.
struct Primaries<'a> {
    state: &'a State,
    facts: &'a Facts,
}

/// Copies, which go to nodes that have none.
struct Copies<'a> {
    state: &'a State,
    facts: &'a Facts,
}

fn weight(facts: &Facts, shard: ShardId) -> u64 {
    facts.weights.get(&shard).copied().unwrap_or(0)
}

impl Movable for Primaries<'_> {
    fn on(&self, node: NodeId) -> Vec<(u64, ShardId)> {
        let led = self.state.shards.iter().filter(|config| config.primary == Some(node));
        led.map(|config| (weight(self.facts, config.shard), config.shard)).collect()
    }

    fn change(&self, shard: ShardId, _from: NodeId, to: NodeId) -> Option<Change> {
        let config = self.state.shards.get(shard.0 as usize).filter(|config| config.in_sync.contains(&to))?;
        let next = ShardConfig { primary: Some(to), ..config.clone() };
        Some(Change::Configure { expected: config.epoch, config: next })
    }
}

impl Movable for Copies<'_> {
    fn on(&self, node: NodeId) -> Vec<(u64, ShardId)> {
        let shards = (0..).map(ShardId).zip(&self.state.homes);
        let here = shards.filter(|(_, homes)| homes.contains(&node));
        here.map(|(shard, _)| (weight(self.facts, shard), shard)).collect()
    }

    fn change(&self, shard: ShardId, from: NodeId, to: NodeId) -> Option<Change> {
        let homes = self.state.homes.get(shard.0 as usize)?;
        let rest: Vec<NodeId> = homes.iter().copied().filter(|home| *home != from).collect();
        // A move never puts two copies into one zone where they were in two.
        let fits = rest.len() + 1 == homes.len()
            && !homes.contains(&to)
            && (!shares_zone(self.state, to, &rest) || shares_zone(self.state, from, &rest));
        let after = rest.into_iter().chain([to]).collect();
        fits.then(|| Change::Home { shard, from: homes.clone(), to: after })
    }
}

/// Pairs of a more and a less loaded node whose loads differ by at least so much, the most loaded first.
fn uneven<L: Copy + Ord + std::ops::Add<Output = L>>(
    nodes: &[NodeId],
    load: impl Fn(NodeId) -> L,
    by: L,
) -> impl Iterator<Item = (NodeId, NodeId)> {
    let mut by_load: Vec<(L, NodeId)> = nodes.iter().map(|node| (load(*node), *node)).collect();
    by_load.sort_unstable();
    by_load.clone().into_iter().rev().flat_map(move |most| {
        let less = by_load.clone().into_iter().take_while(move |least| least.0 + by <= most.0);
        less.map(move |least| (most.1, least.1))
    })
}

/// From a node that has at least two more than another one goes there: the one that leaves their loads closest.
fn one_over(what: &impl Movable, nodes: &[NodeId], count: impl Fn(NodeId) -> usize) -> Option<Change> {
    uneven(nodes, count, 2).find_map(|(most, least)| {
        let gap = what.load(most).abs_diff(what.load(least));
        let heavier = what.load(most) >= what.load(least);
        let left = |weight: u64| if heavier { gap.abs_diff(2 * weight) } else { gap + 2 * weight };
        let movable = what.on(most).into_iter();
        let movable =
            movable.filter_map(|(weight, shard)| Some((left(weight), what.change(shard, most, least)?)));
        movable.min_by_key(|(left, _)| *left).map(|(_, change)| change)
    })
}

/// A heavy one of a loaded node for a lighter one of another, so that numbers stay as they are.
fn swap(what: &impl Movable, nodes: &[NodeId]) -> Option<Vec<Change>> {
    let total: u64 = nodes.iter().map(|node| what.load(*node)).sum();
    let mean = total / (nodes.len() as u64).max(1);
    let tolerated = (mean / 100 * EVEN_PERCENT).max(1);
    uneven(nodes, |node| what.load(node), tolerated).find_map(|(most, least)| {
        let gap = what.load(most) - what.load(least);
        let mut light: Vec<(u64, Change)> = what
            .on(least)
            .into_iter()
            .filter_map(|(weight, shard)| Some((weight, what.change(shard, least, most)?)))
            .collect();
        light.sort_by_key(|(weight, _)| *weight);
        let heavy = what.on(most).into_iter();
        let heavy = heavy.filter_map(|(weight, shard)| Some((weight, what.change(shard, most, least)?)));
        // What each would leave of the gap with the best of the lighter ones: half of it is what a swap should move.
        let pairs = heavy.filter_map(|(weight, change)| {
            let behind = light.partition_point(|(lighter, _)| weight.saturating_sub(gap / 2) > *lighter);
            let near = [behind.checked_sub(1), Some(behind)].into_iter().flatten();
            let near = near.filter_map(|at| light.get(at)).filter(|(lighter, _)| *lighter < weight);
            let left = near.map(|(lighter, back)| (gap.abs_diff(2 * (weight - lighter)), back));
            let (left, back) = left.min_by_key(|(left, _)| *left)?;
            Some((left, [change, back.clone()]))
        });
        let (left, changes) = pairs.min_by_key(|(left, _)| *left)?;
        let gain = gap.saturating_sub(left);
        (gain >= (mean / 100 * GAIN_PERCENT).max(1)).then(|| changes.to_vec())
    })
}
