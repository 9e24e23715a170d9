//! Follows the shard map: one stream to one member at a time, another member when it breaks or falls silent.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tricord_routing::ShardMap;
use tricord_wire::proto::metadata as pb;
use tricord_wire::{Error, ErrorKind, Metadata};

use crate::convert;
use crate::members::{Members, TRY_TIMEOUT, jitter};
use crate::metrics::Metrics;

/// Members confirm the map every second; a stream without a word for this long is given up.
const SILENCE: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Keeps the last map current.
pub(crate) struct Watcher {
    pub(crate) members: Members,
    pub(crate) map: Arc<watch::Sender<Arc<ShardMap>>>,
    pub(crate) confirmed: Arc<Mutex<Instant>>,
    pub(crate) metrics: Metrics,
}

impl Watcher {
    pub(crate) async fn run(self, cancelled: CancellationToken) {
        let mut age = interval(Duration::from_secs(1));
        let follow = self.follow_somebody();
        tokio::pin!(follow);
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = &mut follow => return,
                _ = age.tick() => {
                    self.metrics.map_age_seconds.set(self.confirmed.lock().elapsed().as_secs_f64());
                }
            }
        }
    }

    async fn follow_somebody(&self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let started = Instant::now();
            let (address, member) = match self.members.pick() {
                Ok(picked) => picked,
                Err(error) => {
                    tracing::error!(%error, "cannot watch the shard map");
                    return;
                }
            };
            let error = self.follow(&address, member).await;
            tracing::debug!(member = address, %error, "watching the shard map elsewhere");
            self.members.failed(&address, &error);
            if started.elapsed() > SILENCE {
                backoff = FIRST_BACKOFF;
            }
            sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Follows one member until it fails.
    async fn follow(&self, address: &str, member: Arc<dyn Metadata>) -> Error {
        let request = pb::WatchRequest { version: self.map.borrow().version };
        let mut maps = match timeout(TRY_TIMEOUT, member.watch(request)).await {
            Ok(Ok(maps)) => maps,
            Ok(Err(error)) => return error,
            Err(_) => return Error::new(ErrorKind::Timeout, "no shard map in time"),
        };
        loop {
            let taken = match timeout(SILENCE, maps.next()).await {
                Ok(Some(Ok(map))) => self.take(map),
                Ok(Some(Err(error))) => Err(error),
                Ok(None) => Err(Error::new(ErrorKind::Unavailable, "the member ended the watch")),
                Err(_) => Err(Error::new(ErrorKind::Timeout, "the member fell silent")),
            };
            match taken {
                Ok(()) => self.members.answered(address),
                Err(error) => return error,
            }
        }
    }

    /// Takes a map, or a confirmation of the one in use (which has no shards).
    fn take(&self, map: pb::ShardMap) -> Result<(), Error> {
        let current = self.map.borrow().clone();
        if !current.cluster_id.is_empty() && map.cluster_id != current.cluster_id {
            let text = format!("metadata serves cluster {}, not {}", map.cluster_id, current.cluster_id);
            tracing::error!("{text}; check the metadata addresses");
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if map.version < current.version {
            return Err(Error::new(ErrorKind::Unavailable, "the member is behind"));
        }
        if map.version > current.version {
            let map = convert::map_from_proto(map)?;
            self.metrics.map_version.set(map.version as i64);
            self.map.send_replace(Arc::new(map));
        }
        *self.confirmed.lock() = Instant::now();
        Ok(())
    }
}
