//! `tricord cluster backup`: a copy of every shard from one in-sync replica, into a directory.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ArgMatches;
use futures::StreamExt;
use tokio::time::timeout;
use tricord_metadata_client::Cluster;
use tricord_model::{NodeId, ShardId};
use tricord_routing::ShardMap;
use tricord_runtime::Throttle;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};

use super::manifest::{Manifest, ShardCopy};
use super::parts::PartWriter;
use super::progress::Progress;
use super::{AGAIN_AFTER, AT_ONCE, ATTEMPTS, DIR_MODE};
use crate::{banner, table};

/// How long a node that has begun may take for the next chunk; it may be throttled.
const CHUNK_LIMIT: Duration = Duration::from_secs(600);

/// What the copies of all shards share.
struct Job<'a> {
    cluster: &'a Cluster,
    dir: PathBuf,
    part_bytes: u64,
    throttle: Throttle,
    progress: Progress,
}

/// Why a shard could not be copied from a node.
enum Failed {
    /// This machine is to blame; another node would not help.
    Here(anyhow::Error),
    There(Error),
}

/// Runs the command.
pub(crate) async fn backup(cluster: &Cluster, limit: Duration, matches: &ArgMatches) -> Result<()> {
    let dir = matches.get_one::<PathBuf>("into").cloned().unwrap_or_default();
    let created = jiff::Timestamp::now().to_string();
    let map = cluster.wait_for(limit, |map| map.version > 0 && map.shard_count() > 0).await;
    let map = map.context("no shard map: is the cluster born?")?;
    make_dir(&dir)?;
    let job = Job {
        cluster,
        dir,
        part_bytes: matches.get_one::<u64>("part-bytes").copied().unwrap_or(u64::MAX),
        throttle: super::throttle(matches),
        progress: Progress::default(),
    };
    let shards = map.shard_count();
    let copying = job.copy_all(shards, matches.get_flag("partial"));
    let (copies, missing) = job.progress.tell("copied", shards as usize, None, copying).await?;
    let manifest = Manifest {
        created,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: map.cluster_id.clone(),
        shards,
        replicas: map.replicas,
        min_insync: map.min_insync,
        missing,
        copies,
    };
    manifest.write(&job.dir)?;
    let without = match manifest.missing.as_slice() {
        [] => String::new(),
        missing => format!("; without the shards {}", list(missing)),
    };
    table::print(&format!(
        "backup of cluster {} in {}: {} shards, {}{without}\n",
        manifest.cluster_id,
        job.dir.display(),
        manifest.copies.len(),
        table::bytes(manifest.bytes()),
    ))
}

fn list(shards: &[u32]) -> String {
    shards.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// Makes the directory; one with anything in it may be a backup that is still wanted.
fn make_dir(dir: &Path) -> Result<()> {
    let shown = dir.display();
    match std::fs::read_dir(dir) {
        Ok(mut entries) => {
            ensure!(entries.next().is_none(), "{shown} is not empty: give a directory of its own")
        }
        Err(error) if error.kind() == IoErrorKind::NotFound => {
            make_new(dir).with_context(|| format!("cannot make {shown}"))?;
        }
        Err(error) => return Err(error).with_context(|| format!("cannot use {shown}")),
    }
    Ok(())
}

/// Makes a directory that is not there, durably; of two commands that do so at once, one fails.
fn make_new(dir: &Path) -> std::io::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    DirBuilder::new().mode(DIR_MODE).create(dir)?;
    File::open(parent)?.sync_all()
}

impl Job<'_> {
    /// The copies by shard, and the shards that are missing, where that is allowed.
    async fn copy_all(&self, shards: u32, allow_missing: bool) -> Result<(Vec<ShardCopy>, Vec<u32>)> {
        let copying = (0..shards).map(|shard| async move { (shard, self.copy(shard).await) });
        let mut copying = futures::stream::iter(copying).buffer_unordered(AT_ONCE);
        let (mut copies, mut missing) = (Vec::new(), Vec::new());
        while let Some((shard, copied)) = copying.next().await {
            match copied {
                Ok(copy) => {
                    self.progress.add_shard();
                    copies.push(copy);
                }
                Err(Failed::There(error)) if allow_missing => {
                    banner::say(&format!("tricord: shard {shard} is left out: {error}\n"));
                    missing.push(shard);
                }
                Err(Failed::There(error)) => {
                    let hint = "there is no whole backup; --partial makes one without it";
                    bail!("shard {shard} cannot be copied: {error}; {hint}")
                }
                Err(Failed::Here(error)) => return Err(error),
            }
        }
        ensure!(!copies.is_empty(), "no shard could be copied");
        copies.sort_unstable_by_key(|copy| copy.shard);
        missing.sort_unstable();
        Ok((copies, missing))
    }

    /// A copy from any in-sync replica; the error is the last one of each, with the nodes.
    async fn copy(&self, shard: u32) -> Result<ShardCopy, Failed> {
        let mut failed = Error::new(ErrorKind::Unavailable, "it has no in-sync replica that lives");
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            let map = self.cluster.map();
            let mut reasons = Vec::new();
            let mut again = false;
            for node in sources(&map, shard) {
                match self.copy_from(&map, shard, node).await {
                    Ok(copy) => return Ok(copy),
                    Err(Failed::There(error)) => {
                        again |= error.retryable();
                        reasons.push(format!("node {node}: {error}"));
                    }
                    Err(here) => return Err(here),
                }
            }
            if !reasons.is_empty() {
                failed = Error::new(ErrorKind::Unavailable, reasons.join("; "));
                if !again {
                    break;
                }
            }
        }
        Err(Failed::There(failed))
    }

    async fn copy_from(&self, map: &ShardMap, shard: u32, node: NodeId) -> Result<ShardCopy, Failed> {
        let epoch = map.shard(ShardId(shard)).map_or(0, |config| config.epoch.0);
        let cluster_id = map.cluster_id.clone();
        let request = pb::BackupRequest { cluster_id, to_node: node.0, shard, epoch };
        let source = self.cluster.data_node(node).map_err(Failed::There)?;
        let mut chunks = source.backup(request).await.map_err(Failed::There)?;
        let mut writer = PartWriter::new(&self.dir, shard, self.part_bytes);
        let written = self.write_all(shard, &mut chunks, &mut writer).await;
        let header = match written {
            Ok(header) => header,
            Err(failed) => {
                writer.discard().await;
                return Err(failed);
            }
        };
        Ok(ShardCopy {
            shard,
            seq: header.last_seq,
            epoch: header.last_epoch,
            node: node.0,
            store_format: header.format,
            window_ms: header.window_ms,
            retention_classes: header.classes,
            files: writer.finish().await.map_err(Failed::Here)?,
        })
    }

    /// Writes a copy as it comes, and answers what its header says.
    async fn write_all(
        &self,
        shard: u32,
        chunks: &mut ResponseStream<pb::SnapshotChunk>,
        writer: &mut PartWriter<'_>,
    ) -> Result<pb::SnapshotHeader, Failed> {
        let mut header = None;
        loop {
            let chunk = next(chunks).await.map_err(Failed::There)?;
            header = header.or(chunk.header);
            if !chunk.data.is_empty() {
                writer.write(&chunk.data).await.map_err(Failed::Here)?;
                self.progress.add_bytes(chunk.data.len());
                tokio::time::sleep(self.throttle.take(Instant::now(), chunk.data.len())).await;
            }
            if chunk.last {
                break;
            }
        }
        let strange = || Error::new(ErrorKind::Invalid, "the node sent another shard than was asked for");
        header.filter(|header| header.shard == shard).ok_or_else(|| Failed::There(strange()))
    }
}

/// The in-sync replicas that live: the primary first, which knows best what is committed.
fn sources(map: &ShardMap, shard: u32) -> Vec<NodeId> {
    let Some(config) = map.shard(ShardId(shard)) else { return Vec::new() };
    let mut nodes: Vec<NodeId> = config.in_sync.clone();
    nodes.retain(|node| map.node(*node).is_some_and(|info| info.alive));
    nodes.sort_by_key(|node| config.primary != Some(*node));
    nodes
}

async fn next(chunks: &mut ResponseStream<pb::SnapshotChunk>) -> Result<pb::SnapshotChunk, Error> {
    let late = |_| Error::new(ErrorKind::Timeout, "the node went silent");
    let chunk = timeout(CHUNK_LIMIT, chunks.next()).await.map_err(late)?;
    let ended = || Error::new(ErrorKind::Unavailable, "the node ended the copy too early");
    let chunk = chunk.ok_or_else(ended)??;
    if crc32c::crc32c(&chunk.data) != chunk.crc {
        return Err(Error::new(ErrorKind::Unavailable, "a chunk was damaged on its way"));
    }
    Ok(chunk)
}
