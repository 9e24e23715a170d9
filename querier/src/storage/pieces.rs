//! Where the samples of series lie on disk: first the pieces of all series are found, block by block, then each
//! series is put together at once, with room for exactly what it has. Where the blocks become too many to hold, what was
//! found so far is read before the next ones.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Error;
use super::block::values::{Block, Scratch};
use super::cache::{Place, Times};
use super::deletes::Ranges;
use super::disk::Disk;
use super::head::registry::FastMap;
use super::merge::Pieces;

/// Bytes of blocks that are held before what was found in them is read. Tests have small blocks, and pass it too.
const HELD_BYTES: usize = if cfg!(test) { 2 << 10 } else { 16 << 20 };

/// Some samples of a series: where they are among [`Blocks`], and which of them are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    block: u32,
    slot: u32,
    times: u32,
    column: u32,
    from: u32,
    to: u32,
}

impl Piece {
    /// How many samples it has.
    pub(crate) fn len(self) -> usize {
        (self.to - self.from) as usize
    }
}

/// The blocks that series are read from.
#[derive(Default)]
pub(crate) struct Blocks {
    values: Vec<Arc<Block>>,
    times: Vec<Arc<Times>>,
    /// Numbers of the generation at hand, and where the blocks are among those above.
    value_block: Option<(u32, u32)>,
    time_blocks: FastMap<u32, u32>,
    held_bytes: usize,
    scratch: Scratch,
}

impl Blocks {
    /// What is looked for from here on lies in another generation.
    pub(crate) fn turn_to_another_generation(&mut self) {
        self.value_block = None;
        self.time_blocks.clear();
    }

    /// Whether what was found should be read now, and the blocks let go of.
    pub(crate) fn are_many(&self) -> bool {
        self.held_bytes > HELD_BYTES
    }

    /// Forgets all pieces so far, and lets go of their blocks.
    pub(crate) fn clear(&mut self) {
        *self = Self { scratch: std::mem::take(&mut self.scratch), ..Self::default() };
    }

    /// Forgets all pieces so far, and lets go of their blocks but the last one of values and so many of times.
    pub(crate) fn let_go(&mut self, most_times: usize) {
        if let Some((_, at)) = &mut self.value_block {
            self.values.drain(..*at as usize);
            *at = 0;
        }
        if self.times.len() > most_times {
            self.times.clear();
            self.time_blocks.clear();
        }
    }

    /// Finds the samples of a series between two times, both included; of one with histograms those before, too, as
    /// their hints hang on them. Series should come in ascending order, so that each block is opened once.
    pub(crate) fn find(
        &mut self,
        disk: &Disk<'_>,
        place: Place,
        from_ms: i64,
        until_ms: i64,
    ) -> Result<Option<Piece>, Error> {
        let block = self.value_block(disk, place.block)?;
        let values = self.values(block)?;
        let slot = place.slot as usize;
        let from_ms = if values.has_histograms(slot)? { i64::MIN } else { from_ms };
        let number = values.times(slot)?;
        let per_block = disk.columns_per_block() as u32;
        let times = self.time_block(disk, number / per_block)?;
        let column = number % per_block;
        let t_ms = self.times(times, column)?;
        let from = t_ms.partition_point(|t| *t < from_ms) as u32;
        let to = t_ms.partition_point(|t| *t <= until_ms) as u32;
        Ok((from < to).then_some(Piece { block, slot: place.slot, times, column, from, to }))
    }

    /// What is left of a piece outside of some ranges of time.
    pub(crate) fn without(&self, piece: Piece, ranges: &Ranges) -> Result<SmallVec<[Piece; 4]>, Error> {
        let kept = ranges.kept(self.t_ms(piece)?);
        Ok(kept
            .map(|run| Piece {
                from: piece.from + run.start as u32,
                to: piece.from + run.end as u32,
                ..piece
            })
            .collect())
    }

    /// The times of a piece, in milliseconds, ascending.
    pub(crate) fn t_ms(&self, piece: Piece) -> Result<&[i64], Error> {
        let all = self.times(piece.times, piece.column)?;
        all.get(piece.from as usize..piece.to as usize).ok_or_else(lost)
    }

    /// Appends the samples of a series out of its pieces, which come in the order of the log.
    pub(crate) fn read(&mut self, pieces: &[Piece], all: &mut Pieces) -> Result<(), Error> {
        all.make_room(pieces.iter().map(|piece| piece.len()).sum());
        let mut scratch = std::mem::take(&mut self.scratch);
        for piece in pieces {
            let t_ms = self.times(piece.times, piece.column)?;
            let (from, to) = (piece.from as usize, piece.to as usize);
            let first_ms = t_ms.get(from).copied().ok_or_else(lost)?;
            let into = all.place(first_ms);
            self.values(piece.block)?.append(piece.slot as usize, t_ms, from..to, &mut scratch, into)?;
        }
        self.scratch = scratch;
        Ok(())
    }

    fn value_block(&mut self, disk: &Disk<'_>, number: u32) -> Result<u32, Error> {
        match self.value_block {
            Some((known, at)) if known == number => Ok(at),
            _ => {
                let at = self.values.len() as u32;
                let block = disk.value_block(number)?;
                self.held_bytes += block.bytes();
                self.values.push(block);
                self.value_block = Some((number, at));
                Ok(at)
            }
        }
    }

    fn time_block(&mut self, disk: &Disk<'_>, number: u32) -> Result<u32, Error> {
        match self.time_blocks.entry(number) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let at = self.times.len() as u32;
                let columns = disk.time_block(number)?;
                self.held_bytes +=
                    columns.iter().map(|column| column.len() * size_of::<i64>()).sum::<usize>();
                self.times.push(columns);
                Ok(*new.insert(at))
            }
        }
    }

    fn values(&self, at: u32) -> Result<&Block, Error> {
        self.values.get(at as usize).map(|block| &**block).ok_or_else(lost)
    }

    fn times(&self, at: u32, column: u32) -> Result<&[i64], Error> {
        let column = self.times.get(at as usize).and_then(|columns| columns.get(column as usize));
        column.map(Vec::as_slice).ok_or_else(|| Error::corrupt("a series has no timestamps"))
    }
}

fn lost() -> Error {
    Error::corrupt("a block was lost while it was read")
}
