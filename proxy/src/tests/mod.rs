//! The proxy over a cluster of fake data nodes in this process: whole requests in, whole answers out.

mod answers;
mod api;
mod cluster;
mod deletes;
mod failures;
mod limits;
mod remote_read;
mod stats;
