//! One request to one data node.

use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use tricord_fragment::Partial;
use tricord_model::{Epoch, NodeId, ShardId};
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error as WireError, ErrorKind as WireKind};

use super::{CallReport, Job, Scatter};

/// From this size on a partial is decoded off the async threads.
const DECODE_ASIDE_BYTES: usize = 256 << 10;

/// A node that did not answer.
pub(super) struct Refused {
    pub(super) node: NodeId,
    pub(super) shards: Vec<ShardId>,
    pub(super) error: WireError,
}

impl Scatter {
    /// Asks one node for some shards.
    pub(super) async fn call(
        &self,
        job: &Job,
        cluster_id: String,
        node: NodeId,
        shards: Vec<(ShardId, Epoch)>,
        fragment: Bytes,
    ) -> Result<(Partial, CallReport), Refused> {
        let started = Instant::now();
        let ids: Vec<ShardId> = shards.iter().map(|(shard, _)| *shard).collect();
        let request = pb::ExecuteRequest {
            cluster_id,
            tenant: job.tenant.as_str().to_owned(),
            shards: shards
                .iter()
                .map(|(shard, epoch)| pb::ShardEpoch { shard: shard.0, epoch: epoch.0 })
                .collect(),
            fragment,
            timeout_ms: job.deadline.saturating_duration_since(started).as_millis().max(1) as u64,
            traceparent: tricord_runtime::telemetry::current_traceparent(),
            uncompressed: self.cluster.is_local(node),
        };
        let answer = async {
            let _permit = self.permits.acquire().await.map_err(WireError::internal)?;
            let bytes = self.collect(node, request, job.fragment.limits.max_bytes).await?;
            let size = bytes.len() as u64;
            Ok((decode(bytes).await?, size))
        };
        match answer.await {
            Ok((mut partial, bytes)) => {
                let took = started.elapsed();
                self.recent.note(took);
                let micros = took.as_micros() as u64;
                self.metrics.fragment_seconds.observe(micros as f64 / 1e6);
                self.metrics.partial_bytes.inc_by(bytes);
                let stats = std::mem::take(&mut partial.stats);
                Ok((partial, CallReport { node, shards: ids, stats, micros, bytes }))
            }
            Err(error) => Err(Refused { node, shards: ids, error }),
        }
    }

    async fn collect(
        &self,
        node: NodeId,
        request: pb::ExecuteRequest,
        max_bytes: u64,
    ) -> Result<Vec<u8>, WireError> {
        let client = self.cluster.data_node(node)?;
        let mut chunks = client.execute(request).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?.partial);
            if bytes.len() as u64 > max_bytes {
                let text = format!(
                    "data node {node} answers with more than {max_bytes} bytes: aggregate more, ask for a shorter \
                     range or a longer step, or raise the proxy's max_partial_bytes"
                );
                return Err(WireError::new(WireKind::Limit, text));
            }
        }
        Ok(bytes)
    }
}

async fn decode(bytes: Vec<u8>) -> Result<Partial, WireError> {
    let broken = |error: tricord_fragment::Error| WireError::new(WireKind::Internal, error.to_string());
    let is_heavy = bytes.len() >= DECODE_ASIDE_BYTES;
    tricord_runtime::blocking_when(is_heavy, move || Partial::decode(&bytes)).await.map_err(broken)
}
