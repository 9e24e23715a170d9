//! Storage of a data node: the log, the head in memory, and windows in RocksDB.
//!
//! A write goes `judge` (primary only) → `append` (log, durable, then the head) → `commit` → `flush` (a window becomes
//! sorted files in RocksDB). A [`Reader`] sees head and files as one. Everything is synchronous and thread-safe; time
//! is an argument. Who the primary is, and when an entry is committed, is decided elsewhere. FORMAT.md describes every
//! key and block.

pub(crate) mod block;
mod books;
mod cache;
pub(crate) mod check;
mod classes;
mod compact;
mod config;
mod damage;
mod deletes;
mod disk;
mod error;
mod flush;
mod format;
mod give_up;
mod guard;
mod head;
mod install;
mod judge;
mod keys;
mod ledger;
pub(crate) mod log;
mod maintain;
mod marks;
mod mend;
mod merge;
mod open;
mod pieces;
mod reader;
mod snapshot;
mod state;
mod store;
mod warm;

#[cfg(test)]
mod tests;

pub(crate) use config::{
    ClassStats, CleanReport, Counts, Entry, FlushReport, FsyncMode, Judged, MergeReport, Position, Progress,
    StoreConfig, StoreStats,
};
pub(crate) use error::Error;
pub(crate) use reader::Reader;
pub(crate) use snapshot::SnapshotChunks;
pub(crate) use store::Store;
