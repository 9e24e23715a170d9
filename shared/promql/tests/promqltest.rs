//! The project's own cases and the upstream cases of Prometheus, in memory, by this crate's evaluator alone.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test, with figures for its reader"
)]

mod cases;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tricord_promql::ast::{Expr, ExprKind};
use tricord_promql::functions::Function;
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::promqltest::{LocalTarget, Outcome, run_script};

/// How many evals of each script there are in Prometheus 3.14, all of which pass.
const EVALS: [(&str, usize); 21] = [
    ("aggregators", 160),
    ("at_modifier", 71),
    ("collision", 2),
    ("duration_expression", 59),
    ("extended_vectors", 169),
    ("fill-modifier", 46),
    ("functions", 431),
    ("histograms", 185),
    ("info", 42),
    ("limit", 37),
    ("literals", 25),
    ("name_label_dropping", 30),
    ("native_histograms", 522),
    ("operators", 213),
    ("range_queries", 18),
    ("selectors", 31),
    ("staleness", 17),
    ("start_timestamps", 26),
    ("subquery", 34),
    ("trig_functions", 19),
    ("type_and_unit", 58),
];

/// The outcomes of scripts, and a report of them.
fn run(files: Vec<(String, String)>) -> (Vec<(String, Vec<Outcome>)>, String) {
    let mut report = String::new();
    let mut all = Vec::new();
    for (name, text) in files {
        let outcomes =
            run_script(&text, &mut LocalTarget::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        for outcome in &outcomes {
            if let Err(error) = &outcome.result {
                let Outcome { line, query, classes, .. } = outcome;
                writeln!(report, "{name}:{line} {query} {classes:?}\n    {error}").unwrap();
            }
        }
        writeln!(report, "{name}: {}", figures(&outcomes)).unwrap();
        all.push((name, outcomes));
    }
    let outcomes: Vec<Outcome> = all.iter().flat_map(|(_, outcomes)| outcomes).cloned().collect();
    writeln!(report, "all: {}", figures(&outcomes)).unwrap();
    (all, report)
}

#[test]
fn upstream_cases() {
    let Some(files) = cases::files() else { return };
    let (all, report) = run(files);
    println!("{report}");
    let mut short = Vec::new();
    for (name, outcomes) in all {
        let passed = outcomes.iter().filter(|outcome| outcome.result.is_ok()).count();
        let floor = EVALS.iter().find(|(known, _)| *known == name).map_or(0, |(_, evals)| *evals);
        if passed < floor {
            short.push(format!("{name}: {passed} of {floor}"));
        }
    }
    assert!(short.is_empty(), "fewer evals pass than before: {short:?}\n{report}");
}

#[test]
fn own_cases() {
    let (all, report) = run(cases::own());
    println!("{report}");
    let failed = all.iter().flat_map(|(_, outcomes)| outcomes).filter(|outcome| outcome.result.is_err());
    assert_eq!(failed.count(), 0, "own cases fail\n{report}");
}

/// The words of the language that an expression uses.
fn words(expr: &Expr, found: &mut BTreeSet<String>) {
    expr.walk(&mut |node| {
        match &node.kind {
            ExprKind::Call(call) => found.insert(call.func.as_str().to_owned()),
            ExprKind::Aggregate(aggregate) => found.insert(aggregate.op.as_str().to_owned()),
            ExprKind::Binary(binary) => found.insert(binary.op.as_str().to_owned()),
            _ => false,
        };
    });
}

#[test]
fn own_cases_use_the_whole_language() {
    let mut found = BTreeSet::new();
    let mut text = String::new();
    for (_, script) in cases::own() {
        let (outcomes, _) = run(vec![(String::new(), script)]);
        for outcome in outcomes.into_iter().flat_map(|(_, outcomes)| outcomes) {
            let options = ParserOptions { experimental_functions: true, ..ParserOptions::default() };
            if let Ok(expr) = parse(&outcome.query, &options) {
                words(&expr, &mut found);
                writeln!(text, "{expr}").unwrap();
            }
        }
    }
    let functions = Function::ALL.iter().map(|function| function.as_str());
    let aggregations =
        "sum avg count min max group stddev stdvar topk bottomk count_values quantile limitk limit_ratio";
    let operators = "+ - * / % ^ atan2 == != < <= > >= and or unless </ >/";
    let wanted = functions.chain(aggregations.split(' ')).chain(operators.split(' '));
    let missing: Vec<&str> = wanted.filter(|word| !found.contains(*word)).collect();
    assert!(missing.is_empty(), "no own case uses {missing:?}");
    let modifiers = "by without on ignoring group_left group_right offset @ start() end() bool anchored smoothed fill \
                     fill_left fill_right";
    let missing: Vec<&str> = modifiers.split_whitespace().filter(|word| !text.contains(word)).collect();
    assert!(missing.is_empty(), "no own case uses {missing:?}");
}

fn figures(outcomes: &[Outcome]) -> String {
    let passed = |keep: &dyn Fn(&&Outcome) -> bool| {
        let of: Vec<&Outcome> = outcomes.iter().filter(keep).collect();
        format!("{} of {}", of.iter().filter(|outcome| outcome.result.is_ok()).count(), of.len())
    };
    format!(
        "passed {} evals; plain {}, native histograms {}, experimental {}",
        passed(&|_| true),
        passed(&|outcome| outcome.classes.is_plain()),
        passed(&|outcome| outcome.classes.native_histograms),
        passed(&|outcome| outcome.classes.experimental && !outcome.classes.native_histograms),
    )
}
