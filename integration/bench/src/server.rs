//! The servers that are measured: how each is started, told to put its data in order, and asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tricord_testkit::{Client, Process, START_LIMIT, eventually, free_base_port};

use crate::load::Wire;
use crate::proc;

/// How long a server may have no room for what is written.
const NO_ROOM_LIMIT: Duration = Duration::from_secs(300);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long putting data in order may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(600);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tricord,
    Victoria,
    Prometheus,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Tricord, Self::Victoria, Self::Prometheus];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tricord => "tricord",
            Self::Victoria => "victoria-metrics",
            Self::Prometheus => "prometheus",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.with_context(|| format!("no server named {name}: tricord, victoria-metrics or prometheus"))
    }

    /// Whether the packaged version takes a wire.
    pub(crate) fn takes(self, wire: Wire) -> bool {
        self == Self::Tricord || wire == Wire::V1
    }

    /// Parameters that keep a query's answer from coming out of a cache of answers.
    pub(crate) fn uncached(self) -> &'static [(&'static str, &'static str)] {
        if self == Self::Victoria { &[("nocache", "1")] } else { &[] }
    }
}

/// A server that runs.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    pub(crate) data: PathBuf,
    http: String,
    otlp: String,
}

impl Server {
    /// Starts a server on a folder, and waits until it is ready. `tricord` is the path of that binary.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(kind: Kind, tricord: &Path, data: &Path) -> Result<Self> {
        std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        let port = free_base_port(10)?;
        let (http, otlp) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 3));
        let folder = data.display();
        let args: Vec<String> = match kind {
            Kind::Tricord => vec![
                format!("--data-dir={folder}"),
                format!("--http-listen={http}"),
                format!("--rpc-listen=127.0.0.1:{}", port + 1),
                format!("--otlp-grpc-listen=127.0.0.1:{}", port + 2),
                format!("--otlp-http-listen={otlp}"),
                "--own-telemetry=false".to_owned(),
                "--retention=0".to_owned(),
            ],
            Kind::Victoria => vec![
                format!("-storageDataPath={folder}"),
                format!("-httpListenAddr={http}"),
                "-retentionPeriod=12".to_owned(),
                "-search.latencyOffset=0s".to_owned(),
                "-search.maxSeries=2000000".to_owned(),
                "-search.maxUniqueTimeseries=2000000".to_owned(),
            ],
            Kind::Prometheus => {
                let config = data.with_extension("yml");
                std::fs::write(&config, "global: {scrape_interval: 15s}\n")?;
                vec![
                    format!("--config.file={}", config.display()),
                    format!("--storage.tsdb.path={folder}"),
                    "--storage.tsdb.retention.time=1y".to_owned(),
                    format!("--web.listen-address={http}"),
                    "--web.enable-remote-write-receiver".to_owned(),
                    "--web.enable-admin-api".to_owned(),
                ]
            }
        };
        let binary = if kind == Kind::Tricord { tricord.to_owned() } else { PathBuf::from(kind.name()) };
        let process = Process::start_as_given(kind.name(), &binary, &args, &data.with_extension("log"))?;
        let server = Self { kind, process, data: data.to_owned(), http, otlp };
        let ready = match kind {
            Kind::Tricord => "/health/ready",
            Kind::Victoria => "/health",
            Kind::Prometheus => "/-/ready",
        };
        let client = server.client();
        eventually(START_LIMIT, || async { client.get(ready, &[]).await?.success() })
            .await
            .with_context(|| format!("{} is not ready:\n{}", kind.name(), server.process.log()))?;
        Ok(server)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.http)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends one request, and waits for the acknowledgement. A server that has no room is asked again, as senders do: the
    /// time that takes counts.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub(crate) async fn write(client: &Client, wire: Wire, body: Vec<u8>) -> Result<()> {
        let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        let remote_write = |version, content| {
            let headers = [("X-Prometheus-Remote-Write-Version", version), ("Content-Encoding", "snappy")];
            ("/api/v1/write", headers.into_iter().chain([("Content-Type", content)]).collect::<Vec<_>>())
        };
        let (path, headers) = match wire {
            Wire::V1 => remote_write("0.1.0", "application/x-protobuf"),
            Wire::V2 => remote_write("2.0.0", v2),
            Wire::Otlp => ("/v1/metrics", vec![("Content-Type", "application/x-protobuf")]),
        };
        let deadline = Instant::now() + NO_ROOM_LIMIT;
        loop {
            let answer = client.post(path, &headers, body.clone()).await?;
            if answer.status != 503 || Instant::now() > deadline {
                return answer.success().map(drop);
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// A client for what is sent on a wire.
    pub(crate) fn writer(&self, wire: Wire) -> Client {
        Client::new(if wire == Wire::Otlp { &self.otlp } else { &self.http })
    }

    /// Has it write out what it holds in memory; Prometheus does that by itself alone.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) async fn write_out(&self) -> Result<()> {
        let client = self.client().within(SETTLE_LIMIT);
        match self.kind {
            Kind::Tricord => drop(client.post("/api/v1/admin/flush", &[], vec![]).await?.success()?),
            Kind::Victoria => drop(client.get("/internal/force_flush", &[]).await?.success()?),
            Kind::Prometheus => {}
        }
        Ok(())
    }

    /// Puts everything into the form in which it stays on disk, and answers how many bytes that is.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) async fn settle(&self) -> Result<u64> {
        let client = self.client().within(SETTLE_LIMIT);
        match self.kind {
            Kind::Tricord => {
                client.post("/api/v1/admin/flush", &[], vec![]).await?.success()?;
                client.post("/api/v1/admin/merge", &[], vec![]).await?.success()?;
                Ok(proc::bytes_below(&self.data))
            }
            Kind::Victoria => {
                client.get("/internal/force_flush", &[]).await?.success()?;
                client.get("/internal/force_merge", &[]).await?.success()?;
                eventually(SETTLE_LIMIT, || async {
                    let metrics = client.get("/metrics", &[]).await?.success()?.text();
                    let active = |line: &&str| line.starts_with("vm_active_") && !line.ends_with(" 0");
                    match metrics.lines().find(active) {
                        Some(line) => bail!("still merging: {line}"),
                        None => Ok(()),
                    }
                })
                .await?;
                // Beside them lie caches, which can be made again.
                let kept = ["data", "indexdb"].map(|folder| proc::bytes_below(&self.data.join(folder)));
                Ok(kept.iter().sum())
            }
            Kind::Prometheus => {
                // Its head cannot be flushed; a snapshot writes all of it as blocks.
                let answer =
                    client.post("/api/v1/admin/tsdb/snapshot", &[], vec![]).await?.success()?.json()?;
                let name =
                    answer.pointer("/data/name").and_then(Value::as_str).context("a snapshot's name")?;
                let folder = self.data.join("snapshots").join(name);
                let bytes = proc::bytes_below(&folder);
                std::fs::remove_dir_all(&folder)?;
                Ok(bytes)
            }
        }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(60)).await.map(drop)
    }
}
