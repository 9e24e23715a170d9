//! `status/…` and the lists that a store without scraping, rules and alerts has empty.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tricord_fragment::FragmentBody;
use tricord_promql::functions::Function;

use crate::Proxy;
use crate::api::{Asked, Reply};
use crate::error::Error;
use crate::merge::lists;

/// The release of Prometheus whose API and language this is. Clients choose features by it.
const PROMETHEUS_VERSION: &str = "3.14.0";

/// `GET /targets`
pub(super) async fn targets() -> Reply {
    Reply::json(&json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {} }))
}

/// `GET /targets/metadata`
pub(super) async fn empty_list() -> Reply {
    Reply::json(&json!([]))
}

/// `GET /scrape_pools`
pub(super) async fn scrape_pools() -> Reply {
    Reply::json(&json!({ "scrapePools": [] }))
}

/// `GET /alertmanagers`
pub(super) async fn alertmanagers() -> Reply {
    Reply::json(&json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }))
}

/// `GET /rules`
pub(super) async fn rules() -> Reply {
    Reply::json(&json!({ "groups": [] }))
}

/// `GET /alerts`
pub(super) async fn alerts() -> Reply {
    Reply::json(&json!({ "alerts": [] }))
}

/// `GET /features`
pub(super) async fn features(State(proxy): State<Proxy>) -> Reply {
    let config = &proxy.settings().config;
    let functions: serde_json::Map<String, Value> = Function::ALL
        .iter()
        .map(|f| (f.as_str().to_owned(), json!(!f.signature().experimental || config.experimental_functions)))
        .collect();
    Reply::json(&json!({
        "api": { "label_values_match": true, "query_stats": true, "time_range_labels": true, "time_range_series": true },
        "promql": {
            "at_modifier": true,
            "delayed_name_removal": config.delayed_name_removal,
            "duration_expr": true,
            "experimental_functions": config.experimental_functions,
            "negative_offset": true,
            "subqueries": true,
        },
        "promql_functions": functions,
    }))
}

/// `GET /status/buildinfo`
pub(super) async fn buildinfo() -> Reply {
    Reply::json(&json!({
        "version": PROMETHEUS_VERSION,
        "revision": format!("tricord-{}", env!("CARGO_PKG_VERSION")),
        "branch": "main",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

/// `GET /status/cluster`: Tricord's own, as `tricord cluster status --json`.
pub(super) async fn cluster(State(proxy): State<Proxy>) -> Result<impl IntoResponse, Error> {
    let view = proxy.cluster_status().view().await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Reply::new(view.to_vec())))
}

/// `GET /status/config`
pub(super) async fn config(State(proxy): State<Proxy>) -> Result<Reply, Error> {
    // JSON is YAML too.
    let text = serde_json::to_string_pretty(&json!({ "proxy": proxy.settings().config }));
    let text = text.map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Reply::json(&json!({ "yaml": text })))
}

/// `GET /status/runtimeinfo`
pub(super) async fn runtimeinfo(State(proxy): State<Proxy>, asked: Asked) -> Reply {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = proxy.settings();
    let class = settings.retention.of(&asked.tenant);
    let text = settings.config.retention_texts.classes.get(&class.name);
    let retention = match class.keep_ms {
        None => "unbounded".to_owned(),
        Some(_) => text.unwrap_or(&settings.config.retention).clone(),
    };
    let started = rfc3339(proxy.started_ms());
    Reply::json(&json!({
        "startTime": started,
        "CWD": "",
        "hostname": "",
        "serverTime": rfc3339(asked.now_ms),
        "reloadConfigSuccess": true,
        "lastConfigTime": started,
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": threads,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention,
    }))
}

/// A time in milliseconds as RFC 3339 in UTC.
fn rfc3339(t_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(t_ms).map_or_else(|_| t_ms.to_string(), |time| format!("{time:.3}"))
}

/// `GET /status/walreplay`: a proxy is up only when there is nothing left to replay for it.
pub(super) async fn walreplay() -> Reply {
    Reply::json(&json!({ "min": 0, "max": 0, "current": 0, "state": "done" }))
}

/// `GET /status/tsdb`
pub(super) async fn tsdb(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        let top =
            match asked.params.get("limit") {
                "" => 10,
                text => text.parse::<u32>().ok().filter(|limit| (1..=10_000).contains(limit)).ok_or_else(
                    || Error::BadData("limit must be a positive number, at most 10000".to_owned()),
                )?,
            };
        // Each shard tells more than is shown, as what is great over all shards may be small on each.
        let body = FragmentBody::Cardinality { top: top.saturating_mul(10) };
        let scattered = proxy.look_up(&asked, body).await?;
        let counts = lists::cardinality(scattered.partials, top as usize)?;
        let list = |entries: &[(String, u64)]| -> Vec<Value> {
            entries.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
        };
        let data = json!({
            "headStats": {
                "numSeries": counts.series,
                "numLabelPairs": counts.label_pairs,
                "chunkCount": 0,
                "minTime": counts.min_ms,
                "maxTime": counts.max_ms,
            },
            "seriesCountByMetricName": list(&counts.by_metric),
            "labelValueCountByLabelName": list(&counts.values_by_label),
            "memoryInBytesByLabelName": list(&counts.bytes_by_label),
            "seriesCountByLabelValuePair": list(&counts.by_pair),
        });
        Reply::json(&data).missing(scattered.missing, asked.denies_partial())
    };
    proxy.observe("status", answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_709_164_799_999), "2024-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(1_709_164_800_000), "2024-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }
}
