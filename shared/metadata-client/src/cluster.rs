//! The handle that roles hold: the map in use, and every call to the metadata service.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tricord_model::{Epoch, NodeId, ShardId};
use tricord_routing::{ShardConfig, ShardMap};
use tricord_wire::proto::metadata as pb;
use tricord_wire::{DataNode, Error, ErrorKind, Metadata};

use crate::dial::{Dial, LocalMetadata, Tcp};
use crate::heartbeat::{self, Heartbeat, Report};
use crate::identity::Identity;
use crate::members::{Members, TRY_TIMEOUT};
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::watch::Watcher;
use crate::{NodeAddress, convert};

/// The cluster as this process sees it. Clones share everything; the watch ends with the last of them.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    map: Arc<watch::Sender<Arc<ShardMap>>>,
    confirmed: Arc<Mutex<Instant>>,
    /// None for a fixed map.
    members: Option<Members>,
    nodes: Nodes,
    metrics: Metrics,
    _watching: DropGuard,
}

/// What metadata answered to a wished configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Whether the wish holds now.
    pub accepted: bool,
    /// What holds now, wished or not; its epoch is the one to propose against next.
    pub config: ShardConfig,
    /// Why the wish was refused, for people.
    pub message: String,
}

impl Cluster {
    /// Watches the metadata group at these `host:port` addresses over gRPC. Must be called within a tokio runtime.
    /// Returns at once; [`Cluster::wait_ready`] tells when a map is there.
    ///
    /// # Errors
    /// `Invalid` when there is no address or one is not `host:port`.
    pub fn connect(addresses: &[String]) -> Result<Self, Error> {
        Self::with_dialer(addresses, Arc::new(Tcp))
    }

    /// Watches the metadata member of this process. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// None in practice; the signature is that of the other constructors.
    pub fn local(member: Arc<dyn Metadata>) -> Result<Self, Error> {
        Self::with_dialer(&["local".to_owned()], Arc::new(LocalMetadata(member)))
    }

    /// As [`Cluster::connect`], with clients from somewhere else.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub fn with_dialer(addresses: &[String], dial: Arc<dyn Dial>) -> Result<Self, Error> {
        if addresses.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "no metadata address is given; use --metadata HOST:PORT,…",
            ));
        }
        for address in addresses {
            dial.metadata(address)?;
        }
        let metrics = Metrics::default();
        let members = Members::new(dial.clone(), addresses.to_vec(), metrics.clone());
        let watching = members.separate(TRY_TIMEOUT);
        let cluster = Self::new(ShardMap::default(), Some(members), dial, metrics);
        let watcher = Watcher {
            members: watching,
            map: cluster.0.map.clone(),
            confirmed: cluster.0.confirmed.clone(),
            metrics: cluster.0.metrics.clone(),
        };
        Ok(cluster.watched_by(watcher))
    }

    /// A cluster without metadata: the map is what the caller says. Proposals are taken by compare-and-set on the epoch
    /// as long as `min_insync` holds. For tests of other crates.
    #[must_use]
    pub fn fixed(map: ShardMap) -> Self {
        Self::new(map, None, Arc::new(Tcp), Metrics::default())
    }

    fn new(map: ShardMap, members: Option<Members>, dial: Arc<dyn Dial>, metrics: Metrics) -> Self {
        let inner = Inner {
            map: Arc::new(watch::Sender::new(Arc::new(map))),
            confirmed: Arc::new(Mutex::new(Instant::now())),
            members,
            nodes: Nodes::new(dial),
            metrics,
            _watching: CancellationToken::new().drop_guard(),
        };
        Self(Arc::new(inner))
    }

    /// Starts the watch; it ends when the last handle is dropped.
    fn watched_by(mut self, watcher: Watcher) -> Self {
        let ended = CancellationToken::new();
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner._watching = ended.clone().drop_guard();
        }
        tokio::spawn(watcher.run(ended));
        self
    }

    /// Adds the handle's metrics to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// The map in use; version 0 and no shards until the first one arrives.
    #[must_use]
    pub fn map(&self) -> Arc<ShardMap> {
        self.0.map.borrow().clone()
    }

    /// Tells of every newer map.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<Arc<ShardMap>> {
        self.0.map.subscribe()
    }

    /// How long ago metadata last confirmed the map in use.
    #[must_use]
    pub fn map_age(&self) -> Duration {
        self.0.confirmed.lock().elapsed()
    }

    /// Puts another map in place. Only for a fixed cluster: a watched one returns false and changes nothing.
    pub fn set_map(&self, map: ShardMap) -> bool {
        if self.0.members.is_some() {
            return false;
        }
        self.0.map.send_replace(Arc::new(map));
        true
    }

    /// Waits until every shard has a primary, so that writes and queries can be routed.
    ///
    /// # Errors
    /// `Timeout` when that takes longer than `limit`.
    pub async fn wait_ready(&self, limit: Duration) -> Result<Arc<ShardMap>, Error> {
        self.wait_for(limit, ShardMap::is_placed).await
    }

    /// Waits for a map newer than a version.
    ///
    /// # Errors
    /// `Timeout` when that takes longer than `limit`.
    pub async fn newer_than(&self, version: u64, limit: Duration) -> Result<Arc<ShardMap>, Error> {
        self.wait_for(limit, |map| map.version > version).await
    }

    /// Waits for a map that satisfies a condition.
    ///
    /// # Errors
    /// `Timeout` when that takes longer than `limit`.
    pub async fn wait_for(
        &self,
        limit: Duration,
        wanted: impl Fn(&ShardMap) -> bool,
    ) -> Result<Arc<ShardMap>, Error> {
        let mut maps = self.changed();
        let waited = timeout(limit, maps.wait_for(|map| wanted(map))).await;
        match waited {
            Ok(Ok(map)) => Ok(map.clone()),
            _ => Err(Error::new(ErrorKind::Timeout, format!("no such shard map within {limit:?}"))),
        }
    }

    /// The data node's service: itself where it is in this process, else a client that connects when first used.
    ///
    /// # Errors
    /// `NotFound` when the map has no such node.
    pub fn data_node(&self, node: NodeId) -> Result<Arc<dyn DataNode>, Error> {
        self.0.nodes.get(node, &self.map())
    }

    /// Says that a data node is in this process.
    pub fn set_local(&self, node: NodeId, service: Arc<dyn DataNode>) {
        self.0.nodes.set_local(node, service);
    }

    /// Whether a data node is in this process.
    #[must_use]
    pub fn is_local(&self, node: NodeId) -> bool {
        self.0.nodes.is_local(node)
    }

    /// Registers this process: takes its identity from the data directory (or mints one there; without a directory it
    /// lives in memory), gets a node id from metadata, and writes it down. Tries again until `limit`.
    ///
    /// # Errors
    /// `Invalid` when the directory belongs to another cluster, `Corrupt` when the identity file cannot be used, or
    /// the last failure when the time is over.
    pub async fn register(
        &self,
        dir: Option<&Path>,
        address: &NodeAddress,
        limit: Duration,
    ) -> Result<Identity, Error> {
        let unusable = |error: crate::IdentityError| Error::new(ErrorKind::Corrupt, error.to_string());
        let mut identity = match dir {
            Some(dir) => Identity::load_or_mint(dir).map_err(unusable)?,
            None => Identity::mint(),
        };
        let Some(members) = &self.0.members else {
            return self.register_fixed(identity, address);
        };
        let request = identity.register_request(address);
        let answer = members.call(limit, |member| {
            let request = request.clone();
            async move { member.register(request).await }
        });
        let answer = answer.await?;
        if identity.is_registered()
            && (identity.node_id.0, &identity.cluster_id) != (answer.node, &answer.cluster_id)
        {
            let text =
                format!("metadata answered as cluster {}, not {}", answer.cluster_id, identity.cluster_id);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        identity.node_id = NodeId(answer.node);
        identity.cluster_id = answer.cluster_id;
        if let Some(dir) = dir {
            identity.store(dir).map_err(unusable)?;
        }
        Ok(identity)
    }

    /// With a fixed map, the node is the one with the same address.
    fn register_fixed(&self, identity: Identity, address: &NodeAddress) -> Result<Identity, Error> {
        let map = self.map();
        let node = map.nodes.iter().find(|node| node.rpc == address.rpc).map(|node| node.id);
        let node_id =
            node.ok_or_else(|| Error::new(ErrorKind::NotFound, "the fixed map has no such address"))?;
        Ok(Identity { node_id, cluster_id: map.cluster_id.clone(), ..identity })
    }

    /// Starts heartbeats for a registered node. `report` is called on the heartbeat thread once per heartbeat and must
    /// not block.
    ///
    /// # Errors
    /// `Internal` when no thread can be started.
    pub fn start_heartbeat(
        &self,
        identity: &Identity,
        address: &NodeAddress,
        report: impl Fn() -> Report + Send + 'static,
    ) -> Result<Heartbeat, Error> {
        let sender = heartbeat::Sender {
            members: self.0.members.as_ref().map(|members| members.separate(heartbeat::TRY_TIMEOUT)),
            identity: identity.clone(),
            address: address.clone(),
            report: Box::new(report),
            metrics: self.0.metrics.clone(),
        };
        sender.start()
    }

    /// Wishes for another configuration of one shard, compare-and-set on its epoch. A refusal is an `Ok` with what
    /// holds instead; repeating an accepted wish is harmless.
    ///
    /// # Errors
    /// The last failure when no leader answered within `limit`; the wish may have been taken all the same.
    pub async fn propose(
        &self,
        from: NodeId,
        expected: Epoch,
        wish: &ShardConfig,
        limit: Duration,
    ) -> Result<Proposal, Error> {
        if self.0.members.is_none() {
            let fewest = self.map().min_insync as usize;
            return Ok(self.propose_fixed(expected, wish, fewest));
        }
        let request = pb::ProposeRequest {
            cluster_id: self.map().cluster_id.clone(),
            from_node: from.0,
            shard: wish.shard.0,
            expected_epoch: expected.0,
            wish: Some(convert::config_to_proto(wish)),
            restore: false,
        };
        self.send_proposal(request, limit).await
    }

    /// Wishes to be the only in-sync replica of a shard that never had an entry, with all others joining, before it is
    /// filled from a backup; `min_insync` does not hold for that. As [`Cluster::propose`] otherwise.
    ///
    /// # Errors
    /// As [`Cluster::propose`].
    pub async fn propose_restore(
        &self,
        from: NodeId,
        expected: Epoch,
        shard: ShardId,
        limit: Duration,
    ) -> Result<Proposal, Error> {
        if self.0.members.is_none() {
            let map = self.map();
            let none = || Error::new(ErrorKind::NotFound, format!("there is no shard {shard}"));
            let current = map.shard(shard).ok_or_else(none)?;
            let others = current.in_sync.iter().chain(&current.joining).filter(|node| **node != from);
            let joining = others.copied().collect();
            let wish = ShardConfig { in_sync: vec![from], joining, ..current.clone() };
            return Ok(self.propose_fixed(expected, &wish, 1));
        }
        let request = pb::ProposeRequest {
            cluster_id: self.map().cluster_id.clone(),
            from_node: from.0,
            shard: shard.0,
            expected_epoch: expected.0,
            wish: None,
            restore: true,
        };
        self.send_proposal(request, limit).await
    }

    async fn send_proposal(&self, request: pb::ProposeRequest, limit: Duration) -> Result<Proposal, Error> {
        let ask = |member: Arc<dyn Metadata>| {
            let request = request.clone();
            async move { member.propose(request).await }
        };
        let answer = self.ask(limit, ask).await?;
        let config =
            answer.config.ok_or_else(|| Error::internal("metadata answered without a configuration"))?;
        Ok(Proposal {
            accepted: answer.accepted,
            config: convert::config_from_proto(&config),
            message: answer.message,
        })
    }

    /// The compare-and-set of metadata, for tests without it.
    fn propose_fixed(&self, expected: Epoch, wish: &ShardConfig, min_insync: usize) -> Proposal {
        let mut proposal = Proposal { accepted: false, config: wish.clone(), message: String::new() };
        self.0.map.send_modify(|map| {
            let map = Arc::make_mut(map);
            let Some(config) = map.shards.get_mut(wish.shard.0 as usize) else {
                proposal.message = format!("there is no shard {}", wish.shard);
                return;
            };
            if config.epoch != expected {
                proposal.message = format!("the epoch is {}, not {expected}", config.epoch);
            } else if wish.in_sync.len() < min_insync.min(config.in_sync.len()) {
                proposal.message = format!("fewer than {min_insync} replicas would be in sync");
            } else {
                *config = ShardConfig { epoch: Epoch(expected.0 + 1), ..wish.clone() };
                map.version += 1;
                proposal.accepted = true;
            }
            proposal.config = config.clone();
        });
        proposal
    }

    /// Everything that metadata knows, from its leader.
    ///
    /// # Errors
    /// The last failure when no leader answered within `limit`.
    pub async fn status(&self, limit: Duration) -> Result<pb::MetadataStatusResponse, Error> {
        self.ask(limit, |member| async move { member.status(pb::MetadataStatusRequest {}).await }).await
    }

    /// Births the cluster, through the first of the metadata addresses.
    ///
    /// # Errors
    /// `Conflict` when one exists, `Invalid` when the request makes no sense, or the last failure when the time is
    /// over; the birth may go on all the same, and asking again then answers `Conflict`.
    pub async fn init(&self, request: pb::InitRequest, limit: Duration) -> Result<pb::InitResponse, Error> {
        let ask = |member: Arc<dyn Metadata>| {
            let request = request.clone();
            async move { member.init(request).await }
        };
        self.members()?.first().call_patiently(limit, limit, ask).await
    }

    /// Marks a node as leaving, or takes the mark back. Asking again tells how far it is.
    ///
    /// # Errors
    /// `NotFound` for an unknown node, `Invalid` where the other nodes would be too few for writes, `Conflict` where
    /// copies would be given up and the request does not allow that, or the last failure when no leader answered within
    /// `limit`.
    pub async fn drain(
        &self,
        request: pb::DrainRequest,
        limit: Duration,
    ) -> Result<pb::DrainResponse, Error> {
        self.ask(limit, |member| async move { member.drain(request).await }).await
    }

    /// Changes what one tenant may send.
    ///
    /// # Errors
    /// `Invalid` for a tenant that cannot be, `Limit` when too many have limits of their own, else as
    /// [`Cluster::propose`].
    pub async fn set_limits(
        &self,
        request: pb::SetLimitsRequest,
        limit: Duration,
    ) -> Result<pb::SetLimitsResponse, Error> {
        let ask = |member: Arc<dyn Metadata>| {
            let request = request.clone();
            async move { member.set_limits(request).await }
        };
        self.ask(limit, ask).await
    }

    /// Adds a member to the metadata group, or removes one.
    ///
    /// # Errors
    /// `Invalid` when the request makes no sense, or the last failure when no leader answered within `limit`.
    pub async fn change_member(
        &self,
        request: pb::ChangeMemberRequest,
        limit: Duration,
    ) -> Result<Vec<pb::MemberStatus>, Error> {
        let ask = |member: Arc<dyn Metadata>| {
            let request = request.clone();
            async move { member.change_member(request).await }
        };
        Ok(self.members()?.call_patiently(limit, limit, ask).await?.members)
    }

    async fn ask<T, F, Answer>(&self, limit: Duration, ask: F) -> Result<T, Error>
    where
        F: Fn(Arc<dyn Metadata>) -> Answer,
        Answer: Future<Output = Result<T, Error>>,
    {
        self.members()?.call(limit, ask).await
    }

    fn members(&self) -> Result<&Members, Error> {
        let none = || Error::new(ErrorKind::Unavailable, "a fixed map has no metadata service");
        self.0.members.as_ref().ok_or_else(none)
    }
}

#[cfg(test)]
mod tests;
