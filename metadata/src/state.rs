//! What the metadata group agrees on: nodes, the shard map with its epochs, and how both may change. Pure: the same
//! commands in the same order give the same state on every member; there is no clock, no randomness and no I/O.
//!
//! Where copies should be is decided in `placement`; this file only refuses what would break a promise.

mod limits;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tricord_model::{Epoch, LimitOverrides, NodeId, ShardId, TenantOverrides};
use tricord_routing::{NodeInfo, NodeRole, ShardConfig, ShardMap};
use tricord_wire::ErrorKind;

/// Raised when older builds could no longer read the state.
pub const SCHEMA: u32 = 1;

/// How a cluster is born.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Minted once.
    pub cluster_id: String,
    /// How many shards, for ever.
    pub shards: u32,
    /// How many copies are wanted.
    pub replicas: u32,
    /// How many in-sync copies a write needs at least.
    pub min_insync: u32,
    /// The first members of the Raft group, `host:port` each; their ids count from 1 in this order.
    pub members: Vec<String>,
}

/// A registered process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Minted with the identity on the node's disk.
    pub token: String,
    /// What the map says about it.
    pub info: NodeInfo,
}

/// Everything the group agrees on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`SCHEMA`] of the build that wrote it.
    pub schema: u32,
    /// Raised by every change that the map shows.
    pub version: u64,
    /// Empty until the cluster is born.
    pub cluster_id: String,
    /// How many copies are wanted.
    pub replicas: u32,
    /// How many in-sync copies a write needs at least.
    pub min_insync: u32,
    /// All shards, by number; without a primary until placed.
    pub shards: Vec<ShardConfig>,
    /// Where each shard's copies belong, whether they are in sync there or not.
    pub homes: Vec<Vec<NodeId>>,
    /// All registered processes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The next node id; ids are never used twice.
    pub next_node: u64,
    /// The next id of a Raft member.
    pub next_member: u64,
    /// What tenants may send, where that differs from the settings.
    #[serde(default)]
    pub limits: TenantOverrides,
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            version: 0,
            cluster_id: String::new(),
            replicas: 0,
            min_insync: 0,
            shards: Vec::new(),
            homes: Vec::new(),
            nodes: BTreeMap::new(),
            next_node: 1,
            next_member: 1,
            limits: TenantOverrides::new(),
        }
    }
}

/// A change of placement that the leader worked out. Each is taken or refused on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Where a shard's copies belong, if it still is `from`.
    Home {
        /// The shard.
        shard: ShardId,
        /// What it must be now.
        from: Vec<NodeId>,
        /// What it shall be.
        to: Vec<NodeId>,
    },
    /// A shard's configuration, if its epoch still is `expected`.
    Configure {
        /// The epoch that it must have now.
        expected: Epoch,
        /// The wish; its own epoch does not matter.
        config: ShardConfig,
    },
}

impl Change {
    /// The shard that it is about.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        match self {
            Self::Home { shard, .. } => *shard,
            Self::Configure { config, .. } => config.shard,
        }
    }
}

/// An entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Births the cluster; only the first one counts.
    Born(Birth),
    /// Registers a process, or changes its address. Node 0 asks for an id.
    Register {
        /// As on the process' disk.
        token: String,
        /// Its id (0 for none yet) and addresses.
        info: NodeInfo,
    },
    /// Who lives and who does not.
    Liveness(Vec<(NodeId, bool)>),
    /// Marks a node as leaving, or takes the mark back.
    Drain {
        /// The node.
        node: NodeId,
        /// Takes the mark back.
        undo: bool,
    },
    /// A primary's wish.
    Propose {
        /// Who wishes.
        from: NodeId,
        /// The epoch that the shard must have now.
        expected: Epoch,
        /// The wish; its own epoch does not matter.
        wish: ShardConfig,
    },
    /// A primary's wish to be alone in sync, however many must be: its shard never had an entry, and it is about to be
    /// filled from a backup. All others join.
    Restore {
        /// Who wishes.
        from: NodeId,
        /// The epoch that the shard must have now.
        expected: Epoch,
        /// The shard.
        shard: ShardId,
    },
    /// The leader's wishes.
    Plan(Vec<Change>),
    /// Removes nodes that hold nothing.
    Forget(Vec<NodeId>),
    /// Allocates the id of a new Raft member.
    AllocateMember,
    /// Changes what one tenant may send.
    Limits {
        /// The tenant.
        tenant: String,
        /// What is said anew.
        limits: LimitOverrides,
        /// First takes back what was said before.
        clear: bool,
    },
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// The id of a registered node.
    Node(NodeId),
    /// The id of a new Raft member.
    Member(u64),
    /// What a primary's wish came to.
    Proposal {
        /// Whether the wish holds now.
        accepted: bool,
        /// What holds now.
        config: ShardConfig,
        /// Why the wish was refused.
        message: String,
    },
    /// How many changes of a plan were taken.
    Taken(usize),
    /// The command made no sense.
    Refused {
        /// [`ErrorKind`] by name.
        kind: String,
        /// For people.
        message: String,
    },
}

fn refused(kind: ErrorKind, message: impl Into<String>) -> Reply {
    Reply::Refused { kind: kind.as_str().to_owned(), message: message.into() }
}

impl State {
    /// The map as the other roles see it.
    #[must_use]
    pub fn map(&self) -> ShardMap {
        ShardMap {
            version: self.version,
            cluster_id: self.cluster_id.clone(),
            shards: self.shards.clone(),
            nodes: self.nodes.values().map(|node| node.info.clone()).collect(),
            replicas: self.replicas,
            min_insync: self.min_insync,
            limits: self.limits.clone(),
        }
    }

    /// Whether the cluster exists.
    #[must_use]
    pub fn is_born(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// The processes that hold shards.
    pub fn data_nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        let holds = |node: &&Node| matches!(node.info.role, NodeRole::Querier | NodeRole::All);
        self.nodes.values().filter(holds).map(|node| &node.info)
    }

    /// Whether a node is known and its heartbeats arrive.
    #[must_use]
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.info.alive)
    }

    /// How many shards have a copy on a node, or shall have one.
    #[must_use]
    pub fn copies_on(&self, node: NodeId) -> u32 {
        let held =
            |(config, homes): &(&ShardConfig, &Vec<NodeId>)| config.holds(node) || homes.contains(&node);
        self.shards.iter().zip(&self.homes).filter(held).count() as u32
    }

    /// Applies one command.
    pub fn apply(&mut self, command: Command) -> Reply {
        match command {
            Command::Born(birth) => self.born(birth),
            Command::Register { token, info } => self.register(token, info),
            Command::Liveness(changes) => self.liveness(&changes),
            Command::Drain { node, undo } => self.drain(node, undo),
            Command::Propose { from, expected, wish } => self.propose(from, expected, wish),
            Command::Restore { from, expected, shard } => self.restore(from, expected, shard),
            Command::Plan(changes) => {
                Reply::Taken(changes.into_iter().filter(|change| self.change(change)).count())
            }
            Command::Forget(nodes) => self.forget(&nodes),
            Command::AllocateMember => {
                self.next_member += 1;
                Reply::Member(self.next_member - 1)
            }
            Command::Limits { tenant, limits, clear } => self.limit(tenant, &limits, clear),
        }
    }

    fn born(&mut self, birth: Birth) -> Reply {
        if self.is_born() {
            return refused(ErrorKind::Conflict, format!("cluster {} exists already", self.cluster_id));
        }
        let unplaced = |shard| ShardConfig {
            shard: ShardId(shard),
            epoch: Epoch(0),
            primary: None,
            in_sync: Vec::new(),
            joining: Vec::new(),
        };
        self.cluster_id = birth.cluster_id;
        self.replicas = birth.replicas;
        self.min_insync = birth.min_insync;
        self.shards = (0..birth.shards).map(unplaced).collect();
        self.homes = vec![Vec::new(); birth.shards as usize];
        self.next_member = birth.members.len() as u64 + 1;
        self.version += 1;
        Reply::Done
    }

    fn register(&mut self, token: String, mut info: NodeInfo) -> Reply {
        if info.id.0 >= self.next_node {
            return refused(
                ErrorKind::Invalid,
                format!("node id {} was never given out by this cluster", info.id),
            );
        }
        if info.id.0 == 0 {
            // The same token again: the answer to the first registration was lost.
            let same = self.nodes.values().find(|node| node.token == token);
            info.id = same.map_or(NodeId(self.next_node), |node| node.info.id);
        }
        let known = self.nodes.get(&info.id);
        if known.is_some_and(|node| node.token != token) {
            let text = format!(
                "node {} has another token: do two processes use copies of one data directory?",
                info.id
            );
            return refused(ErrorKind::Conflict, text);
        }
        info.alive = true;
        info.draining = known.is_some_and(|node| node.info.draining);
        let id = info.id;
        self.next_node = self.next_node.max(id.0 + 1);
        let node = Node { token, info };
        if known != Some(&node) {
            self.nodes.insert(id, node);
            self.version += 1;
        }
        Reply::Node(id)
    }

    fn liveness(&mut self, changes: &[(NodeId, bool)]) -> Reply {
        for (id, alive) in changes {
            if let Some(node) = self.nodes.get_mut(id).filter(|node| node.info.alive != *alive) {
                node.info.alive = *alive;
                self.version += 1;
            }
        }
        Reply::Done
    }

    fn drain(&mut self, id: NodeId, undo: bool) -> Reply {
        let Some(node) = self.nodes.get_mut(&id) else {
            return refused(ErrorKind::NotFound, format!("there is no node {id}"));
        };
        if node.info.draining == undo {
            node.info.draining = !undo;
            self.version += 1;
        }
        Reply::Done
    }

    fn forget(&mut self, nodes: &[NodeId]) -> Reply {
        for id in nodes {
            if !self.is_alive(*id) && self.copies_on(*id) == 0 && self.nodes.remove(id).is_some() {
                self.version += 1;
            }
        }
        Reply::Done
    }

    fn propose(&mut self, from: NodeId, expected: Epoch, wish: ShardConfig) -> Reply {
        let Some(current) = self.shards.get(wish.shard.0 as usize) else {
            return refused(ErrorKind::NotFound, format!("there is no shard {}", wish.shard));
        };
        // A repeated wish whose first answer was lost.
        let repeated = ShardConfig { epoch: current.epoch, ..wish.clone() } == *current;
        if repeated && current.epoch == Epoch(expected.0 + 1) {
            return Reply::Proposal { accepted: true, config: current.clone(), message: String::new() };
        }
        let verdict = if current.primary == Some(from) {
            self.check(expected, &wish, true)
        } else {
            Err(format!("node {from} is not the primary of shard {}", wish.shard))
        };
        match verdict {
            Ok(()) => {
                let config = self.configure(wish);
                Reply::Proposal { accepted: true, config, message: String::new() }
            }
            Err(message) => Reply::Proposal { accepted: false, config: current.clone(), message },
        }
    }

    /// Nothing is written while fewer than `min_insync` are in sync, so the promise of so many copies is kept.
    fn restore(&mut self, from: NodeId, expected: Epoch, shard: ShardId) -> Reply {
        let Some(current) = self.shards.get(shard.0 as usize) else {
            return refused(ErrorKind::NotFound, format!("there is no shard {shard}"));
        };
        // A repeated wish whose first answer was lost.
        if current.epoch == Epoch(expected.0 + 1)
            && current.primary == Some(from)
            && current.in_sync == [from]
        {
            return Reply::Proposal { accepted: true, config: current.clone(), message: String::new() };
        }
        let message = if current.primary != Some(from) {
            format!("node {from} is not the primary of shard {shard}")
        } else if current.epoch != expected {
            format!("the epoch of shard {shard} is {}, not {expected}", current.epoch)
        } else {
            let others = current.in_sync.iter().chain(&current.joining).filter(|node| **node != from);
            let wish =
                ShardConfig { in_sync: vec![from], joining: others.copied().collect(), ..current.clone() };
            let config = self.configure(wish);
            return Reply::Proposal { accepted: true, config, message: String::new() };
        };
        Reply::Proposal { accepted: false, config: current.clone(), message }
    }

    fn change(&mut self, change: &Change) -> bool {
        match change {
            Change::Home { shard, from, to } => match self.homes.get_mut(shard.0 as usize) {
                Some(homes) if homes == from && all_distinct(to.iter()) => {
                    homes.clone_from(to);
                    true
                }
                _ => false,
            },
            Change::Configure { expected, config } => {
                let fits = self.check(*expected, config, false).is_ok();
                if fits {
                    self.configure(config.clone());
                }
                fits
            }
        }
    }

    fn configure(&mut self, wish: ShardConfig) -> ShardConfig {
        self.version += 1;
        let config = &mut self.shards[wish.shard.0 as usize];
        *config = ShardConfig { epoch: Epoch(config.epoch.0 + 1), ..wish };
        config.clone()
    }

    /// What holds for every configuration, whoever wishes it. Only a primary knows that a joiner has caught up.
    fn check(&self, expected: Epoch, wish: &ShardConfig, by_primary: bool) -> Result<(), String> {
        let Some(current) = self.shards.get(wish.shard.0 as usize) else {
            return Err(format!("there is no shard {}", wish.shard));
        };
        if current.epoch != expected {
            return Err(format!("the epoch of shard {} is {}, not {expected}", wish.shard, current.epoch));
        }
        // A shard that is being restored has fewer, and grows.
        let fewest = match current.in_sync.len() {
            0 => self.min_insync as usize,
            now => now.min(self.min_insync as usize),
        };
        if wish.in_sync.len() < fewest {
            return Err(format!(
                "{} in-sync replicas would be fewer than min_insync {}",
                wish.in_sync.len(),
                self.min_insync
            ));
        }
        if !wish.primary.is_some_and(|primary| wish.in_sync.contains(&primary)) {
            return Err("the primary is not in the in-sync set".to_owned());
        }
        if !all_distinct(wish.in_sync.iter().chain(&wish.joining)) {
            return Err("a node has two copies".to_owned());
        }
        if let Some(unknown) =
            wish.in_sync.iter().chain(&wish.joining).find(|node| !self.nodes.contains_key(node))
        {
            return Err(format!("there is no node {unknown}"));
        }
        let first_placement = current.primary.is_none();
        let complete = |node: &NodeId| {
            current.in_sync.contains(node)
                || first_placement
                || (by_primary && current.joining.contains(node))
        };
        if let Some(strange) = wish.in_sync.iter().find(|node| !complete(node)) {
            return Err(format!("node {strange} holds no complete copy"));
        }
        if by_primary && let Some(strange) = wish.joining.iter().find(|node| !current.holds(**node)) {
            return Err(format!("node {strange} has no copy to complete"));
        }
        Ok(())
    }
}

fn all_distinct<'a>(nodes: impl Iterator<Item = &'a NodeId> + Clone) -> bool {
    nodes.clone().collect::<BTreeSet<_>>().len() == nodes.count()
}

#[cfg(test)]
mod tests;
