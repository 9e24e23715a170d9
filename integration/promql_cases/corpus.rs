//! The scripts, and the states of data that their questions are asked over.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tricord_promql::promqltest::{Command, Eval, Load, parse_script};

/// A folder of scripts.
pub(super) struct Folder {
    /// What it is called in reports.
    pub(super) name: &'static str,
    path: PathBuf,
}

/// The data that some questions of a script are asked over, and these questions.
pub(super) struct State {
    /// The folder and the script, as `upstream/functions`.
    pub(super) script: String,
    /// The tenant that holds the data, and nothing else.
    pub(super) tenant: String,
    /// What is written, in this order.
    pub(super) loads: Vec<Load>,
    pub(super) evals: Vec<Eval>,
}

/// The project's own cases, and Prometheus' where they are there: in `PROMQLTEST_DIR`, or in `shared/promqltest` beside
/// the checkout.
pub(super) fn folders() -> Vec<Folder> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut folders = vec![Folder { name: "own", path: root.join("integration/cases") }];
    let given = std::env::var("PROMQLTEST_DIR").ok().map(PathBuf::from);
    let beside = || {
        let mut above = root.ancestors().map(|folder| folder.join("shared/promqltest"));
        above.find(|folder| folder.join("functions.test").exists())
    };
    folders.extend(given.or_else(beside).map(|path| Folder { name: "upstream", path }));
    folders
}

/// All states of a folder's scripts. What is loaded after a question makes a new state, which holds all that was loaded
/// since the last `clear`: so everything can be written first, flushed once, and asked in any order.
pub(super) fn states(folder: &Folder) -> Result<Vec<State>> {
    let entries = std::fs::read_dir(&folder.path).with_context(|| folder.path.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    paths.sort();
    let mut states = Vec::new();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path)?;
        let commands = parse_script(&text).with_context(|| path.display().to_string())?;
        of_script(folder.name, &stem, commands, &mut states);
    }
    Ok(states)
}

fn of_script(folder: &str, stem: &str, commands: Vec<Command>, states: &mut Vec<State>) {
    let mut loads: Vec<Load> = Vec::new();
    let mut evals: Vec<Eval> = Vec::new();
    let mut finish = |loads: &[Load], evals: &mut Vec<Eval>| {
        if !evals.is_empty() {
            states.push(State {
                script: format!("{folder}/{stem}"),
                tenant: format!("{folder}-{stem}-{}", states.len()),
                loads: loads.to_vec(),
                evals: std::mem::take(evals),
            });
        }
    };
    for command in commands {
        match command {
            Command::Clear => {
                finish(&loads, &mut evals);
                loads.clear();
            }
            Command::Load(load) => {
                finish(&loads, &mut evals);
                loads.push(load);
            }
            Command::Eval(eval) => evals.push(*eval),
        }
    }
    finish(&loads, &mut evals);
}
