//! PromQL fragments: the engine over the samples of a reader.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tricord_fragment::{
    AggregateSpec, FragmentStats, LabelQuery, Partial, PartialBody, PromqlFragment, QueryLimits,
};
use tricord_model::{Labels, Points};
use tricord_promql::eval::{self, AggregateParam, EvalError, EvalOptions, NoSources, PartialSpec};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::storage::{Selection, Storage, StorageError};

use super::Error;
use crate::storage::Reader;

/// A reader as the engine wants it.
pub(super) struct Samples<'a> {
    pub(super) reader: &'a Reader,
    pub(super) limits: QueryLimits,
}

impl Storage for Samples<'_> {
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError> {
        let max_samples = selection.max_samples.min(self.limits.max_samples);
        let series =
            self.reader.select(selection.matchers, selection.after_ms, selection.until_ms, max_samples);
        let series = series.map_err(|error| to_storage_error(&error))?;
        check_series(&series, self.limits).map_err(|error| StorageError::Limit(error.message))?;
        Ok(series)
    }
}

fn check_series(series: &[(Labels, Points)], limits: QueryLimits) -> Result<(), Error> {
    if series.len() as u64 <= limits.max_series {
        return Ok(());
    }
    let text = format!(
        "a selector matches more than {} series on one data node: narrow it, or raise the proxy's max_series",
        limits.max_series
    );
    Err(Error::new(tricord_wire::ErrorKind::Limit, text))
}

fn to_storage_error(error: &crate::storage::Error) -> StorageError {
    use tricord_wire::ErrorKind as K;
    match error.kind() {
        K::Limit => StorageError::Limit(error.to_string()),
        K::Cancelled => StorageError::Cancelled,
        _ => StorageError::Failed(error.to_string()),
    }
}

/// Runs an expression and, where asked for, folds it into groups.
pub(super) fn run(
    reader: &Reader,
    fragment: &PromqlFragment,
    limits: QueryLimits,
    cancelled: &Arc<AtomicBool>,
) -> Result<Partial, Error> {
    let mut expr = parse(&fragment.expr, &ParserOptions::default())
        .map_err(|error| super::invalid(error.to_string()))?;
    let nodes = expr.number_nodes();
    let options = EvalOptions {
        lookback_ms: fragment.lookback_ms,
        delayed_name_removal: fragment.delayed_name_removal,
        start_timestamps: fragment.start_timestamps,
        histogram_stats: fragment.histogram_stats,
        max_samples: limits.max_samples,
        default_subquery_step_ms: fragment.default_subquery_step_ms,
        cancelled: Some(cancelled.clone()),
        count_steps: fragment.count_steps,
        ..EvalOptions::new(fragment.query)
    };
    let storage = Samples { reader, limits };
    let (body, notes, stats) = match &fragment.aggregate {
        None => {
            let (columns, notes, stats) =
                eval::evaluate_part(&expr, fragment.grid, &storage, &NoSources, &options)
                    .map_err(|error| failed(&error))?;
            (PartialBody::Columns(columns), notes, stats)
        }
        Some(spec) => {
            let spec = partial_spec(spec, nodes);
            let (groups, notes, stats) =
                eval::evaluate_partial(&spec, &expr, fragment.grid, &storage, &NoSources, &options)
                    .map_err(|error| failed(&error))?;
            (PartialBody::Groups(groups), notes, stats)
        }
    };
    let stats = FragmentStats {
        series: stats.series,
        samples: stats.samples_read,
        bytes: reader.bytes_read(),
        peak_samples: stats.peak_samples,
        steps: stats.steps,
        ..FragmentStats::default()
    };
    Ok(Partial { notes, stats, truncated: false, body })
}

/// Raw samples of the first alternative of matchers.
pub(super) fn raw(reader: &Reader, query: &LabelQuery, limits: QueryLimits) -> Result<Partial, Error> {
    let matchers = match query.matchers.as_slice() {
        [matchers] => matchers,
        _ => return Err(super::invalid("raw samples need exactly one set of matchers")),
    };
    // The query's start is inclusive, the reader's is not.
    let series =
        reader.select(matchers, query.start_ms.saturating_sub(1), query.end_ms, limits.max_samples)?;
    check_series(&series, limits)?;
    let samples = series.iter().map(|(_, points)| points.len() as u64).sum();
    let stats = FragmentStats {
        series: series.len() as u64,
        samples,
        bytes: reader.bytes_read(),
        peak_samples: samples,
        ..FragmentStats::default()
    };
    Ok(Partial { stats, ..Partial::of(PartialBody::Raw(series)) })
}

/// The engine's form of an aggregation over an expression of so many nodes.
fn partial_spec(spec: &AggregateSpec, nodes: u32) -> PartialSpec {
    let param = match spec.param.as_slice() {
        [] => AggregateParam::None,
        [value] => AggregateParam::Constant(*value),
        values => AggregateParam::Steps(values.to_vec()),
    };
    PartialSpec::numbered(spec.op, spec.grouping.clone(), param, nodes)
}

/// An evaluation's failure in the kinds of the wire.
fn failed(error: &EvalError) -> Error {
    use tricord_wire::ErrorKind as K;
    let kind = match error.kind() {
        eval::ErrorKind::BadData => K::Invalid,
        // A property of the data or a limit: the same everywhere, and not to be tried elsewhere.
        eval::ErrorKind::Execution => K::Limit,
        eval::ErrorKind::Canceled => K::Cancelled,
        eval::ErrorKind::Internal => K::Internal,
    };
    let message = match error {
        EvalError::TooManySamples(_) => format!("{error}: {TOO_MANY_SAMPLES}"),
        _ => error.to_string(),
    };
    Error::new(kind, message)
}

/// What helps a query that holds too many samples.
const TOO_MANY_SAMPLES: &str =
    "ask for fewer series, a shorter range or a longer step, or raise the proxy's max_samples";
