//! Snapshots on the wire: chunks with checksums, read on one side and put in place on the other at the slower one's pace.

use std::time::{Duration, Instant};

use futures::StreamExt;
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tricord_wire::proto::datanode as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};

use super::Replicas;
use crate::storage::{self, SnapshotChunks};

/// Chunks read ahead.
pub(super) const CHUNKS_AHEAD: usize = 4;
/// How long the next chunk may take.
const CHUNK_LIMIT: Duration = Duration::from_secs(60);
/// How long a receiver may leave a chunk lying: what a snapshot reads is kept from being removed until then.
const STALL_LIMIT: Duration = Duration::from_secs(600);

impl Replicas {
    /// Waits until a chunk may be sent.
    fn pace(&self, bytes: usize) {
        let wait = self.throttle.take(Instant::now(), bytes);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        self.metrics.snapshot_wait_ms.inc_by(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    }

    /// Sends a snapshot, no faster than `snapshot_bytes_per_s`. On a blocking thread of the runtime; a channel that is full
    /// blocks it. A failure is sent as well.
    pub(super) fn send_chunks(
        &self,
        header: pb::SnapshotHeader,
        chunks: SnapshotChunks,
        sent_bytes: &Counter,
        sender: &mpsc::Sender<Result<pb::SnapshotChunk, Error>>,
    ) -> Result<(), Error> {
        let runtime = Handle::current();
        let send = |chunk| match runtime.block_on(timeout(STALL_LIMIT, sender.send(chunk))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Cancelled, "the receiver of a snapshot went away")),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "the receiver of a snapshot went silent")),
        };
        let mut header = Some(header);
        for chunk in chunks {
            let data = match chunk {
                Ok(data) => data,
                Err(error) => {
                    let error = Error::from(error);
                    send(Err(error.clone()))?;
                    return Err(error);
                }
            };
            self.pace(data.len());
            sent_bytes.inc_by(data.len() as u64);
            let crc = crc32c::crc32c(&data);
            send(Ok(pb::SnapshotChunk { header: header.take(), data: data.into(), crc, last: false }))?;
        }
        send(Ok(pb::SnapshotChunk { header: header.take(), last: true, ..Default::default() }))
    }
}

/// What the installing thread is handed: only an explicit end completes a snapshot.
enum Piece {
    Data(Vec<u8>),
    End,
    Failed(String),
}

/// Hands a snapshot that comes in, from its first chunk on, to `install` on another thread. The caller has a permit of
/// `Replicas::fills`.
pub(super) async fn take_chunks(
    first: pb::SnapshotChunk,
    chunks: ResponseStream<pb::SnapshotChunk>,
    install: impl FnOnce(&mut dyn Iterator<Item = Result<Vec<u8>, storage::Error>>) -> Result<(), Error>
    + Send
    + 'static,
) -> Result<(), Error> {
    let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
    // As long as the network takes: not a thread of those that short work waits for.
    let installing = tokio::task::spawn_blocking(move || {
        install(&mut std::iter::from_fn(|| match receiver.blocking_recv() {
            Some(Piece::Data(data)) => Some(Ok(data)),
            Some(Piece::End) => None,
            Some(Piece::Failed(why)) => Some(Err(storage::Error::Corrupt(why))),
            None => Some(Err(storage::Error::Corrupt("the snapshot was interrupted".to_owned()))),
        }))
    });
    let (installed, ()) = tokio::join!(installing, feed(first, chunks, sender));
    installed.map_err(Error::internal)?
}

pub(super) fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

/// The next chunk, checked.
pub(super) async fn next_chunk(
    chunks: &mut ResponseStream<pb::SnapshotChunk>,
) -> Result<pb::SnapshotChunk, Error> {
    let late = |_| Error::new(ErrorKind::Timeout, "the sender of a snapshot went silent");
    let chunk = timeout(CHUNK_LIMIT, chunks.next()).await.map_err(late)?;
    let chunk = chunk.ok_or_else(|| invalid("a snapshot ended before its last chunk"))??;
    if crc32c::crc32c(&chunk.data) != chunk.crc {
        return Err(Error::new(ErrorKind::Corrupt, "a chunk of a snapshot was damaged on its way"));
    }
    Ok(chunk)
}

/// Hands chunks to the installing thread; a failure becomes the store's, so that nothing half is kept. Where the thread
/// has given up already there is nobody to hand to.
async fn feed(
    first: pb::SnapshotChunk,
    mut chunks: ResponseStream<pb::SnapshotChunk>,
    sender: mpsc::Sender<Piece>,
) {
    let mut chunk = first;
    loop {
        if !chunk.data.is_empty() && sender.send(Piece::Data(chunk.data.to_vec())).await.is_err() {
            return;
        }
        if chunk.last {
            let _ = sender.send(Piece::End).await;
            return;
        }
        chunk = match next_chunk(&mut chunks).await {
            Ok(next) => next,
            Err(error) => {
                let _ = sender.send(Piece::Failed(error.message)).await;
                return;
            }
        };
    }
}
