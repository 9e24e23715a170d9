//! Sends a delete to the primaries of all shards and waits until each has acknowledged it.
//!
//! What fails because the map moved on, a node is away or a primary is not yet serving is tried again under the newest
//! map until the time is over: deleting twice deletes once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use rand::Rng;
use tricord_metadata_client::Cluster;
use tricord_model::codec::Writer;
use tricord_model::{Deletion, NodeId, ShardId, Tenant};
use tricord_routing::ShardMap;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error as WireError, ErrorKind as WireKind};

use crate::api::shard_numbers;
use crate::error::Error;

/// The first wait before trying again; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// A delete on its way.
struct Job<'a> {
    cluster: &'a Cluster,
    tenant: &'a Tenant,
    deletion: Bytes,
    deadline: Instant,
}

/// Deletes from all shards.
///
/// # Errors
/// With the shards that did not acknowledge it, and why; on the others it is done.
pub(crate) async fn delete(
    cluster: &Cluster,
    tenant: &Tenant,
    deletion: &Deletion,
    deadline: Instant,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    deletion.encode(&mut Writer::new(&mut bytes));
    if bytes.len() > Deletion::MAX_BYTES {
        let text = format!("the selectors take more than {} bytes: send fewer at once", Deletion::MAX_BYTES);
        return Err(Error::BadData(text));
    }
    let job = Job { cluster, tenant, deletion: Bytes::from(bytes), deadline };
    let mut pending: Vec<ShardId> = cluster.map().shards.iter().map(|config| config.shard).collect();
    let (mut given_up, mut backoff) = (BTreeMap::new(), MIN_BACKOFF);
    loop {
        let mut changed = cluster.changed();
        let map = changed.borrow_and_update().clone();
        let failed = job.round(&map, pending).await;
        let (again, lost): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|(_, error)| worth_another_try(error));
        given_up.extend(lost);
        let wait = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
        if again.is_empty() || Instant::now() + wait >= deadline {
            given_up.extend(again);
            break;
        }
        // A newer map is a reason to try at once, but not in a tight loop.
        tokio::time::sleep(wait / 4).await;
        let _ = tokio::time::timeout(wait - wait / 4, changed.changed()).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
        pending = again.into_iter().map(|(shard, _)| shard).collect();
    }
    if given_up.is_empty() { Ok(()) } else { Err(refused(&given_up)) }
}

impl Job<'_> {
    /// Asks every primary for its shards; answers those that failed.
    async fn round(&self, map: &ShardMap, shards: Vec<ShardId>) -> Vec<(ShardId, WireError)> {
        let mut by_node: BTreeMap<NodeId, Vec<pb::ShardEpoch>> = BTreeMap::new();
        let mut failed = Vec::new();
        for shard in shards {
            match map.shard(shard).and_then(|config| Some((config.primary?, config.epoch))) {
                Some((node, epoch)) => {
                    by_node.entry(node).or_default().push(pb::ShardEpoch { shard: shard.0, epoch: epoch.0 });
                }
                None => failed.push((shard, WireError::new(WireKind::Unavailable, "it has no primary"))),
            }
        }
        let calls = by_node.into_iter().map(|(node, shards)| async move {
            let answer = self.call(map, node, shards.clone()).await;
            settle(&shards, answer)
        });
        failed.extend(join_all(calls).await.into_iter().flatten());
        failed
    }

    async fn call(
        &self,
        map: &ShardMap,
        node: NodeId,
        shards: Vec<pb::ShardEpoch>,
    ) -> Result<pb::WriteResponse, WireError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let request = pb::DeleteRequest {
            cluster_id: map.cluster_id.clone(),
            tenant: self.tenant.as_str().to_owned(),
            shards,
            deletion: self.deletion.clone(),
            timeout_ms: left.as_millis().max(1) as u64,
        };
        let service = self.cluster.data_node(node)?;
        let answer = tokio::time::timeout(left, service.delete(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(WireError::new(WireKind::Timeout, "no answer in time")));
        answer.map_err(|error| WireError { message: format!("data node {node}: {error}"), ..error })
    }
}

/// The shards of a request that its answer does not acknowledge.
fn settle(
    shards: &[pb::ShardEpoch],
    answer: Result<pb::WriteResponse, WireError>,
) -> Vec<(ShardId, WireError)> {
    let mut results: BTreeMap<u32, Option<pb::Failure>> = match answer {
        Ok(answer) => answer.shards.into_iter().map(|result| (result.shard, result.failure)).collect(),
        Err(error) => return shards.iter().map(|of| (ShardId(of.shard), error.clone())).collect(),
    };
    let failure = |of: &pb::ShardEpoch| match results.remove(&of.shard) {
        Some(None) => None,
        Some(Some(failure)) => Some((ShardId(of.shard), failure.into())),
        None => Some((ShardId(of.shard), WireError::internal("the data node did not answer for it"))),
    };
    shards.iter().filter_map(failure).collect()
}

/// Whether the same may succeed within this request.
fn worth_another_try(error: &WireError) -> bool {
    // A node that the map no longer has (`NotFound`) has been replaced by the next map.
    error.retryable() || error.kind == WireKind::NotFound
}

/// Names the shards with their reasons, each reason once.
fn refused(failed: &BTreeMap<ShardId, WireError>) -> Error {
    let mut reasons: BTreeMap<&str, Vec<ShardId>> = BTreeMap::new();
    for (shard, error) in failed {
        // What a data node says about a shard begins with it.
        let why = error.message.strip_prefix(&format!("shard {shard}: ")).unwrap_or(&error.message);
        reasons.entry(why).or_default().push(*shard);
    }
    let word = |shards: &[ShardId]| if shards.len() == 1 { "shard" } else { "shards" };
    let reasons = reasons
        .iter()
        .map(|(why, shards)| format!("{} {}: {why}", word(shards), shard_numbers(shards)))
        .collect::<Vec<_>>();
    let text = format!(
        "not every shard has deleted the series; send it again, which changes nothing on the others: {}",
        reasons.join("; ")
    );
    match failed.values().find(|error| !error.retryable()).map(|error| error.kind) {
        Some(WireKind::Limit) => Error::Execution(text),
        Some(WireKind::Invalid) => Error::BadData(text),
        Some(WireKind::Internal | WireKind::Corrupt) => Error::Internal(text),
        _ => Error::Unavailable(text),
    }
}
