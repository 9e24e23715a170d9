//! Runs a PromQL query: plan, scatter the parts, merge them, evaluate the rest.

mod fetched;
mod gate;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tricord_fragment::{Fragment, FragmentBody, FragmentStats, LabelQuery};
use tricord_model::Tenant;
use tricord_promql::ast::{Expr, ExprKind, ValueType};
use tricord_promql::eval::{
    EvalError, EvalOptions, EvalStats, Evaluated, StepSamples, evaluate, finish_columns, has_order,
};
use tricord_promql::value::{Annotations, Column, Grid, QueryValue};

use crate::config::Settings;
use crate::error::{Error, HOLD_FEWER_SAMPLES, TOO_MANY_SAMPLES};
use crate::merge;
use crate::merge::promql::{Columns, Merged};
use crate::metrics::Metrics;
use crate::plan::promql::{Part, Plan, plan};
use crate::plan::pushdown;
use crate::plan::tree::{Read, Step, tree};
use crate::scatter::{CallReport, Job, MissingShard, Scatter, Scattered, Shards, Spread};

use fetched::{Fetched, Wanted};
pub(crate) use gate::{Gate, Turn};

/// A query to answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whose data.
    pub tenant: Tenant,
    /// What.
    pub expr: Expr,
    /// What, as it was asked: notes say where in it they belong.
    pub text: Arc<str>,
    /// The evaluation times.
    pub grid: Grid,
    /// How far instant selectors look back, in milliseconds; `None` takes the setting.
    pub lookback_ms: Option<i64>,
    /// The time of asking, in milliseconds.
    pub now_ms: i64,
    /// When the asker gives up.
    pub deadline: Instant,
    /// Whether samples are counted step by step, for [`EvalStats::steps`] of the answer.
    pub count_steps: bool,
}

/// What a part of the plan took.
#[derive(Clone, Debug, Default)]
pub struct PartReport {
    /// Who did what.
    pub calls: Vec<CallReport>,
    /// Series or groups after merging.
    pub columns: usize,
}

impl PartReport {
    /// What all nodes took at the steps of the part's grid, where it was counted.
    fn steps(&self, part: &Part) -> Option<StepSamples> {
        let fragment = &part.fragment;
        let mut sum = fragment.count_steps.then(|| StepSamples::new(fragment.grid.steps()))?;
        self.calls.iter().filter_map(|call| call.stats.steps.as_ref()).for_each(|steps| sum.add(steps));
        Some(sum)
    }
}

/// Where a query's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Waiting for its turn.
    pub queued: Duration,
    /// Planning, and until all data nodes had answered.
    pub scattered: Duration,
    /// Merging what they answered.
    pub merged: Duration,
    /// Evaluating the rest here.
    pub evaluated: Duration,
}

/// An answered query.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value.
    pub value: QueryValue,
    /// Notes of data nodes and of the evaluation here, each with its place in the query's text.
    pub annotations: Annotations,
    /// Shards without a live replica, ascending.
    pub missing: Vec<MissingShard>,
    /// The plan.
    pub plan: Plan,
    /// What each part took, by the plan's ids.
    pub parts: Vec<PartReport>,
    /// What reading the selectors left at the proxy took.
    pub raw: Vec<CallReport>,
    /// All fragments' costs together.
    pub stats: FragmentStats,
    /// What the evaluation here took; its steps are those of the whole query.
    pub evaluation: EvalStats,
    /// Where the time went.
    pub timings: Timings,
}

/// Up to so many bytes of partials are merged on the async threads, which takes less than handing them over.
const LIGHT_PARTIAL_BYTES: u64 = 32 << 10;
/// Up to so many values are worked on and rendered there, for the same reason.
pub(crate) const LIGHT_CELLS: usize = 4096;

/// How often the rest may ask for further samples: what `info` selects depends on what it has read.
const MAX_ROUNDS: usize = 4;

/// Answers queries.
pub(crate) struct Engine {
    pub(crate) scatter: Scatter,
    pub(crate) settings: Arc<Settings>,
    pub(crate) gate: Gate,
    pub(crate) metrics: Metrics,
}

/// Sets the flag when the asker goes away.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Engine {
    /// Answers a query. Dropping the future cancels it everywhere.
    pub(crate) async fn answer(&self, question: &Question) -> Result<Answer, Error> {
        let arrived = Instant::now();
        let _turn = self.gate.enter(question.deadline).await?;
        let entered = Instant::now();
        let cancelled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let options = self.options(question, &cancelled.0);
        let plan = plan(&question.expr, question.grid, &options)?;
        let runs =
            plan.parts.iter().map(|part| self.run(question, FragmentBody::Promql(part.fragment.clone())));
        let mut scattered = try_join_all(runs).await?;
        let mut answer = Answer {
            value: QueryValue::Vector(vec![]),
            annotations: Annotations::default(),
            missing: vec![],
            parts: vec![],
            raw: vec![],
            stats: FragmentStats::default(),
            evaluation: EvalStats::default(),
            timings: Timings {
                queued: entered - arrived,
                scattered: entered.elapsed(),
                ..Timings::default()
            },
            plan,
        };
        for one in &mut scattered {
            answer.take_costs(one);
            let report = PartReport { calls: std::mem::take(&mut one.calls), columns: 0 };
            answer.parts.push(report);
        }
        answer.refuse_absence(&question.expr)?;
        let started = Instant::now();
        let columns = self.merge(&mut answer, scattered).await?;
        answer.timings.merged = started.elapsed();
        let started = Instant::now();
        match whole_part(&answer.plan.rest).filter(|id| columns.is_plain(*id)) {
            Some(id) => self.finish(question, options, columns.into_part(id), &mut answer).await?,
            None => self.evaluate(question, options, Arc::new(columns), &mut answer).await?,
        }
        answer.timings.evaluated = started.elapsed();
        self.metrics.samples.inc_by(answer.stats.samples);
        Ok(answer)
    }

    /// The plan of a query as a tree, with what its reads are estimated to cost.
    pub(crate) async fn explain(&self, question: &Question) -> Result<Step, Error> {
        let _turn = self.gate.enter(question.deadline).await?;
        let cancelled = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let options = self.options(question, &cancelled.0);
        let mut root = tree(&plan(&question.expr, question.grid, &options)?, question.grid, &options);
        let mut reads: Vec<&mut Read> = Vec::new();
        root.reads_mut(&mut |read| reads.push(read));
        let runs = reads.iter().map(|read| self.run(question, FragmentBody::Estimate(read.query.clone())));
        let scattered = try_join_all(runs).await?;
        for (read, one) in reads.into_iter().zip(scattered) {
            read.estimated = Some(merge::lists::estimate(one.partials)?);
        }
        Ok(root)
    }

    fn options(&self, question: &Question, cancelled: &Arc<AtomicBool>) -> EvalOptions {
        let config = &self.settings.config;
        EvalOptions {
            lookback_ms: question.lookback_ms.unwrap_or(self.settings.lookback_ms),
            delayed_name_removal: config.delayed_name_removal,
            start_timestamps: config.start_timestamps,
            max_samples: config.max_samples,
            default_subquery_step_ms: self.settings.default_subquery_step_ms,
            query_text: Some(question.text.clone()),
            cancelled: Some(cancelled.clone()),
            count_steps: question.count_steps,
            ..EvalOptions::new(question.grid)
        }
    }

    async fn run(&self, question: &Question, body: FragmentBody) -> Result<Scattered, Error> {
        if matches!(&body, FragmentBody::Promql(promql) if promql.grid.steps() == 0) {
            return Ok(Scattered::default());
        }
        let fragment = Fragment {
            now_ms: question.now_ms,
            horizon_ms: self.settings.horizon_ms(&question.tenant, question.now_ms),
            limits: self.settings.limits(),
            body,
        };
        let job = Job {
            tenant: question.tenant.clone(),
            shards: Shards::All,
            fragment,
            spread: Spread::Even,
            deadline: question.deadline,
        };
        self.scatter.run(&job).await
    }

    /// The parts' columns, merged off the async threads.
    async fn merge(&self, answer: &mut Answer, scattered: Vec<Scattered>) -> Result<Columns, Error> {
        if answer.stats.samples > self.settings.config.max_samples {
            return Err(too_many_samples(self.settings.config.max_samples));
        }
        let parts = answer.plan.parts.clone();
        let steps: Vec<Option<StepSamples>> =
            parts.iter().zip(&answer.parts).map(|(part, report)| report.steps(part)).collect();
        let is_heavy = answer.parts.iter().flat_map(|part| &part.calls).map(|call| call.bytes).sum::<u64>()
            > LIGHT_PARTIAL_BYTES;
        let merged = tricord_runtime::blocking_when(is_heavy, move || {
            let mut columns = Columns::default();
            for ((part, steps), scattered) in parts.iter().zip(steps).zip(scattered) {
                let (merged, notes) = merge::promql::columns(part, scattered.partials)?;
                columns.push(Merged { columns: merged, notes, steps });
            }
            Ok::<_, Error>(columns)
        });
        let columns = merged.await?;
        for (report, merged) in answer.parts.iter_mut().zip(columns.sizes()) {
            report.columns = merged;
        }
        Ok(columns)
    }

    /// The answer where the data nodes did all there was to do.
    async fn finish(
        &self,
        question: &Question,
        options: EvalOptions,
        columns: Vec<Column>,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let (rest, grid) = (answer.plan.rest.clone(), question.grid);
        let is_heavy = columns.len() * grid.steps() > LIGHT_CELLS;
        let finish = move || finish_columns(columns, &rest, grid, &options);
        let finished = tricord_runtime::blocking_when(is_heavy, finish).await?;
        answer.evaluation = finished.1;
        answer.value = in_order(finished.0, &question.expr);
        Ok(())
    }

    /// Evaluates the rest, fetching raw samples for selectors that it names until it has all it asks for.
    async fn evaluate(
        &self,
        question: &Question,
        options: EvalOptions,
        columns: Arc<Columns>,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let (rest, grid) = (Arc::new(answer.plan.rest.clone()), question.grid);
        let options = Arc::new(options);
        let mut fetched = Arc::new(Fetched::default());
        for _ in 0..MAX_ROUNDS {
            let work = (rest.clone(), options.clone(), columns.clone(), fetched.clone());
            let is_heavy = !fetched.is_empty() || is_heavy(&rest, columns.sizes().sum::<usize>(), grid);
            let evaluating = tricord_runtime::blocking_when(is_heavy, move || {
                let (rest, options, columns, fetched) = work;
                let result: Result<Evaluated, EvalError> =
                    evaluate(&rest, grid, &*fetched, &*columns, &options);
                (result, fetched.take_wanted())
            });
            let left = question.deadline.saturating_duration_since(Instant::now());
            let (result, wanted) =
                tokio::time::timeout(left, evaluating).await.map_err(|_| crate::scatter::timed_out())?;
            if wanted.is_empty() {
                let evaluated = result?;
                answer.value = in_order(evaluated.value, &question.expr);
                answer.annotations = evaluated.annotations;
                answer.evaluation = evaluated.stats;
                return Ok(());
            }
            let mut more = Fetched::clone(&fetched);
            self.fetch(question, wanted, &mut more, answer).await?;
            fetched = Arc::new(more);
        }
        Err(Error::Internal("the query's selectors kept changing while it was evaluated".to_owned()))
    }

    /// Raw samples of selectors.
    async fn fetch(
        &self,
        question: &Question,
        wanted: Vec<Wanted>,
        fetched: &mut Fetched,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let runs = wanted.iter().map(|wanted| {
            let query = LabelQuery {
                matchers: vec![wanted.matchers.clone()],
                start_ms: wanted.after_ms.saturating_add(1),
                end_ms: wanted.until_ms,
                limit: 0,
            };
            self.run(question, FragmentBody::Raw(query))
        });
        let scattered = try_join_all(runs).await?;
        for (wanted, mut one) in wanted.into_iter().zip(scattered) {
            answer.take_costs(&mut one);
            answer.refuse_absence(&question.expr)?;
            answer.raw.append(&mut one.calls);
            fetched.put(wanted, merge::lists::raw(one.partials)?);
        }
        if answer.stats.samples > self.settings.config.max_samples {
            return Err(too_many_samples(self.settings.config.max_samples));
        }
        Ok(())
    }
}

impl Answer {
    /// Takes costs and missing shards of a scattered fragment.
    fn take_costs(&mut self, scattered: &mut Scattered) {
        for call in &scattered.calls {
            self.stats.add(&call.stats);
        }
        self.missing.append(&mut scattered.missing);
        self.missing.sort_unstable();
        self.missing.dedup();
    }

    /// With shards missing, absence cannot be told: better no answer than an alert because a node is down.
    fn refuse_absence(&self, expr: &Expr) -> Result<(), Error> {
        if self.missing.is_empty() || !pushdown::tells_absence(expr) {
            return Ok(());
        }
        let text = format!("absence cannot be told: {}", crate::api::missing_text(&self.missing));
        Err(Error::Unavailable(text))
    }
}

/// Whether evaluating the rest over so many series may take long.
fn is_heavy(rest: &Expr, series: usize, grid: Grid) -> bool {
    let (mut nodes, mut has_subquery) = (0, false);
    rest.walk(&mut |node| {
        nodes += 1;
        has_subquery |= matches!(node.kind, ExprKind::Subquery(_));
    });
    has_subquery || (series + 1) * nodes * grid.steps() > LIGHT_CELLS
}

/// The part that is the whole query, if one is.
fn whole_part(rest: &Expr) -> Option<usize> {
    match &rest.kind {
        ExprKind::Paren(inner) => whole_part(inner),
        ExprKind::Remote(remote) if remote.value_type == ValueType::Vector => Some(remote.id),
        _ => None,
    }
}

/// The engine takes every part for ordered; whether the answer is, the whole query tells.
fn in_order(value: QueryValue, expr: &Expr) -> QueryValue {
    match value {
        QueryValue::Vector(mut columns) if !has_order(expr) => {
            columns.sort_by(|a, b| a.labels.cmp(&b.labels));
            QueryValue::Vector(columns)
        }
        other => other,
    }
}

pub(crate) fn too_many_samples(limit: u64) -> Error {
    Error::Execution(format!("{TOO_MANY_SAMPLES}: more than {limit}; {HOLD_FEWER_SAMPLES}"))
}
