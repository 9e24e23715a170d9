//! The files of a backup: a shard's stream cut into files of bounded size, with a checksum of each.

use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::StreamExt;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tricord_runtime::Throttle;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};
use xxhash_rust::xxh3::Xxh3;

use super::manifest::{PartFile, ShardCopy};
use super::progress::Progress;
use super::{CHUNK_BYTES, FILE_MODE};

/// Chunks read ahead.
const AHEAD: usize = 4;
const PREFIX: &str = "shard-";
const SUFFIX: &str = ".part";

/// Whether a file may be one of a backup.
pub(super) fn is_name(name: &str) -> bool {
    let middle = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    middle.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '-'))
}

fn hex(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

/// The file that is being written.
struct Open {
    file: File,
    name: String,
    bytes: u64,
    hash: Xxh3,
}

/// Writes a shard's stream.
pub(super) struct PartWriter<'a> {
    dir: &'a Path,
    shard: u32,
    /// The size of a file, in bytes; the last one of a shard is smaller.
    part_bytes: u64,
    open: Option<Open>,
    done: Vec<PartFile>,
}

impl<'a> PartWriter<'a> {
    /// Begins; a file is made with the first bytes.
    pub(super) fn new(dir: &'a Path, shard: u32, part_bytes: u64) -> Self {
        Self { dir, shard, part_bytes, open: None, done: Vec::new() }
    }

    pub(super) async fn write(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin().await?,
            };
            let room = usize::try_from(self.part_bytes.saturating_sub(open.bytes)).unwrap_or(usize::MAX);
            let (now, rest) = data.split_at(room.min(data.len()));
            let written = open.file.write_all(now).await;
            written.with_context(|| format!("cannot write {}", self.dir.join(&open.name).display()))?;
            open.hash.update(now);
            open.bytes += now.len() as u64;
            let is_full = open.bytes >= self.part_bytes;
            self.open = Some(open);
            if is_full {
                self.close().await?;
            }
            data = rest;
        }
        Ok(())
    }

    async fn begin(&self) -> Result<Open> {
        let name = format!("{PREFIX}{:05}-{:05}{SUFFIX}", self.shard, self.done.len());
        let path = self.dir.join(&name);
        // What another backup writes there is not written over, and everybody's data is not for everybody.
        let made = File::options().write(true).create_new(true).mode(FILE_MODE).open(&path).await;
        let file = made.map_err(|error| match error.kind() {
            IoErrorKind::AlreadyExists => {
                anyhow!("{} is there already: give each backup a directory of its own", path.display())
            }
            _ => anyhow::Error::new(error).context(format!("cannot make {}", path.display())),
        })?;
        Ok(Open { file, name, bytes: 0, hash: Xxh3::new() })
    }

    async fn close(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let path = self.dir.join(&open.name);
        let synced = async {
            open.file.flush().await?;
            open.file.sync_all().await
        };
        synced.await.with_context(|| format!("cannot write {}", path.display()))?;
        self.done.push(PartFile { name: open.name, bytes: open.bytes, xxh3_128: hex(&open.hash) });
        Ok(())
    }

    /// Removes what was written.
    pub(super) async fn discard(self) {
        let names = self.done.iter().map(|part| &part.name).chain(self.open.as_ref().map(|open| &open.name));
        for name in names {
            // What stays there is in no manifest.
            let _ = tokio::fs::remove_file(self.dir.join(name)).await;
        }
    }

    /// Makes everything durable; answers the files.
    pub(super) async fn finish(mut self) -> Result<Vec<PartFile>> {
        self.close().await?;
        Ok(self.done)
    }
}

/// Reads a file from its begin to its end, and hands out what it reads; fails where it is not what was written.
async fn read_part<F: Future<Output = bool>>(
    dir: &Path,
    part: &PartFile,
    mut take: impl FnMut(Vec<u8>) -> F,
) -> Result<()> {
    let path = dir.join(&part.name);
    let shown = path.display();
    let mut file = File::open(&path).await.with_context(|| format!("cannot read {shown}"))?;
    let (mut hash, mut bytes) = (Xxh3::new(), 0_u64);
    loop {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data).await;
        if read.with_context(|| format!("cannot read {shown}"))? == 0 {
            break;
        }
        bytes += data.len() as u64;
        ensure!(bytes <= part.bytes, "{shown} is damaged: it is longer than it was written");
        hash.update(&data);
        if !take(data).await {
            return Ok(());
        }
    }
    if bytes != part.bytes {
        bail!("{shown} is damaged: it has {bytes} bytes, {} were written", part.bytes);
    }
    ensure!(hex(&hash) == part.xxh3_128, "{shown} is damaged: its checksum is not that of what was written");
    Ok(())
}

/// Reads a file without using it.
pub(super) async fn verify(dir: &Path, part: &PartFile, progress: &Progress) -> Result<()> {
    read_part(dir, part, |data| {
        progress.add_bytes(data.len());
        std::future::ready(true)
    })
    .await
}

/// A shard's stream for a data node, with `header` in its first chunk. The last chunk comes only after all files were as
/// they were written; else the handle has the reason.
pub(super) fn read(
    dir: PathBuf,
    copy: ShardCopy,
    header: pb::SnapshotHeader,
    throttle: Arc<Throttle>,
    progress: Arc<Progress>,
) -> (ResponseStream<pb::SnapshotChunk>, JoinHandle<Result<()>>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = tokio::spawn(async move {
        let mut header = Some(header);
        let mut sent = Ok(());
        for part in &copy.files {
            sent = read_part(&dir, part, |data| {
                let header = header.take();
                let (sender, throttle, progress) = (&sender, &throttle, &progress);
                async move {
                    tokio::time::sleep(throttle.take(Instant::now(), data.len())).await;
                    progress.add_bytes(data.len());
                    let crc = crc32c::crc32c(&data);
                    let chunk = pb::SnapshotChunk { header, data: data.into(), crc, last: false };
                    sender.send(Ok(chunk)).await.is_ok()
                }
            })
            .await;
            if sent.is_err() {
                break;
            }
        }
        let last = match &sent {
            Ok(()) => Ok(pb::SnapshotChunk { header: header.take(), last: true, ..Default::default() }),
            Err(error) => Err(Error::new(ErrorKind::Corrupt, format!("{error:#}"))),
        };
        // A node that does not want it says why itself.
        let _ = sender.send(last).await;
        sent
    });
    (ReceiverStream::new(receiver).boxed(), reading)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn two_backups_in_one_directory_do_not_write_over_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = PartWriter::new(dir.path(), 3, 4);
        first.write(b"first").await.unwrap();
        let mut second = PartWriter::new(dir.path(), 3, 4);
        let refused = second.write(b"second").await.unwrap_err();
        assert!(refused.to_string().contains("shard-00003-00000.part is there already"), "{refused}");
        second.discard().await;
        let done = first.finish().await.unwrap();
        let progress = Progress::default();
        for part in &done {
            verify(dir.path(), part, &progress).await.unwrap();
            let mode = dir.path().join(&part.name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, FILE_MODE);
        }
        assert_eq!(done.len(), 2);

        // A shard that is copied again begins anew.
        let mut again = PartWriter::new(dir.path(), 4, 4);
        again.write(b"broken off").await.unwrap();
        again.discard().await;
        let mut again = PartWriter::new(dir.path(), 4, 4);
        again.write(b"whole").await.unwrap();
        assert_eq!(again.finish().await.unwrap().len(), 2);
    }
}
