//! A day in which every pod is renewed each hour, beside hosts that stay: what memory does over the hours, and whether
//! queries over the hosts become slower.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::ingest::{self, Acked, CONNECTIONS};
use crate::load::{Part, Scenario, Wire};
use crate::pods::Renewed;
use crate::proc;
use crate::queries::{self, Query};
use crate::server::{Kind, Server};

/// Hours, and scrapes in each of them.
const HOURS: i64 = 24;
const TICKS: i64 = 30;
/// The hosts that stay.
const QUIET: Scenario =
    Scenario { name: "churn", series: 20_000, ticks: HOURS * TICKS, interval_ms: 3_600_000 / TICKS };
/// The pods beside them.
const RENEWED: Renewed = Renewed { series: 20_000, life: TICKS, first: TICKS };
/// Questions before those that count.
const UNCOUNTED: usize = 2;

/// A server behind an hour.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hour {
    pub(crate) server: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) hour: i64,
    /// Distinct series so far.
    pub(crate) series: usize,
    /// Those that it holds in memory; only Tricord tells.
    pub(crate) series_in_memory: Option<u64>,
    pub(crate) cpu_s: f64,
    pub(crate) anonymous_bytes: u64,
    pub(crate) highest_memory_bytes: u64,
}

/// What a question over the last hour of the hosts took behind an hour.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Quiet {
    pub(crate) query: &'static str,
    pub(crate) server: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) hour: i64,
    pub(crate) items: usize,
    pub(crate) wall_ms: Vec<f64>,
}

/// How long the day is, in milliseconds.
pub(crate) const fn span_ms() -> i64 {
    HOURS * 3_600_000
}

/// Writes the day to a fresh server. After each hour it is told to write out what it holds, as it would by the clock.
///
/// # Errors
/// When the server does not start, does not take a request, or does not answer.
pub(crate) async fn run(
    kind: Kind,
    tricord: &Path,
    data: &Path,
    start_ms: i64,
    asks: usize,
) -> Result<(Vec<Hour>, Vec<Quiet>)> {
    if data.exists() {
        std::fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let server = Server::start(kind, tricord, data).await?;
    let part = |number| Part::new(QUIET, Wire::V1, start_ms, (number, CONNECTIONS));
    let mut hosts: Vec<Part> = (0..CONNECTIONS).map(part).collect();
    let (mut hours, mut quiet, mut acked) = (Vec::new(), Vec::new(), Acked::default());
    for hour in 1..=HOURS {
        for tick in (hour - 1) * TICKS..hour * TICKS {
            let t_ms = start_ms + tick * QUIET.interval_ms;
            let mut stretch = RENEWED.scrape(tick, t_ms, CONNECTIONS)?;
            for (requests, hosts) in stretch.iter_mut().zip(&mut hosts) {
                requests.extend(hosts.next(1)?);
            }
            ingest::send(&server, Wire::V1, stretch, &mut acked)
                .await
                .with_context(|| server.process.log())?;
        }
        server.write_out().await?;
        let memory = proc::memory(server.pid())?;
        hours.push(Hour {
            server: kind.name(),
            kind: "churn",
            hour,
            series: QUIET.series + RENEWED.distinct(hour * TICKS),
            series_in_memory: series_in_memory(&server).await?,
            cpu_s: proc::cpu_s(server.pid())?,
            anonymous_bytes: memory.anonymous,
            highest_memory_bytes: memory.highest,
        });
        if hour == 1 || hour == HOURS {
            for query in questions(start_ms + hour * 3_600_000) {
                quiet.push(ask(&server, &query, hour, asks).await?);
            }
        }
    }
    server.stop().await?;
    std::fs::remove_dir_all(data)?;
    Ok((hours, quiet))
}

/// How many series a server says that it holds.
async fn series_in_memory(server: &Server) -> Result<Option<u64>> {
    let metrics = server.client().get("/metrics", &[]).await?.success()?.text();
    let mut found = metrics.lines().filter_map(|line| line.strip_prefix("tricord_querier_series_in_memory "));
    Ok(found.next().and_then(|count| count.trim().parse().ok()))
}

/// Questions over the hour before a time.
fn questions(end_ms: i64) -> Vec<Query> {
    let (start, end) = (end_ms / 1000 - 3_600, end_ms / 1000 - 1);
    let query = |name, path, list: &[(&'static str, &str)]| {
        let mut parameters = match path {
            "/api/v1/query" => vec![("time", end.to_string())],
            _ => vec![("start", start.to_string()), ("end", end.to_string())],
        };
        parameters.extend(list.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Query { name, path, parameters }
    };
    let (instant, range) = ("/api/v1/query", "/api/v1/query_range");
    let modes = ("query", "sum by (mode) (rate(node_cpu_seconds_total[5m]))");
    let step = ("step", "60");
    vec![
        query("processors by mode, now", instant, &[modes]),
        query("processors by mode, 1 h", range, &[modes, step]),
        query("all metrics of one host, 1 h", range, &[("query", r#"{instance="host-00003:9100"}"#), step]),
        query("count of names by pattern", instant, &[("query", r#"count({__name__=~"node_.*"})"#)]),
        query("series of a metric", "/api/v1/series", &[("match[]", "node_cpu_seconds_total")]),
        query("values of mode", "/api/v1/label/mode/values", &[]),
    ]
}

async fn ask(server: &Server, query: &Query, hour: i64, asks: usize) -> Result<Quiet> {
    let client = server.client();
    let (mut items, mut wall_ms) = (0, Vec::with_capacity(asks));
    for number in 0..UNCOUNTED + asks {
        let asked = queries::ask(&client, server.kind, query).await?;
        items = asked.1;
        wall_ms.extend((number >= UNCOUNTED).then_some(asked.0));
    }
    Ok(Quiet { query: query.name, server: server.kind.name(), kind: "quiet", hour, items, wall_ms })
}
