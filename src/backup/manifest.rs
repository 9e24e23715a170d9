//! The manifest of a backup: what is in it, and in which files. It is JSON with a checksum, and written last, so that a
//! directory without one is no backup.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::{FILE_MODE, parts};

/// The manifest's name.
pub(super) const FILE: &str = "backup.json";
/// What it says of itself.
const KIND: &str = "tricord backup";
/// The layout of a backup that this build writes; it reads no other one.
const VERSION: u64 = 1;
/// No manifest is larger: a damaged file must not fill the memory.
const MAX_BYTES: u64 = 256 << 20;

/// What a backup has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// When it was begun, as RFC 3339. Everything that was acknowledged before is in it.
    pub(super) created: String,
    /// The version of the program that made it.
    pub(super) build: String,
    /// The cluster that it is of.
    pub(super) cluster_id: String,
    /// How many shards that has.
    pub(super) shards: u32,
    /// How many copies of each it was born with.
    pub(super) replicas: u32,
    /// How many of them must be in sync for a write.
    pub(super) min_insync: u32,
    /// Shards that could not be copied.
    pub(super) missing: Vec<u32>,
    /// The copies, by shard.
    pub(super) copies: Vec<ShardCopy>,
}

/// The copy of one shard: its files one behind the other are the stream of `querier/FORMAT.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardCopy {
    pub(super) shard: u32,
    /// The last entry that is in it, 0 for none, and its epoch.
    pub(super) seq: u64,
    pub(super) epoch: u64,
    /// The node that it came from.
    pub(super) node: u64,
    /// The version of its keys and values.
    pub(super) store_format: u32,
    /// The length of its windows, in milliseconds.
    pub(super) window_ms: i64,
    /// Retention classes of which it has data, but the default one.
    pub(super) retention_classes: Vec<String>,
    pub(super) files: Vec<PartFile>,
}

/// A file of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// XXH3 with 128 bits, in hex, as `xxh128sum` prints it.
    pub(super) xxh3_128: String,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Envelope {
    kind: String,
    version: u64,
    /// XXH3 with 128 bits of `backup` as compact JSON with sorted keys, in hex.
    checksum: String,
    backup: Value,
}

fn checksum(backup: &Value) -> Result<String> {
    Ok(format!("{:032x}", xxh3_128(&serde_json::to_vec(backup)?)))
}

impl Manifest {
    /// All bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// Its files.
    pub(super) fn files(&self) -> impl Iterator<Item = &PartFile> {
        self.copies.iter().flat_map(|copy| &copy.files)
    }

    /// Writes it: beside, synced, renamed.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let backup = serde_json::to_value(self)?;
        let envelope =
            Envelope { kind: KIND.to_owned(), version: VERSION, checksum: checksum(&backup)?, backup };
        let text = format!("{:#}\n", serde_json::to_value(envelope)?);
        let (staged, path) = (dir.join(format!("{FILE}.new")), dir.join(FILE));
        let write = || -> std::io::Result<()> {
            let mut file = File::options().write(true).create_new(true).mode(FILE_MODE).open(&staged)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&staged, &path)?;
            File::open(dir)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads and checks it; its files are not looked at.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let shown = path.display();
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("{} is not a whole backup: {FILE}, which is written last, is not there", dir.display())
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        }
        let damaged = || format!("{shown} is damaged: use another backup");
        let envelope: Envelope = serde_json::from_slice(&text).with_context(damaged)?;
        ensure!(envelope.kind == KIND, "{shown} is not the manifest of a backup");
        if envelope.version != VERSION {
            let version = envelope.version;
            bail!(
                "{shown} has version {version}, this build knows {VERSION}: use the build that made it or a newer one"
            );
        }
        ensure!(checksum(&envelope.backup)? == envelope.checksum, damaged());
        let manifest: Self = serde_json::from_value(envelope.backup).with_context(damaged)?;
        manifest.check().with_context(damaged)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let copied = self.copies.iter().map(|copy| copy.shard);
        let mut shards: Vec<u32> = copied.chain(self.missing.iter().copied()).collect();
        shards.sort_unstable();
        ensure!(shards.iter().copied().eq(0..self.shards), "it does not name every shard once");
        let names: BTreeSet<&str> = self.files().map(|file| file.name.as_str()).collect();
        ensure!(names.len() == self.files().count(), "it names a file twice");
        let strange = names.iter().find(|name| !parts::is_name(name));
        ensure!(strange.is_none(), "it names a strange file");
        Ok(())
    }
}
