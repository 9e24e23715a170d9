//! Evaluation of a typed expression over the steps of a grid.
//!
//! Every node yields columns: one value per step and series. Nothing here reads a clock or draws a random number, and
//! the same expression over the same samples yields the same bits wherever it is evaluated and however the series are
//! spread, as [`crate::aggregate`] promises for aggregations. Parsing, planning and transport lie elsewhere.

mod aggregate;
mod binary;
mod call;
mod classic;
mod duration;
mod info;
mod invariant;
mod matching;
mod naming;
pub(crate) mod notes;
mod range;
mod relabel;
mod result;
mod selector;
mod subquery;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::aggregate::GroupState;
use crate::ast::{Expr, ExprKind, UnaryOp, ValueType};
use crate::histogram::sample_weight;
use crate::storage::{Storage, StorageError};
use crate::value::{Annotations, Column, Grid, QueryValue, is_absent};

pub use aggregate::{AggregateParam, PartialSpec};
pub use duration::{resolve_duration_ms, subquery_grid};
pub use info::first_selector;
pub use invariant::is_fixed;
pub use naming::{drop_metric_schema, is_metric_schema_label};
pub use result::{
    DUPLICATE_LABELSET, finish_columns, finish_names, has_order, merge_same_labels, require_unique_labels,
};
pub use tally::StepSamples;

pub(crate) use invariant::depends_on_time;
pub use notes::Notes;
use tally::Tally;

/// What an evaluation may use, and the query that it belongs to.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// How far an instant selector looks back for a sample, in milliseconds; a sample exactly that old is too old.
    pub lookback_ms: i64,
    /// Names go at the query's end rather than at the function that drops them.
    pub delayed_name_removal: bool,
    /// Counters use the start timestamps of samples to find resets.
    pub start_timestamps: bool,
    /// The evaluated part stands below `histogram_count`, `histogram_sum` or `histogram_avg` in its query, so that
    /// buckets need not be read; [`reads_stats_only`] tells it for a node of the whole query.
    pub histogram_stats: bool,
    /// How many samples may be held at once; a histogram counts by its size.
    pub max_samples: u64,
    /// Start, end and step of the whole query, whatever part of it is evaluated here: for `@ start()`, `@ end()`,
    /// `start()`, `end()`, `step()` and `range()`.
    pub query: Grid,
    /// The step of subqueries that name none, in milliseconds.
    pub default_subquery_step_ms: i64,
    /// The query's text, which turns the positions in notes into line and column; without it notes have no position.
    pub query_text: Option<Arc<str>>,
    /// Set by whoever no longer wants the answer.
    pub cancelled: Option<Arc<AtomicBool>>,
    /// Whether samples are counted step by step, for [`EvalStats::steps`].
    pub count_steps: bool,
}

impl EvalOptions {
    /// The defaults of Prometheus for a query: 5 minutes of lookback, 50 million samples, 1 minute per step.
    #[must_use]
    pub fn new(query: Grid) -> Self {
        Self {
            lookback_ms: 300_000,
            delayed_name_removal: false,
            start_timestamps: false,
            histogram_stats: false,
            max_samples: 50_000_000,
            query,
            default_subquery_step_ms: 60_000,
            query_text: None,
            cancelled: None,
            count_steps: false,
        }
    }
}

/// Results of parts that were computed elsewhere, for the [`ExprKind::Remote`] leaves of an expression.
pub trait Sources {
    /// The series of a vector, over the grid that the leaf is evaluated on.
    fn columns(&self, id: usize) -> Option<&[Column]>;

    /// The samples that the part took at the steps of that grid, where they were counted.
    fn steps(&self, _id: usize) -> Option<&StepSamples> {
        None
    }

    /// The values of a scalar, one per step of the grid that the leaf is evaluated on.
    fn scalar(&self, _id: usize) -> Option<&[f64]> {
        None
    }

    /// The notes of a part, whose nodes stand under their numbers in it.
    fn notes(&self, _id: usize) -> Option<&Notes> {
        None
    }
}

/// No part was computed elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSources;

impl Sources for NoSources {
    fn columns(&self, _id: usize) -> Option<&[Column]> {
        None
    }
}

/// What an evaluation took.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EvalStats {
    /// Samples that the store returned.
    pub samples_read: u64,
    /// Series that the store returned.
    pub series: u64,
    /// The most samples held at once.
    pub peak_samples: u64,
    /// Samples step by step, with [`EvalOptions::count_steps`].
    pub steps: Option<StepSamples>,
}

impl EvalStats {
    /// Adds what another part of the query took.
    pub fn merge(&mut self, other: Self) {
        self.samples_read += other.samples_read;
        self.series += other.series;
        self.peak_samples = self.peak_samples.max(other.peak_samples);
        match (&mut self.steps, other.steps) {
            (Some(known), Some(steps)) => known.add(&steps),
            (known, steps) => *known = known.take().or(steps),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The value of the expression.
    pub value: QueryValue,
    /// Notes on it.
    pub annotations: Annotations,
    /// What it took.
    pub stats: EvalStats,
}

/// The classes of errors, as the HTTP API names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// `bad_data`: the query is wrong.
    BadData,
    /// `execution`: the query is well formed, and these series or limits do not allow it.
    Execution,
    /// `canceled`: nobody wants the answer any more.
    Canceled,
    /// `internal`: the store or a plan failed.
    Internal,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The query is wrong.
    #[error("{0}")]
    BadData(String),
    /// These series do not allow the operation.
    #[error("{0}")]
    Execution(String),
    /// More samples than allowed.
    #[error("query processing would load too many samples into memory in {0}")]
    TooManySamples(&'static str),
    /// The query was cancelled.
    #[error("query was canceled in {0}")]
    Cancelled(&'static str),
    /// The store failed, or the plan names a part that nobody computed.
    #[error("{0}")]
    Internal(String),
}

impl EvalError {
    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadData(_) => ErrorKind::BadData,
            Self::Execution(_) | Self::TooManySamples(_) => ErrorKind::Execution,
            Self::Cancelled(_) => ErrorKind::Canceled,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }
}

impl From<StorageError> for EvalError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Limit(text) => Self::Execution(text),
            StorageError::Cancelled => Self::Cancelled("query execution"),
            StorageError::Failed(text) => Self::Internal(format!("expanding series: {text}")),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, EvalError>;

/// Evaluates an expression at every step of `grid`, which is one step for an instant query.
///
/// A range query's series come sorted by labels. An instant query's are sorted too, but for expressions that give an
/// order of their own (`sort` and its kin, `topk`, `bottomk`), also under element-wise operations.
///
/// # Errors
/// [`EvalError`] when the query is wrong, passes a limit, is cancelled, or the store fails.
pub fn evaluate(
    expr: &Expr,
    grid: Grid,
    storage: &dyn Storage,
    sources: &dyn Sources,
    options: &EvalOptions,
) -> std::result::Result<Evaluated, EvalError> {
    let mut evaluator = Evaluator::new(storage, sources, options, grid)?;
    if options.query.start_ms != options.query.end_ms {
        check_range_type(expr)?;
    }
    let value = evaluator.eval(expr, grid)?;
    let value = result::finish(value, expr, grid, options.delayed_name_removal)?;
    let (notes, stats) = evaluator.finish();
    let annotations = notes.render(options.query_text.as_deref());
    Ok(Evaluated { value, annotations, stats })
}

/// Evaluates an instant vector that is a part of a larger query: names that are marked to go stay with their series, as
/// they go when the whole query ends. The series come sorted by labels; notes have the positions of the expression's
/// nodes.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_part(
    expr: &Expr,
    grid: Grid,
    storage: &dyn Storage,
    sources: &dyn Sources,
    options: &EvalOptions,
) -> std::result::Result<(Vec<Column>, Notes, EvalStats), EvalError> {
    let mut evaluator = Evaluator::new(storage, sources, options, grid)?;
    let columns = evaluator.eval_columns(expr, grid)?;
    let columns = result::finish_part(columns, options.delayed_name_removal)?;
    let (notes, stats) = evaluator.finish();
    Ok((columns, notes, stats))
}

/// Evaluates what an aggregation is over, and folds it into one state per group, sorted by the groups' labels, which
/// [`GroupState::merge`] joins with those of other nodes and [`crate::aggregate::finish`] turns into series.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_partial(
    spec: &PartialSpec,
    expr: &Expr,
    grid: Grid,
    storage: &dyn Storage,
    sources: &dyn Sources,
    options: &EvalOptions,
) -> std::result::Result<(Vec<GroupState>, Notes, EvalStats), EvalError> {
    let mut evaluator = Evaluator::new(storage, sources, options, grid)?;
    let states = evaluator.fold_groups(spec, expr, grid)?;
    let (notes, stats) = evaluator.finish();
    Ok((states, notes, stats))
}

/// A cell of a column takes half of what a sample is counted for, and columns may be mostly empty.
const CELLS_PER_SAMPLE: u64 = 4;
/// 32 MiB are always allowed.
const LEAST_CELLS: u64 = 4 << 20;

pub(crate) struct Evaluator<'a> {
    storage: &'a dyn Storage,
    sources: &'a dyn Sources,
    options: &'a EvalOptions,
    notes: Notes,
    stats: EvalStats,
    /// Samples by the steps of the grid at hand.
    tally: Tally,
    /// Samples held right now.
    live: u64,
    /// What the nodes around the one at hand read of histograms.
    reading: Reading,
    /// Whether what is read may come in any order, as an aggregation folds it at once.
    any_order: bool,
}

impl<'a> Evaluator<'a> {
    fn new(
        storage: &'a dyn Storage,
        sources: &'a dyn Sources,
        options: &'a EvalOptions,
        grid: Grid,
    ) -> Result<Self> {
        let mut evaluator = Self {
            storage,
            sources,
            options,
            notes: Notes::default(),
            stats: EvalStats::default(),
            tally: Tally::default(),
            live: 0,
            reading: Reading { stats: options.histogram_stats, buckets: false },
            any_order: false,
        };
        if options.count_steps {
            evaluator.check_cells(1, grid.steps())?;
            evaluator.tally = Tally::new(true, grid.steps());
        }
        Ok(evaluator)
    }

    /// The notes and what it took.
    fn finish(self) -> (Notes, EvalStats) {
        (self.notes, EvalStats { steps: self.tally.into_samples(), ..self.stats })
    }

    fn check_cancelled(&self) -> Result<()> {
        match &self.options.cancelled {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(EvalError::Cancelled("expression evaluation")),
            _ => Ok(()),
        }
    }

    /// Counts samples that are now held.
    fn charge(&mut self, samples: u64) -> Result<()> {
        self.live += samples;
        self.stats.peak_samples = self.stats.peak_samples.max(self.live);
        if self.live > self.options.max_samples {
            return Err(EvalError::TooManySamples("query execution"));
        }
        Ok(())
    }

    /// Refuses columns whose memory is out of proportion to the samples that the query may hold: series with few
    /// values on a grid of many steps.
    fn check_cells(&self, series: usize, steps: usize) -> Result<()> {
        let allowed = self.options.max_samples.saturating_mul(CELLS_PER_SAMPLE).max(LEAST_CELLS);
        match (series as u64).checked_mul(steps as u64) {
            Some(cells) if cells <= allowed => Ok(()),
            _ => Err(EvalError::TooManySamples("query execution")),
        }
    }

    /// Evaluates a node; when it returns, only its result counts as held.
    fn eval(&mut self, expr: &Expr, grid: Grid) -> Result<QueryValue> {
        self.check_cancelled()?;
        self.check_cells(1, grid.steps())?;
        let before = self.live;
        let around = self.reading;
        self.reading = around.within(expr);
        let parent = self.notes.enter(expr.pos);
        let value = if grid.steps() > 1 && invariant::is_worth_once(expr) {
            let once = Grid { end_ms: grid.start_ms, ..grid };
            let once = self.tally_once(grid.steps(), |evaluator| evaluator.eval_node(expr, once))?;
            invariant::repeat(once, grid.steps())
        } else {
            self.eval_node(expr, grid)?
        };
        self.notes.enter(parent);
        self.reading = around;
        self.live = before;
        self.charge(held(&value))?;
        Ok(value)
    }

    fn eval_node(&mut self, expr: &Expr, grid: Grid) -> Result<QueryValue> {
        match &expr.kind {
            ExprKind::Number(number) => Ok(QueryValue::Scalar(vec![number.value; grid.steps()])),
            ExprKind::String(text) => Ok(QueryValue::String(text.clone())),
            ExprKind::Paren(inner) => self.eval(inner, grid),
            ExprKind::Unary(op, inner) => {
                let value = self.eval(inner, grid)?;
                if *op == UnaryOp::Plus { Ok(value) } else { self.negate(value) }
            }
            ExprKind::Binary(binary) => self.binary(binary, expr.pos, grid),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate, expr.pos, grid),
            ExprKind::Call(call) => self.call(call, expr.pos, grid),
            ExprKind::VectorSelector(selector) => self.vector_selector(selector, expr.pos, grid),
            ExprKind::MatrixSelector(selector) => {
                let value = self.matrix(selector, grid)?;
                if self.tally.is_on() {
                    let samples = tally::weight_of(&value);
                    self.tally.note(0, samples, samples);
                }
                Ok(value)
            }
            ExprKind::Subquery(subquery) => self.subquery_matrix(subquery, grid),
            ExprKind::Remote(remote) => {
                self.tally.part(self.sources.steps(remote.id));
                self.remote(remote, grid)
            }
        }
    }

    fn remote(&mut self, remote: &crate::ast::Remote, grid: Grid) -> Result<QueryValue> {
        let missing = || EvalError::Internal(format!("the plan's part {} was not computed", remote.id));
        let steps = grid.steps();
        if remote.value_type == ValueType::Scalar {
            let values = self.sources.scalar(remote.id).ok_or_else(missing)?;
            return if values.len() == steps {
                Ok(QueryValue::Scalar(values.to_vec()))
            } else {
                Err(missing())
            };
        }
        let columns = self.sources.columns(remote.id).ok_or_else(missing)?;
        if let Some(notes) = self.sources.notes(remote.id) {
            self.notes.absorb(notes, &remote.places);
        }
        if remote.fixed && steps == 1 {
            // What stands above is evaluated once too; the part may have been computed for every step.
            return Ok(QueryValue::Vector(columns.iter().map(invariant::first_step).collect()));
        }
        if columns.iter().any(|column| column.floats.len() != steps) {
            return Err(EvalError::Internal(format!("the plan's part {} lies on another grid", remote.id)));
        }
        Ok(QueryValue::Vector(columns.to_vec()))
    }

    /// The series of an expression that the type check knows to be a vector.
    fn eval_columns(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Column>> {
        match self.eval(expr, grid)? {
            QueryValue::Vector(columns) => Ok(columns),
            _ => Err(EvalError::BadData("expected an instant vector".to_owned())),
        }
    }

    /// The values of an expression that the type check knows to be a scalar.
    fn eval_scalar(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<f64>> {
        match self.eval(expr, grid)? {
            QueryValue::Scalar(values) => Ok(values),
            _ => Err(EvalError::BadData("expected a scalar".to_owned())),
        }
    }
}

fn check_range_type(expr: &Expr) -> Result<()> {
    match expr.value_type() {
        ValueType::Vector | ValueType::Scalar => Ok(()),
        other => {
            let other = if other == ValueType::Matrix { "range vector" } else { "string" };
            let text = format!(
                "invalid expression type \"{other}\" for range query, must be Scalar or instant Vector"
            );
            Err(EvalError::BadData(text))
        }
    }
}

/// Which facts of histograms the nodes from the root of a query down to some node read.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    /// Some read counts and sums.
    stats: bool,
    /// Some read buckets.
    buckets: bool,
}

impl Reading {
    fn within(mut self, expr: &Expr) -> Self {
        use crate::ast::BinaryOp as B;
        use crate::functions::Function as F;
        match &expr.kind {
            ExprKind::Call(call) => match call.func {
                F::HistogramCount | F::HistogramSum | F::HistogramAvg => self.stats = true,
                F::HistogramQuantile | F::HistogramQuantiles | F::HistogramFraction => self.buckets = true,
                _ => {}
            },
            // Resets between the steps of a subquery are found by comparing buckets.
            ExprKind::Subquery(_) => self.buckets = true,
            ExprKind::Binary(binary) => self.buckets |= matches!(binary.op, B::TrimUpper | B::TrimLower),
            _ => {}
        }
        self
    }

    fn stats_only(self) -> bool {
        self.stats && !self.buckets
    }
}

/// Whether what stands below a path of nodes, the root first, reads no buckets of histograms: for
/// [`EvalOptions::histogram_stats`] of a part that is evaluated elsewhere.
#[must_use]
pub fn reads_stats_only<'e>(path: impl IntoIterator<Item = &'e Expr>) -> bool {
    path.into_iter().fold(Reading::default(), Reading::within).stats_only()
}

/// An expression without the parentheses around it.
fn unwrap_parens(mut expr: &Expr) -> &Expr {
    while let ExprKind::Paren(inner) = &expr.kind {
        expr = inner;
    }
    expr
}

/// The text of a string argument.
fn string_arg(expr: Option<&Expr>) -> Result<&str> {
    match expr.map(|expr| &unwrap_parens(expr).kind) {
        Some(ExprKind::String(text)) => Ok(text),
        _ => Err(EvalError::BadData("expected a string literal".to_owned())),
    }
}

/// How many samples a series counts for.
fn held_by(column: &Column) -> u64 {
    let floats = column.floats.iter().filter(|value| !is_absent(**value)).count() as u64;
    floats + column.histograms.iter().map(|(_, histogram)| sample_weight(histogram)).sum::<u64>()
}

/// How many samples a value counts for.
fn held(value: &QueryValue) -> u64 {
    match value {
        QueryValue::Scalar(values) => values.len() as u64,
        QueryValue::String(_) => 0,
        QueryValue::Vector(columns) => columns.iter().map(held_by).sum(),
        QueryValue::Matrix(series) => series
            .iter()
            .map(|(_, points)| {
                let floats = (points.len() - points.histograms.len()) as u64;
                floats + points.histograms.iter().map(|(_, histogram)| sample_weight(histogram)).sum::<u64>()
            })
            .sum(),
    }
}
