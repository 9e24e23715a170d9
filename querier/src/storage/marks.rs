//! The marks on disk: which generations of windows count for which shards, and what merges have replaced.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tricord_model::ShardId;
use tricord_rocks::Rocks;

use super::Error;
use super::flush::decode_mark;
use super::head::Mark;
use super::keys::{self, Generation};
use super::store::Inner;

/// The marks of a database.
#[derive(Default)]
pub(crate) struct Marks {
    /// Those that count, by shard and window.
    pub(crate) live: HashMap<ShardId, BTreeMap<i64, Vec<Mark>>>,
    /// What merged generations have replaced, and a crash has left.
    pub(crate) replaced: BTreeMap<Generation, Vec<ShardId>>,
    /// What merged generations say that they replace: for each shard, class and window, the highest of the generations.
    merged: HashMap<(ShardId, u8, i64), u32>,
    /// The highest number met in each window: none is ever given again.
    highest: HashMap<i64, u32>,
}

/// How a walk over generations goes on.
pub(crate) enum Next {
    Pair,
    Generation,
}

/// Is handed a generation with a key and its value.
type Visit<'v> = &'v mut dyn FnMut(Generation, &[u8], &[u8]) -> Result<Next, Error>;

/// Visits pairs of a family, generation by generation. Where something cannot be read, the walk goes on with the next
/// generation of which the prefix is among the known ones.
///
/// # Errors
/// The visitor's, and damage where no generation is known behind it and none at all is known.
pub(crate) fn walk(
    rocks: &Rocks,
    family: &'static str,
    known: &BTreeSet<Vec<u8>>,
    visit: Visit<'_>,
) -> Result<(), Error> {
    let mut cursor = rocks.cursor(family, &[], &keys::windows_end())?;
    let mut reached: Vec<u8> = Vec::new();
    loop {
        if let Some((key, value)) = cursor.item() {
            let of = keys::parse_generation(key)
                .ok_or_else(|| Error::corrupt(format!("a key of family {family} is malformed")))?;
            reached.clear();
            reached.extend_from_slice(key);
            match visit(of, key, value)? {
                Next::Pair => cursor.advance(),
                Next::Generation => {
                    reached = keys::after(&keys::generation(of));
                    cursor.seek(&reached);
                }
            }
            continue;
        }
        let Err(error) = cursor.status() else { return Ok(()) };
        if known.is_empty() || !error.is_corruption() {
            return Err(error.into());
        }
        tracing::error!(%error, family, "windows cannot be read");
        match known.iter().find(|generation| **generation > reached) {
            Some(next) => reached.clone_from(next),
            None => return Ok(()),
        }
        cursor.seek(&reached);
    }
}

impl Marks {
    /// Reads all marks; of those that must be there the generations' prefixes are `known`, so that they are found behind
    /// a place that cannot be read.
    ///
    /// # Errors
    /// [`Error`] when a mark makes no sense, stored data is damaged and nothing is known, or the disk fails.
    pub(crate) fn read(rocks: &Rocks, window_ms: i64, known: &BTreeSet<Vec<u8>>) -> Result<Self, Error> {
        let mut marks = Self::default();
        walk(rocks, keys::DATA, known, &mut |of, key, value| {
            // Behind the marks of one generation come its blocks: on to the next generation.
            let Some(shard) = keys::parse_mark(key) else { return Ok(Next::Generation) };
            let (mark, of_windows) = decode_mark(of, value)?;
            marks.raise(of.window_ms, of.number);
            for (place, number) in of_windows.into_iter().enumerate().filter(|(_, number)| *number > 0) {
                let replaced_ms = of.window_ms.saturating_add(window_ms.saturating_mul(place as i64));
                // A number of what was replaced is never given again.
                marks.raise(replaced_ms, number);
                let highest = marks.merged.entry((shard, of.class, replaced_ms)).or_default();
                *highest = number.max(*highest);
            }
            marks.live.entry(shard).or_default().entry(of.window_ms).or_default().push(mark);
            Ok(Next::Pair)
        })?;
        let merged = std::mem::take(&mut marks.merged);
        for ((shard, class, window_ms), highest) in &merged {
            marks.replace(*shard, Generation { class: *class, window_ms: *window_ms, number: *highest });
        }
        marks.merged = merged;
        // Keys begin with the class, and what was written first comes first.
        let of_windows = marks.live.values_mut().flat_map(BTreeMap::values_mut);
        of_windows.for_each(|marks| marks.sort_unstable_by_key(|mark| (mark.number, mark.class)));
        Ok(marks)
    }

    fn raise(&mut self, window_ms: i64, number: u32) {
        let highest = self.highest.entry(window_ms).or_default();
        *highest = number.max(*highest);
    }

    /// Takes generations of a window and class up to a number out of what counts.
    fn replace(&mut self, shard: ShardId, of: Generation) {
        let Generation { class, window_ms, number: highest } = of;
        let Some(of_shard) = self.live.get_mut(&shard) else { return };
        let Some(marks) = of_shard.get_mut(&window_ms) else { return };
        for mark in marks.extract_if(.., |mark| mark.class == class && mark.number <= highest) {
            self.replaced.entry(mark.generation(window_ms)).or_default().push(shard);
        }
        if marks.is_empty() {
            of_shard.remove(&window_ms);
        }
    }

    /// Whether a generation of a shard counts, or is in one that does.
    pub(crate) fn has(&self, shard: ShardId, of: Generation) -> bool {
        let of_window = self.live.get(&shard).and_then(|of_shard| of_shard.get(&of.window_ms));
        let is_live =
            of_window.is_some_and(|marks| marks.iter().any(|mark| mark.generation(of.window_ms) == of));
        let merged = self.merged.get(&(shard, of.class, of.window_ms));
        is_live || merged.is_some_and(|highest| of.number <= *highest)
    }
}

/// The generations that a shard's marks are of.
pub(crate) fn generations_of(marks: &BTreeMap<i64, Vec<Mark>>) -> impl Iterator<Item = Generation> {
    marks.iter().flat_map(|(window_ms, marks)| marks.iter().map(|mark| mark.generation(*window_ms)))
}

impl Inner {
    /// The marks of all windows. Their numbers are not given again.
    pub(crate) fn read_marks(&self, known: &BTreeSet<Vec<u8>>) -> Result<Marks, Error> {
        let marks = Marks::read(&self.rocks, self.config.window_ms, known)?;
        let mut generations = self.generations.lock();
        for (window_ms, number) in &marks.highest {
            let highest = generations.entry(*window_ms).or_default();
            *highest = (*number).max(*highest);
        }
        Ok(marks)
    }
}
