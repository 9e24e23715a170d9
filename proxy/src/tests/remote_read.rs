//! Remote read: both kinds of answers, and what fails.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use futures::StreamExt;
use tower::ServiceExt;
use tricord_model::{Labels, Points, Sample};
use tricord_testkit::remote_read::{
    ReadHints, ReadQuery, ReadSeries, SAMPLES, STREAMED_XOR_CHUNKS, frames, remote_read_body, samples,
};
use tricord_wire::{Error as WireError, ErrorKind};

use super::cluster::{FakeCluster, Memory, example};
use crate::Config;

fn request(queries: &[ReadQuery], accepted: &[i32]) -> Request<Body> {
    let body = remote_read_body(queries, accepted).unwrap();
    Request::post("/api/v1/read").header("content-encoding", "snappy").body(Body::from(body)).unwrap()
}

async fn read(
    cluster: &FakeCluster,
    queries: &[ReadQuery],
    accepted: &[i32],
) -> (StatusCode, HeaderMap, Vec<u8>) {
    cluster.send(request(queries, accepted)).await
}

/// The frames of an answer, put together as series by query.
fn from_frames(body: &[u8], queries: usize) -> Vec<Vec<ReadSeries>> {
    let mut results: Vec<Vec<ReadSeries>> = vec![vec![]; queries];
    for frame in frames(body).unwrap() {
        let result = &mut results[frame.query_index as usize];
        let (floats, histograms) = (frame.floats().unwrap(), frame.histograms().unwrap());
        match result.last_mut().filter(|last| last.labels == frame.labels) {
            Some(last) => last.floats.extend(floats),
            None => result.push(ReadSeries { labels: frame.labels, floats, histograms }),
        }
    }
    results
}

#[tokio::test]
async fn both_kinds_of_answers_hold_the_same_samples() {
    let cluster = FakeCluster::new(&example(), 7, 3, 2);
    let queries = [
        ReadQuery::named("up", 30_000, 60_000).and(2, "job", "job-[01]").and(1, "instance", "host-0:9100"),
        ReadQuery::named("nothing", 0, 600_000),
        ReadQuery::named("requests_total", 0, 600_000).and(3, "code", "5.."),
    ];
    let (status, headers, body) = read(&cluster, &queries, &[]).await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"application/x-protobuf".parse().unwrap())
    );
    assert_eq!(headers["content-encoding"], "snappy");
    let plain = samples(&body).unwrap();
    assert_eq!(plain.iter().map(Vec::len).collect::<Vec<_>>(), [6, 0, 12]);
    let times: Vec<i64> = plain[0][0].floats.iter().map(|(t_ms, _)| *t_ms).collect();
    assert_eq!(times, [30_000, 45_000, 60_000], "both ends are included");
    assert!(plain.iter().all(|series| series.is_sorted_by(|a, b| a.labels < b.labels)));

    let (status, headers, body) = read(&cluster, &queries, &[STREAMED_XOR_CHUNKS, SAMPLES]).await;
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind));
    assert_eq!(from_frames(&body, 3), plain);
}

#[tokio::test]
async fn a_list_of_series_is_asked_for_by_a_hint() {
    let cluster = FakeCluster::new(&example(), 7, 3, 2);
    let hints = Some(ReadHints { func: "series".into(), start_ms: 0, end_ms: 600_000 });
    let query = ReadQuery { hints, ..ReadQuery::named("limits", 0, 600_000) };
    let (_, _, body) = read(&cluster, &[query], &[]).await;
    let series = samples(&body).unwrap().remove(0);
    assert_eq!(series.len(), 3);
    assert!(series.iter().all(|series| series.floats.is_empty() && series.labels[1].0 == "job"));
}

#[tokio::test]
async fn a_missing_shard_is_an_error() {
    let cluster = FakeCluster::new(&example(), 3, 3, 1);
    let refusal = WireError::new(ErrorKind::Unavailable, "refused by the test");
    *cluster.nodes[1].refusals.lock() = vec![refusal; 100_000];
    for accepted in [SAMPLES, STREAMED_XOR_CHUNKS] {
        let (status, _, body) = read(&cluster, &[ReadQuery::named("up", 0, 600_000)], &[accepted]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains("shard 1 has no live replica"), "{text}");
    }
}

/// A series that is too long for what is sent ahead of a slow reader.
fn long() -> Memory {
    let noise = |at: u64| f64::from_bits(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
    let points: Points = (0..400_000u64).map(|at| Sample::float(at as i64, noise(at))).collect();
    Memory(vec![(Labels::from_pairs([("__name__", "noise")]), points)])
}

#[tokio::test]
async fn what_fails_on_the_way_breaks_the_answer_off() {
    let cluster = FakeCluster::new(&long(), 1, 1, 1);
    let queries = [ReadQuery::named("noise", 0, 600_000), ReadQuery::named("noise", 0, 600_000)];
    let response = cluster.router().oneshot(request(&queries, &[STREAMED_XOR_CHUNKS])).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    // The second query is not asked before the first one's samples are taken.
    *cluster.nodes[0].refusals.lock() = vec![WireError::new(ErrorKind::Limit, "refused by the test"); 100];
    let mut last = None;
    while let Some(piece) = body.next().await {
        last = Some(piece);
    }
    assert!(last.unwrap().is_err(), "a cut answer must not look whole");
}

#[tokio::test]
async fn a_reader_that_goes_frees_its_turn() {
    let cluster = FakeCluster::new(&long(), 1, 1, 1);
    let queries = [ReadQuery::named("noise", 0, 600_000)];
    let response = cluster.router().oneshot(request(&queries, &[STREAMED_XOR_CHUNKS])).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    assert_eq!(cluster.metrics().running.get(), 1);
    drop(body);
    cluster.until(|cluster| cluster.metrics().running.get() == 0).await;
}

#[tokio::test]
async fn the_samples_of_a_request_are_bounded() {
    let config = Config { max_samples: 500, ..Config::default() };
    let cluster = FakeCluster::with(&example(), 3, 3, 1, config);
    let up = || ReadQuery::named("up", 0, 600_000).and(0, "job", "job-1");
    let (status, _, _) = read(&cluster, &[up(), up()], &[]).await;
    assert_eq!(status, StatusCode::OK, "2 * 4 * 41 samples");
    let (status, _, body) = read(&cluster, &[up(), up(), up(), up()], &[]).await;
    let text = String::from_utf8(body).unwrap();
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
    assert!(text.contains("more than 500") && text.contains("max_samples"), "{text}");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let cluster = FakeCluster::new(&example(), 1, 1, 1);
    let raw = |body: &'static str| Request::post("/api/v1/read").body(Body::from(body)).unwrap();
    assert_eq!(cluster.send(raw("no snappy")).await.0, StatusCode::BAD_REQUEST);
    let (status, _, _) = read(&cluster, &[ReadQuery::named("up", 0, 1)], &[7]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _, _) = read(&cluster, &[ReadQuery::named("up", 0, 1).and(2, "job", "(")], &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(cluster.nodes[0].asked.load(Ordering::Relaxed), 0);
}
