//! Forwarding against data nodes in memory that fail in every way they may.

use std::time::Duration;

use tricord_model::{Batch, Labels, Sample, SeriesBatch, Tenant};
use tricord_wire::{Error as WireError, ErrorKind};

use super::*;
use crate::testing::{Setup, Trick, map, setup};
use crate::{Config, Decoded, Error, Outcome};

/// One sample for each of so many targets, which spreads them over all shards.
fn decoded(targets: usize) -> Decoded {
    let series = |at: usize| SeriesBatch {
        labels: Labels::from_pairs([("__name__", "up"), ("job", "j"), ("instance", &at.to_string())]),
        samples: vec![Sample::float(1, at as f64)],
        ..SeriesBatch::default()
    };
    Decoded {
        batch: Batch { series: (0..targets).map(series).collect(), ..Batch::default() },
        ..Decoded::default()
    }
}

async fn write(setup: &Setup, targets: usize) -> Result<Outcome, Error> {
    setup.ingester.write(&Tenant::default(), decoded(targets), "test").await
}

fn short(timeout_ms: u64) -> Config {
    Config { request_timeout_ms: timeout_ms, ..Config::default() }
}

fn failure(kind: ErrorKind) -> WireError {
    WireError::new(kind, "says the test")
}

#[tokio::test]
async fn a_request_is_one_message_for_each_node() {
    let setup = setup(Config::default());
    let outcome = write(&setup, 100).await.unwrap();
    assert_eq!(
        outcome,
        Outcome { written: Written { samples: 100, ..Written::default() }, ..Outcome::default() }
    );
    assert_eq!(setup.nodes.each_ref().map(|node| *node.calls.lock()), [1, 1]);
    assert_eq!(setup.batch().samples(), 100);
    for (shard, epoch, tenant, _) in setup.nodes[0].taken.lock().iter() {
        assert_eq!((shard.0 % 2, *epoch, tenant.as_str()), (0, 1, "default"));
    }
    assert!(setup.metrics.encode().contains("tricord_ingester_samples_total{protocol=\"test\"} 100"));
}

#[tokio::test]
async fn what_may_pass_later_is_tried_again() {
    for kind in [ErrorKind::StaleEpoch, ErrorKind::NotServing, ErrorKind::Unavailable, ErrorKind::Timeout] {
        let setup = setup(Config::default());
        for _ in 0..3 {
            setup.nodes[0].trick(Trick::Fail(failure(kind)));
        }
        setup.nodes[1].trick(Trick::FailShard(3, failure(kind)));
        let outcome = write(&setup, 100).await.unwrap();
        assert_eq!((outcome.written.samples, setup.batch().samples()), (100, 100), "{kind:?}");
        assert_eq!(setup.nodes.each_ref().map(|node| *node.calls.lock()), [4, 2], "{kind:?}");
    }
}

#[tokio::test]
async fn a_moved_shard_is_followed_under_its_new_epoch() {
    let setup = setup(Config::default());
    setup.nodes[0].trick(Trick::Move(setup.cluster.clone(), map(2, 8, &[2])));
    let outcome = write(&setup, 100).await.unwrap();
    assert_eq!(outcome.written.samples, 100);
    assert_eq!(setup.nodes[0].batch().samples(), 0);
    let epochs: Vec<u64> = setup.nodes[1].taken.lock().iter().map(|(_, epoch, ..)| *epoch).collect();
    assert!(epochs.contains(&1) && epochs.contains(&2), "{epochs:?}");
}

#[tokio::test]
async fn a_shard_that_stays_away_fails_the_request_and_tells_what_is_written() {
    let setup = setup(short(300));
    for _ in 0..1000 {
        setup.nodes[1].trick(Trick::FailShard(3, failure(ErrorKind::Unavailable)));
    }
    let Err(Error::Unavailable { message, written, .. }) = write(&setup, 100).await else {
        panic!("the write must fail")
    };
    assert!(
        message.starts_with("shard 3 did not acknowledge: ") && message.ends_with(": says the test"),
        "{message}"
    );
    assert_eq!(written.samples, setup.batch().samples() as u64);
    assert!(written.samples > 50 && written.samples < 100);
    // Other shards are not written again while one is tried anew.
    assert!(*setup.nodes[1].calls.lock() > 2);
    assert!(setup.metrics.encode().contains("tricord_ingester_shard_failures_total{kind=\"unavailable\"} 1"));
}

#[tokio::test]
async fn a_node_that_hangs_costs_the_time_of_the_request_and_no_more() {
    let setup = setup(short(300));
    setup.nodes[0].trick(Trick::Hang);
    let begin = Instant::now();
    assert!(matches!(write(&setup, 100).await, Err(Error::Unavailable { .. })));
    assert!(begin.elapsed() < Duration::from_millis(2000));
    assert_eq!(setup.nodes[0].nodes_free(&setup), setup.ingester.forwarder.node_bytes / PERMIT_BYTES);
}

impl crate::testing::FakeNode {
    /// Permits of the first node after a request.
    fn nodes_free(&self, setup: &Setup) -> usize {
        setup.ingester.forwarder.nodes.lock()[&NodeId(1)].available_permits()
    }
}

#[tokio::test]
async fn a_full_node_is_not_asked_again_at_once() {
    let setup = setup(Config::default());
    for node in &setup.nodes {
        node.trick(Trick::Fail(WireError::overloaded("memory is full", Duration::from_secs(7))));
    }
    let error = write(&setup, 100).await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(setup.nodes.each_ref().map(|node| *node.calls.lock()), [1, 1]);
}

#[tokio::test]
async fn what_a_shard_refuses_for_good_is_counted() {
    let setup = setup(Config::default());
    setup.nodes[0].trick(Trick::Refuse(1));
    let outcome = write(&setup, 1000).await.unwrap();
    let shards = setup.nodes[0].taken.lock().len() as u64;
    assert_eq!((outcome.written.samples, outcome.rejected.samples), (1000 - shards, shards));
    assert_eq!(outcome.rejected.reasons, ["too far in the future"]);
}

#[tokio::test]
async fn without_a_map_or_a_primary_the_client_is_asked_to_come_back() {
    let setup = setup(short(100));
    setup.cluster.set_map(ShardMap::default());
    assert!(matches!(write(&setup, 1).await, Err(Error::Unavailable { .. })));
    let mut unplaced = map(2, 8, &[1]);
    unplaced.shards.iter_mut().for_each(|shard| shard.primary = None);
    setup.cluster.set_map(unplaced);
    let error = write(&setup, 1).await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("has no primary"), "{error}");
}

#[tokio::test]
async fn pieces_of_a_shard_stay_in_order() {
    let setup = setup(Config::default());
    let samples: Vec<Sample> = (0..400_000).map(|i| Sample::float(i, i as f64)).collect();
    let series =
        SeriesBatch { labels: Labels::from_pairs([("__name__", "up")]), samples, ..SeriesBatch::default() };
    let decoded = Decoded { batch: Batch { series: vec![series], ..Batch::default() }, ..Decoded::default() };
    let outcome = setup.ingester.write(&Tenant::default(), decoded, "test").await.unwrap();
    assert_eq!(outcome.written.samples, 400_000);
    let times: Vec<i64> =
        setup.batch().series.iter().flat_map(|s| s.samples.iter().map(|s| s.t_ms)).collect();
    assert!(times.is_sorted() && setup.batch().series.len() > 1);
}
