//! The stream of shard maps: the newest one at once, each newer one, and every second a word that it still holds.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::sync::watch;
use tokio::time::timeout;
use tricord_metadata_client::convert;
use tricord_runtime::Counted;
use tricord_wire::proto::metadata as pb;
use tricord_wire::{Error, ErrorKind, ResponseStream};

use super::Member;
use crate::raft::Group;
use crate::state::State;

/// How often the map is confirmed.
const CONFIRM: Duration = Duration::from_secs(1);

/// One caller's place in the stream.
struct Follower {
    states: watch::Receiver<Arc<State>>,
    group: Arc<Group>,
    shutdown: tricord_runtime::Shutdown,
    /// The newest version that the caller has.
    version: u64,
    /// Whether the caller heard anything yet.
    greeted: bool,
    _counted: Counted,
}

impl Member {
    pub(super) fn follow(&self, version: u64) -> Result<ResponseStream<pb::ShardMap>, Error> {
        let follower = Follower {
            states: self.states.subscribe(),
            group: self.joined()?,
            shutdown: self.shutdown.clone(),
            version,
            greeted: false,
            _counted: Counted::new(&self.metrics.watches),
        };
        Ok(stream::unfold(Some(follower), next).boxed())
    }
}

/// The next message; after an error the stream ends, and the caller asks another member.
async fn next(follower: Option<Follower>) -> Option<(Result<pb::ShardMap, Error>, Option<Follower>)> {
    let mut follower = follower?;
    match follower.next().await {
        Ok(map) => Some((Ok(map), Some(follower))),
        Err(error) => Some((Err(error), None)),
    }
}

impl Follower {
    async fn next(&mut self) -> Result<pb::ShardMap, Error> {
        if self.greeted {
            let newer = self.states.wait_for(|state| state.version > self.version);
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(away("this metadata member stops")),
                // Both outcomes are looked at below.
                _ = timeout(CONFIRM, newer) => {}
            }
        }
        // A member that was cut off may not pass its old map off as current.
        if !self.group.leadership().current {
            return Err(away("this metadata member knows no leader"));
        }
        let state = self.states.borrow_and_update().clone();
        if !state.is_born() {
            return Err(away("the cluster is being born"));
        }
        self.greeted = true;
        if state.version > self.version {
            self.version = state.version;
            return Ok(convert::map_to_proto(&state.map()));
        }
        Ok(pb::ShardMap {
            version: state.version,
            cluster_id: state.cluster_id.clone(),
            ..Default::default()
        })
    }
}

fn away(text: &str) -> Error {
    Error::new(ErrorKind::Unavailable, text)
}
