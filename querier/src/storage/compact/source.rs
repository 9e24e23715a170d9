//! What a merge reads: the series, exemplars and spans of one tenant in one generation, in the order they are stored in.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use tricord_model::codec::Reader as In;
use tricord_model::{Exemplar, Labels, Points};
use tricord_rocks::{Cursor, Pinned, Rocks};

use crate::storage::Error;
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

    /// Appends the samples of the next series, which is then over; answers how many there are.
    fn take(&mut self, labels: &Labels, all: &mut Pieces) -> Result<usize, Error> {
        let (block, at) = self.open()?;
        let row = series_in(block, at)?.row(labels.clone());
        self.blocks.let_go(MAX_TIMES);
        let piece = self.blocks.find(&self.disk, &row, i64::MIN, i64::MAX)?;
        self.blocks.read(piece.as_slice(), all)?;
        self.next += 1;
        Ok(piece.map_or(0, Piece::len))
    }
}

/// The series of several sources, in their order; each comes once with its samples of all sources.
pub(in crate::storage) struct MergedSeries<'a> {
    sources: Vec<Series<'a>>,
    heads: BinaryHeap<Reverse<(ByName, usize)>>,
    /// For each source the new place of each of its series so far.
    pub(in crate::storage) places: Vec<Vec<u32>>,
    count: u32,
}

impl<'a> MergedSeries<'a> {
    /// `disks` in the order of the log.
    pub(in crate::storage) fn new(disks: Vec<Disk<'a>>) -> Result<Self, Error> {
        let sources = disks.into_iter().map(Series::new).collect::<Result<Vec<_>, _>>()?;
        let places = sources.iter().map(|_| Vec::new()).collect();
        let mut merged = Self { sources, heads: BinaryHeap::new(), places, count: 0 };
        (0..merged.sources.len()).try_for_each(|at| merged.advance(at))?;
        Ok(merged)
    }

    fn advance(&mut self, at: usize) -> Result<(), Error> {
        if let Some(labels) = self.sources[at].labels()? {
            self.heads.push(Reverse((ByName(labels), at)));
        }
        Ok(())
    }

    /// The next series with its samples of all sources, and how many of them were there more than once: those of earlier
    /// sources stay.
    pub(in crate::storage) fn next(&mut self) -> Result<Option<(Labels, Points, usize)>, Error> {
        let Some(Reverse((ByName(labels), first))) = self.heads.pop() else { return Ok(None) };
        let mut all = Pieces::default();
        let mut samples = self.take(first, &labels, &mut all)?;
        while let Some(Reverse((ByName(same), _))) = self.heads.peek() {
            if *same != labels {
                break;
            }
            let Some(Reverse((_, at))) = self.heads.pop() else { break };
            samples += self.take(at, &labels, &mut all)?;
        }
        self.count += 1;
        let points = all.finish();
        let repeated = samples - points.len();
        Ok(Some((labels, points, repeated)))
    }

    fn take(&mut self, at: usize, labels: &Labels, all: &mut Pieces) -> Result<usize, Error> {
        let samples = self.sources[at].take(labels, all)?;
        self.places[at].push(self.count);
        self.advance(at)?;
        Ok(samples)
    }
}

/// The exemplars of a source under the new places of its series, in their order.
pub(in crate::storage) struct Exemplars<'a> {
    cursor: Cursor<'a>,
    block: VecDeque<(u32, Vec<Exemplar>)>,
    places: Vec<u32>,
}

impl<'a> Exemplars<'a> {
    pub(in crate::storage) fn new(
        rocks: &'a Rocks,
        disk: &Disk<'_>,
        places: Vec<u32>,
    ) -> Result<Self, Error> {
        let prefix = keys::section(disk.prefix(), Section::Exemplars);
        let cursor = rocks.cursor(keys::DATA, &prefix, &keys::after(&prefix))?;
        Ok(Self { cursor, block: VecDeque::new(), places })
    }

    /// The place of the next series that has exemplars; `None` at the end.
    pub(in crate::storage) fn place(&mut self) -> Result<Option<u32>, Error> {
        while self.block.is_empty() {
            let Some((_, block)) = self.cursor.item() else {
                self.cursor.status()?;
                return Ok(None);
            };
            self.block = exemplars_in(block)?.into();
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
