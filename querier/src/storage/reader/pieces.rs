//! Where the samples of a query's series lie on disk: first the pieces of all series are found, block by block, then each
//! series is put together at once, with room for exactly what it has.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Range;
use crate::storage::Error;
use crate::storage::block::times::COLUMNS_PER_BLOCK;
use crate::storage::block::values::{Block, Scratch};
use crate::storage::cache::{Row, Times};
use crate::storage::disk::Disk;
use crate::storage::head::registry::FastMap;
use crate::storage::merge::Pieces;

/// Some samples of a series: where they are among [`Blocks`], and which of them are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    block: u32,
    slot: u32,
    times: u32,
    column: u32,
    from: u32,
    to: u32,
}

impl Piece {
    fn len(self) -> usize {
        (self.to - self.from) as usize
    }
}

/// The blocks that a query reads.
#[derive(Default)]
pub(super) struct Blocks {
    values: Vec<Arc<Block>>,
    times: Vec<Arc<Times>>,
    /// Numbers of the generation at hand, and where the blocks are among those above.
    value_block: Option<(u32, u32)>,
    time_blocks: FastMap<u32, u32>,
    scratch: Scratch,
}

impl Blocks {
    /// What is looked for from here on lies in another generation.
    pub(super) fn turn_to_another_generation(&mut self) {
        self.value_block = None;
        self.time_blocks.clear();
    }

    /// Finds the samples of a series that are needed for a range, and how many of them lie in it. Series should come in
    /// ascending order, so that each block is opened once.
    pub(super) fn find(
        &mut self,
        disk: &Disk<'_>,
        row: &Row,
        range: Range,
    ) -> Result<Option<(Piece, usize)>, Error> {
        let block = self.value_block(disk, row.block)?;
        let values = self.values(block)?;
        let slot = row.slot as usize;
        // With what precedes the range, for the hints of histograms.
        let from_ms = if values.has_histograms(slot)? { i64::MIN } else { range.from_ms };
        let number = values.times(slot)?;
        let per_block = COLUMNS_PER_BLOCK as u32;
        let times = self.time_block(disk, number / per_block)?;
        let column = number % per_block;
        let t_ms = self.times(times, column)?;
        let from = t_ms.partition_point(|t| *t < from_ms);
        let to = t_ms.partition_point(|t| *t <= range.until_ms);
        if from >= to {
            return Ok(None);
        }
        let within = range.count(&t_ms[from..to]);
        let (from, to) = (from as u32, to as u32);
        Ok(Some((Piece { block, slot: row.slot, times, column, from, to }, within)))
    }

    /// The samples of a series out of its pieces, which come in the order of the log.
    pub(super) fn read(&mut self, pieces: &[Piece]) -> Result<Pieces, Error> {
        let mut all = Pieces::with_room(pieces.iter().map(|piece| piece.len()).sum());
        let mut scratch = std::mem::take(&mut self.scratch);
        for piece in pieces {
            let t_ms = self.times(piece.times, piece.column)?;
            let (from, to) = (piece.from as usize, piece.to as usize);
            let first_ms = t_ms.get(from).copied().ok_or_else(lost)?;
            let into = all.place(first_ms);
            self.values(piece.block)?.append(piece.slot as usize, t_ms, from..to, &mut scratch, into)?;
        }
        self.scratch = scratch;
        Ok(all)
    }

    fn value_block(&mut self, disk: &Disk<'_>, number: u32) -> Result<u32, Error> {
        match self.value_block {
            Some((known, at)) if known == number => Ok(at),
            _ => {
                let at = self.values.len() as u32;
                self.values.push(disk.value_block(number)?);
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
                self.times.push(disk.time_block(number)?);
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
