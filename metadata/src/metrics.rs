//! What a member tells about itself.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tricord_runtime::Metrics;

use crate::raft::Leadership;
use crate::state::State;

/// The member's metrics.
pub(crate) struct MemberMetrics {
    term: Gauge,
    leader: Gauge,
    is_leader: Gauge,
    applied: Gauge,
    nodes: Gauge,
    nodes_alive: Gauge,
    map_version: Gauge,
    shards_without_primary: Gauge,
    shards_under_replicated: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) watches: Gauge,
}

impl MemberMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.gauge(&format!("tricord_metadata_{name}"), help);
        let counter = |name: &str, help: &str| metrics.counter(&format!("tricord_metadata_{name}"), help);
        Self {
            term: gauge("term", "Raft term"),
            leader: gauge("leader", "Id of the leading member, 0 when unknown"),
            is_leader: gauge("is_leader", "Whether this member leads"),
            applied: gauge("applied_index", "Last applied entry of the Raft log"),
            nodes: gauge("nodes", "Registered processes"),
            nodes_alive: gauge("nodes_alive", "Registered processes whose heartbeats arrive"),
            map_version: gauge("map_version", "Version of the shard map"),
            shards_without_primary: gauge(
                "shards_without_live_primary",
                "Shards whose primary is missing or dead",
            ),
            shards_under_replicated: gauge(
                "shards_under_replicated",
                "Shards with fewer live in-sync copies than wanted",
            ),
            accepted: counter("proposals_accepted", "Changes of a shard's place that were taken"),
            refused: counter("proposals_refused", "Changes of a shard's place that were refused"),
            heartbeats: counter("heartbeats", "Heartbeats of nodes that this member took as leader"),
            watches: gauge("watches", "Open watches of the shard map"),
        }
    }

    /// Shows where the member is.
    pub(crate) fn show(&self, leadership: &Leadership, state: &State) {
        self.term.set(leadership.term as i64);
        self.leader.set(leadership.leader as i64);
        self.is_leader.set(i64::from(leadership.mine));
        self.applied.set(leadership.applied as i64);
        self.nodes.set(state.nodes.len() as i64);
        self.nodes_alive.set(state.nodes.values().filter(|node| node.info.alive).count() as i64);
        self.map_version.set(state.version as i64);
        let headless =
            state.shards.iter().filter(|shard| !shard.primary.is_some_and(|node| state.is_alive(node)));
        self.shards_without_primary.set(headless.count() as i64);
        let live =
            |nodes: &[tricord_model::NodeId]| nodes.iter().filter(|node| state.is_alive(**node)).count();
        let thin = state.shards.iter().filter(|shard| live(&shard.in_sync) < state.replicas as usize);
        self.shards_under_replicated.set(thin.count() as i64);
    }
}
