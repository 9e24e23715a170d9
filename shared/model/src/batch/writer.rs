//! Writes a batch item by item.

use super::{
    END, HAS_EXEMPLARS, HEAD_BYTES, IS_DELTA, IS_KNOWN, IS_PLAIN, IS_SENT, METADATA, SERIES, SERIES_BYTES,
    SPANS, VERSION,
};
use crate::codec::Writer;
use crate::labels::encode_pairs;
use crate::sample_codec::{encode_exemplars, encode_samples};
use crate::{Exemplar, Labels, MetricMetadata, Sample, SpanRecord, Value, encode_spans};

/// What a request holds of a series beside its labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeriesData<'a> {
    /// Its samples, in the order of the request.
    pub samples: &'a [Sample],
    /// Its exemplars.
    pub exemplars: &'a [Exemplar],
    /// Whether the samples are increments.
    pub delta: bool,
}

/// Writes a batch item by item.
#[derive(Debug, Default)]
pub struct BatchWriter {
    bytes: Vec<u8>,
}

impl BatchWriter {
    /// A writer with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn item(&mut self, kind: u8) {
        if self.bytes.is_empty() {
            self.bytes.push(VERSION);
        }
        self.bytes.push(kind);
    }

    /// Appends a series; answers the fingerprint of its labels, which must ascend strictly by name and have no empty
    /// value.
    pub fn series<'l>(
        &mut self,
        labels: impl ExactSizeIterator<Item = (&'l str, &'l str)>,
        data: &SeriesData<'_>,
    ) -> u128 {
        let is_plain = data.samples.iter().all(is_plain);
        self.head(data, is_plain, 0);
        // The fingerprint and the labels' length are known once the labels are written.
        let head = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEAD_BYTES]);
        let start = self.bytes.len();
        encode_pairs(labels, &mut Writer::new(&mut self.bytes));
        let encoded = &self.bytes[start..];
        let (fingerprint, len) = (Labels::fingerprint_of_encoded(encoded), encoded.len() as u32);
        self.bytes[head..head + 16].copy_from_slice(&fingerprint.to_le_bytes());
        self.bytes[head + 16..start].copy_from_slice(&len.to_le_bytes());
        self.data(data, is_plain);
        fingerprint
    }

    /// Appends a series whose labels were seen before: they go as the sender wrote them, in a way that
    /// [`read_sent_labels`] reads, with the fingerprint that they are known to have.
    pub fn sent_series(&mut self, fingerprint: u128, labels: &[u8], data: &SeriesData<'_>) {
        let is_plain = data.samples.iter().all(is_plain);
        self.head(data, is_plain, IS_SENT);
        self.bytes.extend_from_slice(&fingerprint.to_le_bytes());
        self.bytes.extend_from_slice(&(labels.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(labels);
        self.data(data, is_plain);
    }

    /// Appends a series whose labels the data node was sent before.
    #[inline]
    pub fn known_series(&mut self, fingerprint: u128, data: &SeriesData<'_>) {
        if let SeriesData { samples: [Sample { t_ms, start_ms: 0, value: Value::Float(value) }], .. } = *data
            && data.exemplars.is_empty()
            && !data.delta
        {
            self.known_sample(fingerprint, *t_ms, *value);
            return;
        }
        let is_plain = data.samples.iter().all(is_plain);
        self.head(data, is_plain, IS_KNOWN);
        self.bytes.extend_from_slice(&fingerprint.to_le_bytes());
        self.data(data, is_plain);
    }

    /// What nearly every series of a request is, in one piece.
    #[inline]
    fn known_sample(&mut self, fingerprint: u128, t_ms: i64, value: f64) {
        if self.bytes.is_empty() {
            self.bytes.push(VERSION);
        }
        let mut row = [0; SERIES_BYTES];
        (row[0], row[1], row[18]) = (SERIES, IS_KNOWN | IS_PLAIN, 1);
        row[2..18].copy_from_slice(&fingerprint.to_le_bytes());
        row[19..27].copy_from_slice(&t_ms.to_le_bytes());
        row[27..].copy_from_slice(&value.to_bits().to_le_bytes());
        self.bytes.extend_from_slice(&row);
    }

    fn head(&mut self, data: &SeriesData<'_>, is_plain: bool, flags: u8) {
        self.item(SERIES);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flags
            | flag(data.delta, IS_DELTA)
            | flag(!data.exemplars.is_empty(), HAS_EXEMPLARS)
            | flag(is_plain, IS_PLAIN);
        self.bytes.push(flags);
    }

    fn data(&mut self, data: &SeriesData<'_>, is_plain: bool) {
        let SeriesData { samples, exemplars, .. } = *data;
        let out = &mut Writer::new(&mut self.bytes);
        if is_plain {
            out.u64(samples.len() as u64);
            for sample in samples {
                let Value::Float(value) = sample.value else { continue };
                out.raw(&sample.t_ms.to_le_bytes());
                out.f64(value);
            }
        } else {
            encode_samples(samples, out);
        }
        if !exemplars.is_empty() {
            encode_exemplars(exemplars, out);
        }
    }

    /// Appends a family's metadata.
    pub fn metadata(&mut self, family: &str, metadata: &MetricMetadata) {
        self.item(METADATA);
        let out = &mut Writer::new(&mut self.bytes);
        out.str(family);
        out.u8(metadata.kind as u8);
        out.str(&metadata.unit);
        out.str(&metadata.help);
    }

    /// Appends spans.
    pub fn spans(&mut self, spans: &[SpanRecord]) {
        self.item(SPANS);
        Writer::new(&mut self.bytes).bytes(&encode_spans(spans));
    }

    /// The finished batch.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.item(END);
        self.bytes
    }
}

fn is_plain(sample: &Sample) -> bool {
    sample.start_ms == 0 && matches!(sample.value, Value::Float(_))
}
