//! A way to a process on which everything takes longer: connections are forwarded, and each piece of what goes through, in
//! either direction, is held back for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces under way in one direction of a connection; a sender waits for more.
const PIECES: usize = 1024;
/// Size of a piece, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// A forwarded address.
#[derive(Debug)]
pub struct SlowLink {
    address: String,
    held_back_ms: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl SlowLink {
    /// A way to `target` (`host:port`), as quick as the target itself at first.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn to(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a link")?;
        let address = listener.local_addr()?.to_string();
        let held_back_ms = Arc::new(AtomicU64::new(0));
        let (target, delay) = (target.to_owned(), Arc::clone(&held_back_ms));
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(join(near, target.clone(), Arc::clone(&delay)));
            }
        });
        Ok(Self { address, held_back_ms, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on everything takes so much longer, in each direction.
    pub fn hold_back(&self, by: Duration) {
        self.held_back_ms.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Joins a connection with a new one to the target, until either ends.
async fn join(near: TcpStream, target: String, delay: Arc<AtomicU64>) {
    let Ok(far) = TcpStream::connect(&target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_reads, near_writes), (far_reads, far_writes)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = forward(near_reads, far_writes, Arc::clone(&delay)) => {}
        () = forward(far_reads, near_writes, delay) => {}
    }
}

async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Arc<AtomicU64>) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(count) => piece.truncate(count),
            }
            let due = Instant::now() + Duration::from_millis(delay.load(Ordering::Relaxed));
            if sender.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
