//! The store in parts: codecs of columns, timestamps and sets of series, writing into the head, and selecting series.
//!
//! `make bench-parts` runs all of it; `ARGS=head` a part, and `ARGS=--quick` hardly more than once each.

#![expect(missing_docs, reason = "criterion_group makes a public function without documentation")]
#![expect(clippy::expect_used, reason = "a store in a fresh directory that fails ends the benchmark")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roaring::RoaringBitmap;
use tricord_model::{Batch, Labels, MatchOp, Matcher, Sample, SeriesBatch};
use tricord_querier::bench::{
    Head, decode_floats, decode_postings, decode_times, encode_floats, encode_postings, encode_times,
};

/// The first sample, the distance of samples, both in milliseconds, and how many fill a window.
const START_MS: i64 = 1_700_000_000_000 / 1_800_000 * 1_800_000;
const SCRAPE_MS: i64 = 15_000;
const SAMPLES: usize = 120;

/// Columns as scrapes bring them.
fn columns() -> [(&'static str, Vec<f64>); 5] {
    let mut rng = StdRng::seed_from_u64(1);
    let mut walk = |step: &mut dyn FnMut(&mut StdRng, f64) -> f64| {
        let mut value = 1000.0;
        (0..SAMPLES)
            .map(|_| {
                value = step(&mut rng, value);
                value
            })
            .collect::<Vec<f64>>()
    };
    [
        ("constant", walk(&mut |_, value| value)),
        ("counter", walk(&mut |rng, value| value + f64::from(rng.random_range(0..5000_u32)))),
        ("gauge with two decimals", walk(&mut |rng, _| f64::from(rng.random_range(0..10_000_u32)) / 100.0)),
        ("multiples of 4096", walk(&mut |rng, _| 4096.0 * f64::from(rng.random_range(0..1_000_000_u32)))),
        ("random", walk(&mut |rng, _| rng.random())),
    ]
}

fn floats(c: &mut Criterion) {
    let mut group = c.benchmark_group("floats");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, values) in columns() {
        let bytes = encode_floats(&values);
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| encode_floats(black_box(&values)))
        });
        let mut out = Vec::with_capacity(SAMPLES);
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| {
                out.clear();
                decode_floats(black_box(&bytes), SAMPLES, &mut out).expect("it was just encoded");
                out.len()
            });
        });
    }
}

fn times(c: &mut Criterion) {
    let mut rng = StdRng::seed_from_u64(2);
    let mut column = |jitter_ms: i64| -> Vec<i64> {
        let first = START_MS + rng.random_range(0..SCRAPE_MS - jitter_ms);
        (0..SAMPLES as i64).map(|n| first + n * SCRAPE_MS + rng.random_range(0..=jitter_ms)).collect()
    };
    let mut group = c.benchmark_group("times");
    for (name, jitter_ms) in [("regular", 0), ("jitter", 50)] {
        let columns: Vec<Vec<i64>> = (0..64).map(|_| column(jitter_ms)).collect();
        let block = encode_times(&columns).expect("compressing");
        group.throughput(Throughput::Elements((64 * SAMPLES) as u64));
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| encode_times(black_box(&columns)))
        });
        group
            .bench_function(BenchmarkId::new("decode", name), |b| b.iter(|| decode_times(black_box(&block))));
    }
}

fn postings(c: &mut Criterion) {
    let mut group = c.benchmark_group("postings");
    for (name, every) in [("sparse", 1000_usize), ("dense", 3)] {
        let ids: RoaringBitmap = (0..100_000_u32).step_by(every).collect();
        let bytes = encode_postings(&ids).expect("memory");
        group.throughput(Throughput::Elements(ids.len()));
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| encode_postings(black_box(&ids)))
        });
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| decode_postings(black_box(&bytes)))
        });
    }
}

/// A scrape of so many series, all at one time.
fn scrape(series: u32, n: i64) -> Vec<u8> {
    let of = |at: u32| {
        let instance = format!("10.0.{}.{}:9100", at / 25_600, at / 100 % 256);
        let pairs = [
            ("__name__", format!("metric_{}", at % 100 / 10)),
            ("instance", instance),
            ("job", "node".to_owned()),
            ("mode", format!("m{}", at % 10)),
        ];
        let labels = Labels::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())));
        let samples = vec![Sample::float(START_MS + n * SCRAPE_MS, f64::from(at) + n as f64)];
        SeriesBatch { labels, samples, ..SeriesBatch::default() }
    };
    Batch { series: (0..series).map(of).collect(), ..Batch::default() }.encode()
}

fn write(head: &Head, batch: &[u8]) {
    head.write(batch, START_MS + SAMPLES as i64 * SCRAPE_MS).expect("a valid batch");
}

fn head(c: &mut Criterion) {
    const SERIES: u32 = 10_000;
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    group.sample_size(20);
    group.bench_function("new series", |b| {
        let batch = scrape(SERIES, 0);
        let fresh = || {
            let dir = tempfile::tempdir().expect("a directory");
            (Head::open(dir.path()).expect("a store"), dir)
        };
        b.iter_batched_ref(fresh, |(head, _)| write(head, &batch), BatchSize::PerIteration);
    });
    group.bench_function("samples of known series", |b| {
        let dir = tempfile::tempdir().expect("a directory");
        let head = Head::open(dir.path()).expect("a store");
        let mut n = 0;
        // A full window is written out now and then, as it would be.
        let next = || {
            n += 1;
            if n % SAMPLES as i64 == 0 {
                head.flush().expect("room");
            }
            scrape(SERIES, n)
        };
        b.iter_batched(next, |batch| write(&head, &batch), BatchSize::PerIteration);
    });
}

fn select(c: &mut Criterion) {
    const SERIES: u32 = 100_000;
    let matcher = |name: &str, op, value: &str| Matcher::new(name, op, value).expect("a pattern");
    let sets = [
        (
            "one series",
            vec![
                ("instance", MatchOp::Equal, "10.0.1.7:9100"),
                ("__name__", MatchOp::Equal, "metric_3"),
                ("mode", MatchOp::Equal, "m4"),
            ],
        ),
        ("one metric", vec![("__name__", MatchOp::Equal, "metric_3")]),
        ("prefix", vec![("instance", MatchOp::Regex, "10\\.0\\.1\\..*")]),
        ("set of values", vec![("mode", MatchOp::Regex, "m1|m2|m3")]),
        ("not", vec![("__name__", MatchOp::Equal, "metric_3"), ("mode", MatchOp::NotRegex, "m[0-4]")]),
        ("without a label", vec![("device", MatchOp::Equal, "")]),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let head = Head::open(dir.path()).expect("a store");
    write(&head, &scrape(SERIES, 0));
    let mut group = c.benchmark_group("select");
    for place in ["head", "disk"] {
        if place == "disk" {
            head.flush().expect("room");
        }
        for (name, set) in &sets {
            let matchers: Vec<Matcher> =
                set.iter().map(|(name, op, value)| matcher(name, *op, value)).collect();
            let count = head.count(&matchers).expect("a sound index");
            assert!(count > 0, "{name} selects nothing");
            group.throughput(Throughput::Elements(count));
            group.bench_function(BenchmarkId::new(place, name), |b| {
                b.iter(|| head.count(black_box(&matchers)))
            });
        }
    }
}

criterion_group!(benches, floats, times, postings, head, select);
criterion_main!(benches);
