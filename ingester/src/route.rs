//! Which shard gets which part of a request, in pieces that fit a message.
//!
//! A decoder hands its series over one by one, and each is written into its shard's piece at once: nothing of a request
//! is kept in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use tricord_model::{
    BatchWriter, Exemplar, MetricMetadata, Sample, SeriesData, ShardId, SpanRecord, Tenant, Value,
};
use tricord_routing::Sharder;

use crate::config::TenantLimits;
use crate::decode::{Decoded, Rejected, Sink};
use crate::limits::misshapen;

/// About how many bytes a piece has when encoded. A message between roles holds many times that.
const PIECE_BYTES: usize = 4 << 20;
/// What a shard's part of a request is expected to take: a share of the whole, within these bounds.
const MIN_PART_BYTES: usize = 1 << 10;
const MAX_PART_BYTES: usize = 64 << 10;

/// An encoded batch for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The shard.
    pub shard: ShardId,
    /// What a [`BatchWriter`] wrote.
    pub batch: Bytes,
}

/// The pieces of a request. Rounds follow one another, so that a shard gets its pieces in the sender's order (increments
/// depend on it); within a round each shard has at most one piece.
pub type Rounds = Vec<Vec<Piece>>;

/// A request on its way to the shards.
#[derive(Debug, Default)]
pub struct Routed {
    /// What is sent.
    pub rounds: Rounds,
    /// Samples and spans in it.
    pub items: u64,
    /// What was not valid.
    pub invalid: Rejected,
    /// What passes the tenant's limits.
    pub misshapen: Rejected,
}

impl Routed {
    /// Bytes of all pieces.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rounds.iter().flatten().map(|piece| piece.batch.len()).sum()
    }
}

/// Writes series into the pieces of their shards.
#[derive(Debug)]
pub struct Router {
    sharder: Sharder,
    limits: TenantLimits,
    part_bytes: usize,
    parts: Vec<Part>,
    by_shard: BTreeMap<ShardId, usize>,
    /// The part of the last series: the next one mostly belongs to it too.
    last: usize,
    metadata: Vec<(String, MetricMetadata)>,
    routed: Routed,
}

/// A shard's piece that still grows.
#[derive(Debug)]
struct Part {
    shard: ShardId,
    batch: BatchWriter,
    /// How many pieces of the shard are closed.
    closed: usize,
}

impl Router {
    /// A router for a tenant's request that takes about so many bytes when written out. `shards` is the cluster's number
    /// of shards.
    #[must_use]
    pub fn new(tenant: Tenant, shards: u32, limits: TenantLimits, bytes: usize) -> Self {
        Self {
            sharder: Sharder::new(tenant, shards),
            limits,
            part_bytes: (bytes / 16).clamp(MIN_PART_BYTES, MAX_PART_BYTES),
            parts: Vec::new(),
            by_shard: BTreeMap::new(),
            last: 0,
            metadata: Vec::new(),
            routed: Routed::default(),
        }
    }

    /// Takes a request that was decoded as a whole.
    pub fn take(&mut self, decoded: Decoded) {
        let Decoded { batch, rejected } = decoded;
        self.routed.invalid.add(rejected);
        let mut pairs = Vec::new();
        for series in &batch.series {
            let data =
                SeriesData { samples: &series.samples, exemplars: &series.exemplars, delta: series.delta };
            pairs.clear();
            pairs.extend(series.labels.iter());
            self.place(&pairs, &data);
        }
        self.metadata.extend(batch.metadata);
        self.spans(batch.spans);
    }

    fn spans(&mut self, spans: Vec<SpanRecord>) {
        self.routed.items += spans.len() as u64;
        let mut by_shard: BTreeMap<ShardId, (Vec<SpanRecord>, usize)> = BTreeMap::new();
        for span in spans {
            let shard = self.sharder.trace(&span.trace_id);
            // Resource and scope are shared when encoded; counting them anew for every span only makes pieces smaller.
            let size = span.span.len() + span.resource.len().min(4096) + span.scope.len().min(4096) + 64;
            let (waiting, bytes) = by_shard.entry(shard).or_default();
            if *bytes > 0 && *bytes + size > PIECE_BYTES {
                let full = std::mem::take(waiting);
                self.part(shard, std::mem::take(bytes)).spans(&full);
            }
            *bytes += size;
            waiting.push(span);
        }
        for (shard, (spans, bytes)) in by_shard {
            self.part(shard, bytes).spans(&spans);
        }
    }

    /// The shard's batch, with room for so many bytes more.
    fn part(&mut self, shard: ShardId, more: usize) -> &mut BatchWriter {
        if self.parts.get(self.last).is_none_or(|part| part.shard != shard) {
            self.last = *self.by_shard.entry(shard).or_insert_with(|| {
                let batch = BatchWriter::with_capacity(self.part_bytes);
                self.parts.push(Part { shard, batch, closed: 0 });
                self.parts.len() - 1
            });
        }
        let part = &mut self.parts[self.last];
        if !part.batch.is_empty() && part.batch.len() + more > PIECE_BYTES {
            let full = std::mem::take(&mut part.batch);
            put(&mut self.routed.rounds, part.closed, shard, full);
            part.closed += 1;
        }
        &mut part.batch
    }

    /// Adds a series in several pieces; answers the fingerprint of its labels.
    fn giant(
        &mut self,
        shard: ShardId,
        labels: &[(&str, &str)],
        label_bytes: usize,
        data: &SeriesData<'_>,
    ) -> u128 {
        let (mut rest, mut exemplars, mut fingerprint) = (data.samples, data.exemplars, 0);
        while !rest.is_empty() || !exemplars.is_empty() {
            let mut size = label_bytes + exemplar_bytes(exemplars);
            let too_much = |sample: &Sample| {
                size += sample_bytes(sample);
                size > PIECE_BYTES
            };
            // At least one, however large.
            let count = rest.iter().position(too_much).unwrap_or(rest.len()).max(1).min(rest.len());
            let (samples, later) = rest.split_at(count);
            fingerprint = self
                .part(shard, PIECE_BYTES)
                .series(labels.iter().copied(), &SeriesData { samples, exemplars, delta: data.delta });
            (rest, exemplars) = (later, &[]);
        }
        fingerprint
    }

    /// Bytes of what was taken so far, but for metadata.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.routed.bytes() + self.parts.iter().map(|part| part.batch.len()).sum::<usize>()
    }

    /// The request, ready to be sent.
    #[must_use]
    pub fn finish(mut self) -> Routed {
        if !self.metadata.is_empty() {
            // Metadata belongs to no target and is merged over all shards when asked for: it travels with a shard that
            // the request writes to anyway, so that it costs no further fsync.
            let first = self.parts.first().map(|part| part.shard);
            let shard = first.unwrap_or_else(|| self.sharder.series(&[]));
            for (family, metadata) in std::mem::take(&mut self.metadata) {
                let size = family.len() + metadata.help.len() + metadata.unit.len() + 8;
                self.part(shard, size).metadata(&family, &metadata);
            }
        }
        for Part { shard, batch, closed } in self.parts {
            put(&mut self.routed.rounds, closed, shard, batch);
        }
        for round in &mut self.routed.rounds {
            round.sort_unstable_by_key(|piece| piece.shard);
        }
        self.routed
    }
}

impl Router {
    /// Takes a series, unless it passes a limit; answers the fingerprint of its labels and its shard.
    pub(crate) fn place(
        &mut self,
        labels: &[(&str, &str)],
        data: &SeriesData<'_>,
    ) -> Option<(u128, ShardId)> {
        if let Some(reason) = misshapen(labels, &self.limits) {
            let rejected = &mut self.routed.misshapen;
            rejected.samples += data.samples.len() as u64;
            rejected.exemplars += data.exemplars.len() as u64;
            rejected.reason(reason);
            return None;
        }
        self.routed.items += data.samples.len() as u64;
        let shard = self.sharder.series(labels);
        let label_bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let size = label_bytes + data_bytes(data);
        let fingerprint = if size > PIECE_BYTES {
            self.giant(shard, labels, label_bytes, data)
        } else {
            self.part(shard, size).series(labels.iter().copied(), data)
        };
        Some((fingerprint, shard))
    }

    /// Takes a series of which the fingerprint and the shard are known from its labels as the sender wrote them; answers
    /// whether it did. Without `sent` the labels do not go along.
    #[inline]
    pub(crate) fn place_known(
        &mut self,
        fingerprint: u128,
        shard: ShardId,
        sent: Option<&[u8]>,
        data: &SeriesData<'_>,
    ) -> bool {
        let size = sent.map_or(0, <[u8]>::len) + data_bytes(data);
        if size > PIECE_BYTES {
            return false;
        }
        self.routed.items += data.samples.len() as u64;
        let part = self.part(shard, size);
        match sent {
            Some(sent) => part.sent_series(fingerprint, sent, data),
            None => part.known_series(fingerprint, data),
        }
        true
    }
}

impl Sink for Router {
    fn series(&mut self, labels: &[(&str, &str)], _sent: Option<&[u8]>, data: &SeriesData<'_>) {
        self.place(labels, data);
    }

    fn metadata(&mut self, family: String, metadata: MetricMetadata) {
        self.metadata.push((family, metadata));
    }

    fn rejected(&mut self) -> &mut Rejected {
        &mut self.routed.invalid
    }
}

fn put(rounds: &mut Rounds, round: usize, shard: ShardId, batch: BatchWriter) {
    if rounds.len() <= round {
        rounds.resize_with(round + 1, Vec::new);
    }
    rounds[round].push(Piece { shard, batch: batch.finish().into() });
}

/// At most what a sample takes when encoded.
fn sample_bytes(sample: &Sample) -> usize {
    match &sample.value {
        Value::Float(_) => 29,
        Value::Histogram(histogram) => {
            let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
            let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
            80 + 8 * (buckets + histogram.custom_values.len()) + 10 * spans
        }
    }
}

fn data_bytes(data: &SeriesData<'_>) -> usize {
    data.samples.iter().map(sample_bytes).sum::<usize>() + exemplar_bytes(data.exemplars)
}

fn exemplar_bytes(exemplars: &[Exemplar]) -> usize {
    let labels = |exemplar: &Exemplar| -> usize {
        exemplar.labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
    };
    exemplars.iter().map(|exemplar| labels(exemplar) + 20).sum()
}

#[cfg(test)]
mod tests {
    use tricord_model::{Batch, Labels, MetricMetadata, SeriesBatch, TraceId};
    use tricord_routing::{series_shard, trace_shard};

    use super::*;

    fn series(instance: &str, samples: usize) -> SeriesBatch {
        SeriesBatch {
            labels: Labels::from_pairs([("__name__", "up"), ("job", "j"), ("instance", instance)]),
            samples: (0..samples).map(|i| Sample::float(i as i64, i as f64)).collect(),
            ..SeriesBatch::default()
        }
    }

    fn route(batch: Batch, shards: u32) -> Routed {
        let mut router = Router::new(Tenant::default(), shards, TenantLimits::default(), 1 << 20);
        router.take(Decoded { batch, ..Decoded::default() });
        router.finish()
    }

    #[test]
    fn everything_lands_on_the_shard_of_the_rule() {
        let tenant = Tenant::default();
        let span = |id| SpanRecord {
            trace_id: TraceId([id; 16]),
            span_id: [id; 8],
            start_ns: 1,
            end_ns: 2,
            resource: Bytes::new(),
            resource_schema_url: String::new(),
            scope: Bytes::new(),
            scope_schema_url: String::new(),
            span: Bytes::from_static(b"s"),
        };
        let batch = Batch {
            series: (0..100).map(|i| series(&i.to_string(), 2)).collect(),
            metadata: vec![("up".into(), MetricMetadata::default())],
            spans: (1..50).map(span).collect(),
        };
        let routed = route(batch, 16);
        assert_eq!((routed.rounds.len(), routed.items), (1, 249));
        let (mut samples, mut spans, mut metadata) = (0, 0, 0);
        for piece in &routed.rounds[0] {
            let batch = Batch::decode(&piece.batch).unwrap();
            assert!(batch.series.iter().all(|s| series_shard(&tenant, &s.labels, 16) == piece.shard));
            assert!(batch.spans.iter().all(|s| trace_shard(&tenant, &s.trace_id, 16) == piece.shard));
            samples += batch.samples();
            spans += batch.spans.len();
            metadata += batch.metadata.len();
        }
        assert_eq!((samples, spans, metadata), (200, 49, 1));
        assert!(routed.rounds[0].len() > 10);
        assert!(routed.rounds[0].is_sorted_by_key(|piece| piece.shard));
    }

    #[test]
    fn a_giant_series_goes_in_order_and_in_pieces() {
        let given = 500_000;
        let batch = Batch { series: vec![series("a", 3), series("a", given)], ..Batch::default() };
        let routed = route(batch, 4);
        assert!(routed.rounds.len() > 2);
        let pieces = routed.rounds.iter().flat_map(|round| {
            assert_eq!(round.len(), 1);
            assert!(round[0].batch.len() <= PIECE_BYTES + 1024);
            Batch::decode(&round[0].batch).unwrap().series
        });
        let times: Vec<i64> = pieces.flat_map(|series| series.samples).map(|sample| sample.t_ms).collect();
        assert_eq!(times, (0..3).chain(0..given as i64).collect::<Vec<_>>());
    }

    #[test]
    fn metadata_alone_finds_a_shard() {
        let batch = Batch { metadata: vec![("up".into(), MetricMetadata::default())], ..Batch::default() };
        let routed = route(batch, 4);
        assert_eq!(Batch::decode(&routed.rounds[0][0].batch).unwrap().metadata.len(), 1);
    }

    #[test]
    fn misshapen_series_are_taken_out() {
        let named = |pairs: &[(&str, &str)]| SeriesBatch {
            labels: Labels::from_pairs(pairs.iter().copied()),
            samples: vec![Sample::float(1, 1.0)],
            ..SeriesBatch::default()
        };
        let many: Vec<(String, String)> = (0..30).map(|i| (format!("l{i}"), "v".to_owned())).collect();
        let mut many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        many.push(("__name__", "wide"));
        let (long_name, long_value) = ("n".repeat(1025), "v".repeat(2049));
        let series = vec![
            named(&[("__name__", "up")]),
            named(&many),
            named(&[("__name__", "up"), (&long_name, "v")]),
            named(&[("__name__", "up"), ("l", &long_value)]),
        ];
        let routed = route(Batch { series, ..Batch::default() }, 4);
        assert_eq!((routed.items, routed.misshapen.samples, routed.misshapen.reasons.len()), (1, 3, 3));
        assert_eq!(Batch::decode(&routed.rounds[0][0].batch).unwrap().series.len(), 1);
    }
}
