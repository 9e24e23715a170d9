//! The series of a shard that are in memory: by fingerprint, by id, and by label.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;
use roaring::RoaringBitmap;
use tricord_model::{Epoch, Labels, Matcher, Tenant, Value};

/// A hash map that is fast for keys nobody chose with ill intent: ids, and fingerprints that are hashes themselves.
pub(crate) type FastMap<K, V> = HashMap<K, V, FixedState>;

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
    /// Its total, for a series of increments.
    pub(crate) delta: Option<DeltaState>,
}

/// The postings of a tenant.
type Postings = BTreeMap<String, BTreeMap<String, RoaringBitmap>>;

/// A tenant in a shard.
#[derive(Default)]
struct TenantSeries {
    name: Tenant,
    by_fingerprint: FastMap<u128, u32>,
    all: RoaringBitmap,
    postings: Postings,
}

/// All series of a shard.
#[derive(Default)]
pub(crate) struct Registry {
    tenants: Vec<TenantSeries>,
    by_id: FastMap<u32, Series>,
    next_id: u32,
    bytes: usize,
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

    /// The id of a series.
    pub(crate) fn find(&self, tenant: u32, fingerprint: u128) -> Option<u32> {
        self.tenants.get(tenant as usize)?.by_fingerprint.get(&fingerprint).copied()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Series> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Series> {
        self.by_id.get_mut(&id)
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

    /// Puts a series in under an id; answers whether that was new.
    pub(crate) fn insert(
        &mut self,
        id: u32,
        tenant: u32,
        labels: &Labels,
        fingerprint: u128,
        epoch: Epoch,
    ) -> bool {
        if let Some(known) = self.by_id.get_mut(&id) {
            if known.fingerprint == fingerprint && known.tenant == tenant {
                known.announced = known.announced.max(epoch);
                known.evicted = false;
                if let Some(of) = self.tenants.get_mut(tenant as usize) {
                    of.by_fingerprint.insert(fingerprint, id);
                }
                return false;
            }
            // The id belonged to a series of an entry that was cut.
            self.remove(id);
        }
        self.next_id = self.next_id.max(id.saturating_add(1));
        let Some(of) = self.tenants.get_mut(tenant as usize) else { return false };
        self.bytes += series_bytes(labels);
        of.by_fingerprint.insert(fingerprint, id);
        of.all.insert(id);
        for (name, value) in labels.iter() {
            if !of.postings.contains_key(name) {
                of.postings.insert(name.to_owned(), BTreeMap::new());
            }
            let Some(values) = of.postings.get_mut(name) else { continue };
            match values.get_mut(value) {
                Some(ids) => drop(ids.insert(id)),
                None => drop(values.insert(value.to_owned(), RoaringBitmap::from_iter([id]))),
            }
        }
        let labels = labels.clone();
        let series = Series {
            tenant,
            labels,
            fingerprint,
            announced: epoch,
            parts: 0,
            evicted: false,
            used_ms: i64::MIN,
            delta: None,
        };
        self.by_id.insert(id, series);
        true
    }

    /// Forgets a series for writing; it stays readable while parts in memory hold samples of it.
    pub(crate) fn evict(&mut self, id: u32) {
        let Some(series) = self.by_id.get_mut(&id) else { return };
        series.evicted = true;
        let (tenant, fingerprint, parts) = (series.tenant, series.fingerprint, series.parts);
        if let Some(of) = self.tenants.get_mut(tenant as usize)
            && of.by_fingerprint.get(&fingerprint) == Some(&id)
        {
            of.by_fingerprint.remove(&fingerprint);
        }
        if parts == 0 {
            self.remove(id);
        }
    }

    /// A part in memory that held samples of the series is gone.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(series) = self.by_id.get_mut(&id) else { return };
        series.parts = series.parts.saturating_sub(1);
        if series.parts == 0 && series.evicted {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u32) {
        let Some(series) = self.by_id.remove(&id) else { return };
        self.bytes = self.bytes.saturating_sub(series_bytes(&series.labels));
        let Some(of) = self.tenants.get_mut(series.tenant as usize) else { return };
        if of.by_fingerprint.get(&series.fingerprint) == Some(&id) {
            of.by_fingerprint.remove(&series.fingerprint);
        }
        of.all.remove(id);
        for (name, value) in series.labels.iter() {
            let Some(values) = of.postings.get_mut(name) else { continue };
            if let Some(ids) = values.get_mut(value) {
                ids.remove(id);
                if ids.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                of.postings.remove(name);
            }
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

    /// Series that were last used before a time and have no part in memory. One that was not used since the process
    /// began counts as used now.
    pub(crate) fn idle(&mut self, before_ms: i64, now_ms: i64) -> Vec<u32> {
        let mut idle = Vec::new();
        for (id, series) in &mut self.by_id {
            if series.used_ms == i64::MIN {
                series.used_ms = now_ms;
            } else if series.used_ms < before_ms && series.parts == 0 && !series.evicted {
                idle.push(*id);
            }
        }
        idle
    }

    /// Label names of a tenant with their values and series.
    pub(crate) fn postings(&self, tenant: u32) -> Option<&BTreeMap<String, BTreeMap<String, RoaringBitmap>>> {
        self.tenants.get(tenant as usize).map(|of| &of.postings)
    }
}

impl TenantSeries {
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
