//! Looking at a data node's directory that no process has open.

use std::path::Path;

use tricord_metadata_client::{Identity, IdentityError};

use crate::storage::check::{self, CheckProgress, CheckReport, Finding};
use crate::{Error, storage};

/// Looks at everything that a data node has stored in a data directory, and writes nothing. Nobody else may have it open.
/// `progress` is called again and again.
///
/// # Errors
/// [`Error`] when it cannot be looked at: there is no store, it is of a newer build, or it cannot be read.
pub fn check(data_dir: &Path, progress: &dyn Fn(CheckProgress)) -> Result<CheckReport, Error> {
    let dir = data_dir.join("querier");
    let identity = Identity::load(&dir);
    let mut report = check::check(&data_dir.join("store"), progress).map_err(|error| match error {
        storage::Error::Invalid(why) => Error::Config(why),
        error => error.into(),
    })?;
    let finding = |what: String| Finding {
        place: dir.display().to_string(),
        what,
        lost: "who this node is: it cannot join its cluster".to_owned(),
        advice: "restore identity.json, or give this node a new data directory so that it joins as a new one"
            .to_owned(),
        ..Finding::default()
    };
    match identity {
        Ok(Some(identity)) if identity.is_registered() => {}
        Ok(_) => report.findings.push(finding("the node's identity is missing".to_owned())),
        Err(error @ IdentityError::Damaged { .. }) => report.findings.push(finding(error.to_string())),
        Err(error) => return Err(Error::Io(error.to_string())),
    }
    Ok(report)
}
