//! Which replica answers for which shard: a pure choice over the shard map.

use std::collections::{BTreeMap, HashMap, HashSet};

use tricord_model::{Epoch, NodeId, ShardId};
use tricord_routing::ShardMap;

/// How a fragment's shards are spread over the nodes that could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Over all replicas, for work that is worth it.
    Even,
    /// Over few nodes, for lookups whose cost is the round trip.
    Few,
}

/// The shards that each node is asked for, under which epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) by_node: BTreeMap<NodeId, Vec<(ShardId, Epoch)>>,
    /// Shards without a replica that is left to ask.
    pub(crate) nobody: Vec<ShardId>,
}

/// Chooses one in-sync replica per shard, none of those in `tried`. Nodes that metadata counts as dead come last: it
/// may be wrong, and asking costs little. `turn` rotates the choice among equals from query to query.
pub(crate) fn assign(
    map: &ShardMap,
    shards: &[ShardId],
    tried: &HashSet<(ShardId, NodeId)>,
    local: &dyn Fn(NodeId) -> bool,
    spread: Spread,
    turn: u64,
) -> Assignment {
    let alive: HashSet<NodeId> = map.nodes.iter().filter(|node| node.alive).map(|node| node.id).collect();
    let mut load: HashMap<NodeId, usize> = HashMap::new();
    if spread == Spread::Few {
        load = coverage(map, shards, tried);
    }
    let mut assignment = Assignment::default();
    for shard in shards {
        let Some(config) = map.shard(*shard) else {
            assignment.nobody.push(*shard);
            continue;
        };
        let candidates = config.in_sync.iter().filter(|node| !tried.contains(&(*shard, **node)));
        let best = candidates.min_by_key(|node| {
            let count = load.get(node).copied().unwrap_or(0);
            let rank = match spread {
                Spread::Even => count,
                Spread::Few => usize::MAX - count,
            };
            let turned = node.0.wrapping_sub(1).wrapping_add(turn) % map.nodes.len().max(1) as u64;
            (!alive.contains(node), rank, !local(**node), turned, node.0)
        });
        let Some(node) = best else {
            assignment.nobody.push(*shard);
            continue;
        };
        if spread == Spread::Even {
            *load.entry(*node).or_default() += 1;
        }
        assignment.by_node.entry(*node).or_default().push((*shard, config.epoch));
    }
    assignment
}

/// How many of the shards each node could answer for.
fn coverage(
    map: &ShardMap,
    shards: &[ShardId],
    tried: &HashSet<(ShardId, NodeId)>,
) -> HashMap<NodeId, usize> {
    let mut load = HashMap::new();
    for config in shards.iter().filter_map(|shard| map.shard(*shard)) {
        for node in config.in_sync.iter().filter(|node| !tried.contains(&(config.shard, **node))) {
            *load.entry(*node).or_default() += 1;
        }
    }
    load
}

#[cfg(test)]
mod tests {
    use tricord_routing::{NodeInfo, NodeRole, ShardConfig};

    use super::*;

    fn map(in_sync: &[&[u64]], dead: &[u64]) -> ShardMap {
        let shards = in_sync.iter().enumerate().map(|(at, nodes)| ShardConfig {
            shard: ShardId(at as u32),
            epoch: Epoch(7),
            primary: nodes.first().map(|node| NodeId(*node)),
            in_sync: nodes.iter().map(|node| NodeId(*node)).collect(),
            joining: vec![],
        });
        let nodes = (1..=3).map(|id| NodeInfo {
            id: NodeId(id),
            role: NodeRole::Querier,
            rpc: String::new(),
            http: String::new(),
            zone: String::new(),
            version: String::new(),
            alive: !dead.contains(&id),
            draining: false,
        });
        ShardMap { version: 1, shards: shards.collect(), nodes: nodes.collect(), ..ShardMap::default() }
    }

    #[track_caller]
    fn check(map: &ShardMap, tried: &[(u32, u64)], local: Option<u64>, spread: Spread, expected: &str) {
        let shards: Vec<_> = map.shards.iter().map(|config| config.shard).collect();
        let tried = tried.iter().map(|(shard, node)| (ShardId(*shard), NodeId(*node))).collect();
        let got = assign(map, &shards, &tried, &|node| Some(node.0) == local, spread, 0);
        let mut text: Vec<String> = got
            .by_node
            .iter()
            .map(|(node, shards)| {
                let shards: Vec<_> = shards.iter().map(|(shard, _)| shard.to_string()).collect();
                format!("{node}:{}", shards.join(","))
            })
            .collect();
        if !got.nobody.is_empty() {
            text.push(format!("nobody:{:?}", got.nobody.iter().map(|shard| shard.0).collect::<Vec<_>>()));
        }
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn work_is_spread_and_lookups_are_not() {
        let all: &[u64] = &[1, 2, 3];
        check(&map(&[all; 6], &[]), &[], None, Spread::Even, "1:0,3 2:1,4 3:2,5");
        check(&map(&[all; 4], &[]), &[], Some(2), Spread::Few, "2:0,1,2,3");
        check(&map(&[&[1, 2], &[2, 3], &[2, 1]], &[]), &[], None, Spread::Few, "2:0,1,2");
    }

    #[test]
    fn the_dead_come_last_and_the_tried_never() {
        check(&map(&[&[1, 2], &[1, 2]], &[1]), &[], None, Spread::Even, "2:0,1");
        check(&map(&[&[1]], &[1]), &[], None, Spread::Even, "1:0");
        check(&map(&[&[1, 2], &[1]], &[]), &[(0, 1), (1, 1)], None, Spread::Even, "2:0 nobody:[1]");
    }
}
