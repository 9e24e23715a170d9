use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tricord_wire::proto::metadata as pb;
use tricord_wire::{Error as WireError, ErrorKind, Metadata, ResponseStream};

use super::*;

/// A metadata member that counts who asks for its status, and answers as many as it is allowed to.
struct Counting {
    asked: AtomicUsize,
    running: AtomicUsize,
    allowed: Semaphore,
}

fn unused<T>() -> Result<T, WireError> {
    Err(WireError::new(ErrorKind::Invalid, "not part of this test"))
}

macro_rules! unused {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[async_trait::async_trait]
        impl Metadata for Counting {
            $(async fn $method(&self, _: pb::$request) -> Result<pb::$response, WireError> {
                unused()
            })*

            async fn status(
                &self,
                _: pb::MetadataStatusRequest,
            ) -> Result<pb::MetadataStatusResponse, WireError> {
                self.asked.fetch_add(1, Ordering::SeqCst);
                assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "two calls at a time");
                self.allowed.acquire().await.unwrap().forget();
                self.running.fetch_sub(1, Ordering::SeqCst);
                Ok(pb::MetadataStatusResponse { raft_term: 5, ..Default::default() })
            }

            async fn watch(&self, _: pb::WatchRequest) -> Result<ResponseStream<pb::ShardMap>, WireError> {
                unused()
            }
        }
    };
}
unused! {
    register(RegisterRequest) -> RegisterResponse;
    heartbeat(HeartbeatRequest) -> HeartbeatResponse;
    propose(ProposeRequest) -> ProposeResponse;
    init(InitRequest) -> InitResponse;
    change_member(ChangeMemberRequest) -> ChangeMemberResponse;
    drain(DrainRequest) -> DrainResponse;
    set_limits(SetLimitsRequest) -> SetLimitsResponse;
    raft(RaftRequest) -> RaftResponse;
}

fn scene() -> (Arc<Counting>, ClusterStatus) {
    let zero = AtomicUsize::default;
    let member = Arc::new(Counting { asked: zero(), running: zero(), allowed: Semaphore::new(0) });
    (member.clone(), ClusterStatus::new(Cluster::local(member).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn many_askers_cost_one_call() {
    let (member, status) = scene();
    let now = Instant::now();
    let mut waiting: Vec<_> = (0..50).map(|_| status.call(now)).collect();
    // One that takes longer than a second is waited for, not made twice.
    waiting.extend((0..50).map(|_| status.call(now + FRESH * 2)));
    member.allowed.add_permits(1);
    for answer in &mut waiting {
        let answer = answer.wait_for(Option::is_some).await.unwrap().clone().unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(json["term"], 5);
    }
    assert!(status.call(now + FRESH / 2).borrow().is_some(), "a fresh answer is given at once");
    assert_eq!(member.asked.load(Ordering::SeqCst), 1);
    member.allowed.add_permits(1);
    status.call(now + FRESH).wait_for(Option::is_some).await.unwrap();
    assert_eq!(member.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_its_askers() {
    let (member, status) = scene();
    let now = Instant::now();
    for _ in 0..50 {
        drop(status.call(now));
    }
    member.allowed.add_permits(1);
    status.call(now).wait_for(Option::is_some).await.unwrap();
    assert_eq!(member.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_metadata_the_reason_is_told() {
    let status = ClusterStatus::new(Cluster::fixed(tricord_routing::ShardMap::default()));
    let error = status.view().await.unwrap_err();
    assert_eq!(error.kind().status(), 503);
    assert!(error.to_string().starts_with("no metadata leader answered"), "{error}");
}
