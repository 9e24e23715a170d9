//! What an operator or a test may order.

use axum::extract::State;
use futures::future::join_all;
use tricord_model::NodeId;
use tricord_wire::proto::datanode::{FlushRequest, FlushResponse};

use crate::Proxy;
use crate::api::Reply;
use crate::error::Error;

/// `POST|PUT /admin/tsdb/…`: as of a Prometheus whose admin API is not enabled.
pub(super) async fn disabled() -> Error {
    let text = "admin APIs disabled: Tricord drops data by its retention alone";
    Error::Unavailable(text.to_owned())
}

/// `POST /admin/flush`: every data node seals and writes out what it has in memory.
pub(super) async fn flush(State(proxy): State<Proxy>) -> Result<Reply, Error> {
    order(&proxy, FlushRequest { merge: false }).await
}

/// `POST /admin/merge`: as `flush`, and then every data node merges what it can into longer windows, at full speed.
pub(super) async fn merge(State(proxy): State<Proxy>) -> Result<Reply, Error> {
    order(&proxy, FlushRequest { merge: true }).await
}

async fn order(proxy: &Proxy, request: FlushRequest) -> Result<Reply, Error> {
    let cluster = proxy.scatter().cluster();
    let map = cluster.map();
    let mut nodes: Vec<NodeId> = map.shards.iter().flat_map(|shard| shard.in_sync.iter().copied()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let flushes = nodes.iter().map(|node| async move {
        let node_service = cluster.data_node(*node)?;
        node_service.flush(request).await
    });
    let (mut sum, mut failed) = (FlushResponse::default(), Vec::new());
    for (node, result) in nodes.iter().zip(join_all(flushes).await) {
        match result {
            Ok(flushed) => {
                sum.windows += flushed.windows;
                sum.bytes += flushed.bytes;
                sum.merged += flushed.merged;
                sum.merged_bytes += flushed.merged_bytes;
            }
            Err(error) => failed.push(format!("node {node}: {error}")),
        }
    }
    if !failed.is_empty() {
        let text = format!("not every data node could flush: {}", failed.join("; "));
        return Err(Error::Unavailable(text));
    }
    let mut reply = serde_json::json!({ "nodes": nodes.len(), "windows": sum.windows, "bytes": sum.bytes });
    if request.merge {
        reply["merged"] = sum.merged.into();
        reply["mergedBytes"] = sum.merged_bytes.into();
    }
    Ok(Reply::json(&reply))
}
