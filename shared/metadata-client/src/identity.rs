//! Who a process is: its node id, its cluster and a random token, kept in one file of its data directory.
//!
//! Identity lives on the disk and nowhere else: a lost disk is a new node, a moved disk is the same node. The token is
//! written before the first registration, so that a crash in between does not allocate a second id.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tricord_model::NodeId;
use tricord_wire::proto::metadata::{NodeAddress, RegisterRequest};

const FILE: &str = "identity.json";

/// Why an identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("identity file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is not an identity.
    #[error(
        "identity file {path} is damaged ({reason}); restore it, or empty the data directory to join as a new node"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Allocated once by metadata; 0 until registered.
    pub node_id: NodeId,
    /// The cluster that it belongs to; empty until registered.
    pub cluster_id: String,
    /// Random, minted with the identity: makes a repeated registration harmless.
    pub token: String,
}

impl Identity {
    /// A new identity that has not been registered yet.
    #[must_use]
    pub fn mint() -> Self {
        Self { node_id: NodeId(0), cluster_id: String::new(), token: uuid::Uuid::new_v4().to_string() }
    }

    /// Whether metadata has given it a node id.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.node_id.0 != 0
    }

    /// The registration of a process at an address.
    pub(crate) fn register_request(&self, address: &NodeAddress) -> RegisterRequest {
        RegisterRequest {
            node: self.node_id.0,
            cluster_id: self.cluster_id.clone(),
            token: self.token.clone(),
            address: Some(address.clone()),
        }
    }

    /// Reads the identity of a data directory; `None` when it has none yet.
    ///
    /// # Errors
    /// When the file cannot be read, or is not an identity.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { path, source }),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| IdentityError::Damaged { path, reason: error.to_string() })
    }

    /// Reads the identity of a data directory, or mints one and writes it there.
    ///
    /// # Errors
    /// As [`Identity::load`] and [`Identity::store`].
    pub fn load_or_mint(dir: &Path) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(dir)? {
            return Ok(identity);
        }
        let identity = Self::mint();
        identity.store(dir)?;
        Ok(identity)
    }

    /// Writes the identity durably and at once: after a crash the file is the old one or the new one.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn store(&self, dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(FILE);
        let write = || {
            fs::create_dir_all(dir)?;
            let fresh = dir.join(format!("{FILE}.new"));
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|source: io::Error| IdentityError::Io { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("deep/er");
        let minted = Identity::load_or_mint(&dir).unwrap();
        assert!(!minted.is_registered());
        assert_eq!(Identity::load_or_mint(&dir).unwrap(), minted);
        let registered = Identity { node_id: NodeId(4), cluster_id: "c".into(), ..minted };
        registered.store(&dir).unwrap();
        assert_eq!(Identity::load(&dir).unwrap().unwrap(), registered);
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"{\"node_id\":").unwrap();
        assert!(matches!(Identity::load_or_mint(dir.path()), Err(IdentityError::Damaged { .. })));
    }
}
