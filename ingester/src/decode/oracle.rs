//! Remote write as prost reads it, against the walkers, over random requests.

use proptest::prelude::*;
use prost::Message;
use tricord_model::{Labels, Sample, Value};

use super::Decoded;
use super::tests::{integer_histogram, pb, v1, v1_of_bytes, v2};

/// A name, or a value where it may be empty, of ASCII or not, and of any length that matters.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-z_]{0,8}".prop_map(String::into_bytes),
        2 => ".{0,40}".prop_map(String::into_bytes),
        1 => "[ab]{126,130}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

pub(crate) fn any_series() -> impl Strategy<Value = pb::TimeSeries> {
    let label = (any_text(), any_text()).prop_map(|(name, value)| pb::Label { name, value });
    let named = Just(pb::Label { name: b"__name__".to_vec(), value: b"m".to_vec() });
    let labels = prop::collection::vec(prop_oneof![3 => label, 1 => named], 0..6);
    let sample = (any::<i64>(), any::<u64>(), prop_oneof![3 => Just(0), 1 => any::<i64>()]).prop_map(
        |(timestamp, bits, start_timestamp)| pb::Sample {
            value: f64::from_bits(bits),
            timestamp,
            start_timestamp,
        },
    );
    let histograms = prop::collection::vec(Just(integer_histogram()), 0..2);
    (labels, prop::collection::vec(sample, 0..3), histograms).prop_map(|(labels, samples, histograms)| {
        pb::TimeSeries { labels, samples, histograms, exemplars: vec![] }
    })
}

/// Labels, and for each sample its time, its start and the bits of its value unless it is a histogram.
type Read = (Labels, Vec<(i64, i64, Option<u64>)>);

/// What a series of a message should become, by the rules as they are said: `None` where it is refused.
fn expected(series: &pb::TimeSeries) -> Option<Read> {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).ok();
    let mut pairs: Vec<(String, String)> = Vec::new();
    for label in &series.labels {
        let (name, value) = (text(&label.name)?, text(&label.value)?);
        if name.is_empty() || pairs.iter().any(|(other, _)| *other == name) {
            return None;
        }
        pairs.push((name, value));
    }
    let labels = Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let floats = series.samples.iter().map(|s| (s.timestamp, s.start_timestamp, Some(s.value.to_bits())));
    let histograms = series.histograms.iter().map(|h| (h.timestamp, h.start_timestamp, None));
    let samples: Vec<_> = floats.chain(histograms).collect();
    (!labels.name().is_empty() && !samples.is_empty()).then_some((labels, samples))
}

fn got(decoded: &Decoded) -> Vec<Read> {
    let sample = |sample: &Sample| {
        let bits = match sample.value {
            Value::Float(value) => Some(value.to_bits()),
            Value::Histogram(_) => None,
        };
        (sample.t_ms, sample.start_ms, bits)
    };
    let series = decoded.batch.series.iter();
    series.map(|series| (series.labels.clone(), series.samples.iter().map(sample).collect())).collect()
}

proptest! {
    /// The walker reads what prost reads; each series is taken or refused by itself.
    #[test]
    fn any_request_is_read_as_prost_reads_it(timeseries in prop::collection::vec(any_series(), 0..5)) {
        let bytes = pb::WriteRequest { timeseries, metadata: vec![] }.encode_to_vec();
        let read = pb::WriteRequest::decode(&*bytes).unwrap();
        let decoded = v1_of_bytes(&bytes, 1 << 20).unwrap();
        let taken: Vec<_> = read.timeseries.iter().filter_map(expected).collect();
        prop_assert_eq!(got(&decoded), taken);
        let sent: usize = read.timeseries.iter().map(|s| s.samples.len() + s.histograms.len()).sum();
        prop_assert_eq!(decoded.batch.samples() + decoded.rejected.samples as usize, sent);
    }

    /// Bytes that prost takes are taken, bytes that it refuses for their framing are refused.
    #[test]
    fn damaged_requests_are_judged_as_prost_judges_them(
        timeseries in prop::collection::vec(any_series(), 1..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = pb::WriteRequest { timeseries, metadata: vec![] }.encode_to_vec();
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let (Ok(read), Ok(decoded)) = (pb::WriteRequest::decode(&*bytes), v1_of_bytes(&bytes, 1 << 20)) else {
            // Groups and fields that are not of the message are treated differently: then there is nothing to compare.
            return Ok(());
        };
        let known = read.timeseries.iter().all(|series| series.histograms.is_empty());
        if known && read.timeseries.iter().all(|series| series.exemplars.is_empty()) {
            let taken: Vec<_> = read.timeseries.iter().filter_map(expected).collect();
            prop_assert_eq!(got(&decoded), taken);
        }
    }

    /// Symbols name the same labels as texts do.
    #[test]
    fn both_versions_read_the_same_series(timeseries in prop::collection::vec(any_series(), 0..4)) {
        let (of_one, of_two) = in_both_versions(timeseries);
        let (first, second) = (v1(&of_one), v2(&of_two));
        prop_assert_eq!(got(&first), got(&second));
        prop_assert_eq!(first.rejected.samples, second.rejected.samples);
    }
}

/// The same series of floats as a request of either version; labels that are no text are left out.
pub(crate) fn in_both_versions(timeseries: Vec<pb::TimeSeries>) -> (pb::WriteRequest, pb::Request) {
    let mut symbols = vec![String::new()];
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    for mut one in timeseries {
        one.labels.retain(|l| [&l.name, &l.value].iter().all(|text| std::str::from_utf8(text).is_ok()));
        one.histograms.clear();
        let mut labels_refs = Vec::new();
        for text in one.labels.iter().flat_map(|label| [&label.name, &label.value]) {
            labels_refs.push(symbols.len() as u32);
            symbols.push(String::from_utf8(text.clone()).unwrap());
        }
        of_two.push(pb::TimeSeriesV2 { labels_refs, samples: one.samples.clone(), ..Default::default() });
        of_one.push(one);
    }
    let first = pb::WriteRequest { timeseries: of_one, metadata: vec![] };
    (first, pb::Request { symbols, timeseries: of_two })
}
