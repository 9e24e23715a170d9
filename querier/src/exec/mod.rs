//! Runs query fragments over a reader: dispatch by kind. Synchronous but for the crew that works a fragment off on
//! blocking threads; the service measures it and sends the answer.

mod clock;
mod crew;
mod labels;
mod promql;
mod task;
mod trace;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tricord_fragment::{Fragment, FragmentBody, Partial};
use tricord_wire::{Error, ErrorKind};

use crate::storage::Reader;
pub(crate) use crew::{Threads, work_off};
use promql::{Budget, Prepared};
pub(crate) use task::Task;

/// Answers a fragment over a reader.
///
/// # Errors
/// `Limit` where the fragment passes one of its limits or its series do not allow the operation, `Invalid` where it
/// makes no sense, `Cancelled` once the flag is set, and what storage fails with.
fn over(
    reader: &Reader,
    fragment: &Fragment,
    prepared: Option<&Prepared>,
    budget: &Budget,
    reached: &labels::Reached,
    cancelled: &Arc<AtomicBool>,
) -> Result<Partial, Error> {
    let limits = fragment.limits;
    match &fragment.body {
        FragmentBody::Promql(_) => match prepared {
            Some(prepared) => prepared.run(reader, budget),
            None => Err(invalid("the fragment was not prepared")),
        },
        FragmentBody::Raw(query) => promql::raw(reader, query, budget),
        FragmentBody::LabelNames(query) => labels::names(reader, query, limits, reached),
        FragmentBody::LabelValues { name, query } => labels::values(reader, name, query, limits, reached),
        FragmentBody::Series(query) => labels::series(reader, query, limits, reached),
        FragmentBody::Exemplars(query) => labels::exemplars(reader, query, limits),
        FragmentBody::Metadata { family, limit } => labels::metadata(reader, family, *limit),
        FragmentBody::Cardinality { top } => labels::cardinality(reader, *top),
        FragmentBody::Estimate(query) => labels::estimate(reader, query),
        FragmentBody::TraceById(query) => trace::by_id(reader, query, &limits, cancelled),
        FragmentBody::TraceSearch(query) => trace::search(reader, query, &limits, cancelled),
        FragmentBody::Operations { service, start_ns, end_ns } => {
            trace::operations(reader, service, *start_ns, *end_ns, &limits, cancelled)
        }
        FragmentBody::SpanTags { start_ns, end_ns } => {
            trace::tags(reader, *start_ns, *end_ns, &limits, cancelled)
        }
        FragmentBody::SpanTagValues { field, conditions, start_ns, end_ns, limit } => {
            trace::tag_values(reader, field, conditions, (*start_ns, *end_ns), *limit, cancelled)
        }
    }
}

/// The error of a fragment whose result is larger than it may be, in bytes.
pub(crate) fn too_many_bytes(limit: u64) -> Error {
    let text = format!(
        "the query's result passes {limit} bytes on one data node: aggregate more, ask for a shorter range or a \
         longer step, or raise the proxy's max_partial_bytes"
    );
    Error::new(ErrorKind::Limit, text)
}

/// A request that makes no sense.
fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
