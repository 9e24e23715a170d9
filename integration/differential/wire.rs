//! Data sets as bodies of remote write 1.0, which carries floats and native histograms.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use prost::Message;

use super::data::{DataSet, Native, Series};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    /// In a `oneof` upstream, so it is sent even where it is 0.
    #[prost(uint64, optional, tag = "1")]
    count_int: Option<u64>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    zero_count_int: Option<u64>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// A request that holds all of a data set: protobuf in a snappy block.
pub(super) fn write_request(data: &DataSet) -> Result<Vec<u8>> {
    let request = WriteRequest { timeseries: data.0.iter().map(time_series).collect() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).context("snappy")
}

fn time_series(series: &Series) -> TimeSeries {
    let label = |(name, value): (&String, &String)| Label { name: name.clone(), value: value.clone() };
    TimeSeries {
        labels: series.labels.iter().map(label).collect(),
        samples: series
            .floats
            .iter()
            .map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp })
            .collect(),
        histograms: series.histograms.iter().map(|(timestamp, value)| histogram(*timestamp, value)).collect(),
    }
}

fn histogram(timestamp: i64, value: &Native) -> Histogram {
    let (negative_spans, negative_deltas) = buckets(&value.negative);
    let (positive_spans, positive_deltas) = buckets(&value.positive);
    Histogram {
        count_int: Some(value.count()),
        sum: value.sum,
        schema: value.schema,
        zero_threshold: value.zero_threshold,
        zero_count_int: Some(value.zero_count),
        negative_spans,
        negative_deltas,
        positive_spans,
        positive_deltas,
        timestamp,
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
