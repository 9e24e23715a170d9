//! Which entries of each shard are in the log, and where.

use std::collections::{BTreeMap, VecDeque};

use tricord_model::{Epoch, Seq, ShardId};

use super::{Kind, Record};
use crate::storage::{Error, Position};

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// The entries of one shard: they are contiguous, so a place's index gives its number.
#[derive(Clone, Debug, Default)]
struct ShardIndex {
    /// The entry before the first one.
    base: Position,
    /// Whether `base` is known, or only guessed from the first entry found.
    rooted: bool,
    places: VecDeque<Place>,
    /// Runs of equal epochs: the first entry of each.
    epochs: VecDeque<Position>,
}

impl ShardIndex {
    fn last(&self) -> Position {
        let seq = Seq(self.base.seq.0 + self.places.len() as u64);
        Position { seq, epoch: if self.places.is_empty() { self.base.epoch } else { self.epoch_of(seq) } }
    }

    fn epoch_of(&self, seq: Seq) -> Epoch {
        self.epochs.iter().rev().find(|run| run.seq <= seq).map_or(self.base.epoch, |run| run.epoch)
    }

    fn push(&mut self, seq: Seq, epoch: Epoch, place: Place) {
        if self.epochs.back().is_none_or(|run| run.epoch != epoch) {
            self.epochs.push_back(Position { seq, epoch });
        }
        self.places.push_back(place);
    }

    fn cut(&mut self, after: Seq) {
        let keep = after.0.saturating_sub(self.base.seq.0) as usize;
        self.places.truncate(keep);
        while self.epochs.back().is_some_and(|run| run.seq > after) {
            self.epochs.pop_back();
        }
        if after < self.base.seq {
            // Only when the log is read back: the entries in between were undone by this cut, so that their segments
            // could go before the cut itself did, and the base was guessed from one that was undone too.
            self.base = Position { seq: after, epoch: Epoch(0) };
        }
    }

    /// Drops entries up to one, which becomes the base.
    fn drop_through(&mut self, seq: Seq) {
        if seq <= self.base.seq {
            return;
        }
        let epoch = self.epoch_of(seq);
        let count = ((seq.0 - self.base.seq.0) as usize).min(self.places.len());
        self.places.drain(..count);
        self.base = Position { seq, epoch };
        while self.epochs.get(1).is_some_and(|run| run.seq <= seq.next()) {
            self.epochs.pop_front();
        }
        if let Some(run) = self.epochs.front_mut() {
            run.seq = run.seq.max(seq.next());
        }
        if self.places.is_empty() {
            self.epochs.clear();
        }
    }

    /// The last entry that lies in a segment up to this one.
    fn last_in(&self, segment: u64) -> Option<Seq> {
        let count = self.places.partition_point(|place| place.segment <= segment);
        (count > 0).then(|| Seq(self.base.seq.0 + count as u64))
    }
}

/// The entries of all shards.
#[derive(Default)]
pub(crate) struct Index {
    shards: BTreeMap<ShardId, ShardIndex>,
}

impl Index {
    /// Takes a record that was read back; says what is wrong with it where it does not fit.
    pub(crate) fn replay(&mut self, segment: u64, record: &Record) -> Result<(), String> {
        let shard = self.shards.entry(record.shard).or_default();
        match record.kind {
            Kind::Entry => {
                if !shard.rooted && shard.places.is_empty() {
                    shard.base = Position { seq: Seq(record.seq.0.saturating_sub(1)), epoch: Epoch(0) };
                    shard.rooted = true;
                }
                let expected = shard.last().seq.next();
                if record.seq != expected {
                    return Err(format!(
                        "it is entry {} of shard {}, but entry {expected} was expected",
                        record.seq, record.shard
                    ));
                }
                let place = Place { segment, offset: record.offset as u32, len: record.len };
                shard.push(record.seq, record.epoch, place);
            }
            Kind::Cut => shard.cut(record.seq),
            Kind::Reset => {
                let base = Position { seq: record.seq, epoch: record.epoch };
                *shard = ShardIndex { base, rooted: true, ..ShardIndex::default() };
            }
        }
        Ok(())
    }

    /// Tells the entry up to which the state of a shard is known without the log.
    pub(crate) fn set_base(&mut self, id: ShardId, base: Position) -> Result<(), Error> {
        let shard = self.shards.entry(id).or_default();
        if shard.places.is_empty() {
            if shard.base.seq <= base.seq {
                *shard = ShardIndex { base, rooted: true, ..ShardIndex::default() };
            }
            return Ok(());
        }
        if shard.last().seq < base.seq {
            // Written out, and lost with what was not synced of the log: it goes on from what is written out.
            *shard = ShardIndex { base, rooted: true, ..ShardIndex::default() };
            return Ok(());
        }
        if shard.base.seq > base.seq {
            return Err(Error::corrupt(format!(
                "the log lacks entries {} to {} of shard {id}: restore the log, or give this node a new data directory \
                 so that its shards are copied again",
                base.seq.next(),
                shard.base.seq
            )));
        }
        if shard.base.seq == base.seq {
            shard.base = base;
        }
        Ok(())
    }

    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.shards.keys().copied().collect()
    }

    pub(crate) fn forget(&mut self, shard: ShardId) {
        self.shards.remove(&shard);
    }

    /// Whether a record that was read back is the entry that counts.
    pub(crate) fn holds(&self, record: &Record, segment: u64) -> bool {
        let place = Place { segment, offset: record.offset as u32, len: record.len };
        self.shards.get(&record.shard).is_some_and(|shard| {
            let at = record.seq.0.checked_sub(shard.base.seq.0 + 1);
            at.and_then(|at| shard.places.get(at as usize)) == Some(&place)
        })
    }

    pub(crate) fn last(&self, shard: ShardId) -> Position {
        self.shards.get(&shard).map(ShardIndex::last).unwrap_or_default()
    }

    /// Whether an entry may follow.
    pub(crate) fn check(&self, shard: ShardId, seq: Seq) -> Result<(), Error> {
        let last = self.last(shard).seq;
        if seq == last.next() { Ok(()) } else { Err(Error::Gap { shard, seq, last }) }
    }

    pub(crate) fn append(&mut self, shard: ShardId, position: Position, place: Place) {
        self.shards.entry(shard).or_default().push(position.seq, position.epoch, place);
    }

    pub(crate) fn control(&mut self, kind: Kind, id: ShardId, position: Position) {
        let shard = self.shards.entry(id).or_default();
        match kind {
            Kind::Cut => shard.cut(position.seq),
            Kind::Reset => *shard = ShardIndex { base: position, rooted: true, ..ShardIndex::default() },
            Kind::Entry => {}
        }
    }

    pub(crate) fn epoch_at(&self, shard: ShardId, seq: Seq) -> Option<Epoch> {
        let shard = self.shards.get(&shard)?;
        match seq {
            seq if seq == shard.base.seq => Some(shard.base.epoch),
            seq if seq < shard.base.seq || seq > shard.last().seq => None,
            seq => Some(shard.epoch_of(seq)),
        }
    }

    /// The places of entries after one, of at most so many bytes but at least one; `None` when some are trimmed.
    pub(crate) fn places(&self, shard: ShardId, after: Seq, max_bytes: usize) -> Option<Vec<Place>> {
        let Some(shard) = self.shards.get(&shard) else { return Some(Vec::new()) };
        let from = after.0.checked_sub(shard.base.seq.0)? as usize;
        let mut bytes = 0;
        let mut places = Vec::new();
        for place in shard.places.iter().skip(from) {
            bytes += place.len as usize;
            if bytes > max_bytes && !places.is_empty() {
                break;
            }
            places.push(*place);
        }
        Some(places)
    }

    /// Whether nothing in a segment or before it is needed any more. A shard that is not there needs nothing.
    pub(crate) fn is_done(&self, segment: u64, done: &dyn Fn(ShardId) -> Option<Seq>) -> bool {
        self.held_by(segment).into_iter().all(|(shard, last)| done(shard).is_none_or(|done| last <= done))
    }

    /// The shards with entries in a segment or before it, and the last of those.
    pub(crate) fn held_by(&self, segment: u64) -> Vec<(ShardId, Seq)> {
        let last = |(id, shard): (&ShardId, &ShardIndex)| shard.last_in(segment).map(|last| (*id, last));
        self.shards.iter().filter_map(last).collect()
    }

    /// Forgets what lies in segments up to this one.
    pub(crate) fn trim(&mut self, segment: u64) {
        for shard in self.shards.values_mut() {
            if let Some(seq) = shard.last_in(segment) {
                shard.drop_through(seq);
            }
        }
    }
}
