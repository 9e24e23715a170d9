//! What the operating system says about this process, read at each scrape from `/proc/self`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::metrics::Metrics;

/// Clock ticks per second in `/proc`: fixed by the kernel's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;
/// The page size that `/proc/self/statm` counts in on the machines that we build for.
const PAGE_BYTES: u64 = 4096;

#[derive(Debug)]
struct Process {
    start_seconds: f64,
}

/// Adds the process' metrics (`process_…`), the common blocking pool and the build's version to a registry; once.
pub fn observe_process(metrics: &Metrics) {
    let start_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    let info = prometheus_client::metrics::info::Info::new(version);
    crate::pool::observe_blocking_pool(metrics);
    let mut registry = metrics.registry();
    registry.register("tricord_build", "The build that runs", info);
    registry.register_collector(Box::new(Process { start_seconds }));
}

/// Resident memory of this process in bytes, 0 where the system does not say.
#[must_use]
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

/// Seconds of processor time used, from the fields after the parenthesised command name.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn threads() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn open_files_limit() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", resident_bytes() as f64),
            ("process_open_fds", "Open file descriptors", open_files as f64),
            ("process_max_fds", "Limit on open file descriptors", open_files_limit() as f64),
            ("process_threads", "Threads", threads() as f64),
            ("process_start_time_seconds", "Start of the process since the epoch", self.start_seconds),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let cpu = ConstCounter::new(cpu_seconds());
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time used",
            None,
            cpu.metric_type(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let metrics = Metrics::new();
        observe_process(&metrics);
        let text = metrics.encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split(' ').nth(1).unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e5);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_threads ") >= 1.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(text.contains("tricord_build_info{version="), "{text}");
    }
}
