//! Reading one tenant's data of one shard in one generation of a window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roaring::RoaringBitmap;
use tricord_model::codec::Reader as In;
use tricord_model::{Exemplar, Labels, MatchOp, Matcher, ShardId, SpanRecord, Tenant, TraceId};
use tricord_rocks::{Pinned, Rocks, Visit};

use super::Error;
use super::block::{postings, spans, times, unpack, values};
use super::cache::{Key, Kind, Place, ReadCache, Row, Times};
use super::damage::{Damages, time};
use super::flush::encode::{SERIES_PER_INDEX_BLOCK, VERSION};
use super::head::Mark;
use super::head::payload::decode_exemplars;
use super::keys::{self, Section};
use super::store::Cells;

/// Visits a label value with its series, encoded; answers whether to go on.
type VisitValue<'v> = &'v mut dyn FnMut(&str, &[u8]) -> Result<bool, Error>;
/// Visits a label name and value with their series, encoded; answers whether to go on.
type VisitPair<'v> = &'v mut dyn FnMut(&str, &str, &[u8]) -> Result<bool, Error>;

/// What windows are read with.
#[derive(Clone, Copy)]
pub(crate) struct OnDisk<'a> {
    pub(crate) rocks: &'a Rocks,
    /// Where damage is noted that is met.
    pub(crate) damages: &'a Damages,
    /// Who says what still counts; `None` where all does that is read.
    pub(crate) shards: Option<&'a Cells>,
    pub(crate) window_len_ms: i64,
}

/// A tenant's part of a generation.
pub(crate) struct Disk<'a> {
    on: OnDisk<'a>,
    rocks: &'a Rocks,
    cache: &'a ReadCache,
    shard: ShardId,
    window_ms: i64,
    prefix: Vec<u8>,
    /// What tells this generation from any other that ever has its number.
    mark: Mark,
    /// Stored bytes read so far.
    bytes: &'a AtomicU64,
}

/// The series that matchers choose in a generation.
pub(crate) enum Chosen {
    /// With their labels.
    Rows(Arc<Vec<Row>>),
    /// Their places in the generation.
    Many(Arc<RoaringBitmap>),
}

/// A series in the index: its labels, and where its values are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'b> {
    pub(crate) place: Place,
    /// As [`Labels::encode`] wrote them.
    labels: &'b [u8],
}

impl Found<'_> {
    /// Visits the pairs of name and value, without keeping anything.
    pub(crate) fn pairs(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), Error> {
        let input = &mut In::new(self.labels);
        for _ in 0..input.count(2)? {
            visit(input.str()?, input.str()?);
        }
        Ok(())
    }

    pub(crate) fn labels(&self) -> Result<Labels, Error> {
        Ok(Labels::decode(&mut In::new(self.labels))?)
    }

    /// With its labels, which are read where nobody knows them by their fingerprint.
    pub(crate) fn row_with(&self, known: &mut dyn FnMut(u128) -> Option<Labels>) -> Result<Row, Error> {
        let fingerprint = Labels::fingerprint_of_encoded(self.labels);
        let labels = known(fingerprint).map_or_else(|| self.labels(), Ok)?;
        Ok(Row { fingerprint, labels, place: self.place })
    }

    /// With its labels read.
    pub(crate) fn row(&self, labels: Labels) -> Row {
        let fingerprint = Labels::fingerprint_of_encoded(self.labels);
        Row { fingerprint, labels, place: self.place }
    }
}

impl<'a> Disk<'a> {
    pub(crate) fn new(
        on: OnDisk<'a>,
        cache: &'a ReadCache,
        (window_ms, mark): (i64, Mark),
        shard: ShardId,
        tenant: &Tenant,
        bytes: &'a AtomicU64,
    ) -> Self {
        let (rocks, prefix) = (on.rocks, keys::tenant(mark.generation(window_ms), shard, tenant));
        Self { on, rocks, cache, shard, window_ms, prefix, mark, bytes }
    }

    /// What was read, or where it is damaged.
    fn told<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        read.map_err(|error| match error {
            Error::Corrupt(why) => self.damaged(why),
            Error::Rocks(error) if error.is_corruption() => self.damaged(error.to_string()),
            other => other,
        })
    }

    fn damaged(&self, why: String) -> Error {
        let span_ms = self.on.window_len_ms.saturating_mul(i64::from(self.mark.windows));
        if !self.is_live() {
            let until = time(self.window_ms.saturating_add(span_ms));
            return Error::Removed { shard: self.shard, from: time(self.window_ms), until };
        }
        self.on.damages.meet(self.shard, self.window_ms, &self.mark, span_ms, why)
    }

    /// Whether the shard still has this generation: retention, a merge or a new copy of the shard may have taken it away
    /// from under whoever reads it, and that is no damage.
    fn is_live(&self) -> bool {
        let Some(shards) = self.on.shards else { return true };
        let Some(cell) = shards.read_recursive().get(&self.shard).cloned() else { return false };
        // The reader may hold this lock already. How far deletes are carried out may have been noted meanwhile.
        let state = cell.state.read_recursive();
        let mut marks = state.marks.get(&self.window_ms).into_iter().flatten();
        marks.any(|mark| Mark { deleted: self.mark.deleted, ..*mark } == self.mark)
    }

    /// Visits stored pairs of a range in order, until the visitor answers `false`.
    fn scan(&self, family: &str, from: &[u8], to: &[u8], visit: Visit<'_, Error>) -> Result<(), Error> {
        self.told(self.rocks.scan::<Error>(family, from, to, visit))
    }

    fn key(&self, kind: Kind) -> Key {
        let mut key = Key::new(kind);
        self.identify(&mut key);
        key
    }

    /// Adds to a key what tells this part of this generation from any other.
    pub(crate) fn identify(&self, key: &mut Key) {
        key.bytes(&self.prefix).number(self.mark.through.0).number(self.mark.samples);
    }

    /// A block of values, from the cache where it is there.
    pub(crate) fn value_block(&self, number: u32) -> Result<Arc<values::Block>, Error> {
        let key = self.key(Kind::Block).number(u64::from(number)).finish();
        self.told(self.cache.block(key, || {
            let block = values::Block::open(&self.block(keys::DATA, Section::Values, number)?)?;
            self.bytes.fetch_add(block.bytes() as u64, Ordering::Relaxed);
            Ok(block)
        }))
    }

    /// A block of times, from the cache where it is there.
    pub(crate) fn time_block(&self, number: u32) -> Result<Arc<Times>, Error> {
        let key = self.key(Kind::Times).number(u64::from(number)).finish();
        let section = if self.is_merged() { Section::LongTimes } else { Section::Times };
        self.told(self.cache.times(key, || times::decode(&self.block(keys::DATA, section, number)?)))
    }

    /// Whether it has the layout of merged windows.
    fn is_merged(&self) -> bool {
        self.mark.is_merged
    }

    /// Columns in a block of times.
    pub(crate) fn columns_per_block(&self) -> usize {
        if self.is_merged() { times::LONG_COLUMNS_PER_BLOCK } else { times::COLUMNS_PER_BLOCK }
    }

    /// Where everything of the tenant in this generation lies.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The series that satisfy all matchers, sorted by place. `known` gives labels that are in memory already, by their
    /// fingerprint. Of more series than are kept the labels are not read, as most may have nothing in the time asked for.
    pub(crate) fn rows(
        &self,
        matchers: &[Matcher],
        mut known: impl FnMut(u128) -> Option<Labels>,
    ) -> Result<Chosen, Error> {
        let key = self.chosen(Kind::Rows, matchers);
        if let Some(rows) = self.cache.known_rows(key) {
            return Ok(Chosen::Rows(rows));
        }
        let places = self.places(matchers)?;
        if places.len() > self.cache.most_rows() {
            return Ok(Chosen::Many(places));
        }
        let rows = self.cache.rows(key, || {
            let mut rows = Vec::with_capacity(places.len() as usize);
            self.series(&places, &mut |_, found| {
                rows.push(found.row_with(&mut known)?);
                Ok(())
            })?;
            Ok(rows)
        });
        rows.map(Chosen::Rows)
    }

    /// The places of the series that satisfy all matchers, as [`Disk::select`] finds them, from the cache where they are
    /// there.
    pub(crate) fn places(&self, matchers: &[Matcher]) -> Result<Arc<RoaringBitmap>, Error> {
        self.cache.places(self.chosen(Kind::Places, matchers), || self.select(matchers))
    }

    /// The key of what is kept of the series that matchers choose.
    fn chosen(&self, kind: Kind, matchers: &[Matcher]) -> u128 {
        let mut key = self.key(kind);
        for matcher in matchers {
            key.matcher(matcher);
        }
        key.finish()
    }

    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Pinned<'a>>, Error> {
        let value = self.told(self.rocks.get(family, key).map_err(Error::from))?;
        self.bytes.fetch_add(value.as_ref().map_or(0, |value| value.len() as u64), Ordering::Relaxed);
        Ok(value)
    }

    fn block(&self, family: &str, section: Section, number: u32) -> Result<Pinned<'a>, Error> {
        let key = keys::block(&self.prefix, section, number);
        self.get(family, &key)?
            .ok_or_else(|| self.damaged(format!("block {number} of {section:?} is missing")))
    }

    /// How many series there are.
    pub(crate) fn series_count(&self) -> Result<u32, Error> {
        let Some(header) = self.get(keys::INDEX, &keys::section(&self.prefix, Section::Header))? else {
            return Ok(0);
        };
        let input = &mut In::new(&header);
        if input.u8()? != VERSION {
            return Err(Error::corrupt("an index has an unknown version: it may be of a newer build"));
        }
        Ok(input.u32()?)
    }

    /// The series that satisfy all matchers, by their place in the window.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, Error> {
        // Equality narrows most and costs least.
        let is_equal = |matcher: &&Matcher| matcher.op == MatchOp::Equal && !matcher.value.is_empty();
        let mut narrowed: Option<RoaringBitmap> = None;
        for matcher in matchers.iter().filter(is_equal) {
            let key = keys::label_value(&self.prefix, &matcher.name, &matcher.value);
            let Some(ids) = self.get(keys::INDEX, &key)? else { return Ok(RoaringBitmap::new()) };
            let mut ids = postings::decode(&ids)?;
            if let Some(all) = narrowed {
                ids &= all;
            }
            if ids.is_empty() {
                return Ok(ids);
            }
            narrowed = Some(ids);
        }
        let mut all = match narrowed {
            Some(ids) => ids,
            None => {
                let mut all = RoaringBitmap::new();
                all.insert_range(0..self.series_count()?);
                all
            }
        };
        let others = matchers.iter().filter(|matcher| !is_equal(matcher));
        for matcher in others {
            if all.is_empty() {
                return Ok(all);
            }
            // Without the label the value is empty: then what does not match is taken away instead.
            let takes_empty = matcher.matches_empty();
            let mut touched = RoaringBitmap::new();
            self.values(&matcher.name, &mut |value, ids| {
                if matcher.matches(value) != takes_empty {
                    touched |= postings::decode(ids)?;
                }
                Ok(true)
            })?;
            if takes_empty {
                all -= touched;
            } else {
                all &= touched;
            }
        }
        Ok(all)
    }

    /// Visits the values of a label with their series, sorted.
    pub(crate) fn values(&self, name: &str, visit: VisitValue<'_>) -> Result<(), Error> {
        let prefix = keys::label_name(&self.prefix, name);
        self.scan(keys::INDEX, &prefix, &keys::after(&prefix), &mut |key, ids| {
            let value = std::str::from_utf8(key.get(prefix.len()..).unwrap_or_default());
            visit(value.map_err(|_| Error::corrupt("a label value is not UTF-8"))?, ids)
        })
    }

    /// Visits all pairs of label name and value with their series, sorted.
    pub(crate) fn pairs(&self, visit: VisitPair<'_>) -> Result<(), Error> {
        let prefix = keys::section(&self.prefix, Section::Postings);
        self.scan(keys::INDEX, &prefix, &keys::after(&prefix), &mut |key, ids| {
            let pair = keys::parse_label(key.get(prefix.len()..).unwrap_or_default());
            let (name, value) = pair.ok_or_else(|| Error::corrupt("a key of the index is malformed"))?;
            visit(&name, value, ids)
        })
    }

    /// Visits the names of labels, sorted, until the visitor answers `false`. Their values are passed over.
    pub(crate) fn names(&self, visit: &mut dyn FnMut(&str) -> Result<bool, Error>) -> Result<(), Error> {
        let prefix = keys::section(&self.prefix, Section::Postings);
        let mut cursor =
            self.told(self.rocks.cursor(keys::INDEX, &prefix, &keys::after(&prefix)).map_err(Error::from))?;
        while let Some((key, _)) = cursor.item() {
            let pair = keys::parse_label(key.get(prefix.len()..).unwrap_or_default());
            let pair = pair.ok_or_else(|| Error::corrupt("a key of the index is malformed"));
            let (name, _) = self.told(pair)?;
            if !visit(&name)? {
                return Ok(());
            }
            cursor.seek(&keys::after(&keys::label_name(&self.prefix, &name)));
        }
        self.told(cursor.status().map_err(Error::from))
    }

    /// Visits series by ascending place.
    pub(crate) fn series(
        &self,
        ids: &RoaringBitmap,
        visit: &mut dyn FnMut(u32, Found<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut open: Option<(u32, Pinned<'a>)> = None;
        for id in ids {
            let number = id / SERIES_PER_INDEX_BLOCK;
            let block = match open.take() {
                Some((open, block)) if open == number => block,
                _ => self.block(keys::INDEX, Section::Series, number)?,
            };
            visit(id, self.told(series_in(&block, (id % SERIES_PER_INDEX_BLOCK) as usize))?)?;
            open = Some((number, block));
        }
        Ok(())
    }

    /// A block of series, and the series at one of its places.
    pub(crate) fn series_block(&self, number: u32) -> Result<Pinned<'a>, Error> {
        self.block(keys::INDEX, Section::Series, number)
    }

    /// The labels of the series at a place, out of its block.
    pub(crate) fn labels_in(&self, block: &[u8], place: u32) -> Result<Labels, Error> {
        let found = series_in(block, (place % SERIES_PER_INDEX_BLOCK) as usize);
        self.told(found.and_then(|found| found.labels()))
    }

    /// Visits the exemplars of series by ascending place.
    pub(crate) fn exemplars(
        &self,
        ids: &RoaringBitmap,
        visit: &mut dyn FnMut(u32, Vec<Exemplar>),
    ) -> Result<(), Error> {
        let prefix = keys::section(&self.prefix, Section::Exemplars);
        self.scan(keys::DATA, &prefix, &keys::after(&prefix), &mut |_, block| {
            self.bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
            exemplars_in(block)?
                .into_iter()
                .filter(|(id, _)| ids.contains(*id))
                .for_each(|(id, of)| visit(id, of));
            Ok(true)
        })
    }

    /// The spans of a trace.
    pub(crate) fn trace(&self, id: &TraceId) -> Result<Vec<SpanRecord>, Error> {
        let Some(firsts) = self.get(keys::INDEX, &keys::trace(&self.prefix, id))? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let mut firsts = In::new(&firsts);
        while !firsts.is_empty() {
            self.trace_from(id, firsts.u32()?, &mut found)?;
        }
        if found.is_empty() {
            return Err(self.damaged(format!("the spans of trace {id} are not where its index says")));
        }
        Ok(found)
    }

    /// The spans of a trace in a block and those behind it: it fills neighbouring blocks, which are sorted by trace.
    fn trace_from(&self, id: &TraceId, first: u32, found: &mut Vec<SpanRecord>) -> Result<(), Error> {
        let block = |number| self.get(keys::DATA, &keys::block(&self.prefix, Section::Spans, number));
        let mut number = first;
        while let Some(stored) = block(number)? {
            let spans = spans::decode(&stored)?;
            let is_over = spans.last().is_none_or(|span| span.trace_id > *id);
            found.extend(spans.into_iter().filter(|span| span.trace_id == *id));
            if is_over {
                break;
            }
            number += 1;
        }
        Ok(())
    }

    /// The spans of a block.
    pub(crate) fn spans_of_block(&self, number: u32) -> Result<Vec<SpanRecord>, Error> {
        self.told(spans::decode(&self.block(keys::DATA, Section::Spans, number)?))
    }

    /// Where blocks of spans lie: all, or of merged windows those of the one at a place.
    pub(crate) fn span_range(&self, place: Option<u16>) -> (Vec<u8>, Vec<u8>) {
        let Some(place) = place else {
            let prefix = keys::section(&self.prefix, Section::Spans);
            return (prefix.clone(), keys::after(&prefix));
        };
        let first = |place| keys::block(&self.prefix, Section::Spans, place * keys::SPAN_BLOCKS_PER_WINDOW);
        (first(u32::from(place)), first(u32::from(place) + 1))
    }

    /// Visits blocks of spans of which some start in `[start_ns, end_ns]`, of merged windows those of the one at a place;
    /// stops when told so.
    pub(crate) fn span_blocks(
        &self,
        place: Option<u16>,
        start_ns: u64,
        end_ns: u64,
        visit: &mut dyn FnMut(Vec<SpanRecord>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let (from, to) = self.span_range(place);
        self.scan(keys::DATA, &from, &to, &mut |_, block| {
            let bounds = spans::bounds(block)?;
            if bounds.max_ns < start_ns || bounds.min_ns > end_ns {
                return Ok(true);
            }
            self.bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
            visit(spans::decode(block)?)
        })
    }
}

/// The exemplars of a block with the places of their series, which ascend.
pub(crate) fn exemplars_in(block: &[u8]) -> Result<Vec<(u32, Vec<Exemplar>)>, Error> {
    let body = unpack(VERSION, block, "exemplar")?;
    let input = &mut In::new(&body);
    let mut all = Vec::new();
    while !input.is_empty() {
        all.push((input.u32()?, decode_exemplars(input)?));
    }
    Ok(all)
}

/// Reads the series at a place of an index block.
pub(crate) fn series_in(block: &[u8], at: usize) -> Result<Found<'_>, Error> {
    let damaged = || Error::corrupt("a block of the index is malformed");
    let (version, rest) = block.split_first().ok_or_else(damaged)?;
    if *version != VERSION {
        return Err(Error::corrupt(
            "a block of the index has an unknown version: it may be of a newer build",
        ));
    }
    let (count, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
    let count = usize::from(u16::from_le_bytes(*count));
    let (offsets, body) = rest.split_at_checked(count * 4).ok_or_else(damaged)?;
    let offset =
        |at: usize| offsets.get(at * 4..)?.first_chunk::<4>().map(|le| u32::from_le_bytes(*le) as usize);
    let from = offset(at).ok_or_else(damaged)?;
    let to = offset(at + 1).unwrap_or(body.len());
    let input = &mut In::new(body.get(from..to).ok_or_else(damaged)?);
    let place = Place { block: input.u32()?, slot: input.u32()? };
    Ok(Found { place, labels: input.rest() })
}
