//! Test scripts in the language of Prometheus' promqltest: parsing them, holding their data, and judging answers as
//! upstream does.
//!
//! The engine behind the questions is a [`Target`]: the evaluator of this crate over [`MemoryStorage`], or a whole
//! running system in integration tests.

mod classes;
mod judge;
mod memory;
mod nhcb;
mod script;
mod series;
mod shown;
mod variants;

pub use classes::Classes;
pub use memory::{LocalTarget, MemoryStorage};
pub use script::{Command, Eval, Expect, Load, LoadedSeries, ScriptError, parse_script};
pub use series::SequenceValue;
pub use shown::{as_shown, histogram_as_shown, value_as_shown};

use crate::value::{Annotations, Grid, QueryValue};

/// What a target answers: a value with its notes, or the text of an error.
pub type Answer = Result<(QueryValue, Annotations), String>;

/// Something that stores series and answers queries.
pub trait Target {
    /// Forgets all data.
    fn clear(&mut self);

    /// Stores series.
    fn load(&mut self, series: &[LoadedSeries]);

    /// Answers a query: an instant query where `instant` is set (the grid then has one step), else a range query.
    fn query(&mut self, query: &str, grid: Grid, instant: bool) -> Answer;

    /// Whether any series that the query selects holds native histograms, for [`Classes`].
    fn has_histograms(&self, query: &str) -> bool;
}

/// How one `eval` of a script went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The line of the `eval` in the script, from 1.
    pub line: usize,
    /// The query.
    pub query: String,
    /// What the query needs.
    pub classes: Classes,
    /// Why it failed.
    pub result: Result<(), String>,
}

/// Runs a script against a target.
///
/// # Errors
/// [`ScriptError`] where the script itself is malformed.
pub fn run_script(text: &str, target: &mut dyn Target) -> Result<Vec<Outcome>, ScriptError> {
    let mut outcomes = Vec::new();
    target.clear();
    for command in parse_script(text)? {
        match command {
            Command::Clear => target.clear(),
            Command::Load(load) => target.load(&load.series),
            Command::Eval(eval) => outcomes.push(Outcome {
                line: eval.line,
                query: eval.query.clone(),
                classes: Classes::of(&eval, target),
                result: run_eval(&eval, target),
            }),
        }
    }
    Ok(outcomes)
}

/// Runs one `eval`: an instant one also with `@` at other times, and as range queries around its time.
///
/// # Errors
/// A text that says which variant gave what.
pub fn run_eval(eval: &Eval, target: &mut dyn Target) -> Result<(), String> {
    if !eval.instant {
        let Some((value, notes)) = judge::failure(eval, target.query(&eval.query, eval.grid, false))? else {
            return Ok(());
        };
        judge::notes(eval, &notes)?;
        return judge::value(eval, &value, eval.grid, false);
    }
    for (query, t_ms) in variants::all(eval) {
        let within = |error: String| format!("{query} at {t_ms} ms: {error}");
        run_instant(eval, &query, t_ms, target).map_err(within)?;
    }
    Ok(())
}

const MINUTE_MS: i64 = 60_000;

fn run_instant(eval: &Eval, query: &str, t_ms: i64, target: &mut dyn Target) -> Result<(), String> {
    let grid = Grid::instant(t_ms);
    let Some((value, notes)) = judge::failure(eval, target.query(query, grid, true))? else { return Ok(()) };
    judge::notes(eval, &notes)?;
    judge::value(eval, &value, grid, true)?;
    let of_the_query = ["start()", "end()", "range()", "step()"];
    if eval.not_as_range || of_the_query.iter().any(|call| query.contains(call)) {
        return Ok(());
    }
    let grid = Grid { start_ms: t_ms - MINUTE_MS, end_ms: t_ms + MINUTE_MS, step_ms: MINUTE_MS };
    let (value, _) = target.query(query, grid, false).map_err(|error| format!("as a range: {error}"))?;
    if eval.is_ordered() {
        return Ok(());
    }
    judge::step(eval, &value, 1).map_err(|error| format!("as a range: {error}"))
}
