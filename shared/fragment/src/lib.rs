//! Fragments and partials: the pieces of a query that data nodes run, and what they answer.
//!
//! The proxy plans a query into [`Fragment`]s, each data node runs one over the shards it answers for, and the proxy
//! merges the [`Partial`]s. Both sides of that contract live here, with the laws of merging, so that neither role
//! knows the other.

mod fragment;
mod limits;
mod partial;
pub mod trace;

pub use fragment::{AggregateSpec, FRAGMENT_VERSION, Fragment, FragmentBody, LabelQuery, PromqlFragment};
pub use limits::{Estimate, FragmentStats, QueryLimits};
pub use partial::{Cardinality, Partial, PartialBody};

/// Why a fragment or partial could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not what this build writes, nor what an older one wrote.
    #[error("cannot read a {what}: {why}")]
    Encoding {
        /// fragment or partial.
        what: &'static str,
        /// What was found.
        why: String,
    },
    /// A newer build sent it.
    #[error("{what} has version {found}, this build knows versions up to {known}: upgrade this node")]
    Version {
        /// fragment or partial.
        what: &'static str,
        /// The sender's version.
        found: u8,
        /// The newest one known here.
        known: u8,
    },
}
