//! Which shard gets which part of a batch, in pieces that fit a message.

use std::collections::BTreeMap;

use bytes::Bytes;
use tricord_model::{Batch, Labels, Sample, SeriesBatch, ShardId, Tenant, Value};
use tricord_routing::{series_shard, trace_shard};

/// About how many bytes a piece has when encoded. A message between roles holds many times that.
const PIECE_BYTES: usize = 4 << 20;

/// An encoded batch for one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The shard.
    pub shard: ShardId,
    /// [`Batch::encode`]d.
    pub batch: Bytes,
}

/// The pieces of a request. Rounds follow one another, so that a shard gets its pieces in the sender's order (increments
/// depend on it); within a round each shard has at most one piece.
pub type Rounds = Vec<Vec<Piece>>;

/// Splits and encodes a batch. `shards` is the cluster's number of shards.
#[must_use]
pub fn route(tenant: &Tenant, batch: Batch, shards: u32) -> Rounds {
    let mut router = Router { rounds: Vec::new(), open: BTreeMap::new() };
    let mut first = None;
    for series in batch.series {
        let shard = series_shard(tenant, &series.labels, shards);
        first.get_or_insert(shard);
        router.series(shard, series);
    }
    if !batch.metadata.is_empty() {
        // Metadata belongs to no target and is merged over all shards when asked for: it travels with a shard that the
        // request writes to anyway, so that it costs no further fsync.
        let shard = first.unwrap_or_else(|| series_shard(tenant, &Labels::empty(), shards));
        for entry in batch.metadata {
            let size = entry.0.len() + entry.1.help.len() + entry.1.unit.len() + 8;
            router.open(shard, size).metadata.push(entry);
        }
    }
    for span in batch.spans {
        let shard = trace_shard(tenant, &span.trace_id, shards);
        // Resource and scope are shared when encoded; counting them anew for every span only makes pieces smaller.
        let size = span.span.len() + span.resource.len().min(4096) + span.scope.len().min(4096) + 64;
        router.open(shard, size).spans.push(span);
    }
    router.finish()
}

struct Router {
    rounds: Vec<Vec<Piece>>,
    /// Batches that still grow: their encoded size so far, and how many pieces of the shard are closed.
    open: BTreeMap<ShardId, (Batch, usize, usize)>,
}

impl Router {
    /// The shard's batch, with room for so many bytes more.
    fn open(&mut self, shard: ShardId, more: usize) -> &mut Batch {
        let (batch, size, closed) = self.open.entry(shard).or_default();
        if *size > 0 && *size + more > PIECE_BYTES {
            let full = std::mem::take(batch);
            put(&mut self.rounds, *closed, shard, &full);
            (*size, *closed) = (0, *closed + 1);
        }
        *size += more;
        batch
    }

    /// Adds a series, in several pieces when its samples are too many for one.
    fn series(&mut self, shard: ShardId, series: SeriesBatch) {
        let label_size: usize = series.labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let exemplar_size: usize = series
            .exemplars
            .iter()
            .map(|e| e.labels.iter().map(|(n, v)| n.len() + v.len() + 4).sum::<usize>() + 20)
            .sum();
        let size = label_size + exemplar_size + series.samples.iter().map(sample_size).sum::<usize>();
        if size <= PIECE_BYTES {
            self.open(shard, size).series.push(series);
            return;
        }
        let SeriesBatch { labels, samples, exemplars, delta } = series;
        let mut part = SeriesBatch { labels: labels.clone(), exemplars, delta, ..SeriesBatch::default() };
        let mut size = label_size + exemplar_size;
        for sample in samples {
            let more = sample_size(&sample);
            if size + more > PIECE_BYTES && !part.samples.is_empty() {
                let next = SeriesBatch { labels: labels.clone(), delta, ..SeriesBatch::default() };
                let full = std::mem::replace(&mut part, next);
                self.open(shard, size).series.push(full);
                size = label_size;
            }
            size += more;
            part.samples.push(sample);
        }
        self.open(shard, size).series.push(part);
    }

    fn finish(mut self) -> Rounds {
        for (shard, (batch, _, closed)) in std::mem::take(&mut self.open) {
            put(&mut self.rounds, closed, shard, &batch);
        }
        self.rounds
    }
}

fn put(rounds: &mut Rounds, round: usize, shard: ShardId, batch: &Batch) {
    if rounds.len() <= round {
        rounds.resize_with(round + 1, Vec::new);
    }
    rounds[round].push(Piece { shard, batch: batch.encode().into() });
}

/// At most what a sample takes when encoded.
fn sample_size(sample: &Sample) -> usize {
    match &sample.value {
        Value::Float(_) => 29,
        Value::Histogram(histogram) => {
            let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
            let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
            80 + 8 * (buckets + histogram.custom_values.len()) + 10 * spans
        }
    }
}

#[cfg(test)]
mod tests {
    use tricord_model::{MetricMetadata, SpanRecord, TraceId};

    use super::*;

    fn series(instance: &str, samples: usize) -> SeriesBatch {
        SeriesBatch {
            labels: Labels::from_pairs([("__name__", "up"), ("job", "j"), ("instance", instance)]),
            samples: (0..samples).map(|i| Sample::float(i as i64, i as f64)).collect(),
            ..SeriesBatch::default()
        }
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
        let rounds = route(&tenant, batch, 16);
        assert_eq!(rounds.len(), 1);
        let (mut samples, mut spans, mut metadata) = (0, 0, 0);
        for piece in &rounds[0] {
            let batch = Batch::decode(&piece.batch).unwrap();
            assert!(batch.series.iter().all(|s| series_shard(&tenant, &s.labels, 16) == piece.shard));
            assert!(batch.spans.iter().all(|s| trace_shard(&tenant, &s.trace_id, 16) == piece.shard));
            samples += batch.samples();
            spans += batch.spans.len();
            metadata += batch.metadata.len();
        }
        assert_eq!((samples, spans, metadata), (200, 49, 1));
        assert!(rounds[0].len() > 10);
    }

    #[test]
    fn a_giant_series_goes_in_order_and_in_pieces() {
        let given = 500_000;
        let batch = Batch { series: vec![series("a", 3), series("a", given)], ..Batch::default() };
        let rounds = route(&Tenant::default(), batch, 4);
        assert!(rounds.len() > 2);
        let pieces = rounds.iter().flat_map(|round| {
            assert_eq!(round.len(), 1);
            assert!(round[0].batch.len() <= PIECE_BYTES + 1024);
            Batch::decode(&round[0].batch).unwrap().series
        });
        let times: Vec<i64> = pieces.flat_map(|series| series.samples).map(|sample| sample.t_ms).collect();
        assert_eq!(times, (0..3).chain(0..given as i64).collect::<Vec<_>>());
    }
}
