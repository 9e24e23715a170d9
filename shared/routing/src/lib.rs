//! From labels and trace ids to shards, and from shards to the nodes that hold them.

mod hash;
mod map;

pub use hash::{series_shard, trace_shard, RULE_VERSION};
pub use map::{NodeInfo, NodeRole, ShardConfig, ShardMap};
