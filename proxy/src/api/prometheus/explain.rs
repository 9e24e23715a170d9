//! `explain`: runs a query and tells what ran where.

use axum::extract::State;
use serde_json::{Value, json};

use super::query::{instant_question, range_question};
use crate::Proxy;
use crate::api::{Asked, Reply};
use crate::error::Error;
use crate::plan::explain::{describe, merge};
use crate::query::Answer;
use crate::scatter::CallReport;

/// `GET|POST /explain`: a range query where `start` is given, else an instant one.
pub(super) async fn explain(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        let question = match asked.params.get("start") {
            "" => instant_question(&proxy, &asked)?,
            _ => range_question(&proxy, &asked)?,
        };
        let started = std::time::Instant::now();
        let mut answer = proxy.engine().answer(&question).await?;
        let micros = started.elapsed().as_micros() as u64;
        let data = json!({
            "query": question.expr.to_string(),
            "grid": {
                "start_ms": question.grid.start_ms,
                "end_ms": question.grid.end_ms,
                "step_ms": question.grid.step_ms,
                "steps": question.grid.steps(),
            },
            "proxy": answer.plan.rest.to_string(),
            "parts": parts(&answer),
            "raw": answer.raw.iter().map(call).collect::<Vec<_>>(),
            "totals": {
                "micros": micros,
                "series": answer.stats.series,
                "samples": answer.stats.samples,
                "bytes": answer.stats.bytes,
            },
        });
        let annotations = std::mem::take(&mut answer.annotations);
        let reply = Reply { annotations, ..Reply::json(&data) };
        reply.missing(answer.missing, asked.denies_partial())
    };
    proxy.observe("explain", answer).await
}

fn parts(answer: &Answer) -> Vec<Value> {
    let parts = answer.plan.parts.iter().zip(&answer.parts).enumerate();
    let parts = parts.map(|(id, (part, report))| {
        json!({
            "part": id,
            "pushed": describe(part),
            "merge": merge(part),
            "columns": report.columns,
            "ran": report.calls.iter().map(call).collect::<Vec<_>>(),
        })
    });
    parts.collect()
}

fn call(call: &CallReport) -> Value {
    json!({
        "node": call.node.0,
        "shards": call.shards.iter().map(|shard| shard.0).collect::<Vec<_>>(),
        "series": call.stats.series,
        "samples": call.stats.samples,
        "node_micros": call.stats.micros,
        "micros": call.micros,
        "bytes": call.bytes,
    })
}
