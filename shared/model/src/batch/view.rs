//! Reads a batch where it lies.

use super::{
    END, HAS_EXEMPLARS, IS_DELTA, IS_KNOWN, IS_PLAIN, IS_SENT, METADATA, OLD_VERSION, PLAIN_BYTES, SERIES,
    SERIES_BYTES, SPANS, VERSION,
};
use crate::codec::{CodecError, Reader};
use crate::sample_codec::{decode_exemplars, decode_samples};
use crate::{
    Exemplar, Labels, MetricKind, MetricMetadata, Sample, SpanRecord, decode_spans, read_sent_labels,
};

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

/// A series of a [`BatchView`]: small, as a request has thousands, which are gone through more than once.
#[derive(Debug)]
pub struct SeriesView<'a> {
    /// What the sender says is the fingerprint of the labels.
    pub fingerprint: u128,
    /// The labels, not checked.
    pub labels: LabelsView<'a>,
    plain: PlainSamples<'a>,
    rare: Option<Box<Rare>>,
}

/// What few series have.
#[derive(Debug, Default)]
struct Rare {
    /// Samples that are not plain.
    samples: Option<Vec<Sample>>,
    exemplars: Vec<Exemplar>,
    is_delta: bool,
}

/// The labels of a [`SeriesView`].
#[derive(Clone, Copy, Debug)]
pub enum LabelsView<'a> {
    /// As [`Labels::encode`] writes them.
    Encoded(&'a [u8]),
    /// As the sender wrote them.
    Sent(&'a [u8]),
    /// Not there, since they were sent before.
    Known,
}

/// The samples of a [`SeriesView`].
#[derive(Clone, Copy, Debug)]
pub enum SamplesView<'a> {
    /// Floats without a start timestamp, as nearly all samples are.
    Plain(PlainSamples<'a>),
    /// Any samples.
    Any(&'a [Sample]),
}

/// Float samples where they lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainSamples<'a>(&'a [[u8; PLAIN_BYTES]]);

impl<'a> PlainSamples<'a> {
    /// Times in milliseconds, with values.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, f64)> + use<'a> {
        self.0.iter().map(|bytes| {
            let both = u128::from_le_bytes(*bytes);
            (both as u64 as i64, f64::from_bits((both >> 64) as u64))
        })
    }
}

impl<'a> SamplesView<'a> {
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
    pub fn iter(&self) -> impl Iterator<Item = Sample> + use<'a> {
        let (plain, any) = match *self {
            Self::Plain(plain) => (plain, &[][..]),
            Self::Any(samples) => (PlainSamples::default(), samples),
        };
        let floats = plain.iter().map(|(t_ms, value)| Sample::float(t_ms, value));
        floats.chain(any.iter().cloned())
    }
}

impl SeriesView<'_> {
    /// The samples, in the order of the request.
    #[must_use]
    #[inline]
    pub fn samples(&self) -> SamplesView<'_> {
        match self.rare.as_ref().and_then(|rare| rare.samples.as_deref()) {
            Some(samples) => SamplesView::Any(samples),
            None => SamplesView::Plain(self.plain),
        }
    }

    /// The samples, where the series has nothing but plain ones and they are no increments.
    #[must_use]
    #[inline]
    pub fn only_plain(&self) -> Option<PlainSamples<'_>> {
        self.rare.is_none().then_some(self.plain)
    }

    /// The exemplars.
    #[must_use]
    pub fn exemplars(&self) -> &[Exemplar] {
        self.rare.as_ref().map_or(&[], |rare| &rare.exemplars)
    }

    /// Whether the samples are increments.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_delta)
    }

    /// The labels, checked; their fingerprint is the one that the sender says.
    ///
    /// # Errors
    /// [`CodecError`] where they are missing or malformed or have another fingerprint.
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
            LabelsView::Known => return Err(CodecError::Invalid("a series has no labels")),
        };
        if fingerprint != self.fingerprint {
            return Err(CodecError::Invalid("a series has another fingerprint than its labels"));
        }
        Ok(labels)
    }
}

impl<'a> BatchView<'a> {
    /// Reads what a [`BatchWriter`](super::BatchWriter) wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, are malformed, or carry another version.
    pub fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let input = &mut Reader::new(bytes);
        if !matches!(input.u8()?, VERSION | OLD_VERSION) {
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

#[inline]
fn read_series<'a>(input: &mut Reader<'a>) -> Result<SeriesView<'a>, CodecError> {
    let flags = input.u8()?;
    let fingerprint = input.u128()?;
    let labels = if flags & IS_KNOWN != 0 { LabelsView::Known } else { read_labels(flags, input)? };
    let mut series = SeriesView { fingerprint, labels, plain: PlainSamples::default(), rare: None };
    let mut samples = None;
    if flags & IS_PLAIN != 0 {
        let count = input.count(PLAIN_BYTES)?;
        series.plain = PlainSamples(input.raw(count * PLAIN_BYTES)?.as_chunks::<PLAIN_BYTES>().0);
    } else {
        samples = Some(decode_samples(input)?);
    }
    if samples.is_some() || flags & (HAS_EXEMPLARS | IS_DELTA) != 0 {
        let exemplars = if flags & HAS_EXEMPLARS != 0 { decode_exemplars(input)? } else { Vec::new() };
        series.rare = Some(Box::new(Rare { samples, exemplars, is_delta: flags & IS_DELTA != 0 }));
    }
    Ok(series)
}

fn read_labels<'a>(flags: u8, input: &mut Reader<'a>) -> Result<LabelsView<'a>, CodecError> {
    let len = input.u32_le()?;
    let labels = input.raw(usize::try_from(len).map_err(|_| CodecError::Truncated)?)?;
    Ok(if flags & IS_SENT != 0 { LabelsView::Sent(labels) } else { LabelsView::Encoded(labels) })
}

fn read_metadata(input: &mut Reader<'_>) -> Result<(String, MetricMetadata), CodecError> {
    let family = input.str()?.to_owned();
    let kind = MetricKind::from_number(input.u8()?);
    Ok((family, MetricMetadata { kind, unit: input.str()?.to_owned(), help: input.str()?.to_owned() }))
}
