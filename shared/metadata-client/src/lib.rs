//! How every role meets the metadata service: the watched shard map, registration and the identity on disk,
//! heartbeats from a thread of their own, proposals, and the clients for data nodes.
//!
//! [`Cluster`] is the one handle. When metadata is away the last map stays in use: metadata is not on the data path.
//! What the map says is decided by the metadata service; this crate only carries it. [`view`] is the cluster as people
//! see it.

mod cluster;
pub mod convert;
mod dial;
mod heartbeat;
mod identity;
mod members;
mod metrics;
mod nodes;
pub mod view;
mod watch;

pub use cluster::{Cluster, Proposal};
pub use dial::{Dial, Tcp, channel};
pub use heartbeat::{Heartbeat, Report};
pub use identity::{Identity, IdentityError};
pub use tricord_wire::proto::metadata::{NodeAddress, ReplicaReport};
pub use tricord_wire::{Error, ErrorKind};
