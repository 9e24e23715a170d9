//! Fragments over names, label sets, exemplars, metadata and cardinality.

use tricord_fragment::{
    Fragment, FragmentBody, FragmentStats, LabelQuery, Partial, PartialBody, QueryLimits,
};

use super::Error;
use crate::storage::Reader;

/// One more than asked for, so that a cut can be told from a list that just fits; and never more than the bound.
struct Ask {
    ask: u64,
    keep: usize,
    /// Whether passing `keep` is an error rather than a cut.
    bounded: bool,
}

impl Ask {
    fn new(limit: u64, limits: QueryLimits) -> Self {
        let bounded = limit == 0 || limit > limits.max_series;
        let keep = if bounded { limits.max_series } else { limit };
        Self { ask: keep.saturating_add(1), keep: usize::try_from(keep).unwrap_or(usize::MAX), bounded }
    }

    fn cut<T>(&self, items: &mut Vec<T>) -> Result<bool, Error> {
        let truncated = items.len() > self.keep;
        if truncated && self.bounded {
            let text = format!(
                "more than {} results on one data node: narrow the matchers or the time range, ask with a limit, or \
                 raise the proxy's max_series",
                self.keep
            );
            return Err(Error::new(tricord_wire::ErrorKind::Limit, text));
        }
        items.truncate(self.keep);
        Ok(truncated)
    }
}

/// Holds a list that was put together from several batches to the bounds that each of them kept.
pub(super) fn cut_again(fragment: &Fragment, partial: &mut Partial) -> Result<(), Error> {
    use FragmentBody as B;
    let ask = match &fragment.body {
        B::LabelNames(query) | B::LabelValues { query, .. } | B::Series(query) => {
            Ask::new(query.limit, fragment.limits)
        }
        _ => return Ok(()),
    };
    partial.truncated |= match &mut partial.body {
        PartialBody::Names(names) => ask.cut(names)?,
        PartialBody::Series(series) => ask.cut(series)?,
        _ => false,
    };
    Ok(())
}

fn partial(body: PartialBody, truncated: bool, series: usize) -> Partial {
    let stats = FragmentStats { series: series as u64, ..FragmentStats::default() };
    Partial { stats, truncated, ..Partial::of(body) }
}

pub(super) fn names(reader: &Reader, query: &LabelQuery, limits: QueryLimits) -> Result<Partial, Error> {
    let ask = Ask::new(query.limit, limits);
    let mut names = reader.label_names(&query.matchers, query.start_ms, query.end_ms, ask.ask)?;
    let truncated = ask.cut(&mut names)?;
    Ok(partial(PartialBody::Names(names), truncated, 0))
}

pub(super) fn values(
    reader: &Reader,
    name: &str,
    query: &LabelQuery,
    limits: QueryLimits,
) -> Result<Partial, Error> {
    let ask = Ask::new(query.limit, limits);
    let mut values = reader.label_values(name, &query.matchers, query.start_ms, query.end_ms, ask.ask)?;
    let truncated = ask.cut(&mut values)?;
    Ok(partial(PartialBody::Names(values), truncated, 0))
}

pub(super) fn series(reader: &Reader, query: &LabelQuery, limits: QueryLimits) -> Result<Partial, Error> {
    let ask = Ask::new(query.limit, limits);
    let mut series = reader.series(&query.matchers, query.start_ms, query.end_ms, ask.ask)?;
    let truncated = ask.cut(&mut series)?;
    let found = series.len();
    Ok(partial(PartialBody::Series(series), truncated, found))
}

pub(super) fn estimate(reader: &Reader, query: &LabelQuery) -> Result<Partial, Error> {
    let estimate = reader.estimate(&query.matchers, query.start_ms, query.end_ms)?;
    Ok(partial(PartialBody::Estimate(estimate), false, 0))
}

pub(super) fn exemplars(reader: &Reader, query: &LabelQuery, limits: QueryLimits) -> Result<Partial, Error> {
    let ask = Ask::new(query.limit, limits);
    let mut series = reader.exemplars(&query.matchers, query.start_ms, query.end_ms, ask.ask)?;
    let truncated = ask.cut(&mut series)?;
    let found = series.len();
    Ok(partial(PartialBody::Exemplars(series), truncated, found))
}

pub(super) fn metadata(reader: &Reader, family: &str, limit: u64) -> Result<Partial, Error> {
    Ok(partial(PartialBody::Metadata(reader.metadata(family, limit)?), false, 0))
}

pub(super) fn cardinality(reader: &Reader, top: u32) -> Result<Partial, Error> {
    // A bound on what a request can ask for; the lists are cut again at the proxy.
    let top = top.min(10_000) as usize;
    Ok(partial(PartialBody::Cardinality(reader.cardinality(top)?), false, 0))
}
