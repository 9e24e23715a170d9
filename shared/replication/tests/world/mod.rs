//! A cluster in one thread: nodes with disks, a network, metadata, and clients.

mod node;

use std::collections::{BTreeMap, BTreeSet};

use node::Node;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tricord_model::{Epoch, NodeId, Seq};
use tricord_replication::{Ack, Entries, Position, ProposalOutcome, Pulse, View};

const STEP_MS: u64 = 10;

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Entries { ticket: u64, message: Entries, payloads: Vec<u64> },
    Ack { ticket: u64, ack: Ack },
    Beacon { pulse: Pulse, epoch: Epoch, committed: Seq, grant_ms: u64 },
    BeaconAnswer { number: u64, accepted: bool },
    Snapshot { epoch: Epoch, log: Vec<(Position, u64)> },
    SnapshotDone { end: Option<Seq> },
    Propose { wish: View },
    Proposed { outcome: ProposalOutcome, view: View },
    Configure { view: View },
}

/// The id of metadata as a place in the network.
const METADATA: NodeId = NodeId(0);

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) now_ms: u64,
    pub(crate) min_insync: usize,
    nodes: BTreeMap<NodeId, Node>,
    down_until: BTreeMap<NodeId, u64>,
    cut_off: BTreeSet<NodeId>,
    network: Vec<(u64, NodeId, NodeId, Message)>,
    view: View,
    faults: bool,
    acknowledged: BTreeSet<u64>,
    acknowledgers: BTreeMap<Epoch, NodeId>,
    next_payload: u64,
    pub(crate) reads: u64,
}

impl World {
    pub(crate) fn new(seed: u64, replicas: usize, min_insync: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids: Vec<NodeId> = (1..=replicas as u64).map(NodeId).collect();
        let nodes = ids.iter().map(|id| (*id, Node::new(*id, &mut rng))).collect();
        let view = View {
            epoch: Epoch(1),
            primary: ids.first().copied(),
            in_sync: ids.clone(),
            joining: Vec::new(),
        };
        Self {
            rng,
            now_ms: 1_000_000,
            min_insync,
            nodes,
            down_until: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            network: Vec::new(),
            view,
            faults: false,
            acknowledged: BTreeSet::new(),
            acknowledgers: BTreeMap::new(),
            next_payload: 1,
            reads: 0,
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.view.epoch.0
    }

    pub(crate) fn heal(&mut self) {
        self.cut_off.clear();
        self.down_until.values_mut().for_each(|until| *until = 0);
    }

    pub(crate) fn step(&mut self, faults: bool) {
        self.faults = faults;
        self.now_ms += STEP_MS;
        if faults {
            self.break_things();
        }
        self.restart();
        self.metadata_acts();
        self.deliver();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(mut node) = self.nodes.remove(&id) else { continue };
            let mut out = Vec::new();
            node.step(self.now_ms, &mut out);
            if self.rng.random_bool(0.15) && node.write(self.now_ms, self.next_payload) {
                self.next_payload += 1;
            }
            self.nodes.insert(id, node);
            self.send_all(id, out);
            self.after(id);
        }
    }

    fn send_all(&mut self, from: NodeId, out: Vec<(NodeId, Message)>) {
        for (to, message) in out {
            let lost = self.faults && self.rng.random_bool(0.03);
            let unreachable = self.cut_off.contains(&from) || self.cut_off.contains(&to);
            if lost || (unreachable && self.rng.random_bool(0.95)) {
                continue;
            }
            let delay_ms = match self.rng.random_range(0..100) {
                0..3 if self.faults => self.rng.random_range(0..6_000),
                _ => self.rng.random_range(1..40),
            };
            if self.faults && self.rng.random_bool(0.02) {
                let later = self.now_ms + delay_ms + self.rng.random_range(0..3_000);
                self.network.push((later, from, to, message.clone()));
            }
            self.network.push((self.now_ms + delay_ms, from, to, message));
        }
    }

    fn break_things(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let Some(victim) = ids.get(self.rng.random_range(0..ids.len())).copied() else { return };
        match self.rng.random_range(0..600) {
            0 => self.crash(victim, 8_000),
            // A primary that is back before anybody has noticed.
            6 | 7 => self.crash(self.view.primary.unwrap_or(victim), 300),
            1 => {
                self.cut_off.insert(victim);
            }
            2..5 => self.cut_off.clear(),
            // Metadata may believe that a living primary is dead.
            5 => self.fail_over(),
            _ => {}
        }
    }

    fn crash(&mut self, victim: NodeId, most_ms: u64) {
        let until = self.now_ms + self.rng.random_range(10..most_ms);
        self.down_until.insert(victim, until);
        if let Some(node) = self.nodes.get_mut(&victim) {
            node.crash();
        }
    }

    fn restart(&mut self) {
        let now_ms = self.now_ms;
        let due: Vec<NodeId> =
            self.down_until.iter().filter(|(_, until)| **until <= now_ms).map(|(id, _)| *id).collect();
        for id in due {
            self.down_until.remove(&id);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.boot(now_ms, &mut self.rng);
            }
        }
    }

    fn fail_over(&mut self) {
        let candidates: Vec<NodeId> = self.view.in_sync.clone();
        let Some(primary) = candidates.get(self.rng.random_range(0..candidates.len())).copied() else {
            return;
        };
        let former = self.view.primary;
        self.view.epoch.0 += 1;
        self.view.primary = Some(primary);
        let smaller = self.view.in_sync.len() > self.min_insync && self.rng.random_bool(0.5);
        if let (Some(former), true) = (former.filter(|former| *former != primary), smaller) {
            self.view.in_sync.retain(|node| *node != former);
        }
        self.check_in_sync();
    }

    fn metadata_acts(&mut self) {
        let dead =
            self.view.primary.is_some_and(|id| self.down_until.get(&id).is_some_and(|at| *at > self.now_ms));
        if dead && self.rng.random_bool(0.005) {
            self.fail_over();
        }
        if self.rng.random_bool(0.01) {
            let lacking: Vec<NodeId> =
                self.nodes.keys().filter(|id| !self.view.holds(**id)).copied().collect();
            if !lacking.is_empty() {
                self.view.epoch.0 += 1;
                self.view.joining.extend(lacking);
            }
        }
        if self.now_ms.is_multiple_of(100) {
            let view = self.view.clone();
            let all: Vec<NodeId> = self.nodes.keys().copied().collect();
            let out = all.into_iter().map(|id| (id, Message::Configure { view: view.clone() })).collect();
            self.send_all(METADATA, out);
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.network).into_iter().partition(|(at, ..)| *at <= now_ms);
        self.network = later;
        for (_, from, to, message) in due {
            if to == METADATA {
                self.propose(from, message);
                continue;
            }
            let mut out = Vec::new();
            let min_insync = self.min_insync;
            if let Some(node) = self.nodes.get_mut(&to) {
                node.receive(now_ms, from, message, min_insync, &mut out);
            }
            self.send_all(to, out);
            self.after(to);
        }
    }

    fn propose(&mut self, from: NodeId, message: Message) {
        let Message::Propose { wish } = message else { return };
        let known = wish.in_sync.iter().all(|node| self.view.holds(*node));
        let fits = wish.epoch == self.view.epoch && known;
        let outcome = if fits && wish.in_sync.len() >= self.min_insync {
            self.view = View { epoch: Epoch(wish.epoch.0 + 1), ..wish };
            self.check_in_sync();
            ProposalOutcome::Accepted
        } else {
            ProposalOutcome::Refused
        };
        let view = self.view.clone();
        self.send_all(METADATA, vec![(from, Message::Proposed { outcome, view })]);
    }

    /// What a step of a node has brought to light.
    fn after(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let news = std::mem::take(&mut node.acknowledged);
        let epoch = node.epoch();
        if !news.is_empty() {
            let acknowledger = *self.acknowledgers.entry(epoch).or_insert(id);
            assert_eq!(acknowledger, id, "two nodes acknowledge in epoch {epoch}");
            self.acknowledged.extend(news);
            self.check_in_sync();
        }
        let Some(node) = self.nodes.get(&id) else { return };
        if node.may_read(self.now_ms) {
            self.reads += 1;
            let has = node.durable_payloads();
            let lacks = self.acknowledged.difference(&has).next();
            assert_eq!(lacks, None, "{id} answers in epoch {epoch} without an acknowledged entry");
        }
    }

    fn check_in_sync(&self) {
        for id in &self.view.in_sync {
            let has = self.nodes.get(id).map(Node::durable_payloads).unwrap_or_default();
            let lacks = self.acknowledged.difference(&has).next();
            assert_eq!(lacks, None, "in-sync {id} lacks an acknowledged entry in epoch {}", self.view.epoch);
        }
    }

    pub(crate) fn assert_healthy(&self, replicas: usize) {
        let described: Vec<String> = self.nodes.values().map(|node| node.describe(self.now_ms)).collect();
        assert_eq!(self.view.in_sync.len(), replicas, "{:?}\n{}", self.view, described.join("\n"));
        self.check_in_sync();
        for node in self.nodes.values() {
            assert!(node.may_read(self.now_ms), "{:?}", node.status(self.now_ms));
        }
    }
}
