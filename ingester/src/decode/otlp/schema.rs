//! The OTLP messages as tables: what the check and the JSON form need to know of every field.

use super::super::Allowance;

/// A message type.
pub(super) struct Message {
    /// Its name, for people.
    pub(super) name: &'static str,
    /// Its fields.
    pub(super) fields: &'static [Field],
    /// What one costs in memory once decoded, in bytes.
    pub(super) cost: usize,
}

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u32,
    /// Its lowerCamelCase name in JSON.
    pub(super) json: &'static str,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Str,
    /// Base64 in JSON.
    Bytes,
    /// Bytes that OTLP writes as hex in JSON: trace and span ids.
    Id,
    Bool,
    /// Any of int32, uint32, int64, uint64.
    Varint,
    /// sint32.
    Zigzag,
    /// fixed64 or sfixed64.
    Fixed64,
    Fixed32,
    Double,
    /// A number; some senders write names.
    Enum(&'static [(&'static str, u64)]),
    Message(&'static Message),
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }

    pub(super) fn named(&self, json: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.json == json)
    }

    pub(super) fn pay(&self, allowance: &mut Allowance) -> Result<(), crate::Error> {
        allowance.charge(self.cost)
    }
}

const fn one(number: u32, json: &'static str, kind: Kind) -> Field {
    Field { number, json, kind, repeated: false }
}

const fn many(number: u32, json: &'static str, kind: Kind) -> Field {
    Field { number, json, kind, repeated: true }
}

macro_rules! message {
    ($name:ident, $cost:literal, [$($field:expr),* $(,)?]) => {
        pub(super) static $name: Message = Message { name: stringify!($name), fields: &[$($field),*], cost: $cost };
    };
}

use Kind::{Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Str, Varint, Zigzag};

const fn msg(message: &'static Message) -> Kind {
    Kind::Message(message)
}

const TEMPORALITY: Kind = Enum(&[
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
]);
const SPAN_KIND: Kind = Enum(&[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
]);
const STATUS_CODE: Kind = Enum(&[("STATUS_CODE_UNSET", 0), ("STATUS_CODE_OK", 1), ("STATUS_CODE_ERROR", 2)]);

message!(
    ANY_VALUE,
    40,
    [
        one(1, "stringValue", Str),
        one(2, "boolValue", Bool),
        one(3, "intValue", Varint),
        one(4, "doubleValue", Double),
        one(5, "arrayValue", msg(&ARRAY_VALUE)),
        one(6, "kvlistValue", msg(&KEY_VALUE_LIST)),
        one(7, "bytesValue", Bytes),
    ]
);
message!(ARRAY_VALUE, 24, [many(1, "values", msg(&ANY_VALUE))]);
message!(KEY_VALUE_LIST, 24, [many(1, "values", msg(&KEY_VALUE))]);
message!(
    KEY_VALUE,
    64,
    [one(1, "key", Str), one(2, "value", msg(&ANY_VALUE)), one(3, "keyStrindex", Varint)]
);
message!(
    SCOPE,
    96,
    [
        one(1, "name", Str),
        one(2, "version", Str),
        many(3, "attributes", msg(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Varint),
    ]
);
message!(
    ENTITY_REF,
    96,
    [one(1, "schemaUrl", Str), one(2, "type", Str), many(3, "idKeys", Str), many(4, "descriptionKeys", Str),]
);
message!(
    RESOURCE,
    64,
    [
        many(1, "attributes", msg(&KEY_VALUE)),
        one(2, "droppedAttributesCount", Varint),
        many(3, "entityRefs", msg(&ENTITY_REF)),
    ]
);

message!(METRICS_REQUEST, 24, [many(1, "resourceMetrics", msg(&RESOURCE_METRICS))]);
message!(
    RESOURCE_METRICS,
    128,
    [
        one(1, "resource", msg(&RESOURCE)),
        many(2, "scopeMetrics", msg(&SCOPE_METRICS)),
        one(3, "schemaUrl", Str),
    ]
);
message!(
    SCOPE_METRICS,
    160,
    [one(1, "scope", msg(&SCOPE)), many(2, "metrics", msg(&METRIC)), one(3, "schemaUrl", Str),]
);
message!(
    METRIC,
    160,
    [
        one(1, "name", Str),
        one(2, "description", Str),
        one(3, "unit", Str),
        one(5, "gauge", msg(&GAUGE)),
        one(7, "sum", msg(&SUM)),
        one(9, "histogram", msg(&HISTOGRAM)),
        one(10, "exponentialHistogram", msg(&EXPONENTIAL_HISTOGRAM)),
        one(11, "summary", msg(&SUMMARY)),
        many(12, "metadata", msg(&KEY_VALUE)),
    ]
);
message!(GAUGE, 24, [many(1, "dataPoints", msg(&NUMBER_POINT))]);
message!(
    SUM,
    32,
    [
        many(1, "dataPoints", msg(&NUMBER_POINT)),
        one(2, "aggregationTemporality", TEMPORALITY),
        one(3, "isMonotonic", Bool),
    ]
);
message!(
    HISTOGRAM,
    32,
    [many(1, "dataPoints", msg(&HISTOGRAM_POINT)), one(2, "aggregationTemporality", TEMPORALITY),]
);
message!(
    EXPONENTIAL_HISTOGRAM,
    32,
    [many(1, "dataPoints", msg(&EXPONENTIAL_POINT)), one(2, "aggregationTemporality", TEMPORALITY),]
);
message!(SUMMARY, 24, [many(1, "dataPoints", msg(&SUMMARY_POINT))]);
// Costs of points include the series and the sample that they become.
message!(
    NUMBER_POINT,
    300,
    [
        many(7, "attributes", msg(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "asDouble", Double),
        one(6, "asInt", Fixed64),
        many(5, "exemplars", msg(&EXEMPLAR)),
        one(8, "flags", Varint),
    ]
);
message!(
    HISTOGRAM_POINT,
    600,
    [
        many(9, "attributes", msg(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "count", Fixed64),
        one(5, "sum", Double),
        many(6, "bucketCounts", Fixed64),
        many(7, "explicitBounds", Double),
        many(8, "exemplars", msg(&EXEMPLAR)),
        one(10, "flags", Varint),
        one(11, "min", Double),
        one(12, "max", Double),
    ]
);
message!(
    EXPONENTIAL_POINT,
    600,
    [
        many(1, "attributes", msg(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "count", Fixed64),
        one(5, "sum", Double),
        one(6, "scale", Zigzag),
        one(7, "zeroCount", Fixed64),
        one(8, "positive", msg(&BUCKETS)),
        one(9, "negative", msg(&BUCKETS)),
        one(10, "flags", Varint),
        many(11, "exemplars", msg(&EXEMPLAR)),
        one(12, "min", Double),
        one(13, "max", Double),
        one(14, "zeroThreshold", Double),
    ]
);
message!(BUCKETS, 32, [one(1, "offset", Zigzag), many(2, "bucketCounts", Varint)]);
message!(
    SUMMARY_POINT,
    600,
    [
        many(7, "attributes", msg(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "count", Fixed64),
        one(5, "sum", Double),
        many(6, "quantileValues", msg(&QUANTILE)),
        one(8, "flags", Varint),
    ]
);
message!(QUANTILE, 300, [one(1, "quantile", Double), one(2, "value", Double)]);
message!(
    EXEMPLAR,
    200,
    [
        many(7, "filteredAttributes", msg(&KEY_VALUE)),
        one(2, "timeUnixNano", Fixed64),
        one(3, "asDouble", Double),
        one(6, "asInt", Fixed64),
        one(4, "spanId", Id),
        one(5, "traceId", Id),
    ]
);

message!(TRACES_REQUEST, 24, [many(1, "resourceSpans", msg(&RESOURCE_SPANS))]);
message!(
    RESOURCE_SPANS,
    64,
    [one(1, "resource", msg(&RESOURCE)), many(2, "scopeSpans", msg(&SCOPE_SPANS)), one(3, "schemaUrl", Str),]
);
message!(
    SCOPE_SPANS,
    64,
    [one(1, "scope", msg(&SCOPE)), many(2, "spans", msg(&SPAN)), one(3, "schemaUrl", Str),]
);
message!(
    SPAN,
    320,
    [
        one(1, "traceId", Id),
        one(2, "spanId", Id),
        one(3, "traceState", Str),
        one(4, "parentSpanId", Id),
        one(16, "flags", Fixed32),
        one(5, "name", Str),
        one(6, "kind", SPAN_KIND),
        one(7, "startTimeUnixNano", Fixed64),
        one(8, "endTimeUnixNano", Fixed64),
        many(9, "attributes", msg(&KEY_VALUE)),
        one(10, "droppedAttributesCount", Varint),
        many(11, "events", msg(&EVENT)),
        one(12, "droppedEventsCount", Varint),
        many(13, "links", msg(&LINK)),
        one(14, "droppedLinksCount", Varint),
        one(15, "status", msg(&STATUS)),
    ]
);
message!(
    EVENT,
    80,
    [
        one(1, "timeUnixNano", Fixed64),
        one(2, "name", Str),
        many(3, "attributes", msg(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Varint),
    ]
);
message!(
    LINK,
    112,
    [
        one(1, "traceId", Id),
        one(2, "spanId", Id),
        one(3, "traceState", Str),
        many(4, "attributes", msg(&KEY_VALUE)),
        one(5, "droppedAttributesCount", Varint),
        one(6, "flags", Fixed32),
    ]
);
message!(STATUS, 32, [one(2, "message", Str), one(3, "code", STATUS_CODE)]);

// Logs are not stored yet; what nobody reads needs no fields.
message!(LOGS_REQUEST, 24, []);
