//! The network: messages are lost, delayed, doubled and overtake each other; links fail in one direction or both.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use tricord_model::{Epoch, NodeId, Seq, ShardId};
use tricord_replication::{Ack, Entries, ProposalOutcome, Pulse, View};

use crate::disk::Entry;

/// The metadata group as a place in the network.
pub(crate) const METADATA: NodeId = NodeId(0);

/// What metadata tells everybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    pub(crate) version: u64,
    pub(crate) views: Vec<View>,
    pub(crate) replicas: usize,
    pub(crate) min_insync: usize,
}

/// A beacon's part for one shard: epoch, committed entry, for how long the receiver may read.
pub(crate) type BeaconPart = (ShardId, Epoch, Seq, u64);

/// A beacon that a shard has accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) shard: ShardId,
    pub(crate) leaving: bool,
    pub(crate) awaits: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Entries {
        shard: ShardId,
        ticket: u64,
        message: Entries,
        payloads: Vec<u64>,
    },
    Ack {
        shard: ShardId,
        ticket: u64,
        ack: Ack,
    },
    Beacon {
        pulse: Pulse,
        parts: Vec<BeaconPart>,
    },
    BeaconAnswer {
        session: u64,
        number: u64,
        by: u64,
        finds_slow: bool,
        accepted: Vec<Accepted>,
        stored: Vec<(ShardId, Epoch)>,
        asks: Vec<(ShardId, Epoch)>,
    },
    Snapshot {
        shard: ShardId,
        epoch: Epoch,
        transfer: u64,
        entries: Arc<Vec<Entry>>,
    },
    SnapshotDone {
        shard: ShardId,
        transfer: u64,
        end: Seq,
    },
    Release {
        shard: ShardId,
        epoch: Epoch,
    },
    Heartbeat,
    Propose {
        shard: ShardId,
        number: u64,
        wish: View,
    },
    Proposed {
        shard: ShardId,
        number: u64,
        outcome: ProposalOutcome,
        view: View,
        min_insync: usize,
    },
    Map(Arc<Map>),
}

/// How bad the network is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) doubles: f64,
    pub(crate) delays: f64,
    pub(crate) longest_delay_ms: u64,
}

/// All messages under way.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// How much longer messages take to and from a place.
    slow: BTreeMap<NodeId, u64>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    under_way: BTreeMap<u64, (NodeId, NodeId, Message)>,
    next: u64,
    /// The last one that was sent to a node, and by whom.
    snapshots: BTreeMap<NodeId, (NodeId, Message)>,
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Self {
        Self { weather, ..Self::default() }
    }

    /// No message gets from one place to the other until the network is mended.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Messages to and from a place take so much longer until the network is mended.
    pub(crate) fn slow_down(&mut self, place: NodeId, by_ms: u64) {
        self.slow.insert(place, by_ms);
    }

    pub(crate) fn mend(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }

    pub(crate) fn send(&mut self, now_ms: u64, rng: &mut StdRng, from: NodeId, to: NodeId, message: Message) {
        let Weather { loss, doubles, delays, longest_delay_ms } = self.weather;
        if self.cut.contains(&(from, to)) || (loss > 0.0 && rng.random_bool(loss)) {
            return;
        }
        if matches!(message, Message::Snapshot { .. }) {
            self.snapshots.insert(to, (from, message.clone()));
        }
        // The word of a handover does most harm when it comes late.
        let often = if matches!(message, Message::Release { .. }) { 6.0 } else { 1.0 };
        if doubles > 0.0 && rng.random_bool(doubles * often) {
            let later = now_ms + rng.random_range(1..longest_delay_ms.max(2));
            self.put(later, from, to, message.clone());
        }
        // A proposal decides most where much happens before metadata hears of it.
        let often = if matches!(message, Message::Propose { .. }) { 5.0 } else { 1.0 };
        let slow = delays > 0.0 && rng.random_bool(delays * often);
        let most = if slow { longest_delay_ms.max(2) } else { 14 };
        let far = [from, to].iter().filter_map(|place| self.slow.get(place)).sum::<u64>();
        let at = now_ms + far + rng.random_range(1..most);
        self.put(at, from, to, message);
    }

    /// The last snapshot for a node comes once more, if it was of this shard and epoch.
    pub(crate) fn repeat_snapshot(&mut self, at: u64, to: NodeId, of: (ShardId, Epoch)) -> bool {
        let last = self.snapshots.get(&to);
        let fits = |message: &Message| matches!(message, Message::Snapshot { shard, epoch, .. } if of == (*shard, *epoch));
        let Some((from, message)) = last.filter(|(_, message)| fits(message)).cloned() else { return false };
        self.snapshots.remove(&to);
        self.put(at, from, to, message);
        true
    }

    /// A message arrives then, whatever the weather.
    pub(crate) fn put(&mut self, at: u64, from: NodeId, to: NodeId, message: Message) {
        self.next += 1;
        self.queue.push(Reverse((at, self.next)));
        self.under_way.insert(self.next, (from, to, message));
    }

    /// The next message that has arrived.
    pub(crate) fn arrived(&mut self, now_ms: u64) -> Option<(NodeId, NodeId, Message)> {
        let Reverse((at, number)) = *self.queue.peek()?;
        if at > now_ms {
            return None;
        }
        self.queue.pop();
        self.under_way.remove(&number)
    }
}
