//! The upstream cases of Prometheus, in memory, by this crate's evaluator alone.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test, with figures for its reader"
)]

mod cases;

use std::fmt::Write as _;

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

#[test]
fn upstream_cases() {
    let Some(files) = cases::files() else { return };
    let mut report = String::new();
    let mut short = Vec::new();
    let mut all = Vec::new();
    for (name, text) in files {
        let outcomes =
            run_script(&text, &mut LocalTarget::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        for outcome in &outcomes {
            if let Err(error) = &outcome.result {
                writeln!(report, "{name}:{} {:?}\n    {error}", outcome.line, outcome.classes).unwrap();
            }
        }
        writeln!(report, "{name}: {}", figures(&outcomes)).unwrap();
        let passed = outcomes.iter().filter(|outcome| outcome.result.is_ok()).count();
        let floor = EVALS.iter().find(|(known, _)| *known == name).map_or(0, |(_, evals)| *evals);
        if passed < floor {
            short.push(format!("{name}: {passed} of {floor}"));
        }
        all.extend(outcomes);
    }
    writeln!(report, "all: {}", figures(&all)).unwrap();
    println!("{report}");
    assert!(short.is_empty(), "fewer evals pass than before: {short:?}\n{report}");
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
