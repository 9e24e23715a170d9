//! Shards that an answer lacks, and why.

use std::collections::HashSet;

use tricord_model::ShardId;

/// A shard for which nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingShard {
    /// Whether its live replicas are there, and what was asked for is damaged on all of them; else none is there.
    pub is_damaged: bool,
    /// Which one.
    pub shard: ShardId,
}

impl MissingShard {
    /// The shards that are missing, ascending, those without a live replica first.
    #[must_use]
    pub(super) fn of(shards: Vec<ShardId>, damaged: &HashSet<ShardId>) -> Vec<Self> {
        let missing = |shard| Self { is_damaged: damaged.contains(&shard), shard };
        let mut all: Vec<Self> = shards.into_iter().map(missing).collect();
        all.sort_unstable();
        all
    }

    /// The numbers of missing shards, ascending.
    #[must_use]
    pub fn numbers(missing: &[Self]) -> Vec<ShardId> {
        let mut shards: Vec<ShardId> = missing.iter().map(|missing| missing.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }
}

impl From<ShardId> for MissingShard {
    fn from(shard: ShardId) -> Self {
        Self { is_damaged: false, shard }
    }
}
