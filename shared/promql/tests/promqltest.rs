//! The upstream cases of Prometheus, in memory, by this crate's evaluator alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tricord_promql::promqltest::{LocalTarget, Outcome, run_script};

/// The folder of cases: `PROMQLTEST_DIR`, or `shared/promqltest` beside the checkout.
fn cases() -> Option<PathBuf> {
    if let Ok(folder) = std::env::var("PROMQLTEST_DIR") {
        return Some(PathBuf::from(folder));
    }
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.map(|folder| folder.join("shared/promqltest")).find(|folder| folder.join("functions.test").exists())
}

#[test]
fn upstream_cases() {
    let Some(folder) = cases() else {
        eprintln!("skipped: set PROMQLTEST_DIR to the folder of upstream's .test files");
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    files.sort();
    let mut report = String::new();
    let mut all = Vec::new();
    for path in &files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let outcomes = match run_script(&text, &mut LocalTarget::default()) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                writeln!(report, "{name}: {error}").unwrap();
                continue;
            }
        };
        for outcome in outcomes.iter().filter(|outcome| outcome.result.is_err()) {
            let error = outcome.result.as_ref().unwrap_err();
            writeln!(report, "{name}:{} {:?}\n    {error}", outcome.line, outcome.classes).unwrap();
        }
        writeln!(report, "{name}: {}", figures(&outcomes)).unwrap();
        all.extend(outcomes);
    }
    writeln!(report, "all: {}", figures(&all)).unwrap();
    println!("{report}");
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
