//! How a member gets its identity and a cluster is born, once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tricord_wire::proto::metadata::raft_request::Kind;
use tricord_wire::proto::metadata::{InitRequest, RaftRequest};
use tricord_wire::{Error, ErrorKind};

use super::Member;
use crate::config::check_birth;
use crate::raft::{Group, Identity, Key};
use crate::state::Birth;

/// How long another member may take to answer to its identity.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first election may take.
const BIRTH_TIMEOUT: Duration = Duration::from_secs(20);

impl Member {
    /// Takes part again with the identity on the disk.
    pub(super) async fn resume(&self) -> Result<(), Error> {
        match self.disk.get::<Identity>(Key::Identity)? {
            Some(identity) => self.open_group(identity).await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn open_group(&self, identity: Identity) -> Result<Arc<Group>, Error> {
        tracing::info!(
            member = identity.member,
            cluster = identity.birth.cluster_id,
            "metadata member starts"
        );
        let group =
            Group::open(self.disk.clone(), identity, self.timing(), self.dial.clone(), self.states.clone())
                .await?;
        let group = Arc::new(group);
        let own = group.members().into_iter().find(|(member, ..)| *member == group.identity().member);
        if let Some((member, known, _)) = own.filter(|(_, known, _)| *known != self.config.advertise) {
            let advertise = &self.config.advertise;
            tracing::warn!(member, known, advertise, "the other members know this one under another address");
        }
        *self.group.write() = Some(group.clone());
        self.wake.notify_one();
        Ok(group)
    }

    /// Takes an identity for good, or confirms the one it has.
    pub(super) async fn adopt(&self, identity: Identity) -> Result<Arc<Group>, Error> {
        if let Some(group) = self.group() {
            let own = group.identity();
            if (own.member, &own.birth.cluster_id) == (identity.member, &identity.birth.cluster_id) {
                return Ok(group);
            }
            let text = format!(
                "{} is member {} of cluster {} already",
                self.config.advertise, own.member, own.birth.cluster_id
            );
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        self.disk.put(Key::Identity, &identity, true)?;
        self.open_group(identity).await
    }

    /// A cluster of this member alone, where there is none yet.
    pub(super) async fn born_alone(&self) -> Result<(), Error> {
        let _one = self.changing.lock().await;
        let group = match self.group() {
            Some(group) => group,
            None => {
                let birth = self.config.birth(uuid::Uuid::new_v4().to_string());
                self.adopt(Identity { member: 1, birth }).await?
            }
        };
        group.initialize().await?;
        self.wait_born().await.map(|_| ())
    }

    /// `tricord cluster init`. Members that failed half-way go on where they were when it is run again.
    pub(super) async fn give_birth(&self, request: InitRequest) -> Result<String, Error> {
        let _one = self.changing.lock().await;
        let mut birth = Birth {
            cluster_id: uuid::Uuid::new_v4().to_string(),
            shards: request.shards,
            replicas: request.replicas,
            min_insync: request.min_insync,
            members: request.members,
        };
        check_birth(&birth)?;
        let own = birth.members.iter().position(|member| *member == self.config.advertise);
        let Some(own) = own else {
            let text =
                format!("the members {:?} lack the asked one, {}", birth.members, self.config.advertise);
            return Err(Error::new(ErrorKind::Invalid, text));
        };
        if let Some(group) = self.group() {
            self.check_unborn(&group, &birth)?;
            birth = group.identity().birth.clone();
        }
        let group = self.adopt(Identity { member: own as u64 + 1, birth: birth.clone() }).await?;
        for (index, address) in birth.members.iter().enumerate().filter(|(index, _)| *index != own) {
            self.identify(address, &Identity { member: index as u64 + 1, birth: birth.clone() }).await?;
        }
        group.initialize().await?;
        self.wait_born().await
    }

    fn check_unborn(&self, group: &Group, wanted: &Birth) -> Result<(), Error> {
        let known = &group.identity().birth;
        if self.state().is_born() || !group.members().is_empty() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("cluster {} exists already", known.cluster_id),
            ));
        }
        if (Birth { cluster_id: known.cluster_id.clone(), ..wanted.clone() }) != *known {
            let text = "a birth with other settings began earlier; repeat that one, or empty the metadata directories";
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        Ok(())
    }

    /// Tells another process which member it is.
    pub(super) async fn identify(&self, address: &str, identity: &Identity) -> Result<(), Error> {
        let request = RaftRequest {
            kind: Kind::Identify.into(),
            cluster_id: identity.birth.cluster_id.clone(),
            to_member: identity.member,
            body: serde_json::to_vec(identity).map_err(Error::internal)?.into(),
        };
        let client = self.dial.metadata(address)?;
        match timeout(IDENTIFY_TIMEOUT, client.raft(request)).await {
            Ok(Ok(answer)) if answer.member == identity.member => Ok(()),
            Ok(Ok(answer)) => {
                Err(Error::new(ErrorKind::Conflict, format!("{address} answers as member {}", answer.member)))
            }
            Ok(Err(error)) if error.kind == ErrorKind::Conflict => Err(error),
            Ok(Err(error)) => Err(unreachable(address, &error.message)),
            Err(_) => Err(unreachable(address, "no answer in time")),
        }
    }

    async fn wait_born(&self) -> Result<String, Error> {
        let mut states = self.states.subscribe();
        self.wake.notify_one();
        match timeout(BIRTH_TIMEOUT, states.wait_for(|state| state.is_born())).await {
            Ok(Ok(state)) => Ok(state.cluster_id.clone()),
            _ => {
                let text =
                    "the members elected no leader in time; see that they reach each other, then try again";
                Err(Error::new(ErrorKind::Timeout, text))
            }
        }
    }
}

fn unreachable(address: &str, why: &str) -> Error {
    let text = format!("metadata member {address} does not answer ({why}); start it, then try again");
    Error::new(ErrorKind::Unavailable, text)
}
