//! `tricord cluster restore`: fills an empty cluster with a backup. Everything is checked before anything is changed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ArgMatches;
use futures::{StreamExt, TryStreamExt};
use tricord_metadata_client::Cluster;
use tricord_model::{NodeId, ShardId};
use tricord_routing::ShardMap;
use tricord_runtime::Throttle;
use tricord_wire::proto::datanode as pb;

use super::manifest::{Manifest, ShardCopy};
use super::progress::Progress;
use super::{AGAIN_AFTER, AT_ONCE, ATTEMPTS, parts};
use crate::table;

/// What all shards share.
struct Job<'a> {
    cluster: &'a Cluster,
    dir: PathBuf,
    manifest: Manifest,
    throttle: Arc<Throttle>,
}

/// Runs the command.
pub(crate) async fn restore(cluster: &Cluster, limit: Duration, matches: &ArgMatches) -> Result<()> {
    let dir = matches.get_one::<PathBuf>("from").cloned().unwrap_or_default();
    let manifest = Manifest::read(&dir)?;
    if !manifest.missing.is_empty() && !matches.get_flag("partial") {
        let missing = manifest.missing.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        bail!("the backup lacks the shards {missing}; --partial restores what there is");
    }
    let placed = cluster.wait_ready(limit).await;
    let map = placed.context("not every shard has a primary: is the cluster born, and are its nodes up?")?;
    if map.shard_count() != manifest.shards {
        bail!(
            "the backup is of a cluster with {} shards, this one has {}: give `cluster init` (or a single process) \
             --shards {}",
            manifest.shards,
            map.shard_count(),
            manifest.shards
        );
    }
    let job = Job { cluster, dir, manifest, throttle: Arc::new(super::throttle(matches)) };
    job.check_nodes(&map).await?;
    job.verify().await?;
    job.fill().await.context("the restore is not complete: empty the cluster and begin again")?;
    let wait = matches.get_one::<u64>("wait-s").map(|seconds| Duration::from_secs(*seconds));
    job.wait_copied(wait).await?;
    table::print(&format!(
        "cluster {} has the {} shards of the backup of cluster {} from {}\n",
        map.cluster_id,
        job.manifest.copies.len(),
        job.manifest.cluster_id,
        job.manifest.created
    ))
}

impl Job<'_> {
    /// Shards of which there is something to restore.
    fn filled(&self) -> impl Iterator<Item = &ShardCopy> {
        self.manifest.copies.iter().filter(|copy| copy.seq > 0)
    }

    /// Refuses a cluster that has data, or that cannot take the backup's.
    async fn check_nodes(&self, map: &ShardMap) -> Result<()> {
        let configs = map.shards.iter();
        let nodes: BTreeSet<NodeId> =
            configs.flat_map(|config| config.in_sync.iter().chain(&config.joining)).copied().collect();
        for node in nodes {
            let silent = || format!("data node {node} does not answer; all must be up for a restore");
            let status = self.cluster.data_node(node).with_context(silent)?;
            let status = status.status(pb::NodeStatusRequest {}).await.with_context(silent)?;
            if let Some(found) = status.replicas.iter().find(|replica| replica.durable_seq > 0) {
                bail!(
                    "shard {} has data on node {node}, and a restore needs an empty cluster: begin with empty data \
                     directories, without writers, and with --own-telemetry=false until the restore is done",
                    found.shard
                );
            }
            for copy in self.filled() {
                ensure!(
                    copy.store_format <= status.format,
                    "the backup has format {}, node {node} knows up to {}: use a newer build there",
                    copy.store_format,
                    status.format
                );
                ensure!(
                    copy.window_ms == status.window_ms,
                    "the backup has windows of {} ms, node {node} has windows of {} ms",
                    copy.window_ms,
                    status.window_ms
                );
                if let Some(class) =
                    copy.retention_classes.iter().find(|class| !status.classes.contains(class))
                {
                    bail!(
                        "the backup has data of retention class {class:?}, which retention_classes lacks on node \
                         {node}: give all data nodes the classes of the cluster that it is of"
                    );
                }
            }
        }
        Ok(())
    }

    /// Reads all files.
    async fn verify(&self) -> Result<()> {
        let progress = Progress::default();
        let reading = async {
            for copy in &self.manifest.copies {
                for part in &copy.files {
                    parts::verify(&self.dir, part, &progress).await?;
                }
                progress.add_shard();
            }
            Ok(())
        };
        progress.tell("checked", self.manifest.copies.len(), Some(self.manifest.bytes()), reading).await
    }

    async fn fill(&self) -> Result<()> {
        let progress = Arc::new(Progress::default());
        let filling = self.filled().map(|copy| {
            let progress = progress.clone();
            async move {
                let shard = copy.shard;
                self.fill_shard(copy, &progress).await.with_context(|| format!("shard {shard}"))?;
                progress.add_shard();
                Ok(())
            }
        });
        let all = futures::stream::iter(filling).buffer_unordered(AT_ONCE).try_collect::<()>();
        progress.tell("restored", self.filled().count(), Some(self.manifest.bytes()), all).await
    }

    /// Sends a shard to its primary, whoever that is in the end.
    async fn fill_shard(&self, copy: &ShardCopy, progress: &Arc<Progress>) -> Result<()> {
        let shard = ShardId(copy.shard);
        let mut failed = anyhow::anyhow!("it has no primary");
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            let map = self.cluster.map();
            let Some(config) = map.shard(shard) else { bail!("the cluster has no such shard") };
            let Some(primary) = config.primary else { continue };
            let header = pb::SnapshotHeader {
                cluster_id: map.cluster_id.clone(),
                from_node: 0,
                to_node: primary.0,
                shard: copy.shard,
                epoch: config.epoch.0,
                last_seq: copy.seq,
                last_epoch: copy.epoch,
                format: copy.store_format,
                window_ms: copy.window_ms,
                classes: copy.retention_classes.clone(),
            };
            let node = self.cluster.data_node(primary)?;
            let (chunks, reading) =
                parts::read(self.dir.clone(), copy.clone(), header, self.throttle.clone(), progress.clone());
            match node.restore(chunks).await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    reading.await??;
                    let again = error.retryable();
                    failed = anyhow::Error::new(error).context(format!("node {primary}"));
                    if !again {
                        break;
                    }
                }
            }
        }
        Err(failed)
    }

    /// Waits until every shard answers, with as many copies as writes need.
    async fn wait_copied(&self, wait: Option<Duration>) -> Result<()> {
        let deadline = wait.map(|wait| Instant::now() + wait);
        let progress = Progress::default();
        let wanted: Vec<&ShardCopy> = self.filled().collect();
        let waiting = async {
            let mut waits: Vec<&ShardCopy> = wanted.clone();
            loop {
                let mut left = Vec::new();
                for copy in waits {
                    if self.is_ready(copy).await? { progress.add_shard() } else { left.push(copy) }
                }
                if left.is_empty() {
                    return Ok(());
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    let count = left.len();
                    bail!(
                        "everything is restored, but {count} shards have too few copies so far; they go on being made"
                    );
                }
                waits = left;
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        progress.tell("ready are", wanted.len(), None, waiting).await
    }

    async fn is_ready(&self, copy: &ShardCopy) -> Result<bool> {
        let map = self.cluster.map();
        let Some(config) = map.shard(ShardId(copy.shard)) else { return Ok(false) };
        let Some(primary) = config.primary else { return Ok(false) };
        let Ok(node) = self.cluster.data_node(primary) else { return Ok(false) };
        let Ok(status) = node.status(pb::NodeStatusRequest {}).await else { return Ok(false) };
        let Some(replica) = status.replicas.iter().find(|replica| replica.shard == copy.shard) else {
            return Ok(false);
        };
        let leads = replica.state == "primary" && replica.epoch == config.epoch.0;
        if leads && replica.committed_seq < copy.seq {
            let shard = copy.shard;
            bail!("shard {shard} lost what was restored: empty the cluster and begin again");
        }
        Ok(leads && config.in_sync.len() >= map.min_insync as usize)
    }
}
