//! Requests as OTLP JSON on one side, series as text on the other.

use tricord_model::Labels;

use super::super::Strategy;
use super::*;
use crate::decode::Decoded;
use crate::decode::otlp::{Signal, to_protobuf};
use crate::translate::tests::both;

const MINUTE_NS: u64 = 60_000_000_000;

/// A request of one scope with these metrics, from a resource with these attributes.
fn request(attributes: &str, metrics: &str) -> Vec<u8> {
    let json = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{attributes}]}},"scopeMetrics":[{{
            "scope":{{"name":"lib","version":"2","attributes":[{}]}},"schemaUrl":"url","metrics":[{metrics}]}}]}}]}}"#,
        attribute("k", "v")
    );
    to_protobuf(Signal::Metrics, json.as_bytes()).unwrap()
}

fn attribute(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
}

fn with(translation: &Translation, attributes: &str, metrics: &str) -> Decoded {
    both(&request(attributes, metrics), translation, &mut Allowance::new(1 << 20)).unwrap()
}

/// A series in one line: labels, then `time[@start]=value`, then whether it is delta.
fn line(series: &SeriesBatch) -> String {
    let samples = series.samples.iter().map(|sample| {
        let start = if sample.start_ms == 0 { String::new() } else { format!("@{}", sample.start_ms) };
        match &sample.value {
            Value::Float(value) if tricord_model::is_stale(*value) => format!("{}{start}=stale", sample.t_ms),
            Value::Float(value) => format!("{}{start}={value}", sample.t_ms),
            Value::Histogram(h) => format!("{}{start}=native {} {}", sample.t_ms, h.count, h.sum),
        }
    });
    let samples = samples.collect::<Vec<_>>().join(" ");
    let labels = series.labels.iter().filter(|(name, _)| *name != "__name__");
    let labels = labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    format!("{}{{{labels}}} {samples}{}", series.labels.name(), if series.delta { " delta" } else { "" })
}

#[track_caller]
fn check(attributes: &str, metrics: &str, expected: &[&str]) {
    let decoded = with(&Translation::default(), attributes, metrics);
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    assert_eq!(decoded.batch.series.iter().map(line).collect::<Vec<_>>(), expected);
}

/// The fields of a point one minute after the epoch, counting since its half.
const POINT: &str = r#""startTimeUnixNano":"30000000000","timeUnixNano":"60000000000""#;

#[test]
fn gauges_and_sums() {
    let point =
        |value: &str| format!(r#"{{{POINT},{value},"attributes":[{}]}}"#, attribute("http.method", "GET"));
    let gauge = |value: &str| {
        format!(r#"{{"name":"temp","unit":"Cel","gauge":{{"dataPoints":[{}]}}}}"#, point(value))
    };
    check("", &gauge(r#""asDouble":1.5"#), &["temp_celsius{http_method=GET} 60000=1.5"]);
    check("", &gauge(r#""asInt":"-7""#), &["temp_celsius{http_method=GET} 60000=-7"]);
    check("", &gauge(r#""flags":1"#), &["temp_celsius{http_method=GET} 60000=stale"]);
    let sum = |kind: &str| {
        format!(r#"{{"name":"hits","sum":{{{kind},"dataPoints":[{}]}}}}"#, point(r#""asInt":3"#))
    };
    let check_sum = |kind: &str, expected: &str| check("", &sum(kind), &[expected]);
    check_sum(
        r#""isMonotonic":true,"aggregationTemporality":2"#,
        "hits_total{http_method=GET} 60000@30000=3",
    );
    check_sum(
        r#""isMonotonic":true,"aggregationTemporality":1"#,
        "hits_total{http_method=GET} 60000@30000=3 delta",
    );
    check_sum(r#""aggregationTemporality":2"#, "hits{http_method=GET} 60000=3");
    check_sum(r#""aggregationTemporality":1"#, "hits{http_method=GET} 60000@30000=3 delta");
}

#[test]
fn histograms_of_both_kinds_and_summaries() {
    let classic = format!(
        r#"{{"name":"lat","unit":"s","histogram":{{"aggregationTemporality":2,"dataPoints":[{{{POINT},
            "count":"6","sum":2.5,"explicitBounds":[0.1,1],"bucketCounts":["1","2","3"]}}]}}}}"#
    );
    check(
        "",
        &classic,
        &[
            "lat_seconds_sum{} 60000@30000=2.5",
            "lat_seconds_count{} 60000@30000=6",
            "lat_seconds_bucket{le=0.1} 60000@30000=1",
            "lat_seconds_bucket{le=1} 60000@30000=3",
            "lat_seconds_bucket{le=+Inf} 60000@30000=6",
        ],
    );
    let native = format!(
        r#"{{"name":"lat","exponentialHistogram":{{"aggregationTemporality":1,"dataPoints":[{{{POINT},
            "count":3,"sum":9,"scale":1,"positive":{{"offset":1,"bucketCounts":[1,2]}}}}]}}}}"#
    );
    check("", &native, &["lat{} 60000@30000=native 3 9 delta"]);
    let summary = format!(
        r#"{{"name":"lat","summary":{{"dataPoints":[{{{POINT},"count":4,"sum":8,
            "quantileValues":[{{"quantile":0.5,"value":1}},{{"quantile":1,"value":5}}]}}]}}}}"#
    );
    check(
        "",
        &summary,
        &[
            "lat_sum{} 60000@30000=8",
            "lat_count{} 60000@30000=4",
            "lat{quantile=0.5} 60000@30000=1",
            "lat{quantile=1} 60000@30000=5",
        ],
    );
    // No sum (it may hold negative values), no buckets: the count alone remains.
    let bare = format!(
        r#"{{"name":"lat","histogram":{{"aggregationTemporality":2,"dataPoints":[{{{POINT},"count":6}}]}}}}"#
    );
    check("", &bare, &["lat_count{} 60000@30000=6", "lat_bucket{le=+Inf} 60000@30000=6"]);
}

#[test]
fn targets_lend_their_labels() {
    let metric = format!(r#"{{"name":"up","gauge":{{"dataPoints":[{{{POINT},"asInt":1}}]}}}}"#);
    let name = attribute("service.name", "shop");
    let id = attribute("service.instance.id", "i-1");
    let zone = attribute("cloud.zone", "b");
    check(&name, &metric, &["up{job=shop} 60000=1"]);
    let named = [attribute("service.namespace", "eu"), name.clone(), id.clone()].join(",");
    check(&named, &metric, &["up{instance=i-1,job=eu/shop} 60000=1"]);
    check(&zone, &metric, &["up{} 60000=1"]);
    let told = [name.clone(), id.clone(), zone.clone()].join(",");
    let info = "target_info{cloud_zone=b,instance=i-1,job=shop} 60000=1";
    check(&told, &metric, &["up{instance=i-1,job=shop} 60000=1", info]);
    let knobs = Translation {
        promote_resource_attributes: vec!["cloud.zone".into()],
        keep_identifying_resource_attributes: true,
        promote_scope_metadata: true,
        ..Translation::default()
    };
    let lines: Vec<_> = with(&knobs, &told, &metric).batch.series.iter().map(line).collect();
    let scope = "otel_scope_k=v,otel_scope_name=lib,otel_scope_schema_url=url,otel_scope_version=2";
    let kept = "service_instance_id=i-1,service_name=shop";
    assert_eq!(
        lines,
        [
            format!("up{{cloud_zone=b,instance=i-1,job=shop,{scope}}} 60000=1"),
            format!("target_info{{cloud_zone=b,instance=i-1,job=shop,{kept}}} 60000=1"),
        ]
    );
    let all =
        Translation { promote_all_resource_attributes: true, strategy: Strategy::NoTranslation, ..knobs };
    let labels = with(&all, &told, &metric).batch.series[0].labels.clone();
    assert_eq!((labels.get("cloud.zone"), labels.get("service.name")), (Some("b"), Some("shop")));
}

#[test]
fn a_target_is_described_over_the_time_of_its_points() {
    let told = [attribute("service.name", "shop"), attribute("a", "b")].join(",");
    let points: Vec<String> = [0, 6]
        .iter()
        .map(|m: &u64| format!(r#"{{"timeUnixNano":"{}","asInt":1}}"#, (m + 10) * MINUTE_NS))
        .collect();
    let metric = format!(r#"{{"name":"up","gauge":{{"dataPoints":[{}]}}}}"#, points.join(","));
    let decoded = with(&Translation::default(), &told, &metric);
    let info = decoded.batch.series.iter().find(|series| series.labels.name() == "target_info").unwrap();
    let minutes: Vec<f64> = info.samples.iter().map(|sample| sample.t_ms as f64 / 60_000.0).collect();
    assert_eq!(minutes, [11.0, 13.5, 16.0]);
}

#[test]
fn exemplars_find_their_bucket() {
    let exemplar = |value: f64| {
        format!(
            r#"{{"timeUnixNano":"59000000000","asDouble":{value},"traceId":"0102030405060708090a0b0c0d0e0f10",
                "spanId":"0102030405060708","filteredAttributes":[{}]}}"#,
            attribute("user.id", "u")
        )
    };
    let metric = format!(
        r#"{{"name":"lat","histogram":{{"aggregationTemporality":2,"dataPoints":[{{{POINT},"count":"6","sum":2.5,
            "explicitBounds":[0.1,1],"bucketCounts":["1","2","3"],"exemplars":[{},{},{}]}}]}}}}"#,
        exemplar(7.0),
        exemplar(0.1),
        exemplar(0.5)
    );
    let decoded = with(&Translation::default(), "", &metric);
    let found: Vec<(&str, f64)> = decoded
        .batch
        .series
        .iter()
        .flat_map(|series| series.exemplars.iter().map(|e| (series.labels.get("le").unwrap_or(""), e.value)))
        .collect();
    assert_eq!(found, [("0.1", 0.1), ("1", 0.5), ("+Inf", 7.0)]);
    let labels =
        [("span_id", "0102030405060708"), ("trace_id", "0102030405060708090a0b0c0d0e0f10"), ("user_id", "u")];
    let first = &decoded.batch.series[2].exemplars[0];
    assert_eq!((&first.labels, first.t_ms), (&Labels::from_pairs(labels), 59_000));
}

#[test]
fn what_cannot_be_translated_is_counted_and_the_rest_kept() {
    let good = format!(r#"{{"name":"good","gauge":{{"dataPoints":[{{{POINT},"asInt":1}}]}}}}"#);
    let reject = |metric: &str, points: u64, reason: &str| {
        let decoded = with(&Translation::default(), "", &format!("{metric},{good}"));
        assert_eq!((decoded.batch.series.len(), decoded.rejected.samples), (1, points), "{reason}");
        assert!(decoded.rejected.reasons[0].contains(reason), "{:?}", decoded.rejected.reasons);
    };
    let two = format!(r#""dataPoints":[{{{POINT}}},{{{POINT}}}]"#);
    reject(&format!(r#"{{"name":"","gauge":{{{two}}}}}"#), 2, "no usable name");
    reject(&format!(r#"{{"name":"s","sum":{{{two}}}}}"#), 2, "neither delta nor cumulative");
    let point = |fields: &str| format!(r#""aggregationTemporality":2,"dataPoints":[{{{POINT},{fields}}}]"#);
    let exponential =
        |fields: &str| format!(r#"{{"name":"e","exponentialHistogram":{{{}}}}}"#, point(fields));
    reject(&exponential(r#""scale":-5"#), 1, "scale -5");
    let classic = |fields: &str| format!(r#"{{"name":"h","histogram":{{{}}}}}"#, point(fields));
    reject(&classic(r#""bucketCounts":[1,2],"explicitBounds":[1,2]"#), 1, "2 buckets for 2 bounds");
    let nameless = format!(
        r#"{{"name":"g","gauge":{{{}}}}}"#,
        point(&format!(r#""attributes":[{}]"#, attribute("", "x")))
    );
    reject(&nameless.replace(r#""aggregationTemporality":2,"#, ""), 1, "empty key");
}

#[test]
fn metadata_comes_once_for_each_family() {
    let metric = format!(
        r#"{{"name":"hits","description":"Counts hits","unit":"By","sum":{{"isMonotonic":true,
            "aggregationTemporality":2,"dataPoints":[{{{POINT},"asInt":1}}]}}}}"#
    );
    let decoded = with(&Translation::default(), "", &[metric.clone(), metric].join(","));
    let told = MetricMetadata { kind: MetricKind::Counter, unit: "By".into(), help: "Counts hits".into() };
    assert_eq!(decoded.batch.metadata, [("hits_bytes_total".to_owned(), told)]);
}

#[test]
fn long_labels_on_many_buckets_are_bounded() {
    let bounds = (0..5000).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    let counts = vec!["1"; 5001].join(",");
    let metric = format!(
        r#"{{"name":"h","histogram":{{"aggregationTemporality":2,"dataPoints":[{{{POINT},"count":5001,
            "explicitBounds":[{bounds}],"bucketCounts":[{counts}],"attributes":[{}]}}]}}}}"#,
        attribute("long", &"x".repeat(100_000))
    );
    let mut allowance = Allowance::new(32 << 20);
    let result = both(&request("", &metric), &Translation::default(), &mut allowance);
    assert!(matches!(result, Err(Error::TooLarge(_))));
}
