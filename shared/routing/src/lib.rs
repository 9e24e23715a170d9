//! From labels and trace ids to shards, and from shards to the nodes that hold them.

mod hash;
mod map;

pub use hash::{RULE_VERSION, Sharder, series_shard, trace_shard};
pub use map::{NodeInfo, NodeRole, ShardConfig, ShardMap};
