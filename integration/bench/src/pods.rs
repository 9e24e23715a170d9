//! A made-up cluster whose pods are renewed again and again: each time all of them get new names and addresses, so that
//! every series of theirs is new. The same numbers give the same samples.

use anyhow::Result;
use prost::Message;
use tricord_testkit::prompb::{self, Label, TimeSeries};

use crate::load::{Request, SAMPLES_PER_REQUEST, push};

/// Series of one pod.
pub(crate) const SERIES_PER_POD: usize = 25;

/// Workloads that pods belong to; each has one namespace.
pub(crate) const WORKLOADS: usize = 100;
const NAMESPACES: usize = 20;
/// Nodes that pods run on.
const NODES: usize = 300;

const PLAIN: [&str; 10] = [
    "container_cpu_usage_seconds_total",
    "container_fs_reads_bytes_total",
    "container_fs_writes_bytes_total",
    "container_memory_rss",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
    "container_start_time_seconds",
    "process_open_fds",
    "up",
];
const CODES: [&str; 5] = ["200", "304", "404", "500", "503"];
const BOUNDS: [&str; 8] = ["0.01", "0.05", "0.1", "0.25", "0.5", "1", "5", "+Inf"];

/// Pods that are renewed all at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewed {
    /// Series in force at any time.
    pub(crate) series: usize,
    /// Scrapes until all are renewed.
    pub(crate) life: i64,
    /// Scrapes after start at which the first renewal is.
    pub(crate) first: i64,
}

/// What a pod's labels are made of.
struct Pod {
    name: String,
    labels: Vec<(&'static str, String)>,
    number: usize,
}

impl Renewed {
    /// Which renewal a scrape belongs to, from 0.
    fn generation(&self, tick: i64) -> usize {
        ((tick - self.first).div_euclid(self.life) + 1).max(0) as usize
    }

    /// Distinct series over so many scrapes.
    pub(crate) fn distinct(&self, ticks: i64) -> usize {
        (self.generation(ticks - 1) - self.generation(0) + 1) * self.series
    }

    /// The requests of one scrape of all pods, for each of some connections.
    ///
    /// # Errors
    /// When a body cannot be made.
    pub(crate) fn scrape(&self, tick: i64, t_ms: i64, connections: usize) -> Result<Vec<Vec<Request>>> {
        let pods = self.series.div_ceil(SERIES_PER_POD);
        let first = self.generation(tick) * pods;
        let mut all = Vec::with_capacity(connections);
        for connection in 0..connections {
            let (mut requests, mut body, mut samples) = (Vec::new(), Vec::new(), 0);
            for at in (connection..pods).step_by(connections) {
                let pod = Pod::new(first + at);
                let series = (self.series - at * SERIES_PER_POD).min(SERIES_PER_POD);
                pod.scrape(series, tick, &mut |labels, value| push(&mut body, labels, t_ms, value));
                samples += series;
                if samples >= SAMPLES_PER_REQUEST {
                    requests.push(Request { body: prompb::compressed(&body)?, samples: samples as u64 });
                    body.clear();
                    samples = 0;
                }
            }
            if samples > 0 {
                requests.push(Request { body: prompb::compressed(&body)?, samples: samples as u64 });
            }
            all.push(requests);
        }
        Ok(all)
    }
}

/// The name of a workload by its number.
pub(crate) fn workload(number: usize) -> String {
    format!("service-{:03}", number % WORKLOADS)
}

/// The namespace of a workload.
pub(crate) fn namespace(number: usize) -> String {
    format!("team-{:02}", number % WORKLOADS % NAMESPACES)
}

/// The name of a pod by its number, over all renewals.
pub(crate) fn pod(number: usize) -> String {
    // An odd factor takes 2^32 numbers to as many others: names are distinct, and in no order.
    let random = (number as u32).wrapping_mul(0x9e37_79b1);
    format!("{}-{random:08x}", workload(number))
}

impl Pod {
    fn new(number: usize) -> Self {
        let address = format!("10.{}.{}.{}:8080", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff);
        let name = pod(number);
        let labels = vec![
            ("instance", address),
            ("job", workload(number)),
            ("namespace", namespace(number)),
            ("node", format!("node-{:03}", number % NODES)),
            ("pod", name.clone()),
        ];
        Self { name, labels, number }
    }

    /// Visits the first so many series, as remote write has their labels, each with its value.
    fn scrape(&self, series: usize, tick: i64, visit: &mut dyn FnMut(&[u8], f64)) {
        let plain = PLAIN.iter().map(|name| (*name, None));
        let codes = CODES.iter().map(|code| ("http_requests_total", Some(("code", *code))));
        let bounds = BOUNDS.iter().map(|le| ("http_request_duration_seconds_bucket", Some(("le", *le))));
        let rest = ["http_request_duration_seconds_sum", "http_request_duration_seconds_count"]
            .map(|name| (name, None));
        for (at, (name, own)) in plain.chain(codes).chain(bounds).chain(rest).take(series).enumerate() {
            let mut labels: Vec<Label> = vec![Label::new("__name__", name)];
            labels.extend(self.labels.iter().map(|(name, value)| Label::new(name, value)));
            labels.extend(own.map(|(name, value)| Label::new(name, value)));
            labels.sort_by(|a, b| a.name.cmp(&b.name));
            let encoded = TimeSeries { labels, ..TimeSeries::default() }.encode_to_vec();
            let pace = (self.name.len() + self.number % 97 + at * 13) as i64;
            visit(&encoded, if name == "up" { 1.0 } else { (pace * (tick + 1)) as f64 });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_renewal_has_series_of_its_own() {
        let renewed = Renewed { series: 110, life: 3, first: 1 };
        let labels = |number: usize| {
            let mut all = BTreeSet::new();
            Pod::new(number).scrape(SERIES_PER_POD, 0, &mut |labels, _| {
                all.insert(labels.to_vec());
            });
            all
        };
        assert_eq!(labels(7).len(), SERIES_PER_POD);
        assert!(labels(7).is_disjoint(&labels(7 + 110_usize.div_ceil(SERIES_PER_POD))));
        let generations: Vec<usize> = (0..8).map(|tick| renewed.generation(tick)).collect();
        assert_eq!(generations, [0, 1, 1, 1, 2, 2, 2, 3]);
        assert_eq!(renewed.distinct(8), 440);
    }

    #[test]
    fn a_scrape_has_every_series_once() {
        let renewed = Renewed { series: 110, life: 3, first: 1 };
        for connections in [1, 3] {
            let all = renewed.scrape(0, 0, connections).unwrap();
            assert_eq!(all.iter().flatten().map(|request| request.samples).sum::<u64>(), 110);
        }
    }
}
