//! What an entry of a shard says: the judged part of a batch, with series named by their id in the shard.
//!
//! The first use of a series under an epoch carries its labels; later ones the id alone.

use bytes::Bytes;
use tricord_model::codec::{Reader, Writer};
use tricord_model::{
    Batch, Exemplar, Labels, MetricKind, MetricMetadata, Sample, SpanRecord, Tenant, decode_samples,
    encode_samples,
};

use crate::storage::Error;

/// The layout's version.
const VERSION: u8 = 1;
const HAS_LABELS: u8 = 1;
const IS_DELTA: u8 = 2;
const HAS_EXEMPLARS: u8 = 4;

/// A series in an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PayloadSeries {
    /// Its id in the shard.
    pub(crate) id: u32,
    /// Its labels, where the entry introduces it.
    pub(crate) labels: Option<Labels>,
    /// Its samples; of a delta series the resulting totals.
    pub(crate) samples: Vec<Sample>,
    /// Of a delta series what was received, one for each sample: start, end and increment.
    pub(crate) increments: Option<Vec<Sample>>,
    /// Its exemplars.
    pub(crate) exemplars: Vec<Exemplar>,
}

/// An entry's content.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Payload {
    /// Whose data it is.
    pub(crate) tenant: Tenant,
    /// Series that the shard forgets: they are idle, and everything of theirs is written out.
    pub(crate) evicted: Vec<u32>,
    /// Series with their data.
    pub(crate) series: Vec<PayloadSeries>,
    /// New or changed metadata by family.
    pub(crate) metadata: Vec<(String, MetricMetadata)>,
    /// Spans.
    pub(crate) spans: Vec<SpanRecord>,
}

impl Payload {
    /// The payload as bytes.
    pub(crate) fn encode(&self) -> Bytes {
        let samples: usize = self.series.iter().map(|series| series.samples.len()).sum();
        let mut bytes = Vec::with_capacity(64 + samples * 20 + self.spans.len() * 256);
        let out = &mut Writer::new(&mut bytes);
        out.u8(VERSION);
        out.str(self.tenant.as_str());
        out.u64(self.evicted.len() as u64);
        self.evicted.iter().for_each(|id| out.u64(u64::from(*id)));
        out.u64(self.series.len() as u64);
        let mut previous = 0;
        for series in &self.series {
            out.i64(i64::from(series.id) - previous);
            previous = i64::from(series.id);
            encode_series(series, out);
        }
        out.u64(self.metadata.len() as u64);
        for (family, metadata) in &self.metadata {
            encode_metadata(family, metadata, out);
        }
        if self.spans.is_empty() {
            out.bytes(&[]);
        } else {
            out.bytes(&Batch { spans: self.spans.clone(), ..Batch::default() }.encode());
        }
        Bytes::from(bytes)
    }

    /// Reads what [`Payload::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let input = &mut Reader::new(bytes);
        if input.u8()? != VERSION {
            return Err(Error::corrupt("an entry has an unknown version: it may be of a newer build"));
        }
        let tenant = Tenant::new(input.str()?).map_err(|error| Error::corrupt(error.to_string()))?;
        let mut payload = Self { tenant, ..Self::default() };
        for _ in 0..input.count(1)? {
            payload.evicted.push(input.u32()?);
        }
        let count = input.count(3)?;
        payload.series.reserve(count);
        let mut previous = 0i64;
        for _ in 0..count {
            previous = previous.wrapping_add(input.i64()?);
            let id = u32::try_from(previous).map_err(|_| Error::corrupt("a series id is out of range"))?;
            payload.series.push(decode_series(id, input)?);
        }
        for _ in 0..input.count(4)? {
            payload.metadata.push(decode_metadata(input)?);
        }
        let spans = input.bytes()?;
        if !spans.is_empty() {
            payload.spans = Batch::decode(spans)?.spans;
        }
        if input.is_empty() { Ok(payload) } else { Err(Error::corrupt("bytes follow the end of an entry")) }
    }
}

fn encode_series(series: &PayloadSeries, out: &mut Writer<'_>) {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.u8(flag(series.labels.is_some(), HAS_LABELS)
        | flag(series.increments.is_some(), IS_DELTA)
        | flag(!series.exemplars.is_empty(), HAS_EXEMPLARS));
    if let Some(labels) = &series.labels {
        labels.encode(out);
    }
    encode_samples(&series.samples, out);
    if let Some(increments) = &series.increments {
        encode_samples(increments, out);
    }
    if !series.exemplars.is_empty() {
        encode_exemplars(&series.exemplars, out);
    }
}

fn decode_series(id: u32, input: &mut Reader<'_>) -> Result<PayloadSeries, Error> {
    let flags = input.u8()?;
    let labels = if flags & HAS_LABELS != 0 { Some(Labels::decode(input)?) } else { None };
    let samples = decode_samples(input)?;
    let increments = if flags & IS_DELTA != 0 { Some(decode_samples(input)?) } else { None };
    let exemplars = if flags & HAS_EXEMPLARS != 0 { decode_exemplars(input)? } else { Vec::new() };
    Ok(PayloadSeries { id, labels, samples, increments, exemplars })
}

/// Appends exemplars.
pub(crate) fn encode_exemplars(exemplars: &[Exemplar], out: &mut Writer<'_>) {
    out.u64(exemplars.len() as u64);
    for exemplar in exemplars {
        exemplar.labels.encode(out);
        out.i64(exemplar.t_ms);
        out.f64(exemplar.value);
    }
}

/// Reads what [`encode_exemplars`] wrote.
pub(crate) fn decode_exemplars(input: &mut Reader<'_>) -> Result<Vec<Exemplar>, Error> {
    let count = input.count(10)?;
    let one = |input: &mut Reader<'_>| -> Result<Exemplar, Error> {
        Ok(Exemplar { labels: Labels::decode(input)?, t_ms: input.i64()?, value: input.f64()? })
    };
    (0..count).map(|_| one(input)).collect()
}

/// Appends a family's metadata.
pub(crate) fn encode_metadata(family: &str, metadata: &MetricMetadata, out: &mut Writer<'_>) {
    out.str(family);
    out.u8(metadata.kind as u8);
    out.str(&metadata.unit);
    out.str(&metadata.help);
}

/// Reads what [`encode_metadata`] wrote.
pub(crate) fn decode_metadata(input: &mut Reader<'_>) -> Result<(String, MetricMetadata), Error> {
    let family = input.str()?.to_owned();
    let kind = MetricKind::from_number(input.u8()?);
    Ok((family, MetricMetadata { kind, unit: input.str()?.to_owned(), help: input.str()?.to_owned() }))
}
