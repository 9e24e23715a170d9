//! The process' metrics registry. Roles register what they count; a metric asked for twice under one name is the same
//! metric, since in a single process several roles may share a library.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Bucket bounds for latencies, in seconds: 100 µs to 60 s.
pub const LATENCY_BUCKETS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];

/// Bucket bounds for sizes, in bytes: 256 B to 64 MiB.
pub const SIZE_BUCKETS: [f64; 10] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// A histogram over [`LATENCY_BUCKETS`]; observe seconds. Fits `metrics.family_with`.
#[must_use]
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}

/// A histogram over [`SIZE_BUCKETS`]; observe bytes. Fits `metrics.family_with`.
#[must_use]
pub fn size_histogram() -> Histogram {
    Histogram::new(SIZE_BUCKETS)
}

#[derive(Debug, Default)]
struct Inner {
    registry: Mutex<Registry>,
    known: Mutex<HashMap<String, Box<dyn Any + Send>>>,
}

/// The registry, shared by clones.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Inner>);

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The registry itself, for collectors and for metrics made elsewhere. Hold the guard briefly: a scrape waits.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock()
    }

    /// The metric of this name, made and registered at the first call. Names are as they appear in the exposition
    /// except that a counter may be named with or without its `_total`.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, make: impl FnOnce() -> M) -> M {
        let name = name.strip_suffix("_total").unwrap_or(name);
        let mut known = self.0.known.lock();
        if let Some(metric) = known.get(name).and_then(|metric| metric.downcast_ref::<M>()) {
            return metric.clone();
        }
        let metric = make();
        // The encoder ends help texts with a full stop of its own.
        self.registry().register(name, help.trim_end_matches('.'), metric.clone());
        known.insert(name.to_owned(), Box::new(metric.clone()));
        metric
    }

    /// A counter; `_total` is appended to its name in the exposition.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default)
    }

    /// A gauge of whole numbers.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default)
    }

    /// A histogram with its upper bounds; `_bucket`, `_sum` and `_count` are appended.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.register(name, help, || Histogram::new(bounds.iter().copied()))
    }

    /// A family of counters or gauges by a label set.
    pub fn family<L, M>(&self, name: &str, help: &str) -> Family<L, M>
    where
        L: Clone + Hash + Eq + EncodeLabelSet + Debug + Send + Sync + 'static,
        M: Metric + TypedMetric + Default + Clone,
        Family<L, M>: Metric,
    {
        self.register(name, help, Family::default)
    }

    /// A family whose members need a constructor: histograms, with [`latency_histogram`] for instance.
    pub fn family_with<L, M>(&self, name: &str, help: &str, constructor: fn() -> M) -> Family<L, M, fn() -> M>
    where
        L: Clone + Hash + Eq + EncodeLabelSet + Debug + Send + Sync + 'static,
        M: Metric + TypedMetric + Clone,
        fn() -> M: MetricConstructor<M>,
        Family<L, M, fn() -> M>: Metric,
    {
        self.register(name, help, || Family::new_with_constructor(constructor))
    }

    /// The exposition in the OpenMetrics text format, which ends in `# EOF`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string cannot fail; a collector that does leaves a shorter exposition.
        if prometheus_client::encoding::text::encode(&mut text, &self.registry()).is_err() {
            tracing::warn!("a metrics collector failed");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_metric() {
        let metrics = Metrics::new();
        metrics.counter("tricord_things_total", "Things").inc();
        metrics.counter("tricord_things", "Things").inc();
        metrics.histogram("tricord_wait_seconds", "Waits", &LATENCY_BUCKETS).observe(0.2);
        let family = metrics.family::<Vec<(String, String)>, Counter>("tricord_by", "By");
        family.get_or_create(&vec![("kind".to_owned(), "a".to_owned())]).inc();
        let text = metrics.encode();
        assert!(text.contains("tricord_things_total 2\n"), "{text}");
        assert_eq!(text.matches("# TYPE tricord_things counter").count(), 1, "{text}");
        assert!(text.contains("tricord_by_total{kind=\"a\"} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
