//! What metadata says of the cluster, for all who look at once: metadata is asked by one call at a time and at most
//! once in a second, however many pages are open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tricord_metadata_client::Cluster;
use tricord_metadata_client::view::ClusterView;

use crate::error::Error;

/// How long an answer is given to others too.
const FRESH: Duration = Duration::from_secs(1);
/// How long metadata may take.
const LIMIT: Duration = Duration::from_secs(3);

type Answer = Result<Bytes, Error>;

/// The newest call, and its answer once it is there.
struct Call {
    began: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

/// The cluster as metadata sees it; clones share their calls.
#[derive(Clone)]
pub(crate) struct ClusterStatus {
    cluster: Cluster,
    latest: Arc<Mutex<Option<Call>>>,
}

impl ClusterStatus {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, latest: Arc::default() }
    }

    /// A [`ClusterView`] as JSON, at most a second old.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when metadata does not answer within three seconds.
    pub(crate) async fn view(&self) -> Answer {
        let mut answer = self.call(Instant::now());
        let stopping = |_| Error::Unavailable("tricord stops".to_owned());
        let known = answer.wait_for(Option::is_some).await.map_err(stopping)?;
        known.clone().unwrap_or_else(|| Err(Error::Internal("no answer and no error".to_owned())))
    }

    /// The call that is under way or was begun just now, or else a new one. It goes on when its asker goes away: who
    /// hangs up again and again must not cost metadata more.
    fn call(&self, now: Instant) -> watch::Receiver<Option<Answer>> {
        let mut latest = self.latest.lock();
        if let Some(call) = latest.as_ref() {
            let ended = call.answer.borrow().is_some() || call.answer.has_changed().is_err();
            if !ended || now.saturating_duration_since(call.began) < FRESH {
                return call.answer.clone();
            }
        }
        let (sender, answer) = watch::channel(None);
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            // Nobody may be left to hear it.
            let _ = sender.send(Some(ask(&cluster).await));
        });
        *latest = Some(Call { began: now, answer: answer.clone() });
        answer
    }
}

async fn ask(cluster: &Cluster) -> Answer {
    let status = cluster.status(LIMIT).await.map_err(|error| {
        Error::Unavailable(format!(
            "no metadata leader answered, so the state is not known: {}",
            error.message
        ))
    })?;
    let json = serde_json::to_vec(&ClusterView::new(&status));
    json.map(Bytes::from).map_err(|error| Error::Internal(error.to_string()))
}

#[cfg(test)]
mod tests;
