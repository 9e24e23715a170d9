//! Data sets as bodies of remote write 1.0, which carries floats and native histograms.

use std::collections::BTreeMap;

use anyhow::Result;
use tricord_testkit::prompb::{Histogram, Label, Sample, Span, TimeSeries, WriteRequest};

use super::data::{DataSet, Native, Series};

/// A request that holds all of a data set: protobuf in a snappy block.
pub(super) fn write_request(data: &DataSet) -> Result<Vec<u8>> {
    WriteRequest { timeseries: data.0.iter().map(time_series).collect() }.body()
}

fn time_series(series: &Series) -> TimeSeries {
    TimeSeries {
        labels: series.labels.iter().map(|(name, value)| Label::new(name, value)).collect(),
        samples: series.floats.iter().map(|(time_ms, value)| Sample::new(*time_ms, *value)).collect(),
        histograms: series.histograms.iter().map(|(timestamp, value)| histogram(*timestamp, value)).collect(),
    }
}

fn histogram(timestamp: i64, value: &Native) -> Histogram {
    let (negative_spans, negative_deltas) = buckets(&value.negative);
    let (positive_spans, positive_deltas) = buckets(&value.positive);
    Histogram {
        count_int: Some(value.count()),
        sum: Some(value.sum),
        schema: value.schema,
        zero_threshold: value.zero_threshold,
        zero_count_int: Some(value.zero_count),
        negative_spans,
        negative_deltas,
        positive_spans,
        positive_deltas,
        timestamp,
        ..Histogram::default()
    }
}

/// Runs of neighbouring buckets, and each count as its distance to the one before.
fn buckets(counts: &BTreeMap<i32, u64>) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<Span>::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for (index, count) in counts {
        match spans.last_mut() {
            Some(span) if *index == next => span.length += 1,
            _ => spans.push(Span { offset: index - next, length: 1 }),
        }
        deltas.push(*count as i64 - before);
        (next, before) = (index + 1, *count as i64);
    }
    (spans, deltas)
}
