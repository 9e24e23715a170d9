//! Requests as Grafana and other clients send them.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use super::cluster::{FakeCluster, escaped, example};

fn cluster() -> FakeCluster {
    FakeCluster::new(&example(), 7, 3, 2)
}

#[tokio::test]
async fn save_and_test_of_grafana_passes() {
    let cluster = cluster();
    let (status, body) = cluster.post("/api/v1/query", "query=1%2B1&time=4").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["data"], json!({"resultType": "scalar", "result": [4, "2"]}));
    let (_, body) = cluster.get("/api/v1/status/buildinfo").await;
    assert!(body["data"]["version"].as_str().unwrap().starts_with("3."));
    assert!(body["data"].get("features").is_none() && body["data"].get("application").is_none());
    let (status, body) = cluster.get("/api/v1/status/flags").await;
    assert_eq!((status, &body["errorType"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    // The exemplar probe has milliseconds where seconds belong.
    let probe = "query=test&start=1763500000000&end=1763503600000";
    let (status, body) = cluster.post("/api/v1/query_exemplars", probe).await;
    assert_eq!((status, &body["data"]), (StatusCode::OK, &json!([])));
}

#[tokio::test]
async fn both_prefixes_and_both_methods_answer() {
    let cluster = cluster();
    let (_, by_get) = cluster.get("/api/v1/query_range?query=sum(up)&start=100&end=200&step=50").await;
    let form = "query=sum%28up%29&start=100&end=200&step=50s";
    let (_, by_post) = cluster.post("/prometheus/api/v1/query_range", form).await;
    assert_eq!(by_get, by_post);
    assert_eq!(by_get["data"]["result"][0]["values"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn labels_series_and_values_are_listed() {
    let cluster = cluster();
    let (_, body) = cluster.get("/api/v1/labels").await;
    assert_eq!(body["data"], json!(["__name__", "code", "instance", "job", "le", "sign"]));
    let (_, body) = cluster.get("/api/v1/label/job/values").await;
    assert_eq!(body["data"], json!(["job-0", "job-1", "job-2"]));
    let (_, body) = cluster.get("/api/v1/label/U__sign/values?match[]=huge").await;
    assert_eq!(body["data"], json!(["minus", "plus"]));
    let (_, body) = cluster.get("/api/v1/series?match[]=limits&limit=2").await;
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    assert_eq!(body["warnings"], json!(["results truncated due to limit"]));
    let (_, body) = cluster.get("/api/v1/query?query=limits&time=100&limit=1").await;
    assert_eq!(body["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(body["warnings"], json!(["results truncated due to limit"]));
}

#[tokio::test]
async fn what_has_most_series_is_told() {
    let cluster = cluster();
    let (status, body) = cluster.get("/api/v1/cardinality/label_names?time=100&limit=2").await;
    let expected = json!({
        "label_values_count_total": 7 + 2 + 4 + 3 + 4 + 2,
        "label_names_count": 6,
        "cardinality": [
            { "label_name": "__name__", "label_values_count": 7 },
            { "label_name": "instance", "label_values_count": 4 },
        ],
    });
    assert_eq!((status, &body), (StatusCode::OK, &expected));
    let path = "/api/v1/cardinality/label_values?label_names[]=__name__&label_names[]=code&time=100&since=50s&limit=1";
    let (status, body) = cluster.get(path).await;
    let expected = json!({
        "series_count_total": 91,
        "labels": [
            {
                "label_name": "__name__", "label_values_count": 7, "series_count": 91,
                "cardinality": [{ "label_value": "latency_bucket", "series_count": 48, "series_count_before": 48 }],
            },
            {
                "label_name": "code", "label_values_count": 2, "series_count": 24,
                "cardinality": [{ "label_value": "200", "series_count": 12, "series_count_before": 12 }],
            },
        ],
    });
    assert_eq!((status, &body), (StatusCode::OK, &expected));
    let (_, body) = cluster.get("/api/v1/cardinality/active_series?selector=huge&time=100").await;
    let expected = json!([{ "__name__": "huge", "sign": "minus" }, { "__name__": "huge", "sign": "plus" }]);
    assert_eq!(body, json!({ "data": expected }));
    for wrong in [
        "label_values",
        "active_series",
        "label_names?limit=501",
        "label_names?since=-1s",
        "label_names?selector=%7B",
    ] {
        let (status, body) = cluster.get(&format!("/api/v1/cardinality/{wrong}")).await;
        assert_eq!((status, &body["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")), "{wrong}");
    }
}

#[tokio::test]
async fn mistakes_are_told_in_prometheus_words() {
    let cluster = cluster();
    let many = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
    for (path, error) in [
        ("query?query=up&time=x", "invalid parameter \"time\": cannot parse \"x\" to a valid timestamp"),
        (
            "query_range?query=up&start=0&end=1&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        ("query_range?query=up&start=0&end=11001&step=1", many),
        (
            "query_range?query=up[1m]&start=0&end=1&step=1",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        ("series", "no match[] parameter provided"),
        ("labels?match[]={a=~\".*\"}", "match[] must contain at least one non-empty matcher"),
        ("query?query=up&limit=-1", "invalid parameter \"limit\": limit must be non-negative"),
        (
            "series?match[]={a=~\".*\"}",
            "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
        ),
        (
            "query?query=up&timeout=soon",
            "invalid parameter \"timeout\": cannot parse \"soon\" to a valid duration",
        ),
        (
            "query?query=up&lookback_delta=far",
            "error parsing lookback delta duration: cannot parse \"far\" to a valid duration",
        ),
        ("query_exemplars?query=up&start=2&end=1", "end timestamp must not be before start timestamp"),
        ("query_exemplars?query=sum(", "1:5: parse error: unclosed left parenthesis"),
    ] {
        let path = path.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        let (status, body) = cluster.get(&format!("/api/v1/{path}")).await;
        assert_eq!((status, &body["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")), "{path}");
        assert_eq!(body["error"], json!(error));
    }
    let (_, body) = cluster.get(&format!("/api/v1/query?query={}", escaped("sum(up"))).await;
    assert!(
        body["error"].as_str().unwrap().starts_with("invalid parameter \"query\": 1:7: parse error: "),
        "{body}"
    );
    let (status, body) =
        cluster.get(&format!("/api/v1/query?time=400&query={}", escaped("up * on (job) up"))).await;
    assert_eq!((status, &body["errorType"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("execution")));
}

#[tokio::test]
async fn a_request_may_look_back_further_or_less() {
    let cluster = cluster();
    // The last samples are at 600 s.
    for (lookback, found) in [("", 12), ("99s", 0), ("100", 0), ("101", 12), ("-1", 12)] {
        let path = format!("/api/v1/query?query=up&time=700&lookback_delta={lookback}");
        let (_, body) = cluster.get(&path).await;
        assert_eq!(body["data"]["result"].as_array().unwrap().len(), found, "{lookback}: {body}");
        let path =
            format!("/api/v1/query_range?query=up&start=700&end=710&step=20&lookback_delta={lookback}");
        let (_, body) = cluster.get(&path).await;
        assert_eq!(body["data"]["result"].as_array().unwrap().len(), found, "{lookback}: {body}");
    }
}

#[tokio::test]
async fn lists_are_cut_at_a_limit_and_say_so() {
    let cluster = cluster();
    for (path, all) in [
        ("query?query=up&time=400", 12),
        ("query?query=up[1m]&time=400", 12),
        ("query_range?query=up&start=400&end=410&step=5", 12),
        ("series?match[]=up", 12),
        ("labels?", 6),
        ("label/__name__/values?", 7),
    ] {
        for limit in [0, 1, all, all + 1] {
            let (_, body) = cluster.get(&format!("/api/v1/{path}&limit={limit}")).await;
            let list = body["data"].as_array().or(body["data"]["result"].as_array()).unwrap().len();
            let cut = limit == 1;
            assert_eq!(list, if cut { 1 } else { all }, "{path} {limit}: {body}");
            let warnings = if cut { json!(["results truncated due to limit"]) } else { json!(null) };
            assert_eq!(body["warnings"], warnings, "{path} {limit}");
        }
    }
}

#[tokio::test]
async fn the_admin_api_is_off() {
    for what in ["delete_series", "clean_tombstones", "snapshot"] {
        let (status, body) = cluster().post(&format!("/api/v1/admin/tsdb/{what}"), "").await;
        assert_eq!((status, &body["errorType"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
    }
}

#[tokio::test]
async fn a_tenant_must_have_a_valid_name() {
    let request = Request::get("/api/v1/labels").header("X-Scope-OrgID", "a/b").body(Body::empty()).unwrap();
    let (status, _, body) = cluster().send(request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(&body));
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let path = "/api/v1/query_range?query=requests_total&start=0&end=600&step=5";
    let request = Request::get(path).header("Accept-Encoding", "gzip").body(Body::empty()).unwrap();
    let (status, headers, body) = cluster().send(request).await;
    assert_eq!((status, headers["content-encoding"].to_str().unwrap()), (StatusCode::OK, "gzip"));
    assert_eq!(&body[..2], [0x1f, 0x8b]);
}

#[tokio::test]
async fn explain_tells_what_ran_where() {
    let cluster = cluster();
    let path =
        format!("/api/v1/explain?time=400&query={}", escaped("sum by (job) (rate(requests_total[1m])) > 1"));
    let (_, body) = cluster.get(&path).await;
    let data = &body["data"];
    assert_eq!(data["proxy"], json!("<part 0> > 1"));
    assert_eq!(data["parts"][0]["pushed"], json!("sum by (job) of rate(requests_total[1m])"));
    let shards: usize = data["parts"][0]["ran"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["shards"].as_array().unwrap().len())
        .sum();
    assert_eq!(shards, 7);
    assert_eq!(data["totals"]["samples"], json!(24 * 4));
    let read = &data["tree"]["steps"][0]["steps"][0]["steps"][0];
    assert_eq!(read["does"], json!("read {__name__=\"requests_total\"}"));
    assert_eq!(read["read"]["estimated"], json!({"series": 24, "samples": 24 * 4}));
    let text = data["text"].as_str().unwrap();
    for expected in ["sum by (job) of rate(requests_total[1m])", "estimated 96 samples of 24 series", "node "]
    {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}

#[tokio::test]
async fn explain_runs_a_query_only_where_that_is_wanted() {
    let cluster = cluster();
    for (parameters, analyzed) in
        [("", false), ("&time=400", true), ("&time=400&analyze=false", false), ("&analyze=true", true)]
    {
        let (_, body) = cluster.get(&format!("/api/v1/explain?query=up{parameters}")).await;
        assert_eq!(body["data"]["analyzed"], json!(analyzed), "{parameters}");
        assert_eq!(body["data"]["totals"].is_null(), !analyzed, "{parameters}");
        assert_eq!(body["data"]["tree"]["part"], json!(0), "{parameters}");
    }
    let (status, body) = cluster.get("/api/v1/explain?query=up&analyze=perhaps").await;
    assert_eq!((status, &body["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")));
    let request = Request::get("/api/v1/explain?query=up&format=text").body(Body::empty()).unwrap();
    let (_, headers, body) = cluster.send(request).await;
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert!(String::from_utf8(body).unwrap().starts_with("up\none instant; planned, not run\n"));
}

#[tokio::test]
async fn texts_are_formatted_and_parsed() {
    let cluster = cluster();
    let (_, body) = cluster.get("/api/v1/format_query?query=sum(up)by(job)").await;
    assert_eq!(body["data"], json!("sum by (job) (up)"));
    let (_, body) = cluster.get("/api/v1/parse_query?query=up").await;
    assert_eq!(body["data"]["type"], json!("vectorSelector"));
    let (_, body) = cluster.post("/api/v1/parse_query", "query=up%5B5m%2B1m%5D").await;
    assert_eq!(body["data"]["rangeExpr"]["op"], json!("+"), "{body}");
    assert_eq!(body["data"]["offsetExpr"], json!(null), "{body}");
}

#[tokio::test]
async fn lists_without_content_are_empty_and_flush_reaches_every_node() {
    let cluster = cluster();
    for path in [
        "rules",
        "alerts",
        "targets",
        "targets/metadata",
        "scrape_pools",
        "alertmanagers",
        "metadata",
        "features",
        "status/config",
        "status/runtimeinfo",
        "status/tsdb",
        "status/walreplay",
    ] {
        let (status, body) = cluster.get(&format!("/api/v1/{path}")).await;
        assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("success")), "{path}");
    }
    let (_, body) = cluster.post("/api/v1/admin/flush", "").await;
    assert_eq!(body["data"], json!({"nodes": 3, "windows": 6, "bytes": 30}));
    let (_, body) = cluster.post("/api/v1/admin/merge", "").await;
    let expected = json!({"nodes": 3, "windows": 6, "bytes": 30, "merged": 3, "mergedBytes": 21});
    assert_eq!(body["data"], expected);
}
