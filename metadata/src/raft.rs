//! The Raft group: the one place that knows openraft. Everything else sees commands, replies and who leads.
//!
//! Log, vote and snapshots lie in `log_store` and `machine`; messages between members go out through `network`.

mod disk;
mod log_store;
mod machine;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::{BasicNode, ChangeMembers, ServerState, SnapshotPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;
use tricord_metadata_client::Dial;
use tricord_wire::proto::metadata::raft_request::Kind;
use tricord_wire::{Error, ErrorKind};

pub(crate) use disk::{Disk, Identity, Key};

use crate::state::{Command, Reply, State};

openraft::declare_raft_types!(
    /// What openraft is told about our types.
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// How long a command may take before the caller is told that nobody knows.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new member may take to receive what the others have.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Entries between two snapshots of the state, and entries kept behind one for members that lag.
const SNAPSHOT_EVERY: u64 = 1000;
const LOG_KEPT: u64 = 200;

/// Raft's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How often the leader speaks when it has nothing to say, in milliseconds.
    pub(crate) heartbeat_ms: u64,
    /// How long members wait for the leader before they elect another, at least, in milliseconds; at most twice that.
    pub(crate) election_ms: u64,
}

/// Looks at all that a metadata member has stored in a directory that nobody has open, and writes nothing.
///
/// # Errors
/// `Corrupt` with what is damaged, `Internal` when it cannot be read.
pub fn check(dir: &std::path::Path) -> Result<(), Error> {
    Disk::check(dir)
}

/// Who leads, as this member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    /// 0 when unknown.
    pub(crate) leader: u64,
    /// The leader's `host:port`, where known.
    pub(crate) address: Option<String>,
    /// Whether this member leads and a majority said so lately.
    pub(crate) mine: bool,
    /// Whether this member hears a leader that a majority follows, as far as it can tell.
    pub(crate) current: bool,
    pub(crate) applied: u64,
}

/// This member's part in the Raft group.
pub(crate) struct Group {
    raft: openraft::Raft<TypeConfig>,
    identity: Identity,
    election_ms: u64,
    answered: network::Answered,
}

impl Group {
    /// Starts Raft over what the disk holds. New states are published as they are applied.
    pub(crate) async fn open(
        disk: Arc<Disk>,
        identity: Identity,
        timing: Timing,
        dial: Arc<dyn Dial>,
        states: Arc<watch::Sender<Arc<State>>>,
    ) -> Result<Self, Error> {
        let config = openraft::Config {
            cluster_name: identity.birth.cluster_id.clone(),
            heartbeat_interval: timing.heartbeat_ms,
            election_timeout_min: timing.election_ms,
            election_timeout_max: timing.election_ms * 2,
            install_snapshot_timeout: 5_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
            max_in_snapshot_log_to_keep: LOG_KEPT,
            purge_batch_size: 64,
            ..Default::default()
        };
        let config = Arc::new(config.validate().map_err(Error::internal)?);
        let log = log_store::LogStore::new(disk.clone());
        let machine = machine::Machine::open(disk, states)?;
        let answered = network::Answered::default();
        let peers = network::Peers::new(dial, identity.birth.cluster_id.clone(), answered.clone());
        let raft = openraft::Raft::new(identity.member, config, peers, log, machine)
            .await
            .map_err(Error::internal)?;
        Ok(Self { raft, identity, election_ms: timing.election_ms, answered })
    }

    /// This member's id and cluster.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Makes the first membership known; harmless when there is one.
    pub(crate) async fn initialize(&self) -> Result<(), Error> {
        if self.raft.is_initialized().await.map_err(Error::internal)? {
            return Ok(());
        }
        let member = |(index, address): (usize, &String)| (index as u64 + 1, BasicNode::new(address));
        let members: BTreeMap<u64, BasicNode> =
            self.identity.birth.members.iter().enumerate().map(member).collect();
        self.raft.initialize(members).await.map_err(Error::internal)
    }

    /// Who leads.
    pub(crate) fn leadership(&self) -> Leadership {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.unwrap_or(0);
        let leads = metrics.state == ServerState::Leader && leader == self.identity.member;
        let alone = membership.voter_ids().count() == 1;
        let heard = metrics.millis_since_quorum_ack.is_some_and(|age_ms| age_ms < self.election_ms * 2);
        let mine = leads && (alone || heard);
        Leadership {
            term: metrics.current_term,
            leader,
            address: membership.get_node(&leader).map(|node| node.addr.clone()),
            mine,
            current: mine || (!leads && leader != 0),
            applied: metrics.last_applied.map_or(0, |log| log.index),
        }
    }

    /// Fails unless this member leads; the error names who does.
    pub(crate) fn check_leads(&self) -> Result<(), Error> {
        let leadership = self.leadership();
        if leadership.mine {
            return Ok(());
        }
        Err(not_leader(leadership.address.as_deref().filter(|_| leadership.leader != self.identity.member)))
    }

    /// Waits until this member's state has everything that was agreed on before the call, and that it still leads.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        match timeout(WRITE_TIMEOUT, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => match error.forward_to_leader() {
                Some(to) => Err(forward(to)),
                None => Err(Error::new(ErrorKind::Unavailable, error.to_string())),
            },
            Err(_) => Err(no_majority()),
        }
    }

    /// Puts a command through the log.
    pub(crate) async fn write(&self, command: Command) -> Result<Reply, Error> {
        let reply = match timeout(WRITE_TIMEOUT, self.raft.client_write(command)).await {
            Ok(Ok(response)) => response.data,
            Ok(Err(error)) => return Err(write_error(&error)),
            Err(_) => return Err(no_majority()),
        };
        match reply {
            Reply::Refused { kind, message } => {
                Err(Error::new(kind.parse().unwrap_or(ErrorKind::Internal), message))
            }
            reply => Ok(reply),
        }
    }

    /// A message from another member; the answer is its result as JSON.
    pub(crate) async fn receive(&self, kind: Kind, body: &[u8]) -> Result<Vec<u8>, Error> {
        match kind {
            Kind::Append => encode(&self.raft.append_entries(decode(body)?).await),
            Kind::Vote => encode(&self.raft.vote(decode(body)?).await),
            Kind::Snapshot => encode(&self.raft.install_snapshot(decode(body)?).await),
            Kind::Identify => Err(Error::new(ErrorKind::Invalid, "an identity is not for Raft")),
        }
    }

    /// The members with their addresses and whether they vote.
    pub(crate) fn members(&self) -> Vec<(u64, String, bool)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        membership.nodes().map(|(id, node)| (*id, node.addr.clone(), voters.contains(id))).collect()
    }

    /// How long ago a member answered this one, in milliseconds; 0 for itself. The leader asks all of them all the time,
    /// others ask nobody.
    pub(crate) fn heard_age_ms(&self, member: u64) -> Option<u64> {
        if member == self.identity.member {
            return Some(0);
        }
        self.answered.lock().get(&member).map(|at| at.elapsed().as_millis() as u64)
    }

    /// Lets a new member catch up, then vote.
    pub(crate) async fn add_member(&self, member: u64, address: &str) -> Result<(), Error> {
        let learn = self.raft.add_learner(member, BasicNode::new(address), true);
        let learnt = timeout(CATCH_UP_TIMEOUT, learn).await;
        let late =
            |_| Error::new(ErrorKind::Timeout, format!("{address} did not catch up in time; ask again"));
        learnt.map_err(late)?.map_err(|error| write_error(&error))?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([member]))).await
    }

    /// Removes a member.
    pub(crate) async fn remove_member(&self, member: u64) -> Result<(), Error> {
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([member]))).await
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), Error> {
        match timeout(CATCH_UP_TIMEOUT, self.raft.change_membership(change, false)).await {
            Ok(result) => result.map(|_| ()).map_err(|error| write_error(&error)),
            Err(_) => Err(no_majority()),
        }
    }

    /// Stops taking part.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }
}

fn write_error(error: &RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => forward(to),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Error::new(ErrorKind::Conflict, error.to_string())
        }
        RaftError::Fatal(error) => {
            Error::new(ErrorKind::Unavailable, format!("this metadata member stopped: {error}"))
        }
    }
}

fn forward(to: &ForwardToLeader<u64, BasicNode>) -> Error {
    not_leader(to.leader_node.as_ref().map(|node| node.addr.as_str()))
}

/// The leader's address comes last, where clients look for it.
fn not_leader(address: Option<&str>) -> Error {
    let text = match address {
        Some(address) => format!("this metadata member does not lead, ask {address}"),
        None => "this metadata member does not lead, and knows nobody who does".to_owned(),
    };
    Error::new(ErrorKind::NotServing, text)
}

fn no_majority() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "no majority of the metadata members answered in time; the change may still happen",
    )
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(message).map_err(Error::internal)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("raft message: {error}")))
}

#[cfg(test)]
mod tests;
