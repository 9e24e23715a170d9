//! The data that Tricord stores and moves: labels, samples, native histograms, spans, and the identifiers of
//! shards, nodes and epochs.
//!
//! Everything here is plain data without clocks, I/O or async. Every other crate may depend on this one; it depends
//! on none of them.

mod batch;
pub mod codec;
mod histogram;
mod ids;
mod labels;
mod matcher;
mod regexp;
mod sample;
mod span;

pub use batch::{Batch, SeriesBatch, decode_samples, encode_samples};
pub use histogram::{
    CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, HistogramError, Span as BucketSpan,
};
pub use ids::{Epoch, NodeId, Seq, ShardId, Tenant, TenantError};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use regexp::compile_anchored;
pub use sample::{Exemplar, MetricKind, MetricMetadata, Points, STALE_NAN, Sample, Value, is_stale};
pub use span::{SpanRecord, TraceId};
