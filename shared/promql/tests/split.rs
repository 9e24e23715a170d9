//! Aggregations over series that are split over shards give the same bits as over all series at once.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test, with figures for its reader"
)]

mod cases;

use tricord_model::codec::{Reader, Writer};
use tricord_promql::aggregate::{GroupState, finish};
use tricord_promql::ast::{Expr, ExprKind};
use tricord_promql::eval::{EvalOptions, NoSources, PartialSpec, evaluate, evaluate_partial};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::promqltest::{Command, Load, MemoryStorage, parse_script};
use tricord_promql::value::{Column, Grid, QueryValue};

/// Whether a series' result depends on that series alone.
fn is_local(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::VectorSelector(_) | ExprKind::MatrixSelector(_) | ExprKind::Number(_) => true,
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => is_local(inner),
        ExprKind::Call(call) => {
            let name = call.func.as_str();
            let gathers = name.starts_with("absent") || name.starts_with("histogram_") || name == "scalar";
            !gathers && name != "info" && call.args.iter().all(is_local)
        }
        _ => false,
    }
}

fn bits(columns: &[Column]) -> Vec<String> {
    let show = |column: &Column| {
        let floats: Vec<u64> = column.floats.iter().map(|value| value.to_bits()).collect();
        format!("{} {floats:?} {:?}", column.labels, column.histograms)
    };
    columns.iter().map(show).collect()
}

/// The data of a script so far, whole and in three shards.
struct Data {
    whole: MemoryStorage,
    shards: Vec<MemoryStorage>,
}

impl Data {
    fn new() -> Self {
        Self { whole: MemoryStorage::default(), shards: vec![MemoryStorage::default(); 3] }
    }

    fn load(&mut self, load: &Load) {
        for series in &load.series {
            self.whole.insert(&series.labels, &series.points);
            let shard = (series.labels.fingerprint() % 3) as usize;
            self.shards[shard].insert(&series.labels, &series.points);
        }
    }

    fn partials(
        &self,
        spec: &PartialSpec,
        expr: &Expr,
        grid: Grid,
        options: &EvalOptions,
    ) -> Option<Vec<GroupState>> {
        let mut parts = Vec::new();
        for shard in self.shards.iter().rev() {
            let (states, _, _) = evaluate_partial(spec, expr, grid, shard, &NoSources, options).ok()?;
            let mut bytes = Vec::new();
            states.iter().for_each(|state| state.encode(&mut Writer::new(&mut bytes)));
            let mut input = Reader::new(&bytes);
            parts.push(states.iter().map(|_| GroupState::decode(&mut input).unwrap()).collect());
        }
        Some(GroupState::merge_all(spec.op, parts).unwrap())
    }
}

/// Whether a query was compared.
fn compare(data: &Data, query: &str, grid: Grid) -> bool {
    let Ok(expr) = parse(query, &ParserOptions::default()) else { return false };
    let ExprKind::Aggregate(aggregate) = &expr.without_parens().kind else { return false };
    let Some(spec) = PartialSpec::of(aggregate).filter(|_| is_local(&aggregate.expr)) else { return false };
    for delayed in [false, true] {
        let options =
            EvalOptions { delayed_name_removal: delayed, start_timestamps: true, ..EvalOptions::new(grid) };
        let Ok(evaluated) = evaluate(&expr, grid, &data.whole, &NoSources, &options) else { continue };
        let QueryValue::Vector(whole) = evaluated.value else { panic!("{query} is no vector") };
        let Some(states) = data.partials(&spec, &aggregate.expr, grid, &options) else {
            panic!("{query} fails split")
        };
        let (mut merged, notes) = finish(&spec, states, grid).unwrap();
        if delayed {
            merged = tricord_promql::eval::finish_names(merged).unwrap();
        }
        if grid.steps() > 1 || !tricord_promql::eval::has_order(&expr) {
            merged.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        assert_eq!(bits(&whole), bits(&merged), "{query}");
        let notes = notes.render(None);
        assert!(notes.warnings.is_subset(&evaluated.annotations.warnings), "{query}: {notes:?}");
    }
    true
}

#[test]
fn merged_partials_equal_the_whole() {
    let upstream = cases::files();
    let floor = if upstream.is_some() { 400 } else { 95 };
    let mut compared = 0;
    for (name, text) in cases::own().into_iter().chain(upstream.unwrap_or_default()) {
        let mut data = Data::new();
        for command in parse_script(&text).unwrap_or_else(|error| panic!("{name}: {error}")) {
            match command {
                Command::Clear => data = Data::new(),
                Command::Load(load) => data.load(&load),
                Command::Eval(eval) => {
                    let around =
                        Grid { start_ms: eval.at_ms - 60_000, end_ms: eval.at_ms + 60_000, step_ms: 30_000 };
                    compared += usize::from(compare(&data, &eval.query, eval.grid));
                    compared += usize::from(compare(&data, &eval.query, around));
                }
            }
        }
    }
    println!("{compared} aggregations compared");
    assert!(compared > floor, "{compared}");
}
