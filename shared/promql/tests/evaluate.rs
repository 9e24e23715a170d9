//! What upstream's scripts do not show: names that go at once, limits, notes with their places, parts from elsewhere.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tricord_promql::ast::{Expr, ExprKind, Remote};
use tricord_promql::eval::{
    DUPLICATE_LABELSET, ErrorKind, EvalError, EvalOptions, Evaluated, NoSources, Sources, evaluate,
    subquery_grid,
};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::promqltest::{Command, MemoryStorage, parse_script};
use tricord_promql::value::{Column, Grid, QueryValue, is_absent};

const DATA: &str = r#"load 1m
  a_total{job="x"} 0+60x20
  b_total{job="x"} 0+120x20
  gauge{job="x", instance="1"} 5 7 _x3 stale 9
  gauge{job="y", instance="2"} 1 _x30 3
  left{g="1", i="1"} 1x20
  left{g="1", i="2"} 1x20
  left{g="2"} 1x20
  right{g="1"} 1x20
  right{g="2", i="1"} 1x20
  right{g="2", i="2"} 1x20
"#;

fn storage() -> MemoryStorage {
    let mut storage = MemoryStorage::default();
    for command in parse_script(DATA).unwrap() {
        if let Command::Load(load) = command {
            load.series.iter().for_each(|series| storage.insert(&series.labels, &series.points));
        }
    }
    storage
}

const HOUR: Grid = Grid { start_ms: 0, end_ms: 1_200_000, step_ms: 60_000 };

fn run_with(query: &str, grid: Grid, change: impl Fn(&mut EvalOptions)) -> Result<Evaluated, EvalError> {
    let expr = parse(query, &ParserOptions::default()).unwrap();
    let mut options = EvalOptions::new(grid);
    change(&mut options);
    evaluate(&expr, grid, &storage(), &NoSources, &options)
}

fn run(query: &str, grid: Grid) -> Result<Evaluated, EvalError> {
    run_with(query, grid, |_| {})
}

/// The series of an instant query at 10 minutes, in their order.
fn check(query: &str, expected: &[&str]) {
    let QueryValue::Vector(columns) = run(query, Grid::instant(600_000)).unwrap().value else {
        panic!("{query}")
    };
    let shown: Vec<String> =
        columns.iter().map(|column| format!("{} {}", column.labels, column.floats[0])).collect();
    assert_eq!(shown, expected, "{query}");
}

#[test]
fn names_go_where_values_change_their_meaning() {
    check("rate(a_total[5m])", &[r#"{job="x"} 1"#]);
    check("last_over_time(a_total[5m])", &[r#"{__name__="a_total", job="x"} 600"#]);
    check("a_total > 1", &[r#"{__name__="a_total", job="x"} 600"#]);
    check("a_total > bool 1", &[r#"{job="x"} 1"#]);
    check("-a_total", &[r#"{job="x"} -600"#]);
    check("a_total + b_total", &[r#"{job="x"} 1800"#]);
    check("a_total == on (job) (b_total / 2)", &[r#"{job="x"} 600"#]);
    check("sum by (job) ({__name__=~\"[ab]_total\"})", &[r#"{job="x"} 1800"#]);
    check("timestamp(a_total offset 1m)", &[r#"{job="x"} 540"#]);
    check(
        "sort_desc({__name__=~\"[ab]_total\"})",
        &[r#"{__name__="b_total", job="x"} 1200"#, r#"{__name__="a_total", job="x"} 600"#],
    );
}

#[test]
fn dropped_names_must_leave_label_sets_apart() {
    for query in [
        "rate({__name__=~\"[ab]_total\"}[5m])",
        "-{__name__=~\"[ab]_total\"}",
        "{__name__=~\"[ab]_total\"} * 2",
        "abs({__name__=~\"[ab]_total\"})",
    ] {
        let failed = run(query, Grid::instant(600_000)).unwrap_err();
        assert_eq!(
            (failed.kind(), failed.to_string()),
            (ErrorKind::Execution, DUPLICATE_LABELSET.to_owned()),
            "{query}"
        );
    }
}

#[test]
fn ranges_and_lookback_leave_their_start_out() {
    check("count_over_time(a_total[2m])", &[r#"{job="x"} 2"#]);
    // The last sample lies exactly five minutes back.
    let QueryValue::Vector(columns) = run("a_total", Grid::instant(1_500_000)).unwrap().value else {
        panic!()
    };
    assert!(columns.is_empty());
    let QueryValue::Vector(columns) = run("a_total", Grid::instant(1_499_999)).unwrap().value else {
        panic!()
    };
    assert_eq!(columns.len(), 1);
    let QueryValue::Vector(columns) = run("gauge{job=\"x\"}", HOUR).unwrap().value else { panic!() };
    let present: Vec<bool> = columns[0].floats[..8].iter().map(|value| !is_absent(*value)).collect();
    assert_eq!(present, [true, true, true, true, true, false, true, true]);
}

#[test]
fn notes_name_their_place_in_the_query() {
    let evaluated = run_with("sum(\n  rate(gauge[5m]))", HOUR, |options| {
        options.query_text = Some(Arc::from("sum(\n  rate(gauge[5m]))"));
    });
    let infos: Vec<String> = evaluated.unwrap().annotations.infos.into_iter().collect();
    let text =
        "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"gauge\" (2:8)";
    assert_eq!(infos, [format!("PromQL info: {text}")]);
}

#[test]
fn of_several_errors_the_first_is_shown_and_none_is_passed_over() {
    for query in ["left + on (g) right", "topk(0, left + on (g) right)", "bottomk(-1, left + on (g) right)"] {
        let failed = run(query, Grid::instant(600_000)).unwrap_err().to_string();
        assert!(
            failed.contains("duplicate series for the match group {g=\"2\"} on the right"),
            "{query}: {failed}"
        );
    }
}

#[test]
fn limits_are_kept_and_named() {
    let failed = run_with("a_total", HOUR, |options| options.max_samples = 20).unwrap_err();
    let text = "query processing would load too many samples into memory in query execution";
    assert_eq!((failed.kind(), failed.to_string()), (ErrorKind::Execution, text.to_owned()));
    assert!(run_with("a_total", HOUR, |options| options.max_samples = 21).is_ok());
    // More steps than there is memory for: refused before anything is allocated.
    let failed = run("sum_over_time(a_total[100y:1ms])", Grid::instant(1_200_000)).unwrap_err();
    assert_eq!(failed.to_string(), text);
    let cancelled = Some(Arc::new(AtomicBool::new(true)));
    let failed = run_with("a_total", HOUR, |options| options.cancelled.clone_from(&cancelled)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Canceled);
    let failed = run("a_total[5m]", HOUR).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::BadData);
}

/// One part that was computed elsewhere.
struct Part(Vec<Column>);

impl Sources for Part {
    fn columns(&self, id: usize) -> Option<&[Column]> {
        (id == 7).then_some(&self.0)
    }
}

/// Puts a leaf in the place of the first aggregation, which it returns.
fn cut(expr: &mut Expr) -> Option<Expr> {
    if matches!(expr.kind, ExprKind::Aggregate(_)) {
        let leaf = ExprKind::Remote(Remote {
            id: 7,
            value_type: expr.value_type(),
            fixed: false,
            selector: None,
            places: [].into(),
        });
        return Some(Expr { pos: expr.pos, kind: std::mem::replace(&mut expr.kind, leaf) });
    }
    expr.children_mut().into_iter().find_map(cut)
}

#[test]
fn parts_from_elsewhere_stand_for_what_they_replace() {
    let storage = storage();
    let options = EvalOptions::new(HOUR);
    for query in [
        "sum by (job) (rate({__name__=~\"a_total\"}[5m])) * 2",
        "max_over_time(sum by (job) (a_total)[6m:90s] offset 1m)",
        "sum(a_total) + on () group_right gauge",
    ] {
        let mut expr = parse(query, &ParserOptions::default()).unwrap();
        let whole = evaluate(&expr, HOUR, &storage, &NoSources, &options).unwrap();
        let mut grid = HOUR;
        expr.walk(&mut |node| {
            if let ExprKind::Subquery(subquery) = &node.kind {
                grid = subquery_grid(subquery, HOUR, &options).unwrap();
            }
        });
        let part = cut(&mut expr).unwrap();
        let QueryValue::Vector(columns) =
            evaluate(&part, grid, &storage, &NoSources, &options).unwrap().value
        else {
            panic!("{query}");
        };
        let joined = evaluate(&expr, HOUR, &storage, &Part(columns), &options).unwrap();
        assert_eq!(format!("{:?}", joined.value), format!("{:?}", whole.value), "{query}");
        let failed = evaluate(&expr, HOUR, &storage, &NoSources, &options).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Internal);
    }
}
