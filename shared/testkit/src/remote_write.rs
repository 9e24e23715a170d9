//! A sender of Prometheus remote write 1.0 with float samples.

use anyhow::{Context, Result};
use prost::Message;

/// One series with its samples, to be sent by remote write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteSeries {
    /// Label names and values, `__name__` among them.
    pub labels: Vec<(String, String)>,
    /// Timestamps in milliseconds and values.
    pub samples: Vec<(i64, f64)>,
}

impl RemoteSeries {
    /// A series of a name with further labels.
    #[must_use]
    pub fn new(name: &str, labels: &[(&str, &str)]) -> Self {
        let mut all = vec![("__name__".to_owned(), name.to_owned())];
        all.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all.sort();
        Self { labels: all, samples: Vec::new() }
    }

    /// The series with one more sample.
    #[must_use]
    pub fn at(mut self, time_ms: i64, value: f64) -> Self {
        self.samples.push((time_ms, value));
        self
    }
}

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

/// The body of a remote-write 1.0 request: protobuf in a snappy block.
///
/// # Errors
/// When it is too large for snappy.
pub fn remote_write_body(series: &[RemoteSeries]) -> Result<Vec<u8>> {
    let timeseries = series.iter().map(|series| TimeSeries {
        labels: series
            .labels
            .iter()
            .map(|(name, value)| Label { name: name.clone(), value: value.clone() })
            .collect(),
        samples: series
            .samples
            .iter()
            .map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp })
            .collect(),
    });
    let request = WriteRequest { timeseries: timeseries.collect() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).context("snappy")
}
