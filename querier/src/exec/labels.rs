//! Fragments over names, label sets, exemplars, metadata and cardinality.

use parking_lot::Mutex;
use tricord_fragment::{
    Fragment, FragmentBody, FragmentStats, LabelQuery, Partial, PartialBody, QueryLimits,
};
use tricord_model::Labels;

use super::Error;
use crate::storage::Reader;

/// One more than asked for, so that a cut can be told from a list that just fits; and never more than the bound.
struct Ask {
    ask: usize,
    keep: usize,
    /// Whether passing `keep` is an error rather than a cut.
    bounded: bool,
}

impl Ask {
    fn new(limit: u64, limits: QueryLimits) -> Self {
        let bounded = limit == 0 || limit > limits.max_series;
        let keep = usize::try_from(if bounded { limits.max_series } else { limit }).unwrap_or(usize::MAX);
        Self { ask: keep.saturating_add(1), keep, bounded }
    }

    /// That of a fragment whose list may be put together from several batches.
    fn of(fragment: &Fragment) -> Option<Self> {
        use FragmentBody as B;
        match &fragment.body {
            B::LabelNames(query) | B::LabelValues { query, .. } | B::Series(query) => {
                Some(Self::new(query.limit, fragment.limits))
            }
            _ => None,
        }
    }

    fn limit(&self) -> u64 {
        self.ask as u64
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

    /// Sorts a list that has become longer than what is asked for, and cuts it to that; answers the last item of a list
    /// that is as long then: nothing behind it is wanted of other batches.
    fn fold<'i, T: Ord>(&self, items: &'i mut Vec<T>) -> Result<Option<&'i T>, Error> {
        if items.len() < self.ask {
            return Ok(None);
        }
        items.sort();
        items.dedup();
        if self.bounded && items.len() >= self.ask {
            self.cut(items)?;
        }
        items.truncate(self.ask);
        Ok(items.last().filter(|_| items.len() == self.ask))
    }
}

/// Behind what the batches of a fragment need to list nothing: those before them have as many items up to there as are
/// asked for.
#[derive(Default)]
pub(super) struct Reached {
    text: Mutex<Option<String>>,
    labels: Mutex<Option<Labels>>,
}

impl Reached {
    /// Takes note of what a thread has put together, and cuts that to what is asked for.
    ///
    /// # Errors
    /// `Limit` where it has more than it may.
    pub(super) fn fold(&self, fragment: &Fragment, body: &mut PartialBody) -> Result<(), Error> {
        let Some(ask) = Ask::of(fragment) else { return Ok(()) };
        match body {
            PartialBody::Names(names) => note(&self.text, ask.fold(names)?),
            PartialBody::Series(series) => note(&self.labels, ask.fold(series)?),
            _ => {}
        }
        Ok(())
    }
}

/// The nearest of all that were noted counts.
fn note<T: Ord + Clone>(reached: &Mutex<Option<T>>, last: Option<&T>) {
    let Some(last) = last else { return };
    let mut reached = reached.lock();
    if reached.as_ref().is_none_or(|before| last < before) {
        *reached = Some(last.clone());
    }
}

/// Holds a list that was put together from batches, sorted, to what is asked for.
pub(super) fn cut(fragment: &Fragment, partial: &mut Partial) -> Result<(), Error> {
    let Some(ask) = Ask::of(fragment) else { return Ok(()) };
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

pub(super) fn names(
    reader: &Reader,
    query: &LabelQuery,
    limits: QueryLimits,
    reached: &Reached,
) -> Result<Partial, Error> {
    let (ask, until) = (Ask::new(query.limit, limits), reached.text.lock().clone());
    let range = (query.start_ms, query.end_ms);
    let names = reader.label_names(&query.matchers, range, ask.limit(), until.as_deref())?;
    Ok(partial(PartialBody::Names(names), false, 0))
}

pub(super) fn values(
    reader: &Reader,
    name: &str,
    query: &LabelQuery,
    limits: QueryLimits,
    reached: &Reached,
) -> Result<Partial, Error> {
    let (ask, until) = (Ask::new(query.limit, limits), reached.text.lock().clone());
    let range = (query.start_ms, query.end_ms);
    let values = reader.label_values(name, &query.matchers, range, ask.limit(), until.as_deref())?;
    Ok(partial(PartialBody::Names(values), false, 0))
}

pub(super) fn series(
    reader: &Reader,
    query: &LabelQuery,
    limits: QueryLimits,
    reached: &Reached,
) -> Result<Partial, Error> {
    let (ask, until) = (Ask::new(query.limit, limits), reached.labels.lock().clone());
    let range = (query.start_ms, query.end_ms);
    let series = reader.series(&query.matchers, range, ask.limit(), until.as_ref())?;
    let found = series.len();
    Ok(partial(PartialBody::Series(series), false, found))
}

pub(super) fn estimate(reader: &Reader, query: &LabelQuery) -> Result<Partial, Error> {
    let estimate = reader.estimate(&query.matchers, query.start_ms, query.end_ms)?;
    Ok(partial(PartialBody::Estimate(estimate), false, 0))
}

pub(super) fn exemplars(reader: &Reader, query: &LabelQuery, limits: QueryLimits) -> Result<Partial, Error> {
    let ask = Ask::new(query.limit, limits);
    let mut series = reader.exemplars(&query.matchers, query.start_ms, query.end_ms, ask.limit())?;
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
