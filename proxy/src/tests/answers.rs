//! The same answer to the byte, however series are spread over shards and nodes: that of the engine over all of them.

use tricord_promql::eval::{EvalOptions, NoSources, evaluate};
use tricord_promql::parser::{ParserOptions, parse};
use tricord_promql::value::Grid;

use super::cluster::{FakeCluster, escaped, example};
use crate::render::{ResultShape, write_result};

const QUERIES: &[&str] = &[
    "1 + 2",
    "time()",
    "vector(3)",
    "up",
    "up{instance=~\"host-[12].*\"} == 1",
    "up offset 1m",
    "up @ end()",
    "up @ 100 offset -30s",
    "timestamp(up)",
    "rate(requests_total[1m])",
    "increase(requests_total{code=\"500\"}[2m]) * 60 > 3",
    "sum(rate(requests_total[1m]))",
    "sum by (job) (rate(requests_total[1m]))",
    "sum without (instance) (rate(requests_total[1m]))",
    "sum(huge) + sum(tiny)",
    "sum({__name__=~\"huge|tiny|limits\"})",
    "avg(huge)",
    "avg by (code) (requests_total)",
    "count(up == 1) by (job)",
    "min(requests_total) / max(requests_total)",
    "group by (job) (up)",
    "stddev by (job) (requests_total)",
    "stdvar(rate(requests_total[1m]))",
    "quantile by (job) (0.9, requests_total)",
    "quantile(0.5, up)",
    "topk(3, requests_total)",
    "bottomk by (job) (1, rate(requests_total[1m]))",
    "topk(scalar(k), requests_total)",
    "limitk(3, up)",
    "limit_ratio(0.5, requests_total)",
    "count_values(\"value\", up)",
    "sum by (job) (max by (job, instance) (requests_total))",
    "max(sum by (job) (rate(requests_total[1m])))",
    "topk(1, sum by (job) (rate(requests_total[1m])))",
    "rate(requests_total{code=\"500\"}[1m]) / ignoring (code) rate(requests_total{code=\"200\"}[1m])",
    "requests_total - requests_total offset 1m",
    "sum(requests_total - requests_total offset 1m) by (code)",
    "sum by (job) (requests_total) / on (job) limits",
    "requests_total / on (job) group_left () limits",
    "up and on (job, instance) requests_total{code=\"500\"} > 20",
    "up unless up == 0",
    "up or limits",
    "histogram_quantile(0.9, rate(latency_bucket[1m]))",
    "histogram_quantile(0.5, sum by (le) (rate(latency_bucket[1m])))",
    "max_over_time(rate(requests_total[1m])[2m:15s])",
    "max_over_time(sum(requests_total)[2m:15s])",
    "avg_over_time(sum by (job) (rate(requests_total[1m]))[3m:30s] offset 30s)",
    "max_over_time(sum(requests_total)[2m:15s] @ end())",
    "quantile_over_time(scalar(k) / 4, requests_total[1m])",
    "sum(sum_over_time(quantile_over_time(scalar(k) / 4, requests_total[1m])[1m:30s]))",
    "absent(nothing{a=\"b\"})",
    "absent(up)",
    "absent(up == 7)",
    "absent_over_time(nothing{a=\"b\", c=~\"d\"}[1m])",
    "absent_over_time(up[1m])",
    "absent(sum(nothing))",
    "scalar(k) + up",
    "scalar(up)",
    "sort_desc(requests_total)",
    "sort(sum by (job) (up))",
    "label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\")",
    "sum by (host) (label_replace(up, \"host\", \"$1\", \"instance\", \"(.*):.*\"))",
    "label_join(limits, \"x\", \"-\", \"job\", \"__name__\")",
    "predict_linear(requests_total[2m], 60)",
    "-up",
    "clamp(requests_total, 1, scalar(k))",
    "hour(up)",
    "hour()",
    "sum(up) by (job) > bool 2",
    "(up > 0) * on (job) group_left sum by (job) (limits)",
    "delta(requests_total[1m]) or vector(0)",
    "count(count by (job) (up))",
    // Notes, whose places in the query must not depend on what was pushed.
    "  sum by (job) ( rate(limits [1m]) )",
    "rate(limits[1m]) + on (job) group_right rate(limits[1m]) + sum by (job) (rate(limits[2m]))",
    "quantile(scalar(k), quantile by (job) (2, up))",
    "topk(2, quantile_over_time(1 + 1, rate(up[1m])[2m:15s]))",
    "histogram_quantile(7, sum by (le, job) (increase(latency_bucket[1m])))",
    "histogram_quantile(0.5, abs(sum by (le) (latency_bucket @ 300) - 3000))",
    "absent(rate(limits[1m])) or (sum(rate(limits[1m] @ 200)))",
];

const FAILING: &[&str] = &[
    "rate({__name__=~\"k|tiny\"}[1m])",
    "label_replace(up, \"instance\", \"\", \"\", \"\")",
    "sum(label_replace(up, \"instance\", \"\", \"\", \"\"))",
    "up / on (job) limits + on (job) up",
    "topk(scalar(nothing), up)",
];

/// What one process answers: the engine over all series.
fn direct(query: &str, grid: Grid, shape: ResultShape) -> Result<String, String> {
    direct_with(query, grid, shape, false)
}

fn direct_with(query: &str, grid: Grid, shape: ResultShape, delayed: bool) -> Result<String, String> {
    let expr = parse(query, &ParserOptions::default()).map_err(|error| error.to_string())?;
    let options = EvalOptions {
        delayed_name_removal: delayed,
        query_text: Some(query.into()),
        ..EvalOptions::new(grid)
    };
    let evaluated = evaluate(&expr, grid, &example(), &NoSources, &options);
    let evaluated = evaluated.map_err(|error| error.to_string())?;
    let mut out = vec![b'{'];
    write_result(&mut out, &evaluated.value, grid, shape);
    out.push(b'}');
    let mut text = format!("{{\"status\":\"success\",\"data\":{}", String::from_utf8(out).unwrap());
    for (key, notes) in
        [("warnings", &evaluated.annotations.warnings), ("infos", &evaluated.annotations.infos)]
    {
        if !notes.is_empty() {
            text.push_str(&format!(",\"{key}\":{}", serde_json::to_string(notes).unwrap()));
        }
    }
    text.push('}');
    Ok(text)
}

async fn asked(cluster: &FakeCluster, path: &str) -> Result<String, String> {
    let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    let (status, _, body) = cluster.send(request).await;
    let text = String::from_utf8(body).unwrap();
    if status.is_success() {
        return Ok(text);
    }
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    Err(json["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn any_number_of_shards_gives_the_engines_own_answer() {
    let data = example();
    for (shards, nodes, copies) in [(1, 1, 1), (3, 3, 1), (7, 3, 2)] {
        let cluster = FakeCluster::new(&data, shards, nodes, copies);
        for query in QUERIES.iter().chain(FAILING) {
            let text = escaped(query);
            let grid = Grid { start_ms: 100_000, end_ms: 500_000, step_ms: 20_000 };
            let path = format!("/api/v1/query_range?query={text}&start=100&end=500&step=20");
            let expected = direct(query, grid, ResultShape::Range);
            assert_eq!(asked(&cluster, &path).await, expected, "range {query} on {shards} shards");
            assert_eq!(expected.is_err(), FAILING.contains(query), "{query}: {expected:?}");

            let expected = direct(query, Grid::instant(400_000), ResultShape::Instant);
            let path = format!("/api/v1/query?query={text}&time=400");
            assert_eq!(asked(&cluster, &path).await, expected, "instant {query} on {shards} shards");
        }
    }
}

#[tokio::test]
async fn ranges_are_answered_raw() {
    let cluster = FakeCluster::new(&example(), 7, 3, 2);
    for query in ["up[1m]", "rate(requests_total[1m])[1m:30s]", "sum(up)[1m:15s]", "up[30s] @ 90 offset 10s"]
    {
        let expected = direct(query, Grid::instant(400_000), ResultShape::Instant);
        let path = format!("/api/v1/query?query={}&time=400", escaped(query));
        assert_eq!(asked(&cluster, &path).await, expected, "{query}");
    }
}

#[tokio::test]
async fn names_that_go_late_travel_with_their_series() {
    let config = crate::Config { delayed_name_removal: true, ..crate::Config::default() };
    let cluster = FakeCluster::with(&example(), 7, 3, 2, config);
    for query in QUERIES.iter().chain(&[
        "sum by (__name__) (rate({__name__=~\"up|requests_total\"}[1m]))",
        "quantile by (__name__) (0.5, label_replace(rate(requests_total[1m]), \"a\", \"b\", \"\", \"\"))",
        "count_values by (__name__) (\"value\", rate({__name__=~\"up|requests_total\"}[1m]))",
        "rate({__name__=~\"k|tiny\"}[1m])",
    ]) {
        let grid = Grid { start_ms: 100_000, end_ms: 500_000, step_ms: 20_000 };
        let path = format!("/api/v1/query_range?query={}&start=100&end=500&step=20", escaped(query));
        let expected = direct_with(query, grid, ResultShape::Range, true);
        assert_eq!(asked(&cluster, &path).await, expected, "{query}");
    }
}
