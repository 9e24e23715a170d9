//! The calls of the other roles. Those that change something, or that must not be behind, are the leader's.

use std::time::Instant;

use bytes::Bytes;
use tricord_metadata_client::convert;
use tricord_model::{Epoch, NodeId, ShardId, Tenant};
use tricord_routing::{NodeInfo, NodeRole};
use tricord_wire::proto::metadata as pb;
use tricord_wire::proto::metadata::raft_request::Kind;
use tricord_wire::{Error, ErrorKind, Metadata, ResponseStream};

use super::Member;
use crate::drain;
use crate::raft::Identity;
use crate::state::{Command, Reply};

/// The most processes that may be registered at once.
const MAX_NODES: usize = 4096;
/// The longest text of an address, token or zone, in bytes.
const MAX_TEXT: usize = 256;

#[async_trait::async_trait]
impl Metadata for Member {
    async fn register(&self, request: pb::RegisterRequest) -> Result<pb::RegisterResponse, Error> {
        let group = self.leading()?;
        self.check_cluster(&request.cluster_id)?;
        let info = node_info(&request)?;
        if request.node == 0 && self.state().nodes.len() >= MAX_NODES {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("{MAX_NODES} processes are registered already"),
            ));
        }
        let Reply::Node(node) = group.write(Command::Register { token: request.token, info }).await? else {
            return Err(Error::internal("a registration came to something else"));
        };
        let said = pb::HeartbeatRequest { node: node.0, ..Default::default() };
        self.watchman.lock().hear(node, said, Instant::now());
        self.wake.notify_one();
        let state = self.state();
        let shards = state.shards.len() as u32;
        Ok(pb::RegisterResponse { node: node.0, cluster_id: state.cluster_id.clone(), shards })
    }

    async fn heartbeat(&self, request: pb::HeartbeatRequest) -> Result<pb::HeartbeatResponse, Error> {
        self.leading()?;
        self.check_cluster(&request.cluster_id)?;
        let (state, node) = (self.state(), NodeId(request.node));
        let Some(known) = state.nodes.get(&node) else {
            return Err(Error::new(ErrorKind::NotFound, format!("node {node} is not registered")));
        };
        let news = request.leaving == known.info.alive;
        self.metrics.heartbeats.inc();
        self.watchman.lock().hear(node, request, Instant::now());
        if news {
            self.wake.notify_one();
        }
        Ok(pb::HeartbeatResponse { map_version: state.version, lease_ms: self.config.node_lease_ms })
    }

    async fn propose(&self, request: pb::ProposeRequest) -> Result<pb::ProposeResponse, Error> {
        let group = self.leading()?;
        self.check_cluster(&request.cluster_id)?;
        let (from, expected) = (NodeId(request.from_node), Epoch(request.expected_epoch));
        let command = if request.restore {
            Command::Restore { from, expected, shard: ShardId(request.shard) }
        } else {
            let wish = request.wish;
            let wish = wish.ok_or_else(|| Error::new(ErrorKind::Invalid, "a proposal without a wish"))?;
            if wish.shard != request.shard || wish.in_sync.len() + wish.joining.len() > MAX_NODES {
                return Err(Error::new(ErrorKind::Invalid, "the wish is for another shard, or too large"));
            }
            Command::Propose { from, expected, wish: convert::config_from_proto(&wish) }
        };
        match group.write(command).await? {
            Reply::Proposal { accepted, config, message } => {
                let counter = if accepted { &self.metrics.accepted } else { &self.metrics.refused };
                counter.inc();
                tracing::debug!(%from, shard = request.shard, accepted, message, "a primary proposed");
                self.wake.notify_one();
                Ok(pb::ProposeResponse { accepted, config: Some(convert::config_to_proto(&config)), message })
            }
            _ => Err(Error::internal("a proposal came to something else")),
        }
    }

    async fn status(&self, _request: pb::MetadataStatusRequest) -> Result<pb::MetadataStatusResponse, Error> {
        let group = self.leading()?;
        group.catch_up().await?;
        let leadership = group.leadership();
        let (now, state) = (Instant::now(), self.state());
        let homes = state.homes.iter();
        let homes =
            homes.map(|homes| pb::ShardHomes { nodes: homes.iter().map(|node| node.0).collect() }).collect();
        let watchman = self.watchman.lock();
        let draining = state.data_nodes().filter(|node| node.draining);
        let drains = draining.map(|node| drain::progress(&state, node.id, watchman.began_with(node.id)));
        let reports = watchman.heard().iter().map(|(node, heard)| pb::NodeReport {
            node: node.0,
            heartbeat_age_ms: now.duration_since(heard.at).as_millis() as u64,
            replicas: heard.said.replicas.clone(),
            disk_used_bytes: heard.said.disk_used_bytes,
            disk_free_bytes: heard.said.disk_free_bytes,
        });
        Ok(pb::MetadataStatusResponse {
            map: Some(convert::map_to_proto(&state.map())),
            leader: leadership.leader,
            members: members(&group),
            reports: reports.collect(),
            raft_term: leadership.term,
            raft_applied: leadership.applied,
            homes,
            drains: drains.collect(),
        })
    }

    async fn init(&self, request: pb::InitRequest) -> Result<pb::InitResponse, Error> {
        let cluster_id = self.finish(|own| async move { own.give_birth(request).await }).await?;
        Ok(pb::InitResponse { cluster_id })
    }

    async fn change_member(
        &self,
        request: pb::ChangeMemberRequest,
    ) -> Result<pb::ChangeMemberResponse, Error> {
        self.leading()?;
        let members = self.finish(|own| async move { own.change_members(request).await }).await?;
        Ok(pb::ChangeMemberResponse { members })
    }

    async fn drain(&self, request: pb::DrainRequest) -> Result<pb::DrainResponse, Error> {
        let group = self.leading()?;
        let node = NodeId(request.node);
        let known = self.state().nodes.get(&node).map(|node| node.info.draining);
        let draining =
            known.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no node {node}")))?;
        if draining == request.undo {
            if !request.undo {
                drain::check(&self.state(), node, request.allow_fewer_copies)?;
            }
            group.write(Command::Drain { node, undo: request.undo }).await?;
            self.wake.notify_one();
        }
        let state = self.state();
        Ok(pb::DrainResponse { remaining: state.copies_on(node), waits_for: drain::waits_for(&state, node) })
    }

    async fn set_limits(&self, request: pb::SetLimitsRequest) -> Result<pb::SetLimitsResponse, Error> {
        let group = self.leading()?;
        let tenant = Tenant::new(&request.tenant).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("tenant {:?}: {error}", request.tenant))
        })?;
        if tenant == Tenant::own() {
            return Err(Error::new(ErrorKind::Invalid, "Tricord's own tenant has no limits"));
        }
        let limits = convert::limits_from_proto(&request.limits.unwrap_or_default());
        let command = Command::Limits { tenant: request.tenant.clone(), limits, clear: request.clear };
        group.write(command).await?;
        let state = self.state();
        let limits = state.limits.get(&request.tenant).map(convert::limits_to_proto);
        Ok(pb::SetLimitsResponse { limits })
    }

    async fn raft(&self, request: pb::RaftRequest) -> Result<pb::RaftResponse, Error> {
        let kind = Kind::try_from(request.kind)
            .map_err(|_| Error::new(ErrorKind::Invalid, "a raft message of an unknown kind"))?;
        if kind == Kind::Identify {
            return self.finish(|own| async move { own.learn_identity(&request).await }).await;
        }
        let group = self.joined()?;
        let own = group.identity();
        // An answer in another member's name could vote twice, or pass off a lost log as present.
        if (own.member, &own.birth.cluster_id) != (request.to_member, &request.cluster_id) {
            let text = format!(
                "this is member {} of cluster {}, another one is meant",
                own.member, own.birth.cluster_id
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let body = group.receive(kind, &request.body).await?;
        Ok(pb::RaftResponse { body: body.into(), member: own.member })
    }

    async fn watch(&self, request: pb::WatchRequest) -> Result<ResponseStream<pb::ShardMap>, Error> {
        self.follow(request.version)
    }
}

impl Member {
    /// Refuses callers of another cluster. A process without one yet is let in.
    fn check_cluster(&self, cluster_id: &str) -> Result<(), Error> {
        let state = self.state();
        if cluster_id.is_empty() || cluster_id == state.cluster_id {
            return Ok(());
        }
        let text = format!("the caller belongs to cluster {cluster_id}, this is {}", state.cluster_id);
        Err(Error::new(ErrorKind::Invalid, text))
    }

    async fn learn_identity(&self, request: &pb::RaftRequest) -> Result<pb::RaftResponse, Error> {
        let identity: Identity = serde_json::from_slice(&request.body).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("an identity that cannot be read: {error}"))
        })?;
        if (identity.member, &identity.birth.cluster_id) != (request.to_member, &request.cluster_id) {
            return Err(Error::new(ErrorKind::Invalid, "the identity is not the one that is meant"));
        }
        let _one = self.changing.lock().await;
        let group = self.adopt(identity).await?;
        Ok(pb::RaftResponse { body: Bytes::new(), member: group.identity().member })
    }

    async fn change_members(&self, request: pb::ChangeMemberRequest) -> Result<Vec<pb::MemberStatus>, Error> {
        let _one = self.changing.lock().await;
        let group = self.leading()?;
        if request.remove {
            let known = group.members();
            if !known.iter().any(|(member, ..)| *member == request.member) {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("there is no member {}", request.member),
                ));
            }
            if known.len() == 1 {
                return Err(Error::new(ErrorKind::Invalid, "the last member cannot be removed"));
            }
            group.remove_member(request.member).await?;
        } else {
            self.add_member(&group, &request.rpc).await?;
        }
        Ok(members(&group))
    }

    /// A new member: an id of its own, an identity on its disk, the log, then a vote.
    async fn add_member(&self, group: &crate::raft::Group, address: &str) -> Result<(), Error> {
        let half_way = group.members().into_iter().find(|(_, known, _)| known == address);
        let member = match half_way {
            Some((_, _, true)) => return Ok(()),
            Some((member, ..)) => member,
            None => match group.write(Command::AllocateMember).await? {
                Reply::Member(member) => member,
                _ => return Err(Error::internal("an allocation came to something else")),
            },
        };
        self.identify(address, &Identity { member, birth: group.identity().birth.clone() }).await?;
        group.add_member(member, address).await
    }
}

fn members(group: &crate::raft::Group) -> Vec<pb::MemberStatus> {
    let members = group.members().into_iter();
    let status = |(member, rpc, voter)| pb::MemberStatus {
        heard_age_ms: group.heard_age_ms(member),
        member,
        rpc,
        voter,
    };
    members.map(status).collect()
}

fn node_info(request: &pb::RegisterRequest) -> Result<NodeInfo, Error> {
    let invalid = |text: &str| Error::new(ErrorKind::Invalid, text);
    let address = request.address.clone().ok_or_else(|| invalid("a registration without an address"))?;
    let texts = [&request.token, &address.rpc, &address.http, &address.zone, &address.version];
    if request.token.is_empty() || texts.iter().any(|text| text.len() > MAX_TEXT) {
        return Err(invalid("a registration without a token, or with a text of more than 256 bytes"));
    }
    let role = convert::role_from_name(&address.role)?;
    if matches!(role, NodeRole::Querier | NodeRole::All) && address.rpc.is_empty() {
        return Err(invalid("a data node needs an address for the other roles; set --advertise"));
    }
    Ok(NodeInfo {
        id: NodeId(request.node),
        role,
        rpc: address.rpc,
        http: address.http,
        zone: address.zone,
        version: address.version,
        alive: true,
        draining: false,
    })
}
