//! `tricord` with all roles in one process.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::Client;
use crate::ports::free_ports;
use crate::process::Process;
use crate::wait::{START_LIMIT, eventually};

/// How a single process is started.
#[derive(Debug)]
pub struct SingleBuilder {
    binary: PathBuf,
    flags: Vec<String>,
}

impl SingleBuilder {
    /// Adds flags, as `["--retention=1h"]`.
    #[must_use]
    pub fn flags<T: Into<String>>(mut self, flags: impl IntoIterator<Item = T>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the error holds the end of its log.
    pub async fn start(self) -> Result<Single> {
        let dir = TempDir::new().context("a folder for the test")?;
        let ports = free_ports::<4>()?.map(|port| format!("127.0.0.1:{port}"));
        let names = ["--http-listen", "--otlp-grpc-listen", "--otlp-http-listen", "--rpc-listen"];
        let mut args = vec!["all".to_owned(), format!("--data-dir={}", dir.path().join("data").display())];
        args.extend(names.iter().zip(&ports).map(|(name, address)| format!("{name}={address}")));
        args.extend(self.flags);
        let log = dir.path().join("tricord.log");
        let process = Process::start("tricord", &self.binary, &args, &log)?;
        let mut single = Single { dir, binary: self.binary, args, ports, process };
        single.wait_ready().await?;
        Ok(single)
    }
}

/// A running `tricord`, in a temporary folder that goes away with it.
#[derive(Debug)]
pub struct Single {
    // Dropped after the process, whose files lie in it.
    process: Process,
    binary: PathBuf,
    args: Vec<String>,
    /// http, otlp grpc, otlp http, rpc.
    ports: [String; 4],
    dir: TempDir,
}

impl Single {
    /// One to be started with further flags. Own telemetry is off unless a flag turns it on.
    #[must_use]
    pub fn builder(binary: impl Into<PathBuf>) -> SingleBuilder {
        SingleBuilder { binary: binary.into(), flags: vec!["--own-telemetry=false".to_owned()] }
    }

    /// Starts one with default settings and waits until it is ready.
    ///
    /// # Errors
    /// As [`SingleBuilder::start`].
    pub async fn start(binary: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(binary).start().await
    }

    /// `host:port` of the HTTP listener.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.ports[0]
    }

    /// `host:port` of OTLP over gRPC.
    #[must_use]
    pub fn otlp_grpc(&self) -> &str {
        &self.ports[1]
    }

    /// `host:port` of OTLP over HTTP.
    #[must_use]
    pub fn otlp_http(&self) -> &str {
        &self.ports[2]
    }

    /// `host:port` for other roles and for `tricord cluster`.
    #[must_use]
    pub fn rpc(&self) -> &str {
        &self.ports[3]
    }

    /// A client for its HTTP listener.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.http())
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The folder that holds the data directory and the log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Everything logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// `SIGTERM`, and waits until everything is drained and flushed.
    ///
    /// # Errors
    /// When it is gone already, or takes longer than a minute.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(Duration::from_secs(60)).await?.context("an own child has an exit status")
    }

    /// Starts it again, with the same flags, ports and data, and waits until it is ready. It must have ended before.
    ///
    /// # Errors
    /// As [`SingleBuilder::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_with(&[]).await
    }

    /// As [`Single::restart`], with further flags for good.
    ///
    /// # Errors
    /// As [`SingleBuilder::start`].
    pub async fn restart_with(&mut self, flags: &[&str]) -> Result<()> {
        self.args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let log = self.dir.path().join("tricord.log");
        self.process = Process::start("tricord", &self.binary, &self.args, &log)?;
        self.wait_ready().await
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let client = self.client();
        let deadline = std::time::Instant::now() + START_LIMIT;
        loop {
            // Asked for at once again and again: an early end must not wait for the deadline.
            let ready = eventually(Duration::from_secs(1), || client.ready()).await;
            match ready {
                Ok(()) => return Ok(()),
                Err(_) if self.process.has_ended() => bail!("tricord ended at its start:\n{}", self.log()),
                Err(error) if std::time::Instant::now() > deadline => {
                    return Err(error.context(format!("tricord is not ready; its log:\n{}", self.log())));
                }
                Err(_) => {}
            }
        }
    }
}
