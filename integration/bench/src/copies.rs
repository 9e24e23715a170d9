//! What copies cost: the same load through a cluster that keeps one copy of each shard, and one that keeps three.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tricord_testkit::{Client, LocalCluster, Shape};

use crate::ingest::{self, Acked, Load, TICKS_TOGETHER};
use crate::load::{Scenario, Wire};
use crate::proc;

/// Data nodes of the clusters.
const DATA_NODES: u16 = 3;

/// What a round has shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Copies {
    /// Copies of each shard.
    pub(crate) copies: u32,
    pub(crate) samples: u64,
    pub(crate) wall_s: f64,
    /// Processor of all processes of the cluster together, per million samples.
    pub(crate) cpu_s_per_million: f64,
    /// Of these the data nodes' part.
    pub(crate) data_nodes_s_per_million: f64,
    pub(crate) samples_per_s: f64,
    pub(crate) ack_p50_ms: f64,
    pub(crate) ack_p99_ms: f64,
}

/// Processor that the members of a role have used, of all where it is empty.
fn cpu_s(cluster: &LocalCluster, role: &str) -> Result<f64> {
    let members = cluster.members().filter(|member| role.is_empty() || member.role == role);
    members.map(|member| proc::cpu_s(member.pid)).sum()
}

/// Writes a scenario to a cluster of three data nodes that keeps so many copies.
///
/// # Errors
/// When the cluster does not start, or does not take a request.
pub(crate) async fn round(tricord: &Path, copies: u32, scenario: Scenario, start_ms: i64) -> Result<Copies> {
    let shape = Shape {
        data_nodes: DATA_NODES,
        shards: 64,
        replicas: copies,
        min_insync: copies.min(2),
        flags: vec!["--own-telemetry=false".to_owned(), "--retention=0".to_owned()],
        ..Shape::default()
    };
    let cluster = LocalCluster::start(tricord, &shape).await?;
    let ingester: Client = cluster.ingester()?;
    let mut load = Load::new(scenario, Wire::V1, start_ms);
    let mut stretches = Vec::new();
    while let Some(stretch) = load.next(TICKS_TOGETHER)? {
        stretches.push(stretch);
    }
    let (started, before, nodes_before) = (Instant::now(), cpu_s(&cluster, "")?, cpu_s(&cluster, "querier")?);
    let mut acked = Acked::default();
    for stretch in stretches {
        ingest::send_to(&ingester, Wire::V1, stretch, &mut acked).await.context("writing to the cluster")?;
    }
    let wall_s = started.elapsed().as_secs_f64();
    let million = scenario.samples() as f64 / 1e6;
    let (all, nodes) = (cpu_s(&cluster, "")? - before, cpu_s(&cluster, "querier")? - nodes_before);
    ensure!(acked.samples == scenario.samples(), "{} samples were acknowledged", acked.samples);
    let samples = acked.samples;
    let (ack_p50_ms, ack_p99_ms) = acked.quantiles();
    Ok(Copies {
        copies,
        samples,
        wall_s,
        cpu_s_per_million: all / million,
        data_nodes_s_per_million: nodes / million,
        samples_per_s: samples as f64 / wall_s,
        ack_p50_ms,
        ack_p99_ms,
    })
}
