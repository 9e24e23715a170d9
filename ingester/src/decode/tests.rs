//! Remote write: requests are built by prost from messages written down here, and read by the walkers.

use proptest::prelude::*;
use prost::Message;
use tricord_model::{BucketSpan, CounterResetHint, Labels, MetricKind, STALE_NAN, Sample, Value};

use super::*;

/// The messages of remote write, as senders have them.
pub(crate) mod pb {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(crate) timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) metadata: Vec<MetricMetadata>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(crate) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) histograms: Vec<Histogram>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Label {
        /// Bytes, so that tests can send what is not UTF-8.
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) value: Vec<u8>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(crate) struct Sample {
        #[prost(double, tag = "1")]
        pub(crate) value: f64,
        #[prost(int64, tag = "2")]
        pub(crate) timestamp: i64,
        #[prost(int64, tag = "3")]
        pub(crate) start_timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(crate) labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub(crate) value: f64,
        #[prost(int64, tag = "3")]
        pub(crate) timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub(crate) count_int: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub(crate) count_float: Option<f64>,
        #[prost(double, tag = "3")]
        pub(crate) sum: f64,
        #[prost(sint32, tag = "4")]
        pub(crate) schema: i32,
        #[prost(double, tag = "5")]
        pub(crate) zero_threshold: f64,
        #[prost(uint64, optional, tag = "6")]
        pub(crate) zero_count_int: Option<u64>,
        #[prost(double, optional, tag = "7")]
        pub(crate) zero_count_float: Option<f64>,
        #[prost(message, repeated, tag = "8")]
        pub(crate) negative_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "9")]
        pub(crate) negative_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "10")]
        pub(crate) negative_counts: Vec<f64>,
        #[prost(message, repeated, tag = "11")]
        pub(crate) positive_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "12")]
        pub(crate) positive_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "13")]
        pub(crate) positive_counts: Vec<f64>,
        #[prost(int32, tag = "14")]
        pub(crate) reset_hint: i32,
        #[prost(int64, tag = "15")]
        pub(crate) timestamp: i64,
        #[prost(double, repeated, tag = "16")]
        pub(crate) custom_values: Vec<f64>,
        #[prost(int64, tag = "17")]
        pub(crate) start_timestamp: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(crate) struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub(crate) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(crate) length: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct MetricMetadata {
        #[prost(int32, tag = "1")]
        pub(crate) kind: i32,
        #[prost(string, tag = "2")]
        pub(crate) family: String,
        #[prost(string, tag = "4")]
        pub(crate) help: String,
        #[prost(string, tag = "5")]
        pub(crate) unit: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Request {
        #[prost(string, repeated, tag = "4")]
        pub(crate) symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")]
        pub(crate) timeseries: Vec<TimeSeriesV2>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct TimeSeriesV2 {
        #[prost(uint32, repeated, tag = "1")]
        pub(crate) labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) histograms: Vec<Histogram>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) exemplars: Vec<ExemplarV2>,
        #[prost(message, optional, tag = "5")]
        pub(crate) metadata: Option<MetadataV2>,
        #[prost(int64, tag = "6")]
        pub(crate) created_timestamp: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct ExemplarV2 {
        #[prost(uint32, repeated, tag = "1")]
        pub(crate) labels_refs: Vec<u32>,
        #[prost(double, tag = "2")]
        pub(crate) value: f64,
        #[prost(int64, tag = "3")]
        pub(crate) timestamp: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(crate) struct MetadataV2 {
        #[prost(int32, tag = "1")]
        pub(crate) kind: i32,
        #[prost(uint32, tag = "3")]
        pub(crate) help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub(crate) unit_ref: u32,
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Vec<pb::Label> {
    pairs
        .iter()
        .map(|(name, value)| pb::Label { name: name.as_bytes().to_vec(), value: value.as_bytes().to_vec() })
        .collect()
}

pub(crate) fn float(timestamp: i64, value: f64) -> pb::Sample {
    pb::Sample { value, timestamp, start_timestamp: 0 }
}

pub(crate) fn integer_histogram() -> pb::Histogram {
    pb::Histogram {
        count_int: Some(8),
        sum: 4.5,
        schema: 3,
        zero_threshold: 0.001,
        zero_count_int: Some(1),
        positive_spans: vec![
            pb::BucketSpan { offset: -2, length: 2 },
            pb::BucketSpan { offset: 3, length: 1 },
        ],
        positive_deltas: vec![1, 2, -2],
        negative_spans: vec![pb::BucketSpan { offset: 0, length: 1 }],
        negative_deltas: vec![2],
        reset_hint: 2,
        timestamp: 99,
        start_timestamp: 11,
        ..pb::Histogram::default()
    }
}

pub(super) fn v1_of_bytes(bytes: &[u8], allowance: usize) -> Result<Decoded, Error> {
    let mut decoded = Decoded::default();
    remote_write::decode(bytes, &mut Allowance::new(allowance), &mut decoded).map(|()| decoded)
}

fn v2_of_bytes(bytes: &[u8], allowance: usize) -> Result<Decoded, Error> {
    let mut decoded = Decoded::default();
    remote_write_v2::decode(bytes, &mut Allowance::new(allowance), &mut decoded).map(|()| decoded)
}

pub(super) fn v1(request: &pb::WriteRequest) -> Decoded {
    v1_of_bytes(&request.encode_to_vec(), 1 << 20).unwrap()
}

pub(super) fn v2(request: &pb::Request) -> Decoded {
    v2_of_bytes(&request.encode_to_vec(), 1 << 20).unwrap()
}

fn series(labels: Vec<pb::Label>, samples: Vec<pb::Sample>) -> pb::TimeSeries {
    pb::TimeSeries { labels, samples, ..pb::TimeSeries::default() }
}

#[test]
fn version_one_keeps_everything() {
    let exemplar = pb::Exemplar { labels: labels(&[("trace_id", "ab")]), value: 0.25, timestamp: 8 };
    let histograms = vec![integer_histogram()];
    let full = pb::TimeSeries {
        exemplars: vec![exemplar],
        histograms,
        ..series(
            labels(&[("z", "1"), ("__name__", "m"), ("a", "2")]),
            vec![float(7, 0.1), float(-8, STALE_NAN)],
        )
    };
    let metadata = pb::MetricMetadata { kind: 1, family: "m".into(), help: "helps".into(), unit: "s".into() };
    let decoded = v1(&pb::WriteRequest { timeseries: vec![full], metadata: vec![metadata] });
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    let series = &decoded.batch.series[0];
    assert_eq!(series.labels, Labels::from_pairs([("__name__", "m"), ("a", "2"), ("z", "1")]));
    let bits = |at: usize| match series.samples[at].value {
        Value::Float(value) => value.to_bits(),
        Value::Histogram(_) => panic!("a float was expected"),
    };
    assert_eq!((bits(0), bits(1)), (0.1f64.to_bits(), STALE_NAN.to_bits()));
    assert_eq!((series.samples[0].t_ms, series.samples[1].t_ms), (7, -8));
    let Value::Histogram(histogram) = &series.samples[2].value else { panic!("a histogram was expected") };
    assert_eq!((series.samples[2].t_ms, series.samples[2].start_ms), (99, 11));
    assert_eq!(histogram.positive_buckets, [1.0, 3.0, 1.0]);
    assert_eq!(histogram.negative_buckets, [2.0]);
    assert_eq!(histogram.positive_spans[1], BucketSpan { offset: 3, length: 1 });
    assert_eq!((histogram.count, histogram.zero_count, histogram.sum), (8.0, 1.0, 4.5));
    assert_eq!(histogram.counter_reset_hint, CounterResetHint::NotReset);
    assert_eq!(series.exemplars[0].labels.get("trace_id"), Some("ab"));
    assert_eq!((series.exemplars[0].t_ms, series.exemplars[0].value), (8, 0.25));
    assert_eq!(decoded.batch.metadata[0].1.kind, MetricKind::Counter);
    assert_eq!((&*decoded.batch.metadata[0].1.help, &*decoded.batch.metadata[0].1.unit), ("helps", "s"));
}

#[test]
fn broken_series_are_named_and_the_valid_rest_is_kept() {
    let latin = pb::Label { name: b"l".to_vec(), value: vec![0xe9] };
    let cases: Vec<(pb::TimeSeries, &str)> = vec![
        (series(labels(&[("a", "b")]), vec![float(1, 1.0)]), "no metric name"),
        (
            series(labels(&[("__name__", "m"), ("a", "1"), ("a", "1")]), vec![float(1, 1.0)]),
            "\"a\" is given twice",
        ),
        (series(labels(&[("__name__", "m"), ("", "1")]), vec![float(1, 1.0)]), "empty name"),
        (
            series([labels(&[("__name__", "m")]), vec![latin]].concat(), vec![float(1, 1.0)]),
            "not valid UTF-8",
        ),
        (series(labels(&[("__name__", "empty")]), vec![]), "has no samples"),
    ];
    for (broken, reason) in cases {
        let samples = broken.samples.len() as u64;
        let good = series(labels(&[("__name__", "good")]), vec![float(1, 1.0)]);
        let decoded = v1(&pb::WriteRequest { timeseries: vec![broken, good], metadata: vec![] });
        assert_eq!((decoded.batch.series.len(), decoded.rejected.samples), (1, samples), "{reason}");
        assert_eq!(decoded.batch.series[0].labels.name(), "good");
        assert!(decoded.rejected.reasons[0].contains(reason), "{:?}", decoded.rejected.reasons);
    }
}

#[test]
fn broken_histograms_are_named() {
    let good = integer_histogram();
    let cases = [
        (pb::Histogram { schema: 20, ..good.clone() }, "schema 20"),
        (pb::Histogram { positive_deltas: vec![1], ..good.clone() }, "spans need 3 buckets"),
        (pb::Histogram { positive_deltas: vec![1, -2, 1], ..good.clone() }, "negative"),
        (pb::Histogram { count_int: Some(9), ..good.clone() }, "its count says 9"),
        (pb::Histogram { sum: f64::NAN, count_int: Some(6), ..good.clone() }, "its count says 6"),
    ];
    for (broken, reason) in cases {
        let histograms = vec![broken, good.clone()];
        let given = pb::TimeSeries { histograms, ..series(labels(&[("__name__", "m")]), vec![]) };
        let decoded = v1(&pb::WriteRequest { timeseries: vec![given], metadata: vec![] });
        assert_eq!((decoded.batch.samples(), decoded.rejected.samples), (1, 1), "{reason}");
        assert!(decoded.rejected.reasons[0].contains(reason), "{:?}", decoded.rejected.reasons);
    }
    for fine in [
        pb::Histogram { sum: f64::NAN, count_int: Some(12), ..good.clone() },
        pb::Histogram { sum: STALE_NAN, ..Default::default() },
    ] {
        let given = pb::TimeSeries { histograms: vec![fine], ..series(labels(&[("__name__", "m")]), vec![]) };
        assert_eq!(v1(&pb::WriteRequest { timeseries: vec![given], metadata: vec![] }).batch.samples(), 1);
    }
}

pub(crate) fn symbols(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn version_two_keeps_everything() {
    let sample = pb::Sample { start_timestamp: 5, ..float(7, 1.5) };
    let exemplar = pb::ExemplarV2 { labels_refs: vec![5, 6], value: 0.5, timestamp: 6 };
    let metadata = Some(pb::MetadataV2 { kind: 3, help_ref: 7, unit_ref: 8 });
    let floats = pb::TimeSeriesV2 {
        labels_refs: vec![3, 4, 1, 2],
        samples: vec![sample, float(9, 2.5)],
        exemplars: vec![exemplar],
        metadata,
        created_timestamp: 4,
        ..pb::TimeSeriesV2::default()
    };
    let histograms = pb::TimeSeriesV2 {
        labels_refs: vec![1, 9],
        histograms: vec![integer_histogram(), pb::Histogram { start_timestamp: 0, ..integer_histogram() }],
        metadata,
        created_timestamp: 3,
        ..pb::TimeSeriesV2::default()
    };
    let texts = ["", "__name__", "m_bucket", "le", "+Inf", "trace_id", "cd", "helps", "seconds", "m"];
    let decoded = v2(&pb::Request { symbols: symbols(&texts), timeseries: vec![floats, histograms] });
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    let [first, second] = &*decoded.batch.series else { panic!("two series were expected") };
    assert_eq!(first.labels, Labels::from_pairs([("__name__", "m_bucket"), ("le", "+Inf")]));
    assert_eq!(first.samples[0], Sample { t_ms: 7, start_ms: 5, value: Value::Float(1.5) });
    assert_eq!(first.samples[1].start_ms, 4);
    assert_eq!(first.exemplars[0].labels.get("trace_id"), Some("cd"));
    assert_eq!(second.samples.iter().map(|s| s.start_ms).collect::<Vec<_>>(), [11, 3]);
    // One family, whichever series named it first.
    let [(family, told)] = &*decoded.batch.metadata else { panic!("one family was expected") };
    assert_eq!(
        (&**family, told.kind, &*told.help, &*told.unit),
        ("m", MetricKind::Histogram, "helps", "seconds")
    );
}

#[test]
fn broken_references_are_named() {
    let check = |references: Vec<u32>, both: bool, reason: &str| {
        let broken = pb::TimeSeriesV2 {
            labels_refs: references,
            samples: vec![float(1, 1.0)],
            histograms: if both { vec![integer_histogram()] } else { vec![] },
            ..pb::TimeSeriesV2::default()
        };
        let good =
            pb::TimeSeriesV2 { labels_refs: vec![1, 2], samples: vec![float(1, 1.0)], ..Default::default() };
        let decoded =
            v2(&pb::Request { symbols: symbols(&["", "__name__", "m"]), timeseries: vec![broken, good] });
        assert_eq!(
            (decoded.batch.series.len(), decoded.rejected.samples),
            (1, 1 + u64::from(both)),
            "{reason}"
        );
        assert!(decoded.rejected.reasons[0].contains(reason), "{:?}", decoded.rejected.reasons);
    };
    check(vec![1, 2, 1], false, "must come in pairs");
    check(vec![1, 9], false, "symbol 9 does not exist");
    check(vec![2, 1], false, "no metric name");
    check(vec![1, 2, 0, 1], false, "empty name");
    check(vec![1, 2, 1, 2], false, "given twice");
    check(vec![1, 2], true, "both float and histogram");
}

#[test]
fn small_messages_cannot_cost_much_memory() {
    let empty_series = [0x0a, 0x00].repeat(1 << 20);
    let empty_samples = {
        let samples = [0x12, 0x00].repeat(1 << 20);
        let mut out = Vec::new();
        put::bytes(1, &samples, &mut out);
        out
    };
    for bytes in [empty_series, empty_samples] {
        let result = v1_of_bytes(&bytes, 8 << 20);
        assert!(matches!(result, Err(Error::TooLarge(_))), "{result:?}");
    }
    // Ten thousand families that share one long help text.
    let long = "h".repeat(100_000);
    let mut texts = vec![String::new(), "__name__".to_owned(), long];
    texts.extend((0..10_000).map(|at| format!("m{at}")));
    let timeseries = (0..10_000).map(|at| pb::TimeSeriesV2 {
        labels_refs: vec![1, at + 3],
        samples: vec![float(1, 1.0)],
        metadata: Some(pb::MetadataV2 { kind: 1, help_ref: 2, unit_ref: 0 }),
        ..pb::TimeSeriesV2::default()
    });
    let request = pb::Request { symbols: texts, timeseries: timeseries.collect() };
    let result = v2_of_bytes(&request.encode_to_vec(), 64 << 20);
    assert!(matches!(result, Err(Error::TooLarge(_))));
}

proptest! {
    /// Whatever comes: an answer, never a panic, never more than the allowance.
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let allowance = || Allowance::new(1 << 20);
        let _ = v1_of_bytes(&bytes, 1 << 20);
        let _ = v2_of_bytes(&bytes, 1 << 20);
        let _ = text::decode(&bytes, &text::Options::default(), &mut allowance());
        let _ = otlp::decode_traces(&bytes.clone().into(), &mut allowance());
        let _ = crate::translate::tests::walked(&bytes, &mut allowance());
        let _ = otlp::to_protobuf(otlp::Signal::Metrics, &bytes);
    }

    /// A valid request with a byte changed or cut off.
    #[test]
    fn damaged_requests_never_panic(at in 0usize..400, byte in any::<u8>(), cut in any::<bool>()) {
        let full = pb::TimeSeries {
            histograms: vec![integer_histogram()],
            ..series(labels(&[("z", "1"), ("__name__", "m"), ("a", "2")]), vec![float(7, 1.0)])
        };
        let mut bytes = pb::WriteRequest { timeseries: vec![full.clone(), full], metadata: vec![] }.encode_to_vec();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let _ = v1_of_bytes(&bytes, 1 << 20);
    }

    #[test]
    fn any_text_is_read_line_by_line(text in "([a-z_]{0,5}(\\{[a-z=\",\\\\]{0,12}\\})? ?[0-9.eN-]{0,6} ?[0-9#{}]{0,5}\n?){0,8}") {
        let decoded = text::decode(text.as_bytes(), &text::Options::default(), &mut Allowance::new(1 << 20));
        prop_assert!(decoded.is_ok());
    }
}
