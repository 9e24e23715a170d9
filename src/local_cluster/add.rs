//! `tricord local-cluster --add-node`: asks the running local cluster of a directory for one more data node. The request
//! is a signal, since both run on one machine; the answer is a new row in `cluster.json`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tricord_metadata_client::Cluster;

use super::children::Children;
use super::plan::{self, Shape};
use super::{refuse_taken_ports, take_ids, wait_ready};
use crate::{data_dir, table};

/// How long a new node may take to become ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long the running cluster may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);

/// What the running cluster listens to.
pub(super) fn requests() -> Result<tokio::signal::unix::Signal> {
    signal(SignalKind::user_defined1()).context("cannot take signals")
}

/// Starts one more data node and waits until it is ready.
pub(super) async fn one_node(children: &mut Children, shape: &mut Shape) -> Result<()> {
    let process = plan::added(shape, shape.added + 1);
    refuse_taken_ports(std::slice::from_ref(&process))?;
    // Before it starts: a node that has once registered must be there again after a restart of the whole.
    plan::write_added(&shape.dir, shape.added + 1)?;
    shape.added += 1;
    tracing::info!(process = process.name, "a data node is added");
    let http = process.http.clone();
    children.add(process)?;
    wait_ready(vec![(http.clone(), http)], Instant::now() + READY_LIMIT, || Ok(())).await?;
    take_ids(children, &Cluster::connect(&children.addresses("metadata"))?).await
}

/// Asks the cluster that runs in a directory.
pub(super) async fn ask(dir: &Path) -> Result<()> {
    let list = dir.join("cluster.json");
    let before = rows(&list).with_context(|| {
        format!("no local cluster is ready in {}: start one, or name its --data-dir", dir.display())
    })?;
    let holder = data_dir::holder(dir).with_context(|| {
        format!("no local cluster runs in {}: start it without --add-node", dir.display())
    })?;
    let pid = Pid::from_raw(holder).with_context(|| format!("{holder} is not a process id"))?;
    kill_process(pid, Signal::USR1).with_context(|| format!("cannot reach process {holder}"))?;
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let now = rows(&list).unwrap_or_default();
        if now.len() > before.len()
            && let Some(added) = now.last()
        {
            let text = |name: &str| added[name].as_str().unwrap_or_default().to_owned();
            let said = format!("{} runs, with its HTTP listener at {}\n", text("name"), text("http"));
            return table::print(&said);
        }
        if Instant::now() > deadline {
            bail!("the cluster did not add a node in time; its log says why");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn rows(list: &Path) -> Result<Vec<Value>> {
    Ok(serde_json::from_slice(&std::fs::read(list)?)?)
}
