//! The series of several generations and of memory as one list in the order of their labels, each once, read only as far
//! as somebody goes on. What does not come in that order by itself is in a list that is sorted: series in memory, and
//! those with labels that sort before the metric's name.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::vec;

use roaring::RoaringBitmap;
use tricord_model::{Labels, METRIC_NAME};
use tricord_rocks::Pinned;

use crate::storage::Error;
use crate::storage::block::postings;
use crate::storage::disk::Disk;
use crate::storage::flush::encode::SERIES_PER_INDEX_BLOCK;

/// Several sorted lists as one.
pub(super) struct Ordered<'a> {
    loose: vec::IntoIter<Labels>,
    on_disk: Vec<Places<'a>>,
    /// The next of each list: 0 is the loose one, the others follow.
    next: BinaryHeap<Reverse<(Labels, usize)>>,
    last: Option<Labels>,
}

impl<'a> Ordered<'a> {
    /// `loose` must be sorted.
    pub(super) fn new(loose: Vec<Labels>, on_disk: Vec<Places<'a>>) -> Result<Self, Error> {
        let mut all = Self { loose: loose.into_iter(), on_disk, next: BinaryHeap::new(), last: None };
        for at in 0..=all.on_disk.len() {
            if let Some(labels) = all.of(at)? {
                all.next.push(Reverse((labels, at)));
            }
        }
        Ok(all)
    }

    /// The next of one list.
    fn of(&mut self, at: usize) -> Result<Option<Labels>, Error> {
        match at.checked_sub(1).and_then(|at| self.on_disk.get_mut(at)) {
            Some(places) => places.next(),
            None => Ok(self.loose.next()),
        }
    }

    /// The next label set; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Labels>, Error> {
        while let Some(at) = self.next.peek().map(|Reverse((_, at))| *at) {
            let following = self.of(at)?;
            let Some(mut first) = self.next.peek_mut() else { break };
            let labels = match following {
                Some(following) => std::mem::replace(&mut first.0.0, following),
                None => PeekMut::pop(first).0.0,
            };
            // A series is in many generations.
            if self.last.as_ref() != Some(&labels) {
                self.last = Some(labels.clone());
                return Ok(Some(labels));
            }
        }
        Ok(None)
    }
}

/// Some series of a generation in the order of their labels, but for those that have a label which sorts before the name.
/// Its places are in the order of names first, which is the same for all others but those that have no name.
pub(super) struct Places<'a> {
    disk: Disk<'a>,
    named: roaring::bitmap::IntoIter,
    /// They come last.
    nameless: roaring::bitmap::IntoIter,
    open: Option<(u32, Pinned<'a>)>,
}

impl<'a> Places<'a> {
    /// The series at some places, all where none are given; `None` where there are none. Those with a label that sorts
    /// before the name are handed to `loose`.
    pub(super) fn new(
        disk: Disk<'a>,
        places: Option<RoaringBitmap>,
        loose: &mut dyn FnMut(Labels) -> Result<(), Error>,
    ) -> Result<Option<Self>, Error> {
        let mut named = match places {
            Some(places) => places,
            None => {
                let mut all = RoaringBitmap::new();
                all.insert_range(0..disk.series_count()?);
                all
            }
        };
        if named.is_empty() {
            return Ok(None);
        }
        let mut early = RoaringBitmap::new();
        disk.names(&mut |name| {
            if name < METRIC_NAME {
                disk.values(name, &mut |_, of| {
                    early |= postings::decode(of)?;
                    Ok(true)
                })?;
            }
            Ok(name < METRIC_NAME)
        })?;
        early &= &named;
        named -= &early;
        let mut first_named = None;
        disk.values(METRIC_NAME, &mut |_, of| {
            first_named = postings::decode(of)?.min();
            Ok(false)
        })?;
        // Without a name they come first in the order of names.
        let mut nameless = RoaringBitmap::new();
        if first_named != Some(0) {
            nameless = named.clone();
            if let Some(first) = first_named {
                nameless.remove_range(first..);
            }
            named -= &nameless;
        }
        disk.series(&early, &mut |_, found| loose(found.labels()?))?;
        let (named, nameless) = (named.into_iter(), nameless.into_iter());
        Ok(Some(Self { disk, named, nameless, open: None }))
    }

    fn next(&mut self) -> Result<Option<Labels>, Error> {
        let Some(place) = self.named.next().or_else(|| self.nameless.next()) else { return Ok(None) };
        let number = place / SERIES_PER_INDEX_BLOCK;
        let block = match self.open.take() {
            Some((open, block)) if open == number => block,
            _ => self.disk.series_block(number)?,
        };
        let (_, block) = self.open.insert((number, block));
        self.disk.labels_in(block, place).map(Some)
    }
}
