//! One replica of one shard: its configuration, its role, and the passage from one to the next.

use std::collections::BTreeMap;

use tricord_model::{Epoch, NodeId, Seq, ShardId};

use crate::follower::Follower;
use crate::handover::{Before, Flaps, Retired};
use crate::log::{LogIndex, OlderEpochs, Position};
use crate::primary::Primary;

/// The epoch under which metadata places a shard for the first time: nobody can hold a lease from before it.
pub(crate) const FIRST_EPOCH: Epoch = Epoch(1);

/// The times of the protocol, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long an answered beacon lets the primary serve, counted from when it left.
    pub lease_ms: u64,
    /// How long a new primary waits after the last beacon that it answered to another one; longer than `lease_ms` by
    /// what two clocks may drift apart in that time.
    pub grace_ms: u64,
    /// How far apart beacons are sent.
    pub beacon_every_ms: u64,
    /// A follower that neither answers beacons nor stores entries for so long is proposed for removal.
    pub follower_timeout_ms: u64,
    /// How far apart attempts are: messages to a failing peer, proposals that were refused.
    pub retry_ms: u64,
    /// How long metadata's word that an epoch holds lets a primary without its followers answer queries.
    pub confirm_ms: u64,
    /// How long a replica must have kept up before it is proposed as in sync again.
    pub settle_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_ms: 2_000,
            grace_ms: 2_500,
            beacon_every_ms: 250,
            follower_timeout_ms: 2_000,
            retry_ms: 200,
            confirm_ms: 5_000,
            settle_ms: 1_000,
        }
    }
}

/// A shard's configuration as metadata gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its version.
    pub epoch: Epoch,
    /// Who orders writes.
    pub primary: Option<NodeId>,
    /// The replicas that hold every acknowledged write, the primary among them.
    pub in_sync: Vec<NodeId>,
    /// Replicas that catch up.
    pub joining: Vec<NodeId>,
}

impl View {
    /// Whether a node has a copy, complete or not.
    #[must_use]
    pub fn holds(&self, node: NodeId) -> bool {
        self.in_sync.contains(&node) || self.joining.contains(&node)
    }

    /// Whether the primary is alone and nobody else can have got entries under this epoch.
    fn is_sole(&self) -> bool {
        self.in_sync.len() == 1 && self.joining.is_empty()
    }
}

/// What a driver has to do. Actions are taken with [`Shard::actions`] after each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Entries up to this one are committed: they may be flushed.
    Commit(Seq),
    /// Entries up to this one are acknowledged: answer their writers.
    Acknowledge(Seq),
    /// There is something to send to a peer: ask [`Shard::plan`].
    Send(NodeId),
    /// The peer's log is too far back: send it a snapshot, then call [`Shard::snapshot_done`].
    Snapshot(NodeId),
    /// Ask metadata for this configuration in place of the one with the view's epoch, then call [`Shard::proposed`].
    Propose(View),
    /// A peer knows a newer epoch: fetch the shard map.
    Refresh,
    /// Tell this node, the primary from that epoch on, to call [`Shard::released`]. If it does not arrive, it waits.
    Release(NodeId, Epoch),
    /// This replica is the primary no more: writers that wait must be told that their outcome is unknown.
    SteppedDown,
}

/// What a replica found on its disk when it started.
pub struct Boot {
    /// The node that it is on.
    pub node: NodeId,
    /// The shard.
    pub shard: ShardId,
    /// Its last durable entry.
    pub end: Position,
    /// The last entry that it knows as committed.
    pub committed: Seq,
    /// The highest epoch that it has stored; 0 for a new replica.
    pub stored_epoch: Epoch,
    /// The time.
    pub now_ms: u64,
    /// Epochs of the entries on disk.
    pub older: Box<dyn OlderEpochs>,
}

/// What a replica does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// It orders writes and serves.
    Primary,
    /// It will, once it has reconciled and older leases have run out.
    Reconciling,
    /// It stores what the primary sends.
    Follower,
    /// It catches up.
    Joining,
    /// It may not answer: its configuration is unknown or it has none.
    Fenced,
}

impl RoleName {
    /// The name that people see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Reconciling => "reconciling",
            Self::Follower => "follower",
            Self::Joining => "joining",
            Self::Fenced => "fenced",
        }
    }
}

/// A replica's state for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The highest stored epoch.
    pub epoch: Epoch,
    /// What it does.
    pub role: RoleName,
    /// Its last durable entry.
    pub durable: Seq,
    /// The last entry that it knows as committed.
    pub committed: Seq,
    /// Its last entry, durable or not.
    pub last: Seq,
}

pub(crate) enum Role {
    Idle,
    Follower(Follower),
    Primary(Box<Primary>),
}

/// One replica of one shard.
pub struct Shard {
    pub(crate) node: NodeId,
    pub(crate) id: ShardId,
    pub(crate) timing: Timing,
    pub(crate) min_insync: usize,
    pub(crate) view: View,
    pub(crate) stored_epoch: Epoch,
    /// The epoch stored when this process started: it may have appended under it before.
    pub(crate) boot_epoch: Epoch,
    pub(crate) log: LogIndex,
    pub(crate) committed: Seq,
    pub(crate) role: Role,
    /// When this process last helped another primary's lease, or started with the chance that it had.
    pub(crate) foreign_answer_ms: Option<u64>,
    /// Until when whom this process, as a primary, has allowed to answer queries, by its own clock. It outlives a tenure:
    /// who becomes primary again soon must still wait for those that are not in sync any more.
    pub(crate) granted_until_ms: BTreeMap<NodeId, u64>,
    /// That it was the primary, until it knows who is in sync now.
    pub(crate) retired: Option<Retired>,
    /// The epoch that this joiner wants to be over.
    pub(crate) asks_after: Epoch,
    /// Leases from before this epoch are over everywhere.
    pub(crate) released: Epoch,
    pub(crate) resigning: bool,
    /// Grants for answers from before this time are void.
    pub(crate) grants_from_ms: u64,
    pub(crate) log_failed: bool,
    pub(crate) flaps: Flaps,
    pub(crate) actions: Vec<Action>,
}

impl Shard {
    /// A replica as it starts.
    #[must_use]
    pub fn new(boot: Boot, timing: Timing) -> Self {
        Self {
            node: boot.node,
            id: boot.shard,
            timing,
            min_insync: 1,
            view: View::default(),
            stored_epoch: boot.stored_epoch,
            boot_epoch: boot.stored_epoch,
            log: LogIndex::new(boot.end, boot.older),
            committed: boot.committed.min(boot.end.seq),
            role: Role::Idle,
            foreign_answer_ms: (boot.stored_epoch > Epoch(0)).then_some(boot.now_ms),
            granted_until_ms: BTreeMap::new(),
            retired: None,
            asks_after: Epoch(0),
            released: Epoch(0),
            resigning: false,
            grants_from_ms: 0,
            log_failed: false,
            flaps: Flaps::default(),
            actions: Vec::new(),
        }
    }

    /// The shard.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Takes the actions that the last calls asked for.
    #[must_use]
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The configuration that the replica acts under.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The highest epoch that is stored.
    #[must_use]
    pub fn stored_epoch(&self) -> Epoch {
        self.stored_epoch
    }

    /// Whether this replica may be thrown away since the configuration of `epoch` has no place for it: not where it knows of
    /// a later one, in which it may have a place again, and have stored what others count on.
    #[must_use]
    pub fn may_leave(&self, epoch: Epoch) -> bool {
        self.view.epoch == epoch && self.stored_epoch <= epoch && !self.view.holds(self.node)
    }

    /// Notes that `epoch` is durable on this node; from now on older ones are refused.
    pub fn epoch_stored(&mut self, epoch: Epoch) {
        self.stored_epoch = self.stored_epoch.max(epoch);
    }

    /// Adopts a configuration; its epoch must have been stored. An older one than the stored is ignored.
    /// Returns whether the configuration holds now.
    pub fn configure(&mut self, now_ms: u64, view: View, min_insync: usize) -> bool {
        self.min_insync = min_insync.max(1);
        if view.epoch != self.stored_epoch {
            return false;
        }
        if view == self.view {
            return true;
        }
        self.release(now_ms, &view);
        if view.primary == Some(self.node) {
            self.lead(now_ms, view);
        } else if let (Some(leader), true) = (view.primary, view.holds(self.node)) {
            self.view = view;
            self.follow(leader);
        } else {
            self.view = view;
            self.step_down(Role::Idle);
        }
        true
    }

    fn lead(&mut self, now_ms: u64, view: View) {
        let same_process = view.epoch > self.boot_epoch;
        let sole = view.is_sole();
        let former = std::mem::replace(&mut self.view, view);
        if matches!(self.role, Role::Primary(_)) && self.view.epoch.0 == former.epoch.0 + 1 {
            self.continue_tenure(now_ms, &former);
        } else {
            // Another replica may have been primary in an epoch that this one has not seen.
            let first = self.view.epoch <= FIRST_EPOCH;
            let foreign_ms = self.foreign_answer_ms.filter(|_| !(first && sole));
            let serve_after_ms = foreign_ms.map_or(0, |at| at + self.timing.grace_ms);
            let start = self.log.last().seq;
            let must_renew = !(same_process || sole);
            let before = Before::new(&former, &self.view);
            let primary = Primary::new(now_ms, before, start, serve_after_ms, must_renew);
            self.role = Role::Primary(Box::new(primary));
            self.hold_for_removed(now_ms);
            self.add_peers(now_ms);
            self.use_release(now_ms);
        }
        self.advance(now_ms);
    }

    /// Becomes the follower of `leader`, or stays it.
    pub(crate) fn follow(&mut self, leader: NodeId) {
        let epoch = self.stored_epoch;
        if let Role::Follower(follower) = &self.role
            && follower.leader == leader
            && follower.epoch == epoch
        {
            return;
        }
        self.step_down(Role::Follower(Follower::new(leader, epoch)));
    }

    fn step_down(&mut self, role: Role) {
        if matches!(self.role, Role::Primary(_)) {
            self.actions.push(Action::SteppedDown);
        }
        self.role = role;
    }

    /// Notes that entries up to `seq` are durable here.
    pub fn durable(&mut self, now_ms: u64, seq: Seq) {
        let first = self.log.durable().next();
        self.log.set_durable(seq);
        if let Role::Primary(primary) = &mut self.role
            && let Some(appended_ms) = primary.marks.appended_ms(first).filter(|_| seq >= first)
        {
            primary.disk.note(now_ms, appended_ms, self.timing.follower_timeout_ms);
        }
        match &self.role {
            Role::Primary(_) => self.advance(now_ms),
            Role::Follower(_) => self.commit_as_follower(),
            Role::Idle => {}
        }
    }

    /// As [`Shard::durable`], for who learns late that an entry is: another one may be in its place by then.
    pub fn durable_at(&mut self, now_ms: u64, place: Position) {
        if self.log.epoch_at(place.seq) == Some(place.epoch) {
            self.durable(now_ms, place.seq);
        }
    }

    pub(crate) fn commit(&mut self, seq: Seq) {
        if seq > self.committed {
            self.committed = seq;
            self.actions.push(Action::Commit(seq));
        }
    }

    /// What the replica knows, for a failing test's message.
    #[must_use]
    pub fn describe(&self) -> String {
        let Role::Primary(primary) = &self.role else {
            return format!("{:?} {:?}", self.view, self.stored_epoch);
        };
        format!("{:?} {:?} {primary:?}", self.view, self.stored_epoch)
    }

    /// The last entry, durable or not.
    #[must_use]
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The last durable entry.
    #[must_use]
    pub fn durable_seq(&self) -> Seq {
        self.log.durable()
    }

    /// Whether a query may be answered from this replica now, under the stored epoch.
    #[must_use]
    pub fn may_read(&self, now_ms: u64) -> bool {
        self.view.epoch == self.stored_epoch
            && match &self.role {
                Role::Idle => false,
                Role::Follower(follower) => {
                    self.view.in_sync.contains(&self.node) && !self.resigning && follower.may_read(now_ms)
                }
                Role::Primary(_) => self.primary_may_read(now_ms),
            }
    }

    /// What the replica does, for people and for readiness.
    #[must_use]
    pub fn status(&self, now_ms: u64) -> Status {
        let role = match &self.role {
            Role::Idle => RoleName::Fenced,
            Role::Follower(_) if self.view.in_sync.contains(&self.node) => RoleName::Follower,
            Role::Follower(_) => RoleName::Joining,
            Role::Primary(primary) if primary.is_serving(now_ms) => RoleName::Primary,
            Role::Primary(_) => RoleName::Reconciling,
        };
        Status {
            epoch: self.stored_epoch,
            role,
            durable: self.log.durable(),
            committed: self.committed,
            last: self.log.last().seq,
        }
    }
}
