//! Storage of a data node: the log, the head in memory, and windows in RocksDB.
//!
//! A write goes `judge` (primary only) → `append` (log, durable, then the head) → `commit` → `flush` (a window becomes
//! sorted files in RocksDB). A [`Reader`] sees head and files as one. Everything is synchronous and thread-safe; time
//! is an argument. Who the primary is, and when an entry is committed, is decided elsewhere.

mod config;
mod error;
mod reader;
mod store;

pub use config::{
    Counts, Entry, FlushReport, FsyncMode, Judged, Position, Progress, StoreConfig, StoreStats,
};
pub use error::Error;
pub use reader::Reader;
pub use store::{SnapshotChunks, Store};
