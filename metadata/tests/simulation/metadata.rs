//! The metadata group as the nodes see it: the real state and the real placement, behind a network. Raft itself is left
//! out: the group is one place that is sometimes away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;
use tricord_metadata::placement::{self, Facts};
use tricord_metadata::state::{Birth, Change, Command, Reply, State};
use tricord_model::{Epoch, NodeId, ShardId};
use tricord_replication::{ProposalOutcome, View};
use tricord_routing::{NodeInfo, NodeRole, ShardConfig};

use crate::mutation::Mutation;
use crate::network::{Map, Message};

const NODE_LEASE_MS: u64 = 600;
const GONE_AFTER_MS: u64 = 3_000;
const CALM_AFTER_MS: u64 = 1_500;
const TELL_EVERY_MS: u64 = 100;
/// How many maps a member may be behind.
const OLD_MAPS: usize = 30;

pub(crate) struct Metadata {
    pub(crate) state: State,
    heard: BTreeMap<NodeId, u64>,
    dead_since: BTreeMap<NodeId, u64>,
    version: u64,
    changed_ms: u64,
    told_ms: u64,
    /// The last maps that it told.
    told: VecDeque<Arc<Map>>,
    /// No majority until then.
    pub(crate) away_until_ms: u64,
}

/// What the protocol calls a configuration.
pub(crate) fn view_of(config: &ShardConfig) -> View {
    View {
        epoch: config.epoch,
        primary: config.primary,
        in_sync: config.in_sync.clone(),
        joining: config.joining.clone(),
    }
}

impl Metadata {
    pub(crate) fn new(shards: u32, replicas: u32, min_insync: u32) -> Self {
        let mut state = State::default();
        let birth = Birth {
            cluster_id: "simulated".to_owned(),
            shards,
            replicas,
            min_insync,
            members: vec!["m:1".to_owned()],
        };
        state.apply(Command::Born(birth));
        Self {
            state,
            heard: BTreeMap::new(),
            dead_since: BTreeMap::new(),
            version: 0,
            changed_ms: 0,
            told_ms: 0,
            told: VecDeque::new(),
            away_until_ms: 0,
        }
    }

    /// Registers a node: a new one, or one that was forgotten while it was away.
    pub(crate) fn register(&mut self, now_ms: u64, known: Option<NodeId>) -> Option<NodeId> {
        let info = NodeInfo {
            id: known.unwrap_or(NodeId(0)),
            role: NodeRole::Querier,
            rpc: "node:1".to_owned(),
            http: String::new(),
            zone: String::new(),
            version: String::new(),
            alive: true,
            draining: false,
        };
        let token = known.map_or(self.state.next_node, |id| id.0).to_string();
        let Reply::Node(id) = self.state.apply(Command::Register { token, info }) else { return None };
        self.heard.insert(id, now_ms);
        Some(id)
    }

    pub(crate) fn is_away(&self, now_ms: u64) -> bool {
        now_ms < self.away_until_ms
    }

    /// Takes a message; the answer goes back to its sender.
    pub(crate) fn receive(&mut self, now_ms: u64, from: NodeId, message: Message) -> Option<Message> {
        match message {
            Message::Heartbeat => {
                if self.state.nodes.contains_key(&from) {
                    self.heard.insert(from, now_ms);
                } else {
                    self.register(now_ms, Some(from));
                }
                None
            }
            Message::Propose { shard, number, wish } => {
                let expected = wish.epoch;
                let config = ShardConfig {
                    shard,
                    epoch: wish.epoch,
                    primary: wish.primary,
                    in_sync: wish.in_sync,
                    joining: wish.joining,
                };
                let reply = self.state.apply(Command::Propose { from, expected, wish: config });
                let Reply::Proposal { accepted, config, .. } = reply else { return None };
                let outcome = match (accepted, config.epoch > expected) {
                    (true, _) => ProposalOutcome::Accepted,
                    (false, false) => ProposalOutcome::Refused,
                    (false, true) => ProposalOutcome::Unknown,
                };
                let (view, min_insync) = (view_of(&config), self.state.min_insync as usize);
                Some(Message::Proposed { shard, number, outcome, view, min_insync })
            }
            _ => None,
        }
    }

    /// What the leader does on its own: who lives, where copies belong, who leads. Gives the map when it is to be told.
    pub(crate) fn act(
        &mut self,
        now_ms: u64,
        rng: &mut StdRng,
        mutation: Option<Mutation>,
    ) -> Option<Arc<Map>> {
        if self.state.version != self.version {
            self.version = self.state.version;
            self.changed_ms = now_ms;
        }
        self.judge_liveness(now_ms);
        if mutation == Some(Mutation::PromoteWithoutBeingInSync) && rng.random_bool(0.002) {
            self.promote_a_joiner();
        }
        let gone = self.gone(now_ms);
        let forgotten: Vec<NodeId> =
            gone.iter().copied().filter(|id| self.state.copies_on(*id) == 0).collect();
        if !forgotten.is_empty() {
            self.state.apply(Command::Forget(forgotten));
        }
        let calm = now_ms >= self.changed_ms + CALM_AFTER_MS;
        // Loads that change now and then.
        let weight = |shard: u64| (shard * 7919 + now_ms / 20_000 * 104_729) % 1_000;
        let weights = self.state.shards.iter().map(|of| (of.shard, weight(u64::from(of.shard.0)))).collect();
        let changes = placement::plan(&self.state, &Facts { gone, settled: now_ms > 200, calm, weights });
        if !changes.is_empty() {
            self.state.apply(Command::Plan(changes));
        }
        (now_ms >= self.told_ms + TELL_EVERY_MS).then(|| {
            self.told_ms = now_ms;
            let map = self.map();
            self.told.push_back(map.clone());
            if self.told.len() > OLD_MAPS {
                self.told.pop_front();
            }
            map
        })
    }

    /// What a member that lags behind the others tells.
    pub(crate) fn old_map(&self, rng: &mut StdRng) -> Option<Arc<Map>> {
        let at = rng.random_range(0..self.told.len().max(1));
        self.told.get(at).cloned()
    }

    fn map(&self) -> Arc<Map> {
        Arc::new(Map {
            version: self.state.version,
            views: self.state.shards.iter().map(view_of).collect(),
            replicas: self.state.replicas as usize,
            min_insync: self.state.min_insync as usize,
        })
    }

    fn judge_liveness(&mut self, now_ms: u64) {
        let mut changes = Vec::new();
        for (id, node) in &self.state.nodes {
            let heard_ms = self.heard.get(id).copied().unwrap_or(0);
            let lives = now_ms <= heard_ms + NODE_LEASE_MS;
            if lives {
                self.dead_since.remove(id);
            } else {
                self.dead_since.entry(*id).or_insert(now_ms);
            }
            if lives != node.info.alive {
                changes.push((*id, lives));
            }
        }
        if !changes.is_empty() {
            self.state.apply(Command::Liveness(changes));
        }
    }

    fn gone(&self, now_ms: u64) -> BTreeSet<NodeId> {
        let gone = self.dead_since.iter().filter(|(_, since)| now_ms >= **since + GONE_AFTER_MS);
        gone.map(|(id, _)| *id).collect()
    }

    /// Believes for a moment that a node is dead.
    pub(crate) fn doubt(&mut self, node: NodeId) {
        self.heard.insert(node, 0);
    }

    /// Names another primary, as far as the state allows it; the old one may leave the in-sync set.
    pub(crate) fn rename(&mut self, shard: ShardId, rng: &mut StdRng) {
        let Some(config) = self.state.shards.get(shard.0 as usize).cloned() else { return };
        if config.in_sync.is_empty() {
            return;
        }
        let primary = config.in_sync[rng.random_range(0..config.in_sync.len())];
        let mut wish = ShardConfig { primary: Some(primary), ..config.clone() };
        if let Some(former) = config.primary.filter(|former| *former != primary && rng.random_bool(0.5)) {
            wish.in_sync.retain(|node| *node != former);
        }
        self.state.apply(Command::Plan(vec![Change::Configure { expected: config.epoch, config: wish }]));
    }

    /// Lets the primary of an empty shard be alone in sync.
    pub(crate) fn restore(&mut self, shard: ShardId) -> Option<View> {
        let config = self.state.shards.get(shard.0 as usize)?;
        let (from, expected) = (config.primary?, config.epoch);
        match self.state.apply(Command::Restore { from, expected, shard }) {
            Reply::Proposal { accepted: true, config, .. } => Some(view_of(&config)),
            _ => None,
        }
    }

    pub(crate) fn drain(&mut self, node: NodeId, undo: bool) {
        self.state.apply(Command::Drain { node, undo });
    }

    /// Around all checks of the state.
    fn promote_a_joiner(&mut self) {
        let joiners = self.state.shards.iter_mut().filter(|config| !config.joining.is_empty());
        for config in joiners.take(1) {
            let joiner = config.joining.remove(0);
            config.in_sync.push(joiner);
            config.primary = Some(joiner);
            config.epoch = Epoch(config.epoch.0 + 1);
            self.state.version += 1;
        }
    }
}
