//! Messages of Prometheus' protobuf that several of its protocols share, for senders and readers in tests. Facts from
//! `prompb/types.proto`; what is in a `oneof` or may be -0 is optional, since other fields are not sent where they are 0.

#![allow(missing_docs, reason = "the fields are those of the protocol")]

use anyhow::{Context, Result};
use prost::Message;

/// `prometheus.WriteRequest`, remote write 1.0.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

impl WriteRequest {
    /// The body of a request: protobuf in a snappy block.
    ///
    /// # Errors
    /// When it is too large for snappy.
    pub fn body(&self) -> Result<Vec<u8>> {
        compressed(&self.encode_to_vec())
    }
}

/// An encoded request as a snappy block.
///
/// # Errors
/// When it is too large for snappy.
pub fn compressed(encoded: &[u8]) -> Result<Vec<u8>> {
    snap::raw::Encoder::new().compress_vec(encoded).context("snappy")
}

#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

impl Label {
    /// A label of a name and a value.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// Only in remote write 2.0.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

impl Sample {
    /// A value at a time in milliseconds.
    #[must_use]
    pub fn new(timestamp: i64, value: f64) -> Self {
        Self { value: Some(value), timestamp, start_timestamp: 0 }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Span {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub count_float: Option<f64>,
    #[prost(double, optional, tag = "3")]
    pub sum: Option<f64>,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    pub zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
    /// Only in remote write 2.0.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}
