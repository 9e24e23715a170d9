//! `tricord cluster …`: what people ask the metadata group for.

pub(crate) mod limits;
mod members;
mod status;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tricord_metadata_client::Cluster;
use tricord_metadata_client::view::ClusterView;
use tricord_wire::ErrorKind;
use tricord_wire::proto::metadata as pb;

use crate::settings::Settings;
use crate::{backup, table};

/// How long a member may take to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Runs one of the commands.
pub(crate) async fn run(matches: &ArgMatches, settings: &Settings) -> Result<()> {
    let Some((name, matches)) = matches.subcommand() else { bail!("which command? see --help") };
    let limit = Duration::from_secs(matches.get_one::<u64>("timeout-s").copied().unwrap_or(30));
    let addresses = match settings.metadata.as_slice() {
        [] => vec![settings.rpc_listen.clone()],
        given => given.to_vec(),
    };
    if name != "init" {
        anybody_there(&addresses).await?;
    }
    let cluster = Cluster::connect(&addresses)?;
    match name {
        "init" => init(&cluster, settings, addresses, limit, matches).await,
        "status" => status(&cluster, limit, matches.get_flag("json")).await,
        "limits" => limits::run(&cluster, limit, matches).await,
        "join" => members::join(&cluster, limit, matches).await,
        "remove" => members::remove(&cluster, limit, matches).await,
        "replace" => members::replace(&cluster, limit, matches).await,
        "backup" => backup::backup(&cluster, limit, matches).await,
        "restore" => backup::restore(&cluster, limit, matches).await,
        _ => drain(&cluster, limit, matches).await,
    }
}

/// Fails at once where no member listens. A birth waits instead: its members may be starting.
async fn anybody_there(addresses: &[String]) -> Result<()> {
    let mut reason = String::new();
    for address in addresses {
        match timeout(CONNECT_LIMIT, TcpStream::connect(address.as_str())).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => reason = error.to_string(),
            Err(_) => reason = format!("no answer within {} s", CONNECT_LIMIT.as_secs()),
        }
    }
    let asked = addresses.join(", ");
    bail!(
        "no metadata member listens at {asked} ({reason}): give their --rpc-listen with --metadata HOST:PORT,…"
    )
}

async fn init(
    cluster: &Cluster,
    settings: &Settings,
    members: Vec<String>,
    limit: Duration,
    matches: &ArgMatches,
) -> Result<()> {
    let replicas = settings.replicas.unwrap_or(3);
    let request = pb::InitRequest {
        members,
        shards: settings.shards,
        replicas,
        min_insync: settings.min_insync.unwrap_or(replicas.min(2)),
    };
    let (cluster_id, born) = match cluster.init(request, limit).await {
        Ok(answer) => (answer.cluster_id, true),
        Err(error) if error.kind == ErrorKind::Conflict && matches.get_flag("if-absent") => {
            let map = cluster.status(limit).await?.map.unwrap_or_default();
            (map.cluster_id, false)
        }
        Err(error) => return Err(error).context("the cluster was not born"),
    };
    if matches.get_flag("json") {
        return table::print(&format!("{}\n", json!({ "cluster_id": cluster_id, "born": born })));
    }
    table::print(&format!("cluster {cluster_id} {}\n", if born { "is born" } else { "exists already" }))
}

async fn drain(cluster: &Cluster, limit: Duration, matches: &ArgMatches) -> Result<()> {
    let node = matches.get_one::<u64>("node").copied().unwrap_or_default();
    let (undo, allow_fewer_copies) = (matches.get_flag("undo"), matches.get_flag("allow-fewer-copies"));
    let ask = || cluster.drain(pb::DrainRequest { node, undo, allow_fewer_copies }, limit);
    if undo {
        ask().await?;
        return table::print(&format!("node {node} takes copies again\n"));
    }
    let wait = matches.get_one::<u64>("wait-s").map(|seconds| Duration::from_secs(*seconds));
    let deadline = wait.map(|wait| Instant::now() + wait);
    let mut said = String::new();
    loop {
        let now = ask().await?;
        let line = match now.remaining {
            0 => format!("node {node} holds no shard and can be switched off\n"),
            left => format!("node {node} still holds {left} shards; {}\n", now.waits_for),
        };
        if said != line {
            table::print(&line)?;
            said = line;
        }
        if now.remaining == 0 || matches.get_flag("no-wait") {
            return Ok(());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            bail!("the drain goes on, but did not end in time; --undo takes it back");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn status(cluster: &Cluster, limit: Duration, as_json: bool) -> Result<()> {
    let unanswered = "no metadata leader answered: does --metadata name the --rpc-listen of its members?";
    let status = cluster.status(limit).await.context(unanswered)?;
    let view = ClusterView::new(&status);
    let text =
        if as_json { format!("{}\n", serde_json::to_string_pretty(&view)?) } else { status::text(&view) };
    table::print(&text)
}
