//! Reading one tenant's data of one shard in one generation of a window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roaring::RoaringBitmap;
use tricord_model::codec::Reader as In;
use tricord_model::{Exemplar, Labels, MatchOp, Matcher, ShardId, SpanRecord, Tenant, TraceId};
use tricord_rocks::{Pinned, Rocks};

use super::Error;
use super::block::{postings, spans, times, unpack, values};
use super::cache::{Key, Kind, ReadCache, Row, Times};
use super::flush::encode::{SERIES_PER_INDEX_BLOCK, VERSION};
use super::head::Mark;
use super::head::payload::decode_exemplars;
use super::keys::{self, Generation, Section};

/// Visits a label value with its series, encoded; answers whether to go on.
type VisitValue<'v> = &'v mut dyn FnMut(&str, &[u8]) -> Result<bool, Error>;
/// Visits a label name and value with their series, encoded; answers whether to go on.
type VisitPair<'v> = &'v mut dyn FnMut(&str, &str, &[u8]) -> Result<bool, Error>;

/// A tenant's part of a generation.
pub(crate) struct Disk<'a> {
    rocks: &'a Rocks,
    cache: &'a ReadCache,
    prefix: Vec<u8>,
    /// What tells this generation from any other that ever has its number.
    mark: Mark,
    /// Stored bytes read so far.
    bytes: &'a AtomicU64,
}

/// A series in the index: its labels, and where its values are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'b> {
    block: u32,
    slot: u32,
    /// As [`Labels::encode`] wrote them.
    labels: &'b [u8],
}

impl Found<'_> {
    pub(crate) fn labels(&self) -> Result<Labels, Error> {
        Ok(Labels::decode(&mut In::new(self.labels))?)
    }
}

impl<'a> Disk<'a> {
    pub(crate) fn new(
        rocks: &'a Rocks,
        cache: &'a ReadCache,
        (window_ms, mark): (i64, Mark),
        shard: ShardId,
        tenant: &Tenant,
        bytes: &'a AtomicU64,
    ) -> Self {
        let of = Generation { window_ms, number: mark.number };
        Self { rocks, cache, prefix: keys::tenant(of, shard, tenant), mark, bytes }
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
        self.cache.block(key, || {
            let block = values::Block::open(&self.block(keys::DATA, Section::Values, number)?)?;
            self.bytes.fetch_add(block.bytes() as u64, Ordering::Relaxed);
            Ok(block)
        })
    }

    /// A block of times, from the cache where it is there.
    pub(crate) fn time_block(&self, number: u32) -> Result<Arc<Times>, Error> {
        let key = self.key(Kind::Times).number(u64::from(number)).finish();
        self.cache.times(key, || times::decode(&self.block(keys::DATA, Section::Times, number)?))
    }

    /// The series that satisfy all matchers, sorted by place. `known` gives labels that are in memory already, by their
    /// fingerprint.
    pub(crate) fn rows(
        &self,
        matchers: &[Matcher],
        mut known: impl FnMut(u128) -> Option<Labels>,
    ) -> Result<Arc<Vec<Row>>, Error> {
        let mut key = self.key(Kind::Rows);
        for matcher in matchers {
            key.bytes(matcher.name.as_bytes()).bytes(matcher.op.as_str().as_bytes());
            key.bytes(matcher.value.as_bytes());
        }
        self.cache.rows(key.finish(), || {
            let ids = self.select(matchers)?;
            let mut rows = Vec::with_capacity(ids.len() as usize);
            self.series(&ids, &mut |_, found| {
                let fingerprint = Labels::fingerprint_of_encoded(found.labels);
                let labels = match known(fingerprint) {
                    Some(labels) => labels,
                    None => found.labels()?,
                };
                rows.push(Row { fingerprint, labels, block: found.block, slot: found.slot });
                Ok(())
            })?;
            Ok(rows)
        })
    }

    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Pinned<'a>>, Error> {
        let value = self.rocks.get(family, key)?;
        self.bytes.fetch_add(value.as_ref().map_or(0, |value| value.len() as u64), Ordering::Relaxed);
        Ok(value)
    }

    fn block(&self, family: &str, section: Section, number: u32) -> Result<Pinned<'a>, Error> {
        let key = keys::block(&self.prefix, section, number);
        self.get(family, &key)?
            .ok_or_else(|| Error::corrupt(format!("block {number} of {section:?} is missing")))
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
        self.rocks.scan::<Error>(keys::INDEX, &prefix, &keys::after(&prefix), &mut |key, ids| {
            let value = std::str::from_utf8(key.get(prefix.len()..).unwrap_or_default());
            visit(value.map_err(|_| Error::corrupt("a label value is not UTF-8"))?, ids)
        })
    }

    /// Visits all pairs of label name and value with their series, sorted.
    pub(crate) fn pairs(&self, visit: VisitPair<'_>) -> Result<(), Error> {
        let prefix = keys::section(&self.prefix, Section::Postings);
        self.rocks.scan::<Error>(keys::INDEX, &prefix, &keys::after(&prefix), &mut |key, ids| {
            let pair = keys::parse_label(key.get(prefix.len()..).unwrap_or_default());
            let (name, value) = pair.ok_or_else(|| Error::corrupt("a key of the index is malformed"))?;
            visit(&name, value, ids)
        })
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
            visit(id, series_in(&block, (id % SERIES_PER_INDEX_BLOCK) as usize)?)?;
            open = Some((number, block));
        }
        Ok(())
    }

    /// Visits the exemplars of series by ascending place.
    pub(crate) fn exemplars(
        &self,
        ids: &RoaringBitmap,
        visit: &mut dyn FnMut(u32, Vec<Exemplar>),
    ) -> Result<(), Error> {
        let prefix = keys::section(&self.prefix, Section::Exemplars);
        self.rocks.scan::<Error>(keys::DATA, &prefix, &keys::after(&prefix), &mut |_, block| {
            self.bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
            let body = unpack(VERSION, block, "exemplar")?;
            let input = &mut In::new(&body);
            while !input.is_empty() {
                let id = input.u32()?;
                let exemplars = decode_exemplars(input)?;
                if ids.contains(id) {
                    visit(id, exemplars);
                }
            }
            Ok(true)
        })
    }

    /// The spans of a trace.
    pub(crate) fn trace(&self, id: &TraceId) -> Result<Vec<SpanRecord>, Error> {
        let Some(first) = self.get(keys::INDEX, &keys::trace(&self.prefix, id))? else {
            return Ok(Vec::new());
        };
        let mut number = In::new(&first).u32()?;
        let mut found = Vec::new();
        // A trace fills neighbouring blocks, which are sorted by trace.
        while let Some(block) = self.get(keys::DATA, &keys::block(&self.prefix, Section::Spans, number))? {
            let spans = spans::decode(&block)?;
            let is_over = spans.last().is_none_or(|span| span.trace_id > *id);
            found.extend(spans.into_iter().filter(|span| span.trace_id == *id));
            if is_over {
                break;
            }
            number += 1;
        }
        if found.is_empty() {
            return Err(Error::corrupt(format!("the spans of trace {id} are not where its index says")));
        }
        Ok(found)
    }

    /// Visits blocks of spans of which some start in `[start_ns, end_ns]`; stops when told so.
    pub(crate) fn span_blocks(
        &self,
        start_ns: u64,
        end_ns: u64,
        visit: &mut dyn FnMut(Vec<SpanRecord>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let prefix = keys::section(&self.prefix, Section::Spans);
        self.rocks.scan::<Error>(keys::DATA, &prefix, &keys::after(&prefix), &mut |_, block| {
            let bounds = spans::bounds(block)?;
            if bounds.max_ns < start_ns || bounds.min_ns > end_ns {
                return Ok(true);
            }
            self.bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
            visit(spans::decode(block)?)
        })
    }
}

/// Reads the series at a place of an index block.
fn series_in(block: &[u8], at: usize) -> Result<Found<'_>, Error> {
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
    Ok(Found { block: input.u32()?, slot: input.u32()?, labels: input.rest() })
}
