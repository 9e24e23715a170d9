//! What two decisions of the storage rest on: which log takes entries, and in which order series fill blocks.
//!
//! `make bench-choices` prints both tables; ARCHITECTURE.md quotes one run.

#![expect(clippy::print_stdout, reason = "tables for people are what this is for")]
#![expect(clippy::expect_used, reason = "a fresh directory that fails ends the benchmark")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use tricord_querier::bench::{Log, encode_blocks, read_blocks};
use tricord_rocks::{Family, Options, Rocks};

fn main() {
    logs();
    layouts();
}

/// Bytes of an entry: about what a request of 2,000 samples leaves for its shards.
const ENTRY_BYTES: usize = 24 << 10;
const ENTRIES: u64 = 4000;

/// Processor time of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

fn logs() {
    println!("entries of {} KiB, each synced before its writer goes on\n", ENTRY_BYTES >> 10);
    println!("| log | writers | entries/s | wait, mean | CPU for an entry |\n|---|---|---|---|---|");
    let mut bytes = vec![0; ENTRY_BYTES];
    StdRng::seed_from_u64(1).fill(&mut bytes[..]);
    let payload = Bytes::from(bytes);
    for writers in [1, 4, 16] {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::open(dir.path()).expect("a log");
        let append = |writer: u32, seq| log.append(writer, seq, payload.clone()).expect("room");
        measure("own segments", writers, &append);
        let dir = tempfile::tempdir().expect("a directory");
        let rocks = open_rocks(dir.path());
        let append = |writer: u32, seq: u64| {
            let mut batch = rocks.batch();
            batch.put(FAMILY, &[&writer.to_be_bytes()[..], &seq.to_be_bytes()].concat(), &payload);
            rocks.write(batch, true).expect("room");
        };
        measure("RocksDB's", writers, &append);
    }
}

const FAMILY: &str = "log";

fn open_rocks(dir: &Path) -> Rocks {
    let family = Family { name: FAMILY, compress: false, bloom: false, block_bytes: 16 << 10 };
    let options =
        Options { families: vec![family], write_buffer_bytes: 64 << 20, create: true, ..Options::default() };
    Rocks::open(dir, &options).expect("a database")
}

fn measure(name: &str, writers: u32, append: &(dyn Fn(u32, u64) + Sync)) {
    let (started, before) = (Instant::now(), cpu());
    std::thread::scope(|scope| {
        for writer in 0..writers {
            scope.spawn(move || (1..=ENTRIES / u64::from(writers)).for_each(|seq| append(writer, seq)));
        }
    });
    let (took, used) = (started.elapsed(), cpu().saturating_sub(before));
    let wait = took * writers / ENTRIES as u32;
    let rate = ENTRIES as f64 / took.as_secs_f64();
    println!("| {name} | {writers} | {rate:.0} | {wait:.0?} | {:.0?} |", used / ENTRIES as u32);
}

/// Targets of a shard, and metrics of each.
const TARGETS: usize = 64;
const METRICS: usize = 200;

/// The samples of a metric of one target, as machines have them.
fn column(rng: &mut StdRng, metric: usize, samples: usize) -> Vec<f64> {
    let mut value = f64::from(rng.random_range(0..1_000_000_u32));
    let mut step = |rng: &mut StdRng| match metric % 5 {
        0 => value,
        1 => {
            value += f64::from(rng.random_range(0..500_u32));
            value
        }
        2 => f64::from(rng.random_range(0..10_000_u32)) / 100.0,
        3 => {
            value += if rng.random_ratio(1, 20) { 1.0 } else { 0.0 };
            value
        }
        _ => 4096.0 * f64::from(rng.random_range(100_000..120_000_u32)),
    };
    (0..samples).map(|_| step(rng)).collect()
}

fn layouts() {
    println!("\n{TARGETS} targets of {METRICS} metrics, values alone\n");
    println!("| window | order | bytes per sample | one metric of all targets | one target, all metrics |");
    println!("|---|---|---|---|---|");
    for (window, samples, is_long) in [("30 min", 120, false), ("6 h, merged", 1440, true)] {
        let mut rng = StdRng::seed_from_u64(3);
        let columns: Vec<Vec<f64>> =
            (0..TARGETS * METRICS).map(|at| column(&mut rng, at % METRICS, samples)).collect();
        let times: Vec<i64> = (0..samples as i64).collect();
        let by_target = |target: usize, metric: usize| target * METRICS + metric;
        let by_metric = |target: usize, metric: usize| metric * TARGETS + target;
        for (order, place) in
            [("by metric", &by_metric as &dyn Fn(usize, usize) -> usize), ("by target", &by_target)]
        {
            let mut sorted: Vec<&[f64]> = vec![&[]; columns.len()];
            for target in 0..TARGETS {
                for metric in 0..METRICS {
                    sorted[place(target, metric)] = &columns[by_target(target, metric)];
                }
            }
            let blocks = encode_blocks(&sorted, is_long).expect("compressing");
            let bytes: usize = blocks.iter().map(|(_, block)| block.len()).sum();
            let of_metric: Vec<usize> = (0..TARGETS).map(|target| place(target, 7)).collect();
            let of_target: Vec<usize> = (0..METRICS).map(|metric| place(7, metric)).collect();
            let read = |wanted: &[usize]| read_time(&blocks, wanted, &times);
            let per_sample = bytes as f64 / (columns.len() * samples) as f64;
            let (metric, target) = (read(&of_metric), read(&of_target));
            println!("| {window} | {order} | {per_sample:.3} | {metric} | {target} |");
        }
    }
}

/// How long reading some columns takes, and how many blocks.
fn read_time(blocks: &[(usize, Vec<u8>)], wanted: &[usize], times: &[i64]) -> String {
    let mut points = tricord_model::Points::default();
    let mut best = Duration::MAX;
    let mut opened = 0;
    for _ in 0..20 {
        let started = Instant::now();
        opened = read_blocks(blocks, wanted, times, &mut points).expect("they were just encoded");
        best = best.min(started.elapsed());
    }
    format!("{:.2} ms, {opened} blocks", best.as_secs_f64() * 1000.0)
}
