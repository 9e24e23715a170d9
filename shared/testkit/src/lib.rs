//! Real processes for tests: a `tricord` in one process or a local cluster, on free loopback ports and in a folder of
//! its own, with ways to kill, pause, stop and restart it, and small clients.
//!
//! The binary's path is an argument (tests of the root package have it in `CARGO_BIN_EXE_tricord`). Everything polls
//! with a deadline. Logs of processes go to stderr when a test fails.

pub mod chunks;
mod client;
mod cluster;
mod ports;
mod process;
pub mod prompb;
pub mod remote_read;
mod remote_write;
mod remote_write_v2;
mod single;
mod slow_link;
mod wait;

pub use client::{Answer, Client};
pub use cluster::{LocalCluster, Member, Shape};
pub use ports::{free_base_port, free_ports};
pub use process::Process;
pub use remote_write::{RemoteSeries, remote_write_body};
pub use remote_write_v2::remote_write_v2_body;
pub use single::{Single, SingleBuilder};
pub use slow_link::SlowLink;
pub use wait::{START_LIMIT, eventually};
