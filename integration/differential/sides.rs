//! The two that are asked: Tricord, where each data set is a tenant, and a Prometheus of its own for each data set.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use tricord_testkit::{Client, Process, free_ports};

use super::compare::Answer;
use super::data::DataSet;
use super::wire::write_request;

/// When a query is evaluated, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    At(i64),
    Over { start_s: i64, end_s: i64, step_s: i64 },
}

/// Both with the same data.
pub(super) struct Sides {
    tricord: Client,
    prometheus: Client,
    _process: Process,
    _dir: TempDir,
}

impl Sides {
    /// Starts a Prometheus and writes the data to both.
    pub(super) async fn start(tricord: &Client, tenant: &str, data: &DataSet) -> Result<Self> {
        let dir = TempDir::new()?;
        let [port] = free_ports::<1>()?;
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, "global: {}\n")?;
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".to_owned(),
            "--enable-feature=native-histograms".to_owned(),
            "--storage.tsdb.retention.time=100y".to_owned(),
            "--log.level=warn".to_owned(),
        ];
        let log = dir.path().join("prometheus.log");
        let process = Process::start_as_given("prometheus", Path::new("prometheus"), &args, &log)
            .context("prometheus is not installed; `make test` installs it")?;
        let prometheus = Client::new(&format!("127.0.0.1:{port}"));
        let ready = || async { prometheus.get("/-/ready", &[]).await?.success().map(|_| ()) };
        tricord_testkit::eventually(Duration::from_secs(60), ready).await.context("prometheus")?;
        let tricord = tricord.clone().tenant(tenant);
        for side in [&tricord, &prometheus] {
            let headers = [
                ("Content-Type", "application/x-protobuf"),
                ("Content-Encoding", "snappy"),
                ("X-Prometheus-Remote-Write-Version", "0.1.0"),
            ];
            side.post("/api/v1/write", &headers, write_request(data)?).await?.success()?;
        }
        Ok(Self { tricord, prometheus, _process: process, _dir: dir })
    }

    /// Asks both: what Tricord says, then what Prometheus says.
    pub(super) async fn ask(&self, query: &str, when: When) -> Result<(Answer, Answer)> {
        let ours = ask(&self.tricord, query, when);
        let theirs = ask(&self.prometheus, query, when);
        let (ours, theirs) = tokio::join!(ours, theirs);
        Ok((ours.context("tricord")?, theirs.context("prometheus")?))
    }
}

async fn ask(client: &Client, query: &str, when: When) -> Result<Answer> {
    let (path, times) = match when {
        When::At(time_s) => ("/api/v1/query", vec![("time", time_s)]),
        When::Over { start_s, end_s, step_s } => {
            ("/api/v1/query_range", vec![("start", start_s), ("end", end_s), ("step", step_s)])
        }
    };
    let times: Vec<_> = times.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    let mut parameters = vec![("query", query)];
    parameters.extend(times.iter().map(|(name, value)| (*name, value.as_str())));
    let answer: Value = client.post_form(path, &parameters).await?.json()?;
    Answer::read(&answer)
}
