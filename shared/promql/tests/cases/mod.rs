//! Where test scripts are found: the project's own, and the upstream cases of Prometheus.

use std::path::{Path, PathBuf};

fn folder() -> Option<PathBuf> {
    if let Ok(folder) = std::env::var("PROMQLTEST_DIR") {
        return Some(PathBuf::from(folder));
    }
    crate_dir()
        .ancestors()
        .map(|folder| folder.join("shared/promqltest"))
        .find(|folder| folder.join("functions.test").exists())
}

/// The names and texts of the scripts in `PROMQLTEST_DIR`, or in `shared/promqltest` beside the checkout; `None`, with
/// a note, where there are none.
pub(crate) fn files() -> Option<Vec<(String, String)>> {
    let Some(folder) = folder() else {
        eprintln!("skipped: set PROMQLTEST_DIR to the folder of upstream's .test files");
        return None;
    };
    Some(scripts(&folder))
}

/// The names and texts of the project's own scripts.
pub(crate) fn own() -> Vec<(String, String)> {
    scripts(&crate_dir().join("../../integration/cases"))
}

/// The crate's folder as cargo says it at run time: a build cache may be shared by several checkouts.
fn crate_dir() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}

fn scripts(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .map(|path| {
            (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}
