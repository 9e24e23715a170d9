//! `explain`: the plan of a query as a tree, with what it reads, estimated and, where it is run, measured.

use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::query::{instant_question, range_question};
use crate::Proxy;
use crate::api::{Asked, Reply};
use crate::error::Error;
use crate::plan::explain::{describe, merge};
use crate::query::{Answer, Question};
use crate::render::{Explained, explain_text};
use crate::scatter::CallReport;

/// `GET|POST /explain`: a range query where `start` is given, else an instant one. It is run where a time is given,
/// unless `analyze` says otherwise; `format=text` answers the tree alone, as text.
pub(super) async fn explain(State(proxy): State<Proxy>, asked: Asked) -> Result<Response, Error> {
    let as_text = match asked.params.get("format") {
        "" | "json" => false,
        "text" => true,
        other => return Err(Error::BadData(format!("format is {other:?}: use json or text"))),
    };
    let mut text = String::new();
    let answer = async {
        let question = match asked.params.get("start") {
            "" => instant_question(&proxy, &asked)?,
            _ => range_question(&proxy, &asked)?,
        };
        explained(&proxy, &asked, &question, &mut text).await
    };
    let reply = proxy.observe("explain", answer).await?;
    if as_text {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        return Ok(([(header::CONTENT_TYPE, kind)], text).into_response());
    }
    Ok(reply.into_response())
}

async fn explained(
    proxy: &Proxy,
    asked: &Asked,
    question: &Question,
    text: &mut String,
) -> Result<Reply, Error> {
    let run = analyzes(asked)?;
    let tree = proxy.engine().explain(question).await?;
    let started = Instant::now();
    let mut answer = if run { Some(proxy.engine().answer(question).await?) } else { None };
    let micros = if run { started.elapsed().as_micros() as u64 } else { 0 };
    let (query, steps) = (question.expr.to_string(), question.grid.steps());
    *text = explain_text(&Explained { query: &query, steps, tree: &tree, answer: answer.as_ref(), micros });
    let mut data = json!({
        "query": query,
        "grid": {
            "start_ms": question.grid.start_ms,
            "end_ms": question.grid.end_ms,
            "step_ms": question.grid.step_ms,
            "steps": steps,
        },
        "analyzed": run,
        "tree": tree,
        "text": text,
    });
    let mut reply = Reply::default();
    if let Some(answer) = &mut answer {
        measured(&mut data, answer, micros);
        reply.annotations = std::mem::take(&mut answer.annotations);
        reply = reply.missing(std::mem::take(&mut answer.missing), asked.denies_partial())?;
    }
    reply.data = data.to_string().into_bytes();
    Ok(reply)
}

/// Whether the query is to be run.
fn analyzes(asked: &Asked) -> Result<bool, Error> {
    match asked.params.get("analyze") {
        "" => Ok(["time", "start"].iter().any(|name| !asked.params.get(name).is_empty())),
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Error::BadData(format!("analyze is {other:?}: use true or false"))),
    }
}

fn measured(data: &mut Value, answer: &Answer, micros: u64) {
    data["proxy"] = json!(answer.plan.rest.to_string());
    data["parts"] = parts(answer).into();
    data["raw"] = answer.raw.iter().map(call).collect::<Vec<_>>().into();
    data["totals"] = json!({
        "micros": micros,
        "scatter_micros": answer.timings.scattered.as_micros() as u64,
        "merge_micros": answer.timings.merged.as_micros() as u64,
        "evaluate_micros": answer.timings.evaluated.as_micros() as u64,
        "series": answer.stats.series,
        "samples": answer.stats.samples,
        "peak_samples": answer.evaluation.peak_samples,
        "bytes": answer.stats.bytes,
    });
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
        "stored_bytes": call.stats.bytes,
        "node_micros": call.stats.micros,
        "micros": call.micros,
        "bytes": call.bytes,
    })
}
