//! Looking at the windows: that those are there which must be, that every block decodes, and that index, blocks and marks
//! say the same.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicU64;

use tricord_model::{Labels, ShardId, Tenant, TraceId};
use tricord_rocks::Rocks;
use xxhash_rust::xxh3::xxh3_64;

use super::rows::Bases;
use super::{Check, Finding, REPLACE};
use crate::storage::Error;
use crate::storage::block::postings;
use crate::storage::cache::ReadCache;
use crate::storage::compact::hidden::{Hidden, HiddenExemplars};
use crate::storage::compact::source::{Exemplars, MergedSeries, Traces};
use crate::storage::damage::{Damages, time};
use crate::storage::disk::{Disk, OnDisk};
use crate::storage::flush::encode::by_name;
use crate::storage::head::Mark;
use crate::storage::keys::{self, SPAN_BLOCKS_PER_WINDOW};
use crate::storage::marks::Marks;

/// Blocks of spans whose trace ids are remembered: traces in the order of their ids mostly begin in the same ones.
const MAX_SPAN_BLOCKS: usize = 128;

/// One generation of one shard.
#[derive(Clone, Copy)]
struct Part {
    shard: ShardId,
    window_ms: i64,
    mark: Mark,
}

/// What of a tenant was read.
#[derive(Default)]
struct Counts {
    series: u64,
    samples: u64,
    spans: u64,
}

impl Check<'_> {
    pub(super) fn windows(&mut self, rocks: &Rocks, shards: &Bases) -> Result<(), Error> {
        self.files(rocks)?;
        let marks = match Marks::read(rocks, self.window_ms, &self.ledger.generations()) {
            Ok(marks) => marks,
            Err(error) if error.is_damage() => {
                let place = rocks.path().display().to_string();
                self.find(&place, error.to_string(), "windows of any shard", super::RESTORE);
                Marks::default()
            }
            Err(error) => return Err(error),
        };
        for (shard, window_ms, mark) in self.ledger.missing(&marks) {
            let what = "it was written out, and RocksDB does not have it any more".to_owned();
            self.damaged(rocks, Part { shard, window_ms, mark }, what);
        }
        let mut parts = Vec::new();
        for (shard, of_shard) in marks.live.iter().filter(|(shard, _)| shards.contains_key(shard)) {
            for (window_ms, marks) in of_shard {
                parts.extend(marks.iter().map(|mark| Part {
                    shard: *shard,
                    window_ms: *window_ms,
                    mark: *mark,
                }));
            }
        }
        parts.sort_unstable_by_key(|part| (part.window_ms, part.mark.number, part.shard));
        for (at, part) in parts.iter().enumerate() {
            self.tell("windows", at as u64, parts.len() as u64);
            self.report.looked.windows += 1;
            match self.part(rocks, *part) {
                Ok(()) => {}
                Err(Error::Damaged { why, .. } | Error::Corrupt(why)) => self.damaged(rocks, *part, why),
                Err(error) if error.is_damage() => self.damaged(rocks, *part, error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens every file, and reads what reading its pairs one after the other passes over.
    fn files(&mut self, rocks: &Rocks) -> Result<(), Error> {
        for family in keys::FAMILIES {
            for (path, first) in rocks.first_keys(family.name)? {
                match rocks.get(family.name, &first) {
                    Ok(_) => {}
                    Err(error) if error.is_corruption() => {
                        let lost = "what is in the file; windows that need it are named below";
                        self.find(&path.display().to_string(), error.to_string(), lost, REPLACE);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn damaged(&mut self, rocks: &Rocks, part: Part, what: String) {
        let until_ms = part.window_ms.saturating_add(self.span_ms(part));
        let (from, until) = (time(part.window_ms), time(until_ms));
        self.add(Finding {
            place: rocks.path().display().to_string(),
            what: format!(
                "shard {}, {from} to {until} (generation {}): {what}",
                part.shard, part.mark.number
            ),
            shard: Some(part.shard.0),
            from_ms: Some(part.window_ms),
            until_ms: Some(until_ms),
            lost: format!("up to {} samples and {} spans", part.mark.samples, part.mark.spans),
            advice: REPLACE.to_owned(),
        });
    }

    fn span_ms(&self, part: Part) -> i64 {
        self.window_ms.saturating_mul(i64::from(part.mark.windows))
    }

    fn part(&mut self, rocks: &Rocks, part: Part) -> Result<(), Error> {
        let damages = Damages::quiet();
        let on = OnDisk { rocks, damages: &damages, shards: None, window_len_ms: self.window_ms };
        let mut counts = Counts::default();
        if part.window_ms.rem_euclid(self.window_ms.max(1)) != 0 {
            return Err(Error::corrupt("it does not start where a window does"));
        }
        for tenant in tenants(rocks, part)? {
            let (cache, bytes) = (ReadCache::new(0), AtomicU64::new(0));
            let disk = || Disk::new(on, &cache, (part.window_ms, part.mark), part.shard, &tenant, &bytes);
            let end_ms = part.window_ms.saturating_add(self.span_ms(part));
            series(disk(), part.window_ms..end_ms, &mut counts)?;
            exemplars(rocks, &disk(), part.window_ms..end_ms)?;
            spans(&disk(), part, self.window_ms, &mut counts)?;
            traces(rocks, &disk(), part.mark)?;
        }
        self.report.looked.series += counts.series;
        self.report.looked.samples += counts.samples;
        self.report.looked.spans += counts.spans;
        let Mark { samples, spans, .. } = part.mark;
        if (counts.samples, counts.spans) != (samples, spans) {
            return Err(Error::corrupt(format!(
                "it has {} samples and {} spans, and its mark says {samples} and {spans}",
                counts.samples, counts.spans
            )));
        }
        Ok(())
    }
}

/// The tenants that have something, in the index or among the blocks.
fn tenants(rocks: &Rocks, part: Part) -> Result<BTreeSet<Tenant>, Error> {
    let prefix = keys::shard(part.mark.generation(part.window_ms), part.shard);
    let mut tenants = BTreeSet::new();
    for family in [keys::INDEX, keys::DATA] {
        let mut cursor = rocks.cursor(family, &prefix, &keys::after(&prefix))?;
        while let Some((key, _)) = cursor.item() {
            let name = keys::parse_tenant(&prefix, key).and_then(|name| Tenant::new(name).ok());
            let tenant =
                name.ok_or_else(|| Error::corrupt(format!("a key of family {family} is malformed")))?;
            cursor.seek(&keys::after(&keys::tenant(
                part.mark.generation(part.window_ms),
                part.shard,
                &tenant,
            )));
            tenants.insert(tenant);
        }
        cursor.status()?;
    }
    Ok(tenants)
}

/// A pair of label and series, so that sums of them are equal where the pairs are.
fn fingerprint(name: &str, value: &str, id: u32) -> u64 {
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 9);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0xff);
    bytes.extend_from_slice(value.as_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    xxh3_64(&bytes)
}

/// Reads all series with their samples, and compares the postings with them.
fn series(disk: Disk<'_>, range: std::ops::Range<i64>, counts: &mut Counts) -> Result<(), Error> {
    let said = disk.series_count()?;
    let mut in_postings = 0u64;
    disk.pairs(&mut |name, value, ids| {
        for id in postings::decode(ids)? {
            in_postings = in_postings.wrapping_add(fingerprint(name, value, id));
        }
        Ok(true)
    })?;
    let (mut id, mut in_labels, mut before): (u32, u64, Option<Labels>) = (0, 0, None);
    let mut merged = MergedSeries::new(vec![disk], Hidden::default())?;
    while let Some((labels, points)) = merged.next()? {
        if before.as_ref().is_some_and(|before| by_name(before, &labels).is_ge()) {
            return Err(Error::corrupt(format!("series {labels} is not in its place of the index")));
        }
        for (name, value) in labels.iter() {
            in_labels = in_labels.wrapping_add(fingerprint(name, value, id));
        }
        let ascends = points.t_ms.windows(2).all(|pair| pair[0] < pair[1]);
        let ends = points.t_ms.first().into_iter().chain(points.t_ms.last());
        if !ascends || ends.into_iter().any(|t_ms| !range.contains(t_ms)) {
            return Err(Error::corrupt(format!("series {labels} has samples at impossible times")));
        }
        counts.samples += points.len() as u64;
        counts.series += 1;
        id += 1;
        before = Some(labels);
    }
    if id != said {
        return Err(Error::corrupt(format!("the index says {said} series, and there are {id}")));
    }
    if in_labels != in_postings {
        return Err(Error::corrupt("the postings are not those of the series"));
    }
    Ok(())
}

fn exemplars(rocks: &Rocks, disk: &Disk<'_>, range: std::ops::Range<i64>) -> Result<(), Error> {
    let places = (0..disk.series_count()?).collect();
    let mut all = Exemplars::new(rocks, disk, places, HiddenExemplars::default())?;
    while let Some(place) = all.place()? {
        if all.take().iter().any(|exemplar| !range.contains(&exemplar.t_ms)) {
            return Err(Error::corrupt(format!("an exemplar of series {place} is at an impossible time")));
        }
    }
    Ok(())
}

fn spans(disk: &Disk<'_>, part: Part, window_ms: i64, counts: &mut Counts) -> Result<(), Error> {
    for place in 0..part.mark.windows {
        let of_place = part.mark.is_merged.then_some(place);
        let start_ms = part.window_ms.saturating_add(window_ms.saturating_mul(i64::from(place)));
        let range = start_ms..start_ms.saturating_add(window_ms);
        disk.span_blocks(of_place, 0, u64::MAX, &mut |spans| {
            counts.spans += spans.len() as u64;
            match spans.iter().find(|span| !range.contains(&span.start_ms())) {
                Some(span) => {
                    Err(Error::corrupt(format!("a span of trace {} is at an impossible time", span.trace_id)))
                }
                None => Ok(true),
            }
        })?;
    }
    Ok(())
}

/// Looks whether each trace begins where the index says.
fn traces(rocks: &Rocks, disk: &Disk<'_>, mark: Mark) -> Result<(), Error> {
    let mut blocks: HashMap<u32, HashSet<TraceId>> = HashMap::new();
    let mut traces = Traces::new(rocks, disk)?;
    while let Some(id) = traces.id()? {
        let id = id.try_into().map(TraceId).map_err(|_| Error::corrupt("a trace id is malformed"))?;
        for number in traces.take()? {
            if mark.is_merged && number / SPAN_BLOCKS_PER_WINDOW >= u32::from(mark.windows) {
                return Err(Error::corrupt(format!("trace {id} lies outside its windows")));
            }
            if !blocks.contains_key(&number) {
                if blocks.len() >= MAX_SPAN_BLOCKS {
                    blocks.clear();
                }
                let ids = disk.spans_of_block(number)?.into_iter().map(|span| span.trace_id).collect();
                blocks.insert(number, ids);
            }
            if !blocks.get(&number).is_some_and(|ids| ids.contains(&id)) {
                return Err(Error::corrupt(format!("trace {id} is not where its index says")));
            }
        }
    }
    Ok(())
}
