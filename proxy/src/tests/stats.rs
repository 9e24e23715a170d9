//! What `stats` tells, however the series are spread.

use serde_json::{Value, json};

use super::cluster::{FakeCluster, escaped, example};

async fn stats(cluster: &FakeCluster, path: &str, query: &str, stats: &str) -> (Value, Value) {
    let (_, body) = cluster.get(&format!("/api/v1/{path}&stats={stats}&query={}", escaped(query))).await;
    (body["data"]["stats"].clone(), body["warnings"].clone())
}

fn counts(per_step: &Value) -> Vec<u64> {
    per_step.as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).collect()
}

/// Queries over 100 s to 200 s in steps of 20 s, with what each step takes and what it reads anew. Samples lie 15 s
/// apart.
const PER_STEP: &[(&str, [u64; 6], [u64; 6])] = &[
    ("1 + 2", [0; 6], [0; 6]),
    ("up", [12; 6], [12; 6]),
    ("up + up", [24; 6], [24; 6]),
    ("sum by (job) (up)", [12; 6], [12; 6]),
    // Windows of 60 s hold 4 samples; a step of 20 s brings one or two.
    ("rate(requests_total[1m])", [96; 6], [96, 48, 24, 24, 48, 24]),
    ("sum(rate(requests_total[1m])) / count(up)", [108; 6], [108, 60, 36, 36, 60, 36]),
    ("sum(up @ 100)", [12; 6], [12, 0, 0, 0, 0, 0]),
    ("up - up @ 100", [24; 6], [24, 12, 12, 12, 12, 12]),
    ("rate(requests_total[1m] @ 150)", [96; 6], [96, 0, 0, 0, 0, 0]),
    // The subquery's own steps at 45, 60, … each read 24 samples, and are read once.
    ("max_over_time(sum(requests_total)[1m:15s])", [4; 6], [96, 48, 24, 24, 48, 24]),
    ("max_over_time(requests_total[1m:15s])", [96; 6], [96, 48, 24, 24, 48, 24]),
    // Steps of 20 s look at 5 s each: what lies between is not read.
    ("max_over_time(sum(up)[5s:5s])", [1; 6], [12; 6]),
    ("quantile_over_time(scalar(k) / 4, requests_total[1m])", [97; 6], [97, 49, 25, 25, 49, 25]),
    ("absent(nothing)", [0; 6], [0; 6]),
    ("absent_over_time(up[1m])", [48; 6], [48, 24, 12, 12, 24, 12]),
];

#[tokio::test]
async fn each_step_tells_its_samples() {
    for (shards, nodes) in [(1, 1), (7, 3)] {
        let cluster = FakeCluster::new(&example(), shards, nodes, 1);
        for (query, queryable, read) in PER_STEP {
            let (stats, warnings) =
                stats(&cluster, "query_range?start=100&end=200&step=20", query, "all").await;
            let samples = &stats["samples"];
            assert_eq!(warnings, Value::Null, "{query}");
            assert_eq!(counts(&samples["totalQueryableSamplesPerStep"]), queryable, "{query}");
            assert_eq!(counts(&samples["samplesReadPerStep"]), read, "{query}");
            assert_eq!(samples["totalQueryableSamples"], json!(queryable.iter().sum::<u64>()), "{query}");
            assert_eq!(samples["samplesRead"], json!(read.iter().sum::<u64>()), "{query}");
        }
    }
}

#[tokio::test]
async fn instant_queries_have_one_step() {
    let cluster = FakeCluster::new(&example(), 7, 3, 2);
    for (query, taken, read) in [
        ("up", 12, 12),
        ("up[1m]", 48, 48),
        ("sum(up)[1m:15s]", 48, 48),
        ("max_over_time(sum(requests_total)[2m:15s])", 8, 192),
    ] {
        let (stats, _) = stats(&cluster, "query?time=400.5", query, "all").await;
        let samples = &stats["samples"];
        assert_eq!(samples["totalQueryableSamplesPerStep"], json!([[400.5, taken]]), "{query}");
        assert_eq!(samples["samplesReadPerStep"], json!([[400.5, read]]), "{query}");
    }
}

#[tokio::test]
async fn totals_come_without_steps_and_nothing_unasked() {
    let cluster = FakeCluster::new(&example(), 7, 3, 2);
    let (totals, warnings) = stats(&cluster, "query?time=400", "sum(up)", "true").await;
    assert_eq!((&totals["samples"]["totalQueryableSamples"], warnings), (&json!(12), Value::Null));
    assert!(totals["samples"]["peakSamples"].as_u64().unwrap() > 0, "{totals}");
    assert!(totals["samples"].get("totalQueryableSamplesPerStep").is_none(), "{totals}");
    let timings = &totals["timings"];
    let seconds = |name: &str| timings[name].as_f64().unwrap();
    assert!(seconds("execTotalTime") >= seconds("evalTotalTime"), "{timings}");
    assert!(seconds("evalTotalTime") >= seconds("queryPreparationTime") + seconds("innerEvalTime") - 1e-9);
    let (none, _) = stats(&cluster, "query?time=400", "up", "").await;
    assert_eq!(none, Value::Null);
    let (some, warnings) = stats(&cluster, "query?time=400", "up", "yes").await;
    assert_eq!(some["samples"]["samplesRead"], json!(12));
    let text = "value \"yes\" for parameter \"stats\" is deprecated and will be rejected in the next major release, \
                use \"true\" or \"all\"";
    assert_eq!(warnings, json!([text]));
}
