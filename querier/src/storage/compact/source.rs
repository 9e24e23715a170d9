//! What a merge reads: the series, exemplars and spans of one tenant in one generation, in the order they are stored in.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use smallvec::SmallVec;
use tricord_model::codec::Reader as In;
use tricord_model::{Exemplar, Labels, Points};
use tricord_rocks::{Cursor, Pinned, Rocks};

use super::hidden::{GONE, Hidden, HiddenExemplars};
use crate::storage::Error;
use crate::storage::deletes::Ranges;
use crate::storage::disk::{Disk, exemplars_in, series_in};
use crate::storage::flush::encode::{SERIES_PER_INDEX_BLOCK, by_name};
use crate::storage::keys::{self, Section};
use crate::storage::merge::Pieces;
use crate::storage::pieces::{Blocks, Piece};

/// Blocks of timestamps that a source keeps.
const MAX_TIMES: usize = 64;

/// Labels in the order of [`by_name`].
#[derive(Clone, PartialEq, Eq)]
pub(in crate::storage) struct ByName(pub(in crate::storage) Labels);

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        by_name(&self.0, &other.0)
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The series of a source.
struct Series<'a> {
    disk: Disk<'a>,
    count: u32,
    next: u32,
    index: Option<(u32, Pinned<'a>)>,
    blocks: Blocks,
}

impl<'a> Series<'a> {
    fn new(disk: Disk<'a>) -> Result<Self, Error> {
        let count = disk.series_count()?;
        Ok(Self { disk, count, next: 0, index: None, blocks: Blocks::default() })
    }

    /// The labels of the next series; `None` at the end.
    fn labels(&mut self) -> Result<Option<Labels>, Error> {
        if self.next >= self.count {
            return Ok(None);
        }
        let (block, at) = self.open()?;
        series_in(block, at)?.labels().map(Some)
    }

    /// The block of the index with the next series.
    fn open(&mut self) -> Result<(&Pinned<'a>, usize), Error> {
        let number = self.next / SERIES_PER_INDEX_BLOCK;
        let block = match self.index.take() {
            Some((open, block)) if open == number => block,
            _ => self.disk.series_block(number)?,
        };
        let (_, block) = self.index.insert((number, block));
        Ok((block, (self.next % SERIES_PER_INDEX_BLOCK) as usize))
    }

    /// Appends the samples of the next series, which is then over, but for those that `hidden` says.
    fn take(
        &mut self,
        labels: &Labels,
        hidden: impl FnOnce(u128) -> Ranges,
        all: &mut Pieces,
    ) -> Result<Taken, Error> {
        let (block, at) = self.open()?;
        let row = series_in(block, at)?.row(labels.clone());
        self.blocks.let_go(MAX_TIMES);
        let piece = self.blocks.find(&self.disk, row.place, i64::MIN, i64::MAX)?;
        let ranges = hidden(row.fingerprint);
        self.next += 1;
        let found = piece.map_or(0, Piece::len);
        if ranges.is_empty() {
            self.blocks.read(piece.as_slice(), all)?;
            return Ok(Taken { samples: found, deleted: 0, is_hidden: false });
        }
        let left = piece.map(|piece| self.blocks.without(piece, &ranges)).transpose()?.unwrap_or_default();
        self.blocks.read(&left, all)?;
        let samples = left.into_iter().map(Piece::len).sum();
        Ok(Taken { samples, deleted: found - samples, is_hidden: true })
    }
}

/// What was taken of a series.
#[derive(Default)]
struct Taken {
    samples: usize,
    deleted: usize,
    /// Whether anything of it may have been deleted.
    is_hidden: bool,
}

/// The series of several sources, in their order; each comes once with its samples of all sources.
pub(in crate::storage) struct MergedSeries<'a> {
    sources: Vec<Series<'a>>,
    heads: BinaryHeap<Reverse<(ByName, usize)>>,
    /// For each source the new place of each of its series so far.
    pub(in crate::storage) places: Vec<Vec<u32>>,
    /// Samples that were there more than once.
    pub(in crate::storage) repeated: u64,
    /// Samples that were deleted.
    pub(in crate::storage) deleted: u64,
    hidden: Hidden,
    count: u32,
}

impl<'a> MergedSeries<'a> {
    /// `disks` in the order of the log, as `hidden` has them.
    pub(in crate::storage) fn new(disks: Vec<Disk<'a>>, hidden: Hidden) -> Result<Self, Error> {
        let sources = disks.into_iter().map(Series::new).collect::<Result<Vec<_>, _>>()?;
        let places = sources.iter().map(|_| Vec::new()).collect();
        let heads = BinaryHeap::new();
        let mut merged = Self { sources, heads, places, repeated: 0, deleted: 0, hidden, count: 0 };
        (0..merged.sources.len()).try_for_each(|at| merged.advance(at))?;
        Ok(merged)
    }

    fn advance(&mut self, at: usize) -> Result<(), Error> {
        if let Some(labels) = self.sources[at].labels()? {
            self.heads.push(Reverse((ByName(labels), at)));
        }
        Ok(())
    }

    /// The next series with its samples of all sources: of those for one time the one of the earliest source. Series of
    /// which deletes have left nothing do not come.
    pub(in crate::storage) fn next(&mut self) -> Result<Option<(Labels, Points)>, Error> {
        while let Some(Reverse((ByName(labels), first))) = self.heads.pop() {
            let mut all = Pieces::default();
            let (mut taken, mut stays) = (Taken::default(), false);
            let mut of: SmallVec<[usize; 8]> = SmallVec::from_slice(&[first]);
            while let Some(Reverse((ByName(same), _))) = self.heads.peek() {
                if *same != labels {
                    break;
                }
                let Some(Reverse((_, at))) = self.heads.pop() else { break };
                of.push(at);
            }
            for at in &of {
                let place = self.places[*at].len() as u32;
                stays |= self.hidden.has_exemplars(*at, place);
                self.take(*at, &labels, &mut all, &mut taken)?;
            }
            let points = all.finish();
            self.deleted += taken.deleted as u64;
            let is_gone = points.is_empty() && taken.is_hidden && !stays;
            let place = if is_gone { GONE } else { self.count };
            of.into_iter().for_each(|at| self.places[at].push(place));
            if !is_gone {
                self.count += 1;
                self.repeated += (taken.samples - points.len()) as u64;
                return Ok(Some((labels, points)));
            }
        }
        Ok(None)
    }

    fn take(&mut self, at: usize, labels: &Labels, all: &mut Pieces, sum: &mut Taken) -> Result<(), Error> {
        let Self { sources, hidden, .. } = self;
        let of = sources[at].take(labels, |fingerprint| hidden.ranges(at, fingerprint, labels), all)?;
        sum.samples += of.samples;
        sum.deleted += of.deleted;
        sum.is_hidden |= of.is_hidden;
        self.advance(at)
    }
}

/// The exemplars of a source under the new places of its series, in their order.
pub(in crate::storage) struct Exemplars<'a> {
    cursor: Cursor<'a>,
    block: VecDeque<(u32, Vec<Exemplar>)>,
    places: Vec<u32>,
    hidden: HiddenExemplars,
}

impl<'a> Exemplars<'a> {
    pub(in crate::storage) fn new(
        rocks: &'a Rocks,
        disk: &Disk<'_>,
        places: Vec<u32>,
        hidden: HiddenExemplars,
    ) -> Result<Self, Error> {
        let prefix = keys::section(disk.prefix(), Section::Exemplars);
        let cursor = rocks.cursor(keys::DATA, &prefix, &keys::after(&prefix))?;
        Ok(Self { cursor, block: VecDeque::new(), places, hidden })
    }

    /// The place of the next series that has exemplars; `None` at the end.
    pub(in crate::storage) fn place(&mut self) -> Result<Option<u32>, Error> {
        while self.block.is_empty() {
            let Some((_, block)) = self.cursor.item() else {
                self.cursor.status()?;
                return Ok(None);
            };
            self.block = exemplars_in(block)?.into();
            for (id, exemplars) in &mut self.block {
                if let Some(ranges) = self.hidden.ranges.get(id) {
                    exemplars.retain(|exemplar| !ranges.contains(exemplar.t_ms));
                }
            }
            self.block.retain(|(_, exemplars)| !exemplars.is_empty());
            self.cursor.advance();
        }
        let Some((id, _)) = self.block.front() else { return Ok(None) };
        let place = self.places.get(*id as usize).copied();
        place.map(Some).ok_or_else(|| Error::corrupt("exemplars are of a series that is not there"))
    }

    /// The exemplars of that series.
    pub(in crate::storage) fn take(&mut self) -> Vec<Exemplar> {
        self.block.pop_front().map(|(_, exemplars)| exemplars).unwrap_or_default()
    }
}

/// The trace ids of a source with their first blocks.
pub(in crate::storage) struct Traces<'a> {
    cursor: Cursor<'a>,
    prefix: usize,
}

impl<'a> Traces<'a> {
    pub(in crate::storage) fn new(rocks: &'a Rocks, disk: &Disk<'_>) -> Result<Self, Error> {
        let prefix = keys::section(disk.prefix(), Section::Traces);
        let cursor = rocks.cursor(keys::INDEX, &prefix, &keys::after(&prefix))?;
        Ok(Self { cursor, prefix: prefix.len() })
    }

    /// The next trace id; `None` at the end.
    pub(in crate::storage) fn id(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.cursor.item() {
            Some((key, _)) => Ok(Some(key.get(self.prefix..).unwrap_or_default().to_vec())),
            None => self.cursor.status().map(|()| None).map_err(Error::from),
        }
    }

    /// The first blocks of that trace.
    pub(in crate::storage) fn take(&mut self) -> Result<Vec<u32>, Error> {
        let mut firsts = Vec::new();
        if let Some((_, value)) = self.cursor.item() {
            let input = &mut In::new(value);
            while !input.is_empty() {
                firsts.push(input.u32()?);
            }
        }
        self.cursor.advance();
        Ok(firsts)
    }
}
