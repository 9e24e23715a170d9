//! What a start after `kill -9` takes, with everything in memory and in the log.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::ingest::{self, Acked, Load};
use crate::load::{Scenario, Wire};
use crate::proc;
use crate::server::{Kind, Server};

/// What a restart has shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Restart {
    pub(crate) server: &'static str,
    pub(crate) scenario: &'static str,
    pub(crate) series: usize,
    pub(crate) samples: u64,
    /// Memory before it was killed.
    pub(crate) anonymous_bytes: u64,
    /// The most that was resident before it was killed.
    pub(crate) highest_before_bytes: u64,
    /// Until it says that it is ready.
    pub(crate) ready_s: f64,
    /// The most that was resident from the start until it was ready.
    pub(crate) highest_memory_bytes: u64,
}

/// Writes a scenario to a fresh server as fast as it takes it, each scrape being made while the one before is sent: it may
/// be more than fits into memory beside the server.
///
/// # Errors
/// When the server does not start, or does not take a request.
pub(crate) async fn fill(
    kind: Kind,
    tricord: &Path,
    data: &Path,
    scenario: Scenario,
    start_ms: i64,
) -> Result<Server> {
    if data.exists() {
        std::fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let server = Server::start(kind, tricord, data).await?;
    let make = |mut load: Load| {
        tokio::task::spawn_blocking(move || {
            load.next(1).map(|stretch| stretch.map(|stretch| (load, stretch)))
        })
    };
    let (mut acked, mut making) = (Acked::default(), make(Load::new(scenario, Wire::V1, start_ms)));
    while let Some((load, stretch)) = making.await?? {
        making = make(load);
        let sent = ingest::send(&server, Wire::V1, stretch, &mut acked).await;
        sent.with_context(|| server.process.log())?;
    }
    anyhow::ensure!(acked.samples == scenario.samples(), "{} samples were acknowledged", acked.samples);
    Ok(server)
}

/// Kills a server without warning, and starts it again on the same data; with `again` it is killed once more, so that its
/// folder stays as it was found.
///
/// # Errors
/// When it does not come back.
pub(crate) async fn measure(
    mut server: Server,
    tricord: &Path,
    scenario: Scenario,
    again: bool,
) -> Result<Restart> {
    let (kind, data) = (server.kind, server.data.clone());
    let before = proc::memory(server.pid())?;
    server.process.kill().await?;
    let started = Instant::now();
    let mut server = Server::start(kind, tricord, &data).await?;
    let ready_s = started.elapsed().as_secs_f64();
    let highest_memory_bytes = proc::memory(server.pid())?.highest;
    if again {
        server.process.kill().await?;
    } else {
        server.stop().await?;
    }
    Ok(Restart {
        server: kind.name(),
        scenario: scenario.name,
        series: scenario.series,
        samples: scenario.samples(),
        anonymous_bytes: before.anonymous,
        highest_before_bytes: before.highest,
        ready_s,
        highest_memory_bytes,
    })
}
