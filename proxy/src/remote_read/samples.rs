//! The answer with `SAMPLES`: one message with every sample as a pair of numbers.

use prost::Message;
use tricord_model::{Labels, Points};

use super::wire::{self, pb};

/// The key of field 1 as a message, which both `timeseries` and `results` have.
const FIELD_1: u8 = 0x0a;

/// Appends the result of one query to an encoded answer. Series are encoded one after the other and dropped, so that
/// they are not held twice.
pub(super) fn append_result(series: Vec<(Labels, Points)>, answer: &mut Vec<u8>) {
    let mut result = Vec::new();
    for (labels, points) in series {
        append_message(&time_series(&labels, &points).encode_to_vec(), &mut result);
    }
    append_message(&result, answer);
}

fn append_message(message: &[u8], out: &mut Vec<u8>) {
    out.push(FIELD_1);
    prost::encoding::encode_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

fn time_series(labels: &Labels, points: &Points) -> pb::TimeSeries {
    let mut series = pb::TimeSeries { labels: wire::labels(labels), ..pb::TimeSeries::default() };
    let mut histograms = points.histograms.iter().peekable();
    for (at, (t_ms, value)) in points.t_ms.iter().zip(&points.floats).enumerate() {
        match histograms.next_if(|(place, _)| *place as usize == at) {
            Some((_, histogram)) => series.histograms.push(wire::histogram(*t_ms, histogram)),
            None => series.samples.push(pb::Sample { value: wire::nonzero(*value), timestamp: *t_ms }),
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use tricord_model::{FloatHistogram, STALE_NAN, Sample, Value};

    use super::*;

    #[test]
    fn results_read_back_in_their_order() {
        let histogram = FloatHistogram { count: 3.0, sum: -0.0, ..FloatHistogram::default() };
        let points: Points = [
            Sample::float(1, 0.5),
            Sample { t_ms: 2, start_ms: 0, value: Value::Histogram(histogram.into()) },
            Sample::float(3, STALE_NAN),
        ]
        .into_iter()
        .collect();
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "b")]);
        let mut answer = Vec::new();
        append_result(vec![], &mut answer);
        append_result(vec![(labels, points), (Labels::empty(), Points::default())], &mut answer);
        let read = pb::ReadResponse::decode(answer.as_slice()).unwrap();
        assert_eq!(read.results.len(), 2);
        assert!(read.results[0].timeseries.is_empty());
        let [series, empty] = read.results[1].timeseries.as_slice() else { panic!("two series") };
        assert_eq!(series.labels[1], pb::Label { name: "a".into(), value: "b".into() });
        let samples: Vec<_> = series.samples.iter().map(|s| (s.timestamp, s.value().to_bits())).collect();
        assert_eq!(samples, [(1, 0.5f64.to_bits()), (3, STALE_NAN.to_bits())]);
        assert_eq!(series.histograms[0].timestamp, 2);
        assert!(series.histograms[0].sum().is_sign_negative());
        assert!(empty.samples.is_empty() && empty.labels.is_empty());
    }
}
