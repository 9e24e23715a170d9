//! Which labels were seen before: a sender writes the labels of a series in the same bytes each time, and those that were
//! read and judged once need not be again.
//!
//! What is remembered is bounded: what was not seen for long is forgotten, and then read once more.

use foldhash::HashMap;
use parking_lot::{RwLock, RwLockReadGuard};
use tricord_model::{MetricMetadata, SeriesData, ShardId, Tenant};
use xxhash_rust::xxh3::xxh3_128;

use crate::decode::{Rejected, Sink};
use crate::route::Router;

/// How many label sets of each of two generations are remembered: what a table of 2^20 places takes, about 43 MiB.
const MAX_SEEN: usize = (1 << 20) / 8 * 7;
/// Labels learnt from one request at most.
const MAX_LEARNT: usize = 1 << 16;

/// Labels that were judged: where they belong. Halves keep the alignment small, and so the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    fingerprint: [u64; 2],
    shard: ShardId,
}

/// The hash of what a tenant's sender wrote.
type Key = [u64; 2];

fn halves(whole: u128) -> [u64; 2] {
    [whole as u64, (whole >> 64) as u64]
}

/// The label sets of two generations; the older one is forgotten when the younger one is full.
#[derive(Default)]
struct Generations {
    young: HashMap<Key, Seen>,
    old: HashMap<Key, Seen>,
}

impl Generations {
    fn learn(&mut self, key: Key, seen: Seen, max: usize) {
        if self.young.len() >= max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, seen);
    }
}

/// The memory of an ingester.
pub(crate) struct Memory {
    seen: RwLock<Generations>,
    max: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { seen: RwLock::default(), max: MAX_SEEN }
    }
}

impl Memory {
    /// Hands `work` a sink that routes a tenant's request and remembers.
    pub(crate) fn with<R>(
        &self,
        tenant: &Tenant,
        router: &mut Router,
        work: impl FnOnce(&mut Recalling<'_>) -> R,
    ) -> R {
        let tenant = xxh3_128(tenant.as_str().as_bytes());
        let mut sink = Recalling { router, seen: self.seen.read(), tenant, learnt: Vec::new() };
        let result = work(&mut sink);
        let learnt = std::mem::take(&mut sink.learnt);
        drop(sink);
        if !learnt.is_empty() {
            let mut seen = self.seen.write();
            learnt.into_iter().for_each(|(key, one)| seen.learn(key, one, self.max));
        }
        result
    }
}

/// A router with a memory.
pub(crate) struct Recalling<'a> {
    router: &'a mut Router,
    seen: RwLockReadGuard<'a, Generations>,
    /// A hash of the tenant's name.
    tenant: u128,
    learnt: Vec<(Key, Seen)>,
}

impl Recalling<'_> {
    fn key(&self, sent: &[u8]) -> Key {
        // Not as a seed, with which long inputs take several times as long.
        halves(xxh3_128(sent) ^ self.tenant)
    }

    fn learn(&mut self, key: Key, seen: Seen) {
        if self.learnt.len() < MAX_LEARNT {
            self.learnt.push((key, seen));
        }
    }
}

impl Sink for Recalling<'_> {
    fn series(&mut self, labels: &[(&str, &str)], sent: Option<&[u8]>, data: &SeriesData<'_>) {
        let placed = self.router.place(labels, data);
        // Only what is read as a whole the same way on the other side.
        let is_whole = |sent: &&[u8]| tricord_model::read_sent_labels(sent, &mut Vec::new()) == sent.len();
        if let (Some((fingerprint, shard)), Some(sent)) = (placed, sent.filter(is_whole)) {
            self.learn(self.key(sent), Seen { fingerprint: halves(fingerprint), shard });
        }
    }

    fn recall(&mut self, sent: &[u8], data: &SeriesData<'_>) -> bool {
        let key = self.key(sent);
        let seen = match self.seen.young.get(&key).copied() {
            Some(seen) => seen,
            None => match self.seen.old.get(&key).copied() {
                Some(seen) => {
                    self.learn(key, seen);
                    seen
                }
                None => return false,
            },
        };
        let [low, high] = seen.fingerprint;
        self.router.place_sent(u128::from(low) | u128::from(high) << 64, seen.shard, sent, data)
    }

    fn metadata(&mut self, family: String, metadata: MetricMetadata) {
        self.router.metadata(family, metadata);
    }

    fn rejected(&mut self) -> &mut Rejected {
        self.router.rejected()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use tricord_model::{Batch, Labels, Sample};

    use super::*;
    use crate::TenantLimits;
    use crate::decode::oracle::any_series;
    use crate::decode::tests::pb;
    use crate::decode::{Allowance, remote_write};
    use crate::route::Routed;

    fn routed(memory: &Memory, tenant: &Tenant, request: &pb::WriteRequest) -> Routed {
        let limits = TenantLimits { max_label_value_bytes: 127, ..TenantLimits::default() };
        let mut router = Router::new(tenant.clone(), 8, limits, 1 << 10);
        let bytes = request.encode_to_vec();
        let decode = |sink: &mut Recalling<'_>| {
            remote_write::decode(&bytes, &mut Allowance::new(1 << 20), sink).unwrap();
        };
        memory.with(tenant, &mut router, decode);
        router.finish()
    }

    type Content = Vec<(ShardId, Labels, Vec<(i64, i64, bool)>)>;

    fn content(routed: &Routed) -> Content {
        let of_sample = |sample: &Sample| {
            let is_float = matches!(sample.value, tricord_model::Value::Float(_));
            (sample.t_ms, sample.start_ms, is_float)
        };
        let mut all = Vec::new();
        for piece in routed.rounds.iter().flatten() {
            for series in Batch::decode(&piece.batch).unwrap().series {
                let samples = series.samples.iter().map(of_sample).collect();
                all.push((piece.shard, series.labels, samples));
            }
        }
        all
    }

    proptest! {
        /// Whatever is sent again gives the same, whether it is remembered, half forgotten or read anew.
        #[test]
        fn memory_changes_nothing(timeseries in prop::collection::vec(any_series(), 0..8), max in 1usize..9) {
            let request = pb::WriteRequest { timeseries, metadata: vec![] };
            let fresh = routed(&Memory::default(), &Tenant::default(), &request);
            let memory = Memory { max, ..Memory::default() };
            for _ in 0..4 {
                let again = routed(&memory, &Tenant::default(), &request);
                prop_assert_eq!(content(&again), content(&fresh));
                prop_assert_eq!(again.items, fresh.items);
                prop_assert_eq!(&again.invalid, &fresh.invalid);
                prop_assert_eq!(&again.misshapen, &fresh.misshapen);
                prop_assert!(memory.seen.read().young.len() <= max);
            }
        }
    }

    #[test]
    fn tenants_do_not_share_what_is_remembered() {
        let label = |name: &str, value: &str| pb::Label { name: name.into(), value: value.into() };
        let labels = vec![label("__name__", "up"), label("instance", "i"), label("job", "j")];
        let samples = vec![pb::Sample { value: 1.0, timestamp: 5, start_timestamp: 0 }];
        let series = pb::TimeSeries { labels, samples, ..Default::default() };
        let request = pb::WriteRequest { timeseries: vec![series], metadata: vec![] };
        let memory = Memory::default();
        for tenant in ["a", "b", "c", "d", "a"] {
            let tenant = Tenant::new(tenant).unwrap();
            let fresh = content(&routed(&Memory::default(), &tenant, &request));
            assert_eq!(content(&routed(&memory, &tenant, &request)), fresh);
        }
        assert_eq!(memory.seen.read().young.len(), 4);
    }
}
