//! From metadata's answer to the view: states, lags and counts.

use std::collections::{BTreeMap, HashMap, HashSet};

use tricord_wire::proto::metadata as pb;

use super::{ClusterView, DrainView, Level, MemberView, NodeView, ShardState, ShardView, sentences};

/// A member that has answered within this time answers: the leader asks several times a second.
const ANSWER_LIMIT_MS: u64 = 3_000;

/// Metadata's answer with what is looked up in it again and again.
struct Facts<'a> {
    status: &'a pb::MetadataStatusResponse,
    map: pb::ShardMap,
    alive: HashSet<u64>,
    reports: HashMap<u64, &'a pb::NodeReport>,
    replicas: HashMap<(u64, u32), &'a pb::ReplicaReport>,
}

impl ClusterView {
    /// The view of what metadata said.
    #[must_use]
    pub fn new(status: &pb::MetadataStatusResponse) -> Self {
        let facts = Facts::new(status);
        let shards: Vec<ShardView> = facts.map.shards.iter().map(|shard| facts.shard(shard)).collect();
        let nodes: Vec<NodeView> = facts.map.nodes.iter().map(|node| facts.node(node, &shards)).collect();
        let mut shard_states = BTreeMap::new();
        for shard in &shards {
            *shard_states.entry(shard.state).or_insert(0) += 1;
        }
        let mut view = Self {
            cluster_id: facts.map.cluster_id.clone(),
            version: facts.map.version,
            replicas: facts.map.replicas,
            min_insync: facts.map.min_insync,
            leader: status.leader,
            term: status.raft_term,
            level: Level::Ok,
            headline: String::new(),
            notes: Vec::new(),
            shard_states,
            copies_joining: shards.iter().map(|shard| shard.joining.len()).sum(),
            copies_waiting: nodes.iter().filter(|node| node.alive).map(|node| node.waiting).sum(),
            members: members(status),
            nodes,
            shards,
        };
        sentences::add(&mut view);
        view
    }

    /// How many shards are in a state.
    #[must_use]
    pub fn count(&self, state: ShardState) -> usize {
        self.shard_states.get(&state).copied().unwrap_or(0)
    }
}

impl<'a> Facts<'a> {
    fn new(status: &'a pb::MetadataStatusResponse) -> Self {
        let map = status.map.clone().unwrap_or_default();
        let replicas = status.reports.iter();
        let replicas =
            replicas.flat_map(|node| node.replicas.iter().map(|one| ((node.node, one.shard), one)));
        Self {
            status,
            alive: map.nodes.iter().filter(|node| node.alive).map(|node| node.node).collect(),
            map,
            reports: status.reports.iter().map(|report| (report.node, report)).collect(),
            replicas: replicas.collect(),
        }
    }

    /// Where a shard's copies belong; where the leader does not tell, they belong where they are.
    fn homes(&self, shard: &pb::ShardConfig) -> Vec<u64> {
        match self.status.homes.get(shard.shard as usize) {
            Some(homes) => homes.nodes.clone(),
            None => shard.in_sync.iter().chain(&shard.joining).copied().collect(),
        }
    }

    fn lag(&self, shard: &pb::ShardConfig, node: u64) -> Option<u64> {
        let durable = |node: u64| self.replicas.get(&(node, shard.shard)).map(|replica| replica.durable_seq);
        Some(durable(shard.primary)?.saturating_sub(durable(node)?))
    }

    /// The node with what has arrived there of a snapshot.
    fn arrived(&self, shard: &pb::ShardConfig, node: u64) -> Option<(u64, u64)> {
        let bytes = self.replicas.get(&(node, shard.shard))?.arrived_bytes;
        (bytes > 0).then_some((node, bytes))
    }

    fn state(&self, shard: &pb::ShardConfig) -> ShardState {
        let live = shard.in_sync.iter().filter(|node| self.alive.contains(node)).count();
        match live {
            0 => ShardState::Down,
            _ if !self.alive.contains(&shard.primary) => ShardState::NoPrimary,
            _ if live < self.map.min_insync as usize => ShardState::ReadOnly,
            _ if live < self.map.replicas as usize => ShardState::Degraded,
            _ => ShardState::Ok,
        }
    }

    fn shard(&self, shard: &pb::ShardConfig) -> ShardView {
        let homes = self.homes(shard);
        let holders = shard.in_sync.iter().chain(&shard.joining);
        let holds = |node: &u64| shard.in_sync.contains(node) || shard.joining.contains(node);
        let mut view = ShardView {
            shard: shard.shard,
            epoch: shard.epoch,
            primary: shard.primary,
            in_sync: shard.in_sync.clone(),
            joining: shard.joining.clone(),
            waiting: homes.iter().copied().filter(|node| !holds(node)).collect(),
            leaving: shard.in_sync.iter().copied().filter(|node| !homes.contains(node)).collect(),
            state: self.state(shard),
            lag: holders.map(|node| (*node, self.lag(shard, *node))).collect(),
            arrived_bytes: shard.joining.iter().filter_map(|node| self.arrived(shard, *node)).collect(),
            series: self.replicas.get(&(shard.primary, shard.shard)).map(|replica| replica.series),
            todo: Vec::new(),
        };
        view.todo = sentences::todo(&view, &self.alive);
        view
    }

    fn node(&self, node: &pb::NodeInfo, shards: &[ShardView]) -> NodeView {
        let address = node.address.clone().unwrap_or_default();
        let report = self.reports.get(&node.node);
        let count = |list: fn(&ShardView) -> &[u64]| {
            shards.iter().filter(|shard| list(shard).contains(&node.node)).count()
        };
        let stores = matches!(address.role.as_str(), "querier" | "all");
        let drain = self.status.drains.iter().find(|drain| drain.node == node.node && node.draining);
        NodeView {
            id: node.node,
            role: address.role,
            rpc: address.rpc,
            http: address.http,
            zone: address.zone,
            version: address.version,
            alive: node.alive,
            draining: node.draining,
            stores,
            heartbeat_age_ms: report.map(|report| report.heartbeat_age_ms),
            disk_used_bytes: report.map(|report| report.disk_used_bytes),
            disk_free_bytes: report.map(|report| report.disk_free_bytes),
            primaries: shards.iter().filter(|shard| shard.primary == node.node).count(),
            copies: count(|shard| &shard.in_sync),
            joining: count(|shard| &shard.joining),
            waiting: count(|shard| &shard.waiting),
            leaving: count(|shard| &shard.leaving),
            series: report.map(|report| series(report, shards)),
            drain: drain.map(|drain| DrainView {
                left: drain.remaining,
                of: drain.began_with,
                waits_for: drain.waits_for.clone(),
            }),
        }
    }
}

/// Series in use, over the copies that the node still has by the map: reports are a little behind it.
fn series(report: &pb::NodeReport, shards: &[ShardView]) -> u64 {
    let has =
        |shard: &ShardView| shard.in_sync.contains(&report.node) || shard.joining.contains(&report.node);
    let replicas = report.replicas.iter();
    let replicas = replicas.filter(|replica| shards.get(replica.shard as usize).is_some_and(has));
    replicas.map(|replica| replica.series).sum()
}

fn members(status: &pb::MetadataStatusResponse) -> Vec<MemberView> {
    // An older leader does not even tell that it hears itself.
    let tells = status.members.iter().any(|member| member.heard_age_ms.is_some());
    let view = |member: &pb::MemberStatus| MemberView {
        id: member.member,
        rpc: member.rpc.clone(),
        voter: member.voter,
        leader: member.member == status.leader,
        heard_age_ms: member.heard_age_ms,
        answers: tells.then(|| member.heard_age_ms.is_some_and(|age_ms| age_ms <= ANSWER_LIMIT_MS)),
    };
    status.members.iter().map(view).collect()
}
