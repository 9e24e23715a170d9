//! A sender of Prometheus remote write 1.0 with float samples.

use anyhow::Result;

use crate::prompb::{Label, Sample, TimeSeries, WriteRequest};

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

/// The body of a remote-write 1.0 request: protobuf in a snappy block.
///
/// # Errors
/// When it is too large for snappy.
pub fn remote_write_body(series: &[RemoteSeries]) -> Result<Vec<u8>> {
    let timeseries = series.iter().map(|series| TimeSeries {
        labels: series.labels.iter().map(|(name, value)| Label::new(name, value)).collect(),
        samples: series.samples.iter().map(|(time_ms, value)| Sample::new(*time_ms, *value)).collect(),
        histograms: Vec::new(),
    });
    WriteRequest { timeseries: timeseries.collect() }.body()
}
