//! The notation of series: labels, and sequences of floats and native histograms.

use std::sync::Arc;

use tricord_model::{
    BucketSpan, CounterResetHint, FloatHistogram, Labels, LabelsBuilder, METRIC_NAME, STALE_NAN, Value,
};

use crate::histogram;

/// One place in a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceValue {
    /// `None` for `_`.
    pub value: Option<Value>,
    /// Whether a histogram names its counter reset hint, so that it counts in comparisons.
    pub hint_is_set: bool,
}

/// The most values that one item may stand for.
const MAX_REPEAT: usize = 1_000_000;

/// Reads characters one after the other.
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub(super) fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn quoted(&mut self) -> Result<String, String> {
        let Some(quote @ ('"' | '\'' | '`')) = self.peek() else {
            return Err(format!("expected a quoted text at {:?}", self.rest));
        };
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, c)| {
            let found = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped && quote != '`';
            found
        });
        let Some((end, _)) = end else { return Err("text is not terminated".to_owned()) };
        let (text, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        unquote(text)
    }
}

/// The text behind a quoted literal, with its escapes resolved.
pub(super) fn unquote(literal: &str) -> Result<String, String> {
    let quote = literal.chars().next().ok_or("empty literal")?;
    let inner = literal[1..].strip_suffix(quote).ok_or_else(|| format!("unterminated literal {literal}"))?;
    if quote == '`' {
        return Ok(inner.to_owned());
    }
    let invalid = || format!("invalid escape in {literal}");
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let kind = rest[at + 1..].chars().next().ok_or_else(invalid)?;
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let from = at + 1 + kind.len_utf8();
        let code = rest.get(from..from + digits).ok_or_else(invalid)?;
        rest = &rest[from + digits..];
        let code = if digits > 0 { u32::from_str_radix(code, 16).map_err(|_| invalid())? } else { 0 };
        let c = match kind {
            'x' => {
                bytes.push(code as u8);
                continue;
            }
            'u' | 'U' => char::from_u32(code).ok_or_else(invalid)?,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            other => other,
        };
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| "text is not UTF-8".to_owned())
}

/// `name{label="value"} 1 2+3x4 _ stale {{count:1}}`
pub(super) fn series_line(line: &str) -> Result<(Labels, Vec<SequenceValue>), String> {
    let mut cursor = Cursor::new(line);
    let labels = labels(&mut cursor)?;
    Ok((labels, sequence(&mut cursor)?))
}

pub(super) fn labels(cursor: &mut Cursor<'_>) -> Result<Labels, String> {
    cursor.skip_space();
    let mut builder = LabelsBuilder::new();
    let name = cursor.take_while(|c| !c.is_whitespace() && c != '{' && c != '@');
    builder.set(METRIC_NAME, name);
    if !cursor.eat("{") {
        return if name.is_empty() { Err("expected a metric".to_owned()) } else { Ok(builder.finish()) };
    }
    loop {
        cursor.skip_space();
        if cursor.eat("}") {
            return Ok(builder.finish());
        }
        let is_quoted = matches!(cursor.peek(), Some('"' | '\'' | '`'));
        let name = match is_quoted {
            true => cursor.quoted()?,
            false => cursor.take_while(|c| c.is_alphanumeric() || c == '_' || c == ':').to_owned(),
        };
        cursor.skip_space();
        if cursor.eat("=") {
            cursor.skip_space();
            builder.set(&name, &cursor.quoted()?);
        } else if is_quoted {
            builder.set(METRIC_NAME, &name);
        } else {
            return Err(format!("expected a label at {:?}", cursor.rest));
        }
        cursor.skip_space();
        if !cursor.eat(",") && cursor.peek() != Some('}') {
            return Err(format!("expected a comma or a brace at {:?}", cursor.rest));
        }
    }
}

fn sequence(cursor: &mut Cursor<'_>) -> Result<Vec<SequenceValue>, String> {
    let mut out = Vec::new();
    loop {
        cursor.skip_space();
        if cursor.is_done() {
            return Ok(out);
        }
        item(cursor, &mut out)?;
        if out.len() > MAX_REPEAT {
            return Err("too many values".to_owned());
        }
    }
}

/// How often an item stands: `None` without `x`.
fn repeat(cursor: &mut Cursor<'_>) -> Result<Option<usize>, String> {
    if !cursor.eat("x") {
        return Ok(None);
    }
    let count =
        cursor.take_while(|c| c.is_ascii_digit()).parse().map_err(|_| "invalid repetition".to_owned())?;
    if count > MAX_REPEAT { Err("too many repetitions".to_owned()) } else { Ok(Some(count)) }
}

fn item(cursor: &mut Cursor<'_>, out: &mut Vec<SequenceValue>) -> Result<(), String> {
    let absent = SequenceValue { value: None, hint_is_set: false };
    if cursor.eat("_") {
        let count = repeat(cursor)?.unwrap_or(1);
        out.extend(std::iter::repeat_n(absent, count));
        return Ok(());
    }
    if cursor.rest.starts_with("{{") {
        return histogram_item(cursor, out);
    }
    let float = |value: f64| SequenceValue { value: Some(Value::Float(value)), hint_is_set: false };
    let mut value = if cursor.eat("stale") { STALE_NAN } else { number(cursor)? };
    if matches!(cursor.peek(), Some('+' | '-')) {
        let step = number(cursor)?;
        let count = repeat(cursor)?.ok_or("expected a repetition")?;
        for _ in 0..=count {
            out.push(float(value));
            value += step;
        }
        return Ok(());
    }
    match repeat(cursor)? {
        Some(count) => out.extend(std::iter::repeat_n(float(value), count + 1)),
        None => out.push(float(value)),
    }
    Ok(())
}

/// A signed number; hexadecimal ones do not exist here, since `x` repeats.
fn number(cursor: &mut Cursor<'_>) -> Result<f64, String> {
    let sign = if cursor.eat("-") { -1.0 } else { 1.0 };
    if sign > 0.0 {
        cursor.eat("+");
    }
    for (word, value) in
        [("Inf", f64::INFINITY), ("inf", f64::INFINITY), ("NaN", f64::NAN), ("nan", f64::NAN)]
    {
        if cursor.eat(word) {
            return Ok(sign * value);
        }
    }
    let rest = cursor.rest;
    let mut length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    if rest[length..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[length + 1..].starts_with(['+', '-']));
        let from = length + 1 + sign;
        length = rest[from..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| from + end);
    }
    let (text, tail) = rest.split_at(length);
    let value: f64 = text.parse().map_err(|_| format!("expected a number at {rest:?}"))?;
    cursor.rest = tail;
    Ok(sign * value)
}

fn histogram_item(cursor: &mut Cursor<'_>, out: &mut Vec<SequenceValue>) -> Result<(), String> {
    let (mut value, mut hint_is_set) = histogram_literal(cursor)?;
    let sign = match cursor.peek() {
        Some('+') => 1.0,
        Some('-') => -1.0,
        _ => {
            let place = SequenceValue { value: Some(Value::Histogram(Arc::new(value))), hint_is_set };
            let count = repeat(cursor)?.map_or(1, |count| count + 1);
            out.extend(std::iter::repeat_n(place, count));
            return Ok(());
        }
    };
    cursor.eat(if sign > 0.0 { "+" } else { "-" });
    let (step, step_hint_is_set) = histogram_literal(cursor)?;
    hint_is_set = step_hint_is_set;
    let count = repeat(cursor)?.ok_or("expected a repetition")?;
    for _ in 0..=count {
        out.push(SequenceValue { value: Some(Value::Histogram(Arc::new(value.clone()))), hint_is_set });
        let combined = if sign > 0.0 {
            histogram::add(&mut value, &step)
        } else {
            histogram::subtract(&mut value, &step)
        };
        combined.map_err(|_| "histograms of different kinds cannot be combined".to_owned())?;
    }
    Ok(())
}

fn histogram_literal(cursor: &mut Cursor<'_>) -> Result<(FloatHistogram, bool), String> {
    let mut h = FloatHistogram::default();
    let (mut hint_is_set, mut offset, mut negative_offset) = (false, 0, 0);
    if !cursor.eat("{{") {
        return Err(format!("expected a histogram at {:?}", cursor.rest));
    }
    loop {
        cursor.skip_space();
        if cursor.eat("}}") {
            break;
        }
        let key = cursor.take_while(|c| c.is_ascii_lowercase() || c == '_');
        if !cursor.eat(":") {
            return Err(format!("expected a histogram's part at {:?}", cursor.rest));
        }
        match key {
            "schema" => h.schema = number(cursor)? as i32,
            "sum" => h.sum = number(cursor)?,
            "count" => h.count = number(cursor)?,
            "z_bucket" => h.zero_count = number(cursor)?,
            "z_bucket_w" => h.zero_threshold = number(cursor)?,
            "custom_values" => h.custom_values = list(cursor)?,
            "buckets" => h.positive_buckets = list(cursor)?,
            "n_buckets" => h.negative_buckets = list(cursor)?,
            "offset" => offset = number(cursor)? as i32,
            "n_offset" => negative_offset = number(cursor)? as i32,
            "counter_reset_hint" => {
                hint_is_set = true;
                h.counter_reset_hint = match cursor.take_while(|c| c.is_ascii_lowercase() || c == '_') {
                    "unknown" => CounterResetHint::Unknown,
                    "reset" => CounterResetHint::Reset,
                    "not_reset" => CounterResetHint::NotReset,
                    "gauge" => CounterResetHint::Gauge,
                    other => return Err(format!("unknown counter reset hint {other:?}")),
                };
            }
            other => return Err(format!("unknown part of a histogram: {other:?}")),
        }
    }
    let spans = |offset: i32, buckets: &[f64]| match buckets.len() {
        0 => vec![],
        length => vec![BucketSpan { offset, length: length as u32 }],
    };
    h.positive_spans = spans(offset, &h.positive_buckets);
    h.negative_spans = spans(negative_offset, &h.negative_buckets);
    Ok((h, hint_is_set))
}

fn list(cursor: &mut Cursor<'_>) -> Result<Vec<f64>, String> {
    if !cursor.eat("[") {
        return Err(format!("expected a list at {:?}", cursor.rest));
    }
    let mut out = Vec::new();
    loop {
        cursor.skip_space();
        if cursor.eat("]") {
            return Ok(out);
        }
        out.push(number(cursor)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str) -> Vec<String> {
        let (_, values) = series_line(&format!("m {text}")).unwrap();
        let show = |value: &SequenceValue| match &value.value {
            None => "_".to_owned(),
            Some(Value::Float(value)) => value.to_string(),
            Some(Value::Histogram(histogram)) => crate::histogram::test_expression(histogram),
        };
        values.iter().map(show).collect()
    }

    #[test]
    fn sequences() {
        assert_eq!(floats("1 -2+1x2 0x1 _x2 1e3"), ["1", "-2", "-1", "0", "0", "0", "_", "_", "1000"]);
        assert_eq!(floats("-Inf NaN 0.5-0.25x1"), ["-inf", "NaN", "0.5", "0.25"]);
        assert_eq!(
            floats("{{count:1 buckets:[1] offset:2}}+{{count:2 buckets:[2] offset:2}}x1"),
            ["{{count:1 offset:2 buckets:[1]}}", "{{count:3 offset:2 buckets:[3]}}"]
        );
    }

    #[test]
    fn labels_in_all_forms() {
        let (labels, _) = series_line(r#"{"a.b", "l b"="x\"y", c='\x41' } 1"#).unwrap();
        assert_eq!(labels, Labels::from_pairs([("__name__", "a.b"), ("l b", "x\"y"), ("c", "A")]));
        assert_eq!(series_line("{} 3").unwrap().0, Labels::empty());
        assert!(series_line("m{a=} 1").is_err());
    }
}
