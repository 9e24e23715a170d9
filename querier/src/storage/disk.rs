//! Reading one tenant's data of one shard in one generation of a window.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roaring::RoaringBitmap;
use tricord_model::codec::Reader as In;
use tricord_model::{Exemplar, Labels, MatchOp, Matcher, Points, ShardId, SpanRecord, Tenant, TraceId};
use tricord_rocks::{Pinned, Rocks};

use super::Error;
use super::block::times::COLUMNS_PER_BLOCK;
use super::block::{postings, spans, times, unpack, values};
use super::flush::encode::{SERIES_PER_INDEX_BLOCK, VERSION};
use super::head::payload::decode_exemplars;
use super::keys::{self, Generation, Section};

/// Visits a label value with its series, encoded; answers whether to go on.
type VisitValue<'v> = &'v mut dyn FnMut(&str, &[u8]) -> Result<bool, Error>;
/// Visits a label name and value with their series, encoded; answers whether to go on.
type VisitPair<'v> = &'v mut dyn FnMut(&str, &str, &[u8]) -> Result<bool, Error>;

/// A tenant's part of a generation.
pub(crate) struct Disk<'a> {
    rocks: &'a Rocks,
    prefix: Vec<u8>,
    /// Stored bytes read so far.
    bytes: &'a AtomicU64,
}

/// A series in the index: where its values are.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) labels: Labels,
    block: u32,
    slot: u32,
}

/// Blocks that the series of one query share.
#[derive(Default)]
pub(crate) struct Blocks {
    values: Option<(u32, values::Block)>,
    times: HashMap<u32, Arc<Vec<Vec<i64>>>>,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(
        rocks: &'a Rocks,
        of: Generation,
        shard: ShardId,
        tenant: &Tenant,
        bytes: &'a AtomicU64,
    ) -> Self {
        Self { rocks, prefix: keys::tenant(of, shard, tenant), bytes }
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
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.series_count()?);
        // Equality narrows most and costs least.
        let (equal, others): (Vec<_>, Vec<_>) =
            matchers.iter().partition(|matcher| matcher.op == MatchOp::Equal && !matcher.value.is_empty());
        for matcher in equal {
            if all.is_empty() {
                return Ok(all);
            }
            let key = keys::label_value(&self.prefix, &matcher.name, &matcher.value);
            match self.get(keys::INDEX, &key)? {
                Some(ids) => all &= postings::decode(&ids)?,
                None => return Ok(RoaringBitmap::new()),
            }
        }
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
        visit: &mut dyn FnMut(u32, Found) -> Result<(), Error>,
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

    /// All samples of a series. Series should come in ascending order, so that their blocks are opened once.
    pub(crate) fn points(&self, found: &Found, blocks: &mut Blocks) -> Result<Points, Error> {
        let block = match blocks.values.take() {
            Some((number, block)) if number == found.block => block,
            _ => {
                let block = values::Block::open(&self.block(keys::DATA, Section::Values, found.block)?)?;
                self.bytes.fetch_add(block.bytes() as u64, Ordering::Relaxed);
                block
            }
        };
        let column = block.times(found.slot as usize)?;
        let (number, at) = (column / COLUMNS_PER_BLOCK as u32, column as usize % COLUMNS_PER_BLOCK);
        let times = match blocks.times.get(&number) {
            Some(times) => Arc::clone(times),
            None => {
                let times = Arc::new(times::decode(&self.block(keys::DATA, Section::Times, number)?)?);
                blocks.times.insert(number, Arc::clone(&times));
                times
            }
        };
        let times = times.get(at).ok_or_else(|| Error::corrupt("a series has no timestamps"))?;
        let points = block.points(found.slot as usize, times);
        blocks.values = Some((found.block, block));
        points
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
fn series_in(block: &[u8], at: usize) -> Result<Found, Error> {
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
    let offset = offsets.get(at * 4..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(damaged)?;
    let input = &mut In::new(body.get(u32::from_le_bytes(*offset) as usize..).ok_or_else(damaged)?);
    Ok(Found { block: input.u32()?, slot: input.u32()?, labels: Labels::decode(input)? })
}
