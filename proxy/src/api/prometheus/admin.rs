//! What an operator or a test may order.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use futures::future::join_all;
use serde_json::json;
use tricord_model::{Deletion, NodeId};
use tricord_wire::proto::datanode::{FlushRequest, FlushResponse};

use super::{match_sets, time_range};
use crate::Proxy;
use crate::api::{Asked, Reply};
use crate::delete::delete;
use crate::error::Error;

/// A delete that takes longer is given up.
const MAX_DELETE_TIME: Duration = Duration::from_secs(30);

impl Proxy {
    /// Refuses what is off unless it is enabled, in Prometheus' words.
    fn check_admin(&self) -> Result<(), Error> {
        if self.settings().config.enable_admin_api {
            return Ok(());
        }
        let text = "admin APIs disabled: start the proxy with --proxy-enable-admin-api";
        Err(Error::Unavailable(text.to_owned()))
    }
}

/// `POST|PUT /admin/tsdb/delete_series`: deletes the samples of series between two times.
pub(super) async fn delete_series(State(proxy): State<Proxy>, asked: Asked) -> Result<StatusCode, Error> {
    proxy.check_admin()?;
    let selectors = match_sets(&asked).map_err(|why| Error::parameter("match[]", why))?;
    if selectors.is_empty() {
        return Err(Error::BadData("no match[] parameter provided".to_owned()));
    }
    let (start_ms, end_ms) = time_range(&asked)?;
    if end_ms < start_ms {
        return Err(Error::parameter("end", "end timestamp must not be before start time"));
    }
    let deadline = Instant::now() + proxy.settings().query_timeout.min(MAX_DELETE_TIME);
    let deletion = Deletion { selectors, start_ms, end_ms };
    delete(proxy.scatter().cluster(), &asked.tenant, &deletion, deadline).await?;
    tracing::info!(
        tenant = %asked.tenant, start_ms, end_ms,
        selectors = asked.params.all("match[]").collect::<Vec<_>>().join(" "),
        "series are deleted"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// `POST|PUT /admin/tsdb/clean_tombstones`: every data node removes from its disk what was deleted.
pub(super) async fn clean_tombstones(State(proxy): State<Proxy>) -> Result<StatusCode, Error> {
    proxy.check_admin()?;
    let (nodes, sum) = order(&proxy, FlushRequest { clean: true, ..FlushRequest::default() }).await?;
    if sum.deletes_left > 0 {
        let text = format!(
            "{} deletes are not carried out on the disks of {nodes} data nodes yet, as shards change or replicas lag: \
             try again",
            sum.deletes_left
        );
        return Err(Error::Unavailable(text));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST|PUT /admin/tsdb/snapshot`: not offered.
pub(super) async fn snapshot(State(proxy): State<Proxy>) -> Error {
    let text = "snapshots are not offered: copy the data directory of a node that is stopped";
    proxy.check_admin().err().unwrap_or_else(|| Error::NotFound(text.to_owned()))
}

/// `POST /admin/flush`: every data node seals and writes out what it has in memory.
pub(super) async fn flush(State(proxy): State<Proxy>) -> Result<Reply, Error> {
    let (nodes, sum) = order(&proxy, FlushRequest::default()).await?;
    Ok(Reply::json(&json!({ "nodes": nodes, "windows": sum.windows, "bytes": sum.bytes })))
}

/// `POST /admin/merge`: as `flush`, and then every data node merges what it can into longer windows, at full speed.
pub(super) async fn merge(State(proxy): State<Proxy>) -> Result<Reply, Error> {
    let (nodes, sum) = order(&proxy, FlushRequest { merge: true, ..FlushRequest::default() }).await?;
    Ok(Reply::json(&json!({
        "nodes": nodes,
        "windows": sum.windows,
        "bytes": sum.bytes,
        "merged": sum.merged,
        "mergedBytes": sum.merged_bytes,
    })))
}

/// Orders something of every data node; answers how many there are, and what they did together.
async fn order(proxy: &Proxy, request: FlushRequest) -> Result<(usize, FlushResponse), Error> {
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
                sum.deletes_left += flushed.deletes_left;
            }
            Err(error) => failed.push(format!("node {node}: {error}")),
        }
    }
    if !failed.is_empty() {
        let text = format!("not every data node could flush: {}", failed.join("; "));
        return Err(Error::Unavailable(text));
    }
    Ok((nodes.len(), sum))
}
