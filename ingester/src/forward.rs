//! Sends pieces to the primaries of their shards and waits until each is acknowledged.
//!
//! One request per node, all nodes at once. What fails because the map moved on, a node is away or a primary is not yet
//! serving is tried again under the newest map until the time is over; writes are idempotent, so trying again is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use futures::future::join_all;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tricord_metadata_client::Cluster;
use tricord_model::{Epoch, NodeId, ShardId, Tenant};
use tricord_routing::ShardMap;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error as WireError, ErrorKind};

use crate::decode::Rejected;
use crate::metrics::{KindLabel, Metrics};
use crate::route::{Piece, Rounds};

/// The first wait before trying again; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_millis(500);
/// About how many bytes one message to a node carries.
const MESSAGE_BYTES: usize = 16 << 20;
/// Permits of a node's semaphore stand for so many bytes.
const PERMIT_BYTES: usize = 1024;

/// What the shards acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples.
    pub samples: u64,
    /// Native histogram samples.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Spans.
    pub spans: u64,
}

/// How far a forwarded request is, and in the end how it ended.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    /// What each piece's shard has acknowledged.
    counts: Vec<(ShardId, pb::WriteCounts)>,
    /// Shards that do not know some series by its fingerprint: they need everything once more, with labels.
    pub(crate) unknowing: BTreeSet<ShardId>,
    /// Shards that did not acknowledge, each with its last failure.
    pub(crate) failed: BTreeMap<ShardId, WireError>,
}

impl Forwarded {
    /// What was written, and what the shards refused for good.
    pub(crate) fn sum(self) -> (Written, Rejected) {
        let (mut written, mut rejected) = (Written::default(), Rejected::default());
        for (_, counts) in self.counts {
            written.samples += counts.samples;
            written.histograms += counts.histograms;
            written.exemplars += counts.exemplars;
            written.spans += counts.spans;
            rejected.add(Rejected {
                samples: counts.rejected_samples,
                exemplars: counts.rejected_exemplars,
                spans: counts.rejected_spans,
                reasons: counts.reasons,
            });
        }
        (written, rejected)
    }
}

pub(crate) struct Forwarder {
    cluster: Cluster,
    metrics: Metrics,
    node_bytes: usize,
    nodes: Mutex<HashMap<NodeId, Arc<Semaphore>>>,
}

impl Forwarder {
    pub(crate) fn new(cluster: Cluster, node_bytes: usize, metrics: Metrics) -> Self {
        Self { cluster, metrics, node_bytes: node_bytes.max(PERMIT_BYTES), nodes: Mutex::default() }
    }

    /// The shard map in use, waiting for the first one if need be.
    pub(crate) async fn map(&self, deadline: Instant) -> Result<Arc<ShardMap>, WireError> {
        let known = self.cluster.map();
        if known.shard_count() > 0 {
            return Ok(known);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let first = self.cluster.wait_for(left, |map| map.shard_count() > 0).await;
        first.map_err(|_| WireError::new(ErrorKind::Unavailable, "the cluster has no shard map yet"))
    }

    /// Writes all rounds, one after another. It ends early when a shard fails, as its later pieces must not overtake.
    pub(crate) async fn write(&self, tenant: &Tenant, rounds: Rounds, deadline: Instant) -> Forwarded {
        let mut forwarded = Forwarded::default();
        self.rounds(tenant, rounds, deadline, &mut forwarded).await;
        forwarded
    }

    /// Writes the same request with all labels to the shards that did not know some series without. What such a shard
    /// has acknowledged already is sent to it again, which changes nothing.
    pub(crate) async fn write_named(
        &self,
        tenant: &Tenant,
        mut rounds: Rounds,
        deadline: Instant,
        forwarded: &mut Forwarded,
    ) {
        let unknowing = std::mem::take(&mut forwarded.unknowing);
        forwarded.counts.retain(|(shard, _)| !unknowing.contains(shard));
        for round in &mut rounds {
            round.retain(|piece| unknowing.contains(&piece.shard));
        }
        let kind = KindLabel { kind: ErrorKind::UnknownSeries.as_str() };
        self.metrics.retries.get_or_create(&kind).inc_by(unknowing.len() as u64);
        self.rounds(tenant, rounds, deadline, forwarded).await;
        for shard in std::mem::take(&mut forwarded.unknowing) {
            let text = format!("shard {shard} does not know a series although its labels were sent");
            self.note_failure(ErrorKind::Internal);
            forwarded.failed.insert(shard, WireError::internal(text));
        }
    }

    async fn rounds(&self, tenant: &Tenant, rounds: Rounds, deadline: Instant, forwarded: &mut Forwarded) {
        let before = std::mem::take(&mut forwarded.failed);
        for mut round in rounds {
            round.retain(|piece| !forwarded.unknowing.contains(&piece.shard));
            self.round(tenant, round, deadline, forwarded).await;
            if !forwarded.failed.is_empty() {
                break;
            }
        }
        forwarded.failed.values().for_each(|error| self.note_failure(error.kind));
        forwarded.failed.extend(before);
    }

    fn note_failure(&self, kind: ErrorKind) {
        self.metrics.failures.get_or_create(&KindLabel { kind: kind.as_str() }).inc();
    }

    async fn round(&self, tenant: &Tenant, round: Vec<Piece>, deadline: Instant, forwarded: &mut Forwarded) {
        let mut pending = round;
        let mut backoff = MIN_BACKOFF;
        loop {
            let mut changed = self.cluster.changed();
            let map = changed.borrow_and_update().clone();
            let (messages, unplaced) = group(&map, pending);
            let tries = messages.into_iter().map(|message| self.send(tenant, &map, message, deadline));
            let mut failed: Vec<(Piece, WireError)> = unplaced;
            for (pieces, answer) in join_all(tries).await {
                settle(pieces, answer, forwarded, &mut failed);
            }
            let (again, given_up): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|(_, error)| worth_another_try(error));
            forwarded.failed.extend(given_up.into_iter().map(|(piece, error)| (piece.shard, error)));
            if again.is_empty() {
                return;
            }
            // A moment between 50 and 100 % of the backoff, so that ingesters do not come back in step.
            let wait = backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            if !forwarded.failed.is_empty() || Instant::now() + wait >= deadline {
                forwarded.failed.extend(again.into_iter().map(|(piece, error)| (piece.shard, error)));
                return;
            }
            for (_, error) in &again {
                self.metrics.retries.get_or_create(&KindLabel { kind: error.kind.as_str() }).inc();
            }
            // A newer map is a reason to try at once, but not in a tight loop.
            tokio::time::sleep(wait / 4).await;
            let _ = tokio::time::timeout(wait - wait / 4, changed.changed()).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            pending = again.into_iter().map(|(piece, _)| piece).collect();
        }
    }

    /// Sends one message; the pieces come back with the answer.
    async fn send(
        &self,
        tenant: &Tenant,
        map: &ShardMap,
        message: Outgoing,
        deadline: Instant,
    ) -> (Vec<Piece>, Result<pb::WriteResponse, WireError>) {
        let Outgoing { node, pieces } = message;
        let answer = self.call(tenant, map, node, &pieces, deadline).await;
        (pieces.into_iter().map(|(piece, _)| piece).collect(), answer)
    }

    async fn call(
        &self,
        tenant: &Tenant,
        map: &ShardMap,
        node: NodeId,
        pieces: &[(Piece, Epoch)],
        deadline: Instant,
    ) -> Result<pb::WriteResponse, WireError> {
        let service = self.cluster.data_node(node)?;
        let bytes = pieces.iter().map(|(piece, _)| piece.batch.len()).sum();
        let _under_way = self.enter(node, bytes, deadline).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let request = pb::WriteRequest {
            cluster_id: map.cluster_id.clone(),
            tenant: tenant.as_str().to_owned(),
            shards: pieces
                .iter()
                .map(|(piece, epoch)| pb::ShardWrite {
                    shard: piece.shard.0,
                    epoch: epoch.0,
                    batch: piece.batch.clone(),
                })
                .collect(),
            timeout_ms: left.as_millis().max(1) as u64,
        };
        let answer = tokio::time::timeout(left, service.write(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(WireError::new(ErrorKind::Timeout, "no answer in time")));
        let address = map.nodes.iter().find(|known| known.id == node).map_or("", |known| &known.rpc);
        answer.map_err(|error| {
            let message = format!("data node {node} at {address}: {}", error.message);
            WireError { message, ..error }
        })
    }

    /// Waits until a node has room for so many bytes more.
    async fn enter(&self, node: NodeId, bytes: usize, deadline: Instant) -> Result<UnderWay, WireError> {
        let all = self.node_bytes / PERMIT_BYTES;
        let semaphore =
            Arc::clone(self.nodes.lock().entry(node).or_insert_with(|| Arc::new(Semaphore::new(all))));
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, all) as u32;
        match tokio::time::timeout_at(deadline, semaphore.acquire_many_owned(permits)).await {
            Ok(Ok(permit)) => Ok(UnderWay::new(permit, bytes, &self.metrics)),
            _ => {
                let text = format!("too many bytes are under way to data node {node}");
                Err(WireError::overloaded(text, Duration::from_secs(1)))
            }
        }
    }
}

/// Bytes under way to a node, until dropped.
struct UnderWay {
    _permit: OwnedSemaphorePermit,
    bytes: i64,
    metrics: Metrics,
}

impl UnderWay {
    fn new(permit: OwnedSemaphorePermit, bytes: usize, metrics: &Metrics) -> Self {
        metrics.node_in_flight_bytes.inc_by(bytes as i64);
        Self { _permit: permit, bytes: bytes as i64, metrics: metrics.clone() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.metrics.node_in_flight_bytes.dec_by(self.bytes);
    }
}

/// A message to a node.
struct Outgoing {
    node: NodeId,
    pieces: Vec<(Piece, Epoch)>,
}

/// Pieces by the node that is their shard's primary, and those whose shard has none.
fn group(map: &ShardMap, pieces: Vec<Piece>) -> (Vec<Outgoing>, Vec<(Piece, WireError)>) {
    let mut messages: BTreeMap<NodeId, Vec<(usize, Outgoing)>> = BTreeMap::new();
    let mut unplaced = Vec::new();
    for piece in pieces {
        let placed = map.shard(piece.shard).and_then(|config| Some((config.primary?, config.epoch)));
        let Some((node, epoch)) = placed else {
            let text = format!("shard {} has no primary", piece.shard);
            unplaced.push((piece, WireError::new(ErrorKind::Unavailable, text)));
            continue;
        };
        let messages = messages.entry(node).or_default();
        let size = piece.batch.len();
        match messages.last_mut().filter(|(filled, _)| filled + size <= MESSAGE_BYTES) {
            Some((filled, message)) => {
                *filled += size;
                message.pieces.push((piece, epoch));
            }
            None => messages.push((size, Outgoing { node, pieces: vec![(piece, epoch)] })),
        }
    }
    (messages.into_values().flatten().map(|(_, message)| message).collect(), unplaced)
}

/// Counts what a message's answer acknowledges and sorts out what failed.
fn settle(
    pieces: Vec<Piece>,
    answer: Result<pb::WriteResponse, WireError>,
    forwarded: &mut Forwarded,
    failed: &mut Vec<(Piece, WireError)>,
) {
    let mut results: HashMap<u32, pb::ShardWriteResult> = match answer {
        Ok(answer) => answer.shards.into_iter().map(|result| (result.shard, result)).collect(),
        Err(error) => {
            failed.extend(pieces.into_iter().map(|piece| (piece, error.clone())));
            return;
        }
    };
    for piece in pieces {
        match results.remove(&piece.shard.0) {
            Some(pb::ShardWriteResult { failure: None, counts, .. }) => {
                forwarded.counts.push((piece.shard, counts.unwrap_or_default()));
            }
            Some(pb::ShardWriteResult { failure: Some(failure), .. }) => match WireError::from(failure) {
                error if error.kind == ErrorKind::UnknownSeries => {
                    forwarded.unknowing.insert(piece.shard);
                }
                error => failed.push((piece, error)),
            },
            None => {
                let text = format!("the data node did not answer for shard {}", piece.shard);
                failed.push((piece, WireError::internal(text)));
            }
        }
    }
}

/// Whether the same piece may succeed within this request. A node that is full must not be asked again at once: that is
/// the client's to do, later.
fn worth_another_try(error: &WireError) -> bool {
    // A node that the map no longer has (`NotFound`) has been replaced by the next map.
    (error.retryable() && error.kind != ErrorKind::Overloaded) || error.kind == ErrorKind::NotFound
}

#[cfg(test)]
mod tests;
