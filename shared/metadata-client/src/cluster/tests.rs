use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use tricord_model::ShardId;
use tricord_routing::{NodeInfo, NodeRole};
use tricord_wire::{ResponseStream, proto::datanode as dn};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn node(id: u64, rpc: &str) -> NodeInfo {
    NodeInfo {
        id: NodeId(id),
        role: NodeRole::Querier,
        rpc: rpc.to_owned(),
        http: String::new(),
        zone: String::new(),
        version: String::new(),
        alive: true,
        draining: false,
    }
}

fn map(version: u64) -> ShardMap {
    let config = ShardConfig {
        shard: ShardId(0),
        epoch: Epoch(3),
        primary: Some(NodeId(1)),
        in_sync: vec![NodeId(1), NodeId(2)],
        joining: vec![],
    };
    ShardMap {
        version,
        cluster_id: "c".into(),
        shards: vec![config],
        nodes: vec![node(1, "a:1"), node(2, "b:1")],
        replicas: 2,
        min_insync: 1,
        ..ShardMap::default()
    }
}

/// A metadata member that follows a script.
struct Fake {
    leader: Option<&'static str>,
    maps: watch::Sender<ShardMap>,
    beats: AtomicUsize,
    goodbyes: AtomicUsize,
    registrations: AtomicUsize,
    forgets: AtomicUsize,
}

impl Fake {
    fn new(leader: Option<&'static str>, map: ShardMap) -> Arc<Self> {
        let maps = watch::Sender::new(map);
        let zero = AtomicUsize::default;
        Arc::new(Self {
            leader,
            maps,
            beats: zero(),
            goodbyes: zero(),
            registrations: zero(),
            forgets: zero(),
        })
    }

    fn check(&self) -> Result<(), Error> {
        let not =
            |leader| Error::new(ErrorKind::NotServing, format!("this member does not lead, ask {leader}"));
        self.leader.map_or(Ok(()), |leader| Err(not(leader)))
    }
}

fn unused<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Invalid, "not part of this test"))
}

#[async_trait::async_trait]
impl Metadata for Fake {
    async fn register(&self, request: pb::RegisterRequest) -> Result<pb::RegisterResponse, Error> {
        self.check()?;
        self.registrations.fetch_add(1, Ordering::SeqCst);
        let node = if request.node == 0 { 7 } else { request.node };
        Ok(pb::RegisterResponse { node, cluster_id: "c".into(), shards: 1 })
    }
    async fn heartbeat(&self, request: pb::HeartbeatRequest) -> Result<pb::HeartbeatResponse, Error> {
        self.check()?;
        let forget = |left: usize| left.checked_sub(1);
        if self.forgets.fetch_update(Ordering::SeqCst, Ordering::SeqCst, forget).is_ok() {
            return Err(Error::new(ErrorKind::NotFound, "node 7 is not registered"));
        }
        let counter = if request.leaving { &self.goodbyes } else { &self.beats };
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(pb::HeartbeatResponse { map_version: 1, lease_ms: 150 })
    }
    async fn propose(&self, _: pb::ProposeRequest) -> Result<pb::ProposeResponse, Error> {
        unused()
    }
    async fn status(&self, _: pb::MetadataStatusRequest) -> Result<pb::MetadataStatusResponse, Error> {
        self.check()?;
        Ok(pb::MetadataStatusResponse { raft_term: 5, ..Default::default() })
    }
    async fn init(&self, _: pb::InitRequest) -> Result<pb::InitResponse, Error> {
        Ok(pb::InitResponse { cluster_id: self.leader.unwrap_or("first").to_owned() })
    }
    async fn change_member(&self, _: pb::ChangeMemberRequest) -> Result<pb::ChangeMemberResponse, Error> {
        unused()
    }
    async fn drain(&self, _: pb::DrainRequest) -> Result<pb::DrainResponse, Error> {
        unused()
    }
    async fn set_limits(&self, _: pb::SetLimitsRequest) -> Result<pb::SetLimitsResponse, Error> {
        unused()
    }
    async fn raft(&self, _: pb::RaftRequest) -> Result<pb::RaftResponse, Error> {
        unused()
    }
    async fn watch(&self, _: pb::WatchRequest) -> Result<ResponseStream<pb::ShardMap>, Error> {
        let maps = self.maps.subscribe();
        let next = |mut maps: watch::Receiver<ShardMap>| async move {
            let map = convert::map_to_proto(&maps.borrow_and_update());
            let sent = if map.version == u64::MAX {
                Err(Error::new(ErrorKind::Unavailable, "this member stops"))
            } else {
                Ok(map)
            };
            let rest = futures::stream::unfold(maps, |mut maps| async move {
                maps.changed().await.ok()?;
                let map = convert::map_to_proto(&maps.borrow_and_update());
                let stops = map.version == u64::MAX;
                let stop = || Error::new(ErrorKind::Unavailable, "this member stops");
                Some((if stops { Err(stop()) } else { Ok(map) }, maps))
            });
            futures::stream::iter([sent]).chain(rest)
        };
        Ok(next(maps).await.boxed())
    }
}

/// A data node that nobody asks anything.
struct Silent(String);

macro_rules! silent {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait::async_trait]
        impl DataNode for Silent {
            $(async fn $method(&self, _: $request) -> Result<$response, Error> {
                Err(Error::new(ErrorKind::Invalid, self.0.clone()))
            })*
        }
    };
}
silent! {
    write(dn::WriteRequest) -> dn::WriteResponse;
    delete(dn::DeleteRequest) -> dn::WriteResponse;
    replicate(dn::ReplicateRequest) -> dn::ReplicateResponse;
    beacon(dn::BeaconRequest) -> dn::BeaconResponse;
    install_snapshot(ResponseStream<dn::SnapshotChunk>) -> dn::SnapshotResponse;
    backup(dn::BackupRequest) -> ResponseStream<dn::SnapshotChunk>;
    restore(ResponseStream<dn::SnapshotChunk>) -> dn::SnapshotResponse;
    execute(dn::ExecuteRequest) -> ResponseStream<dn::ExecuteChunk>;
    flush(dn::FlushRequest) -> dn::FlushResponse;
    status(dn::NodeStatusRequest) -> dn::NodeStatusResponse;
}

struct Book(HashMap<&'static str, Arc<Fake>>);

impl Dial for Book {
    fn metadata(&self, address: &str) -> Result<Arc<dyn Metadata>, Error> {
        match self.0.get(address) {
            Some(fake) => Ok(fake.clone()),
            None => Err(Error::new(ErrorKind::Invalid, "no such address")),
        }
    }
    fn data_node(&self, address: &str) -> Result<Arc<dyn DataNode>, Error> {
        Ok(Arc::new(Silent(address.to_owned())))
    }
}

fn two_members(first: &Arc<Fake>, second: &Arc<Fake>) -> Cluster {
    let book = Book(HashMap::from([("m1:1", first.clone()), ("m2:1", second.clone())]));
    Cluster::with_dialer(&["m1:1".to_owned(), "m2:1".to_owned()], Arc::new(book)).unwrap()
}

#[tokio::test]
async fn calls_follow_the_hint_to_the_leader_and_a_birth_does_not() {
    let (first, second) = (Fake::new(Some("m2:1"), map(1)), Fake::new(None, map(1)));
    let cluster = two_members(&first, &second);
    assert_eq!(cluster.status(LIMIT).await.unwrap().raft_term, 5);
    let born = cluster.init(pb::InitRequest::default(), LIMIT).await.unwrap();
    assert_eq!(born.cluster_id, "m2:1", "the first member was asked");
}

#[tokio::test]
async fn the_watch_moves_to_another_member_and_never_goes_back_in_time() {
    let (first, second) = (Fake::new(None, map(5)), Fake::new(None, map(4)));
    let cluster = two_members(&first, &second);
    assert_eq!(cluster.wait_ready(LIMIT).await.unwrap().version, 5);
    // The first stops; the second is behind until it says something newer.
    first.maps.send_replace(map(u64::MAX));
    second.maps.send_replace(map(6));
    assert_eq!(cluster.newer_than(5, LIMIT).await.unwrap().version, 6);
    assert!(cluster.map_age() < LIMIT);
}

#[tokio::test]
async fn a_map_of_another_cluster_is_not_taken() {
    let (first, second) = (Fake::new(None, map(5)), Fake::new(None, map(5)));
    let cluster = two_members(&first, &second);
    cluster.wait_ready(LIMIT).await.unwrap();
    first.maps.send_replace(ShardMap { cluster_id: "other".into(), ..map(8) });
    second.maps.send_replace(map(7));
    assert_eq!(cluster.newer_than(5, LIMIT).await.unwrap().version, 7);
}

#[tokio::test]
async fn heartbeats_come_from_their_own_thread_and_end_with_a_goodbye() {
    let (first, second) = (Fake::new(Some("m2:1"), map(1)), Fake::new(None, map(1)));
    second.forgets.store(1, Ordering::SeqCst);
    let cluster = two_members(&first, &second);
    let dir = tempfile::tempdir().unwrap();
    let address = NodeAddress { role: "querier".into(), rpc: "x:1".into(), ..Default::default() };
    let identity = cluster.register(Some(dir.path()), &address, LIMIT).await.unwrap();
    assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity.clone()));
    let heartbeat = cluster.start_heartbeat(&identity, &address, Report::default).unwrap();
    // This runtime has one thread, and it is blocked: heartbeats go on all the same.
    let deadline = std::time::Instant::now() + LIMIT;
    while second.beats.load(Ordering::SeqCst) < 3 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(second.registrations.load(Ordering::SeqCst), 2, "a forgotten node registers again");
    heartbeat.stop().await;
    assert_eq!(second.goodbyes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn clients_follow_a_node_to_its_new_address() {
    let (first, second) = (Fake::new(None, map(1)), Fake::new(None, map(1)));
    let cluster = two_members(&first, &second);
    cluster.wait_ready(LIMIT).await.unwrap();
    let asked = |node: Arc<dyn DataNode>| async move {
        node.flush(dn::FlushRequest::default()).await.unwrap_err().message
    };
    let before = cluster.data_node(NodeId(2)).unwrap();
    assert!(Arc::ptr_eq(&before, &cluster.data_node(NodeId(2)).unwrap()), "connections are kept");
    assert_eq!(asked(before).await, "b:1");
    first.maps.send_replace(ShardMap { nodes: vec![node(1, "a:1"), node(2, "c:1")], ..map(2) });
    cluster.newer_than(1, LIMIT).await.unwrap();
    assert_eq!(asked(cluster.data_node(NodeId(2)).unwrap()).await, "c:1");
    assert_eq!(cluster.data_node(NodeId(9)).err().unwrap().kind, ErrorKind::NotFound);
    cluster.set_local(NodeId(2), Arc::new(Silent("itself".into())));
    assert_eq!(asked(cluster.data_node(NodeId(2)).unwrap()).await, "itself");
}

#[tokio::test]
async fn a_fixed_map_takes_proposals_by_compare_and_set() {
    let cluster = Cluster::fixed(map(1));
    let mut wish = map(1).shards[0].clone();
    wish.in_sync = vec![NodeId(1)];
    let taken = cluster.propose(NodeId(1), Epoch(3), &wish, LIMIT).await.unwrap();
    assert!(taken.accepted);
    assert_eq!(cluster.map().shards[0], taken.config);
    assert_eq!((taken.config.epoch, cluster.map().version), (Epoch(4), 2));
    let lost = cluster.propose(NodeId(1), Epoch(3), &wish, LIMIT).await.unwrap();
    assert_eq!((lost.accepted, lost.config.epoch), (false, Epoch(4)));
    wish.in_sync.clear();
    assert!(!cluster.propose(NodeId(1), Epoch(4), &wish, LIMIT).await.unwrap().accepted);
    let address = NodeAddress { rpc: "b:1".into(), ..Default::default() };
    assert_eq!(cluster.register(None, &address, LIMIT).await.unwrap().node_id, NodeId(2));
}

#[tokio::test]
async fn addresses_are_checked_at_once() {
    for wrong in ["", "host", "host:", ":7301", "host:http"] {
        let error = Cluster::connect(&[wrong.to_owned()]).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Invalid, "{wrong:?}");
    }
    assert!(Cluster::connect(&[]).is_err());
    assert!(Cluster::connect(&["127.0.0.1:7301".to_owned(), "[::1]:7301".to_owned()]).is_ok());
}
