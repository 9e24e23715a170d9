//! `tricord query`: one query over HTTP, answered or explained.

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use serde_json::Value;

use crate::table;

/// Asks and prints.
pub(crate) async fn run(matches: &ArgMatches) -> Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let explain = matches.get_flag("explain");
    let endpoint = match (explain, text("start")) {
        (true, _) => "explain",
        (false, Some(_)) => "query_range",
        (false, None) => "query",
    };
    let url = format!("{}/api/v1/{endpoint}", text("url").unwrap_or_default().trim_end_matches('/'));
    let mut form = vec![("query", text("expression").unwrap_or_default())];
    match (text("start"), text("end"), text("step")) {
        (Some(start), Some(end), Some(step)) => form.extend([("start", start), ("end", end), ("step", step)]),
        _ => form.extend(text("time").map(|time| ("time", time))),
    }
    if explain {
        form.push(("analyze", "true"));
    }
    let mut request = reqwest::Client::new().post(&url).form(&form);
    if let Some(tenant) = text("tenant") {
        request = request.header("X-Scope-OrgID", tenant);
    }
    let response =
        request.send().await.with_context(|| format!("nobody answers at {url}; is tricord running?"))?;
    let status = response.status();
    let missing = response.headers().get("x-tricord-missing-shards").cloned();
    let body = response.text().await.context("the answer broke off")?;
    if matches.get_flag("json") {
        table::print(&format!("{}\n", body.trim_end()))?;
    }
    let answer: Value = match serde_json::from_str(&body) {
        Ok(answer) => answer,
        Err(_) => bail!("{url} answered {status} with something that is not JSON"),
    };
    if answer["status"] != "success" {
        bail!("{}", answer["error"].as_str().unwrap_or(status.as_str()));
    }
    if !matches.get_flag("json") {
        let text = match explain {
            true => answer["data"]["text"].as_str().unwrap_or_default().to_owned(),
            false => render(&answer["data"])?,
        };
        table::print(&text)?;
    }
    for kind in ["warnings", "infos"] {
        for note in answer[kind].as_array().into_iter().flatten() {
            tracing::warn!("{}", note.as_str().unwrap_or_default());
        }
    }
    match missing {
        Some(shards) if !matches.get_flag("allow-partial") => bail!(
            "the answer lacks the data of shards {}; --allow-partial takes it for an answer",
            shards.to_str().unwrap_or_default()
        ),
        _ => Ok(()),
    }
}

fn render(data: &Value) -> Result<String> {
    let result = &data["result"];
    match data["resultType"].as_str() {
        Some("scalar" | "string") => Ok(format!("{}\n", value(result))),
        Some("vector") => {
            let rows = result.as_array().into_iter().flatten().map(|sample| {
                let point =
                    if sample["histogram"].is_null() { value(&sample["value"]) } else { histogram(sample) };
                vec![series(&sample["metric"]), point]
            });
            let rows = rows.collect::<Vec<_>>();
            Ok(if rows.is_empty() {
                "nothing\n".to_owned()
            } else {
                table::render(&["series", "value"], &rows)
            })
        }
        Some("matrix") => {
            let mut rows = Vec::new();
            for stream in result.as_array().into_iter().flatten() {
                for point in stream["values"].as_array().into_iter().flatten() {
                    rows.push(vec![series(&stream["metric"]), point[0].to_string(), value(point)]);
                }
            }
            Ok(table::render(&["series", "time", "value"], &rows))
        }
        other => bail!("an answer of the unknown kind {other:?}"),
    }
}

fn value(point: &Value) -> String {
    point[1].as_str().unwrap_or("?").to_owned()
}

fn histogram(sample: &Value) -> String {
    let of = |name: &str| sample["histogram"][1][name].as_str().unwrap_or("?").to_owned();
    format!("histogram count {} sum {}", of("count"), of("sum"))
}

/// `name{label="value"}` in the order that the server sent.
fn series(metric: &Value) -> String {
    let Some(labels) = metric.as_object() else { return "{}".to_owned() };
    let name = labels.get("__name__").and_then(Value::as_str).unwrap_or_default();
    let others = labels.iter().filter(|(label, _)| *label != "__name__");
    let others = others.map(|(label, value)| format!("{label}={value}")).collect::<Vec<_>>();
    if others.is_empty() && !name.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", others.join(", "))
    }
}
