//! What an ingester hands to the primary of one shard: a tenant's series, metadata and spans.
//!
//! In transit a batch is a row of items, written one after another by [`BatchWriter`] and read in place by
//! [`BatchView`]. A series goes with its fingerprint, and without its labels where the data node was sent them before. A
//! data node that does not know such a series after all says so, and is sent the same once more with labels.

mod view;
mod writer;

use crate::codec::CodecError;
use crate::{Exemplar, Labels, MetricMetadata, Sample, SpanRecord};

pub use view::{BatchView, LabelsView, PlainSamples, SamplesView, SeriesView};
pub use writer::{BatchWriter, SeriesData};

/// The samples of one series in a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesBatch {
    /// The series.
    pub labels: Labels,
    /// Its samples, in the order of the request.
    pub samples: Vec<Sample>,
    /// Its exemplars.
    pub exemplars: Vec<Exemplar>,
    /// Whether the samples are increments (OTLP delta temporality) that the primary adds up.
    pub delta: bool,
}

/// A tenant's data for one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Series with their samples.
    pub series: Vec<SeriesBatch>,
    /// Metadata by metric family.
    pub metadata: Vec<(String, MetricMetadata)>,
    /// Spans.
    pub spans: Vec<SpanRecord>,
}

/// The layout's version, the first byte of an encoded batch. It is of one build and its neighbours: batches are sent,
/// not stored.
const VERSION: u8 = 3;
/// The one before, which is the same without [`IS_KNOWN`]: ingesters may be older than data nodes while they are renewed.
const OLD_VERSION: u8 = 2;

/// What comes next. Without the end, a batch that is cut off between two items would pass for a whole one.
const END: u8 = 0;
const SERIES: u8 = 1;
const METADATA: u8 = 2;
const SPANS: u8 = 3;

/// The series' samples are increments.
const IS_DELTA: u8 = 1;
/// Exemplars follow the samples.
const HAS_EXEMPLARS: u8 = 2;
/// The labels are as the sender wrote them.
const IS_SENT: u8 = 8;
/// All samples are floats without a start: 8 bytes of time and 8 bytes of value each.
const IS_PLAIN: u8 = 4;

/// There are no labels: the fingerprint has to do.
const IS_KNOWN: u8 = 16;

/// Bytes of a fingerprint and of the labels' length.
const HEAD_BYTES: usize = 20;
/// Bytes of a plain sample.
const PLAIN_BYTES: usize = 16;
/// What a series without labels takes that has one plain sample.
const SERIES_BYTES: usize = 2 + 16 + 1 + PLAIN_BYTES;

impl Batch {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.metadata.is_empty() && self.spans.is_empty()
    }

    /// How many samples (floats and histograms) it holds.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.series.iter().map(|series| series.samples.len()).sum()
    }

    /// The batch as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BatchWriter::default();
        for SeriesBatch { labels, samples, exemplars, delta } in &self.series {
            out.series(labels.iter(), &SeriesData { samples, exemplars, delta: *delta });
        }
        self.metadata.iter().for_each(|(family, metadata)| out.metadata(family, metadata));
        if !self.spans.is_empty() {
            out.spans(&self.spans);
        }
        out.finish()
    }

    /// Reads what [`Batch::encode`] or a [`BatchWriter`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, are malformed, or carry another version, and for a series that goes
    /// without labels.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let view = BatchView::read(bytes)?;
        let mut series = Vec::with_capacity(view.series.len());
        for one in view.series {
            let labels = one.decode_labels()?;
            let samples = one.samples().iter().collect();
            let (exemplars, delta) = (one.exemplars().to_vec(), one.is_delta());
            series.push(SeriesBatch { labels, samples, exemplars, delta });
        }
        Ok(Self { series, metadata: view.metadata, spans: view.spans })
    }
}

#[cfg(test)]
mod tests;
