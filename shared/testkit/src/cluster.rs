//! `tricord local-cluster`, and power over each of its processes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::client::Client;
use crate::ports::free_base_port;
use crate::process::Process;
use crate::wait::{START_LIMIT, eventually};

/// How large a cluster is.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Members of the metadata group.
    pub metadata: u16,
    /// Data nodes.
    pub data_nodes: u16,
    /// Ingesters.
    pub ingesters: u16,
    /// Query proxies.
    pub proxies: u16,
    /// Shards.
    pub shards: u32,
    /// Copies of each shard.
    pub replicas: u32,
    /// Copies that must be in sync for a write.
    pub min_insync: u32,
    /// Flags for every process.
    pub flags: Vec<String>,
}

impl Default for Shape {
    /// Three of each that stores, one of each that does not; three copies, two in sync; no own telemetry.
    fn default() -> Self {
        Self {
            metadata: 3,
            data_nodes: 3,
            ingesters: 1,
            proxies: 1,
            shards: 16,
            replicas: 3,
            min_insync: 2,
            flags: vec!["--own-telemetry=false".to_owned()],
        }
    }
}

/// One line of `cluster.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// `metadata`, `querier`, `ingester` or `proxy`.
    pub role: String,
    /// `querier-2`.
    pub name: String,
    /// The id that metadata gave it, or a number within its role.
    pub id: u64,
    /// The process id.
    pub pid: u32,
    /// `host:port` of its HTTP listener.
    pub http: String,
    /// `host:port` for other roles.
    pub rpc: Option<String>,
    /// `host:port` of OTLP over gRPC.
    pub otlp_grpc: Option<String>,
    /// `host:port` of OTLP over HTTP.
    pub otlp_http: Option<String>,
    /// How it was started.
    pub args: Vec<String>,
}

/// A running local cluster in a temporary folder.
#[derive(Debug)]
pub struct LocalCluster {
    members: Vec<(Member, Process)>,
    /// The process of `tricord local-cluster`; its children end with it.
    parent: Process,
    binary: PathBuf,
    args: Vec<String>,
    dir: TempDir,
}

impl LocalCluster {
    /// Starts one and waits until every process is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the error holds the end of its log.
    pub async fn start(binary: impl Into<PathBuf>, shape: &Shape) -> Result<Self> {
        let dir = TempDir::new().context("a folder for the test")?;
        let processes = shape.metadata + shape.data_nodes + shape.ingesters + shape.proxies;
        // Tests start what they killed themselves.
        let mut args = vec!["local-cluster".to_owned(), "--no-restart".to_owned()];
        let numbers = [
            ("metadata", u32::from(shape.metadata)),
            ("data-nodes", u32::from(shape.data_nodes)),
            ("ingesters", u32::from(shape.ingesters)),
            ("proxies", u32::from(shape.proxies)),
            ("shards", shape.shards),
            ("replicas", shape.replicas),
            ("min-insync", shape.min_insync),
            ("base-port", u32::from(free_base_port(processes * 10)?)),
        ];
        args.extend(numbers.iter().map(|(name, number)| format!("--{name}={number}")));
        args.push(format!("--data-dir={}", dir.path().join("cluster").display()));
        if !shape.flags.is_empty() {
            args.push("--".to_owned());
            args.extend(shape.flags.iter().cloned());
        }
        let binary = binary.into();
        let parent = start_parent(&binary, &args, dir.path())?;
        let mut cluster = Self { members: Vec::new(), parent, binary, args, dir };
        cluster.wait_listed().await?;
        Ok(cluster)
    }

    /// All members, in the order of the table.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|(member, _)| member)
    }

    /// A member by its name, as `querier-2`.
    ///
    /// # Errors
    /// When there is none.
    pub fn member(&self, name: &str) -> Result<&Member> {
        self.members().find(|member| member.name == name).with_context(|| format!("no member {name}"))
    }

    /// A client for the first proxy.
    ///
    /// # Errors
    /// When there is no proxy.
    pub fn proxy(&self) -> Result<Client> {
        Ok(Client::new(&self.member("proxy-1")?.http))
    }

    /// A client for the first ingester.
    ///
    /// # Errors
    /// When there is no ingester.
    pub fn ingester(&self) -> Result<Client> {
        Ok(Client::new(&self.member("ingester-1")?.http))
    }

    /// A member's process, for signals.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn process(&mut self, name: &str) -> Result<&mut Process> {
        let found = self.members.iter_mut().find(|(member, _)| member.name == name);
        found.map(|(_, process)| process).with_context(|| format!("no member {name}"))
    }

    /// `kill -9` of one member.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        self.process(name)?.kill().await
    }

    /// `kill -9` of all members at once, then of the parent.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn kill_all(&mut self) -> Result<()> {
        for (_, process) in &self.members {
            // One that a test killed before is gone.
            let _ = process.signal(rustix::process::Signal::KILL);
        }
        for (_, process) in &mut self.members {
            process.wait_ended(Duration::from_secs(20)).await?;
        }
        self.parent.kill().await
    }

    /// Starts an ended member again, as it was started before.
    ///
    /// # Errors
    /// When it cannot be started, or is not ready in time.
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.start_again(name, &[], &[])?;
        self.wait_ready(name).await
    }

    /// As [`LocalCluster::restart`], with further flags, and by another program, given with its arguments, to which the
    /// binary and its own arguments are handed.
    ///
    /// # Errors
    /// As [`LocalCluster::restart`].
    pub async fn restart_with(&mut self, name: &str, by: &[&str], flags: &[&str]) -> Result<()> {
        self.start_again(name, by, flags)?;
        self.wait_ready(name).await
    }

    /// Starts an ended member without waiting until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self, name: &str, by: &[&str], flags: &[&str]) -> Result<()> {
        let log = self.data_dir().join(format!("{name}.log"));
        let found = self.members.iter_mut().find(|(member, _)| member.name == name);
        let (member, process) = found.with_context(|| format!("no member {name}"))?;
        let binary = self.binary.display().to_string();
        let mut line: Vec<String> = by.iter().map(|part| (*part).to_owned()).collect();
        line.push(binary);
        line.extend(member.args.iter().cloned());
        line.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let (program, args) = line.split_first().context("nothing to start")?;
        *process = Process::start(name, Path::new(program), args, &log)?;
        member.pid = process.pid();
        Ok(())
    }

    /// Members that are started from now on are of another build.
    pub fn use_binary(&mut self, binary: impl Into<PathBuf>) {
        self.binary = binary.into();
    }

    async fn wait_ready(&self, name: &str) -> Result<()> {
        let client = Client::new(&self.member(name)?.http);
        eventually(START_LIMIT, || client.ready()).await.with_context(|| format!("{name} is not ready again"))
    }

    /// Has the running cluster add a data node; answers its name.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn add_node(&mut self) -> Result<String> {
        let dir = self.data_dir();
        let mut command = tokio::process::Command::new(&self.binary);
        command.args(["local-cluster", "--add-node"]).arg(format!("--data-dir={}", dir.display()));
        let output = command.output().await.context("tricord local-cluster --add-node")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let listed: Vec<Member> = serde_json::from_slice(&std::fs::read(dir.join("cluster.json"))?)?;
        let is_new = |member: &Member| self.members().all(|known| known.name != member.name);
        let member = listed.into_iter().find(is_new).context("no node was added")?;
        let (name, log) = (member.name.clone(), dir.join(format!("{}.log", member.name)));
        let process = Process::adopt(&name, member.pid, &log)?;
        self.members.push((member, process));
        Ok(name)
    }

    /// Starts the whole cluster again after [`LocalCluster::kill_all`] or [`LocalCluster::terminate`].
    ///
    /// # Errors
    /// As [`LocalCluster::start`].
    pub async fn restart_all(&mut self) -> Result<()> {
        // After kill -9 the list of the processes that ran before is still there.
        let _ = std::fs::remove_file(self.data_dir().join("cluster.json"));
        self.parent = start_parent(&self.binary, &self.args, self.dir.path())?;
        self.wait_listed().await
    }

    /// `SIGTERM` to the parent, which stops its children in order.
    ///
    /// # Errors
    /// When that takes longer than two minutes.
    pub async fn terminate(&mut self) -> Result<()> {
        self.parent.terminate(Duration::from_secs(120)).await.map(|_| ())
    }

    /// The cluster's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    /// Addresses of the metadata members, as `--metadata` takes them.
    #[must_use]
    pub fn metadata_addresses(&self) -> String {
        let members = self.members().filter(|member| member.role == "metadata");
        members.filter_map(|member| member.rpc.clone()).collect::<Vec<_>>().join(",")
    }

    async fn wait_listed(&mut self) -> Result<()> {
        let list = self.data_dir().join("cluster.json");
        let deadline = Instant::now() + START_LIMIT * 2;
        while !list.exists() {
            if self.parent.has_ended() || Instant::now() > deadline {
                bail!("the local cluster did not come up; its log:\n{}", self.parent.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let members: Vec<Member> = serde_json::from_slice(&std::fs::read(&list)?).context("cluster.json")?;
        let logs = self.data_dir();
        let adopted = members.into_iter().map(|member| {
            let process =
                Process::adopt(&member.name, member.pid, &logs.join(format!("{}.log", member.name)))?;
            Ok((member, process))
        });
        self.members = adopted.collect::<Result<_>>()?;
        Ok(())
    }
}

fn start_parent(binary: &Path, args: &[String], dir: &Path) -> Result<Process> {
    // The flag that ends it with this process must come before `--`.
    let (command, rest) = args.split_at(1);
    let mut args = command.to_vec();
    args.push(format!("--parent-pid={}", std::process::id()));
    args.extend(rest.iter().cloned());
    Process::start_as_given("local-cluster", binary, &args, &dir.join("local-cluster.log"))
}
