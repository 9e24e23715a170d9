//! Raft's messages to other members, as the `Raft` call of the metadata service. Each names its cluster and the member
//! that is meant, so that a message for a lost disk never reaches its successor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, MessageSummary};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tricord_metadata_client::Dial;
use tricord_wire::proto::metadata::RaftRequest;
use tricord_wire::proto::metadata::raft_request::Kind;
use tricord_wire::{Error, ErrorKind, Metadata};

use super::TypeConfig;

/// How long a member that cannot be reached is left alone.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(200);

/// When each other member last answered.
pub(super) type Answered = Arc<Mutex<BTreeMap<u64, Instant>>>;

/// Makes a connection for each other member.
pub(crate) struct Peers {
    dial: Arc<dyn Dial>,
    cluster_id: String,
    answered: Answered,
}

impl Peers {
    pub(super) fn new(dial: Arc<dyn Dial>, cluster_id: String, answered: Answered) -> Self {
        Self { dial, cluster_id, answered }
    }
}

/// One other member.
pub(crate) struct Peer {
    target: u64,
    cluster_id: String,
    client: Result<Arc<dyn Metadata>, Error>,
    answered: Answered,
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer {
            target,
            cluster_id: self.cluster_id.clone(),
            client: self.dial.metadata(&node.addr),
            answered: self.answered.clone(),
        }
    }
}

type Failure<E = openraft::error::Infallible> = RPCError<u64, BasicNode, RaftError<u64, E>>;

impl Peer {
    async fn send<Q, A, E>(&self, kind: Kind, message: &Q, option: &RPCOption) -> Result<A, Failure<E>>
    where
        Q: Serialize,
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let client = self.client.as_ref().map_err(|error| RPCError::Unreachable(Unreachable::new(error)))?;
        let body =
            serde_json::to_vec(message).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let request = RaftRequest {
            kind: kind.into(),
            cluster_id: self.cluster_id.clone(),
            to_member: self.target,
            body: body.into(),
        };
        let answer = match tokio::time::timeout(option.hard_ttl(), client.raft(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(RPCError::Unreachable(Unreachable::new(&error))),
            Err(_) => return Err(late(kind, self.target, option)),
        };
        if answer.member != self.target {
            let text = format!("member {} answered for member {}", answer.member, self.target);
            return Err(RPCError::Unreachable(Unreachable::new(&Error::new(ErrorKind::Invalid, text))));
        }
        self.answered.lock().insert(self.target, Instant::now());
        let result: Result<A, RaftError<u64, E>> = serde_json::from_slice(&answer.body)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        result.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

fn late<E: std::error::Error>(kind: Kind, target: u64, option: &RPCOption) -> Failure<E> {
    let action = match kind {
        Kind::Vote => RPCTypes::Vote,
        Kind::Snapshot => RPCTypes::InstallSnapshot,
        Kind::Append | Kind::Identify => RPCTypes::AppendEntries,
    };
    RPCError::Timeout(Timeout { action, id: 0, target, timeout: option.hard_ttl() })
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure> {
        self.send(Kind::Append, &rpc, &option).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<InstallSnapshotError>> {
        tracing::info!(to = self.target, snapshot = rpc.summary(), "sending a snapshot of the metadata");
        self.send(Kind::Snapshot, &rpc, &option).await
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, Failure> {
        self.send(Kind::Vote, &rpc, &option).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_AFTER))
    }
}
