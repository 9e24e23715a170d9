//! A metadata member: its birth, its part in the Raft group, and the calls of the other roles.

mod birth;
mod calls;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch as channel};
use tricord_metadata_client::{Dial, Tcp};
use tricord_runtime::{Metrics, Shutdown};
use tricord_wire::{Error, ErrorKind};

use crate::config::Config;
use crate::leader::Watchman;
use crate::metrics::MemberMetrics;
use crate::raft::{Disk, Group, Timing};
use crate::state::{Command, State};

/// What a member is given from outside.
#[derive(Clone)]
pub struct Deps {
    /// How other members are reached.
    pub dial: Arc<dyn Dial>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

impl Deps {
    /// gRPC over TCP, and this registry.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { dial: Arc::new(Tcp), metrics }
    }
}

/// A running metadata member; the calls are those of [`tricord_wire::Metadata`].
pub struct Member {
    /// Itself, for work that goes on when its caller goes away.
    own: Weak<Member>,
    config: Config,
    dial: Arc<dyn Dial>,
    disk: Arc<Disk>,
    states: Arc<channel::Sender<Arc<State>>>,
    /// None until the member has an identity.
    group: RwLock<Option<Arc<Group>>>,
    /// One birth or membership change at a time.
    changing: tokio::sync::Mutex<()>,
    watchman: Mutex<Watchman>,
    /// The leader that people were last told of, 0 for none.
    told: AtomicU64,
    /// Wakes the leader's loop.
    wake: Notify,
    metrics: MemberMetrics,
    shutdown: Shutdown,
}

/// Opens a member's store, joins its group where it has one, and starts its work. In a single process
/// (`auto_init`) the cluster exists on return; elsewhere the member waits for `tricord cluster init`.
///
/// # Errors
/// `Invalid` for settings that make no sense or a store of a newer format, `Corrupt` for a damaged store, `Internal`
/// when the directory cannot be opened.
pub async fn start(config: Config, deps: Deps, shutdown: Shutdown) -> Result<Arc<Member>, Error> {
    config.check()?;
    let dir = config.data_dir.clone();
    let disk = tokio::task::spawn_blocking(move || Disk::open(&dir)).await.map_err(Error::internal)??;
    let member = Arc::new_cyclic(|own| Member {
        own: own.clone(),
        watchman: Mutex::new(Watchman::new(&config, Instant::now())),
        told: AtomicU64::new(0),
        metrics: MemberMetrics::new(&deps.metrics),
        dial: deps.dial,
        disk: Arc::new(disk),
        states: Arc::new(channel::Sender::new(Arc::default())),
        group: RwLock::new(None),
        changing: tokio::sync::Mutex::new(()),
        wake: Notify::new(),
        config,
        shutdown,
    });
    member.resume().await?;
    tokio::spawn(member.clone().work());
    if member.config.auto_init {
        member.born_alone().await?;
    } else if member.group().is_none() {
        let advertise = &member.config.advertise;
        tracing::info!(
            "this metadata member belongs to no cluster yet: run `tricord cluster init --metadata {advertise},…` once"
        );
    }
    Ok(member)
}

impl Member {
    /// Whether the member takes part in a cluster with a leader; the error says what is missing.
    ///
    /// # Errors
    /// A text for people.
    pub fn readiness(&self) -> Result<(), String> {
        let group = self.group().ok_or("no cluster yet: run tricord cluster init")?;
        if !self.state().is_born() {
            return Err("the cluster is being born".to_owned());
        }
        let current = group.leadership().current;
        if current { Ok(()) } else { Err("no leader is known".to_owned()) }
    }

    /// The state that this member has applied, which may be behind.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.states.borrow().clone()
    }

    fn group(&self) -> Option<Arc<Group>> {
        self.group.read().clone()
    }

    /// The group, once there is a cluster.
    fn joined(&self) -> Result<Arc<Group>, Error> {
        let none = || Error::new(ErrorKind::Unavailable, "no cluster yet: run `tricord cluster init` once");
        self.group().ok_or_else(none)
    }

    /// The group, if this member leads it and the cluster is born.
    fn leading(&self) -> Result<Arc<Group>, Error> {
        let group = self.joined()?;
        group.check_leads()?;
        if !self.state().is_born() {
            return Err(Error::new(ErrorKind::Unavailable, "the cluster is being born"));
        }
        Ok(group)
    }

    /// Runs something to its end even when the caller goes away: a birth or a change of members that stops half-way
    /// could leave an identity on a disk that nobody acts on.
    async fn finish<T, Work>(&self, work: impl FnOnce(Arc<Self>) -> Work) -> Result<T, Error>
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let stopping = || Error::new(ErrorKind::Unavailable, "this metadata member stops");
        let own = self.own.upgrade().ok_or_else(stopping)?;
        tokio::spawn(work(own)).await.map_err(|_| stopping())?
    }

    fn timing(&self) -> Timing {
        Timing { heartbeat_ms: self.config.heartbeat_ms, election_ms: self.config.election_ms }
    }

    /// The leader's duties, until shutdown.
    async fn work(self: Arc<Self>) {
        let tick = Duration::from_millis((self.config.node_lease_ms / 15).clamp(10, 200));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(tick) => {}
            }
            self.look().await;
        }
        let group = self.group();
        if let Some(group) = group {
            group.stop().await;
        }
    }

    /// One round of the leader's duties.
    async fn look(&self) {
        let Some(group) = self.group() else { return };
        let leadership = group.leadership();
        let state = self.state();
        self.metrics.show(&leadership, &state);
        let leader = if leadership.current { leadership.leader } else { 0 };
        if self.told.swap(leader, Ordering::Relaxed) != leader {
            match leader {
                0 => tracing::warn!(term = leadership.term, "no metadata member leads"),
                _ => tracing::info!(leader, term = leadership.term, "a metadata member leads"),
            }
        }
        if !leadership.mine {
            self.watchman.lock().rest();
            return;
        }
        let commands = if state.is_born() {
            self.watchman.lock().look(&state, leadership.term, Instant::now())
        } else {
            vec![Command::Born(group.identity().birth.clone())]
        };
        for command in commands {
            tracing::debug!(?command, "the metadata leader decides");
            announce(&command, &state);
            if let Err(error) = group.write(command).await {
                tracing::warn!(%error, "a decision of the metadata leader was not taken");
                return;
            }
            // What follows from it need not wait for the next tick.
            self.wake.notify_one();
        }
    }
}

/// Tells people about what matters.
fn announce(command: &Command, state: &State) {
    match command {
        Command::Born(birth) => {
            tracing::info!(cluster = birth.cluster_id, shards = birth.shards, "the cluster is born");
        }
        Command::Liveness(changes) => {
            for (id, alive) in changes {
                let role = state.nodes.get(id).map_or("node", |node| node.info.role.as_str());
                let now = if *alive { "alive" } else { "dead" };
                tracing::info!(node = id.0, role, "node is {now}");
            }
        }
        Command::Plan(changes) => tracing::info!(changes = changes.len(), "the shard map changes"),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
