//! Deleting samples: what the log says about it, and which samples it still hides.
//!
//! A delete is an entry of the shard's log. Applying it removes what is in memory at once. Generations on disk are not
//! touched: a *tombstone* stays, with the entry's place in the log, and hides there what came before it. A generation
//! says up to which entry deletes are carried out in it ([`super::head::Mark::deleted`]); merging and cleaning carry
//! out the others. A tombstone that hides nothing any more is forgotten.

mod ranges;
mod retire;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tricord_model::codec::{CodecError, Reader, Writer};
use tricord_model::{Deletion, Labels, Seq, Tenant};

use super::Error;
use super::head::registry::FastMap;
pub(crate) use ranges::Ranges;

/// The first byte of the payload of an entry that deletes.
const DELETE: u8 = 2;
/// Tombstones of a shard, at most: every query looks at those of its tenant.
pub(crate) const MAX_TOMBSTONES: usize = 1000;
/// What they take together, at most, in bytes as they are stored.
pub(crate) const MAX_TOMBSTONE_BYTES: usize = 4 << 20;

/// A delete that may still hide something on disk.
#[derive(Debug)]
pub(crate) struct Tombstone {
    /// Its entry in the shard's log: what comes later is not deleted.
    pub(crate) seq: Seq,
    pub(crate) tenant: Tenant,
    pub(crate) deletion: Deletion,
    /// What it takes as it is stored.
    bytes: usize,
}

impl Tombstone {
    /// Whether it may hide anything between two times, both included, where deletes are carried out up to an entry.
    pub(crate) fn hides(&self, after: Seq, from_ms: i64, until_ms: i64) -> bool {
        self.seq > after && self.deletion.start_ms <= until_ms && self.deletion.end_ms >= from_ms
    }
}

/// Whether an entry deletes.
pub(crate) fn is_delete(payload: &[u8]) -> bool {
    payload.first() == Some(&DELETE)
}

/// The payload of an entry that deletes.
pub(crate) fn payload(tenant: &Tenant, deletion: &Deletion) -> Bytes {
    let mut bytes = vec![DELETE];
    encode(tenant, deletion, &mut Writer::new(&mut bytes));
    Bytes::from(bytes)
}

/// Reads what [`payload`] wrote, of an entry.
pub(crate) fn read_payload(payload: &[u8], seq: Seq) -> Result<Tombstone, Error> {
    match payload.split_first() {
        Some((&DELETE, rest)) => decode(rest, seq),
        _ => Err(Error::corrupt("an entry does not delete anything")),
    }
}

/// Appends tenant and deletion.
pub(crate) fn encode(tenant: &Tenant, deletion: &Deletion, out: &mut Writer<'_>) {
    out.str(tenant.as_str());
    deletion.encode(out);
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8], seq: Seq) -> Result<Tombstone, Error> {
    let mut input = Reader::new(bytes);
    let tenant = Tenant::new(input.str()?).map_err(|error| Error::corrupt(error.to_string()))?;
    let deletion = Deletion::decode(&mut input)?;
    if !input.is_empty() {
        return Err(CodecError::Invalid("bytes follow the end of a deletion").into());
    }
    Ok(Tombstone { seq, tenant, deletion, bytes: bytes.len() })
}

/// The tombstones of a shard.
#[derive(Default)]
pub(crate) struct Tombstones(BTreeMap<Seq, Arc<Tombstone>>);

impl Tombstones {
    pub(crate) fn insert(&mut self, tombstone: Arc<Tombstone>) {
        self.0.insert(tombstone.seq, tombstone);
    }

    /// Whether there is room for another one whose payload has so many bytes.
    pub(crate) fn have_room(&self, bytes: usize) -> bool {
        let held: usize = self.iter().map(|one| one.bytes).sum();
        self.len() < MAX_TOMBSTONES && held + bytes <= MAX_TOMBSTONE_BYTES
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Tombstone> {
        self.0.get(&seq).map(|tombstone| &**tombstone)
    }

    pub(crate) fn remove(&mut self, seq: Seq) {
        self.0.remove(&seq);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in the order of the log.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Tombstone>> {
        self.0.values()
    }

    /// What they hide of a tenant between two times.
    pub(crate) fn of(&self, tenant: &Tenant, from_ms: i64, until_ms: i64) -> Deletes {
        let hides = |one: &&Arc<Tombstone>| one.tenant == *tenant && one.hides(Seq(0), from_ms, until_ms);
        Deletes::new(self.iter().filter(hides).cloned().collect())
    }

    /// Those of entries up to one.
    pub(crate) fn through(&self, seq: Seq) -> Vec<Arc<Tombstone>> {
        self.0.range(..=seq).map(|(_, one)| Arc::clone(one)).collect()
    }
}

/// Deletes of one tenant in one shard, for whoever reads generations.
#[derive(Default)]
pub(crate) struct Deletes {
    all: Vec<Arc<Tombstone>>,
    /// Which of them match a series, by its fingerprint: a series is in many windows.
    matching: FastMap<u128, SmallVec<[u32; 4]>>,
}

impl Deletes {
    pub(crate) fn new(all: Vec<Arc<Tombstone>>) -> Self {
        Self { all, matching: FastMap::default() }
    }

    /// Those that may hide something of a generation, which goes over these times, where deletes are carried out up to
    /// an entry.
    pub(crate) fn hiding(
        &self,
        after: Seq,
        from_ms: i64,
        until_ms: i64,
    ) -> impl Iterator<Item = &Arc<Tombstone>> {
        self.all.iter().filter(move |one| one.hides(after, from_ms, until_ms))
    }

    /// When samples of a series are deleted in a generation where deletes are carried out up to an entry.
    pub(crate) fn ranges(&mut self, fingerprint: u128, labels: &Labels, after: Seq) -> Ranges {
        let Self { all, matching } = self;
        let matching = matching.entry(fingerprint).or_insert_with(|| {
            let matches = |(_, one): &(usize, &Arc<Tombstone>)| one.deletion.matches(labels);
            all.iter().enumerate().filter(matches).map(|(at, _)| at as u32).collect()
        });
        let found = matching.iter().filter_map(|at| all.get(*at as usize)).filter(|one| one.seq > after);
        Ranges::new(found.map(|one| (one.deletion.start_ms, one.deletion.end_ms)))
    }
}

#[cfg(test)]
mod tests {
    use tricord_model::Matcher;

    use super::*;

    fn tombstone(seq: u64, job: &str, start_ms: i64, end_ms: i64) -> Arc<Tombstone> {
        let deletion = Deletion { selectors: vec![vec![Matcher::equal("job", job)]], start_ms, end_ms };
        Arc::new(Tombstone { seq: Seq(seq), tenant: Tenant::default(), deletion, bytes: 100 })
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let one = tombstone(7, "a", -3, 9);
        let bytes = payload(&one.tenant, &one.deletion);
        let back = read_payload(&bytes, Seq(7)).unwrap();
        assert_eq!((back.seq, back.tenant, back.deletion.end_ms), (Seq(7), Tenant::default(), 9));
        for at in 0..bytes.len() {
            assert!(read_payload(&bytes[..at], Seq(7)).is_err(), "cut at {at}");
        }
        assert!(read_payload(&[&bytes[..], &[0]].concat(), Seq(7)).is_err());
        assert!(is_delete(&bytes) && !is_delete(&[]) && !is_delete(&[1, 2]));
    }

    #[test]
    fn what_was_carried_out_hides_nothing() {
        let mut tombstones = Tombstones::default();
        [tombstone(2, "a", 0, 10), tombstone(5, "a", 8, 20), tombstone(6, "b", 0, 99)]
            .into_iter()
            .for_each(|one| tombstones.insert(one));
        let mut deletes = tombstones.of(&Tenant::default(), 0, 50);
        let a = Labels::from_pairs([("job", "a")]);
        let mut ranges = |after| deletes.ranges(a.fingerprint(), &a, Seq(after));
        assert_eq!(ranges(1), Ranges::new([(0, 20)]));
        assert_eq!(ranges(2), Ranges::new([(8, 20)]));
        assert!(ranges(5).is_empty());
        assert_eq!(deletes.hiding(Seq(2), 0, 7).count(), 1);
        assert_eq!(deletes.hiding(Seq(6), 0, 99).count(), 0);
        assert_eq!(tombstones.of(&Tenant::own(), 0, 50).hiding(Seq(0), 0, 99).count(), 0);
    }
}
