//! The HTTP API of Prometheus, as Grafana and its other clients call it.

mod admin;
mod cardinality;
mod explain;
mod metadata;
mod query;
mod read;
mod series;
mod stats;
mod status;

use axum::Router;
use axum::extract::OriginalUri;
use axum::response::Response;
use axum::routing::{get, post};
use tricord_fragment::{Fragment, FragmentBody};
use tricord_model::Matcher;
use tricord_promql::parser::{ParserOptions, parse_selector};

use super::Asked;
use crate::Proxy;
use crate::error::Error;
use crate::scatter::{Job, Scattered, Shards, Spread};

/// The routes, relative to `/api/v1`.
pub(super) fn routes() -> Router<Proxy> {
    Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_exemplars", get(metadata::exemplars).post(metadata::exemplars))
        .route("/format_query", get(query::format).post(query::format))
        .route("/parse_query", get(query::parsed).post(query::parsed))
        .route("/explain", get(explain::explain).post(explain::explain))
        .route("/series", get(series::series).post(series::series))
        .route("/labels", get(series::names).post(series::names))
        .route("/label/{name}/values", get(series::values))
        .route("/metadata", get(metadata::metadata))
        .route("/cardinality/label_names", get(cardinality::label_names).post(cardinality::label_names))
        .route("/cardinality/label_values", get(cardinality::label_values).post(cardinality::label_values))
        .route("/cardinality/active_series", get(cardinality::active_series).post(cardinality::active_series))
        .route("/targets", get(status::targets))
        .route("/targets/metadata", get(status::empty_list))
        .route("/scrape_pools", get(status::scrape_pools))
        .route("/alertmanagers", get(status::alertmanagers))
        .route("/rules", get(status::rules))
        .route("/alerts", get(status::alerts))
        .route("/features", get(status::features))
        .route("/status/cluster", get(status::cluster))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/config", get(status::config))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/walreplay", get(status::walreplay))
        .route("/read", post(read::read))
        .route("/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route("/admin/tsdb/clean_tombstones", post(admin::clean_tombstones).put(admin::clean_tombstones))
        .route("/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/admin/flush", post(admin::flush))
        .route("/admin/merge", post(admin::merge))
        // Everything else, `status/flags` among it: Grafana takes an answer there for another product.
        .route("/{*rest}", get(unknown).post(unknown))
}

async fn unknown(uri: OriginalUri) -> Response {
    super::not_found(uri).await
}

impl Proxy {
    /// Runs a fragment over all shards for a lookup.
    async fn look_up(&self, asked: &Asked, body: FragmentBody) -> Result<Scattered, Error> {
        let settings = self.settings();
        let fragment = Fragment {
            now_ms: asked.now_ms,
            horizon_ms: settings.horizon_ms(&asked.tenant, asked.now_ms),
            limits: settings.limits(),
            body,
        };
        let job = Job {
            tenant: asked.tenant.clone(),
            shards: Shards::All,
            fragment,
            spread: Spread::Few,
            deadline: std::time::Instant::now() + settings.query_timeout,
        };
        let _turn = self.engine().gate.enter(job.deadline).await?;
        self.scatter().run(&job).await
    }

    /// What the parser takes.
    fn parser_options(&self) -> ParserOptions {
        ParserOptions {
            experimental_functions: self.settings().config.experimental_functions,
            ..ParserOptions::default()
        }
    }
}

/// The matchers of all `match[]`; the error is the reason, in Prometheus' words.
fn match_sets(asked: &Asked) -> Result<Vec<Vec<Matcher>>, String> {
    let mut sets = Vec::new();
    for text in asked.params.all("match[]") {
        let matchers = parse_selector(text).map_err(|error| error.to_string())?;
        if matchers.iter().all(Matcher::matches_empty) {
            return Err("match[] must contain at least one non-empty matcher".to_owned());
        }
        sets.push(matchers);
    }
    Ok(sets)
}

/// `start` and `end`, unbounded where not given, in milliseconds.
fn time_range(asked: &Asked) -> Result<(i64, i64), Error> {
    let start = asked.params.time("start")?.unwrap_or(super::params::MIN_TIME_MS);
    let end = asked.params.time("end")?.unwrap_or(super::params::MAX_TIME_MS);
    Ok((start, end))
}
