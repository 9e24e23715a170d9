//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`, over classic and native histograms.

use std::cmp::Ordering;
use std::collections::HashMap;

use tricord_model::Labels;

use super::naming::drop_name;
use super::notes::Monotonicity;
use super::{Evaluator, Result, merge_same_labels, string_arg};
use crate::ast::{Call, Pos};
use crate::functions::Function;
use crate::histogram::{self, NanNote};
use crate::kernels::quantile::{ClassicBucket, bucket_fraction, bucket_quantile};
use crate::text::float_g;
use crate::value::{ABSENT, Column, Grid, QueryValue, is_absent};

const BUCKET_LABEL: &str = "le";

/// The buckets of one classic histogram: upper bounds, and the columns that count them.
#[derive(Debug, Default)]
struct Classic {
    labels: Labels,
    buckets: Vec<(f64, usize)>,
}

/// The histograms of a vector.
struct Histograms {
    columns: Vec<Column>,
    classic: Vec<Classic>,
    /// The columns that hold native histograms, with the classic one of the same labels.
    native: Vec<(usize, Option<usize>)>,
}

impl Histograms {
    /// Puts the buckets of a classic histogram at a step into `buckets`.
    fn buckets_at(&self, classic: &Classic, step: usize, buckets: &mut Vec<ClassicBucket>) {
        let bucket = |(upper, at): &(f64, usize)| {
            let count = self.columns[*at].floats[step];
            (!is_absent(count)).then_some(ClassicBucket { upper: *upper, count })
        };
        buckets.clear();
        buckets.extend(classic.buckets.iter().filter_map(bucket));
    }
}

impl Evaluator<'_> {
    pub(super) fn histogram_call(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let args = &call.args;
        let jobs: Vec<Job>;
        let vector = match call.func {
            Function::HistogramQuantile => {
                let q = self.eval_scalar(&args[0], grid)?;
                jobs = vec![Job { pos: args[0].pos, kind: Kind::Quantile(q), label: None }];
                1
            }
            Function::HistogramQuantiles => {
                let label = string_arg(args.get(1))?.to_owned();
                let mut all = Vec::new();
                for arg in &args[2..] {
                    let q = self.eval_scalar(arg, grid)?;
                    all.push(Job { pos: arg.pos, kind: Kind::Quantile(q), label: Some(label.clone()) });
                }
                jobs = all;
                0
            }
            _ => {
                let (lower, upper) = (self.eval_scalar(&args[0], grid)?, self.eval_scalar(&args[1], grid)?);
                jobs = vec![Job { pos: args[0].pos, kind: Kind::Fraction(lower, upper), label: None }];
                2
            }
        };
        let columns = self.eval_columns(&args[vector], grid)?;
        let histograms = self.collect_histograms(columns, args[vector].pos, grid.steps());
        let mut out = Vec::new();
        for job in &jobs {
            if let Kind::Quantile(values) = &job.kind {
                for q in values.iter().filter(|q| q.is_nan() || !(0.0..=1.0).contains(*q)) {
                    self.notes.invalid_quantile(job.pos, *q);
                }
            }
            self.check_cancelled()?;
            self.native_results(job, args[0].pos, &histograms, grid.steps(), &mut out);
            self.classic_results(job, args[vector].pos, &histograms, grid, &mut out);
        }
        out.retain(|column| !column.is_empty());
        let out = if self.options.delayed_name_removal { out } else { merge_same_labels(out)? };
        Ok(QueryValue::Vector(out))
    }

    fn collect_histograms(&mut self, mut columns: Vec<Column>, pos: Pos, steps: usize) -> Histograms {
        let mut classic: Vec<Classic> = Vec::new();
        let mut places: HashMap<Labels, usize, foldhash::fast::RandomState> = HashMap::default();
        for (at, column) in columns.iter().enumerate() {
            if column.floats.iter().all(|value| is_absent(*value)) {
                continue;
            }
            let le = column.labels.get(BUCKET_LABEL).unwrap_or("");
            let Ok(upper) = le.parse::<f64>() else {
                let name = if self.options.delayed_name_removal { column.labels.name() } else { "" };
                self.notes.bad_bucket_label(pos, name, le);
                continue;
            };
            let labels = column.labels.filtered(|name| name != BUCKET_LABEL);
            let place = *places.entry(labels.clone()).or_insert(classic.len());
            if place == classic.len() {
                classic.push(Classic { labels, buckets: vec![] });
            }
            classic[place].buckets.push((upper, at));
        }
        // They are sorted again at each step, which is quick where they are in order already.
        for classic in classic.iter_mut().filter(|of| !of.buckets.iter().any(|(upper, _)| upper.is_nan())) {
            classic.buckets.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
        }
        let native: Vec<(usize, Option<usize>)> = columns
            .iter()
            .enumerate()
            .filter(|(_, column)| !column.histograms.is_empty())
            .map(|(at, column)| (at, places.get(&column.labels).copied()))
            .collect();
        for (at, rival) in &native {
            if let Some(rival) = rival {
                self.remove_conflicts(&mut columns, *at, &classic[*rival], pos, steps);
            }
        }
        Histograms { columns, classic, native }
    }

    /// Where a native and a classic histogram have one label set, neither counts.
    fn remove_conflicts(
        &mut self,
        columns: &mut [Column],
        native: usize,
        classic: &Classic,
        pos: Pos,
        steps: usize,
    ) {
        for step in 0..steps {
            let has_buckets = classic.buckets.iter().any(|(_, at)| !is_absent(columns[*at].floats[step]));
            if !has_buckets || columns[native].histogram_at(step).is_none() {
                continue;
            }
            let name = if self.options.delayed_name_removal { columns[native].labels.name() } else { "" };
            self.notes.mixed_classic_native(pos, name);
            columns[native].histograms.retain(|(at, _)| *at as usize != step);
            classic.buckets.iter().for_each(|(_, at)| columns[*at].floats[step] = ABSENT);
        }
    }

    fn native_results(
        &mut self,
        job: &Job,
        pos: Pos,
        input: &Histograms,
        steps: usize,
        out: &mut Vec<Column>,
    ) {
        for (at, _) in &input.native {
            let source = &input.columns[*at];
            let mut column = self.result_column(&source.labels, steps);
            // Without the name where it has been dropped by then, as in Prometheus.
            let name = if self.options.delayed_name_removal { source.labels.name() } else { "" };
            for (step, histogram) in &source.histograms {
                let step = *step as usize;
                let value = match &job.kind {
                    Kind::Quantile(q) => {
                        let (value, note) = histogram::quantile(q[step], histogram);
                        match note {
                            NanNote::None => {}
                            NanNote::Result => self.notes.quantile_nan_result(pos, name),
                            NanNote::Skew => self.notes.quantile_nan_skew(pos, name),
                        }
                        value
                    }
                    Kind::Fraction(lower, upper) => {
                        let (value, nans) = histogram::fraction(lower[step], upper[step], histogram);
                        if nans {
                            self.notes.fraction_nans(pos, name);
                        }
                        value
                    }
                };
                self.put(job, &mut column, step, value, out);
            }
            out.push(column);
        }
    }

    fn classic_results(
        &mut self,
        job: &Job,
        pos: Pos,
        input: &Histograms,
        grid: Grid,
        out: &mut Vec<Column>,
    ) {
        let mut buckets = Vec::new();
        for classic in &input.classic {
            let mut column = self.result_column(&classic.labels, grid.steps());
            for step in 0..grid.steps() {
                input.buckets_at(classic, step, &mut buckets);
                if buckets.is_empty() {
                    continue;
                }
                let value = match &job.kind {
                    Kind::Fraction(lower, upper) => bucket_fraction(lower[step], upper[step], &mut buckets),
                    Kind::Quantile(q) => {
                        let (value, forced) = bucket_quantile(q[step], &mut buckets);
                        if let Some(forced) = forced {
                            let name =
                                if self.options.delayed_name_removal { classic.labels.name() } else { "" };
                            let t_ms = grid.time(step);
                            let note = Monotonicity {
                                min_t_ms: t_ms,
                                max_t_ms: t_ms,
                                min_bucket: forced.min_bucket,
                                max_bucket: forced.max_bucket,
                                max_diff: forced.max_diff,
                                count: 1,
                            };
                            self.notes.forced_monotonicity(pos, name, note);
                        }
                        value
                    }
                };
                self.put(job, &mut column, step, value, out);
            }
            out.push(column);
        }
    }

    fn result_column(&self, labels: &Labels, steps: usize) -> Column {
        let mut column = Column {
            labels: labels.clone(),
            drop_name: true,
            floats: vec![ABSENT; steps],
            histograms: vec![],
        };
        drop_name(&mut column, self.options.delayed_name_removal);
        column
    }

    /// Puts a result into its column, or with a quantile's label into that of the quantile, which may change by step.
    fn put(&self, job: &Job, column: &mut Column, step: usize, value: f64, out: &mut Vec<Column>) {
        let (Some(label), Kind::Quantile(q)) = (&job.label, &job.kind) else {
            column.floats[step] = value;
            return;
        };
        let mut builder = column.labels.to_builder();
        builder.set(label, &quantile_label(q[step]));
        let labels = builder.finish();
        let mut target = Column { labels, floats: vec![ABSENT; column.floats.len()], ..column.clone() };
        target.floats[step] = value;
        match out.iter_mut().find(|known| known.labels == target.labels && is_absent(known.floats[step])) {
            Some(known) => known.floats[step] = value,
            None => out.push(target),
        }
    }
}

/// What is asked of each histogram.
struct Job {
    pos: Pos,
    kind: Kind,
    /// Under which label a result names its quantile.
    label: Option<String>,
}

enum Kind {
    Quantile(Vec<f64>),
    Fraction(Vec<f64>, Vec<f64>),
}

/// A quantile as OpenMetrics writes floats: with a decimal point or an exponent.
fn quantile_label(q: f64) -> String {
    let text = float_g(q);
    if text.contains(['.', 'e', 'N', 'I']) { text } else { format!("{text}.0") }
}
