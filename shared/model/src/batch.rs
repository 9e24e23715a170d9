//! What an ingester hands to the primary of one shard: a tenant's series, metadata and spans.
//!
//! In transit a batch is a row of items, written one after another by [`BatchWriter`] and read in place by
//! [`BatchView`]. A series goes with its fingerprint, so that a data node that knows the series need not look at its
//! labels.

use crate::codec::{CodecError, Reader, Writer};
use crate::labels::encode_pairs;
use crate::sample_codec::{decode_exemplars, decode_samples, encode_exemplars, encode_samples};
use crate::{
    Exemplar, Labels, MetricKind, MetricMetadata, Sample, SpanRecord, Value, decode_spans, encode_spans,
    read_sent_labels,
};

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
const VERSION: u8 = 2;

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

/// Bytes of a fingerprint and of the labels' length.
const HEAD_BYTES: usize = 20;
/// Bytes of a plain sample.
const PLAIN_BYTES: usize = 16;
/// About what a series takes that has a dozen labels and one sample.
const SERIES_BYTES: usize = 256;

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
    /// [`CodecError`] when the bytes end early, are malformed, or carry another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let view = BatchView::read(bytes)?;
        let mut series = Vec::with_capacity(view.series.len());
        for one in view.series {
            let labels = one.decode_labels()?;
            let samples = one.samples.iter().collect();
            series.push(SeriesBatch { labels, samples, exemplars: one.exemplars, delta: one.delta });
        }
        Ok(Self { series, metadata: view.metadata, spans: view.spans })
    }
}

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

/// A batch that is read where it lies. Everything but the labels is checked.
#[derive(Debug, Default)]
pub struct BatchView<'a> {
    /// Series with their samples.
    pub series: Vec<SeriesView<'a>>,
    /// Metadata by metric family.
    pub metadata: Vec<(String, MetricMetadata)>,
    /// Spans.
    pub spans: Vec<SpanRecord>,
}

/// A series of a [`BatchView`].
#[derive(Debug)]
pub struct SeriesView<'a> {
    /// What the sender says is the fingerprint of the labels.
    pub fingerprint: u128,
    /// The labels, not checked.
    pub labels: LabelsView<'a>,
    /// The samples, in the order of the request.
    pub samples: SamplesView<'a>,
    /// The exemplars.
    pub exemplars: Vec<Exemplar>,
    /// Whether the samples are increments.
    pub delta: bool,
}

/// The labels of a [`SeriesView`].
#[derive(Clone, Copy, Debug)]
pub enum LabelsView<'a> {
    /// As [`Labels::encode`] writes them.
    Encoded(&'a [u8]),
    /// As the sender wrote them.
    Sent(&'a [u8]),
}

/// The samples of a [`SeriesView`].
#[derive(Debug)]
pub enum SamplesView<'a> {
    /// Floats without a start timestamp, as nearly all samples are.
    Plain(PlainSamples<'a>),
    /// Any samples.
    Any(Vec<Sample>),
}

/// Float samples where they lie.
#[derive(Clone, Copy, Debug)]
pub struct PlainSamples<'a>(&'a [[u8; PLAIN_BYTES]]);

impl PlainSamples<'_> {
    /// Times in milliseconds, with values.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, f64)> + '_ {
        self.0.iter().map(|bytes| {
            let both = u128::from_le_bytes(*bytes);
            (both as u64 as i64, f64::from_bits((both >> 64) as u64))
        })
    }
}

impl SamplesView<'_> {
    /// How many there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.0.len(),
            Self::Any(samples) => samples.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples, one by one.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        let (plain, any) = match self {
            Self::Plain(plain) => (Some(plain), None),
            Self::Any(samples) => (None, Some(samples)),
        };
        let plain = plain.into_iter().flat_map(PlainSamples::iter).map(|(t_ms, v)| Sample::float(t_ms, v));
        plain.chain(any.into_iter().flatten().cloned())
    }
}

impl SeriesView<'_> {
    /// The labels, checked; their fingerprint is the one that the sender says.
    ///
    /// # Errors
    /// [`CodecError`] where they are malformed or have another fingerprint.
    pub fn decode_labels(&self) -> Result<Labels, CodecError> {
        let (labels, fingerprint) = match self.labels {
            LabelsView::Encoded(bytes) => (Labels::decode_all(bytes)?, Labels::fingerprint_of_encoded(bytes)),
            LabelsView::Sent(bytes) => {
                let mut pairs = Vec::new();
                if read_sent_labels(bytes, &mut pairs) < bytes.len() {
                    return Err(CodecError::Invalid("labels are not as senders write them"));
                }
                let labels = Labels::from_pairs(pairs);
                let fingerprint = labels.fingerprint();
                (labels, fingerprint)
            }
        };
        if fingerprint != self.fingerprint {
            return Err(CodecError::Invalid("a series has another fingerprint than its labels"));
        }
        Ok(labels)
    }
}

impl<'a> BatchView<'a> {
    /// Reads what [`BatchWriter`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, are malformed, or carry another version.
    pub fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let input = &mut Reader::new(bytes);
        if input.u8()? != VERSION {
            return Err(CodecError::Invalid("unknown version of a batch"));
        }
        let mut view = Self { series: Vec::with_capacity(bytes.len() / SERIES_BYTES), ..Self::default() };
        loop {
            match input.u8()? {
                END if input.is_empty() => return Ok(view),
                SERIES => view.series.push(read_series(input)?),
                METADATA => view.metadata.push(read_metadata(input)?),
                SPANS => view.spans.extend(decode_spans(input.bytes()?)?),
                _ => return Err(CodecError::Invalid("unknown item in a batch")),
            }
        }
    }
}

fn read_series<'a>(input: &mut Reader<'a>) -> Result<SeriesView<'a>, CodecError> {
    let flags = input.u8()?;
    let fingerprint = input.u128()?;
    let len = input.u32_le()?;
    let labels = input.raw(usize::try_from(len).map_err(|_| CodecError::Truncated)?)?;
    let labels = if flags & IS_SENT != 0 { LabelsView::Sent(labels) } else { LabelsView::Encoded(labels) };
    let samples = if flags & IS_PLAIN != 0 {
        let count = input.count(PLAIN_BYTES)?;
        let (plain, _) = input.raw(count * PLAIN_BYTES)?.as_chunks::<PLAIN_BYTES>();
        SamplesView::Plain(PlainSamples(plain))
    } else {
        SamplesView::Any(decode_samples(input)?)
    };
    let exemplars = if flags & HAS_EXEMPLARS != 0 { decode_exemplars(input)? } else { Vec::new() };
    Ok(SeriesView { fingerprint, labels, samples, exemplars, delta: flags & IS_DELTA != 0 })
}

fn read_metadata(input: &mut Reader<'_>) -> Result<(String, MetricMetadata), CodecError> {
    let family = input.str()?.to_owned();
    let kind = MetricKind::from_number(input.u8()?);
    Ok((family, MetricMetadata { kind, unit: input.str()?.to_owned(), help: input.str()?.to_owned() }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{FloatHistogram, STALE_NAN, TraceId};

    fn example() -> Batch {
        let span = |id: u8| SpanRecord {
            trace_id: TraceId([id; 16]),
            span_id: [id; 8],
            start_ns: 1_700_000_000_000_000_000,
            end_ns: 1_700_000_000_000_000_500,
            resource: Bytes::from_static(b"resource"),
            resource_schema_url: "r".into(),
            scope: Bytes::from_static(b"scope"),
            scope_schema_url: String::new(),
            span: Bytes::from_static(b"span"),
        };
        let histogram = Arc::new(FloatHistogram { schema: 1, count: 2.0, ..FloatHistogram::default() });
        let samples = vec![
            Sample::float(1_700_000_000_000, -0.0),
            Sample { t_ms: -5, start_ms: -10, value: Value::Histogram(histogram) },
            Sample::float(1_700_000_000_000, 1.5),
        ];
        let exemplar = Exemplar { labels: Labels::from_pairs([("trace_id", "ab")]), t_ms: 7, value: 0.5 };
        Batch {
            series: vec![SeriesBatch {
                labels: Labels::from_pairs([("__name__", "up"), ("job", "a")]),
                samples,
                exemplars: vec![exemplar],
                delta: true,
            }],
            metadata: vec![(
                "up".into(),
                MetricMetadata { kind: MetricKind::Gauge, unit: String::new(), help: "h".into() },
            )],
            spans: vec![span(1), span(2)],
        }
    }

    #[test]
    fn a_batch_comes_back_as_it_was() {
        assert_eq!(Batch::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn stale_markers_keep_their_bits() {
        let series = SeriesBatch { samples: vec![Sample::float(1, STALE_NAN)], ..SeriesBatch::default() };
        let batch = Batch { series: vec![series], ..Batch::default() };
        let decoded = Batch::decode(&batch.encode()).unwrap();
        assert!(matches!(decoded.series[0].samples[0].value, Value::Float(v) if crate::is_stale(v)));
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = example().encode();
        for len in 0..bytes.len() {
            assert!(Batch::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let value = prop_oneof![
            4 => any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
            1 => any::<u8>().prop_map(|n| {
                let count = f64::from(n);
                Value::Histogram(Arc::new(FloatHistogram { count, ..FloatHistogram::default() }))
            }),
        ];
        let start_ms = prop_oneof![4 => Just(0), 1 => any::<i64>()];
        (any::<i64>(), start_ms, value).prop_map(|(t_ms, start_ms, value)| Sample { t_ms, start_ms, value })
    }

    fn any_series() -> impl Strategy<Value = SeriesBatch> {
        let labels = prop::collection::btree_map("[a-zü_]{1,4}", ".{1,200}", 0..5).prop_map(|pairs| {
            Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        });
        let exemplar = (any::<i64>(), any::<u32>()).prop_map(|(t_ms, value)| {
            let labels = Labels::from_pairs([("trace_id", "ab")]);
            Exemplar { labels, t_ms, value: f64::from(value) }
        });
        let samples = prop::collection::vec(any_sample(), 0..4);
        (labels, samples, prop::collection::vec(exemplar, 0..2), any::<bool>())
            .prop_map(|(labels, samples, exemplars, delta)| SeriesBatch { labels, samples, exemplars, delta })
    }

    proptest! {
        #[test]
        fn any_batch_comes_back_to_the_bit(series in prop::collection::vec(any_series(), 0..6)) {
            let batch = Batch { series, ..Batch::default() };
            let bytes = batch.encode();
            let view = BatchView::read(&bytes).unwrap();
            for (one, sent) in view.series.iter().zip(&batch.series) {
                prop_assert_eq!(one.fingerprint, sent.labels.fingerprint());
                prop_assert_eq!(one.samples.len(), sent.samples.len());
            }
            // By their bytes, since a NaN is not equal to itself.
            prop_assert_eq!(Batch::decode(&bytes).unwrap().encode(), bytes);
        }

        #[test]
        fn damaged_bytes_are_refused_or_read_but_never_a_panic(
            series in prop::collection::vec(any_series(), 1..4),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = Batch { series, ..Batch::default() }.encode();
            for (at, bits) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            let _ = Batch::decode(&bytes);
        }

        #[test]
        fn garbage_is_no_panic(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = BatchView::read(&[&[VERSION][..], &garbage].concat());
        }
    }

    #[test]
    fn labels_as_they_were_sent_are_those_of_their_fingerprint() {
        let sent = b"\x0a\x07\x0a\x01b\x12\x02up\x0a\x0e\x0a\x08__name__\x12\x02xy\x0a\x05\x0a\x01a\x12\x00";
        let labels = Labels::from_pairs([("__name__", "xy"), ("b", "up")]);
        let samples = [Sample::float(7, 1.5)];
        let write = |fingerprint, labels: &[u8]| {
            let mut out = BatchWriter::default();
            out.sent_series(fingerprint, labels, &SeriesData { samples: &samples, ..SeriesData::default() });
            Batch::decode(&out.finish())
        };
        let read = write(labels.fingerprint(), sent).unwrap();
        assert_eq!((&read.series[0].labels, &*read.series[0].samples), (&labels, &samples[..]));
        assert!(write(labels.fingerprint() + 1, sent).is_err());
        assert!(write(labels.fingerprint(), &sent[..sent.len() - 1]).is_err());
    }

    #[test]
    fn labels_under_another_fingerprint_are_refused() {
        let mut bytes = example().encode();
        // Behind the version, the item's kind and the flags.
        bytes[3] ^= 1;
        assert_eq!(BatchView::read(&bytes).unwrap().series.len(), 1);
        assert!(Batch::decode(&bytes).is_err());
    }
}
