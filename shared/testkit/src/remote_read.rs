//! A reader of Prometheus remote read: the request, and both kinds of answers.

use anyhow::{Context, Result, ensure};
use prost::Message;

use crate::chunks;
use crate::prompb::{Histogram, Label, Sample, Span, TimeSeries, WriteRequest};

/// Prometheus' numbers of the kinds of answers.
pub const SAMPLES: i32 = 0;
/// See [`SAMPLES`].
pub const STREAMED_XOR_CHUNKS: i32 = 1;

/// A remote-read request.
#[derive(Clone, PartialEq, Message)]
pub struct ReadRequest {
    /// What is asked.
    #[prost(message, repeated, tag = "1")]
    pub queries: Vec<ReadQuery>,
    /// Kinds of answers that are taken, the best first.
    #[prost(int32, repeated, tag = "2")]
    pub accepted: Vec<i32>,
}

/// One query of a request.
#[derive(Clone, PartialEq, Message)]
pub struct ReadQuery {
    /// From, in milliseconds (inclusive).
    #[prost(int64, tag = "1")]
    pub start_ms: i64,
    /// To, in milliseconds (inclusive).
    #[prost(int64, tag = "2")]
    pub end_ms: i64,
    /// All must hold.
    #[prost(message, repeated, tag = "3")]
    pub matchers: Vec<ReadMatcher>,
    /// What the samples are for.
    #[prost(message, optional, tag = "4")]
    pub hints: Option<ReadHints>,
}

/// A condition on a label.
#[derive(Clone, PartialEq, Message)]
pub struct ReadMatcher {
    /// 0 `=`, 1 `!=`, 2 `=~`, 3 `!~`.
    #[prost(int32, tag = "1")]
    pub op: i32,
    /// The label.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it is compared with.
    #[prost(string, tag = "3")]
    pub value: String,
}

/// Hints that Tricord looks at.
#[derive(Clone, PartialEq, Message)]
pub struct ReadHints {
    /// The function around the selector.
    #[prost(string, tag = "2")]
    pub func: String,
    /// From, in milliseconds.
    #[prost(int64, tag = "3")]
    pub start_ms: i64,
    /// To, in milliseconds.
    #[prost(int64, tag = "4")]
    pub end_ms: i64,
}

impl ReadQuery {
    /// A query for the series of a name.
    #[must_use]
    pub fn named(name: &str, start_ms: i64, end_ms: i64) -> Self {
        let matcher = ReadMatcher { op: 0, name: "__name__".to_owned(), value: name.to_owned() };
        Self { start_ms, end_ms, matchers: vec![matcher], hints: None }
    }

    /// The query with one more matcher.
    #[must_use]
    pub fn and(mut self, op: i32, name: &str, value: &str) -> Self {
        self.matchers.push(ReadMatcher { op, name: name.to_owned(), value: value.to_owned() });
        self
    }
}

/// The body of a request: protobuf in a snappy block.
///
/// # Errors
/// When it is too large for snappy.
pub fn remote_read_body(queries: &[ReadQuery], accepted: &[i32]) -> Result<Vec<u8>> {
    let request = ReadRequest { queries: queries.to_vec(), accepted: accepted.to_vec() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).context("snappy")
}

/// A native histogram as a reader sees it: populations by bucket index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadHistogram {
    /// What is known of a counter reset before it: 0 nothing, 1 one happened, 2 none, 3 a gauge.
    pub hint: i32,
    /// Resolution.
    pub schema: i32,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Population of the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Populations of positive buckets by index.
    pub positive: Vec<(i32, f64)>,
    /// Populations of negative buckets by index.
    pub negative: Vec<(i32, f64)>,
    /// Custom bounds.
    pub custom_values: Vec<f64>,
}

/// A series of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadSeries {
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// Times in milliseconds and values.
    pub floats: Vec<(i64, f64)>,
    /// Times in milliseconds and native histograms.
    pub histograms: Vec<(i64, ReadHistogram)>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkedResponse {
    #[prost(message, repeated, tag = "1")]
    series: Vec<ChunkedSeries>,
    #[prost(int64, tag = "2")]
    query_index: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkedSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    chunks: Vec<Chunk>,
}

/// A chunk of a frame.
#[derive(Clone, PartialEq, Message)]
pub struct Chunk {
    /// The first sample's time, in milliseconds.
    #[prost(int64, tag = "1")]
    pub min_ms: i64,
    /// The last sample's time, in milliseconds.
    #[prost(int64, tag = "2")]
    pub max_ms: i64,
    /// 1 XOR, 2 integer histograms, 3 float histograms.
    #[prost(int32, tag = "3")]
    pub encoding: i32,
    /// The encoded samples.
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

/// A frame of a streamed answer, its checksum compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Which of the queries it answers.
    pub query_index: i64,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The chunks.
    pub chunks: Vec<Chunk>,
    /// Size of the message.
    pub bytes: usize,
}

impl Frame {
    /// The samples of its XOR chunks.
    ///
    /// # Errors
    /// When a chunk is broken, or its times are not those that it claims.
    pub fn floats(&self) -> Result<Vec<(i64, f64)>> {
        self.decoded(1, chunks::floats)
    }

    /// The samples of its chunks of float histograms.
    ///
    /// # Errors
    /// As [`Frame::floats`].
    pub fn histograms(&self) -> Result<Vec<(i64, ReadHistogram)>> {
        self.decoded(3, chunks::float_histograms)
    }

    fn decoded<T>(
        &self,
        encoding: i32,
        decode: impl Fn(&[u8]) -> Result<Vec<(i64, T)>>,
    ) -> Result<Vec<(i64, T)>> {
        let mut all = Vec::new();
        for chunk in self.chunks.iter().filter(|chunk| chunk.encoding == encoding) {
            let samples = decode(&chunk.data)?;
            let ends = (samples.first().map(|first| first.0), samples.last().map(|last| last.0));
            ensure!(ends == (Some(chunk.min_ms), Some(chunk.max_ms)), "a chunk's times: {ends:?}");
            all.extend(samples);
        }
        Ok(all)
    }
}

fn pairs(labels: Vec<Label>) -> Vec<(String, String)> {
    labels.into_iter().map(|label| (label.name, label.value)).collect()
}

/// Bucket indices with their populations.
pub(crate) fn buckets(
    spans: impl IntoIterator<Item = (i32, u32)>,
    populations: impl IntoIterator<Item = f64>,
) -> Vec<(i32, f64)> {
    let mut next = 0;
    let indices = spans.into_iter().flat_map(|(offset, length)| {
        let first = next + offset;
        next = first + length as i32;
        first..next
    });
    indices.zip(populations).collect()
}

impl From<Histogram> for ReadHistogram {
    fn from(h: Histogram) -> Self {
        let spans = |spans: Vec<Span>| spans.into_iter().map(|span| (span.offset, span.length));
        Self {
            hint: h.reset_hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count_float.unwrap_or_default(),
            count: h.count_float.unwrap_or_default(),
            sum: h.sum.unwrap_or_default(),
            positive: buckets(spans(h.positive_spans), h.positive_counts),
            negative: buckets(spans(h.negative_spans), h.negative_counts),
            custom_values: h.custom_values,
        }
    }
}

/// The results of an answer with `SAMPLES`, one list of series per query.
///
/// # Errors
/// When the body is neither snappy nor the message.
pub fn samples(body: &[u8]) -> Result<Vec<Vec<ReadSeries>>> {
    let bytes = snap::raw::Decoder::new().decompress_vec(body).context("snappy")?;
    let response = Response::decode(bytes.as_slice()).context("the message")?;
    let series = |series: TimeSeries| ReadSeries {
        labels: pairs(series.labels),
        floats: series
            .samples
            .iter()
            .map(|sample| (sample.timestamp, sample.value.unwrap_or_default()))
            .collect(),
        histograms: series.histograms.into_iter().map(|h| (h.timestamp, h.into())).collect(),
    };
    Ok(response.results.into_iter().map(|r| r.series.into_iter().map(series).collect()).collect())
}

/// The frames of an answer with `STREAMED_XOR_CHUNKS`.
///
/// # Errors
/// When a frame is cut off, its checksum is wrong, or it does not hold exactly one series.
pub fn frames(mut body: &[u8]) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let size = prost::encoding::decode_varint(&mut body).context("a frame's length")? as usize;
        ensure!(body.len() >= 4 + size, "a frame is cut off");
        let (sum, rest) = body.split_at(4);
        let (message, rest) = rest.split_at(size);
        ensure!(crc32c::crc32c(message).to_be_bytes() == sum, "a frame's checksum is wrong");
        body = rest;
        let response = ChunkedResponse::decode(message).context("a frame's message")?;
        let [series] = <[ChunkedSeries; 1]>::try_from(response.series)
            .map_err(|series| anyhow::anyhow!("{} series in a frame", series.len()))?;
        frames.push(Frame {
            query_index: response.query_index,
            labels: pairs(series.labels),
            chunks: series.chunks,
            bytes: size,
        });
    }
    Ok(frames)
}

/// Neighbouring buckets as spans.
fn spans(buckets: &[(i32, f64)]) -> Vec<Span> {
    let (mut spans, mut end) = (Vec::<Span>::new(), 0);
    for (index, _) in buckets {
        match spans.last_mut() {
            Some(last) if *index == end => last.length += 1,
            _ => spans.push(Span { offset: index - end, length: 1 }),
        }
        end = index + 1;
    }
    spans
}

/// The body of a remote-write 1.0 request with floats and float histograms.
///
/// # Errors
/// When it is too large for snappy.
pub fn write_body(series: &[ReadSeries]) -> Result<Vec<u8>> {
    let populations = |buckets: &[(i32, f64)]| buckets.iter().map(|(_, population)| *population).collect();
    let histogram = |(t_ms, h): &(i64, ReadHistogram)| Histogram {
        count_float: Some(h.count),
        sum: Some(h.sum),
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        zero_count_float: Some(h.zero_count),
        negative_spans: spans(&h.negative),
        negative_counts: populations(&h.negative),
        positive_spans: spans(&h.positive),
        positive_counts: populations(&h.positive),
        reset_hint: h.hint,
        timestamp: *t_ms,
        custom_values: h.custom_values.clone(),
        ..Histogram::default()
    };
    let one = |series: &ReadSeries| TimeSeries {
        labels: series.labels.iter().map(|(name, value)| Label::new(name, value)).collect(),
        samples: series.floats.iter().map(|(t_ms, value)| Sample::new(*t_ms, *value)).collect(),
        histograms: series.histograms.iter().map(histogram).collect(),
    };
    WriteRequest { timeseries: series.iter().map(one).collect() }.body()
}
