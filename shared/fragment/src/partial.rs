//! What a data node answers, and how it travels.
//!
//! Bulk data (columns, group states, raw samples, spans) is in the binary encoding of `tricord_model::codec`; lists of
//! names and summaries are MessagePack. A partial is compressed with zstd from a size on.

use tricord_model::codec::{CodecError, Reader, Writer};
use tricord_model::{Exemplar, Labels, MetricMetadata, Points, SpanRecord};
use tricord_promql::aggregate::GroupState;
use tricord_promql::eval::Notes;
use tricord_promql::value::Column;

use crate::trace::{Operation, TraceSummary};
use crate::{Error, Estimate, FragmentStats};

mod bulk;

/// The version that this build writes.
const PARTIAL_VERSION: u8 = 3;
/// The version, and whether the body is compressed.
const HEADER_BYTES: usize = 2;
/// Bodies from this size on are compressed: below it the frame costs more than it saves.
const COMPRESS_FROM_BYTES: usize = 4096;
/// No partial may inflate to more than this, whatever it claims.
const MAX_INFLATED_BYTES: usize = 2 << 30;

/// A data node's answer to one fragment.
#[derive(Clone, Debug)]
pub struct Partial {
    /// Notes on the fragment's expression, whose nodes stand under their numbers.
    pub notes: Notes,
    /// What it has cost.
    pub stats: FragmentStats,
    /// Whether a limit cut the body (only where the fragment asked for a limit).
    pub truncated: bool,
    /// The answer.
    pub body: PartialBody,
}

/// The kinds of answers.
#[derive(Clone, Debug)]
pub enum PartialBody {
    /// Series over the fragment's grid, sorted by labels.
    Columns(Vec<Column>),
    /// States of groups, sorted by labels.
    Groups(Vec<GroupState>),
    /// Raw samples, sorted by labels.
    Raw(Vec<(Labels, Points)>),
    /// Sorted texts.
    Names(Vec<String>),
    /// Sorted label sets.
    Series(Vec<Labels>),
    /// Exemplars by series.
    Exemplars(Vec<(Labels, Vec<Exemplar>)>),
    /// Metadata by family; a family may have several.
    Metadata(Vec<(String, MetricMetadata)>),
    /// Cardinality.
    Cardinality(Cardinality),
    /// The spans of a trace.
    Spans(Vec<SpanRecord>),
    /// Traces, newest first.
    Traces(Vec<TraceSummary>),
    /// Operations, sorted.
    Operations(Vec<Operation>),
    /// What reading would cost.
    Estimate(Estimate),
}

/// Counts of series, for `status/tsdb`. Lists of several shards are added up by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cardinality {
    /// Series in memory.
    pub series: u64,
    /// Distinct pairs of name and value.
    pub label_pairs: u64,
    /// Earliest sample in memory, in milliseconds.
    pub min_ms: i64,
    /// Latest sample in memory, in milliseconds.
    pub max_ms: i64,
    /// Series by metric name.
    pub by_metric: Vec<(String, u64)>,
    /// Distinct values by label name.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of values by label name.
    pub bytes_by_label: Vec<(String, u64)>,
    /// Series by `name=value`.
    pub by_pair: Vec<(String, u64)>,
}

impl Partial {
    /// A partial without notes or costs.
    #[must_use]
    pub fn of(body: PartialBody) -> Self {
        Self { notes: Notes::default(), stats: FragmentStats::default(), truncated: false, body }
    }

    /// The partial as bytes: version, whether compressed (then the body's size), and the body.
    ///
    /// # Errors
    /// [`Error::Encoding`] when compression fails.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let plain = self.encode_uncompressed()?;
        let body = plain.get(HEADER_BYTES..).unwrap_or_default();
        if body.len() < COMPRESS_FROM_BYTES {
            return Ok(plain);
        }
        let mut bytes = vec![PARTIAL_VERSION, 1];
        Writer::new(&mut bytes).u64(body.len() as u64);
        bytes.extend(zstd::bulk::compress(body, 1).map_err(|error| encoding(&error))?);
        Ok(bytes)
    }

    /// As [`Partial::encode`], never compressed: for a reader in the same process.
    ///
    /// # Errors
    /// [`Error::Encoding`] when a value cannot be written.
    pub fn encode_uncompressed(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(self.body.size_hint());
        bytes.extend_from_slice(&[PARTIAL_VERSION, 0]);
        let out = &mut Writer::new(&mut bytes);
        out.bytes(&pack(&(&self.notes, &self.stats, self.truncated))?);
        self.body.encode(out)?;
        Ok(bytes)
    }

    /// Reads what [`Partial::encode`] wrote.
    ///
    /// # Errors
    /// [`Error`] when the bytes are malformed, inflate beyond the bound, or are of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let inflated;
        let body = match bytes {
            [PARTIAL_VERSION, 0, body @ ..] => body,
            [PARTIAL_VERSION, 1, packed @ ..] => {
                inflated = inflate(&mut Reader::new(packed))?;
                &inflated
            }
            [PARTIAL_VERSION, ..] | [] => return Err(encoding(&"its header is malformed")),
            [found, ..] => {
                return Err(Error::Version { what: "partial", found: *found, known: PARTIAL_VERSION });
            }
        };
        let mut input = Reader::new(body);
        let (notes, stats, truncated) = unpack(input.bytes().map_err(|error| encoding(&error))?)?;
        Ok(Self { notes, stats, truncated, body: PartialBody::decode(&mut input)? })
    }
}

fn inflate(packed: &mut Reader<'_>) -> Result<Vec<u8>, Error> {
    let size = usize::try_from(packed.u64()?).unwrap_or(usize::MAX);
    if size > MAX_INFLATED_BYTES {
        return Err(encoding(&"it inflates beyond its bound"));
    }
    zstd::bulk::decompress(packed.rest(), size).map_err(|error| encoding(&error))
}

impl PartialBody {
    /// About how many bytes it takes where that is known: growing a buffer of many megabytes copies it over and over.
    fn size_hint(&self) -> usize {
        const LABELS: usize = 256;
        match self {
            Self::Columns(columns) => columns.iter().map(|column| LABELS + 8 * column.floats.len()).sum(),
            Self::Raw(series) => series.iter().map(|(_, points)| LABELS + 16 * points.len()).sum(),
            _ => 256,
        }
    }

    fn encode(&self, out: &mut Writer<'_>) -> Result<(), Error> {
        match self {
            Self::Columns(columns) => bulk::list(0, columns, out, bulk::encode_column),
            Self::Groups(groups) => bulk::list(1, groups, out, |group, out| group.encode(out)),
            Self::Raw(series) => bulk::list(2, series, out, bulk::encode_raw),
            Self::Names(names) => bulk::list(3, names, out, |name, out| out.str(name)),
            Self::Series(series) => bulk::list(4, series, out, |labels, out| labels.encode(out)),
            Self::Exemplars(series) => bulk::list(5, series, out, bulk::encode_exemplars),
            Self::Metadata(list) => packed(6, list, out)?,
            Self::Cardinality(counts) => packed(7, counts, out)?,
            Self::Spans(spans) => {
                out.u8(8);
                let batch = tricord_model::Batch { spans: spans.clone(), ..Default::default() };
                out.bytes(&batch.encode());
            }
            Self::Traces(traces) => packed(9, traces, out)?,
            Self::Operations(list) => packed(10, list, out)?,
            Self::Estimate(estimate) => packed(11, estimate, out)?,
        }
        Ok(())
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Error> {
        let body = match input.u8()? {
            0 => Self::Columns(bulk::read(input, bulk::decode_column)?),
            1 => Self::Groups(bulk::read(input, GroupState::decode)?),
            2 => Self::Raw(bulk::read(input, bulk::decode_raw)?),
            3 => Self::Names(bulk::read(input, |input| input.str().map(str::to_owned))?),
            4 => Self::Series(bulk::read(input, Labels::decode)?),
            5 => Self::Exemplars(bulk::read(input, bulk::decode_exemplars)?),
            6 => Self::Metadata(unpack(input.bytes()?)?),
            7 => Self::Cardinality(unpack(input.bytes()?)?),
            8 => Self::Spans(tricord_model::Batch::decode(input.bytes()?)?.spans),
            9 => Self::Traces(unpack(input.bytes()?)?),
            10 => Self::Operations(unpack(input.bytes()?)?),
            11 => Self::Estimate(unpack(input.bytes()?)?),
            _ => return Err(encoding(&"its kind is unknown")),
        };
        if input.is_empty() { Ok(body) } else { Err(encoding(&"bytes follow its end")) }
    }
}

fn packed<T: serde::Serialize>(kind: u8, value: &T, out: &mut Writer<'_>) -> Result<(), Error> {
    out.u8(kind);
    out.bytes(&pack(value)?);
    Ok(())
}

fn pack<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    rmp_serde::to_vec_named(value).map_err(|error| encoding(&error))
}

fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(bytes).map_err(|error| encoding(&error))
}

fn encoding(error: &dyn std::fmt::Display) -> Error {
    Error::Encoding { what: "partial", why: error.to_string() }
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        encoding(&error)
    }
}

#[cfg(test)]
mod tests;
