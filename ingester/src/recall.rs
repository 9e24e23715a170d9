//! Which labels were seen before: a sender writes the labels of a series in the same bytes each time, and those that were
//! read and judged once need not be again.
//!
//! What is remembered is bounded: what was not seen for long is forgotten, and then read once more.

use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard};
use tricord_model::{MetricMetadata, SeriesData, ShardId, Tenant};
use xxhash_rust::xxh3::xxh3_128;

use crate::decode::{Rejected, Sink};
use crate::route::Router;

/// How many label sets of each of two generations are remembered: with a table of 2^20 places they take about 40 MiB.
const MAX_SEEN: usize = (1 << 20) / 8 * 7;
/// Labels learnt from one request at most.
const MAX_LEARNT: usize = 1 << 16;

/// The hash of what a tenant's sender wrote.
type Key = [u64; 2];

/// Labels that were judged: where they belong. Halves keep the alignment small, and so the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    key: Key,
    fingerprint: [u64; 2],
    shard: ShardId,
}

fn halves(whole: u128) -> [u64; 2] {
    [whole as u64, (whole >> 64) as u64]
}

/// Label sets in the order in which they were learnt, which is mostly that in which they are sent again: behind the one
/// that was found last the next one lies, and the table need not be asked.
#[derive(Default)]
struct Generation {
    list: Vec<Seen>,
    places: HashTable<u32>,
}

impl Generation {
    /// A label set's place, if it is there; `guess` is looked at first.
    #[inline]
    fn find(&self, key: Key, guess: usize) -> Option<usize> {
        if self.list.get(guess).is_some_and(|seen| seen.key == key) {
            return Some(guess);
        }
        self.places
            .find(key[0], |place| self.at(*place).is_some_and(|seen| seen.key == key))
            .map(|p| *p as usize)
    }

    #[inline]
    fn at(&self, place: u32) -> Option<&Seen> {
        self.list.get(place as usize)
    }

    fn push(&mut self, seen: Seen) {
        let Self { list, places } = self;
        places.insert_unique(seen.key[0], list.len() as u32, |place| {
            list.get(*place as usize).map_or(0, |seen| seen.key[0])
        });
        list.push(seen);
    }
}

/// The label sets of two generations; the older one is forgotten when the younger one is full.
#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

impl Generations {
    fn learn(&mut self, seen: Seen, max: usize) {
        // Several requests may have learnt the same.
        if self.young.find(seen.key, usize::MAX).is_some() {
            return;
        }
        if self.young.list.len() >= max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.push(seen);
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

/// What goes to a data node of series whose labels were seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Their fingerprint: the data node was most likely sent their labels then.
    ByFingerprint,
    /// Their labels too, after a data node did not know some fingerprint.
    ByLabels,
}

impl Memory {
    /// Hands `work` a sink that routes a tenant's request and remembers.
    pub(crate) fn with<R>(
        &self,
        tenant: &Tenant,
        naming: Naming,
        router: &mut Router,
        work: impl FnOnce(&mut Recalling<'_>) -> R,
    ) -> R {
        let tenant = xxh3_128(tenant.as_str().as_bytes());
        let seen = self.seen.read();
        let mut sink = Recalling { router, seen, tenant, naming, next: 0, learnt: Vec::new() };
        let result = work(&mut sink);
        let learnt = std::mem::take(&mut sink.learnt);
        drop(sink);
        if !learnt.is_empty() {
            let mut seen = self.seen.write();
            learnt.into_iter().for_each(|one| seen.learn(one, self.max));
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
    naming: Naming,
    /// Behind the place of the label set that was found last.
    next: usize,
    learnt: Vec<Seen>,
}

impl Recalling<'_> {
    fn key(&self, sent: &[u8]) -> Key {
        // Not as a seed, with which long inputs take several times as long.
        halves(xxh3_128(sent) ^ self.tenant)
    }

    fn learn(&mut self, seen: Seen) {
        if self.learnt.len() < MAX_LEARNT {
            self.learnt.push(seen);
        }
    }

    /// What is remembered under a key.
    #[inline]
    fn find(&mut self, key: Key) -> Option<Seen> {
        let Generations { young, old } = &*self.seen;
        if let Some(place) = young.find(key, self.next) {
            self.next = place + 1;
            return young.list.get(place).copied();
        }
        let seen = old.find(key, usize::MAX).and_then(|place| old.list.get(place)).copied();
        if let Some(seen) = seen {
            self.learn(seen);
        }
        seen
    }
}

impl Sink for Recalling<'_> {
    fn series(&mut self, labels: &[(&str, &str)], sent: Option<&[u8]>, data: &SeriesData<'_>) {
        let placed = self.router.place(labels, data);
        // Only what is read as a whole the same way on the other side.
        let is_whole = |sent: &&[u8]| tricord_model::read_sent_labels(sent, &mut Vec::new()) == sent.len();
        if let (Some((fingerprint, shard)), Some(sent)) = (placed, sent.filter(is_whole)) {
            self.learn(Seen { key: self.key(sent), fingerprint: halves(fingerprint), shard });
        }
    }

    fn recall(&mut self, sent: &[u8], data: &SeriesData<'_>) -> bool {
        let Some(seen) = self.find(self.key(sent)) else { return false };
        let [low, high] = seen.fingerprint;
        let labels = (self.naming == Naming::ByLabels).then_some(sent);
        self.router.place_known(u128::from(low) | u128::from(high) << 64, seen.shard, labels, data)
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
    use tricord_model::{Batch, BatchView, Labels, Sample, SeriesView};

    use super::*;
    use crate::TenantLimits;
    use crate::decode::oracle::{any_series, in_both_versions};
    use crate::decode::tests::pb;
    use crate::decode::{Allowance, remote_write, remote_write_v2};
    use crate::route::Routed;

    fn routed(memory: &Memory, tenant: &Tenant, request: &pb::WriteRequest) -> Routed {
        let bytes = request.encode_to_vec();
        decoded(memory, tenant, |sink| {
            remote_write::decode(&bytes, &mut Allowance::new(1 << 20), sink).unwrap()
        })
    }

    fn routed_v2(memory: &Memory, request: &pb::Request) -> Routed {
        let bytes = request.encode_to_vec();
        let allowance = &mut Allowance::new(1 << 20);
        decoded(memory, &Tenant::default(), |sink| remote_write_v2::decode(&bytes, allowance, sink).unwrap())
    }

    fn decoded(memory: &Memory, tenant: &Tenant, decode: impl FnOnce(&mut Recalling<'_>)) -> Routed {
        let mut router = Router::new(tenant.clone(), 8, limits(), 1 << 10);
        memory.with(tenant, Naming::ByLabels, &mut router, decode);
        router.finish()
    }

    fn limits() -> TenantLimits {
        TenantLimits { max_label_value_bytes: 127, ..TenantLimits::default() }
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
                prop_assert!(memory.seen.read().young.list.len() <= max);
            }
        }

        /// By fingerprints go the same series to the same shards, in the same order.
        #[test]
        fn fingerprints_stand_for_labels(timeseries in prop::collection::vec(any_series(), 0..8)) {
            let request = pb::WriteRequest { timeseries, metadata: vec![] };
            let bytes = request.encode_to_vec();
            let memory = Memory::default();
            let named = routed(&memory, &Tenant::default(), &request);
            let mut router = Router::new(Tenant::default(), 8, limits(), 1 << 10);
            memory.with(&Tenant::default(), Naming::ByFingerprint, &mut router, |sink| {
                remote_write::decode(&bytes, &mut Allowance::new(1 << 20), sink).unwrap();
            });
            let known = router.finish();
            prop_assert_eq!(known.items, named.items);
            let prints = |routed: &Routed| -> Vec<_> {
                let pieces = routed.rounds.iter().flatten();
                let of = |piece: &crate::route::Piece| {
                    let series = BatchView::read(&piece.batch).unwrap().series;
                    let one = |one: &SeriesView<'_>| (piece.shard, one.fingerprint, one.samples().len());
                    series.iter().map(one).collect::<Vec<_>>()
                };
                pieces.flat_map(of).collect()
            };
            prop_assert_eq!(prints(&known), prints(&named));
            prop_assert!(known.bytes() <= named.bytes());
        }

        /// What was learnt by one version is the same for the other.
        #[test]
        fn versions_share_what_is_remembered(timeseries in prop::collection::vec(any_series(), 0..8), max in 1usize..9) {
            let (of_one, of_two) = in_both_versions(timeseries);
            let fresh = routed_v2(&Memory::default(), &of_two);
            let memory = Memory { max, ..Memory::default() };
            for _ in 0..2 {
                let again = routed_v2(&memory, &of_two);
                prop_assert_eq!(content(&again), content(&fresh));
                prop_assert_eq!((again.items, &again.invalid, &again.misshapen), (fresh.items, &fresh.invalid, &fresh.misshapen));
                prop_assert_eq!(content(&routed(&memory, &Tenant::default(), &of_one)), content(&fresh));
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
        assert_eq!(memory.seen.read().young.list.len(), 4);
    }
}
