//! A set of queries as dashboards ask them, over scenario A and over thirty days of history; warm by turns, and cold.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tricord_testkit::Client;

use crate::load::Scenario;
use crate::proc;
use crate::server::{Kind, Server};

/// Questions before those that count.
const UNCOUNTED: usize = 2;
/// Questions in a row by which the processor's share of one is told.
const IN_A_ROW: usize = 30;
/// A query: its name, and what is sent.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) parameters: Vec<(&'static str, String)>,
}

/// What a query took on a server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Timing {
    pub(crate) query: &'static str,
    pub(crate) server: &'static str,
    /// `warm` or `cold`.
    pub(crate) kind: &'static str,
    pub(crate) wall_ms: Vec<f64>,
    /// Processor that the server used for one, in milliseconds; not known where it was restarted.
    pub(crate) cpu_ms: Option<f64>,
    /// Series of the answer, or its items.
    pub(crate) items: usize,
}

/// The queries over a scenario that begins at a time.
pub(crate) fn of(scenario: Scenario, start_ms: i64) -> Vec<Query> {
    let (start, end) = (start_ms / 1000, (start_ms + scenario.span_ms()) / 1000 - 15);
    let instant = |name, query: &str| Query {
        name,
        path: "/api/v1/query",
        parameters: vec![("query", query.to_owned()), ("time", end.to_string())],
    };
    let range = |name, query: &str, hours: i64, step: i64| Query {
        name,
        path: "/api/v1/query_range",
        parameters: vec![
            ("query", query.to_owned()),
            ("start", (end - hours * 3_600).to_string()),
            ("end", end.to_string()),
            ("step", step.to_string()),
        ],
    };
    let list = |name, path, selector: Option<&str>| {
        let mut parameters = vec![("start", start.to_string()), ("end", end.to_string())];
        parameters.extend(selector.map(|selector| ("match[]", selector.to_owned())));
        Query { name, path, parameters }
    };
    if scenario.name == Scenario::MONTH.name {
        let one = r#"node_network_receive_bytes_total{instance="host-00001:9100",device="eth0"}"#;
        return vec![
            range("one series, 30 d", one, 720, 3_600),
            range("rate of one series, 30 d", &format!("rate({one}[1h])"), 720, 3_600),
            range(
                "increase per day of one host's links, 30 d",
                r#"sum by (device) (increase(node_network_receive_bytes_total{instance="host-00001:9100"}[1d]))"#,
                720,
                86_400,
            ),
        ];
    }
    let modes = "sum by (mode) (rate(node_cpu_seconds_total[5m]))";
    let busy = r#"avg by (instance) (rate(node_cpu_seconds_total{mode!="idle"}[5m]))"#;
    let quantile =
        "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))";
    let links = "topk(5, sum by (instance) (rate(node_network_receive_bytes_total[5m])))";
    vec![
        instant("processors by mode, now", modes),
        range("processors by mode, 1 h", modes, 1, 15),
        range("processors by mode, 6 h", modes, 6, 60),
        range("busy processors by host, 6 h", busy, 6, 60),
        range("p99 of requests, 1 h", quantile, 1, 15),
        range("p99 of requests, 6 h", quantile, 6, 60),
        instant("five busiest links, now", "topk(5, rate(node_network_receive_bytes_total[5m]))"),
        range("five busiest hosts, 1 h", links, 1, 30),
        instant("count of names by pattern", r#"count({__name__=~"node_.*"})"#),
        instant("count by name of all", r#"count by (__name__) ({__name__=~".+"})"#),
        range("95 % of 30 minutes, 6 h", "quantile_over_time(0.95, node_load1[30m])", 6, 60),
        instant("highest in 6 h", "max_over_time(node_disk_io_now[6h])"),
        range(
            "share of memory, 6 h",
            "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
            6,
            60,
        ),
        range(
            "one series, 6 h",
            r#"rate(node_network_receive_bytes_total{instance="host-00003:9100",device="eth0"}[5m])"#,
            6,
            15,
        ),
        range("one metric of all hosts, 6 h", "node_load1", 6, 60),
        range("all metrics of one host, 6 h", r#"{instance="host-00003:9100"}"#, 6, 60),
        range(
            "by pattern, 1 h",
            r#"sum by (device) (rate(node_disk_written_bytes_total{device=~"nvme.*",instance=~"host-0000[0-9]:9100"}[5m]))"#,
            1,
            15,
        ),
        list("values of instance", "/api/v1/label/instance/values", None),
        list("values of __name__", "/api/v1/label/__name__/values", None),
        list("series of a metric", "/api/v1/series", Some("node_cpu_seconds_total")),
    ]
}

/// Where answers have their list.
const LISTS: [&str; 5] =
    ["/data/result", "/data", "/data/seriesCountByMetricName", "/cardinality", "/labels"];

/// Asks once; answers the milliseconds and how many items came.
///
/// # Errors
/// When there is no answer, or one with nothing in it.
pub(crate) async fn ask(client: &Client, kind: Kind, query: &Query) -> Result<(f64, usize)> {
    let mut parameters: Vec<(&str, &str)> =
        query.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    parameters.extend(kind.uncached());
    let started = Instant::now();
    let answer = client.get(query.path, &parameters).await?.success()?;
    let taken = started.elapsed().as_secs_f64() * 1e3;
    let data = answer.json()?;
    let list = LISTS.iter().find_map(|path| data.pointer(path)?.as_array());
    let items = list.with_context(|| format!("an answer without a list: {}", answer.text()))?.len();
    if items == 0 {
        bail!("{} answers nothing to {}", kind.name(), query.name);
    }
    Ok((taken, items))
}

/// Asks the servers by turns.
///
/// # Errors
/// When one does not answer, or they answer different numbers of items.
pub(crate) async fn warm(servers: &[Server], query: &Query, asks: usize) -> Result<Vec<Timing>> {
    let clients: Vec<Client> = servers.iter().map(Server::client).collect();
    let mut timings = Vec::new();
    for (server, client) in servers.iter().zip(&clients) {
        let mut items = 0;
        for _ in 0..UNCOUNTED {
            items = ask(client, server.kind, query).await?.1;
        }
        let (query, server) = (query.name, server.kind.name());
        timings.push(Timing { query, server, kind: "warm", wall_ms: vec![], cpu_ms: None, items });
    }
    for _ in 0..asks {
        for ((server, client), timing) in servers.iter().zip(&clients).zip(&mut timings) {
            timing.wall_ms.push(ask(client, server.kind, query).await?.0);
        }
    }
    for ((server, client), timing) in servers.iter().zip(&clients).zip(&mut timings) {
        let before = proc::cpu_s(server.pid())?;
        for _ in 0..IN_A_ROW {
            ask(client, server.kind, query).await?;
        }
        timing.cpu_ms = Some((proc::cpu_s(server.pid())? - before) * 1e3 / IN_A_ROW as f64);
    }
    Ok(timings)
}

/// Asks servers by turns, each just started with nothing of its files in memory.
///
/// # Errors
/// When one does not start or answer.
pub(crate) async fn cold(
    servers: &[(Kind, PathBuf)],
    tricord: &Path,
    query: &Query,
    asks: usize,
) -> Result<Vec<Timing>> {
    let of = |(kind, _): &(Kind, PathBuf)| Timing {
        query: query.name,
        server: kind.name(),
        kind: "cold",
        wall_ms: vec![],
        cpu_ms: None,
        items: 0,
    };
    let mut timings: Vec<Timing> = servers.iter().map(of).collect();
    for _ in 0..asks {
        for ((kind, data), timing) in servers.iter().zip(&mut timings) {
            proc::forget_files(data);
            let server = Server::start(*kind, tricord, data).await?;
            let (taken, items) = ask(&server.client(), *kind, query).await?;
            timing.wall_ms.push(taken);
            timing.items = items;
            server.stop().await?;
        }
    }
    Ok(timings)
}
