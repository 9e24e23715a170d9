//! Attributes as labels.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use tricord_model::{Labels, METRIC_NAME};

use super::{Strategy, label_name};
use crate::decode::labels::{short, sort};
use crate::decode::sent::push_label;

/// Labels without a metric name, sorted by name, no name twice. What the request says as a label says it is borrowed.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Pairs<'a> {
    /// Attributes as labels. Where two names become one, the values are joined with `;` in the order of the keys.
    pub(super) fn from_attributes(
        attributes: impl IntoIterator<Item = &'a KeyValue>,
        strategy: Strategy,
    ) -> Result<Self, String> {
        let mut attributes: Vec<&KeyValue> = attributes.into_iter().collect();
        attributes.sort_by(|a, b| a.key.cmp(&b.key));
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(attributes.len() + 2);
        for attribute in attributes {
            let name = label_name(&attribute.key, strategy);
            if name.is_empty() {
                return Err("an attribute has an empty key".to_owned());
            }
            pairs.push((name, text(attribute.value.as_ref())));
        }
        // Names that became equal stay in the order of their keys.
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(later, more), (name, value)| {
            let is_same = later == name;
            if is_same {
                let joined = value.to_mut();
                joined.push(';');
                joined.push_str(more);
            }
            is_same
        });
        Ok(Self(pairs))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    /// Sets a label over what is there.
    pub(super) fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let name = name.into();
        match self.find(&name) {
            Ok(at) => self.0[at].1 = value.into(),
            Err(at) => self.0.insert(at, (name, value.into())),
        }
    }

    /// Sets the labels that are not there yet.
    pub(super) fn fill(&mut self, others: &'a Pairs<'_>) {
        for (name, value) in &others.0 {
            if let Err(at) = self.find(name) {
                self.0.insert(at, (Cow::Borrowed(&**name), Cow::Borrowed(&**value)));
            }
        }
    }

    /// Whether there is no label.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all names and values.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len() + 16).sum()
    }

    /// The labels of a series with this metric name and perhaps one label more (`le`, `quantile`), sorted by name.
    pub(super) fn series<'s>(
        &'s self,
        metric: &'s str,
        more: Option<(&'s str, &'s str)>,
    ) -> Result<Vec<(&'s str, &'s str)>, String> {
        let own = |name: &str| name == METRIC_NAME || more.is_some_and(|(more, _)| more == name);
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(self.0.len() + 2);
        pairs.push((METRIC_NAME, metric));
        pairs.extend(
            self.0.iter().map(|(name, value)| (&**name, &**value)).filter(|(n, v)| !own(n) && !v.is_empty()),
        );
        pairs.extend(more);
        sort(&mut pairs).map_err(|error| format!("labels of metric {:?}: {error}", short(metric)))?;
        Ok(pairs)
    }

    /// Appends the labels in the form in which they are remembered, unless one is too long.
    pub(super) fn push_to(&self, labels: &mut Vec<u8>) -> bool {
        self.0.iter().all(|(name, value)| push_label(name, value, labels))
    }

    /// Appends what [`Pairs::series`] answers in the form in which labels are remembered, unless one is too long.
    pub(super) fn push_series(&self, metric: &str, more: Option<(&str, &str)>, labels: &mut Vec<u8>) -> bool {
        push_label(METRIC_NAME, metric, labels)
            && more.is_none_or(|(name, value)| push_label(name, value, labels))
            && self.push_to(labels)
    }

    /// The labels as an exemplar has them.
    pub(super) fn plain(&self) -> Labels {
        Labels::from_pairs(self.0.iter().map(|(name, value)| (&**name, &**value)))
    }
}

/// The labels of a scope.
pub(super) fn scope<'a>(
    scope: Option<&'a InstrumentationScope>,
    schema_url: &'a str,
    strategy: Strategy,
) -> Result<Pairs<'a>, String> {
    let Some(scope) = scope else { return Ok(Pairs::default()) };
    let attributes = Pairs::from_attributes(&scope.attributes, strategy)?;
    let mut pairs = Pairs::default();
    for (name, value) in attributes.0 {
        pairs.set(format!("otel_scope_{name}"), value);
    }
    for (name, value) in [("name", &*scope.name), ("version", &*scope.version), ("schema_url", schema_url)] {
        if !value.is_empty() {
            pairs.set(format!("otel_scope_{name}"), value);
        }
    }
    Ok(pairs)
}

/// An attribute's value as text; lists and maps as JSON.
pub(super) fn text(value: Option<&AnyValue>) -> Cow<'_, str> {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => Cow::Borrowed(text),
        Some(Value::BoolValue(value)) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Some(Value::IntValue(value)) => Cow::Owned(value.to_string()),
        Some(Value::DoubleValue(value)) => Cow::Owned(value.to_string()),
        Some(Value::BytesValue(bytes)) => Cow::Owned(base64(bytes)),
        Some(value @ (Value::ArrayValue(_) | Value::KvlistValue(_))) => {
            Cow::Owned(json(Some(value)).to_string())
        }
        _ => Cow::Borrowed(""),
    }
}

/// Nesting is bounded by the check that every request passes.
fn json(value: Option<&Value>) -> serde_json::Value {
    let inner = |value: &AnyValue| json(value.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => (*value).into(),
        Some(Value::BytesValue(bytes)) => base64(bytes).into(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(inner).collect(),
        Some(Value::KvlistValue(map)) => map
            .values
            .iter()
            .map(|pair| (pair.key.clone(), pair.value.as_ref().map_or(serde_json::Value::Null, inner)))
            .collect(),
        _ => serde_json::Value::Null,
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let six = (bits >> (18 - 6 * at)) & 63;
            out.push(if at <= group.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(any(value)), ..KeyValue::default() }
    }

    #[test]
    fn colliding_names_are_joined_in_key_order() {
        let attributes = [
            pair("a.b", Value::IntValue(2)),
            pair("a_b", Value::IntValue(3)),
            pair("a-b", Value::IntValue(1)),
        ];
        let pairs = Pairs::from_attributes(&attributes, Strategy::default()).unwrap();
        assert_eq!(pairs.plain(), Labels::from_pairs([("a_b", "1;2;3")]));
    }

    #[test]
    fn values_become_text() {
        let check = |value: Value, expected: &str| assert_eq!(text(Some(&any(value))), expected);
        check(Value::StringValue("x".into()), "x");
        check(Value::BoolValue(true), "true");
        check(Value::DoubleValue(0.5), "0.5");
        check(Value::DoubleValue(3.0), "3");
        for (bytes, expected) in [(&b"a"[..], "YQ=="), (b"ab", "YWI="), (b"abc", "YWJj"), (b"", "")] {
            check(Value::BytesValue(bytes.to_vec()), expected);
        }
        let list = ArrayValue { values: vec![any(Value::IntValue(1)), any(Value::StringValue("b".into()))] };
        check(Value::ArrayValue(list), r#"[1,"b"]"#);
        let map = KeyValueList {
            values: vec![pair("z", Value::BoolValue(false)), pair("a", Value::DoubleValue(1.5))],
        };
        check(Value::KvlistValue(map), r#"{"a":1.5,"z":false}"#);
        assert_eq!(text(None), "");
    }
}
