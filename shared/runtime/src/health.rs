//! `/health/live`, `/health/ready` and `/metrics`, the same on every role. What "ready" means is said by named checks
//! that the roles add.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::RwLock;
use serde_json::{Map, Value, json};

use crate::metrics::Metrics;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The readiness checks of a process, shared by clones.
#[derive(Clone, Default)]
pub struct Health(Arc<RwLock<Vec<(String, Check)>>>);

/// What the checks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Each check's name with what it waits for, or `None` when it is content.
    pub checks: Vec<(String, Option<String>)>,
}

impl Readiness {
    /// Whether every check is content.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|(_, waits_for)| waits_for.is_none())
    }
}

impl Health {
    /// No checks: ready at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check. It is called at each probe, so it must be quick; its error says what is waited for.
    pub fn check(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.0.write().push((name.into(), Box::new(check)));
    }

    /// Asks every check.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let checks = self.0.read();
        Readiness { checks: checks.iter().map(|(name, check)| (name.clone(), check().err())).collect() }
    }

    /// The router for `/health/live`, `/health/ready` (503 with what is not ready) and `/metrics`.
    pub fn router(&self, metrics: &Metrics) -> Router {
        let (health, metrics) = (self.clone(), metrics.clone());
        Router::new()
            .route("/health/live", get(async || "live\n"))
            .route("/health/ready", get(async move || ready(&health.readiness())))
            .route("/metrics", get(async move |headers: HeaderMap| exposition(&metrics, &headers)))
    }
}

fn ready(readiness: &Readiness) -> Response {
    let is_ready = readiness.is_ready();
    let checks: Map<String, Value> = readiness
        .checks
        .iter()
        .map(|(name, waits_for)| (name.clone(), json!(waits_for.as_deref().unwrap_or("ok"))))
        .collect();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": is_ready, "checks": checks }))).into_response()
}

/// OpenMetrics for those who ask for it, the older text format for others.
fn exposition(metrics: &Metrics, headers: &HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (content_type, text) = if accepted.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.encode())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", classic(&metrics.encode()))
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// The older text format of an OpenMetrics exposition: metadata there names the samples themselves, and some types do
/// not exist.
fn classic(text: &str) -> String {
    let mut suffixes = HashMap::new();
    for line in text.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        match kind {
            "counter" => suffixes.insert(name, "_total"),
            "info" => suffixes.insert(name, "_info"),
            _ => None,
        };
    }
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# EOF") && !line.starts_with("# UNIT")) {
        let metadata =
            ["# TYPE ", "# HELP "].into_iter().find_map(|start| Some((start, line.strip_prefix(start)?)));
        match metadata.and_then(|(start, rest)| Some((start, rest.split_once(' ')?))) {
            None => out.push_str(line),
            Some((start, (name, rest))) => {
                let suffix = suffixes.get(name).copied().unwrap_or_default();
                let rest = match rest {
                    "info" if start == "# TYPE " => "gauge",
                    "unknown" if start == "# TYPE " => "untyped",
                    rest => rest,
                };
                out.extend([start, name, suffix, " ", rest]);
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn names_what_is_not_ready() {
        let health = Health::new();
        let joined = Arc::new(AtomicBool::new(false));
        let seen = joined.clone();
        health.check("shards", move || match seen.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err("3 of 64 shards are not in sync".to_owned()),
        });
        let router = health.router(&Metrics::new());
        let ask = async || {
            let request = axum::http::Request::get("/health/ready").body(axum::body::Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            (
                status,
                String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap(),
            )
        };
        let (status, body) = ask().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains(r#""shards":"3 of 64 shards are not in sync""#), "{body}");
        joined.store(true, Ordering::SeqCst);
        assert_eq!(ask().await.0, StatusCode::OK);
    }

    #[test]
    fn speaks_the_older_format_too() {
        let text = "# HELP a What a is.\n# TYPE a counter\na_total 1\n# TYPE b info\nb_info{x=\"y\"} 1\n# TYPE c gauge\n\
                    # UNIT c bytes\nc 2\n# EOF\n";
        let want = "# HELP a_total What a is.\n# TYPE a_total counter\na_total 1\n# TYPE b_info gauge\n\
                    b_info{x=\"y\"} 1\n# TYPE c gauge\nc 2\n";
        assert_eq!(classic(text), want);
    }
}
