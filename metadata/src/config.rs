//! Settings of a metadata member.

use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use tricord_wire::{Error, ErrorKind};

use crate::state::Birth;

/// The most shards that a cluster may be born with; each costs every data node a little, for ever.
const MAX_SHARDS: u32 = 4096;
/// The most copies; more only slow writes down.
const MAX_REPLICAS: u32 = 9;

/// Settings of a metadata member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the Raft log and snapshots lie.
    pub data_dir: PathBuf,
    /// `host:port` at which other members and roles reach this member's gRPC listener. Kept in the group's membership.
    pub advertise: String,
    /// Births a cluster of this member alone when there is none: for a single process. Elsewhere `tricord cluster init`
    /// does it, so that a lost disk never makes a second cluster.
    pub auto_init: bool,
    /// Copies of each shard; read when this member births the cluster by itself.
    pub replicas: u32,
    /// In-sync copies that a write needs; read when this member births the cluster by itself.
    pub min_insync: u32,
    /// Number of shards; read when this member births the cluster by itself.
    pub shards: u32,
    /// A node without a heartbeat for this long counts as dead, in milliseconds.
    pub node_lease_ms: u64,
    /// A node that has been dead for this long gets its copies made elsewhere, in milliseconds.
    pub node_gone_after_ms: u64,
    /// How long the first placement waits for further data nodes after the last new one, in milliseconds.
    pub settle_ms: u64,
    /// How long nothing must have happened before primaries and copies are evened out, in milliseconds.
    pub calm_after_ms: u64,
    /// How often the Raft leader speaks, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long members wait for a silent leader before they elect another, in milliseconds; at most twice that.
    pub election_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./tricord-data/metadata"),
            advertise: "127.0.0.1:7301".to_owned(),
            auto_init: false,
            replicas: 3,
            min_insync: 2,
            shards: 64,
            node_lease_ms: 2_500,
            node_gone_after_ms: 15 * 60_000,
            settle_ms: 1_000,
            calm_after_ms: 30_000,
            heartbeat_ms: 250,
            election_ms: 1_250,
        }
    }
}

impl Config {
    /// The settings of a single process: one copy, born at the first start, placed at once.
    #[must_use]
    pub fn single(data_dir: PathBuf) -> Self {
        Self { data_dir, auto_init: true, replicas: 1, min_insync: 1, settle_ms: 0, ..Self::default() }
    }

    /// Whether a member could start with these.
    ///
    /// # Errors
    /// `Invalid`, with the setting that makes no sense.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |text: &str| Err(Error::new(ErrorKind::Invalid, text.to_owned()));
        if self
            .advertise
            .rsplit_once(':')
            .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            return wrong("the advertised address is not host:port; set --advertise");
        }
        if self.node_lease_ms < 200 {
            return wrong("a node lease below 200 ms would declare busy nodes dead");
        }
        if self.heartbeat_ms == 0 || self.election_ms < self.heartbeat_ms * 3 {
            return wrong("the election time must be at least three Raft heartbeats");
        }
        check_birth(&self.birth(String::new()))
    }

    /// A cluster of this member alone.
    pub(crate) fn birth(&self, cluster_id: String) -> Birth {
        Birth {
            cluster_id,
            shards: self.shards,
            replicas: self.replicas,
            min_insync: self.min_insync,
            members: vec![self.advertise.clone()],
        }
    }
}

/// Whether a cluster can be born like this.
pub(crate) fn check_birth(birth: &Birth) -> Result<(), Error> {
    let wrong = |text: String| Err(Error::new(ErrorKind::Invalid, text));
    if birth.shards == 0 || birth.shards > MAX_SHARDS {
        return wrong(format!("{} shards: use 1 to {MAX_SHARDS}", birth.shards));
    }
    if birth.replicas == 0 || birth.replicas > MAX_REPLICAS {
        return wrong(format!("{} replicas: use 1 to {MAX_REPLICAS}", birth.replicas));
    }
    if birth.min_insync == 0 || birth.min_insync > birth.replicas {
        return wrong(format!(
            "min_insync {}: use 1 to the number of replicas {}",
            birth.min_insync, birth.replicas
        ));
    }
    let mut members = birth.members.clone();
    members.sort();
    members.dedup();
    if members.is_empty() || members.len() != birth.members.len() || members.len() > 9 {
        return wrong("the members must be 1 to 9 different addresses".to_owned());
    }
    Ok(())
}
