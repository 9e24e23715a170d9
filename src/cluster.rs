//! `tricord cluster …`: what people ask the metadata group for.

pub(crate) mod limits;
mod members;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tricord_metadata_client::Cluster;
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
    let view = View::new(&status);
    let text = if as_json { format!("{:#}\n", view.json()) } else { view.text() };
    table::print(&text)
}

/// A status with what people ask of it worked out.
struct View<'a> {
    status: &'a pb::MetadataStatusResponse,
    map: pb::ShardMap,
    replicas: HashMap<(u64, u32), &'a pb::ReplicaReport>,
}

impl<'a> View<'a> {
    fn new(status: &'a pb::MetadataStatusResponse) -> Self {
        let reports = status.reports.iter();
        let replicas = reports
            .flat_map(|node| node.replicas.iter().map(|replica| ((node.node, replica.shard), replica)));
        Self { status, map: status.map.clone().unwrap_or_default(), replicas: replicas.collect() }
    }

    /// How many entries a copy is behind its primary, as far as both have reported.
    fn lag(&self, shard: &pb::ShardConfig, node: u64) -> Option<u64> {
        let durable = |node: u64| self.replicas.get(&(node, shard.shard)).map(|replica| replica.durable_seq);
        Some(durable(shard.primary)?.saturating_sub(durable(node)?))
    }

    fn worst_lag(&self, shard: &pb::ShardConfig) -> Option<u64> {
        let copies = shard.in_sync.iter().chain(&shard.joining).filter(|node| **node != shard.primary);
        copies.filter_map(|node| self.lag(shard, *node)).max()
    }

    fn state(&self, shard: &pb::ShardConfig) -> &'static str {
        let alive = |node: &u64| self.map.nodes.iter().any(|info| info.node == *node && info.alive);
        let live = shard.in_sync.iter().filter(|node| alive(node)).count();
        match live {
            0 => "down",
            _ if shard.primary == 0 || !alive(&shard.primary) => "no primary",
            _ if live < self.map.min_insync as usize => "read-only",
            _ if live < self.map.replicas as usize => "degraded",
            _ => "ok",
        }
    }

    fn json(&self) -> Value {
        let nodes = self.map.nodes.iter().map(|node| {
            let address = node.address.clone().unwrap_or_default();
            let report = self.status.reports.iter().find(|report| report.node == node.node);
            json!({
                "id": node.node, "role": address.role, "rpc": address.rpc, "http": address.http, "zone": address.zone,
                "version": address.version, "alive": node.alive, "draining": node.draining,
                "heartbeat_age_ms": report.map(|report| report.heartbeat_age_ms),
                "disk_used_bytes": report.map(|report| report.disk_used_bytes),
                "disk_free_bytes": report.map(|report| report.disk_free_bytes),
            })
        });
        let shards = self.map.shards.iter().map(|shard| {
            let lags = shard.in_sync.iter().chain(&shard.joining).map(|node| (node.to_string(), json!(self.lag(shard, *node))));
            json!({
                "shard": shard.shard, "epoch": shard.epoch, "primary": shard.primary, "in_sync": shard.in_sync,
                "joining": shard.joining, "state": self.state(shard), "lag": lags.collect::<serde_json::Map<_, _>>(),
            })
        });
        let members = self.status.members.iter().map(|member| {
            json!({ "id": member.member, "rpc": member.rpc, "voter": member.voter, "leader": member.member == self.status.leader })
        });
        json!({
            "cluster_id": self.map.cluster_id, "version": self.map.version, "replicas": self.map.replicas,
            "min_insync": self.map.min_insync, "leader": self.status.leader, "term": self.status.raft_term,
            "members": members.collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>(), "shards": shards.collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let map = &self.map;
        let count = |state: &str| map.shards.iter().filter(|shard| self.state(shard) == state).count();
        let states = ["ok", "degraded", "read-only", "no primary", "down"].iter();
        let states = states.map(|state| (state, count(state))).filter(|(_, count)| *count > 0);
        let states = states.map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
        let head = format!(
            "cluster {}  map version {}  copies {}  min in sync {}  shards {}: {states}\n",
            map.cluster_id,
            map.version,
            map.replicas,
            map.min_insync,
            map.shards.len(),
        );
        [head, self.members_table(), self.nodes_table(), self.shards_table()].join("\n")
    }

    fn members_table(&self) -> String {
        let rows = self.status.members.iter().map(|member| {
            let leads = if member.member == self.status.leader { "leader" } else { "" };
            let votes = if member.voter { "voter" } else { "learner" };
            vec![member.member.to_string(), member.rpc.clone(), votes.to_owned(), leads.to_owned()]
        });
        table::render(&["metadata", "rpc", "kind", ""], &rows.collect::<Vec<_>>())
    }

    fn nodes_table(&self) -> String {
        let rows = self.map.nodes.iter().map(|node| {
            let address = node.address.clone().unwrap_or_default();
            let report = self.status.reports.iter().find(|report| report.node == node.node);
            let state = match (node.alive, node.draining) {
                (true, false) => "alive",
                (true, true) => "draining",
                (false, _) => "dead",
            };
            let primaries = self.map.shards.iter().filter(|shard| shard.primary == node.node).count();
            let copies = self.map.shards.iter().filter(|shard| shard.in_sync.contains(&node.node)).count();
            vec![
                node.node.to_string(),
                address.role,
                state.to_owned(),
                report
                    .map_or("-".to_owned(), |report| format!("{:.1}s", report.heartbeat_age_ms as f64 / 1e3)),
                primaries.to_string(),
                copies.to_string(),
                report.map_or("-".to_owned(), |report| table::bytes(report.disk_used_bytes)),
                address.zone,
                address.rpc,
                address.http,
            ]
        });
        let heads = ["node", "role", "state", "heard", "primaries", "in sync", "disk", "zone", "rpc", "http"];
        table::render(&heads, &rows.collect::<Vec<_>>())
    }

    fn shards_table(&self) -> String {
        let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let rows = self.map.shards.iter().map(|shard| {
            vec![
                shard.shard.to_string(),
                self.state(shard).to_owned(),
                shard.epoch.to_string(),
                if shard.primary == 0 { "-".to_owned() } else { shard.primary.to_string() },
                list(&shard.in_sync),
                list(&shard.joining),
                self.worst_lag(shard).map_or("-".to_owned(), |lag| lag.to_string()),
            ]
        });
        table::render(
            &["shard", "state", "epoch", "primary", "in sync", "joining", "lag"],
            &rows.collect::<Vec<_>>(),
        )
    }
}
