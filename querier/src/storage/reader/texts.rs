//! Names and values of labels, out of the postings: series are looked at only where few of them are asked for.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use tricord_model::Matcher;

use super::samples::{alternatives, bound};
use super::{FEW, Range, Reader};
use crate::storage::Error;
use crate::storage::block::postings;
use crate::storage::cache::{Key, Kind};
use crate::storage::deletes::Deletes;
use crate::storage::disk::Disk;
use crate::storage::head::{Mark, Shard};

/// So many values of a label are looked at for each series before the series are looked at instead.
const VALUES_PER_SERIES: u64 = 4;

/// Which texts are wanted.
struct Wanted<'a> {
    /// Values of this label; names of labels where it is not there.
    only: Option<&'a str>,
    /// None behind this one.
    until: Option<&'a str>,
    found: BTreeSet<String>,
}

impl Wanted<'_> {
    fn is_behind(&self, text: &str) -> bool {
        self.until.is_some_and(|until| text > until)
    }

    fn add(&mut self, text: &str) {
        if !self.is_behind(text) && !self.found.contains(text) {
            self.found.insert(text.to_owned());
        }
    }
}

impl Reader {
    /// Names of the labels of series that satisfy any of the alternatives (all series where none is given) and that have
    /// something in a window that overlaps the range, sorted: the first `limit` (0: no bound), and none behind `until`.
    ///
    /// # Errors
    /// As [`Reader::series`].
    pub(crate) fn label_names(
        &self,
        matchers: &[Vec<Matcher>],
        (start_ms, end_ms): (i64, i64),
        limit: u64,
        until: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let wanted = Wanted { only: None, until, found: BTreeSet::new() };
        self.texts(wanted, matchers, (start_ms, end_ms), limit)
    }

    /// Values of one label of such series, sorted; limited likewise.
    ///
    /// # Errors
    /// As [`Reader::series`].
    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Vec<Matcher>],
        (start_ms, end_ms): (i64, i64),
        limit: u64,
        until: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        let wanted = Wanted { only: Some(name), until, found: BTreeSet::new() };
        self.texts(wanted, matchers, (start_ms, end_ms), limit)
    }

    fn texts(
        &self,
        mut wanted: Wanted<'_>,
        matchers: &[Vec<Matcher>],
        (start_ms, end_ms): (i64, i64),
        limit: u64,
    ) -> Result<Vec<String>, Error> {
        let Some(range) = self.range(start_ms, end_ms) else { return Ok(Vec::new()) };
        // Generations of which all series count, and others with those that do.
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        for cell in &self.cells {
            self.check_cancel()?;
            let (generations, mut deletes) = {
                let shard = self.read(cell)?;
                self.texts_in_head(&shard, matchers, range, &mut wanted);
                (self.generations(&shard, range, |mark| mark.samples > 0)?, self.deletes(&shard, range))
            };
            for of in generations {
                let disk = self.disk(of, cell.id);
                match self.places(&disk, &of, matchers, &mut deletes)? {
                    None => whole.push(disk),
                    Some(places) if places.is_empty() => {}
                    Some(places) => parts.push((disk, places)),
                }
            }
        }
        for (disk, places) in &parts {
            self.check_cancel()?;
            texts_of(&mut wanted, disk, places)?;
        }
        if whole.is_empty() {
            return Ok(wanted.found.into_iter().take(bound(limit)).collect());
        }
        let mut key = Key::new(Kind::Texts);
        // No label has an empty name.
        key.bytes(wanted.only.unwrap_or_default().as_bytes());
        whole.iter().for_each(|disk| disk.identify(&mut key));
        let on_disk = self.inner.cache.texts(key.finish(), || self.all_texts(wanted.only, &whole))?;
        let on_disk = on_disk.iter().take_while(|text| !wanted.is_behind(text)).take(bound(limit));
        if wanted.found.is_empty() {
            return Ok(on_disk.cloned().collect());
        }
        let on_disk: Vec<&String> = on_disk.collect();
        on_disk.into_iter().for_each(|text| wanted.add(text));
        Ok(wanted.found.into_iter().take(bound(limit)).collect())
    }

    /// The places of the series of a generation that satisfy any of the alternatives and that deletes have left something
    /// of; `None` where those are all.
    pub(super) fn places(
        &self,
        disk: &Disk<'_>,
        of: &(i64, Mark),
        matchers: &[Vec<Matcher>],
        deletes: &mut Deletes,
    ) -> Result<Option<RoaringBitmap>, Error> {
        let gone = self.gone_of(disk, of, deletes)?;
        if matchers.is_empty() && gone.is_empty() {
            return Ok(None);
        }
        let mut all = RoaringBitmap::new();
        for matchers in alternatives(matchers) {
            all |= &*disk.places(matchers)?;
        }
        all -= gone;
        let is_whole = all.len() == u64::from(disk.series_count()?);
        Ok((!is_whole).then_some(all))
    }

    /// All values of a label, or all names, in some generations.
    fn all_texts(&self, only: Option<&str>, disks: &[Disk<'_>]) -> Result<Vec<String>, Error> {
        let (mut texts, mut distinct) = (Vec::new(), 0);
        for disk in disks {
            self.check_cancel()?;
            let mut take = |text: &str| {
                texts.push(text.to_owned());
                Ok(true)
            };
            match only {
                Some(name) => disk.values(name, &mut |value, _| take(value))?,
                None => disk.names(&mut take)?,
            }
            // Generations mostly have the same ones: what is kept stays within twice of what there is.
            if texts.len() >= 2 * distinct {
                texts.sort();
                texts.dedup();
                distinct = texts.len();
            }
        }
        texts.sort();
        texts.dedup();
        texts.shrink_to_fit();
        Ok(texts)
    }

    /// Those of series in memory.
    fn texts_in_head(&self, shard: &Shard, matchers: &[Vec<Matcher>], range: Range, wanted: &mut Wanted<'_>) {
        let ids = self.in_head(shard, matchers, range);
        let Some(tenant) = shard.registry.find_tenant(&self.tenant).filter(|_| !ids.is_empty()) else {
            return;
        };
        let Some(names) = shard.registry.postings(tenant) else { return };
        let Some(only) = wanted.only else {
            for (name, values) in names {
                if values.values().any(|of| !of.is_disjoint(&ids)) {
                    wanted.add(name);
                }
            }
            return;
        };
        for (value, of) in names.get(only).into_iter().flatten() {
            if wanted.is_behind(value) {
                break;
            }
            if !of.is_disjoint(&ids) {
                wanted.add(value);
            }
        }
    }
}

/// Adds those of some series of a generation.
fn texts_of(wanted: &mut Wanted<'_>, disk: &Disk<'_>, places: &RoaringBitmap) -> Result<(), Error> {
    if places.len() <= FEW {
        return texts_of_series(wanted, disk, places);
    }
    let Some(only) = wanted.only else {
        return disk.names(&mut |name| {
            let mut is_there = wanted.found.contains(name);
            if !is_there {
                disk.values(name, &mut |_, of| {
                    is_there = postings::intersects(of, places)?;
                    Ok(!is_there)
                })?;
            }
            if is_there {
                wanted.add(name);
            }
            Ok(true)
        });
    };
    let (mut looked_at, mut are_many) = (0, false);
    disk.values(only, &mut |value, of| {
        if wanted.is_behind(value) {
            return Ok(false);
        }
        looked_at += 1;
        are_many = looked_at > places.len().saturating_mul(VALUES_PER_SERIES);
        if !are_many && !wanted.found.contains(value) && postings::intersects(of, places)? {
            wanted.add(value);
        }
        Ok(!are_many)
    })?;
    if are_many { texts_of_series(wanted, disk, places) } else { Ok(()) }
}

/// The same, from the labels of the series themselves.
fn texts_of_series(wanted: &mut Wanted<'_>, disk: &Disk<'_>, places: &RoaringBitmap) -> Result<(), Error> {
    disk.series(places, &mut |_, found| {
        found.pairs(&mut |name, value| match wanted.only {
            Some(only) if only == name => wanted.add(value),
            Some(_) => {}
            None => wanted.add(name),
        })
    })
}
