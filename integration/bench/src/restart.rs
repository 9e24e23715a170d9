//! What a start after `kill -9` takes, with everything in memory and in the log.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::proc;
use crate::server::Server;

/// What a restart has shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Restart {
    pub(crate) server: &'static str,
    pub(crate) series: usize,
    /// Until it says that it is ready.
    pub(crate) ready_s: f64,
    pub(crate) highest_memory_bytes: u64,
}

/// Kills a server without warning, and starts it again on the same data.
///
/// # Errors
/// When it does not come back.
pub(crate) async fn measure(mut server: Server, tricord: &Path, series: usize) -> Result<Restart> {
    let (kind, data) = (server.kind, server.data.clone());
    server.process.kill().await?;
    let started = Instant::now();
    let server = Server::start(kind, tricord, &data).await?;
    let ready_s = started.elapsed().as_secs_f64();
    let highest_memory_bytes = proc::memory(server.pid())?.highest;
    server.stop().await?;
    Ok(Restart { server: kind.name(), series, ready_s, highest_memory_bytes })
}
