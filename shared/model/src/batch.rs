//! What an ingester hands to the primary of one shard: a tenant's series, metadata and spans.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};
use crate::{Exemplar, FloatHistogram, Labels, MetricKind, MetricMetadata, Sample, SpanRecord, Value};

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

/// The layout's version, the first byte of an encoded batch.
const VERSION: u8 = 1;

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
        let mut bytes = Vec::with_capacity(64 + self.samples() * 16 + self.spans.len() * 256);
        let out = &mut Writer::new(&mut bytes);
        out.u8(VERSION);
        out.u64(self.series.len() as u64);
        self.series.iter().for_each(|series| encode_series(series, out));
        out.u64(self.metadata.len() as u64);
        for (family, metadata) in &self.metadata {
            out.str(family);
            out.u8(metadata.kind as u8);
            out.str(&metadata.unit);
            out.str(&metadata.help);
        }
        encode_spans(&self.spans, out);
        bytes
    }

    /// Reads what [`Batch::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, are malformed, or carry another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let input = &mut Reader::new(bytes);
        if input.u8()? != VERSION {
            return Err(CodecError::Invalid("unknown version of a batch"));
        }
        let mut batch = Self::default();
        for _ in 0..input.count(4)? {
            batch.series.push(decode_series(input)?);
        }
        for _ in 0..input.count(4)? {
            let family = input.str()?.to_owned();
            let kind = MetricKind::from_number(input.u8()?);
            batch.metadata.push((
                family,
                MetricMetadata { kind, unit: input.str()?.to_owned(), help: input.str()?.to_owned() },
            ));
        }
        batch.spans = decode_spans(input)?;
        if input.is_empty() { Ok(batch) } else { Err(CodecError::Invalid("bytes after the end of a batch")) }
    }
}

fn encode_series(series: &SeriesBatch, out: &mut Writer<'_>) {
    series.labels.encode(out);
    out.u8(u8::from(series.delta));
    encode_samples(&series.samples, out);
    encode_exemplars(&series.exemplars, out);
}

fn decode_series(input: &mut Reader<'_>) -> Result<SeriesBatch, CodecError> {
    Ok(SeriesBatch {
        labels: Labels::decode(input)?,
        delta: input.u8()? != 0,
        samples: decode_samples(input)?,
        exemplars: decode_exemplars(input)?,
    })
}

/// Appends samples: times as differences, values tagged by their kind.
pub fn encode_samples(samples: &[Sample], out: &mut Writer<'_>) {
    out.u64(samples.len() as u64);
    let mut previous = 0;
    for sample in samples {
        out.i64(sample.t_ms.wrapping_sub(previous));
        previous = sample.t_ms;
        let tag = u8::from(matches!(sample.value, Value::Histogram(_))) | u8::from(sample.start_ms != 0) << 1;
        out.u8(tag);
        if sample.start_ms != 0 {
            out.i64(sample.t_ms.wrapping_sub(sample.start_ms));
        }
        match &sample.value {
            Value::Float(value) => out.f64(*value),
            Value::Histogram(histogram) => histogram.encode(out),
        }
    }
}

/// Reads what [`encode_samples`] wrote.
pub fn decode_samples(input: &mut Reader<'_>) -> Result<Vec<Sample>, CodecError> {
    let count = input.count(10)?;
    let mut samples = Vec::with_capacity(count);
    let mut previous = 0i64;
    for _ in 0..count {
        let t_ms = previous.wrapping_add(input.i64()?);
        previous = t_ms;
        let tag = input.u8()?;
        let start_ms = if tag & 2 != 0 { t_ms.wrapping_sub(input.i64()?) } else { 0 };
        let value = match tag & 1 {
            0 => Value::Float(input.f64()?),
            _ => Value::Histogram(Arc::new(FloatHistogram::decode(input)?)),
        };
        samples.push(Sample { t_ms, start_ms, value });
    }
    Ok(samples)
}

fn encode_exemplars(exemplars: &[Exemplar], out: &mut Writer<'_>) {
    out.u64(exemplars.len() as u64);
    for exemplar in exemplars {
        exemplar.labels.encode(out);
        out.i64(exemplar.t_ms);
        out.f64(exemplar.value);
    }
}

fn decode_exemplars(input: &mut Reader<'_>) -> Result<Vec<Exemplar>, CodecError> {
    let count = input.count(10)?;
    (0..count)
        .map(|_| Ok(Exemplar { labels: Labels::decode(input)?, t_ms: input.i64()?, value: input.f64()? }))
        .collect()
}

/// Appends spans with each distinct pair of resource and scope written once.
fn encode_spans(spans: &[SpanRecord], out: &mut Writer<'_>) {
    let context = |span: &SpanRecord| {
        (
            span.resource.clone(),
            span.resource_schema_url.clone(),
            span.scope.clone(),
            span.scope_schema_url.clone(),
        )
    };
    let mut contexts = Vec::new();
    let mut numbers = std::collections::HashMap::new();
    let mut places = Vec::with_capacity(spans.len());
    for span in spans {
        let number = *numbers.entry(context(span)).or_insert_with(|| {
            contexts.push(context(span));
            contexts.len() as u64 - 1
        });
        places.push(number);
    }
    out.u64(contexts.len() as u64);
    for (resource, resource_url, scope, scope_url) in &contexts {
        out.bytes(resource);
        out.str(resource_url);
        out.bytes(scope);
        out.str(scope_url);
    }
    out.u64(spans.len() as u64);
    for (span, place) in spans.iter().zip(places) {
        out.u64(place);
        span.encode_span(out);
    }
}

fn decode_spans(input: &mut Reader<'_>) -> Result<Vec<SpanRecord>, CodecError> {
    let mut contexts = Vec::new();
    for _ in 0..input.count(4)? {
        let resource = Bytes::copy_from_slice(input.bytes()?);
        let resource_url = input.str()?.to_owned();
        let scope = Bytes::copy_from_slice(input.bytes()?);
        contexts.push((resource, resource_url, scope, input.str()?.to_owned()));
    }
    let mut spans = Vec::new();
    for _ in 0..input.count(28)? {
        let place = input.u64()? as usize;
        let (resource, resource_url, scope, scope_url) =
            contexts.get(place).ok_or(CodecError::Invalid("span of an unknown resource"))?;
        let mut span = SpanRecord::decode_span(input)?;
        span.resource = resource.clone();
        span.resource_schema_url.clone_from(resource_url);
        span.scope = scope.clone();
        span.scope_schema_url.clone_from(scope_url);
        spans.push(span);
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{STALE_NAN, TraceId};

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
}
