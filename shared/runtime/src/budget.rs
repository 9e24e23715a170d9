//! The global memory bound: what is in flight reserves bytes here first, and is refused rather than killed with the
//! whole process. Long-lived stores keep bounds of their own and report here through [`MemoryBudget::set_held`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::Metrics;

#[derive(Debug)]
struct Inner {
    limit_bytes: u64,
    reserved: AtomicU64,
    held: AtomicU64,
    refused: prometheus_client::metrics::counter::Counter,
    gauge: prometheus_client::metrics::gauge::Gauge,
}

/// A bound on bytes in memory, shared by clones.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Inner>);

impl MemoryBudget {
    /// A budget of a number of bytes.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self::build(limit_bytes, prometheus_client::metrics::counter::Counter::default(), Default::default())
    }

    /// A budget whose use and refusals show in the metrics.
    #[must_use]
    pub fn observed(limit_bytes: u64, metrics: &Metrics) -> Self {
        let limit =
            metrics.gauge("tricord_memory_limit_bytes", "Bytes that requests and stores may hold together");
        limit.set(i64::try_from(limit_bytes).unwrap_or(i64::MAX));
        Self::build(
            limit_bytes,
            metrics.counter(
                "tricord_memory_refused_total",
                "Reservations refused because the memory bound is reached",
            ),
            metrics.gauge("tricord_memory_reserved_bytes", "Bytes reserved by requests in flight"),
        )
    }

    fn build(
        limit_bytes: u64,
        refused: prometheus_client::metrics::counter::Counter,
        gauge: prometheus_client::metrics::gauge::Gauge,
    ) -> Self {
        let (reserved, held) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { limit_bytes, reserved, held, refused, gauge }))
    }

    /// Reserves bytes until the returned guard is dropped; `None` when they would pass the bound.
    #[must_use]
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let room = self.0.limit_bytes.saturating_sub(self.0.held.load(Ordering::Relaxed));
        let taken = self.0.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, |reserved| {
            reserved.checked_add(bytes).filter(|sum| *sum <= room)
        });
        if taken.is_err() {
            self.0.refused.inc();
            return None;
        }
        self.0.gauge.inc_by(bytes as i64);
        Some(Reservation { budget: self.clone(), bytes })
    }

    /// Says how many bytes long-lived stores hold, which shrinks the room for everything else.
    pub fn set_held(&self, bytes: u64) {
        self.0.held.store(bytes, Ordering::Relaxed);
    }

    /// Bytes reserved or held now.
    #[must_use]
    pub fn usage(&self) -> u64 {
        self.0.reserved.load(Ordering::Relaxed).saturating_add(self.0.held.load(Ordering::Relaxed))
    }

    /// The bound in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit_bytes
    }
}

/// Bytes taken from a [`MemoryBudget`], given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl Reservation {
    /// Grows the reservation; `false` (and nothing changes) when the bound would be passed.
    #[must_use]
    pub fn try_grow(&mut self, more_bytes: u64) -> bool {
        let Some(mut more) = self.budget.try_reserve(more_bytes) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.0.gauge.dec_by(self.bytes as i64);
    }
}

/// The memory this process may use, in bytes: the control group's limit where there is one, else the machine's memory.
/// One GiB where neither can be read.
#[must_use]
pub fn machine_memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    });
    let group =
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => 1 << 30,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_past_the_bound_and_gives_back() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.try_reserve(60).unwrap();
        assert!(budget.try_reserve(41).is_none());
        assert!(first.try_grow(40));
        assert!(!first.try_grow(1));
        assert_eq!((budget.usage(), first.bytes()), (100, 100));
        drop(first);
        assert_eq!(budget.usage(), 0);
        budget.set_held(90);
        assert!(budget.try_reserve(11).is_none());
        assert!(budget.try_reserve(10).is_some());
    }
}
