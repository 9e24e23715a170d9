//! A made-up fleet of hosts whose metrics look like those of a node exporter and a web service: counters, gauges,
//! constants and classic histograms. The same seed gives the same samples.

use std::ops::Range;

use prost::Message;
use tricord_testkit::prompb::{Label, TimeSeries};

/// Series of one host.
pub(crate) const SERIES_PER_HOST: usize = 200;

const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const CPUS: usize = 8;
const DISKS: [&str; 4] = ["nvme0n1", "nvme1n1", "sda", "sdb"];
const LINKS: [&str; 4] = ["eth0", "eth1", "lo", "docker0"];
const MOUNTS: [&str; 6] = ["/", "/boot", "/data", "/home", "/var", "/tmp"];
const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
const HANDLERS: [&str; 3] = ["/api/items", "/api/orders", "/healthz"];

/// How a series moves from one scrape to the next.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// Never.
    Constant,
    /// By up to so much, never down, in steps of a hundredth.
    Counter(f64),
    /// By whole numbers up to so much, never down.
    Whole(u64),
    /// Up and down by up to so much.
    Gauge(f64),
    /// As [`Course::Whole`], and never less than the bucket before it.
    Bucket(u64),
}

/// One series of a host.
#[derive(Clone, Debug)]
struct Line {
    labels: Vec<(String, String)>,
    /// The labels as remote write 1.0 has them.
    encoded: Vec<u8>,
    course: Course,
    value: f64,
}

/// A host with the values of its last scrape.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    lines: Vec<Line>,
    random: u64,
    /// When within the interval it is scraped, as a share of it.
    shift: f64,
}

/// A number that looks random and depends on nothing but its input (the finaliser of splitmix64).
fn mix(seed: u64) -> u64 {
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

impl Host {
    /// A host by its number.
    pub(crate) fn new(number: usize) -> Self {
        let random = mix(number as u64 + 1);
        let mut host = Self {
            lines: Vec::with_capacity(SERIES_PER_HOST),
            random,
            shift: (random % 1000) as f64 / 1000.0,
        };
        host.processors(number);
        host.disks(number);
        host.links(number);
        host.mounts(number);
        host.memory(number);
        host.service(number);
        host.lines.truncate(SERIES_PER_HOST);
        host
    }

    fn add(&mut self, name: &str, number: usize, labels: &[(&str, &str)], course: Course) {
        let instance = format!("host-{number:05}:9100");
        let mut all = vec![
            ("__name__".to_owned(), name.to_owned()),
            ("instance".to_owned(), instance),
            ("job".to_owned(), "node".to_owned()),
        ];
        all.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.sort();
        let value = match course {
            Course::Bucket(_) => 0.0,
            _ => (self.next() % 1_000_000) as f64,
        };
        let labels = all.iter().map(|(name, value)| Label::new(name, value)).collect();
        let encoded = TimeSeries { labels, ..TimeSeries::default() }.encode_to_vec();
        self.lines.push(Line { labels: all, encoded, course, value });
    }

    fn processors(&mut self, number: usize) {
        for cpu in 0..CPUS {
            for mode in MODES {
                let most = if mode == "idle" { 14.0 } else { 1.5 };
                let labels = [("cpu", &*cpu.to_string()), ("mode", mode)];
                self.add("node_cpu_seconds_total", number, &labels, Course::Counter(most));
            }
        }
    }

    fn disks(&mut self, number: usize) {
        for device in DISKS {
            let labels = [("device", device)];
            for name in ["node_disk_read_bytes_total", "node_disk_written_bytes_total"] {
                self.add(name, number, &labels, Course::Whole(900_000));
            }
            for name in ["node_disk_reads_completed_total", "node_disk_writes_completed_total"] {
                self.add(name, number, &labels, Course::Whole(300));
            }
            self.add("node_disk_io_time_seconds_total", number, &labels, Course::Counter(3.0));
            self.add("node_disk_io_now", number, &labels, Course::Gauge(4.0));
        }
    }

    fn links(&mut self, number: usize) {
        for device in LINKS {
            let labels = [("device", device)];
            for name in ["node_network_receive_bytes_total", "node_network_transmit_bytes_total"] {
                self.add(name, number, &labels, Course::Whole(2_000_000));
            }
            for name in ["node_network_receive_packets_total", "node_network_transmit_packets_total"] {
                self.add(name, number, &labels, Course::Whole(2_000));
            }
            for name in ["node_network_receive_errs_total", "node_network_transmit_errs_total"] {
                self.add(name, number, &labels, Course::Constant);
            }
        }
    }

    fn mounts(&mut self, number: usize) {
        for mountpoint in MOUNTS {
            let labels = [("mountpoint", mountpoint), ("fstype", "ext4")];
            self.add("node_filesystem_size_bytes", number, &labels, Course::Constant);
            self.add("node_filesystem_avail_bytes", number, &labels, Course::Gauge(4096.0));
            self.add("node_filesystem_files_free", number, &labels, Course::Gauge(3.0));
        }
    }

    fn memory(&mut self, number: usize) {
        self.add("node_memory_MemTotal_bytes", number, &[], Course::Constant);
        for name in ["MemAvailable", "MemFree", "Cached", "Buffers", "Active", "Inactive", "Slab", "Dirty"] {
            self.add(&format!("node_memory_{name}_bytes"), number, &[], Course::Gauge(65_536.0));
        }
        for name in ["node_load1", "node_load5", "node_load15"] {
            self.add(name, number, &[], Course::Gauge(0.2));
        }
        for name in ["node_boot_time_seconds", "node_os_info", "up"] {
            self.add(name, number, &[], Course::Constant);
        }
        for name in ["node_context_switches_total", "node_intr_total", "node_forks_total"] {
            self.add(name, number, &[], Course::Whole(90_000));
        }
        self.add("process_cpu_seconds_total", number, &[], Course::Counter(0.4));
    }

    fn service(&mut self, number: usize) {
        for handler in HANDLERS {
            for le in BOUNDS {
                let labels = [("handler", handler), ("le", le)];
                self.add("http_request_duration_seconds_bucket", number, &labels, Course::Bucket(40));
            }
            let labels = [("handler", handler)];
            self.add("http_request_duration_seconds_sum", number, &labels, Course::Counter(5.0));
            self.add("http_request_duration_seconds_count", number, &labels, Course::Whole(400));
        }
        let missing = SERIES_PER_HOST.saturating_sub(self.lines.len());
        for unit in 0..missing {
            let labels = [("name", &*format!("unit-{unit}.service"))];
            self.add("node_systemd_unit_state", number, &labels, Course::Constant);
        }
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random)
    }

    /// Moves all series on by one scrape.
    pub(crate) fn scrape(&mut self) {
        let mut lower = 0.0;
        for at in 0..self.lines.len() {
            let random = self.next();
            let share = (random >> 11) as f64 / (1u64 << 53) as f64;
            let line = &mut self.lines[at];
            match line.course {
                Course::Constant => {}
                Course::Counter(most) => line.value = hundredths(line.value + share * most),
                Course::Whole(most) => line.value += (random % (most + 1)) as f64,
                Course::Gauge(most) => line.value = hundredths(line.value + (share - 0.5) * most),
                Course::Bucket(most) => {
                    // All that fell into the buckets below fell into this one too.
                    let begins = line.labels.iter().any(|(name, value)| name == "le" && value == BOUNDS[0]);
                    lower = if begins { 0.0 } else { lower };
                    lower += (random % (most + 1)) as f64;
                    line.value += lower;
                }
            }
        }
    }

    /// When its scrape of a tick is, in milliseconds.
    pub(crate) fn time(&self, start_ms: i64, interval_ms: i64, tick: i64) -> i64 {
        start_ms + tick * interval_ms + (self.shift * interval_ms as f64) as i64
    }

    /// The encoded labels and the value of some of its series.
    pub(crate) fn encoded(&self, range: Range<usize>) -> impl Iterator<Item = (&[u8], f64)> {
        let lines = &self.lines[range.start..range.end.min(self.lines.len())];
        lines.iter().map(|line| (line.encoded.as_slice(), line.value))
    }

    /// The labels and the value of some of its series.
    pub(crate) fn lines(&self, range: Range<usize>) -> impl Iterator<Item = (&[(String, String)], f64)> {
        let lines = &self.lines[range.start..range.end.min(self.lines.len())];
        lines.iter().map(|line| (line.labels.as_slice(), line.value))
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_distinct_series_and_the_same_samples_each_time() {
        let mut host = Host::new(7);
        let labels: std::collections::BTreeSet<_> =
            host.lines(0..1_000).map(|(labels, _)| labels.to_vec()).collect();
        assert_eq!(labels.len(), SERIES_PER_HOST);
        let mut again = Host::new(7);
        (0..3).for_each(|_| (host.scrape(), again.scrape()).0);
        let values = |host: &Host| host.lines(0..1_000).map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(values(&host), values(&again));
        assert_ne!(values(&host), values(&Host::new(8)));
    }

    #[test]
    fn counters_never_fall_and_buckets_hold_those_below() {
        let mut host = Host::new(1);
        let counters = |host: &Host| {
            let lines = host.lines(0..SERIES_PER_HOST);
            lines
                .filter(|(labels, _)| labels.iter().any(|(_, value)| value.ends_with("_total")))
                .map(|line| line.1)
                .collect::<Vec<_>>()
        };
        for _ in 0..20 {
            let before = counters(&host);
            host.scrape();
            assert!(before.iter().zip(counters(&host)).all(|(before, now)| *before <= now));
        }
        let bucket = |le: &str| {
            let of = |labels: &[(String, String)]| {
                labels.iter().any(|(_, value)| value == le)
                    && labels.iter().any(|(_, value)| value == HANDLERS[0])
            };
            host.lines(0..SERIES_PER_HOST).find(|(labels, _)| of(labels)).map(|line| line.1).unwrap()
        };
        assert!(bucket("0.005") <= bucket("1") && bucket("1") <= bucket("+Inf"));
    }
}
