//! One fragment over many shards: cut into batches that several threads work off, and put together again.
//!
//! Every answer that is put together here is one that the proxy would also accept from several nodes, so it does not
//! matter how shards fall into batches. Small batches bound the memory too: what a batch has read is gone when it is
//! folded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tricord_fragment::{Fragment, FragmentBody, FragmentStats, Partial, PartialBody};
use tricord_model::{ShardId, Tenant};
use tricord_promql::aggregate::MergedGroups;
use tricord_promql::eval::Notes;

use super::clock::Clock;
use super::promql::{Budget, Prepared};
use super::{Error, invalid, labels};
use crate::storage::Store;

/// How many batches the shards are cut into at most: enough for the threads to finish together, and few enough that
/// folding what they yield costs little.
const BATCHES: usize = 16;
/// Work that takes longer is shared with other threads; to wake them for less takes longer than it saves.
const WORTH_HELP: Duration = Duration::from_micros(400);

/// What other threads are called for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Help {
    /// There is more to compute than one thread should.
    ToCompute,
    /// This thread mostly waits for the disk, which could serve others meanwhile.
    ToWait,
}

/// A fragment at work.
pub(crate) struct Task {
    store: Arc<Store>,
    tenant: Tenant,
    fragment: Fragment,
    prepared: Option<Prepared>,
    batches: Vec<Vec<ShardId>>,
    next: AtomicUsize,
    budget: Budget,
    reached: labels::Reached,
    cancelled: Arc<AtomicBool>,
    done: Mutex<Option<Joined>>,
}

impl Task {
    /// A task over some shards of a tenant.
    ///
    /// # Errors
    /// `Invalid` where the fragment's expression cannot be read.
    pub(crate) fn new(
        store: Arc<Store>,
        tenant: Tenant,
        shards: &[ShardId],
        fragment: Fragment,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let prepared = match &fragment.body {
            FragmentBody::Promql(promql) => Some(Prepared::new(promql, fragment.limits, &cancelled)?),
            _ => None,
        };
        let size = if can_be_cut(&fragment.body) { shards.len().div_ceil(BATCHES) } else { shards.len() };
        // The first is small: by it the thread that begins sees what the others will take.
        let (first, others) = shards.split_at(if size < shards.len() { size.div_ceil(4) } else { size });
        let batches = std::iter::once(first).chain(others.chunks(size.max(1)));
        let batches = batches.map(<[ShardId]>::to_vec).collect();
        let budget = Budget::new(fragment.limits);
        let (next, done) = (AtomicUsize::new(0), Mutex::new(None));
        let reached = labels::Reached::default();
        Ok(Self { store, tenant, fragment, prepared, batches, next, budget, reached, cancelled, done })
    }

    /// How many threads it can use.
    pub(crate) fn width(&self) -> usize {
        self.batches.len()
    }

    /// Works batches off until none is left; any number of threads may do so. Others are called with `call_helpers`,
    /// perhaps more than once, where that is worth it.
    ///
    /// # Errors
    /// `Limit` where the fragment passes one of its limits or its series do not allow the operation, `Invalid` where it
    /// makes no sense, `Cancelled` once the flag is set, and what storage fails with. Other threads stop then.
    pub(crate) fn work(&self, call_helpers: &dyn Fn(Help)) -> Result<(), Error> {
        let result = self.work_off(call_helpers);
        if result.is_err() {
            self.next.store(self.batches.len(), Ordering::Relaxed);
        }
        result
    }

    fn work_off(&self, call_helpers: &dyn Fn(Help)) -> Result<(), Error> {
        let mut joined: Option<Joined> = None;
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(shards) = self.batches.get(at) else { break };
            let clock = Clock::start();
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(Error::new(tricord_wire::ErrorKind::Cancelled, "the query was cancelled"));
            }
            let partial = self.batch(shards)?;
            self.budget.keep(&partial)?;
            joined = Some(match joined {
                Some(joined) => joined.with(partial)?,
                None => Joined::of(&self.fragment, partial),
            });
            if let Some(Joined { body: Body::Other(body), .. }) = &mut joined {
                self.reached.fold(&self.fragment, body)?;
            }
            let left = self.batches.iter().skip(at + 1).map(Vec::len).sum::<usize>();
            let (took, computed) = clock.read();
            if took * left as u32 > WORTH_HELP * shards.len().max(1) as u32 {
                call_helpers(if computed < took / 2 { Help::ToWait } else { Help::ToCompute });
            }
        }
        let Some(mut mine) = joined else { return Ok(()) };
        loop {
            let others = self.done.lock().take();
            match others {
                Some(others) => mine = others.and(mine)?,
                None => {
                    let mut done = self.done.lock();
                    if done.is_none() {
                        *done = Some(mine);
                        return Ok(());
                    }
                }
            }
        }
    }

    fn batch(&self, shards: &[ShardId]) -> Result<Partial, Error> {
        let reader = self.store.reader(shards, &self.tenant, self.fragment.horizon_ms);
        let reader = reader.with_cancel(Arc::clone(&self.cancelled));
        let (prepared, reached) = (self.prepared.as_ref(), &self.reached);
        super::over(&reader, &self.fragment, prepared, &self.budget, reached, &self.cancelled)
    }

    /// The answer, once all threads are done without an error.
    ///
    /// # Errors
    /// `Limit` where the batches together have more results than they may.
    pub(crate) fn finish(&self) -> Result<Partial, Error> {
        let joined = self.done.lock().take();
        let lost = || Error::new(tricord_wire::ErrorKind::Internal, "a fragment ended without an answer");
        let mut partial = joined.ok_or_else(lost)?.finish();
        labels::cut(&self.fragment, &mut partial)?;
        Ok(partial)
    }
}

fn can_be_cut(body: &FragmentBody) -> bool {
    matches!(
        body,
        FragmentBody::Promql(_)
            | FragmentBody::Raw(_)
            | FragmentBody::LabelNames(_)
            | FragmentBody::LabelValues { .. }
            | FragmentBody::Series(_)
    )
}

/// Partials of several batches, put together.
struct Joined {
    notes: Notes,
    stats: FragmentStats,
    truncated: bool,
    body: Body,
}

enum Body {
    Groups(MergedGroups),
    Other(PartialBody),
}

impl Joined {
    fn of(fragment: &Fragment, partial: Partial) -> Self {
        let Partial { notes, stats, truncated, body } = partial;
        let aggregate = match &fragment.body {
            FragmentBody::Promql(promql) => promql.aggregate.as_ref(),
            _ => None,
        };
        let body = match (body, aggregate) {
            (PartialBody::Groups(groups), Some(spec)) => {
                Body::Groups(MergedGroups::of_distinct(spec.op, groups))
            }
            (body, _) => Body::Other(body),
        };
        Self { notes, stats, truncated, body }
    }

    fn with(mut self, partial: Partial) -> Result<Self, Error> {
        self.notes.merge(partial.notes);
        self.stats.add(&partial.stats);
        // All batches lie on the fragment's own grid.
        if let Some(more) = partial.stats.steps {
            match &mut self.stats.steps {
                Some(steps) => steps.add(&more),
                none => *none = Some(more),
            }
        }
        self.truncated |= partial.truncated;
        match (&mut self.body, partial.body) {
            (Body::Groups(groups), PartialBody::Groups(more)) => {
                groups.add(more).map_err(|error| invalid(error.to_string()))?;
            }
            (Body::Other(body), more) => extend(body, more)?,
            _ => return Err(mixed()),
        }
        Ok(self)
    }

    fn and(self, other: Self) -> Result<Self, Error> {
        let body = match other.body {
            Body::Groups(groups) => PartialBody::Groups(groups.finish()),
            Body::Other(body) => body,
        };
        let Self { notes, stats, truncated, .. } = other;
        self.with(Partial { notes, stats, truncated, body })
    }

    fn finish(self) -> Partial {
        let body = match self.body {
            Body::Groups(groups) => PartialBody::Groups(groups.finish()),
            Body::Other(body) => sorted(body),
        };
        Partial { notes: self.notes, stats: self.stats, truncated: self.truncated, body }
    }
}

fn mixed() -> Error {
    Error::new(tricord_wire::ErrorKind::Internal, "the shards of a fragment answered in different kinds")
}

fn extend(body: &mut PartialBody, more: PartialBody) -> Result<(), Error> {
    match (body, more) {
        (PartialBody::Columns(all), PartialBody::Columns(more)) => all.extend(more),
        (PartialBody::Raw(all), PartialBody::Raw(more)) => all.extend(more),
        (PartialBody::Names(all), PartialBody::Names(more)) => all.extend(more),
        (PartialBody::Series(all), PartialBody::Series(more)) => all.extend(more),
        _ => return Err(mixed()),
    }
    Ok(())
}

/// The lists of all batches, sorted as one; names and label sets once each.
fn sorted(mut body: PartialBody) -> PartialBody {
    match &mut body {
        PartialBody::Columns(all) => all.sort_by(|a, b| a.labels.cmp(&b.labels)),
        PartialBody::Raw(all) => all.sort_by(|a, b| a.0.cmp(&b.0)),
        PartialBody::Names(all) => {
            all.sort();
            all.dedup();
        }
        PartialBody::Series(all) => {
            all.sort();
            all.dedup();
        }
        _ => {}
    }
    body
}
