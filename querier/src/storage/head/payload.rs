//! What an entry of a shard says: the judged part of a batch, with series named by their id in the shard.
//!
//! The first use of a series under an epoch carries its labels; later ones the id alone. Series are written as they are
//! judged and read as they are applied, one by one.

use bytes::Bytes;
use tricord_model::codec::{Reader, Writer};
use tricord_model::{
    Exemplar, Labels, MetricKind, MetricMetadata, PlainSamples, Sample, SpanRecord, Tenant,
    decode_samples_into, decode_spans, encode_samples, encode_spans,
};
pub(crate) use tricord_model::{decode_exemplars, encode_exemplars};

use crate::storage::Error;

/// The layout's version. (Entries of version 2 are deletes.)
const VERSION: u8 = 3;
/// That of entries which older builds have left in the log: without [`IS_NEXT`], [`IS_PLAIN`] and [`IS_SINGLE`].
const OLD_VERSION: u8 = 1;
const HAS_LABELS: u8 = 1;
const IS_DELTA: u8 = 2;
const HAS_EXEMPLARS: u8 = 4;
/// The id is the one behind that of the series before.
const IS_NEXT: u8 = 8;
/// The samples are floats without a start.
const IS_PLAIN: u8 = 16;
/// There is one sample, and it is plain and of the first time of the last plain series before.
const IS_SINGLE: u8 = 32;
/// About what a series takes: mostly its flags and one value.
const SERIES_BYTES: usize = 12;

/// A series in an entry that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PayloadSeries<'a> {
    /// Its id in the shard.
    pub(crate) id: u32,
    /// Its labels, where the entry introduces it.
    pub(crate) labels: Option<&'a Labels>,
    /// Its samples; of a delta series the resulting totals.
    pub(crate) samples: &'a [Sample],
    /// Of a delta series what was received, one for each sample: start, end and increment.
    pub(crate) increments: Option<&'a [Sample]>,
    /// Its exemplars.
    pub(crate) exemplars: &'a [Exemplar],
}

/// The series of an entry that is being written.
#[derive(Debug, Default)]
pub(crate) struct PayloadWriter {
    series: Vec<u8>,
    count: u64,
    previous: i64,
    /// The first time of the last plain series.
    t_ms: i64,
}

/// What an entry holds beside series.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// Series that the shard forgets: they are idle, and everything of theirs is written out.
    pub(crate) evicted: Vec<u32>,
    /// New or changed metadata by family.
    pub(crate) metadata: Vec<(String, MetricMetadata)>,
    /// Spans.
    pub(crate) spans: Vec<SpanRecord>,
}

impl PayloadWriter {
    /// A writer with room for about so many series.
    pub(crate) fn with_capacity(series: usize) -> Self {
        Self { series: Vec::with_capacity(series * SERIES_BYTES), ..Self::default() }
    }

    /// Whether no series was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn head(&mut self, id: u32, labels: Option<&Labels>, flags: u8) -> Writer<'_> {
        self.count += 1;
        let step = i64::from(id) - self.previous;
        self.previous = i64::from(id);
        let next = if step == 1 { IS_NEXT } else { 0 };
        let mut out = Writer::new(&mut self.series);
        out.u8(flags | next | if labels.is_some() { HAS_LABELS } else { 0 });
        if next == 0 {
            out.i64(step);
        }
        if let Some(labels) = labels {
            labels.encode(&mut out);
        }
        out
    }

    /// Appends a series of floats alone, at least one.
    #[inline]
    pub(crate) fn plain(&mut self, id: u32, labels: Option<&Labels>, samples: PlainSamples<'_>) {
        let mut all = samples.iter();
        if let (1, Some((t_ms, value))) = (all.len(), all.next())
            && t_ms == self.t_ms
        {
            self.head(id, labels, IS_SINGLE).f64(value);
            return;
        }
        let mut previous = self.t_ms;
        let mut out = self.head(id, labels, IS_PLAIN);
        out.u64(samples.iter().len() as u64);
        for (t_ms, value) in samples.iter() {
            out.i64(t_ms.wrapping_sub(previous));
            out.f64(value);
            previous = t_ms;
        }
        self.t_ms = samples.iter().next().map_or(self.t_ms, |(t_ms, _)| t_ms);
    }

    /// Appends any series.
    pub(crate) fn series(&mut self, series: &PayloadSeries<'_>) {
        let PayloadSeries { id, labels, samples, increments, exemplars } = *series;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(increments.is_some(), IS_DELTA) | flag(!exemplars.is_empty(), HAS_EXEMPLARS);
        let mut out = self.head(id, labels, flags);
        encode_samples(samples, &mut out);
        if let Some(increments) = increments {
            encode_samples(increments, &mut out);
        }
        if !exemplars.is_empty() {
            encode_exemplars(exemplars, &mut out);
        }
    }

    /// The payload of a tenant's entry.
    pub(crate) fn finish(self, tenant: &Tenant, others: &Others) -> Bytes {
        let Others { evicted, metadata, spans } = others;
        let mut bytes = Vec::with_capacity(self.series.len() + tenant.as_str().len() + 64);
        let out = &mut Writer::new(&mut bytes);
        out.u8(VERSION);
        out.str(tenant.as_str());
        out.u64(evicted.len() as u64);
        evicted.iter().for_each(|id| out.u64(u64::from(*id)));
        out.u64(self.count);
        out.raw(&self.series);
        out.u64(metadata.len() as u64);
        for (family, metadata) in metadata {
            encode_metadata(family, metadata, out);
        }
        out.bytes(&if spans.is_empty() { Vec::new() } else { encode_spans(spans) });
        Bytes::from(bytes)
    }
}

/// Reads what a [`PayloadWriter`] wrote.
pub(crate) struct PayloadReader<'a> {
    /// Whose data it is.
    pub(crate) tenant: Tenant,
    evicted: Vec<u32>,
    input: Reader<'a>,
    left: usize,
    previous: i64,
    t_ms: i64,
    is_old: bool,
}

/// A series in an entry that is being read.
#[derive(Debug, Default)]
pub(crate) struct AppliedSeries<'a> {
    /// Its id in the shard.
    pub(crate) id: u32,
    /// Its labels as [`Labels::encode`] wrote them, where the entry introduces it.
    pub(crate) labels: Option<&'a [u8]>,
    /// Whether its samples are totals of increments.
    pub(crate) is_delta: bool,
    /// Its exemplars.
    pub(crate) exemplars: Vec<Exemplar>,
}

/// One float of a known series, without a start timestamp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    /// The series' id in the shard.
    pub(crate) id: u32,
    pub(crate) t_ms: i64,
    pub(crate) value: f64,
}

impl<'a> PayloadReader<'a> {
    /// Reads what comes before the series.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut input = Reader::new(bytes);
        let is_old = match input.u8()? {
            VERSION => false,
            OLD_VERSION => true,
            _ => return Err(Error::corrupt("an entry has an unknown version: it may be of a newer build")),
        };
        let tenant = Tenant::new(input.str()?).map_err(|error| Error::corrupt(error.to_string()))?;
        let mut evicted = Vec::new();
        for _ in 0..input.count(1)? {
            evicted.push(input.u32()?);
        }
        let left = input.count(2)?;
        Ok(Self { tenant, evicted, input, left, previous: 0, t_ms: 0, is_old })
    }

    /// The next series where it brings no labels and one plain sample, as most do; `None` where [`PayloadReader::next`] has
    /// to read it, or there is none. Nothing is put together in memory here, which would cost more than the rest.
    #[inline]
    pub(crate) fn single(&mut self) -> Result<Option<Single>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        let mut input = self.input.clone();
        let flags = input.u8()?;
        if self.is_old || flags & !IS_NEXT != IS_SINGLE {
            return Ok(None);
        }
        let step = if flags == IS_SINGLE { input.i64()? } else { 1 };
        let value = input.f64()?;
        (self.input, self.left) = (input, left);
        Ok(Some(Single { id: self.step(step)?, t_ms: self.t_ms, value }))
    }

    /// The id that is so much more than the one before.
    #[inline]
    fn step(&mut self, step: i64) -> Result<u32, Error> {
        self.previous = self.previous.wrapping_add(step);
        u32::try_from(self.previous).map_err(|_| Error::corrupt("a series id is out of range"))
    }

    /// The next series; its samples replace those in `samples`.
    #[inline]
    pub(crate) fn next(&mut self, samples: &mut Vec<Sample>) -> Result<Option<AppliedSeries<'a>>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let (id, flags) = self.read_head()?;
        let input = &mut self.input;
        let labels = if flags & HAS_LABELS != 0 { Some(Labels::skip(input)?) } else { None };
        samples.clear();
        if flags & IS_SINGLE != 0 {
            samples.push(Sample::float(self.t_ms, input.f64()?));
        } else if flags & IS_PLAIN != 0 {
            read_plain(input, &mut self.t_ms, samples)?;
        } else {
            decode_samples_into(input, samples)?;
        }
        let is_delta = flags & IS_DELTA != 0;
        if is_delta {
            decode_samples_into(input, &mut Vec::new())?;
        }
        let exemplars = if flags & HAS_EXEMPLARS != 0 { decode_exemplars(input)? } else { Vec::new() };
        Ok(Some(AppliedSeries { id, labels, is_delta, exemplars }))
    }

    /// The id and the flags of the next series.
    #[inline]
    fn read_head(&mut self) -> Result<(u32, u8), Error> {
        let input = &mut self.input;
        let (step, flags) = if self.is_old {
            (input.i64()?, input.u8()? & (HAS_LABELS | IS_DELTA | HAS_EXEMPLARS))
        } else {
            let flags = input.u8()?;
            (if flags & IS_NEXT != 0 { 1 } else { input.i64()? }, flags)
        };
        Ok((self.step(step)?, flags))
    }

    /// What comes after the series, all of which must have been read.
    pub(crate) fn finish(mut self) -> Result<Others, Error> {
        let input = &mut self.input;
        let mut others = Others { evicted: self.evicted, ..Others::default() };
        for _ in 0..input.count(4)? {
            others.metadata.push(decode_metadata(input)?);
        }
        let spans = input.bytes()?;
        if !spans.is_empty() {
            others.spans = decode_spans(spans)?;
        }
        if self.left == 0 && input.is_empty() {
            Ok(others)
        } else {
            Err(Error::corrupt("bytes follow the end of an entry"))
        }
    }
}

/// Reads floats without a start; `t_ms` becomes the first one's time.
fn read_plain(input: &mut Reader<'_>, t_ms: &mut i64, samples: &mut Vec<Sample>) -> Result<(), Error> {
    let count = input.count(9)?;
    let mut previous = *t_ms;
    samples.reserve(count);
    for _ in 0..count {
        previous = previous.wrapping_add(input.i64()?);
        samples.push(Sample::float(previous, input.f64()?));
    }
    *t_ms = samples.first().map_or(*t_ms, |first| first.t_ms);
    Ok(())
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

#[cfg(test)]
mod tests {
    use tricord_model::{Batch, BatchView, SeriesBatch};

    use super::*;

    /// Ids, labels where a series is introduced, samples.
    type Series = Vec<(u32, Option<Labels>, Vec<Sample>)>;

    fn read(bytes: &[u8]) -> Result<(Series, Others), Error> {
        let mut payload = PayloadReader::new(bytes)?;
        let (mut all, mut samples) = (Vec::new(), Vec::new());
        loop {
            while let Some(Single { id, t_ms, value }) = payload.single()? {
                all.push((id, None, vec![Sample::float(t_ms, value)]));
            }
            let Some(series) = payload.next(&mut samples)? else { break };
            let labels = series.labels.map(Labels::decode_all).transpose()?;
            all.push((series.id, labels, samples.clone()));
        }
        Ok((all, payload.finish()?))
    }

    fn example() -> (Vec<u8>, Series) {
        let labels = Labels::from_pairs([("__name__", "up"), ("long", &"x".repeat(300))]);
        let floats = vec![Sample::float(-7, -0.0), Sample::float(1_700_000_000_000, 2.5)];
        let started = vec![Sample { start_ms: 4, ..Sample::float(9, 1.0) }];
        let batch = Batch {
            series: vec![SeriesBatch { samples: floats.clone(), ..SeriesBatch::default() }],
            ..Batch::default()
        };
        let encoded = batch.encode();
        let view = BatchView::read(&encoded).unwrap();
        let plain = view.series[0].only_plain().unwrap();
        let mut out = PayloadWriter::with_capacity(1);
        out.plain(900, Some(&labels), plain);
        out.plain(3, None, plain);
        let exemplar = Exemplar { labels: labels.clone(), t_ms: 5, value: 1.0 };
        out.series(&PayloadSeries {
            id: 4,
            labels: None,
            samples: &started,
            increments: Some(&started),
            exemplars: &[exemplar],
        });
        let metadata = vec![("up".to_owned(), MetricMetadata::default())];
        let others = Others { evicted: vec![1, 70_000], metadata, spans: Vec::new() };
        let bytes = out.finish(&Tenant::default(), &others).to_vec();
        let expected = vec![(900, Some(labels), floats.clone()), (3, None, floats), (4, None, started)];
        (bytes, expected)
    }

    #[test]
    fn series_of_one_scrape_take_nine_bytes_each() {
        let sample =
            |value| SeriesBatch { samples: vec![Sample::float(70_000, value)], ..SeriesBatch::default() };
        let series = (0..100).map(|n| sample(f64::from(n))).collect();
        let encoded = Batch { series, ..Batch::default() }.encode();
        let mut out = PayloadWriter::with_capacity(100);
        for (id, one) in BatchView::read(&encoded).unwrap().series.iter().enumerate() {
            out.plain(id as u32, None, one.only_plain().unwrap());
        }
        let bytes = out.finish(&Tenant::default(), &Others::default());
        assert!(bytes.len() < 100 * 9 + 40, "{}", bytes.len());
        let (series, _) = read(&bytes).unwrap();
        let expected = (0..100).map(|n| (n, None, vec![Sample::float(70_000, f64::from(n))]));
        assert_eq!(series, expected.collect::<Vec<_>>());
    }

    #[test]
    fn entries_of_older_builds_are_read() {
        let mut bytes = Vec::new();
        let out = &mut Writer::new(&mut bytes);
        out.u8(1);
        out.str("default");
        out.u64(0);
        out.u64(2);
        let samples = [Sample::float(5, 1.5), Sample { start_ms: 3, ..Sample::float(9, 2.5) }];
        for step in [7, 1] {
            out.i64(step);
            out.u8(0);
            encode_samples(&samples, out);
        }
        out.u64(0);
        out.bytes(&[]);
        let (series, _) = read(&bytes).unwrap();
        assert_eq!(series, [(7, None, samples.to_vec()), (8, None, samples.to_vec())]);
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let (bytes, expected) = example();
        let (series, others) = read(&bytes).unwrap();
        assert_eq!(series, expected);
        assert_eq!((others.evicted, others.metadata.len(), others.spans.len()), (vec![1, 70_000], 1, 0));
    }

    #[test]
    fn every_cut_is_noticed_and_no_damage_is_a_panic() {
        let (bytes, _) = example();
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            for bits in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= bits;
                let _ = read(&damaged);
            }
        }
    }
}
