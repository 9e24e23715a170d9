//! Members in one process, wired by a hub that can cut any of them off.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use tempfile::TempDir;
use tricord_metadata_client::{Cluster, Heartbeat, Identity, NodeAddress, Report};
use tricord_model::{Epoch, NodeId};
use tricord_wire::proto::metadata as pb;
use tricord_wire::{DataNode, Metadata};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// The network between members and clients.
#[derive(Default)]
struct Hub {
    members: Mutex<HashMap<String, Arc<Member>>>,
    cut: Mutex<HashSet<String>>,
}

/// A connection of somebody to an address.
struct Line {
    hub: Arc<Hub>,
    from: String,
    to: String,
}

struct HubDial {
    hub: Arc<Hub>,
    from: String,
}

impl Dial for HubDial {
    fn metadata(&self, address: &str) -> Result<Arc<dyn Metadata>, Error> {
        Ok(Arc::new(Line { hub: self.hub.clone(), from: self.from.clone(), to: address.to_owned() }))
    }

    fn data_node(&self, _address: &str) -> Result<Arc<dyn DataNode>, Error> {
        Err(Error::new(ErrorKind::Unavailable, "no data nodes here"))
    }
}

impl Line {
    fn reach(&self) -> Result<Arc<Member>, Error> {
        let cut = self.hub.cut.lock();
        let away = || Error::new(ErrorKind::Unavailable, "connection refused");
        if cut.contains(&self.from) || cut.contains(&self.to) {
            return Err(away());
        }
        self.hub.members.lock().get(&self.to).cloned().ok_or_else(away)
    }
}

macro_rules! pass_on {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[async_trait::async_trait]
        impl Metadata for Line {
            $(async fn $method(&self, request: pb::$request) -> Result<pb::$response, Error> {
                let answer = self.reach()?.$method(request).await;
                // A cut also loses answers.
                self.reach()?;
                answer
            })*

            async fn watch(
                &self,
                request: pb::WatchRequest,
            ) -> Result<tricord_wire::ResponseStream<pb::ShardMap>, Error> {
                self.reach()?.watch(request).await
            }
        }
    };
}
pass_on! {
    register(RegisterRequest) -> RegisterResponse;
    heartbeat(HeartbeatRequest) -> HeartbeatResponse;
    propose(ProposeRequest) -> ProposeResponse;
    status(MetadataStatusRequest) -> MetadataStatusResponse;
    init(InitRequest) -> InitResponse;
    change_member(ChangeMemberRequest) -> ChangeMemberResponse;
    drain(DrainRequest) -> DrainResponse;
    set_limits(SetLimitsRequest) -> SetLimitsResponse;
    raft(RaftRequest) -> RaftResponse;
}

/// Three members with their disks.
struct Scene {
    hub: Arc<Hub>,
    dirs: HashMap<String, TempDir>,
    stops: HashMap<String, Shutdown>,
}

const MEMBERS: [&str; 3] = ["m1:1", "m2:1", "m3:1"];

fn quick(dir: &Path, advertise: &str) -> Config {
    Config {
        data_dir: dir.to_owned(),
        advertise: advertise.to_owned(),
        node_lease_ms: 1_500,
        settle_ms: 100,
        heartbeat_ms: 50,
        election_ms: 400,
        ..Config::default()
    }
}

impl Scene {
    async fn unborn(members: &[&str]) -> Self {
        let mut scene = Self { hub: Arc::default(), dirs: HashMap::new(), stops: HashMap::new() };
        for member in members {
            scene.dirs.insert((*member).to_owned(), tempfile::tempdir().unwrap());
            scene.start(member).await;
        }
        scene
    }

    async fn born() -> Self {
        let scene = Self::unborn(&MEMBERS).await;
        scene.client().init(request(&MEMBERS), LIMIT).await.unwrap();
        scene
    }

    async fn start(&mut self, member: &str) {
        let config = quick(self.dirs[member].path(), member);
        let shutdown = Shutdown::new();
        let deadline = Instant::now() + LIMIT;
        // The store of a member that was just stopped may still be closing.
        let started = loop {
            let dial = Arc::new(HubDial { hub: self.hub.clone(), from: member.to_owned() });
            let deps = Deps { dial, metrics: Metrics::new() };
            match start(config.clone(), deps, shutdown.clone()).await {
                Ok(started) => break started,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.hub.members.lock().insert(member.to_owned(), started);
        self.stops.insert(member.to_owned(), shutdown);
    }

    fn stop(&mut self, member: &str) {
        self.hub.members.lock().remove(member);
        self.stops.remove(member).unwrap().trigger();
    }

    fn client(&self) -> Cluster {
        let addresses: Vec<String> = MEMBERS.iter().map(|member| (*member).to_owned()).collect();
        let dial = Arc::new(HubDial { hub: self.hub.clone(), from: "client".to_owned() });
        Cluster::with_dialer(&addresses, dial).unwrap()
    }

    async fn leader(&self, cluster: &Cluster) -> String {
        let status = cluster.status(LIMIT).await.unwrap();
        status.members.into_iter().find(|member| member.member == status.leader).unwrap().rpc
    }
}

fn request(members: &[&str]) -> pb::InitRequest {
    let members = members.iter().map(|member| (*member).to_owned()).collect();
    pb::InitRequest { members, shards: 8, replicas: 3, min_insync: 2 }
}

/// A data node that only lives.
struct Node {
    identity: Identity,
    heartbeat: Heartbeat,
}

impl Node {
    async fn new(cluster: &Cluster, name: &str) -> Self {
        let address = NodeAddress { role: "querier".into(), rpc: format!("{name}:1"), ..Default::default() };
        let identity = cluster.register(None, &address, LIMIT).await.unwrap();
        let heartbeat = cluster.start_heartbeat(&identity, &address, Report::default).unwrap();
        Self { identity, heartbeat }
    }

    fn id(&self) -> NodeId {
        self.identity.node_id
    }
}

async fn three_nodes(cluster: &Cluster) -> Vec<Node> {
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::new(cluster, name).await);
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_member_births_itself_once_and_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { shards: 4, ..Config::single(dir.path().to_owned()) };
    let mut cluster_ids = Vec::new();
    let mut map_versions = Vec::new();
    for _ in 0..2 {
        let shutdown = Shutdown::new();
        let deadline = Instant::now() + LIMIT;
        let member = loop {
            match start(config.clone(), Deps::new(Metrics::new()), shutdown.clone()).await {
                Ok(member) => break member,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let cluster = Cluster::local(member.clone()).unwrap();
        let address = NodeAddress { role: "all".into(), rpc: "127.0.0.1:7301".into(), ..Default::default() };
        let identity = cluster.register(Some(&dir.path().join("node")), &address, LIMIT).await.unwrap();
        assert_eq!(identity.node_id, NodeId(1));
        let map = cluster.wait_ready(LIMIT).await.unwrap();
        assert_eq!(map.shards.len(), 4);
        assert!(map.shards.iter().all(|shard| shard.in_sync == [NodeId(1)] && shard.epoch == Epoch(1)));
        assert_eq!(member.readiness(), Ok(()));
        let error = cluster.init(request(&["127.0.0.1:7301"]), LIMIT).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        cluster_ids.push(map.cluster_id.clone());
        map_versions.push(map.version);
        shutdown.trigger();
    }
    assert_eq!(cluster_ids[0], cluster_ids[1]);
    assert!(map_versions[1] >= map_versions[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_wait_for_their_birth_and_agree_on_one_cluster() {
    let scene = Scene::unborn(&MEMBERS).await;
    let cluster = scene.client();
    let address = NodeAddress { role: "querier".into(), rpc: "a:1".into(), ..Default::default() };
    let early = cluster.register(None, &address, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(early.message, "no cluster yet: run `tricord cluster init` once");
    let born = cluster.init(request(&MEMBERS), LIMIT).await.unwrap();
    for member in MEMBERS {
        let member = scene.hub.members.lock()[member].clone();
        let mut states = member.states.subscribe();
        let state = timeout_wait(&mut states, |state| state.is_born()).await;
        assert_eq!(state.cluster_id, born.cluster_id);
    }
    let again = cluster.init(request(&MEMBERS), LIMIT).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::Conflict);
}

async fn timeout_wait(
    states: &mut channel::Receiver<Arc<State>>,
    wanted: impl Fn(&State) -> bool,
) -> Arc<State> {
    tokio::time::timeout(LIMIT, states.wait_for(|state| wanted(state))).await.unwrap().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_birth_that_failed_half_way_goes_on_where_it_was() {
    let mut scene = Scene::unborn(&MEMBERS).await;
    scene.stop("m3:1");
    let member = scene.hub.members.lock()["m1:1"].clone();
    let error = member.init(request(&MEMBERS)).await.unwrap_err();
    assert!(error.message.contains("m3:1 does not answer"), "{error}");
    let other = pb::InitRequest { shards: 99, ..request(&MEMBERS) };
    assert_eq!(member.init(other).await.unwrap_err().kind, ErrorKind::Conflict);
    drop(member);
    scene.start("m3:1").await;
    let member = scene.hub.members.lock()["m1:1"].clone();
    let born = member.init(request(&MEMBERS)).await.unwrap();
    assert_eq!(member.state().cluster_id, born.cluster_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_loses_its_primaries_and_gets_its_copies_back() {
    let scene = Scene::born().await;
    let cluster = scene.client();
    let mut nodes = three_nodes(&cluster).await;
    let map = cluster.wait_ready(LIMIT).await.unwrap();
    assert!(map.shards.iter().all(|shard| shard.in_sync.len() == 3));
    let dead = nodes.remove(0);
    let id = dead.id();
    drop(dead.heartbeat);
    let map = cluster
        .wait_for(LIMIT, |map| {
            map.shards.iter().all(|shard| shard.primary.is_some_and(|primary| primary != id))
        })
        .await
        .unwrap();
    let moved = map.shards.iter().find(|shard| !shard.in_sync.contains(&id)).unwrap();
    assert_eq!((moved.in_sync.len(), moved.epoch), (2, Epoch(2)));
    // The same identity comes back: its copies join again, and its primary says when they are complete.
    let address = NodeAddress { role: "querier".into(), rpc: "a:1".into(), ..Default::default() };
    let _heartbeat = cluster.start_heartbeat(&dead.identity, &address, Report::default).unwrap();
    let shard = moved.shard;
    let joined =
        |map: &tricord_routing::ShardMap| map.shard(shard).is_some_and(|shard| shard.joining.contains(&id));
    let map = cluster.wait_for(LIMIT, joined).await.unwrap();
    let config = map.shard(shard).unwrap().clone();
    let mut wish = config.clone();
    wish.joining.clear();
    wish.in_sync.push(id);
    let proposal = cluster.propose(config.primary.unwrap(), config.epoch, &wish, LIMIT).await.unwrap();
    assert!(proposal.accepted, "{}", proposal.message);
    let lost = cluster.propose(config.primary.unwrap(), config.epoch, &config, LIMIT).await.unwrap();
    assert!(!lost.accepted);
    assert_eq!(lost.config, proposal.config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_fails_over_before_the_lease_ends() {
    let scene = Scene::born().await;
    let cluster = scene.client();
    let mut nodes = three_nodes(&cluster).await;
    cluster.wait_ready(LIMIT).await.unwrap();
    let leaving = nodes.remove(0);
    let id = leaving.id();
    leaving.heartbeat.stop().await;
    let dead = |map: &tricord_routing::ShardMap| map.node(id).is_some_and(|node| !node.alive);
    cluster.wait_for(Duration::from_millis(1_400), dead).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_answer_the_leader_is_told() {
    let mut scene = Scene::born().await;
    let cluster = scene.client();
    let leader = scene.leader(&cluster).await;
    let away = MEMBERS.into_iter().find(|member| *member != leader).unwrap();
    scene.stop(away);
    let deadline = Instant::now() + LIMIT;
    loop {
        let members = cluster.status(LIMIT).await.unwrap().members;
        let age = |rpc: &str| members.iter().find(|member| member.rpc == rpc).unwrap().heard_age_ms;
        let other = MEMBERS.into_iter().find(|member| *member != leader && *member != away).unwrap();
        let (silent, quick) = (age(away), age(other).unwrap());
        if age(&leader) == Some(0) && silent.is_none_or(|ms| ms > 1_000) && quick < 1_000 {
            return;
        }
        assert!(Instant::now() < deadline, "{away} {silent:?} ms, {other} {quick} ms");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_outlives_its_leader() {
    let mut scene = Scene::born().await;
    let cluster = scene.client();
    let _nodes = three_nodes(&cluster).await;
    let before = cluster.wait_ready(LIMIT).await.unwrap();
    let leader = scene.leader(&cluster).await;
    scene.stop(&leader);
    let next = scene.leader(&cluster).await;
    assert_ne!(next, leader);
    let after = cluster.map();
    assert_eq!(after.shards, before.shards, "a new leader moves nothing while all nodes live");
    // Changes go on with two of three, and the third catches up when it returns.
    let config = after.shards[0].clone();
    let mut wish = config.clone();
    wish.in_sync.retain(|node| Some(*node) == config.primary || *node == NodeId(1) || *node == NodeId(2));
    wish.in_sync.truncate(2);
    wish.primary = wish.in_sync.first().copied();
    let proposal = cluster.propose(config.primary.unwrap(), config.epoch, &wish, LIMIT).await.unwrap();
    assert!(proposal.accepted, "{}", proposal.message);
    scene.start(&leader).await;
    let member = scene.hub.members.lock()[&leader].clone();
    let mut states = member.states.subscribe();
    timeout_wait(&mut states, |state| state.shards.first().is_some_and(|shard| shard.epoch > config.epoch))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_restart_with_everything() {
    let mut scene = Scene::born().await;
    let cluster = scene.client();
    let nodes = three_nodes(&cluster).await;
    let before = cluster.wait_ready(LIMIT).await.unwrap();
    for member in MEMBERS {
        scene.stop(member);
    }
    assert_eq!(cluster.map().shards, before.shards, "the last map stays in use");
    for member in MEMBERS {
        scene.start(member).await;
    }
    let fresh = scene.client();
    let after = fresh.wait_ready(LIMIT).await.unwrap();
    assert_eq!((&after.shards, &after.cluster_id), (&before.shards, &before.cluster_id));
    assert_eq!(nodes.iter().map(Node::id).collect::<Vec<_>>(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(Node::new(&fresh, "d").await.id(), NodeId(4), "ids are not given twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_cut_off_neither_decides_nor_passes_its_map_off_as_current() {
    let scene = Scene::born().await;
    let cluster = scene.client();
    let _nodes = three_nodes(&cluster).await;
    cluster.wait_ready(LIMIT).await.unwrap();
    let old = scene.leader(&cluster).await;
    scene.hub.cut.lock().insert(old.clone());
    let member = scene.hub.members.lock()[&old].clone();
    let deadline = Instant::now() + LIMIT;
    while member.readiness().is_ok() {
        assert!(Instant::now() < deadline, "the cut-off leader still believes in itself");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let beat = pb::HeartbeatRequest { node: 1, ..Default::default() };
    assert_eq!(member.heartbeat(beat).await.unwrap_err().kind, ErrorKind::NotServing);
    let mut maps = member.watch(pb::WatchRequest { version: 0 }).await.unwrap();
    assert!(futures::StreamExt::next(&mut maps).await.unwrap().is_err());
    // The others go on, and the old leader follows them once it is back.
    let new = scene.leader(&cluster).await;
    assert_ne!(new, old);
    assert!(cluster.map().nodes.iter().all(|node| node.alive), "nobody died of the change of leaders");
    scene.hub.cut.lock().clear();
    while member.readiness().is_err() {
        assert!(Instant::now() < deadline, "the old leader does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_added_and_an_old_one_removed() {
    let mut scene = Scene::born().await;
    let cluster = scene.client();
    scene.dirs.insert("m4:1".into(), tempfile::tempdir().unwrap());
    scene.start("m4:1").await;
    let add = pb::ChangeMemberRequest { rpc: "m4:1".into(), member: 0, remove: false };
    let members = cluster.change_member(add, LIMIT).await.unwrap();
    let added = members.iter().find(|member| member.rpc == "m4:1").unwrap();
    assert_eq!((added.member, added.voter), (4, true));
    // A member whose disk is lost is another member, even at the same address.
    scene.stop("m1:1");
    let remove = pb::ChangeMemberRequest { rpc: String::new(), member: 1, remove: true };
    let members = cluster.change_member(remove, LIMIT).await.unwrap();
    assert_eq!(members.iter().map(|member| member.member).collect::<Vec<_>>(), [2, 3, 4]);
    let member = scene.hub.members.lock()["m4:1"].clone();
    let mut states = member.states.subscribe();
    timeout_wait(&mut states, |state| state.is_born()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_another_member_or_cluster_are_refused() {
    let scene = Scene::born().await;
    let member = scene.hub.members.lock()["m2:1"].clone();
    let cluster_id = member.group().unwrap().identity().birth.cluster_id.clone();
    let vote = |to_member, cluster_id: &str| pb::RaftRequest {
        kind: pb::raft_request::Kind::Vote.into(),
        cluster_id: cluster_id.to_owned(),
        to_member,
        body: bytes::Bytes::from_static(b"{}"),
    };
    for (to, cluster) in [(1, cluster_id.as_str()), (2, "other")] {
        let error = member.raft(vote(to, cluster)).await.unwrap_err();
        assert!(error.message.contains("another one is meant"), "{error}");
    }
    // The right address, and a body that is no vote.
    let error = member.raft(vote(2, &cluster_id)).await.unwrap_err();
    assert!(error.message.starts_with("raft message:"), "{error}");
    let cluster = scene.client();
    let beat = pb::HeartbeatRequest { node: 1, cluster_id: "other".into(), ..Default::default() };
    let leader = scene.leader(&cluster).await;
    let leader = scene.hub.members.lock()[&leader].clone();
    assert_eq!(leader.heartbeat(beat).await.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_how_much_is_left() {
    let scene = Scene::born().await;
    let cluster = scene.client();
    let nodes = three_nodes(&cluster).await;
    cluster.wait_ready(LIMIT).await.unwrap();
    let drain = |node: NodeId, undo, allow_fewer_copies| {
        cluster.drain(pb::DrainRequest { node: node.0, undo, allow_fewer_copies }, LIMIT)
    };
    assert_eq!(drain(NodeId(99), false, true).await.unwrap_err().kind, ErrorKind::NotFound);
    // Two nodes are enough for min_insync, but not for three copies: that needs the caller's word.
    let id = nodes[0].id();
    let refused = drain(id, false, false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "{refused}");
    assert!(refused.message.contains("left with 2"), "{refused}");
    assert!(cluster.map().nodes.iter().all(|node| !node.draining));
    drain(id, false, true).await.unwrap();
    cluster.wait_for(LIMIT, |map| map.shards.iter().all(|shard| !shard.holds(id))).await.unwrap();
    let done = drain(id, false, false).await.unwrap();
    assert_eq!((done.remaining, done.waits_for.as_str()), (0, ""));
    // A second one would leave a single node, and writes need two.
    assert_eq!(drain(nodes[1].id(), false, true).await.unwrap_err().kind, ErrorKind::Invalid);
    drain(id, true, false).await.unwrap();
    cluster.wait_for(LIMIT, |map| map.shards.iter().all(|shard| shard.holds(id))).await.unwrap();
}
