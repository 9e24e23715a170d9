//! A cluster as people see it: what metadata says, with what follows from it worked out. `tricord cluster status` and
//! the web page show the same view; its JSON form is [`ClusterView`] as it is written here. Words for people are in
//! `sentences`; what is true of the cluster is for metadata to say.

mod build;
mod sentences;

pub use sentences::bytes;

use std::collections::BTreeMap;

use serde::Serialize;

/// A cluster at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterView {
    /// Minted at its birth.
    pub cluster_id: String,
    /// The version of the shard map.
    pub version: u64,
    /// Copies wanted of each shard.
    pub replicas: u32,
    /// Live in-sync copies that a write needs.
    pub min_insync: u32,
    /// The leading metadata member, 0 where none is known.
    pub leader: u64,
    /// The Raft term of the metadata group.
    pub term: u64,
    /// How the cluster is as a whole.
    pub level: Level,
    /// The most important thing to know, in a sentence.
    pub headline: String,
    /// What else is going on, the most important first.
    pub notes: Vec<String>,
    /// How many shards are in each state that occurs.
    pub shard_states: BTreeMap<ShardState, usize>,
    /// Copies that are being made now.
    pub copies_joining: usize,
    /// Copies that are still to be made on live nodes, and are not being made yet.
    pub copies_waiting: usize,
    /// The metadata group.
    pub members: Vec<MemberView>,
    /// All registered processes.
    pub nodes: Vec<NodeView>,
    /// All shards, by number.
    pub shards: Vec<ShardView>,
}

/// How a cluster is as a whole, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everything is where it belongs.
    Ok,
    /// Copies move; nothing is missing.
    Working,
    /// Something is missing; writes and queries go on.
    Degraded,
    /// Some writes or queries fail.
    Trouble,
}

/// How a shard is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ShardState {
    /// All wanted copies are live and in sync.
    #[serde(rename = "ok")]
    Ok,
    /// Fewer copies than wanted.
    #[serde(rename = "degraded")]
    Degraded,
    /// Fewer live copies than a write needs.
    #[serde(rename = "read-only")]
    ReadOnly,
    /// Live copies, but none that leads.
    #[serde(rename = "no primary")]
    NoPrimary,
    /// No live copy that is in sync.
    #[serde(rename = "down")]
    Down,
}

impl ShardState {
    /// The state's name, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::ReadOnly => "read-only",
            Self::NoPrimary => "no primary",
            Self::Down => "down",
        }
    }
}

/// A member of the metadata group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberView {
    /// Its id within the group.
    pub id: u64,
    /// `host:port` for other roles.
    pub rpc: String,
    /// Whether it votes, or still learns.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// How long ago it answered the leader, in milliseconds.
    pub heard_age_ms: Option<u64>,
    /// Whether it answers the leader; `None` where the leader's build does not tell.
    pub answers: Option<bool>,
}

/// A registered process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// Its id.
    pub id: u64,
    /// `querier`, `ingester`, `proxy` or `all`.
    pub role: String,
    /// `host:port` for other roles.
    pub rpc: String,
    /// `host:port` of its HTTP listener.
    pub http: String,
    /// Its failure domain, or empty.
    pub zone: String,
    /// Its build.
    pub version: String,
    /// Whether its heartbeats arrive.
    pub alive: bool,
    /// Whether it is being emptied.
    pub draining: bool,
    /// Whether it is a data node.
    pub stores: bool,
    /// Age of its last heartbeat, in milliseconds.
    pub heartbeat_age_ms: Option<u64>,
    /// Bytes that its data takes.
    pub disk_used_bytes: Option<u64>,
    /// Bytes free on its disk.
    pub disk_free_bytes: Option<u64>,
    /// Shards that it leads.
    pub primaries: usize,
    /// Copies in sync, the ones that it leads among them.
    pub copies: usize,
    /// Copies that are being made there.
    pub joining: usize,
    /// Copies that are to be made there and are not begun.
    pub waiting: usize,
    /// Copies in sync that go as soon as others are complete.
    pub leaving: usize,
    /// Series in use, over its copies.
    pub series: Option<u64>,
    /// How far it is emptied, while it is draining.
    pub drain: Option<DrainView>,
}

/// How far a node is emptied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DrainView {
    /// Shards that still have a copy there.
    pub left: u32,
    /// Shards that had one when the drain began, as far as the leader knows.
    pub of: u32,
    /// What the rest waits for, for people.
    pub waits_for: String,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardView {
    /// Its number.
    pub shard: u32,
    /// The version of its configuration.
    pub epoch: u64,
    /// The node that orders writes, 0 for none.
    pub primary: u64,
    /// Nodes with every acknowledged write.
    pub in_sync: Vec<u64>,
    /// Nodes that are catching up.
    pub joining: Vec<u64>,
    /// Nodes that are to have a copy and have not begun.
    pub waiting: Vec<u64>,
    /// In-sync nodes whose copies go as soon as the others are complete.
    pub leaving: Vec<u64>,
    /// How it is.
    pub state: ShardState,
    /// Entries that each copy is behind the primary, as far as both have reported.
    pub lag: BTreeMap<u64, Option<u64>>,
    /// Bytes of a snapshot that have arrived at each node that is being sent one.
    pub arrived_bytes: BTreeMap<u64, u64>,
    /// Series in use, as the primary counts them.
    pub series: Option<u64>,
    /// What is still to happen until the shard is as it should be, for people.
    pub todo: Vec<String>,
}

impl ShardView {
    /// The largest lag of a copy but the primary.
    #[must_use]
    pub fn worst_lag(&self) -> Option<u64> {
        let others = self.lag.iter().filter(|(node, _)| **node != self.primary);
        others.filter_map(|(_, lag)| *lag).max()
    }
}

#[cfg(test)]
mod tests;
