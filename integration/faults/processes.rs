//! Processes that stop, stand still, or lose their disk.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tricord_testkit::{Client, LocalCluster, Process, Shape, eventually};

use super::oracle::{Writer, acknowledges, written};
use super::{BINARY, LIMIT, faces, healthy};

/// One node after the other is told to stop, and started again: no write is refused, since each hands its shards over.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_refuses_no_write() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let writer = Writer::start(ingester);
    eventually(LIMIT, || written(proxy.clone())).await?;
    let mut stops = Vec::new();
    for node in ["querier-1", "querier-2", "querier-3"] {
        eventually(LIMIT, || healthy(&metadata)).await?;
        let process = cluster.process(node)?;
        let stopped = Instant::now();
        process.terminate(Duration::from_secs(60)).await?;
        stops.push((stopped, Instant::now()));
        let log = process.log();
        ensure!(log.contains("others go on with this node's shards"), "{node} handed nothing over");
        cluster.restart(node).await?;
    }
    eventually(LIMIT, || healthy(&metadata)).await?;
    let written = writer.finish().await?;
    for (from, to) in stops {
        println!("longest time without a write around a stop: {:?}", written.longest_gap(from, to));
    }
    ensure!(written.refusals.is_empty(), "writes were refused: {:?}", written.refusals);
    written.check_kept(&proxy).await
}

/// A node that stood still for longer than its leases does not answer with what it had then.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_node_is_fenced_when_it_wakes() -> Result<()> {
    let mut cluster = LocalCluster::start(BINARY, &Shape::default()).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let writer = Writer::start(ingester.clone());
    eventually(LIMIT, || written(proxy.clone())).await?;
    for node in ["querier-2", "metadata-1"] {
        cluster.process(node)?.pause()?;
        eventually(LIMIT, || acknowledges(&ingester))
            .await
            .with_context(|| format!("{node} stands still"))?;
        let asked =
            proxy.post_form("/api/v1/query", &[("query", "count(serial)")]).await?.success()?.json()?;
        ensure!(asked.get("warnings").is_none(), "copies remain, yet {asked}");
        cluster.process(node)?.resume()?;
        // The newest acknowledged write is in every answer, also in those of the node that has just woken.
        for round in 0..50 {
            let marker = format!("woken_{}{round}", node.replace('-', "_"));
            ingester.import(&format!("{marker} {round}\n")).await.with_context(|| marker.clone())?;
            let seen = proxy.value(&format!("{marker} or vector(-1)"), None).await?;
            ensure!(seen == f64::from(round), "{marker} was acknowledged, and {seen} is read");
        }
        eventually(LIMIT, || healthy(&metadata)).await?;
    }
    writer.finish().await?.check_kept(&proxy).await
}

/// Starts a data node over a small file system of its own: whatever it had on its disk is gone.
fn start_on_small_disk(cluster: &LocalCluster, name: &str) -> Result<Process> {
    let args = cluster.member(name)?.args.clone();
    let dir = cluster.data_dir().join(name);
    let script = r#"mount -t tmpfs -o size=96m tmpfs "$1" && shift && exec "$@""#;
    let mut command = ["--map-root-user", "--mount", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    command.push(dir.display().to_string());
    command.push(BINARY.to_owned());
    command.extend(args);
    // A process that runs in another namespace ends with the test by this.
    command.push(format!("--parent-pid={}", std::process::id()));
    let log = cluster.data_dir().join(format!("{name}.log"));
    Process::start_as_given(name, Path::new("unshare"), &command, &log)
}

/// A lost disk comes back as a new replica; when it is full, writes go on without it, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_and_a_full_one() -> Result<()> {
    let shape = Shape { flags: impatient(), ..Shape::default() };
    let mut cluster = LocalCluster::start(BINARY, &shape).await?;
    let (ingester, proxy) = faces(&cluster)?;
    let metadata = cluster.metadata_addresses();
    let writer = Writer::start(ingester.clone());
    eventually(LIMIT, || written(proxy.clone())).await?;
    cluster.kill("querier-3").await?;
    let mut small = start_on_small_disk(&cluster, "querier-3")?;
    let node = Client::new(&cluster.member("querier-3")?.http);
    // The lost node counts as gone after two seconds; the new one takes its place.
    eventually(LIMIT, || healthy(&metadata)).await.context("a new replica in place of the lost one")?;
    eventually(LIMIT, || node.ready()).await?;

    let seen = format!("/proc/{}/root{}", small.pid(), cluster.data_dir().join("querier-3").display());
    let fill = std::fs::write(Path::new(&seen).join("fill"), vec![1_u8; 100 << 20]);
    ensure!(fill.is_err(), "100 MiB fit into 96");
    eventually(LIMIT, || acknowledges(&ingester)).await.context("writing while a disk is full")?;
    for _ in 0..20 {
        eventually(LIMIT, || acknowledges(&ingester)).await.context("writing while a disk is full")?;
    }
    small.signal(Signal::KILL)?;
    small.wait_ended(Duration::from_secs(20)).await?;
    // Its directory beneath the small file system is the one that it had at first, with the identity that is gone.
    cluster.restart("querier-3").await?;
    eventually(LIMIT, || healthy(&metadata)).await.context("the first disk is back")?;
    writer.finish().await?.check_kept(&proxy).await
}

/// A node that is away for two seconds is replaced.
fn impatient() -> Vec<String> {
    let flags = ["--own-telemetry=false", "--node-gone-after=2s"];
    flags.map(str::to_owned).to_vec()
}
