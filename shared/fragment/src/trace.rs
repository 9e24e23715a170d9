//! Fragments over spans: lookup by trace id and search.

use serde::{Deserialize, Serialize};

/// One trace by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceById {
    /// The 16 bytes of the id.
    pub trace_id: [u8; 16],
    /// Only windows from here on, in nanoseconds; 0 for no bound.
    pub start_ns: u64,
    /// Only windows up to here, in nanoseconds; 0 for no bound.
    pub end_ns: u64,
}

/// A search for traces that have at least one span for which all conditions hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchQuery {
    /// All must hold on one span.
    pub conditions: Vec<Condition>,
    /// Spans that start no earlier, in nanoseconds.
    pub start_ns: u64,
    /// Spans that start no later, in nanoseconds.
    pub end_ns: u64,
    /// Least duration of the whole trace, in nanoseconds; 0 for no bound.
    pub min_trace_ns: u64,
    /// Greatest duration of the whole trace, in nanoseconds; 0 for no bound.
    pub max_trace_ns: u64,
    /// How many traces to return, newest first.
    pub limit: u32,
    /// How many matched spans to return per trace.
    pub spans_per_trace: u32,
    /// What to return of matched spans beside the fields of the conditions.
    #[serde(default)]
    pub select: Vec<Field>,
}

/// Where a condition looks for its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The span's name.
    Name,
    /// The span's duration, in nanoseconds.
    Duration,
    /// The span's status: `ok`, `error` or `unset`.
    Status,
    /// The span's kind: `server`, `client`, …
    Kind,
    /// The name of the trace's root span.
    RootName,
    /// The service of the trace's root span.
    RootServiceName,
    /// The duration of the whole trace, in nanoseconds.
    TraceDuration,
    /// An attribute of the span or of its resource.
    Any(String),
    /// An attribute of the span.
    Span(String),
    /// An attribute of the resource.
    Resource(String),
    /// An attribute of the instrumentation scope.
    Scope(String),
    /// An attribute of one of the span's events.
    Event(String),
    /// An attribute of one of the span's links.
    Link(String),
    /// An attribute of the span, its resource, scope, events or links, or one that Jaeger derives of the span's other
    /// fields (`error`, `span.kind`, …). Values compare as texts, as Jaeger's users write them.
    Anywhere(String),
    /// The message of the span's status.
    StatusMessage,
    /// The name of the instrumentation scope.
    ScopeName,
    /// The version of the instrumentation scope.
    ScopeVersion,
    /// The name of one of the span's events.
    EventName,
    /// The trace's id, as 32 hex digits.
    TraceId,
    /// The span's id, as 16 hex digits.
    SpanId,
    /// The parent span's id, as 16 hex digits; a root span has none.
    ParentId,
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `=~`, anchored
    Regex,
    /// `!~`, anchored
    NotRegex,
    /// `!= nil`
    Exists,
    /// `= nil`
    NotExists,
}

/// What a condition compares with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// A text; statuses and kinds too.
    Text(String),
    /// An integer; nanoseconds for durations.
    Int(i64),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Nothing, for `Exists` and `NotExists`.
    Nil,
}

/// One condition on a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Where.
    pub field: Field,
    /// How.
    pub op: Comparison,
    /// With what.
    pub value: Operand,
}

/// A trace that a search found, as one shard knows it (a trace lies on one shard).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// The 16 bytes of the id.
    pub trace_id: [u8; 16],
    /// Service of the root span, or empty where the root has not arrived.
    pub root_service: String,
    /// Name of the root span, or empty.
    pub root_name: String,
    /// Earliest start, in nanoseconds.
    pub start_ns: u64,
    /// Latest end minus earliest start, in nanoseconds.
    pub duration_ns: u64,
    /// Spans in the trace.
    pub spans: u32,
    /// Spans with status error.
    pub errors: u32,
    /// Spans for which the conditions hold, at most as many as were asked for.
    pub matched: Vec<MatchedSpan>,
    /// How many spans matched in all.
    pub matched_total: u32,
    /// Span and error counts by service.
    pub services: Vec<(String, u32, u32)>,
}

/// A span that matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedSpan {
    /// The 8 bytes of the id.
    pub span_id: [u8; 8],
    /// The span's name.
    pub name: String,
    /// Start, in nanoseconds.
    pub start_ns: u64,
    /// Duration, in nanoseconds.
    pub duration_ns: u64,
    /// The attributes that conditions looked at, as `opentelemetry.proto.common.v1.KeyValue`, encoded.
    pub attributes: Vec<Vec<u8>>,
}

/// A service's operation, for Jaeger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// `service.name`.
    pub service: String,
    /// The span's name.
    pub name: String,
    /// The span's kind in Jaeger's words: `server`, `client`, `producer`, `consumer`, `internal`, or empty.
    pub kind: String,
}
