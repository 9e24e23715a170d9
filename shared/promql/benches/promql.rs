//! The engine over series in memory: 1,000 and 100,000 of them, at one instant and over 1,000 steps.
//!
//! `make bench-promql` runs all of it, which takes most of an hour; `make bench-promql ARGS=range/1000/` a part, and
//! `ARGS=--quick` hardly more than once each. Reading is part of the time, as the engine is given samples of its own to
//! hold; what a data node adds to that is not.

#![expect(missing_docs, reason = "criterion_group makes a public function without documentation")]
#![expect(clippy::expect_used, reason = "a query of this file that does not parse is a mistake in it")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tricord_model::{Labels, Points, Sample};
use tricord_promql::eval::{EvalOptions, NoSources, evaluate};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::storage::{Selection, Storage, StorageError};
use tricord_promql::value::Grid;

/// The first sample, and the distance of samples and steps, in milliseconds.
const START_MS: i64 = 1_700_000_000_000;
const SCRAPE_MS: i64 = 60_000;
const STEP_MS: i64 = 15_000;
const STEPS: i64 = 1_000;

/// Each runs over all series; `%` is their number of instances.
const QUERIES: [(&str, &str); 13] = [
    ("select", "requests_total"),
    ("rate", "rate(requests_total[5m])"),
    ("sum_over_time", "sum_over_time(requests_total[5m])"),
    ("avg_over_time", "avg_over_time(requests_total[30m])"),
    ("max_over_time", "max_over_time(requests_total[30m])"),
    ("quantile_over_time", "quantile_over_time(0.9, requests_total[30m])"),
    ("sum by", "sum by (mode) (rate(requests_total[5m]))"),
    ("stddev by", "stddev by (mode) (requests_total)"),
    ("topk", "topk(5, rate(requests_total[5m]))"),
    ("quantile", "quantile by (mode) (0.9, requests_total)"),
    ("one to one", "requests_total / requests_total offset 1m"),
    ("group_left", "requests_total * on (instance) group_left () max by (instance) (requests_total)"),
    ("histogram_quantile", "histogram_quantile(0.99, sum by (le, instance) (rate(latency_bucket[5m])))"),
];

/// Series that all have the same few shapes.
struct Fleet {
    counters: Vec<(Labels, usize)>,
    buckets: Vec<(Labels, usize)>,
    shapes: Vec<Points>,
}

const MODES: [&str; 10] =
    ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user", "guest", "guest_nice"];
const BOUNDS: [&str; 10] = ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "+Inf"];

impl Fleet {
    fn new(series: usize, samples: i64) -> Self {
        let labels = |name: &str, at: usize, label: &str, value: &str| {
            let instance = format!("10.0.{}.{}:9100", at / 2560, at / 10 % 256);
            let pairs = [("__name__", name), ("instance", &instance), ("job", "node"), (label, value)];
            Labels::from_pairs(pairs)
        };
        let counters = (0..series).map(|at| (labels("requests_total", at, "mode", MODES[at % 10]), at % 97));
        let buckets = (0..series).map(|at| (labels("latency_bucket", at, "le", BOUNDS[at % 10]), at % 10));
        let shapes = (0..97).map(|shape| {
            let mut state = shape as u64 + 1;
            let mut value = 0.0;
            let samples = (0..samples).map(|n| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // A counter that is reset now and then; later shapes grow faster, as buckets with higher bounds do.
                value =
                    if state >> 57 == 0 { 0.0 } else { value + (state >> 54) as f64 + 100.0 * shape as f64 };
                Sample::float(START_MS + n * SCRAPE_MS, value)
            });
            samples.collect()
        });
        let mut fleet =
            Self { counters: counters.collect(), buckets: buckets.collect(), shapes: shapes.collect() };
        fleet.counters.sort();
        fleet.buckets.sort();
        fleet
    }
}

impl Storage for Fleet {
    fn select(&self, selection: &Selection<'_>) -> Result<Vec<(Labels, Points)>, StorageError> {
        let is_bucket = selection.matchers.iter().any(|matcher| matcher.value == "latency_bucket");
        let series = if is_bucket { &self.buckets } else { &self.counters };
        let first = &self.shapes[0].t_ms;
        let from = first.partition_point(|t_ms| *t_ms <= selection.after_ms);
        let to = first.partition_point(|t_ms| *t_ms <= selection.until_ms).max(from);
        let part = |points: &Points| Points {
            t_ms: points.t_ms[from..to].to_vec(),
            floats: points.floats[from..to].to_vec(),
            ..Points::default()
        };
        Ok(series.iter().map(|(labels, shape)| (labels.clone(), part(&self.shapes[*shape]))).collect())
    }
}

fn bench(criterion: &mut Criterion, kind: &str, series: usize, grid: Grid) {
    let samples = (grid.end_ms - START_MS) / SCRAPE_MS + 1;
    let fleet = Fleet::new(series, samples);
    let mut group = criterion.benchmark_group(format!("{kind}/{series}"));
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(series as u64 * grid.steps() as u64));
    for (name, query) in QUERIES {
        let expr = parse(query, &ParserOptions::default()).expect("the queries of this file parse");
        let options = EvalOptions { max_samples: u64::MAX, ..EvalOptions::new(grid) };
        group.bench_with_input(BenchmarkId::from_parameter(name), &expr, |bencher, expr| {
            // A refusal would be a very fast answer.
            bencher.iter(|| {
                black_box(evaluate(expr, grid, &fleet, &NoSources, &options))
                    .expect("the queries have answers")
            });
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let end_ms = START_MS + 3_600_000 + STEPS * STEP_MS;
    let range = Grid { start_ms: end_ms - (STEPS - 1) * STEP_MS, end_ms, step_ms: STEP_MS };
    for series in [1_000, 100_000] {
        bench(criterion, "instant", series, Grid::instant(end_ms));
        bench(criterion, "range", series, range);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
