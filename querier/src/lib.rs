//! The data node: replicated shard logs, the head, RocksDB, and the execution of query fragments.
//!
//! [`start`] opens the store, registers the node and gives back a running [`Querier`], whose [`Querier::service`] is
//! what other roles talk to. Settings are [`Config`]'s; serving gRPC in a process of its own is [`run`]'s.

#[doc(hidden)]
pub mod bench;
mod check;
mod config;
mod error;
mod exec;
mod maintain;
mod metrics;
mod node;
mod replica;
mod service;
mod storage;
mod write;

pub use check::check;
pub use config::{Config, Fsync};
pub use error::Error;
pub use node::{Deps, Querier, run, start};
pub use storage::check::{CheckProgress, CheckReport, Finding, Looked};
