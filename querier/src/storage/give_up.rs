//! Giving up what is lost of windows: files that are gone, or damaged inside, hold up what is written beside them, but
//! several shards share them. So what the others had in them is fenced, and the ledger says so, before a file is let go; and
//! one that is only damaged inside stays as long as any other shard is answered from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tricord_model::ShardId;
use tricord_rocks::Broken;

use super::Error;
use super::head::Mark;
use super::keys::{self, Generation};
use super::marks::generations_of;
use super::store::{Cell, Inner};

impl Inner {
    /// Lets go of sorted files that are not there any more, not whole, or of no use, while a shard is removed.
    pub(crate) fn give_up_broken(&self, removed: ShardId) -> Result<(), Error> {
        if self.damages.counts().found == 0 {
            return Ok(());
        }
        let cells: Vec<_> = self.cells().into_iter().filter(|cell| cell.id != removed).collect();
        let (mut index, mut data) = (self.rocks.broken(keys::INDEX)?, self.rocks.broken(keys::DATA)?);
        for files in [&mut index, &mut data] {
            files.retain(|file| !(file.is_there && serves(file, &cells)));
        }
        if index.is_empty() && data.is_empty() {
            return Ok(());
        }
        for cell in &cells {
            let had = |shard: ShardId, of: Generation| {
                let has_index = index.iter().any(|file| overlaps(file, &keys::shard(of, shard)));
                has_index || data.iter().any(|file| may_have(file, shard, of))
            };
            self.lose(cell.id, &mut cell.state.write().marks, had);
        }
        self.write_ledger()?;
        // Only what the ledger has and the disk has not is fenced with the next start.
        let mut batch = self.rocks.batch();
        for cell in &cells {
            for (window_ms, mark) in self.damages.lost_of(cell.id) {
                batch.delete(keys::DATA, &keys::mark(mark.generation(window_ms), cell.id));
            }
        }
        self.rocks.write(batch, true)?;
        for (family, files) in [(keys::INDEX, index), (keys::DATA, data)] {
            self.rocks.drop_broken(family, &files)?;
            for Broken { name, .. } in files {
                tracing::warn!(family, file = name, "a sorted file that is gone or damaged is given up");
            }
        }
        Ok(())
    }

    /// Takes out of a shard's marks those of generations that are lost, and fences their time.
    pub(crate) fn lose(
        &self,
        shard: ShardId,
        marks: &mut BTreeMap<i64, Vec<Mark>>,
        is_lost: impl Fn(ShardId, Generation) -> bool,
    ) {
        for (window_ms, of_window) in &mut *marks {
            let has_something = |mark: &Mark| mark.samples > 0 || mark.spans > 0;
            let lost = |mark: &mut Mark| has_something(mark) && is_lost(shard, mark.generation(*window_ms));
            for mark in of_window.extract_if(.., lost) {
                let span_ms = self.config.window_ms.saturating_mul(i64::from(mark.windows));
                self.damages.lose(shard, *window_ms, mark, span_ms);
            }
        }
        marks.retain(|_, of_window| !of_window.is_empty());
    }
}

/// Whether one of these shards may be answered from a file: it is not fenced, and has something in it that counts.
fn serves(file: &Broken, cells: &[Arc<Cell>]) -> bool {
    cells.iter().any(|cell| {
        let state = cell.state.read();
        state.damage.is_none() && generations_of(&state.marks).any(|of| may_have(file, cell.id, of))
    })
}

/// Whether anything of a shard's generation, or its mark, may have been in a file.
fn may_have(file: &Broken, shard: ShardId, of: Generation) -> bool {
    let mark = keys::mark(of, shard);
    overlaps(file, &keys::shard(of, shard)) || (file.first <= mark && mark <= file.last)
}

/// Whether anything with a prefix may have been in a file.
fn overlaps(file: &Broken, prefix: &[u8]) -> bool {
    prefix <= file.last.as_slice() && keys::after(prefix) > file.first
}
