//! The statistics that a query's `stats` asks for: `true` for totals, `all` for every step's samples beside them.

use std::time::Duration;

use serde_json::{Value, json};
use tricord_promql::value::Grid;

use crate::api::Asked;
use crate::query::Answer;

/// The values of `stats` that have a meaning; any other counts as [`TOTALS`].
const TOTALS: &str = "true";
const STEPS: &str = "all";

/// Whether samples must be counted.
pub(super) fn are_wanted(asked: &Asked) -> bool {
    !asked.params.get("stats").is_empty()
}

/// What is to be said of a value of `stats` that has no meaning, in Prometheus' words.
pub(super) fn warning(asked: &Asked) -> Option<String> {
    let value = asked.params.get("stats");
    let known = ["", TOTALS, STEPS].contains(&value);
    (!known).then(|| {
        format!(
            "value {value:?} for parameter \"stats\" is deprecated and will be rejected in the next major release, \
             use {TOTALS:?} or {STEPS:?}"
        )
    })
}

/// The `stats` of an answer.
pub(super) fn json(asked: &Asked, answer: &Answer, grid: Grid) -> Option<Value> {
    if !are_wanted(asked) {
        return None;
    }
    let (timings, steps) = (answer.timings, answer.evaluation.steps.clone().unwrap_or_default());
    let seconds = |time: Duration| time.as_secs_f64();
    let prepared = timings.scattered + timings.merged;
    let evaluated = prepared + timings.evaluated;
    let mut samples = json!({
        "totalQueryableSamples": steps.queryable.iter().sum::<u64>(),
        "samplesRead": steps.read.iter().sum::<u64>(),
        "peakSamples": answer.evaluation.peak_samples.max(answer.stats.peak_samples),
    });
    if asked.params.get("stats") == STEPS {
        samples["totalQueryableSamplesPerStep"] = per_step(&steps.queryable, grid);
        samples["samplesReadPerStep"] = per_step(&steps.read, grid);
    }
    Some(json!({
        "timings": {
            "evalTotalTime": seconds(evaluated),
            // Series come sorted out of the merge.
            "resultSortTime": 0.0,
            "queryPreparationTime": seconds(prepared),
            "innerEvalTime": seconds(timings.evaluated),
            "execQueueTime": seconds(timings.queued),
            "execTotalTime": seconds(timings.queued + evaluated),
        },
        "samples": samples,
    }))
}

/// Pairs of a step's time in seconds and its count.
fn per_step(counts: &[u64], grid: Grid) -> Value {
    let pair = |(step, count): (usize, &u64)| {
        let t_ms = grid.time(step);
        // Whole seconds have no fraction, as in Go's JSON.
        let time = if t_ms % 1000 == 0 { json!(t_ms / 1000) } else { json!(t_ms as f64 / 1000.0) };
        json!([time, count])
    };
    counts.iter().enumerate().map(pair).collect()
}
