//! The series of a shard that are in memory: by fingerprint, by id, and by label.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use roaring::RoaringBitmap;
use tricord_model::codec::CodecError;
use tricord_model::{Epoch, Labels, Matcher, Tenant, Value};

use super::idle::Idle;

/// A hash map that is fast for keys nobody chose with ill intent: ids, and fingerprints that are hashes themselves.
pub(crate) type FastMap<K, V> = HashMap<K, V, FixedState>;

/// A hash of an id for tables: ids of neighbours must not fall together.
#[inline]
pub(crate) fn hash_id(id: u32) -> u64 {
    u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A hash of a fingerprint for tables: any part of it is one.
#[inline]
fn hash_fingerprint(fingerprint: u128) -> u64 {
    fingerprint as u64
}

/// What the primary has added up for a series of increments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeltaState {
    /// Where the total begins, in milliseconds.
    pub(crate) start_ms: i64,
    /// The end of the last increment, in milliseconds.
    pub(crate) end_ms: i64,
    /// The total so far.
    pub(crate) total: Value,
}

/// A series in memory.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its id in the shard.
    pub(crate) id: u32,
    /// Whose it is.
    pub(crate) tenant: u32,
    /// Its labels.
    pub(crate) labels: Labels,
    /// The fingerprint of the labels.
    pub(crate) fingerprint: u128,
    /// The epoch under which its labels were last in the log.
    pub(crate) announced: Epoch,
    /// Parts in memory that hold samples of it.
    pub(crate) parts: u32,
    /// Whether it is forgotten but for those parts.
    pub(crate) evicted: bool,
    /// When it was last written, by the clock of the primary; only there.
    pub(crate) used_ms: i64,
    /// The newest window, by its start, that has let go of it since its samples are written out or deleted;
    /// `i64::MAX` while none has.
    pub(crate) left_ms: i64,
    /// Its total, for a series of increments.
    pub(crate) delta: Option<Box<DeltaState>>,
}

/// The postings of a tenant.
type Postings = BTreeMap<String, BTreeMap<String, RoaringBitmap>>;

/// A tenant in a shard.
#[derive(Default)]
struct TenantSeries {
    name: Tenant,
    /// Slots of series that are not forgotten.
    by_fingerprint: HashTable<u32>,
    all: RoaringBitmap,
    postings: Postings,
}

/// All series of a shard. A series stays in its slot while it is in memory; slots are given in the order in which series
/// first come, and again once they are free.
#[derive(Default)]
pub(crate) struct Registry {
    tenants: Vec<TenantSeries>,
    slots: Vec<Option<Series>>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    next_id: u32,
    bytes: usize,
}

/// The series in a slot.
#[inline]
fn at(slots: &[Option<Series>], slot: u32) -> Option<&Series> {
    slots.get(slot as usize)?.as_ref()
}

impl Registry {
    /// The number of a tenant, given on first sight; numbers are of this process only.
    pub(crate) fn tenant(&mut self, name: &Tenant) -> u32 {
        if let Some(at) = self.find_tenant(name) {
            return at;
        }
        self.tenants.push(TenantSeries { name: name.clone(), ..TenantSeries::default() });
        (self.tenants.len() - 1) as u32
    }

    /// The number of a tenant that was seen.
    pub(crate) fn find_tenant(&self, name: &Tenant) -> Option<u32> {
        self.tenants.iter().position(|tenant| tenant.name == *name).map(|at| at as u32)
    }

    /// A tenant's name.
    pub(crate) fn tenant_name(&self, tenant: u32) -> Option<&Tenant> {
        self.tenants.get(tenant as usize).map(|tenant| &tenant.name)
    }

    /// The slot of a series that is not forgotten. `guess` is where it is looked for first: senders mostly keep an order.
    #[inline]
    pub(crate) fn find(&self, tenant: u32, fingerprint: u128, guess: u32) -> Option<u32> {
        let of = self.tenants.get(tenant as usize)?;
        let is_it = |slot: &u32| {
            at(&self.slots, *slot)
                .is_some_and(|series| series.fingerprint == fingerprint && series.tenant == tenant)
        };
        if is_it(&guess) && at(&self.slots, guess).is_some_and(|series| !series.evicted) {
            return Some(guess);
        }
        of.by_fingerprint.find(hash_fingerprint(fingerprint), is_it).copied()
    }

    /// The slot of an id. `guess` is where it is looked for first.
    #[inline]
    pub(crate) fn slot(&self, id: u32, guess: u32) -> Option<u32> {
        let is_it = |slot: &u32| at(&self.slots, *slot).is_some_and(|series| series.id == id);
        if is_it(&guess) {
            return Some(guess);
        }
        self.by_id.find(hash_id(id), is_it).copied()
    }

    /// The series in a slot.
    #[inline]
    pub(crate) fn in_slot(&mut self, slot: u32) -> Option<&mut Series> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Series> {
        at(&self.slots, self.slot(id, u32::MAX)?)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Series> {
        self.in_slot(self.slot(id, u32::MAX)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// An estimate of the memory that it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The id that the next new series gets.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Ids below this one are used up.
    pub(crate) fn raise_next_id(&mut self, next_id: u32) {
        self.next_id = self.next_id.max(next_id);
    }

    /// Puts a series in under an id; answers its slot.
    pub(crate) fn insert(
        &mut self,
        id: u32,
        tenant: u32,
        labels: &Labels,
        fingerprint: u128,
        epoch: Epoch,
    ) -> Option<u32> {
        self.announce(id, tenant, fingerprint, epoch)
            .or_else(|| self.put(id, tenant, labels, fingerprint, epoch))
    }

    /// As [`Registry::insert`], with labels as [`Labels::encode`] wrote them: those of a known series are not read.
    pub(crate) fn insert_encoded(
        &mut self,
        id: u32,
        tenant: u32,
        labels: &[u8],
        epoch: Epoch,
    ) -> Result<Option<u32>, CodecError> {
        let fingerprint = Labels::fingerprint_of_encoded(labels);
        if let Some(slot) = self.announce(id, tenant, fingerprint, epoch) {
            return Ok(Some(slot));
        }
        Ok(self.put(id, tenant, &Labels::decode_all(labels)?, fingerprint, epoch))
    }

    /// Takes note that a known series was introduced again; answers its slot.
    fn announce(&mut self, id: u32, tenant: u32, fingerprint: u128, epoch: Epoch) -> Option<u32> {
        let slot = self.slot(id, u32::MAX)?;
        let known = self.in_slot(slot)?;
        if known.fingerprint != fingerprint || known.tenant != tenant {
            // The id belonged to a series of an entry that was cut.
            self.remove(slot);
            return None;
        }
        if known.evicted && epoch <= known.announced {
            // An entry that comes before the one which forgets it: nobody may find it for writing again.
            return Some(slot);
        }
        known.announced = known.announced.max(epoch);
        known.evicted = false;
        self.name(tenant, fingerprint, slot);
        Some(slot)
    }

    /// Lets a fingerprint lead to a slot.
    fn name(&mut self, tenant: u32, fingerprint: u128, slot: u32) {
        let Self { tenants, slots, .. } = self;
        let Some(of) = tenants.get_mut(tenant as usize) else { return };
        let print = |slot: &u32| at(slots, *slot).map_or(0, |series| series.fingerprint);
        let hash = |slot: &u32| hash_fingerprint(print(slot));
        match of.by_fingerprint.entry(hash_fingerprint(fingerprint), |slot| print(slot) == fingerprint, hash)
        {
            Entry::Occupied(mut known) => *known.get_mut() = slot,
            Entry::Vacant(new) => drop(new.insert(slot)),
        }
    }

    /// Takes back that a fingerprint leads to a slot, where it does.
    fn unname(&mut self, tenant: u32, fingerprint: u128, slot: u32) {
        let Some(of) = self.tenants.get_mut(tenant as usize) else { return };
        if let Ok(entry) = of.by_fingerprint.find_entry(hash_fingerprint(fingerprint), |known| *known == slot)
        {
            entry.remove();
        }
    }

    fn put(&mut self, id: u32, tenant: u32, labels: &Labels, fingerprint: u128, epoch: Epoch) -> Option<u32> {
        self.next_id = self.next_id.max(id.saturating_add(1));
        let of = self.tenants.get_mut(tenant as usize)?;
        self.bytes += series_bytes(labels);
        of.add(id, labels);
        let series = Series {
            id,
            tenant,
            labels: labels.clone(),
            fingerprint,
            announced: epoch,
            parts: 0,
            evicted: false,
            used_ms: i64::MIN,
            left_ms: i64::MAX,
            delta: None,
        };
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(slot as usize) {
            Some(free) => *free = Some(series),
            None => self.slots.push(Some(series)),
        }
        let slots = &self.slots;
        let hash = |slot: &u32| at(slots, *slot).map_or(0, |series| hash_id(series.id));
        self.by_id.insert_unique(hash_id(id), slot, hash);
        self.name(tenant, fingerprint, slot);
        Some(slot)
    }

    /// Lets nobody find a series for writing any more, before the entry of this epoch that forgets it: entries before that
    /// one may use it, and even introduce it, so it stays where it is. Only where a later epoch introduces it, that entry
    /// was cut.
    pub(crate) fn retire(&mut self, id: u32, epoch: Epoch) {
        let Some(slot) = self.slot(id, u32::MAX) else { return };
        let Some(series) = self.in_slot(slot) else { return };
        series.evicted = true;
        series.announced = series.announced.max(epoch);
        let (tenant, fingerprint) = (series.tenant, series.fingerprint);
        self.unname(tenant, fingerprint, slot);
    }

    /// Forgets a series for writing; it stays readable while parts in memory hold samples of it.
    pub(crate) fn evict(&mut self, id: u32, epoch: Epoch) {
        self.retire(id, epoch);
        let Some(slot) = self.slot(id, u32::MAX) else { return };
        if at(&self.slots, slot).is_some_and(|series| series.parts == 0) {
            self.remove(slot);
        }
    }

    /// A part in memory of a window does not hold samples of the series any more.
    pub(crate) fn release(&mut self, id: u32, window_ms: i64) {
        let Some(slot) = self.slot(id, u32::MAX) else { return };
        let Some(series) = self.in_slot(slot) else { return };
        series.left_ms = if series.left_ms == i64::MAX { window_ms } else { series.left_ms.max(window_ms) };
        series.parts = series.parts.saturating_sub(1);
        if series.parts == 0 && series.evicted {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        let Some(series) = at(&self.slots, slot) else { return };
        let (id, tenant, fingerprint) = (series.id, series.tenant, series.fingerprint);
        // The tables first: they find their way by what lies in the slots.
        self.unname(tenant, fingerprint, slot);
        if let Ok(entry) = self.by_id.find_entry(hash_id(id), |known| *known == slot) {
            entry.remove();
        }
        let Some(series) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        self.bytes = self.bytes.saturating_sub(series_bytes(&series.labels));
        if let Some(of) = self.tenants.get_mut(tenant as usize) {
            of.remove(id, &series.labels);
        }
    }

    /// The series of a tenant that satisfy all matchers.
    pub(crate) fn select(&self, tenant: u32, matchers: &[Matcher]) -> RoaringBitmap {
        let Some(of) = self.tenants.get(tenant as usize) else { return RoaringBitmap::new() };
        let mut found: Option<RoaringBitmap> = None;
        for matcher in matchers {
            let ids = of.matching(matcher);
            found = Some(match found {
                Some(before) => before & ids,
                None => ids,
            });
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
        }
        found.unwrap_or_else(|| of.all.clone())
    }

    /// Series that are idle. One that was not used since the process began counts as used now.
    pub(crate) fn idle(&mut self, idle: Idle, now_ms: i64) -> Vec<u32> {
        let mut found = Vec::new();
        for series in self.slots.iter_mut().flatten() {
            if series.used_ms == i64::MIN {
                series.used_ms = now_ms;
            } else if idle.is(series) {
                found.push(series.id);
            }
        }
        found
    }

    /// Whether a series is idle, and was last used before a time.
    pub(crate) fn is_idle(&self, id: u32, idle: Idle, before_ms: i64) -> bool {
        self.get(id).is_some_and(|series| idle.is(series) && series.used_ms < before_ms)
    }

    /// Label names of a tenant with their values and series.
    pub(crate) fn postings(&self, tenant: u32) -> Option<&BTreeMap<String, BTreeMap<String, RoaringBitmap>>> {
        self.tenants.get(tenant as usize).map(|of| &of.postings)
    }
}

impl TenantSeries {
    /// Puts a series into the postings.
    fn add(&mut self, id: u32, labels: &Labels) {
        self.all.insert(id);
        for (name, value) in labels.iter() {
            if !self.postings.contains_key(name) {
                self.postings.insert(name.to_owned(), BTreeMap::new());
            }
            let Some(values) = self.postings.get_mut(name) else { continue };
            match values.get_mut(value) {
                Some(ids) => drop(ids.insert(id)),
                None => drop(values.insert(value.to_owned(), RoaringBitmap::from_iter([id]))),
            }
        }
    }

    /// Takes a series out of the postings.
    fn remove(&mut self, id: u32, labels: &Labels) {
        self.all.remove(id);
        for (name, value) in labels.iter() {
            let Some(values) = self.postings.get_mut(name) else { continue };
            if let Some(ids) = values.get_mut(value) {
                ids.remove(id);
                if ids.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.postings.remove(name);
            }
        }
    }

    fn matching(&self, matcher: &Matcher) -> RoaringBitmap {
        let values = self.postings.get(&matcher.name);
        if matcher.matches_empty() {
            // What does not match is taken away, since series without the label match.
            let others = values.into_iter().flatten().filter(|(value, _)| !matcher.matches(value));
            return others.fold(self.all.clone(), |all, (_, ids)| all - ids);
        }
        let Some(values) = values else { return RoaringBitmap::new() };
        if matcher.op == tricord_model::MatchOp::Equal {
            return values.get(&matcher.value).cloned().unwrap_or_default();
        }
        let matched = values.iter().filter(|(value, _)| matcher.matches(value));
        matched.fold(RoaringBitmap::new(), |all, (_, ids)| all | ids)
    }
}

/// An estimate: the labels' text, the maps' entries, and the postings' share.
fn series_bytes(labels: &Labels) -> usize {
    let text: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    256 + text + labels.len() * 24
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn labels(n: u32) -> Labels {
        Labels::from_pairs([
            ("__name__", "m"),
            ("n", &n.to_string()),
            ("odd", if n % 2 == 1 { "yes" } else { "" }),
        ])
    }

    #[test]
    fn what_is_forgotten_stays_so_until_a_later_epoch_introduces_it() {
        let mut registry = Registry::default();
        let tenant = registry.tenant(&Tenant::default());
        let fingerprint = labels(1).fingerprint();
        let mut encoded = Vec::new();
        labels(1).encode(&mut tricord_model::codec::Writer::new(&mut encoded));
        registry.insert(5, tenant, &labels(1), fingerprint, Epoch(3));
        // Judged: an entry that introduces it, then one that forgets it, then one that gives it another id.
        registry.retire(5, Epoch(3));
        assert_eq!(registry.find(tenant, fingerprint, 0), None);
        let slot = registry.insert(6, tenant, &labels(1), fingerprint, Epoch(3));
        // Applied.
        assert!(registry.insert_encoded(5, tenant, &encoded, Epoch(3)).unwrap().is_some());
        assert_eq!(registry.find(tenant, fingerprint, u32::MAX), slot);
        registry.get_mut(5).unwrap().parts += 1;
        registry.evict(5, Epoch(3));
        assert_eq!(registry.find(tenant, fingerprint, u32::MAX), slot);
        assert!(registry.get(5).is_some());
        registry.release(5, 0);
        assert!(registry.get(5).is_none());
        // What forgets 6 is cut.
        registry.retire(6, Epoch(3));
        assert_eq!(registry.insert_encoded(6, tenant, &encoded, Epoch(4)).unwrap(), slot);
        assert_eq!(registry.find(tenant, fingerprint, u32::MAX), slot);
    }

    proptest! {
        /// Against a plain map, over any order of what happens to series.
        #[test]
        fn series_are_found_whatever_came_and_went(steps in prop::collection::vec((0u32..12, 0u8..5), 0..120)) {
            let mut registry = Registry::default();
            let tenant = registry.tenant(&Tenant::default());
            // By fingerprint what is not forgotten; by id what is in memory, with its parts.
            let mut known: HashMap<u32, u32> = HashMap::new();
            let mut held: HashMap<u32, (u32, u32, bool)> = HashMap::new();
            let mut guess = 0;
            for (n, what) in steps {
                let fingerprint = labels(n).fingerprint();
                let found = registry.find(tenant, fingerprint, guess);
                let id = found.and_then(|slot| registry.in_slot(slot)).map(|series| series.id);
                prop_assert_eq!(id, known.get(&n).copied());
                guess = found.map_or(guess, |slot| slot + 1);
                match (what, id) {
                    (0 | 1, None) => {
                        let id = registry.next_id();
                        registry.insert(id, tenant, &labels(n), fingerprint, Epoch(1));
                        known.insert(n, id);
                        held.insert(id, (n, 0, false));
                    }
                    (0 | 1, Some(id)) => {
                        registry.get_mut(id).unwrap().parts += 1;
                        held.get_mut(&id).unwrap().1 += 1;
                    }
                    (2, Some(id)) => {
                        registry.evict(id, Epoch(1));
                        known.remove(&n);
                        held.get_mut(&id).unwrap().2 = true;
                    }
                    (3, _) => {
                        let parts = |id: &u32| held.get(id).is_some_and(|(of, parts, _)| *of == n && *parts > 0);
                        if let Some(id) = held.keys().copied().filter(parts).min() {
                            registry.release(id, 0);
                            held.get_mut(&id).unwrap().1 -= 1;
                        }
                    }
                    (_, Some(id)) => {
                        let mut encoded = Vec::new();
                        labels(n).encode(&mut tricord_model::codec::Writer::new(&mut encoded));
                        prop_assert!(registry.insert_encoded(id, tenant, &encoded, Epoch(2)).unwrap().is_some());
                    }
                    (_, None) => {}
                }
                held.retain(|_, (_, parts, evicted)| *parts > 0 || !*evicted);
                prop_assert_eq!(registry.len(), held.len());
                for (id, (n, parts, _)) in &held {
                    let series = registry.get(*id).unwrap();
                    prop_assert_eq!((&series.labels, series.parts), (&labels(*n), *parts));
                }
                let odd = held.iter().filter(|(_, (n, ..))| n % 2 == 1).map(|(id, _)| *id);
                let matcher = Matcher::new("odd", tricord_model::MatchOp::Equal, "yes").unwrap();
                prop_assert_eq!(registry.select(tenant, &[matcher]), odd.collect::<RoaringBitmap>());
            }
        }
    }

    #[test]
    fn an_id_of_a_cut_entry_is_given_to_another_series() {
        let mut registry = Registry::default();
        let tenant = registry.tenant(&Tenant::default());
        registry.insert(5, tenant, &labels(1), labels(1).fingerprint(), Epoch(1));
        registry.insert(5, tenant, &labels(2), labels(2).fingerprint(), Epoch(2));
        assert_eq!((registry.len(), registry.find(tenant, labels(1).fingerprint(), 0)), (1, None));
        assert_eq!(registry.get(5).map(|series| &series.labels), Some(&labels(2)));
        assert!(registry.find(tenant, labels(2).fingerprint(), 9).is_some());
    }
}
