//! Which processes a local cluster has, with their ports and flags: the same for the same arguments, so that a known
//! directory comes up again as it was.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use serde::Serialize;

/// Ports that each process has for itself.
const PORTS_EACH: u16 = 10;
/// Says how many data nodes were added since the birth.
const ADDED_FILE: &str = "added-nodes";

/// What the whole should look like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) metadata: u16,
    pub(crate) data_nodes: u16,
    pub(crate) ingesters: u16,
    pub(crate) proxies: u16,
    pub(crate) base_port: u16,
    pub(crate) dir: PathBuf,
    pub(crate) shards: u32,
    pub(crate) replicas: u32,
    pub(crate) min_insync: u32,
    pub(crate) flags: Vec<String>,
    /// Data nodes that were added while the cluster ran.
    pub(crate) added: u16,
}

impl Shape {
    pub(crate) fn from_args(matches: &ArgMatches) -> Result<Self> {
        let count = |name: &str| matches.get_one::<u16>(name).copied().unwrap_or(1);
        let number = |name: &str| matches.get_one::<u32>(name).copied();
        let data_nodes = count("data-nodes");
        let replicas = number("replicas").unwrap_or_else(|| u32::from(data_nodes).min(3));
        let shape = Self {
            metadata: count("metadata"),
            data_nodes,
            ingesters: count("ingesters"),
            proxies: count("proxies"),
            base_port: count("base-port"),
            // Absolute: whoever starts a process again by its arguments may be elsewhere.
            dir: std::path::absolute(matches.get_one::<PathBuf>("data-dir").cloned().unwrap_or_default())?,
            shards: number("shards").unwrap_or(64),
            replicas,
            min_insync: number("min-insync").unwrap_or_else(|| replicas.min(2)),
            flags: matches.get_many::<String>("flags").into_iter().flatten().cloned().collect(),
            added: 0,
        };
        let shape = Self { added: read_added(&shape.dir)?, ..shape };
        if shape.metadata == 0 || shape.data_nodes == 0 {
            bail!("a cluster needs at least one metadata member and one data node");
        }
        let possible = shape.replicas.min(u32::from(data_nodes));
        if shape.min_insync > possible {
            bail!(
                "{data_nodes} data nodes with {} copies of each shard can never have {} of them in sync: lower \
                 --min-insync, or raise --data-nodes or --replicas",
                shape.replicas,
                shape.min_insync
            );
        }
        let processes = [shape.metadata, shape.data_nodes, shape.ingesters, shape.proxies, shape.added];
        let ports = processes.iter().map(|count| u32::from(*count)).sum::<u32>() * u32::from(PORTS_EACH);
        if u32::from(shape.base_port) + ports > u32::from(u16::MAX) {
            bail!(
                "{ports} ports from {} do not fit below 65536; choose a lower --base-port",
                shape.base_port
            );
        }
        Ok(shape)
    }
}

/// One process: how it is started, and its row in the table and in `cluster.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Process {
    /// `metadata`, `querier`, `ingester` or `proxy`.
    pub(crate) role: &'static str,
    /// `querier-2`: the name of its folder and its log.
    pub(crate) name: String,
    /// The id that metadata gave it, or the number within its role where it has none.
    pub(crate) id: u64,
    pub(crate) pid: Option<u32>,
    pub(crate) http: String,
    /// Where other roles reach it; absent for those that nobody calls.
    pub(crate) rpc: Option<String>,
    pub(crate) otlp_grpc: Option<String>,
    pub(crate) otlp_http: Option<String>,
    /// How to start the same process again by hand.
    pub(crate) args: Vec<String>,
}

/// All processes, in the order in which they are started.
pub(crate) fn processes(shape: &Shape) -> Vec<Process> {
    let roles = [
        ("metadata", shape.metadata),
        ("querier", shape.data_nodes),
        ("ingester", shape.ingesters),
        ("proxy", shape.proxies),
    ];
    let members = members(shape);
    let mut processes = Vec::new();
    let mut port = shape.base_port;
    for (role, count) in roles {
        for number in 1..=count {
            processes.push(process(shape, role, number, port, &members));
            port += PORTS_EACH;
        }
    }
    processes.extend((1..=shape.added).map(|number| added(shape, number)));
    processes
}

/// A data node that was added, after all that were there at birth.
pub(crate) fn added(shape: &Shape, number: u16) -> Process {
    let at_birth = shape.metadata + shape.data_nodes + shape.ingesters + shape.proxies;
    let port = shape.base_port + (at_birth + number - 1) * PORTS_EACH;
    process(shape, "querier", shape.data_nodes + number, port, &members(shape))
}

fn members(shape: &Shape) -> String {
    let members = (0..shape.metadata).map(|i| address(shape.base_port + i * PORTS_EACH + 1));
    members.collect::<Vec<_>>().join(",")
}

/// How many nodes have been added to the cluster in a directory.
fn read_added(dir: &Path) -> Result<u16> {
    let path = dir.join(ADDED_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Remembers the added nodes, so that the next start has them too.
pub(crate) fn write_added(dir: &Path, added: u16) -> Result<()> {
    let path = dir.join(ADDED_FILE);
    std::fs::write(&path, added.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn process(shape: &Shape, role: &'static str, number: u16, port: u16, members: &str) -> Process {
    let name = format!("{role}-{number}");
    let serves_rpc = matches!(role, "metadata" | "querier");
    let rpc = serves_rpc.then(|| address(port + 1));
    let otlp = |offset: u16| (role == "ingester").then(|| address(port + offset));
    let (otlp_grpc, otlp_http) = (otlp(2), otlp(3));
    let mut args = vec![role.to_owned()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    flag("--data-dir", &folder(&shape.dir, &name).to_string_lossy());
    flag("--http-listen", &address(port));
    flag("--rpc-listen", &address(port + 1));
    flag("--metadata", members);
    if let (Some(grpc), Some(http)) = (&otlp_grpc, &otlp_http) {
        flag("--otlp-grpc-listen", grpc);
        flag("--otlp-http-listen", http);
    }
    args.extend(shape.flags.iter().cloned());
    Process {
        role,
        name,
        id: u64::from(number),
        pid: None,
        http: address(port),
        rpc,
        otlp_grpc,
        otlp_http,
        args,
    }
}

/// The folder of one process.
pub(crate) fn folder(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

/// The file that one process logs to.
pub(crate) fn log_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}
