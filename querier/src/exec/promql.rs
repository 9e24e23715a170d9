//! PromQL fragments: the engine over the samples of a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tricord_fragment::{
    AggregateSpec, FragmentStats, LabelQuery, Partial, PartialBody, PromqlFragment, QueryLimits,
};
use tricord_model::{Labels, Points};
use tricord_promql::ast::Expr;
use tricord_promql::eval::{self, AggregateParam, EvalError, EvalOptions, NoSources, PartialSpec};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::storage::{Selection, Storage, StorageError};
use tricord_promql::value::Grid;
use tricord_wire::ErrorKind;

use super::Error;
use crate::storage::Reader;

/// What all batches of a fragment may read and keep together, and what they have.
pub(super) struct Budget {
    limits: QueryLimits,
    samples: AtomicU64,
    series: AtomicU64,
    kept_bytes: AtomicU64,
}

impl Budget {
    pub(super) fn new(limits: QueryLimits) -> Self {
        let (samples, series, kept_bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { limits, samples, series, kept_bytes }
    }

    /// How many samples may still be read.
    fn samples_left(&self) -> u64 {
        self.limits.max_samples.saturating_sub(self.samples.load(Ordering::Relaxed))
    }

    /// Counts what was read.
    fn read(&self, series: &[(Labels, Points)]) -> Result<(), String> {
        let samples: u64 = series.iter().map(|(_, points)| points.len() as u64).sum();
        if self.samples.fetch_add(samples, Ordering::Relaxed) + samples > self.limits.max_samples {
            return Err(too_many_samples(self.limits.max_samples));
        }
        let count = series.len() as u64;
        if self.series.fetch_add(count, Ordering::Relaxed) + count > self.limits.max_series {
            return Err(format!(
                "the query's selectors match more than {} series on one data node: narrow them, or raise the proxy's \
                 max_series",
                self.limits.max_series
            ));
        }
        Ok(())
    }

    /// Counts a batch's results, which are kept until all batches are done.
    pub(super) fn keep(&self, partial: &Partial) -> Result<(), Error> {
        let bytes: u64 = match &partial.body {
            PartialBody::Columns(columns) => {
                columns.iter().map(|column| column.floats.len() as u64 * 8 + SERIES_BYTES).sum()
            }
            PartialBody::Raw(series) => {
                series.iter().map(|(_, points)| points.len() as u64 * 16 + SERIES_BYTES).sum()
            }
            _ => return Ok(()),
        };
        if self.kept_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limits.max_bytes {
            return Err(super::too_many_bytes(self.limits.max_bytes));
        }
        Ok(())
    }
}

/// What the labels of a series take at least, in bytes.
const SERIES_BYTES: u64 = 32;

fn too_many_samples(limit: u64) -> String {
    format!(
        "query processing would load too many samples into memory in query execution: more than {limit} on one data \
         node; ask for fewer series or a shorter range, or raise the proxy's max_samples"
    )
}

/// A reader as the engine wants it.
struct Samples<'a> {
    reader: &'a Reader,
    budget: &'a Budget,
    /// What the engine has no word for: another replica may have what is damaged here.
    damage: Mutex<Option<Error>>,
}

impl Samples<'_> {
    /// Why an evaluation failed, in the kinds of the wire.
    fn failure(&self, error: &EvalError) -> Error {
        self.damage.lock().take().unwrap_or_else(|| failed(error))
    }
}

impl Storage for Samples<'_> {
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError> {
        let max_samples = selection.max_samples.min(self.budget.samples_left());
        let Selection { matchers, after_ms, until_ms, .. } = *selection;
        let series = match selection.any_order {
            true => self.reader.select_unsorted(matchers, after_ms, until_ms, max_samples),
            false => self.reader.select(matchers, after_ms, until_ms, max_samples),
        };
        let series = series.map_err(|error| match error.kind() {
            ErrorKind::Limit => StorageError::Limit(too_many_samples(self.budget.limits.max_samples)),
            ErrorKind::Cancelled => StorageError::Cancelled,
            kind => {
                let text = error.to_string();
                if kind == ErrorKind::Corrupt {
                    self.damage.lock().get_or_insert_with(|| error.into());
                }
                StorageError::Failed(text)
            }
        })?;
        self.budget.read(&series).map_err(StorageError::Limit)?;
        Ok(series)
    }
}

/// A fragment's expression, read once for all batches.
pub(super) struct Prepared {
    expr: Expr,
    options: EvalOptions,
    grid: Grid,
    aggregate: Option<PartialSpec>,
}

impl Prepared {
    /// Reads a fragment.
    pub(super) fn new(
        fragment: &PromqlFragment,
        limits: QueryLimits,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let mut expr = parse(&fragment.expr, &ParserOptions::default())
            .map_err(|error| super::invalid(error.to_string()))?;
        let nodes = expr.number_nodes();
        let options = EvalOptions {
            lookback_ms: fragment.lookback_ms,
            delayed_name_removal: fragment.delayed_name_removal,
            start_timestamps: fragment.start_timestamps,
            histogram_stats: fragment.histogram_stats,
            count_steps: fragment.count_steps,
            max_samples: limits.max_samples,
            default_subquery_step_ms: fragment.default_subquery_step_ms,
            cancelled: Some(cancelled.clone()),
            ..EvalOptions::new(fragment.query)
        };
        let aggregate = fragment.aggregate.as_ref().map(|spec| partial_spec(spec, nodes));
        Ok(Self { expr, options, grid: fragment.grid, aggregate })
    }

    /// Evaluates the expression and, where asked for, folds it into groups.
    pub(super) fn run(&self, reader: &Reader, budget: &Budget) -> Result<Partial, Error> {
        let storage = Samples { reader, budget, damage: Mutex::new(None) };
        let (body, notes, stats) = match &self.aggregate {
            None => {
                let (columns, notes, stats) =
                    eval::evaluate_part(&self.expr, self.grid, &storage, &NoSources, &self.options)
                        .map_err(|error| storage.failure(&error))?;
                (PartialBody::Columns(columns), notes, stats)
            }
            Some(spec) => {
                let (groups, notes, stats) =
                    eval::evaluate_partial(spec, &self.expr, self.grid, &storage, &NoSources, &self.options)
                        .map_err(|error| storage.failure(&error))?;
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
}

/// Raw samples of the first alternative of matchers.
pub(super) fn raw(reader: &Reader, query: &LabelQuery, budget: &Budget) -> Result<Partial, Error> {
    let matchers = match query.matchers.as_slice() {
        [matchers] => matchers,
        _ => return Err(super::invalid("raw samples need exactly one set of matchers")),
    };
    // The query's start is inclusive, the reader's is not.
    let after_ms = query.start_ms.saturating_sub(1);
    let series = reader.select(matchers, after_ms, query.end_ms, budget.samples_left());
    let over = |text: String| Error::new(ErrorKind::Limit, text);
    let series = series.map_err(|error| match error.kind() {
        ErrorKind::Limit => over(too_many_samples(budget.limits.max_samples)),
        _ => error.into(),
    })?;
    budget.read(&series).map_err(over)?;
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
    let text = match error {
        EvalError::TooManySamples(_) => format!(
            "{error}: ask for fewer series, a shorter range or a longer step, or raise the proxy's max_samples"
        ),
        _ => error.to_string(),
    };
    Error::new(kind, text)
}
