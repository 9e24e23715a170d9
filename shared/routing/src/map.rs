//! The shard map: which nodes hold a shard, under which epoch.

use serde::{Deserialize, Serialize};
use tricord_model::{Epoch, NodeId, ShardId, TenantOverrides};

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Raft member.
    Metadata,
    /// Data node.
    Querier,
    /// Takes writes.
    Ingester,
    /// Answers queries.
    Proxy,
    /// All roles in one process.
    All,
}

impl NodeRole {
    /// The role's name, which is also its subcommand.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Querier => "querier",
            Self::Ingester => "ingester",
            Self::Proxy => "proxy",
            Self::All => "all",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Metadata, Self::Querier, Self::Ingester, Self::Proxy, Self::All]
            .into_iter()
            .find(|r| r.as_str() == name)
    }
}

/// A registered process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its identity, from its disk.
    pub id: NodeId,
    /// What it is.
    pub role: NodeRole,
    /// `host:port` of its gRPC listener.
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
}

/// One shard's place. Every change raises the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardConfig {
    /// The shard.
    pub shard: ShardId,
    /// The version of this configuration.
    pub epoch: Epoch,
    /// Who orders writes; none only before the first placement.
    pub primary: Option<NodeId>,
    /// The replicas that hold every acknowledged write, the primary among them.
    pub in_sync: Vec<NodeId>,
    /// Replicas that are catching up.
    pub joining: Vec<NodeId>,
}

impl ShardConfig {
    /// Whether a node has a copy, complete or not.
    #[must_use]
    pub fn holds(&self, node: NodeId) -> bool {
        self.in_sync.contains(&node) || self.joining.contains(&node)
    }
}

/// The whole map as metadata publishes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    /// Raised by every change of anything in the map.
    pub version: u64,
    /// Minted once, checked by every node.
    pub cluster_id: String,
    /// All shards, by their number.
    pub shards: Vec<ShardConfig>,
    /// All registered processes, by id.
    pub nodes: Vec<NodeInfo>,
    /// How many copies are wanted.
    pub replicas: u32,
    /// How many in-sync copies a write needs at least.
    pub min_insync: u32,
    /// What tenants may send, where that differs from the settings.
    pub limits: TenantOverrides,
}

impl ShardMap {
    /// How many shards the cluster has.
    #[must_use]
    pub fn shard_count(&self) -> u32 {
        self.shards.len() as u32
    }

    /// A shard's configuration.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&ShardConfig> {
        self.shards.get(shard.0 as usize)
    }

    /// A registered process.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Whether the map has shards and each has a primary, so that writes can be routed.
    #[must_use]
    pub fn is_placed(&self) -> bool {
        !self.shards.is_empty() && self.shards.iter().all(|shard| shard.primary.is_some())
    }
}
