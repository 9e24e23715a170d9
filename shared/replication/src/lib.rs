//! How the copies of one shard stay equal: the shard protocol as pure state machines.
//!
//! It is PacificA with leases between the replicas. A configuration (epoch, primary, in-sync set, joining set) comes
//! from metadata; within an epoch the primary orders entries, and an entry is committed when every in-sync replica
//! has it durably. Nothing here reads a clock, draws a random number, or does I/O: times are arguments in milliseconds
//! of the node's monotonic clock, and what is to be done comes back as [`Action`]s and verdicts. The data node drives
//! the machines over its store and the network; the simulator in `metadata/tests/simulation` drives them, with the real
//! placement, over a hostile schedule.
//!
//! Rules that keep acknowledged entries, and where they are enforced:
//! - a replica stores an epoch before it answers under it ([`Shard::epoch_stored`]), and refuses older ones;
//! - an entry is identified by its `(epoch, sequence)`: a primary that restarts never appends under the epoch it had
//!   before, it asks for the next one first;
//! - whoever holds entries of older epochs after the sequence at which an epoch began cuts them ([`Verdict::Cut`]);
//! - what a replica may have acknowledged under an epoch it throws away under a later one only (`anew`);
//! - while a change of the in-sync set is in doubt, acknowledgements and leases need both sets;
//! - the primary acknowledges and serves only while every in-sync follower answered a beacon within the lease; a new
//!   primary begins only when a lease that it helped to renew has run out everywhere.

mod anew;
mod beacon;
mod follower;
mod handover;
mod leases;
mod log;
mod pace;
mod primary;
mod progress;
mod propose;
mod shard;

pub use anew::Renewal;
pub use beacon::{Answers, Pulse, Pulses};
pub use follower::{Ack, AckResult, BeaconVerdict, Entries, SnapshotVerdict, Verdict};
pub use leases::BeaconAnswer;
pub use log::{OlderEpochs, Position};
pub use pace::Links;
pub use primary::{Plan, Refusal};
pub use propose::ProposalOutcome;
pub use shard::{Action, Boot, RoleName, Shard, Status, Timing, View};
