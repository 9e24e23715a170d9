//! Lists of names, values and series over a day in which very many series came and went, and counts of them.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::ingest::{self, Acked, CONNECTIONS};
use crate::load::Wire;
use crate::pods::{self, Renewed, SERIES_PER_POD};
use crate::proc;
use crate::queries::{self, Query};
use crate::server::{Kind, Server};

/// Scrapes of the day, and the time between them.
const TICKS: i64 = 144;
const INTERVAL_MS: i64 = 600_000;
/// Scrapes that a pod lives for: half an hour.
const LIFE: i64 = 3;
/// What Grafana asks for.
const LIMIT: &str = "40000";

/// What writing the day took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Day {
    pub(crate) server: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) series: usize,
    pub(crate) samples: u64,
    /// Processor for all of it, putting the data in order among it.
    pub(crate) cpu_s: f64,
    pub(crate) highest_memory_bytes: u64,
    /// When all is in the form in which it stays.
    pub(crate) anonymous_bytes: u64,
    pub(crate) disk_bytes: u64,
}

/// What a question took on a server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) query: &'static str,
    pub(crate) server: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) items: usize,
    /// The first time that it was asked.
    pub(crate) first_ms: f64,
    pub(crate) wall_ms: Vec<f64>,
    /// How far memory rose at most above where it was before.
    pub(crate) grew_bytes: u64,
}

/// How long the day is, in milliseconds.
pub(crate) const fn span_ms() -> i64 {
    TICKS * INTERVAL_MS
}

/// The pods of a day with so many series.
fn renewed(series: usize) -> Renewed {
    let mut renewed = Renewed { series: 0, life: LIFE, first: LIFE };
    renewed.series = (series / (TICKS / LIFE) as usize).max(1);
    renewed
}

/// Writes a day with about so many series to a fresh server, which is still running afterwards.
///
/// # Errors
/// When the server does not start, or does not take a request.
pub(crate) async fn write(
    kind: Kind,
    tricord: &Path,
    data: &Path,
    series: usize,
    start_ms: i64,
) -> Result<(Server, Day)> {
    if data.exists() {
        std::fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let renewed = renewed(series);
    let server = Server::start(kind, tricord, data).await?;
    let mut acked = Acked::default();
    for tick in 0..TICKS {
        let t_ms = start_ms + tick * INTERVAL_MS;
        let stretch = tokio::task::spawn_blocking(move || renewed.scrape(tick, t_ms, CONNECTIONS)).await??;
        ingest::send(&server, Wire::V1, stretch, &mut acked).await.with_context(|| server.process.log())?;
    }
    let disk_bytes = server.settle().await.with_context(|| server.process.log())?;
    let memory = proc::memory(server.pid())?;
    let day = Day {
        server: kind.name(),
        kind: "day",
        series: renewed.distinct(TICKS),
        samples: acked.samples,
        cpu_s: proc::cpu_s(server.pid())?,
        highest_memory_bytes: memory.highest,
        anonymous_bytes: memory.anonymous,
        disk_bytes,
    };
    Ok((server, day))
}

/// The questions over a day that begins at a time.
pub(crate) fn questions(series: usize, start_ms: i64) -> Vec<Query> {
    let (start, end) = (start_ms / 1000, (start_ms + span_ms() - INTERVAL_MS) / 1000);
    let list = |name, path, more: &[(&'static str, &str)]| {
        let mut parameters = vec![("start", start.to_string()), ("end", end.to_string())];
        parameters.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Query { name, path, parameters }
    };
    let at_end = |name, path, more: &[(&'static str, &str)]| {
        let mut parameters = vec![("time", end.to_string())];
        parameters.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Query { name, path, parameters }
    };
    let pods = renewed(series).distinct(TICKS) / SERIES_PER_POD;
    let one_pod = format!("{{pod=\"{}\"}}", pods::pod(pods / 2));
    let of_team = format!("{{namespace=\"{}\"}}", pods::namespace(7));
    let of_service = format!("http_requests_total{{job=\"{}\"}}", pods::workload(7));
    let (names, pod, jobs) =
        ("/api/v1/label/__name__/values", "/api/v1/label/pod/values", "/api/v1/label/job/values");
    let limit = ("limit", LIMIT);
    vec![
        list("labels", "/api/v1/labels", &[limit]),
        list("labels of a namespace", "/api/v1/labels", &[("match[]", &of_team), limit]),
        list("values of __name__", names, &[limit]),
        list("values of __name__ in a namespace", names, &[("match[]", &of_team), limit]),
        list("values of job, by a metric", jobs, &[("match[]", "up"), limit]),
        list("values of pod, limit 40,000", pod, &[limit]),
        list("values of pod, all", pod, &[]),
        list("values of pod, of a service's metric", pod, &[("match[]", &of_service), limit]),
        list("values of pod, by a metric", pod, &[("match[]", "up"), limit]),
        list("series of a pod", "/api/v1/series", &[("match[]", &one_pod), limit]),
        list("series of a service's metric", "/api/v1/series", &[("match[]", &of_service), limit]),
        list("series of a metric", "/api/v1/series", &[("match[]", "up"), limit]),
        list("series of any name", "/api/v1/series", &[("match[]", r#"{__name__=~".+"}"#), limit]),
        at_end(
            "count by name, now",
            "/api/v1/query",
            &[("query", r#"count by (__name__) ({__name__=~".+"})"#)],
        ),
        at_end("status/tsdb", "/api/v1/status/tsdb", &[]),
        at_end("cardinality/label_names", "/api/v1/cardinality/label_names", &[]),
        at_end(
            "cardinality/label_values of __name__ and pod",
            "/api/v1/cardinality/label_values",
            &[("label_names[]", "__name__"), ("label_names[]", "pod")],
        ),
        at_end(
            "cardinality/active_series of a service",
            "/api/v1/cardinality/active_series",
            &[("selector", &format!("{{job=\"{}\"}}", pods::workload(7)))],
        ),
    ]
}

/// Asks a server a question, once and then some times more; `None` where it does not have what is asked.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn ask(server: &Server, query: &Query, asks: usize) -> Result<Option<Asked>> {
    if server.kind != Kind::Tricord && query.path.contains("/cardinality/")
        || server.kind == Kind::Prometheus && query.path.contains("/status/")
    {
        return Ok(None);
    }
    let (client, pid) = (server.client(), server.pid());
    proc::forget_highest(pid)?;
    let before = proc::memory(pid)?.highest;
    let (first_ms, items) = queries::ask(&client, server.kind, query).await?;
    let mut wall_ms = Vec::with_capacity(asks);
    for _ in 0..asks {
        wall_ms.push(queries::ask(&client, server.kind, query).await?.0);
    }
    let grew_bytes = proc::memory(pid)?.highest.saturating_sub(before);
    let (query, server) = (query.name, server.kind.name());
    Ok(Some(Asked { query, server, kind: "lists", items, first_ms, wall_ms, grew_bytes }))
}
