//! The data that Tricord stores and moves: labels, samples, native histograms, spans, and the identifiers of
//! shards, nodes and epochs.
//!
//! Everything here is plain data without clocks, I/O or async. Every other crate may depend on this one; it depends
//! on none of them.

mod batch;
pub mod codec;
mod deletion;
mod histogram;
mod ids;
mod labels;
mod limits;
mod matcher;
mod regexp;
mod retention;
mod sample;
mod sample_codec;
mod sent_labels;
mod span;
mod span_codec;

pub use batch::{
    Batch, BatchView, BatchWriter, LabelsView, PlainSamples, SamplesView, SeriesBatch, SeriesData, SeriesView,
};
pub use deletion::Deletion;
pub use histogram::{
    CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, HistogramError, Span as BucketSpan,
};
pub use ids::{Epoch, NodeId, Seq, ShardId, Tenant, TenantError};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use limits::{LimitOverrides, TenantOverrides};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use regexp::compile_anchored;
pub use retention::{Retention, RetentionClass, RetentionTexts, parse_retention};
pub use sample::{Exemplar, MetricKind, MetricMetadata, Points, STALE_NAN, Sample, Value, is_stale};
pub use sample_codec::{
    decode_exemplars, decode_samples, decode_samples_into, encode_exemplars, encode_samples,
};
pub use sent_labels::{leading_labels, read_sent_labels};
pub use span::{SpanRecord, TraceId};
pub use span_codec::{decode_spans, encode_spans};
