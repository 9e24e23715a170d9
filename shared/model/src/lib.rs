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
mod sample;
mod span;

pub use batch::{decode_samples, encode_samples, Batch, SeriesBatch};
pub use histogram::{CounterResetHint, FloatHistogram, HistogramError, Span as BucketSpan, CUSTOM_BUCKETS_SCHEMA};
pub use ids::{Epoch, NodeId, Seq, ShardId, Tenant, TenantError};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use sample::{is_stale, Exemplar, MetricKind, MetricMetadata, Points, Sample, Value, STALE_NAN};
pub use span::{SpanRecord, TraceId};
