//! The proxy's settings.

use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use tricord_fragment::QueryLimits;
use tricord_model::{Retention, RetentionTexts, Tenant};

use crate::api::params::parse_duration;
use crate::error::Error;

/// Settings of the query proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Queries that run at once; more wait.
    pub max_concurrent_queries: usize,
    /// Queries that may wait for their turn; more are refused with 503.
    pub max_queued_queries: usize,
    /// The longest time for a query, as `2m`; a request's `timeout` can only shorten it.
    pub query_timeout: String,
    /// Raw samples that one query may read and hold.
    pub max_samples: u64,
    /// Series that a selector may match on one data node, and results of one metadata request.
    pub max_series: u64,
    /// Bytes that one data node may answer to one fragment.
    pub max_partial_bytes: u64,
    /// Requests to data nodes in flight, over all queries.
    pub max_fragments_in_flight: usize,
    /// How long to look for a live replica before a shard counts as missing, as `2s`.
    pub missing_shard_wait: String,
    /// How long a data node may take for a fragment at most before another replica is asked too, as `2s`: that is sooner
    /// where 19 of 20 fragments are answered sooner. `0` never asks twice.
    pub hedge_after: String,
    /// How far an instant selector looks back for a sample, as `5m`.
    pub lookback_delta: String,
    /// The step of subqueries that name none, as `1m`.
    pub default_subquery_step: String,
    /// How long data is kept, as `30d`; `0` keeps everything. Must be what the data nodes have.
    pub retention: String,
    /// The other classes, and which tenant is in which. Must be what the data nodes have.
    #[serde(skip)]
    pub retention_texts: RetentionTexts,
    /// Queries slower than this are logged with the dashboard and panel that asked, as `5s`; `0` logs none.
    pub slow_query: String,
    /// Whether functions that Prometheus calls experimental are allowed.
    pub experimental_functions: bool,
    /// Whether metric names are dropped at the end of a query only.
    pub delayed_name_removal: bool,
    /// Whether start timestamps of samples are used to find counter resets.
    pub start_timestamps: bool,
    /// Whether series can be deleted: POST /api/v1/admin/tsdb/delete_series and …/clean_tombstones.
    pub enable_admin_api: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent_queries: 32,
            max_queued_queries: 512,
            query_timeout: "2m".to_owned(),
            max_samples: 50_000_000,
            max_series: 2_000_000,
            max_partial_bytes: 512 << 20,
            max_fragments_in_flight: 256,
            missing_shard_wait: "2s".to_owned(),
            hedge_after: "2s".to_owned(),
            lookback_delta: "5m".to_owned(),
            default_subquery_step: "1m".to_owned(),
            retention: "30d".to_owned(),
            retention_texts: RetentionTexts::default(),
            slow_query: "5s".to_owned(),
            experimental_functions: true,
            delayed_name_removal: false,
            start_timestamps: false,
            enable_admin_api: false,
        }
    }
}

impl Config {
    /// Whether a proxy could start with these.
    ///
    /// # Errors
    /// With the setting that makes no sense.
    pub fn check(&self) -> Result<(), Error> {
        Settings::new(self.clone()).map(|_| ())
    }
}

/// The settings with their texts read.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) query_timeout: Duration,
    pub(crate) missing_shard_wait: Duration,
    pub(crate) hedge_after: Option<Duration>,
    pub(crate) lookback_ms: i64,
    pub(crate) default_subquery_step_ms: i64,
    pub(crate) retention: Retention,
    pub(crate) slow_query: Option<Duration>,
}

impl Settings {
    /// Reads the texts.
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        let millis = |name: &str, text: &str, least: i64| match parse_duration(text) {
            Ok(ms) if ms >= least => Ok(ms),
            _ => Err(Error::BadData(format!(
                "setting {name} is {text:?}: give a duration such as 30s, 5m or 30d"
            ))),
        };
        let duration = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        if config.max_concurrent_queries == 0 || config.max_fragments_in_flight == 0 {
            let text = "settings max_concurrent_queries and max_fragments_in_flight must be at least 1";
            return Err(Error::BadData(text.to_owned()));
        }
        let retention = Retention::read(&config.retention, &config.retention_texts)
            .map_err(|why| Error::BadData(format!("setting {why}")))?;
        let hedge_ms = millis("hedge_after", &config.hedge_after, 0)?;
        let slow_ms = millis("slow_query", &config.slow_query, 0)?;
        Ok(Self {
            query_timeout: duration(millis("query_timeout", &config.query_timeout, 1)?),
            missing_shard_wait: duration(millis("missing_shard_wait", &config.missing_shard_wait, 0)?),
            hedge_after: (hedge_ms > 0).then(|| duration(hedge_ms)),
            lookback_ms: millis("lookback_delta", &config.lookback_delta, 1)?,
            default_subquery_step_ms: millis("default_subquery_step", &config.default_subquery_step, 1)?,
            retention,
            slow_query: (slow_ms > 0).then(|| duration(slow_ms)),
            config,
        })
    }

    /// A tenant's data older than this is past retention, in milliseconds.
    pub(crate) fn horizon_ms(&self, tenant: &Tenant, now_ms: i64) -> i64 {
        self.retention.of(tenant).horizon_ms(now_ms)
    }

    /// What a fragment may use.
    pub(crate) fn limits(&self) -> QueryLimits {
        QueryLimits {
            max_samples: self.config.max_samples,
            max_series: self.config.max_series,
            max_bytes: self.config.max_partial_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_named() {
        let settings = Settings::new(Config::default()).unwrap();
        assert_eq!(settings.horizon_ms(&Tenant::default(), 2_592_000_005), 5);
        let keep_all = Config { retention: "0".into(), ..Config::default() };
        assert_eq!(Settings::new(keep_all).unwrap().horizon_ms(&Tenant::default(), 5), i64::MIN);
        let wrong = Config { lookback_delta: "soon".into(), ..Config::default() };
        assert!(Settings::new(wrong).unwrap_err().to_string().contains("lookback_delta"));
    }
}
