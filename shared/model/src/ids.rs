//! Identifiers that every role passes around.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A shard: one of the `N` parts of the key space, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

/// A process of the cluster. Allocated once by metadata, kept on the node's disk, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

/// The version of one shard's place in the shard map. A request under an older epoch is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The place of an entry in its shard's log. The first entry has 1; 0 stands for "nothing yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The sequence number that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! display_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_as_number!(ShardId, NodeId, Epoch, Seq);

/// A hard wall between users' data, as named by the header `X-Scope-OrgID`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(Arc<str>);

/// Why a tenant's name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tenant {name:?} is not valid: use 1 to 150 letters, digits or any of !-_.*'() and not . or ..")]
pub struct TenantError {
    /// The refused name, cut to 150 characters.
    pub name: String,
}

impl Tenant {
    /// The header that names the tenant of a request.
    pub const HEADER: &'static str = "x-scope-orgid";
    /// Who a request without the header belongs to.
    pub const DEFAULT: &'static str = "default";
    /// Under which tenant Tricord stores its own metrics and traces.
    pub const OWN: &'static str = "tricord";

    /// Checks a name by Mimir's rules, which Grafana users already follow.
    ///
    /// # Errors
    /// [`TenantError`] when the name is empty, longer than 150 bytes, or holds other characters.
    pub fn new(name: &str) -> Result<Self, TenantError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
        let fits = !name.is_empty() && name.len() <= 150 && name.chars().all(allowed);
        if fits && name != "." && name != ".." {
            Ok(Self(name.into()))
        } else {
            Err(TenantError { name: name.chars().take(150).collect() })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tricord's own tenant.
    #[must_use]
    pub fn own() -> Self {
        Self(Self::OWN.into())
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
