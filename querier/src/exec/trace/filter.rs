//! Whether a span satisfies conditions, and what its fields are. Reading and ordering spans is for `search`.

use tricord_fragment::trace::{Comparison, Condition, Field, Operand, TraceSummary};
use tricord_model::{MatchOp, Matcher, SpanRecord};

use super::super::{Error, invalid};
use super::view::{
    self, Attribute, EVENT_ATTRIBUTES, LINK_ATTRIBUTES, RESOURCE_ATTRIBUTES, SCOPE_ATTRIBUTES, Scalar,
    Scalars, span,
};

/// Conditions, ready to be asked; all must hold.
pub(super) struct Filter {
    of_span: Vec<Test>,
    of_trace: Vec<Test>,
    /// What is shown of a matched span.
    shown: Vec<Field>,
}

struct Test {
    condition: Condition,
    regex: Option<Matcher>,
}

/// Whether a field belongs to the whole trace rather than to one span.
fn is_of_trace(field: &Field) -> bool {
    matches!(field, Field::RootName | Field::RootServiceName | Field::TraceDuration)
}

impl Filter {
    /// Compiles conditions; `select` names fields that are shown beside those of the conditions.
    ///
    /// # Errors
    /// `Invalid` where an expression is malformed or a text is missing.
    pub(super) fn new(conditions: &[Condition], select: &[Field]) -> Result<Self, Error> {
        let tests = conditions.iter().map(Test::new).collect::<Result<Vec<_>, Error>>()?;
        let (of_trace, of_span) = tests.into_iter().partition(|test| is_of_trace(&test.condition.field));
        let mut shown = Vec::new();
        for field in conditions.iter().map(|condition| &condition.field).chain(select) {
            if !shown.contains(field) {
                shown.push(field.clone());
            }
        }
        Ok(Self { of_span, of_trace, shown })
    }

    /// Whether the conditions that concern one span hold for it.
    pub(super) fn span_matches(&self, record: &SpanRecord) -> bool {
        self.of_span.iter().all(|test| test.holds(&values(&test.condition.field, record)))
    }

    /// Whether there are conditions that need the whole trace.
    pub(super) fn asks_traces(&self) -> bool {
        !self.of_trace.is_empty()
    }

    /// Whether the conditions that concern the whole trace hold for it.
    pub(super) fn trace_matches(&self, trace: &TraceSummary) -> bool {
        self.of_trace.iter().all(|test| {
            let mut values = Scalars::new();
            match test.condition.field {
                Field::RootName if !trace.root_name.is_empty() => values.push(Scalar::Text(&trace.root_name)),
                Field::RootServiceName if !trace.root_service.is_empty() => {
                    values.push(Scalar::Text(&trace.root_service));
                }
                Field::TraceDuration => values.push(Scalar::Int(to_int(trace.duration_ns))),
                _ => {}
            }
            test.holds(&values)
        })
    }

    /// The fields that conditions look at, as encoded `KeyValue`s. The name and duration have their own place.
    pub(super) fn shown(&self, record: &SpanRecord) -> Vec<Vec<u8>> {
        let mut out: Vec<Vec<u8>> = Vec::new();
        for field in &self.shown {
            let intrinsic = match field {
                Field::Status => Some(("status", span::status(&record.span))),
                Field::Kind => Some(("kind", kind_name(&record.span))),
                Field::StatusMessage => Some(("statusMessage", span::status_message(&record.span))),
                Field::ScopeName => Some(("instrumentation:name", view::text(&record.scope, 1))),
                Field::ScopeVersion => Some(("instrumentation:version", view::text(&record.scope, 2))),
                _ => None,
            };
            let key_value = match intrinsic {
                Some((key, value)) => Some(text_attribute(key, value)),
                None => first_attribute(field, record).map(|found| found.key_value.to_vec()),
            };
            out.extend(key_value.filter(|key_value| !out.contains(key_value)));
        }
        out
    }
}

impl Test {
    fn new(condition: &Condition) -> Result<Self, Error> {
        let regex = match (condition.op, &condition.value) {
            (Comparison::Regex | Comparison::NotRegex, Operand::Text(pattern)) => {
                let matcher = Matcher::new("", MatchOp::Regex, pattern);
                Some(matcher.map_err(|error| invalid(error.to_string()))?)
            }
            (Comparison::Regex | Comparison::NotRegex, _) => {
                return Err(invalid("a regular expression must be a text"));
            }
            _ => None,
        };
        Ok(Self { condition: condition.clone(), regex })
    }

    fn holds(&self, values: &[Scalar<'_>]) -> bool {
        match self.condition.op {
            Comparison::Exists => !values.is_empty(),
            Comparison::NotExists => values.is_empty(),
            _ => values.iter().any(|value| self.compares(value)),
        }
    }

    fn compares(&self, value: &Scalar<'_>) -> bool {
        let op = self.condition.op;
        if let Some(regex) = &self.regex {
            let found = match value {
                Scalar::Text(text) => regex.matches(text),
                Scalar::Id(_) => regex.matches(&value.to_string()),
                _ if matches!(self.condition.field, Field::Anywhere(_)) => regex.matches(&value.to_string()),
                _ => return false,
            };
            return found == (op == Comparison::Regex);
        }
        let order = match (value, &self.condition.value) {
            (Scalar::Other, _) | (_, Operand::Nil) => return false,
            (Scalar::Text(a), Operand::Text(b)) => (*a).cmp(b.as_str()),
            (Scalar::Id(_), Operand::Text(b)) => value.to_string().cmp(&b.to_ascii_lowercase()),
            (Scalar::Bool(a), Operand::Bool(b)) => a.cmp(b),
            (Scalar::Int(a), Operand::Int(b)) => a.cmp(b),
            (Scalar::Int(a), Operand::Float(b)) => return float_order(*a as f64, *b, op),
            (Scalar::Float(a), Operand::Int(b)) => return float_order(*a, *b as f64, op),
            (Scalar::Float(a), Operand::Float(b)) => return float_order(*a, *b, op),
            (_, Operand::Text(b)) if matches!(self.condition.field, Field::Anywhere(_)) => {
                value.to_string().as_str().cmp(b.as_str())
            }
            _ => return false,
        };
        satisfies(Some(order), op)
    }
}

fn float_order(a: f64, b: f64, op: Comparison) -> bool {
    satisfies(a.partial_cmp(&b), op)
}

fn satisfies(order: Option<std::cmp::Ordering>, op: Comparison) -> bool {
    match op {
        Comparison::Equal => order.is_some_and(|order| order.is_eq()),
        Comparison::NotEqual => !order.is_some_and(|order| order.is_eq()),
        Comparison::Less => order.is_some_and(|order| order.is_lt()),
        Comparison::LessOrEqual => order.is_some_and(|order| order.is_le()),
        Comparison::Greater => order.is_some_and(|order| order.is_gt()),
        Comparison::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
        Comparison::Regex | Comparison::NotRegex | Comparison::Exists | Comparison::NotExists => false,
    }
}

fn to_int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The kind as TraceQL names it.
fn kind_name(bytes: &[u8]) -> &'static str {
    match span::kind(bytes) {
        "" => "unspecified",
        kind => kind,
    }
}

fn text_attribute(key: &str, value: &str) -> Vec<u8> {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    use prost::Message;
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }.encode_to_vec()
}

/// The first attribute that a field names.
fn first_attribute<'a>(field: &'a Field, record: &'a SpanRecord) -> Option<Attribute<'a>> {
    let mut found = None;
    each_attribute(field, record, &mut |attribute| {
        found.get_or_insert(attribute);
    });
    found
}

/// Visits the attributes that a field names; of an unscoped one, those of the span hide those of the resource.
fn each_attribute<'a>(field: &'a Field, record: &'a SpanRecord, visit: &mut dyn FnMut(Attribute<'a>)) {
    let span = &record.span;
    let nested = |lists: u32, number: u32, key: &'a str, visit: &mut dyn FnMut(Attribute<'a>)| {
        let attributes = view::messages(span, lists).flat_map(|list| view::attributes_of(list, number, key));
        attributes.for_each(visit);
    };
    match field {
        Field::Span(key) => view::attributes_of(span, span::ATTRIBUTES, key).for_each(visit),
        Field::Resource(key) => {
            view::attributes_of(&record.resource, RESOURCE_ATTRIBUTES, key).for_each(visit)
        }
        Field::Scope(key) => view::attributes_of(&record.scope, SCOPE_ATTRIBUTES, key).for_each(visit),
        Field::Event(key) => nested(span::EVENTS, EVENT_ATTRIBUTES, key, visit),
        Field::Link(key) => nested(span::LINKS, LINK_ATTRIBUTES, key, visit),
        Field::Any(key) => {
            let mut own = view::attributes_of(span, span::ATTRIBUTES, key).peekable();
            if own.peek().is_some() {
                own.for_each(visit);
            } else {
                view::attributes_of(&record.resource, RESOURCE_ATTRIBUTES, key).for_each(visit);
            }
        }
        Field::Anywhere(key) => {
            view::attributes_of(span, span::ATTRIBUTES, key).for_each(&mut *visit);
            view::attributes_of(&record.resource, RESOURCE_ATTRIBUTES, key).for_each(&mut *visit);
            view::attributes_of(&record.scope, SCOPE_ATTRIBUTES, key).for_each(&mut *visit);
            nested(span::EVENTS, EVENT_ATTRIBUTES, key, visit);
            nested(span::LINKS, LINK_ATTRIBUTES, key, visit);
        }
        _ => {}
    }
}

/// The values of a field on one span; those of the whole trace are not known here.
pub(super) fn values<'a>(field: &'a Field, record: &'a SpanRecord) -> Scalars<'a> {
    let mut out = Scalars::new();
    let bytes: &'a [u8] = &record.span;
    let text = |text: &'a str, out: &mut Scalars<'a>| {
        if !text.is_empty() {
            out.push(Scalar::Text(text));
        }
    };
    match field {
        Field::Name => out.push(Scalar::Text(span::name(bytes))),
        Field::Duration => out.push(Scalar::Int(to_int(record.end_ns.saturating_sub(record.start_ns)))),
        Field::Status => out.push(Scalar::Text(span::status(bytes))),
        Field::Kind => out.push(Scalar::Text(kind_name(bytes))),
        Field::StatusMessage => text(span::status_message(bytes), &mut out),
        Field::ScopeName => text(view::text(&record.scope, 1), &mut out),
        Field::ScopeVersion => text(view::text(&record.scope, 2), &mut out),
        Field::EventName => {
            view::messages(bytes, span::EVENTS).for_each(|event| text(view::text(event, 2), &mut out))
        }
        Field::TraceId => out.push(Scalar::Id(&record.trace_id.0)),
        Field::SpanId => out.push(Scalar::Id(&record.span_id)),
        Field::ParentId => out.extend(span::parent(bytes).map(Scalar::Id)),
        Field::RootName | Field::RootServiceName | Field::TraceDuration => {}
        Field::Anywhere(key) => {
            derived(key, record, &mut out);
            each_attribute(field, record, &mut |attribute| view::scalars(attribute.value, &mut out));
        }
        _ => each_attribute(field, record, &mut |attribute| view::scalars(attribute.value, &mut out)),
    }
    out
}

/// What Jaeger shows as tags although OTLP has fields for it.
fn derived<'a>(key: &str, record: &'a SpanRecord, out: &mut Scalars<'a>) {
    let span = &record.span;
    match key {
        "error" if span::status(span) == "error" => out.push(Scalar::Bool(true)),
        "span.kind" if !span::kind(span).is_empty() => out.push(Scalar::Text(span::kind(span))),
        "otel.status_code" => match span::status(span) {
            "ok" => out.push(Scalar::Text("OK")),
            "error" => out.push(Scalar::Text("ERROR")),
            _ => {}
        },
        "otel.status_description" => out.push(Scalar::Text(span::status_message(span))),
        "otel.scope.name" | "otel.library.name" => out.push(Scalar::Text(view::text(&record.scope, 1))),
        "otel.scope.version" | "otel.library.version" => out.push(Scalar::Text(view::text(&record.scope, 2))),
        "event" => {
            let names = view::messages(span, span::EVENTS).map(|event| Scalar::Text(view::text(event, 2)));
            out.extend(names);
        }
        _ => {}
    }
}
