use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{FloatHistogram, MetricKind, STALE_NAN, TraceId, Value};

fn example() -> Batch {
    let span = |id: u8| SpanRecord {
        trace_id: TraceId([id; 16]),
        span_id: [id; 8],
        start_ns: 1_700_000_000_000_000_000,
        end_ns: 1_700_000_000_000_000_500,
        resource: Bytes::from_static(b"resource"),
        resource_schema_url: "r".into(),
        scope: Bytes::from_static(b"scope"),
        scope_schema_url: String::new(),
        span: Bytes::from_static(b"span"),
    };
    let histogram = Arc::new(FloatHistogram { schema: 1, count: 2.0, ..FloatHistogram::default() });
    let samples = vec![
        Sample::float(1_700_000_000_000, -0.0),
        Sample { t_ms: -5, start_ms: -10, value: Value::Histogram(histogram) },
        Sample::float(1_700_000_000_000, 1.5),
    ];
    let exemplar = Exemplar { labels: Labels::from_pairs([("trace_id", "ab")]), t_ms: 7, value: 0.5 };
    Batch {
        series: vec![SeriesBatch {
            labels: Labels::from_pairs([("__name__", "up"), ("job", "a")]),
            samples,
            exemplars: vec![exemplar],
            delta: true,
        }],
        metadata: vec![(
            "up".into(),
            MetricMetadata { kind: MetricKind::Gauge, unit: String::new(), help: "h".into() },
        )],
        spans: vec![span(1), span(2)],
    }
}

#[test]
fn a_batch_comes_back_as_it_was() {
    assert_eq!(Batch::decode(&example().encode()), Ok(example()));
}

#[test]
fn stale_markers_keep_their_bits() {
    let series = SeriesBatch { samples: vec![Sample::float(1, STALE_NAN)], ..SeriesBatch::default() };
    let batch = Batch { series: vec![series], ..Batch::default() };
    let decoded = Batch::decode(&batch.encode()).unwrap();
    assert!(matches!(decoded.series[0].samples[0].value, Value::Float(v) if crate::is_stale(v)));
}

#[test]
fn every_cut_is_noticed() {
    let bytes = example().encode();
    for len in 0..bytes.len() {
        assert!(Batch::decode(&bytes[..len]).is_err(), "cut at {len}");
    }
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let value = prop_oneof![
        4 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        1 => any::<u8>().prop_map(|n| {
            let count = f64::from(n);
            Value::Histogram(Arc::new(FloatHistogram { count, ..FloatHistogram::default() }))
        }),
    ];
    let start_ms = prop_oneof![4 => Just(0), 1 => any::<i64>()];
    (any::<i64>(), start_ms, value).prop_map(|(t_ms, start_ms, value)| Sample { t_ms, start_ms, value })
}

fn any_series() -> impl Strategy<Value = SeriesBatch> {
    let labels = prop::collection::btree_map("[a-zü_]{1,4}", ".{1,200}", 0..5).prop_map(|pairs| {
        Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    });
    let exemplar = (any::<i64>(), any::<u32>()).prop_map(|(t_ms, value)| {
        let labels = Labels::from_pairs([("trace_id", "ab")]);
        Exemplar { labels, t_ms, value: f64::from(value) }
    });
    let samples = prop::collection::vec(any_sample(), 0..4);
    (labels, samples, prop::collection::vec(exemplar, 0..2), any::<bool>())
        .prop_map(|(labels, samples, exemplars, delta)| SeriesBatch { labels, samples, exemplars, delta })
}

proptest! {
    #[test]
    fn any_batch_comes_back_to_the_bit(series in prop::collection::vec(any_series(), 0..6)) {
        let batch = Batch { series, ..Batch::default() };
        let bytes = batch.encode();
        let view = BatchView::read(&bytes).unwrap();
        for (one, sent) in view.series.iter().zip(&batch.series) {
            prop_assert_eq!(one.fingerprint, sent.labels.fingerprint());
            prop_assert_eq!(one.samples().len(), sent.samples.len());
        }
        // By their bytes, since a NaN is not equal to itself.
        prop_assert_eq!(Batch::decode(&bytes).unwrap().encode(), bytes);
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_a_panic(
        series in prop::collection::vec(any_series(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Batch { series, ..Batch::default() }.encode();
        for (at, bits) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        let _ = Batch::decode(&bytes);
    }

    #[test]
    fn garbage_is_no_panic(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = BatchView::read(&[&[VERSION][..], &garbage].concat());
    }
}

#[test]
fn labels_as_they_were_sent_are_those_of_their_fingerprint() {
    let sent = b"\x0a\x07\x0a\x01b\x12\x02up\x0a\x0e\x0a\x08__name__\x12\x02xy\x0a\x05\x0a\x01a\x12\x00";
    let labels = Labels::from_pairs([("__name__", "xy"), ("b", "up")]);
    let samples = [Sample::float(7, 1.5)];
    let write = |fingerprint, labels: &[u8]| {
        let mut out = BatchWriter::default();
        out.sent_series(fingerprint, labels, &SeriesData { samples: &samples, ..SeriesData::default() });
        Batch::decode(&out.finish())
    };
    let read = write(labels.fingerprint(), sent).unwrap();
    assert_eq!((&read.series[0].labels, &*read.series[0].samples), (&labels, &samples[..]));
    assert!(write(labels.fingerprint() + 1, sent).is_err());
    assert!(write(labels.fingerprint(), &sent[..sent.len() - 1]).is_err());
}

#[test]
fn labels_under_another_fingerprint_are_refused() {
    let mut bytes = example().encode();
    // Behind the version, the item's kind and the flags.
    bytes[3] ^= 1;
    assert_eq!(BatchView::read(&bytes).unwrap().series.len(), 1);
    assert!(Batch::decode(&bytes).is_err());
}

proptest! {
    #[test]
    fn a_known_series_has_everything_but_labels(all in prop::collection::vec(any_series(), 0..6), garbage: u8) {
        let mut out = BatchWriter::default();
        for (at, SeriesBatch { samples, exemplars, delta, .. }) in all.iter().enumerate() {
            out.known_series(at as u128, &SeriesData { samples, exemplars, delta: *delta });
        }
        let mut bytes = out.finish();
        let view = BatchView::read(&bytes).unwrap();
        prop_assert_eq!(view.series.len(), all.len());
        for (at, (one, sent)) in view.series.iter().zip(&all).enumerate() {
            prop_assert_eq!((one.fingerprint, one.is_delta()), (at as u128, sent.delta));
            prop_assert!(one.decode_labels().is_err());
            // By their text, since a NaN is not equal to itself.
            let samples: Vec<Sample> = one.samples().iter().collect();
            prop_assert_eq!(format!("{samples:?}"), format!("{:?}", sent.samples));
            prop_assert_eq!(one.exemplars(), &sent.exemplars[..]);
            let is_only_plain = !sent.delta && sent.exemplars.is_empty();
            prop_assert!(one.only_plain().is_none() || is_only_plain);
        }
        prop_assert_eq!(Batch::decode(&bytes).is_err(), !all.is_empty());
        let at = usize::from(garbage) % bytes.len();
        bytes[at] ^= garbage;
        let _ = BatchView::read(&bytes);
    }
}
