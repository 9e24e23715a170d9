//! The ingester's settings.

use std::collections::BTreeMap;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::translate::Translation;

/// Settings of the ingester.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest OTLP or text body, in bytes, as sent and once decompressed.
    pub max_body_bytes: usize,
    /// Largest remote-write body, in bytes, as sent and once decompressed.
    pub max_remote_write_bytes: usize,
    /// What one request may take in memory once decoded, in bytes.
    pub max_decoded_bytes: usize,
    /// What all requests in flight may take together, in bytes; more are answered 503.
    pub max_in_flight_bytes: u64,
    /// What may be under way to one data node, in bytes; more waits.
    pub max_in_flight_bytes_per_node: usize,
    /// How long a body may take to arrive, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long a write may take, retries included, in milliseconds.
    pub request_timeout_ms: u64,
    /// How OTLP metrics become Prometheus series.
    pub otlp: Translation,
    /// What tenants may send.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_remote_write_bytes: 32 << 20,
            max_decoded_bytes: 256 << 20,
            max_in_flight_bytes: 1 << 30,
            max_in_flight_bytes_per_node: 64 << 20,
            body_timeout_ms: 30_000,
            request_timeout_ms: 10_000,
            otlp: Translation::default(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Whether an ingester could work with these.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the setting that makes no sense.
    pub fn check(&self) -> Result<(), Error> {
        let bounds = [
            ("max_body_bytes", self.max_body_bytes as u64),
            ("max_remote_write_bytes", self.max_remote_write_bytes as u64),
            ("max_decoded_bytes", self.max_decoded_bytes as u64),
            ("max_in_flight_bytes", self.max_in_flight_bytes),
            ("max_in_flight_bytes_per_node", self.max_in_flight_bytes_per_node as u64),
            ("body_timeout_ms", self.body_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
        ];
        match bounds.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(Error::Invalid(format!("{name} is 0: nothing could be written"))),
            None => Ok(()),
        }
    }
}

/// What tenants may send. The tenant of requests without the header, and Tricord's own, are not limited in rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The tenants `default` and `tricord`.
    pub unnamed: TenantLimits,
    /// Every tenant that names itself.
    pub named: TenantLimits,
    /// Tenants with limits of their own, by name.
    pub tenants: BTreeMap<String, TenantLimits>,
}

impl Default for Limits {
    fn default() -> Self {
        // Wide enough for any `target_info`, narrow enough that one series cannot fill a block.
        let unnamed =
            TenantLimits { max_labels: 256, max_label_value_bytes: 65_536, ..TenantLimits::unlimited_rate() };
        Self { unnamed, named: TenantLimits::default(), tenants: BTreeMap::new() }
    }
}

/// One tenant's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    /// Samples and spans per second over time; 0 for no bound.
    pub rate: f64,
    /// Samples and spans that may come at once on top.
    pub burst: f64,
    /// Labels of a series, its name included.
    pub max_labels: usize,
    /// Length of a label's name in bytes.
    pub max_label_name_bytes: usize,
    /// Length of a label's value in bytes.
    pub max_label_value_bytes: usize,
    /// How long data is kept: one of `retention_classes`; empty for what `retention` says.
    pub retention_class: String,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            rate: 10_000.0,
            burst: 200_000.0,
            max_labels: 30,
            max_label_name_bytes: 1024,
            max_label_value_bytes: 2048,
            retention_class: String::new(),
        }
    }
}

impl TenantLimits {
    fn unlimited_rate() -> Self {
        Self { rate: 0.0, ..Self::default() }
    }
}
