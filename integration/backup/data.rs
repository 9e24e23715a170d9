//! Data of every kind, and the questions whose answers must be the same before a backup and after a restore.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tricord_testkit::{Client, RemoteSeries};

use crate::faults::oracle::now_ms;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Series of a name, spread over the shards.
const SERIES: u32 = 60;

/// Settings with a class that keeps data longer, and the tenant `archive` in it.
pub(super) fn settings(file: &Path) -> Result<()> {
    let text = "retention: 30d\nretention_classes: {long: 400d}\ningester:\n  limits:\n    tenants:\n      archive:\n        \
                retention_class: long\n";
    Ok(std::fs::write(file, text)?)
}

/// What was written when.
pub(super) struct Data {
    at_ms: i64,
}

fn load(name: &str, at_ms: i64) -> Vec<RemoteSeries> {
    let one = |n: u32| {
        let series = RemoteSeries::new(
            name,
            &[("job", "load"), ("instance", &format!("host-{n}")), ("noise", &noise(n))],
        );
        (0..5).fold(series, |series, i| series.at(at_ms + i * 1_000, f64::from(n) * 0.37 + i as f64))
    };
    (0..SERIES).map(one).collect()
}

/// Text that does not compress well, so that a backup has some size.
fn noise(seed: u32) -> String {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..1_500).map(|_| next()).collect()
}

fn attributes(instance: &str) -> Value {
    json!({"attributes": [
        {"key": "service.name", "value": {"stringValue": "shop"}},
        {"key": "service.instance.id", "value": {"stringValue": instance}},
    ]})
}

impl Data {
    /// Writes it: a part into windows that are over, a part that is flushed, a part that is in the log alone.
    pub(super) async fn write(writer: &Client, asker: &Client) -> Result<Self> {
        let at_ms = now_ms() - 60_000;
        let data = Self { at_ms };
        for (name, at_ms) in
            [("load", at_ms - 5 * HOUR_MS), ("load", at_ms), ("gone", at_ms), ("later", at_ms)]
        {
            writer.remote_write(&load(name, at_ms)).await?;
        }
        writer.clone().tenant("archive").remote_write(&load("old", at_ms - 100 * DAY_MS)).await?;
        data.otlp(writer, "early").await?;
        delete(asker, "gone").await?;
        asker.post("/api/v1/admin/flush", &[], "").await?.success()?;
        // Its samples lie in files, and a tombstone hides them.
        delete(asker, "later{instance=~\"host-1.*\"}").await?;
        writer.remote_write(&load("gone", at_ms + 10_000)[..7]).await?;
        writer.remote_write(&load("load", at_ms + 20_000)).await?;
        data.otlp(writer, "late").await?;
        Ok(data)
    }

    /// A histogram with exemplars, a counter of increments, and a trace.
    async fn otlp(&self, writer: &Client, instance: &str) -> Result<()> {
        let at_ns = |ms: i64| ((self.at_ms + ms) * 1_000_000).to_string();
        let trace: String = format!("{:032x}", instance.bytes().map(u128::from).sum::<u128>() + 0xabc);
        let points = |increment: u64| -> Vec<Value> {
            (0..4)
                .map(|i| {
                    let (start, end) = (at_ns(i * 1_000), at_ns(i * 1_000 + 1_000));
                    json!({"startTimeUnixNano": start, "timeUnixNano": end, "asInt": (increment + i as u64).to_string()})
                })
                .collect()
        };
        let buckets = json!([{
            "startTimeUnixNano": at_ns(0), "timeUnixNano": at_ns(5_000), "count": "7", "sum": 12.5, "scale": 3,
            "zeroCount": "1", "positive": {"offset": 2, "bucketCounts": ["1", "0", "5"]},
            "exemplars": [{"timeUnixNano": at_ns(4_000), "asDouble": 1.25, "traceId": trace, "spanId": "00000000000000aa"}],
        }]);
        let metrics = json!({"resourceMetrics": [{"resource": attributes(instance), "scopeMetrics": [{"metrics": [
            {"name": "took", "unit": "s", "description": "how long it took",
             "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": buckets}},
            {"name": "sold", "unit": "1", "description": "what was sold",
             "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": points(3)}},
        ]}]}]});
        let span = |id: &str, parent: &str, name: &str| {
            json!({"traceId": trace, "spanId": id, "parentSpanId": parent, "name": name, "kind": 2,
                   "startTimeUnixNano": at_ns(1_000), "endTimeUnixNano": at_ns(1_750),
                   "attributes": [{"key": "http.route", "value": {"stringValue": "/cart"}}]})
        };
        let spans =
            [span("00000000000000aa", "", "buy"), span("00000000000000bb", "00000000000000aa", "pay")];
        let traces =
            json!({"resourceSpans": [{"resource": attributes(instance), "scopeSpans": [{"spans": spans}]}]});
        for (path, body) in [("/api/v1/otlp/v1/metrics", metrics), ("/v1/traces", traces)] {
            let headers = [("content-type", "application/json")];
            let answer = writer.post(path, &headers, body.to_string()).await?;
            answer.success().with_context(|| format!("{path} {instance}"))?;
        }
        Ok(())
    }

    /// The answers to all questions, by question.
    pub(super) async fn answers(&self, client: &Client) -> Result<Vec<(String, Value)>> {
        let time = |ms: i64| ((self.at_ms + ms) as f64 / 1e3).to_string();
        let (start, end) = (time(30_000 - 6 * HOUR_MS), time(30_000));
        let mut answers = Vec::new();
        for query in [
            "sort_by_label(load, \"instance\")",
            "sort_by_label(gone, \"instance\")",
            "sort_by_label(later, \"instance\")",
            "sum by (job) (count_over_time(load[6h]))",
            "histogram_quantile(0.9, took_seconds)",
            "sold_total or sold_ratio_total",
            "count({__name__=~\".+\"}) by (__name__)",
        ] {
            let range = [
                ("query", query),
                ("start", &start),
                ("end", &end),
                ("step", "300"),
                ("partial_response", "deny"),
            ];
            let instant = [("query", query), ("time", &end), ("partial_response", "deny")];
            answers.push((format!("{query} over time"), client.api("/api/v1/query_range", &range).await?));
            answers.push((query.to_owned(), client.api("/api/v1/query", &instant).await?));
        }
        let exemplars = [("query", "took_seconds"), ("start", &start), ("end", &end)];
        answers.push(("exemplars".into(), client.api("/api/v1/query_exemplars", &exemplars).await?));
        let get = async |path: &str, parameters: &[(&str, &str)]| -> Result<Value> {
            client.get(path, parameters).await?.success()?.json()
        };
        answers.push(("metadata".into(), get("/api/v1/metadata", &[]).await?));
        answers.push((
            "names".into(),
            get("/api/v1/label/__name__/values", &[("start", &start), ("end", &end)]).await?,
        ));
        let (from, to) = (time(-HOUR_MS), time(HOUR_MS));
        let whole = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
        let (from, to) = (whole(&from), whole(&to));
        let search = [("q", "{ span.http.route = \"/cart\" }"), ("start", &from), ("end", &to)];
        let found = get("/tempo/api/search", &search).await?["traces"].clone();
        let mut ids: Vec<String> =
            found.as_array().into_iter().flatten().map(|one| one["traceID"].to_string()).collect();
        ids.sort();
        ensure!(ids.len() == 2, "two traces: {found}");
        for id in ids {
            let path = format!("/tempo/api/traces/{}", id.trim_matches('"'));
            answers.push((path.clone(), get(&path, &[]).await?));
        }
        let archive = client.clone().tenant("archive");
        let old = [("query", "sum by (instance) (count_over_time(old[200d]))"), ("time", &end)];
        let mut kept = archive.api("/api/v1/query", &old).await?["result"].clone();
        if let Some(rows) = kept.as_array_mut() {
            rows.sort_by_key(|row| row["metric"]["instance"].to_string());
        }
        answers.push(("the archive".into(), kept));
        for (question, answer) in &answers {
            let list = answer.get("result").or(answer.get("data")).unwrap_or(answer);
            let is_empty = list.as_array().is_some_and(Vec::is_empty) || list.is_null();
            ensure!(!is_empty, "{question} has no answer: {answer}");
        }
        Ok(answers)
    }

    /// Whether a system answers as another one did.
    pub(super) async fn check(&self, client: &Client, expected: &[(String, Value)]) -> Result<()> {
        let found = self.answers(client).await?;
        for ((question, before), (_, after)) in expected.iter().zip(&found) {
            ensure!(before == after, "{question}\nbefore: {before}\nafter:  {after}");
        }
        ensure!(expected.len() == found.len(), "as many questions");
        Ok(())
    }
}

async fn delete(asker: &Client, selector: &str) -> Result<()> {
    asker.post_form("/api/v1/admin/tsdb/delete_series", &[("match[]", selector)]).await?.success()?;
    Ok(())
}
