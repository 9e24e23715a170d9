//! The sharding rule, version 1. Changing what is hashed is a format break.
//!
//! The hash is xxh3-64 (seed 0) over fields, each written as its length in 4 little-endian bytes and then its bytes:
//!
//! - a series with non-empty `job` and `instance`: the byte `1`, the tenant, the job, the instance;
//! - any other series: the byte `2`, the tenant, then name and value of every label but `__name__` and `le`, sorted by
//!   name;
//! - a span: the byte `3`, the tenant, the 16 bytes of the trace id.
//!
//! The shard is the hash modulo the number of shards. So a target's series lie together, and two series that differ
//! only in `__name__` or `le` are always on one shard: the planner relies on that.

use tricord_model::{Labels, METRIC_NAME, ShardId, Tenant, TraceId};
use xxhash_rust::xxh3::Xxh3;

/// The version of the rule that this build writes.
pub const RULE_VERSION: u32 = 1;

struct Hasher(Xxh3);

impl Hasher {
    fn new(kind: u8, tenant: &Tenant) -> Self {
        let mut hasher = Self(Xxh3::new());
        hasher.0.update(&[kind]);
        hasher.field(tenant.as_str().as_bytes());
        hasher
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u32).to_le_bytes());
        self.0.update(bytes);
    }

    fn shard(&self, shards: u32) -> ShardId {
        ShardId((self.0.digest() % u64::from(shards.max(1))) as u32)
    }
}

/// The shard of a series.
#[must_use]
pub fn series_shard(tenant: &Tenant, labels: &Labels, shards: u32) -> ShardId {
    let pairs: Vec<_> = labels.iter().collect();
    shard_of_pairs(tenant, &pairs, target(&pairs), shards)
}

/// Job and instance, where neither is empty.
fn target<'a>(pairs: &[(&'a str, &'a str)]) -> Option<(&'a str, &'a str)> {
    let (mut job, mut instance) = ("", "");
    for (name, value) in pairs {
        match *name {
            "job" => job = value,
            "instance" => instance = value,
            _ => {}
        }
    }
    (!job.is_empty() && !instance.is_empty()).then_some((job, instance))
}

fn shard_of_pairs(
    tenant: &Tenant,
    pairs: &[(&str, &str)],
    target: Option<(&str, &str)>,
    shards: u32,
) -> ShardId {
    if let Some((job, instance)) = target {
        let mut hasher = Hasher::new(1, tenant);
        hasher.field(job.as_bytes());
        hasher.field(instance.as_bytes());
        return hasher.shard(shards);
    }
    let mut hasher = Hasher::new(2, tenant);
    for (name, value) in pairs.iter().filter(|(name, _)| *name != METRIC_NAME && *name != "le") {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    hasher.shard(shards)
}

/// Finds the shards of many series of one tenant. Senders write a target's series one after another, so the last target
/// is remembered.
#[derive(Clone, Debug)]
pub struct Sharder {
    tenant: Tenant,
    shards: u32,
    job: String,
    instance: String,
    shard: ShardId,
}

impl Sharder {
    /// For a tenant in a cluster with so many shards.
    #[must_use]
    pub fn new(tenant: Tenant, shards: u32) -> Self {
        // No target has an empty job, so this is the memory of none.
        Self { tenant, shards, job: String::new(), instance: String::new(), shard: ShardId(0) }
    }

    /// The shard of a series with these labels, sorted by name: that of [`series_shard`].
    pub fn series(&mut self, pairs: &[(&str, &str)]) -> ShardId {
        let target = target(pairs);
        let Some((job, instance)) = target else {
            return shard_of_pairs(&self.tenant, pairs, None, self.shards);
        };
        if self.job != job || self.instance != instance {
            self.shard = shard_of_pairs(&self.tenant, pairs, target, self.shards);
            job.clone_into(&mut self.job);
            instance.clone_into(&mut self.instance);
        }
        self.shard
    }

    /// The shard of a trace of the tenant.
    #[must_use]
    pub fn trace(&self, trace: &TraceId) -> ShardId {
        trace_shard(&self.tenant, trace, self.shards)
    }
}

/// The shard of a trace.
#[must_use]
pub fn trace_shard(tenant: &Tenant, trace: &TraceId, shards: u32) -> ShardId {
    let mut hasher = Hasher::new(3, tenant);
    hasher.field(&trace.0);
    hasher.shard(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: u32) {
        let labels = Labels::from_pairs(pairs.iter().copied());
        assert_eq!(series_shard(&Tenant::default(), &labels, 64), ShardId(expected));
    }

    /// Test vectors from another implementation of xxh3: if one of these changes, data already written is no longer found.
    #[test]
    fn the_rule_does_not_drift() {
        check(&[("__name__", "up"), ("job", "node"), ("instance", "host-1:9100")], 11);
        check(&[("__name__", "up"), ("job", "node")], 14);
        check(&[("__name__", "up")], 46);
        assert_eq!(trace_shard(&Tenant::default(), &TraceId([7; 16]), 64), ShardId(59));
    }

    #[test]
    fn the_remembered_target_changes_nothing() {
        let mut sharder = Sharder::new(Tenant::default(), 64);
        let sets: [&[(&str, &str)]; 7] = [
            &[],
            &[("instance", "a"), ("job", "j")],
            &[("__name__", "up"), ("instance", "a"), ("job", "j")],
            &[("instance", "b"), ("job", "j")],
            &[("job", "j")],
            &[("instance", "b"), ("job", "i")],
            &[("instance", "b"), ("job", "j")],
        ];
        for pairs in sets {
            let labels = Labels::from_pairs(pairs.iter().copied());
            assert_eq!(sharder.series(pairs), series_shard(&Tenant::default(), &labels, 64), "{labels}");
        }
    }

    #[test]
    fn name_and_le_never_move_a_series() {
        let of = |pairs: &[(&str, &str)]| {
            series_shard(&Tenant::default(), &Labels::from_pairs(pairs.iter().copied()), 64)
        };
        assert_eq!(
            of(&[("__name__", "a_bucket"), ("le", "1"), ("x", "y")]),
            of(&[("__name__", "a_sum"), ("x", "y")])
        );
        let target = [("job", "j"), ("instance", "i")];
        assert_eq!(
            of(&[("__name__", "up"), target[0], target[1]]),
            of(&[("cpu", "7"), target[0], target[1]])
        );
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let of = |pairs: &[(&str, &str)]| {
            series_shard(&Tenant::default(), &Labels::from_pairs(pairs.iter().copied()), 1 << 31)
        };
        assert_ne!(of(&[("job", "ab"), ("instance", "c")]), of(&[("job", "a"), ("instance", "bc")]));
    }
}
