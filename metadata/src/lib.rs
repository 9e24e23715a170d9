//! The metadata service: a small Raft group that agrees on nodes, the shard map and its epochs. Samples never pass
//! through it, and healthy shards go on without it.
//!
//! `state` is what is agreed on and which changes are legal, `placement` where copies belong, `raft` the only user of
//! openraft, `leader` what the leading member does on its own, `service` the calls of the other roles.

mod config;
mod drain;
mod leader;
mod metrics;
pub mod placement;
mod raft;
mod service;
pub mod state;

pub use config::Config;
pub use raft::check;
pub use service::{Deps, Member, start};
pub use tricord_wire::{Error, ErrorKind};
