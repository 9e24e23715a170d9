//! Decoding bodies of 2,000 series with a sample each: remote write 1.0 and 2.0, of senders that are known and of new
//! ones. Decompression is not part of the time.
//!
//! `make bench-parts` runs all of it, `ARGS=--quick` hardly more than once each.

#![expect(missing_docs, reason = "criterion_group makes a public function without documentation")]
#![expect(clippy::expect_used, reason = "a body of this file that does not decode is a mistake in it")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tricord_ingester::Rejected;
use tricord_ingester::decode::{Allowance, Sink, remote_write, remote_write_v2};
use tricord_model::{Labels, MetricMetadata, Points, Sample, SeriesData};
use tricord_testkit::{RemoteSeries, remote_write_body, remote_write_v2_body};

const SERIES: usize = 2_000;
const T_MS: i64 = 1_700_000_000_000;

/// Counts what comes; one that `knows` its senders never asks for labels.
#[derive(Default)]
struct Count {
    knows: bool,
    series: usize,
    samples: usize,
    rejected: Rejected,
}

impl Sink for Count {
    fn series(&mut self, labels: &[(&str, &str)], _sent: Option<&[u8]>, data: &SeriesData<'_>) {
        self.series += usize::from(!labels.is_empty());
        self.samples += data.samples.len();
    }

    fn recall(&mut self, sent: &[u8], data: &SeriesData<'_>) -> bool {
        if self.knows {
            self.series += usize::from(!sent.is_empty());
            self.samples += data.samples.len();
        }
        self.knows
    }

    fn metadata(&mut self, _family: String, _metadata: MetricMetadata) {}

    fn rejected(&mut self) -> &mut Rejected {
        &mut self.rejected
    }
}

fn labels(at: usize) -> [(&'static str, String); 5] {
    [
        ("cpu", (at % 8).to_string()),
        ("env", "production".to_owned()),
        ("instance", format!("10.0.{}.{}:9100", at / 25_600, at / 100 % 256)),
        ("job", "node".to_owned()),
        ("mode", format!("mode_{}", at % 100 / 8)),
    ]
}

fn bodies() -> [(&'static str, Vec<u8>); 2] {
    let pairs = |at| labels(at).map(|(name, value)| (name, value));
    let v1: Vec<RemoteSeries> = (0..SERIES)
        .map(|at| {
            let pairs = pairs(at);
            let pairs: Vec<(&str, &str)> =
                pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            RemoteSeries::new("node_cpu_seconds_total", &pairs).at(T_MS, at as f64 + 0.25)
        })
        .collect();
    let v2: Vec<(Labels, Points)> = v1
        .iter()
        .map(|series| {
            let labels = Labels::from_pairs(series.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let samples = series.samples.iter().map(|(t_ms, value)| Sample::float(*t_ms, *value));
            (labels, samples.collect())
        })
        .collect();
    let plain = |body: Vec<u8>| snap::raw::Decoder::new().decompress_vec(&body).expect("a snappy block");
    [
        ("remote write 1.0", plain(remote_write_body(&v1).expect("it is small"))),
        ("remote write 2.0", plain(remote_write_v2_body(&v2).expect("it is small"))),
    ]
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(SERIES as u64));
    for (name, body) in bodies() {
        for (kind, knows) in [("known", true), ("new", false)] {
            let decode = || {
                let (mut sink, mut allowance) =
                    (Count { knows, ..Count::default() }, Allowance::new(64 << 20));
                let body = black_box(&body);
                match name {
                    "remote write 1.0" => remote_write::decode(body, &mut allowance, &mut sink),
                    _ => remote_write_v2::decode(body, &mut allowance, &mut sink),
                }
                .expect("a sound body");
                (sink.series, sink.samples)
            };
            assert_eq!(decode(), (SERIES, SERIES));
            group.bench_function(BenchmarkId::new(name, kind), |b| b.iter(decode));
        }
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
