//! `tricord local-cluster`: real processes of this binary on loopback ports, born, watched and stopped together.

mod add;
mod children;
mod plan;
mod restart;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use tokio::time::Instant;
use tricord_metadata_client::Cluster;
use tricord_runtime::Shutdown;
use tricord_wire::ErrorKind;
use tricord_wire::proto::metadata::InitRequest;

use self::children::Children;
use self::plan::{Process, Shape};
use crate::{data_dir, table};

/// How often ended processes are looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the cluster until shutdown.
pub(crate) async fn run(matches: &ArgMatches, shutdown: Shutdown) -> Result<()> {
    let shape = Shape::from_args(matches)?;
    if matches.get_flag("add-node") {
        return add::ask(&shape.dir).await;
    }
    let limit = Duration::from_secs(matches.get_one::<u64>("ready-timeout-s").copied().unwrap_or(120));
    let _lock = data_dir::lock(&shape.dir)?;
    let list = shape.dir.join("cluster.json");
    remove_stale(&list)?;
    let processes = plan::processes(&shape);
    refuse_taken_ports(&processes)?;
    let mut children = Children::start(processes, &shape.dir)?;
    let ready = tokio::select! {
        ready = bring_up(&mut children, &shape, Instant::now() + limit) => ready,
        () = shutdown.cancelled() => Err(anyhow::anyhow!("stopped before the cluster was ready")),
    };
    if let Err(error) = ready {
        children.stop().await;
        return Err(error);
    }
    write_list(&list, children.processes())?;
    table::print(&describe(children.processes(), &shape))?;
    let restart = !matches.get_flag("no-restart");
    look_after(&mut children, shape, &list, restart, &shutdown).await?;
    tracing::info!("stopping the cluster's processes");
    children.stop().await;
    remove_stale(&list)
}

/// Keeps the processes running, and adds nodes when asked, until shutdown.
async fn look_after(
    children: &mut Children,
    mut shape: Shape,
    list: &Path,
    restart: bool,
    shutdown: &Shutdown,
) -> Result<()> {
    let mut asked = add::requests()?;
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = ticks.tick() => if children.look(restart) { write_list(list, children.processes())? },
            _ = asked.recv() => tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                added = add::one_node(children, &mut shape) => match added {
                    Ok(()) => write_list(list, children.processes())?,
                    Err(error) => tracing::error!(error = format!("{error:#}"), "cannot add a data node"),
                },
            },
        }
    }
}

/// Fails where another process has a port: its health page would be taken for that of the new process.
fn refuse_taken_ports(processes: &[Process]) -> Result<()> {
    for process in processes {
        let others = [&process.rpc, &process.otlp_grpc, &process.otlp_http];
        for address in std::iter::once(&process.http).chain(others.into_iter().flatten()) {
            TcpListener::bind(address).with_context(|| {
                format!(
                    "{} cannot have {address}: stop what runs there, or choose another --base-port",
                    process.name
                )
            })?;
        }
    }
    Ok(())
}

fn remove_stale(list: &Path) -> Result<()> {
    match std::fs::remove_file(list) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", list.display()))
        }
        _ => Ok(()),
    }
}

/// Births the cluster if it is new, and waits until every process says that it is ready.
async fn bring_up(children: &mut Children, shape: &Shape, deadline: Instant) -> Result<()> {
    let members = children.addresses("metadata");
    let cluster = Cluster::connect(&members)?;
    let request =
        InitRequest { members, shards: shape.shards, replicas: shape.replicas, min_insync: shape.min_insync };
    loop {
        children.fail_if_ended()?;
        let limit = Duration::from_secs(2).min(deadline.saturating_duration_since(Instant::now()));
        match cluster.init(request.clone(), limit).await {
            Ok(born) => {
                tracing::info!(cluster = born.cluster_id, "cluster born");
                break;
            }
            Err(error) if error.kind == ErrorKind::Conflict => break,
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("the metadata members did not come up in time; see their logs");
            }
            Err(error) => {
                tracing::debug!(%error, "the metadata members are not there yet");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let all = children.processes().iter().map(|p| (p.name.clone(), p.http.clone())).collect();
    wait_ready(all, deadline, || children.fail_if_ended()).await?;
    take_ids(children, &cluster).await
}

/// Waits until these processes, each with its name and HTTP listener, say that they are ready. Ends when `look` fails.
async fn wait_ready(
    mut waiting: Vec<(String, String)>,
    deadline: Instant,
    mut look: impl FnMut() -> Result<()>,
) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
    loop {
        look()?;
        let mut still = Vec::new();
        let mut reason = String::new();
        for (name, http) in waiting {
            match client.get(format!("http://{http}/health/ready")).send().await {
                Ok(response) if response.status().is_success() => continue,
                Ok(response) => reason = format!("{name}: {}", response.text().await.unwrap_or_default()),
                Err(error) => reason = format!("{name}: {error}"),
            }
            still.push((name, http));
        }
        if still.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} processes are not ready in time; {reason}", still.len());
        }
        waiting = still;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Replaces the numbers of processes by the ids that metadata gave them.
async fn take_ids(children: &mut Children, cluster: &Cluster) -> Result<()> {
    let status = cluster.status(Duration::from_secs(10)).await?;
    let nodes = status.map.unwrap_or_default().nodes;
    for process in children.processes_mut() {
        let rpc = process.rpc.as_deref().unwrap_or_default();
        let id = match process.role {
            "metadata" => status.members.iter().find(|member| member.rpc == rpc).map(|member| member.member),
            _ => nodes
                .iter()
                .find(|node| {
                    node.address.as_ref().is_some_and(|a| a.role == process.role && a.http == process.http)
                })
                .map(|node| node.node),
        };
        process.id = id.unwrap_or(process.id);
    }
    Ok(())
}

/// Written under another name first: whoever waits for the file never reads half of it.
fn write_list(list: &Path, processes: &[Process]) -> Result<()> {
    let fresh = list.with_extension("json.new");
    let write = || {
        std::fs::write(&fresh, serde_json::to_vec_pretty(processes)?)?;
        std::fs::rename(&fresh, list)
    };
    write().with_context(|| format!("cannot write {}", list.display()))
}

fn describe(processes: &[Process], shape: &Shape) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = processes.iter().map(|process| {
        vec![
            process.name.clone(),
            process.role.to_owned(),
            process.id.to_string(),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.http.clone(),
            or_dash(&process.rpc),
            or_dash(&process.otlp_grpc),
            or_dash(&process.otlp_http),
        ]
    });
    let heads = ["name", "role", "id", "pid", "http", "rpc", "otlp grpc", "otlp http"];
    let mut text = table::render(&heads, &rows.collect::<Vec<_>>());
    let http_of =
        |role: &str| processes.iter().find(|process| process.role == role).map(|process| &process.http);
    text.push_str(&format!("\nlogs and data in {}; Ctrl-C stops everything\n", shape.dir.display()));
    if let Some(http) = http_of("ingester") {
        text.push_str(&format!(
            "send:  echo 'hello 1' | curl --data-binary @- http://{http}/api/v1/import/prometheus\n"
        ));
    }
    if let Some(http) = http_of("proxy") {
        text.push_str(&format!("ask:   tricord query --url http://{http} hello\n"));
        text.push_str(&format!("look:  http://{http}/ui/cluster\n"));
    }
    let metadata =
        processes.iter().filter(|process| process.role == "metadata").filter_map(|p| p.rpc.as_deref());
    text.push_str(&format!(
        "state: tricord cluster status --metadata {}\n",
        metadata.collect::<Vec<_>>().join(",")
    ));
    text
}
