//! What a data node counts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use tokio::time::error::Elapsed;
use tricord_runtime::{LATENCY_BUCKETS, SIZE_BUCKETS};
use tricord_wire::Error;

use crate::storage::{ClassStats, Store};

type Labels = Vec<(String, String)>;

/// The data node's metrics, shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) writes: Family<Labels, Counter>,
    pub(crate) write_seconds: Histogram,
    pub(crate) write_bytes: Histogram,
    pub(crate) samples: Counter,
    pub(crate) spans: Counter,
    pub(crate) rejected: Family<Labels, Counter>,
    pub(crate) queries: Family<Labels, Counter>,
    pub(crate) cancelled: Counter,
    pub(crate) query_seconds: Histogram,
    pub(crate) partial_bytes: Histogram,
    pub(crate) maintenance_failures: Counter,
    messages: Family<Labels, Counter>,
    message_seconds: Histogram,
    proposals: Family<Labels, Counter>,
    pub(crate) lost_beacons: Counter,
    pub(crate) stale_epochs: Counter,
    pub(crate) cuts: Counter,
    pub(crate) renewed: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshots_installed: Counter,
    pub(crate) snapshot_bytes: Counter,
    pub(crate) snapshot_wait_ms: Counter,
    pub(crate) backups: Counter,
    pub(crate) backup_bytes: Counter,
    pub(crate) restored: Counter,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(metrics: &tricord_runtime::Metrics) -> Self {
        Self {
            writes: metrics.family("tricord_querier_writes", "Writes to shards, by outcome"),
            write_seconds: metrics.histogram(
                "tricord_querier_write_seconds",
                "Time from a write request to its answer",
                &LATENCY_BUCKETS,
            ),
            write_bytes: metrics.histogram(
                "tricord_querier_write_bytes",
                "Size of write requests",
                &SIZE_BUCKETS,
            ),
            samples: metrics.counter("tricord_querier_samples", "Samples and histograms accepted"),
            spans: metrics.counter("tricord_querier_spans", "Spans accepted"),
            rejected: metrics.family("tricord_querier_rejected", "Items refused for good, by kind"),
            queries: metrics.family("tricord_querier_fragments", "Query fragments, by outcome"),
            cancelled: metrics.counter(
                "tricord_querier_fragments_cancelled",
                "Query fragments that stopped since nobody waits for them any more",
            ),
            query_seconds: metrics.histogram(
                "tricord_querier_fragment_seconds",
                "Time to run a query fragment, waiting included",
                &LATENCY_BUCKETS,
            ),
            partial_bytes: metrics.histogram(
                "tricord_querier_partial_bytes",
                "Size of partials",
                &SIZE_BUCKETS,
            ),
            maintenance_failures: metrics
                .counter("tricord_querier_maintenance_failures", "Rounds of store maintenance that failed"),
            messages: metrics
                .family("tricord_replication_messages", "Messages to other replicas, by outcome"),
            message_seconds: metrics.histogram(
                "tricord_replication_message_seconds",
                "Time until another node has answered a message",
                &LATENCY_BUCKETS,
            ),
            proposals: metrics.family("tricord_replication_proposals", "Proposals to metadata, by outcome"),
            lost_beacons: metrics
                .counter("tricord_replication_lost_beacons", "Lease beacons without an answer"),
            stale_epochs: metrics
                .counter("tricord_replication_stale_epochs", "Answers that named a newer epoch than ours"),
            cuts: metrics.counter("tricord_replication_cuts", "Logs cut after a change of the primary"),
            renewed: metrics.counter(
                "tricord_replication_renewed",
                "Damaged copies that were given up to be copied again from another replica",
            ),
            snapshots_sent: metrics.counter("tricord_replication_snapshots_sent", "Snapshots sent"),
            snapshots_installed: metrics
                .counter("tricord_replication_snapshots_installed", "Snapshots installed"),
            snapshot_bytes: metrics
                .counter("tricord_replication_snapshot_bytes", "Bytes of snapshots sent to joiners"),
            snapshot_wait_ms: metrics.counter(
                "tricord_replication_snapshot_wait_milliseconds",
                "Time that snapshots, those for backups too, waited for snapshot_bytes_per_s",
            ),
            backups: metrics.counter("tricord_backup_shards", "Copies of shards that were given for backups"),
            backup_bytes: metrics
                .counter("tricord_backup_bytes", "Bytes of shards that were sent for backups"),
            restored: metrics.counter("tricord_restored_shards", "Shards that were restored from a backup"),
        }
    }

    /// Counts one write to one shard.
    pub(crate) fn write(&self, outcome: &str) {
        self.writes.get_or_create(&vec![("outcome".to_owned(), outcome.to_owned())]).inc();
    }

    /// Counts one query fragment.
    pub(crate) fn query(&self, outcome: &str) {
        self.queries.get_or_create(&vec![("outcome".to_owned(), outcome.to_owned())]).inc();
    }

    /// Counts items refused for good.
    pub(crate) fn reject(&self, kind: &str, count: u64) {
        if count > 0 {
            self.rejected.get_or_create(&vec![("kind".to_owned(), kind.to_owned())]).inc_by(count);
        }
    }

    /// Counts one proposal.
    pub(crate) fn proposals(&self, outcome: &str) {
        self.proposals.get_or_create(&vec![("outcome".to_owned(), outcome.to_owned())]).inc();
    }

    /// Counts one message to another replica.
    pub(crate) fn replicated<T>(&self, took_ms: u64, answer: &Result<Result<T, Error>, Elapsed>) {
        let outcome = match answer {
            Ok(Ok(_)) => "answered",
            Ok(Err(_)) => "failed",
            Err(_) => "timeout",
        };
        self.messages.get_or_create(&vec![("outcome".to_owned(), outcome.to_owned())]).inc();
        self.message_seconds.observe(took_ms as f64 / 1e3);
    }
}

/// Reads the store's own counts at each scrape.
#[derive(Clone)]
pub(crate) struct StoreCollector(pub(crate) Arc<Store>);

impl fmt::Debug for StoreCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreCollector")
    }
}

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.0.stats();
        let gauges = [
            ("tricord_querier_memory_bytes", "Data not yet written out", stats.memory_bytes),
            ("tricord_querier_series_in_memory", "Series in memory", stats.series),
            ("tricord_querier_log_bytes", "Log on disk", stats.log_bytes),
            (
                "tricord_querier_log_kept_bytes",
                "Log that stays for replicas that lag alone",
                stats.log_kept_bytes,
            ),
            ("tricord_querier_disk_bytes", "Sorted files on disk", stats.disk_bytes),
            ("tricord_querier_merges_waiting", "Merges of windows that are due", stats.merges_waiting),
            (
                "tricord_querier_damaged_windows",
                "Windows of shards of which something is damaged or lost",
                stats.damaged_windows,
            ),
            (
                "tricord_querier_damaged_shards",
                "Shards with damaged windows, or damaged as a whole",
                stats.damaged_shards,
            ),
            (
                "tricord_querier_tombstones",
                "Deletes that may hide samples on disk, over all shards",
                stats.tombstones,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let unit: Option<&Unit> = None;
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)?;
        }
        let counters = [
            ("tricord_querier_stored_samples", "Samples applied, as primary or follower", stats.samples),
            (
                "tricord_querier_duplicate_samples",
                "Samples dropped for an earlier one of the same time",
                stats.duplicate_samples,
            ),
            ("tricord_querier_stored_spans", "Spans applied, as primary or follower", stats.spans),
            ("tricord_querier_log_entries", "Entries appended to the log", stats.log_entries),
            ("tricord_querier_log_syncs", "Syncs of the log", stats.log_syncs),
            ("tricord_querier_flushed_windows", "Windows written out", stats.flushed_windows),
            (
                "tricord_querier_merged_windows",
                "Windows written by merging shorter ones",
                stats.merged_windows,
            ),
            ("tricord_querier_merged_bytes", "Bytes of merged windows written", stats.merged_bytes),
            (
                "tricord_querier_damage_found",
                "Times that stored data turned out to be damaged",
                stats.damage_found,
            ),
            (
                "tricord_querier_deleted_samples",
                "Samples that deletes have removed from memory or disk",
                stats.deleted_samples,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        encode_classes(&self.0.class_stats(), &mut encoder)
    }
}

/// What a class has of something.
type OfClass = fn(&ClassStats) -> u64;

/// The metrics of each retention class.
fn encode_classes(classes: &[ClassStats], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let gauges: [(&str, &str, OfClass); 3] = [
        ("tricord_querier_class_windows", "Windows on disk, of each shard apart, by retention class", |of| {
            of.generations
        }),
        ("tricord_querier_class_samples", "Samples on disk, by retention class", |of| of.samples),
        ("tricord_querier_class_spans", "Spans on disk, by retention class", |of| of.spans),
    ];
    for (name, help, value) in gauges {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for of in classes {
            let gauge = ConstGauge::new(i64::try_from(value(of)).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("class", of.name.as_str())])?)?;
        }
    }
    let (name, help) =
        ("tricord_querier_class_dropped_windows", "Windows dropped as they were past, by retention class");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for of in classes {
        ConstCounter::new(of.dropped).encode(family.encode_family(&[("class", of.name.as_str())])?)?;
    }
    Ok(())
}
