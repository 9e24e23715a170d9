//! A cluster whose processes each have a network of their own, joined by a bridge, so that any two can be kept apart in
//! either direction. Needs root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tricord_testkit::{Client, Process, eventually};

use super::{BINARY, LIMIT};

/// Nobody has this address, so that what is sent there is lost without a word.
const NOWHERE: &str = "02:00:00:00:00:99";

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("cannot run ip")?;
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Whether networks can be made here.
pub(crate) fn possible() -> bool {
    let probe = format!("tricord-{}-probe", std::process::id());
    let made = rustix::process::geteuid().is_root() && ip(&["netns", "add", &probe]).is_ok();
    made && ip(&["netns", "del", &probe]).is_ok()
}

/// A process with its network.
struct Place {
    namespace: String,
    address: String,
    args: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

/// A running cluster: three members of metadata, three data nodes, an ingester and a proxy.
pub(crate) struct NetCluster {
    bridge: String,
    places: BTreeMap<String, Place>,
    _dir: TempDir,
}

impl NetCluster {
    pub(crate) async fn start() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let subnet = format!("10.{}.{}", 100 + nth % 100, pid % 250);
        let dir = TempDir::new()?;
        let bridge = format!("trb{}x{nth}", pid % 100_000);
        let mut cluster = Self { bridge: bridge.clone(), places: BTreeMap::new(), _dir: dir };
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{subnet}.254/24"), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        let names = ["metadata-1", "metadata-2", "metadata-3", "querier-1", "querier-2", "querier-3"];
        let members: Vec<String> = (1..=3).map(|n| format!("{subnet}.{n}:7301")).collect();
        for (n, name) in (1..).zip(names.into_iter().chain(["ingester-1", "proxy-1"])) {
            cluster.place(name, &format!("{subnet}.{n}"), n, &members.join(","))?;
        }
        cluster.birth(&members.join(",")).await?;
        for name in cluster.places.keys() {
            let client = cluster.client(name)?;
            eventually(LIMIT, || client.ready()).await.with_context(|| format!("{name} is not ready"))?;
        }
        Ok(cluster)
    }

    fn place(&mut self, name: &str, address: &str, n: u32, members: &str) -> Result<()> {
        let namespace = format!("tricord-{}-{}-{n}", std::process::id(), self.bridge);
        let (outer, inner) = (format!("{}-{n}", self.bridge), format!("{}i{n}", self.bridge));
        let dir = self._dir.path();
        let (role, _) = name.split_once('-').context("a name without a number")?;
        let flag = |name: &str, value: String| format!("--{name}={value}");
        let args = vec![
            role.to_owned(),
            flag("data-dir", dir.join(name).display().to_string()),
            flag("http-listen", format!("{address}:7300")),
            flag("rpc-listen", format!("{address}:7301")),
            flag("otlp-grpc-listen", format!("{address}:4317")),
            flag("otlp-http-listen", format!("{address}:4318")),
            flag("metadata", members.to_owned()),
            flag("own-telemetry", "false".to_owned()),
        ];
        let log = dir.join(format!("{name}.log"));
        ip(&["netns", "add", &namespace])?;
        let place =
            Place { namespace: namespace.clone(), address: address.to_owned(), args, log, process: None };
        self.places.insert(name.to_owned(), place);
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &namespace])?;
        ip(&["link", "set", &outer, "master", &self.bridge, "up"])?;
        ip(&["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", &inner])?;
        ip(&["-n", &namespace, "link", "set", &inner, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        self.run(name)
    }

    /// Starts a process in its network.
    fn run(&mut self, name: &str) -> Result<()> {
        let place = self.places.get_mut(name).with_context(|| format!("no process {name}"))?;
        let mut command = ["netns", "exec", &place.namespace, BINARY].map(str::to_owned).to_vec();
        command.extend(place.args.iter().cloned());
        command.push(format!("--parent-pid={}", std::process::id()));
        place.process = Some(Process::start_as_given(name, Path::new("ip"), &command, &place.log)?);
        Ok(())
    }

    async fn birth(&self, members: &str) -> Result<()> {
        let args = ["cluster", "init", "--if-absent", "--metadata", members, "--shards", "16"];
        eventually(LIMIT, || async move {
            let output = tokio::process::Command::new(BINARY).args(args).output().await?;
            if !output.status.success() {
                bail!("{}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        })
        .await
    }

    pub(crate) fn client(&self, name: &str) -> Result<Client> {
        Ok(Client::new(&format!("{}:7300", self.at(name)?.address)))
    }

    pub(crate) fn metadata_addresses(&self) -> String {
        let members = self.places.iter().filter(|(name, _)| name.starts_with("metadata"));
        members.map(|(_, place)| format!("{}:7301", place.address)).collect::<Vec<_>>().join(",")
    }

    fn at(&self, name: &str) -> Result<&Place> {
        self.places.get(name).with_context(|| format!("no process {name}"))
    }

    /// Names of all other processes that begin with one of these words.
    pub(crate) fn others(&self, than: &str, begin: &[&str]) -> Vec<String> {
        let fits = |name: &&String| *name != than && begin.iter().any(|word| name.starts_with(word));
        self.places.keys().filter(fits).cloned().collect()
    }

    /// From now on nothing gets from one process to the other; the way back stays open.
    pub(crate) fn cut(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        let device = self.inner_device(from)?;
        let neighbour = ["neigh", "replace", &to.address, "lladdr", NOWHERE, "dev", &device];
        ip(&[&["-n", from.namespace.as_str()], &neighbour[..], &["nud", "permanent"]].concat())
    }

    fn inner_device(&self, place: &Place) -> Result<String> {
        let n = place.namespace.rsplit('-').next().context("a namespace without a number")?;
        Ok(format!("{}i{n}", self.bridge))
    }

    /// Nothing gets from either to the other.
    pub(crate) fn part(&self, one: &str, others: &[String]) -> Result<()> {
        others.iter().try_for_each(|other| {
            self.cut(one, other)?;
            self.cut(other, one)
        })
    }

    /// All get everywhere again.
    pub(crate) fn mend(&self) -> Result<()> {
        for place in self.places.values() {
            let device = self.inner_device(place)?;
            ip(&["-n", &place.namespace, "neigh", "flush", "dev", &device, "nud", "permanent"])?;
        }
        Ok(())
    }
}

impl Drop for NetCluster {
    fn drop(&mut self) {
        for place in self.places.values_mut() {
            if let Some(process) = place.process.take() {
                let _ = process.signal(rustix::process::Signal::KILL);
                drop(process);
            }
            // A network lives on for minutes while its last connections wait for answers; its link need not.
            let n = place.namespace.rsplit('-').next().unwrap_or_default();
            let _ = ip(&["link", "del", &format!("{}-{n}", self.bridge)]);
            let _ = ip(&["netns", "del", &place.namespace]);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

/// How long a fault lasts: longer than every lease.
pub(crate) const FAULT: Duration = Duration::from_secs(8);
