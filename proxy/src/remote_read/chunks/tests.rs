//! Chunks are read back by testkit's own decoder, and compared with bytes of Prometheus.

use std::sync::Arc;

use proptest::prelude::*;
use tricord_model::{BucketSpan, CounterResetHint, FloatHistogram, STALE_NAN, Sample, Value};
use tricord_testkit::chunks;
use tricord_testkit::remote_read::ReadHistogram;

use super::*;

fn histogram(hint: CounterResetHint, populations: &[f64]) -> FloatHistogram {
    let count = populations.iter().sum();
    FloatHistogram {
        counter_reset_hint: hint,
        schema: 2,
        zero_threshold: 0.001,
        zero_count: 0.5,
        count,
        sum: count * 1.5,
        positive_spans: vec![BucketSpan { offset: -3, length: populations.len() as u32 }],
        positive_buckets: populations.to_vec(),
        ..FloatHistogram::default()
    }
}

fn sample(t_ms: i64, histogram: FloatHistogram) -> Sample {
    Sample { t_ms, start_ms: 0, value: Value::Histogram(Arc::new(histogram)) }
}

fn chunks_of(samples: Vec<Sample>) -> Vec<pb::Chunk> {
    Chunks::new(samples.into_iter().collect()).collect()
}

fn hints(chunk: &pb::Chunk) -> Vec<i32> {
    chunks::float_histograms(&chunk.data).unwrap().into_iter().map(|(_, h)| h.hint).collect()
}

#[test]
fn floats_and_histograms_take_turns() {
    let h = || histogram(CounterResetHint::Unknown, &[1.0, 2.0]);
    let samples = vec![
        Sample::float(1, 0.5),
        Sample::float(2, STALE_NAN),
        sample(3, h()),
        sample(4, h()),
        Sample::float(9, -0.0),
    ];
    let chunks = chunks_of(samples);
    let kinds: Vec<_> = chunks.iter().map(|c| (c.r#type, c.min_time_ms, c.max_time_ms)).collect();
    assert_eq!(kinds, [(1, 1, 2), (3, 3, 4), (1, 9, 9)]);
    let floats = chunks::floats(&chunks[0].data).unwrap();
    assert_eq!(floats[1].1.to_bits(), STALE_NAN.to_bits());
    assert!(chunks::floats(&chunks[2].data).unwrap()[0].1.is_sign_negative());
    assert!(chunks_of(vec![]).is_empty());
}

#[test]
fn a_chunk_of_histograms_ends_where_the_counter_was_reset() {
    use CounterResetHint as H;
    let of = |at: i64, hint, populations: &[f64]| sample(at, histogram(hint, populations));
    let chunks = chunks_of(vec![
        of(1, H::Unknown, &[1.0, 2.0]),
        of(2, H::Unknown, &[1.0, 3.0]),
        // Less than before.
        of(3, H::Unknown, &[1.0, 1.0]),
        // Another layout.
        of(4, H::NotReset, &[1.0, 1.0, 0.0]),
        of(5, H::NotReset, &[1.0, 1.0, 1.0]),
        // Said to be one.
        of(6, H::Reset, &[1.0, 1.0, 1.0]),
        // Gauges go up and down.
        of(7, H::Gauge, &[1.0, 1.0, 1.0]),
        of(8, H::Gauge, &[0.0, 1.0, 1.0]),
    ]);
    let times: Vec<_> = chunks.iter().map(|c| (c.min_time_ms, c.max_time_ms)).collect();
    assert_eq!(times, [(1, 2), (3, 3), (4, 5), (6, 6), (7, 8)]);
    assert_eq!(hints(&chunks[0]), [0, 2]);
    assert_eq!(hints(&chunks[4]), [3, 3]);
    let header = |at: usize| chunks[at].data[2];
    assert_eq!([header(0), header(2), header(3), header(4)], [0, 0x40, 0x80, 0xc0]);
}

#[test]
fn a_stale_histogram_is_alone_and_without_buckets() {
    let stale = FloatHistogram { sum: STALE_NAN, ..histogram(CounterResetHint::Unknown, &[1.0]) };
    let plain = || histogram(CounterResetHint::Unknown, &[1.0]);
    let chunks = chunks_of(vec![sample(1, plain()), sample(2, stale), sample(3, plain())]);
    assert_eq!(chunks.len(), 3);
    let read = chunks::float_histograms(&chunks[1].data).unwrap();
    let expected = ReadHistogram { sum: STALE_NAN, ..ReadHistogram::default() };
    assert_eq!((read[0].0, read[0].1.sum.to_bits()), (2, expected.sum.to_bits()));
    assert!(read[0].1.positive.is_empty());
}

#[test]
fn layouts_of_all_kinds_read_back() {
    for zero_threshold in [0.0, 0.001, 2f64.powi(-128), 2f64.powi(-243), 2f64.powi(-244), 1024.0, 2048.0] {
        let h = FloatHistogram { zero_threshold, ..histogram(CounterResetHint::Unknown, &[1.0]) };
        let chunk = chunks_of(vec![sample(1, h)]).remove(0);
        assert_eq!(chunks::float_histograms(&chunk.data).unwrap()[0].1.zero_threshold, zero_threshold);
    }
    let custom_values = vec![-1.0, 0.0, 0.005, 0.1, 33_554.43, 33_554.431, 1e300];
    let h = FloatHistogram {
        schema: tricord_model::CUSTOM_BUCKETS_SCHEMA,
        zero_threshold: 0.0,
        zero_count: 0.0,
        custom_values: custom_values.clone(),
        ..histogram(CounterResetHint::Unknown, &[1.0, 5.0])
    };
    let chunk = chunks_of(vec![sample(1, h)]).remove(0);
    let read = chunks::float_histograms(&chunk.data).unwrap().remove(0).1;
    assert_eq!((read.schema, read.custom_values), (-53, custom_values));
}

/// Values as senders have them and as nobody has them.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (0..1000i32).prop_map(f64::from),
        Just(f64::NAN),
        Just(STALE_NAN),
        Just(f64::INFINITY),
        Just(-0.0),
    ]
}

/// Distances in time, from regular to far.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![Just(15_000), 1..10i64, 14_990..15_010i64, 1..100_000_000i64, Just(1i64 << 40)]
}

proptest! {
    #[test]
    fn floats_read_back_to_the_bit(
        first in -1i64 << 50..1i64 << 50,
        samples in proptest::collection::vec((step(), value()), 1..400),
    ) {
        let mut t_ms = first;
        let samples: Vec<Sample> = samples
            .into_iter()
            .map(|(step, value)| {
                t_ms += step;
                Sample::float(t_ms, value)
            })
            .collect();
        let expected: Vec<(i64, u64)> = samples
            .iter()
            .map(|sample| match sample.value {
                Value::Float(value) => (sample.t_ms, value.to_bits()),
                Value::Histogram(_) => (0, 0),
            })
            .collect();
        let mut read = Vec::new();
        for chunk in chunks_of(samples) {
            let samples = chunks::floats(&chunk.data).unwrap();
            prop_assert!(samples.len() <= SAMPLES);
            prop_assert_eq!((samples[0].0, samples[samples.len() - 1].0), (chunk.min_time_ms, chunk.max_time_ms));
            read.extend(samples.into_iter().map(|(t_ms, value)| (t_ms, value.to_bits())));
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn histograms_read_back(
        samples in proptest::collection::vec(
            (step(), proptest::collection::vec(0..50u32, 1..4), 0..4u8, -2..3i32),
            1..60,
        ),
    ) {
        let mut t_ms = 0;
        let samples: Vec<Sample> = samples
            .into_iter()
            .map(|(step, populations, hint, offset)| {
                t_ms += step;
                let populations: Vec<f64> = populations.into_iter().map(f64::from).collect();
                let mut h = histogram(CounterResetHint::from_number(hint), &populations);
                h.negative_spans = vec![BucketSpan { offset, length: 1 }, BucketSpan { offset: 2, length: 1 }];
                h.negative_buckets = vec![1.0, f64::from(hint)];
                sample(t_ms, h)
            })
            .collect();
        let mut read = Vec::new();
        for chunk in chunks_of(samples.clone()) {
            let decoded = chunks::float_histograms(&chunk.data).unwrap();
            for pair in decoded.windows(2) {
                // Whatever follows in a chunk is taken for no reset.
                let fell = pair[1].1.hint != 3
                    && pair[0].1.positive.iter().zip(&pair[1].1.positive).any(|(a, b)| b.1 < a.1);
                prop_assert!(!fell, "{:?}", pair);
            }
            read.extend(decoded);
        }
        prop_assert_eq!(read.len(), samples.len());
        for (sample, (t_ms, got)) in samples.iter().zip(read) {
            let Value::Histogram(h) = &sample.value else { continue };
            prop_assert_eq!((sample.t_ms, h.count, h.sum, h.schema), (t_ms, got.count, got.sum, got.schema));
            let populations: Vec<f64> = got.positive.iter().map(|(_, population)| *population).collect();
            prop_assert_eq!(&populations, &h.positive_buckets);
            prop_assert_eq!(got.positive[0].0, -3);
            let first = h.negative_spans[0].offset;
            prop_assert_eq!(got.negative, vec![(first, 1.0), (first + 3, h.negative_buckets[1])]);
            prop_assert_eq!(got.hint == 3, h.counter_reset_hint == CounterResetHint::Gauge);
        }
    }
}
