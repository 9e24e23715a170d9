//! Metric and label names.

use std::borrow::Cow;

use super::Strategy;

/// What a name's suffixes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricShape {
    /// A sum that only grows.
    MonotonicSum,
    /// A gauge.
    Gauge,
    /// Anything else.
    Other,
}

/// Units by their UCUM code; a unit that is not listed is appended as it is.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// Units behind a slash.
const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The metric name for an OTLP metric; empty when nothing of the name can be kept.
#[must_use]
pub fn metric_name(name: &str, unit: &str, shape: MetricShape, strategy: Strategy) -> String {
    match (strategy.escapes(), strategy.adds_suffixes()) {
        (true, true) => escaped_with_suffixes(name, unit, shape),
        (true, false) => digit_guard(tokens(name, |c| is_name_char(c) || c == '_').join("_")),
        (false, true) => plain_with_suffixes(name, unit, shape),
        (false, false) => name.to_owned(),
    }
}

/// The label name for an OTLP attribute; empty when nothing of the name can be kept.
#[must_use]
pub fn label_name(name: &str, strategy: Strategy) -> Cow<'_, str> {
    let is_fine = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !strategy.escapes() || name.is_empty() || is_fine {
        return Cow::Borrowed(name);
    }
    let escaped: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if escaped.starts_with(|c: char| c.is_ascii_digit()) {
        format!("key_{escaped}").into()
    } else if escaped.starts_with('_') && !escaped.starts_with("__") {
        format!("key{escaped}").into()
    } else {
        escaped.into()
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn tokens(name: &str, keep: impl Fn(char) -> bool) -> Vec<&str> {
    name.split(|c| !keep(c)).filter(|token| !token.is_empty()).collect()
}

fn digit_guard(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn escaped_with_suffixes(name: &str, unit: &str, shape: MetricShape) -> String {
    let (main, per) = unit_words(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let mut tokens = tokens(name, is_name_char);
    if tokens.is_empty() {
        return String::new();
    }
    if !main.is_empty() && !tokens.contains(&main.as_str()) {
        tokens.push(&main);
    }
    if !per.is_empty() && !tokens.contains(&per.as_str()) {
        tokens.extend(["per", &per]);
    }
    if let Some(last) = last_word(unit, shape) {
        // It moves to the end when the name has it already.
        if let Some(at) = tokens.iter().position(|token| *token == last) {
            tokens.remove(at);
        }
        tokens.push(last);
    }
    digit_guard(tokens.join("_"))
}

fn plain_with_suffixes(name: &str, unit: &str, shape: MetricShape) -> String {
    let (main, per) = unit_words(unit);
    let mut name = name;
    let last = last_word(unit, shape);
    if let Some(last) = last {
        name = without_suffix(name, last);
    }
    let per = if per.is_empty() { per } else { format!("per_{per}") };
    name = without_suffix(name, &per);
    let mut out = name.to_owned();
    let mut append = |suffix: &str| {
        if !suffix.is_empty() {
            out.push('_');
            out.push_str(suffix);
        }
    };
    if !name.ends_with(&main) {
        append(&main);
    }
    append(&per);
    append(last.unwrap_or(""));
    out
}

fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let shorter = name.strip_suffix(suffix).filter(|_| !suffix.is_empty());
    shorter.map_or(name, |rest| rest.strip_suffix(['_', '.']).unwrap_or(rest))
}

fn last_word(unit: &str, shape: MetricShape) -> Option<&'static str> {
    match shape {
        MetricShape::MonotonicSum => Some("total"),
        MetricShape::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    }
}

/// The words for a unit and for what stands behind its slash; annotations in braces have none.
fn unit_words(unit: &str) -> (String, String) {
    let word = |code: &str, table: &[(&str, &str)]| {
        let code = code.trim();
        if code.is_empty() || code.contains(['{', '}']) {
            return String::new();
        }
        table.iter().find(|(known, _)| *known == code).map_or(code, |(_, word)| word).to_owned()
    };
    match unit.split_once('/') {
        Some((main, per)) => (word(main, UNITS), word(per, PER_UNITS)),
        None => (word(unit, UNITS), String::new()),
    }
}

/// A unit as part of a name: other characters become single underscores, none at its ends.
fn clean_unit(unit: &str) -> String {
    tokens(unit, is_name_char).join("_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use MetricShape::{Gauge, MonotonicSum, Other};

    #[track_caller]
    fn check(name: &str, unit: &str, shape: MetricShape, strategy: Strategy, expected: &str) {
        assert_eq!(metric_name(name, unit, shape, strategy), expected, "{name} in {unit:?}, {strategy:?}");
    }

    #[test]
    fn names_with_escaping_and_suffixes() {
        let check = |name, unit, shape, expected| check(name, unit, shape, Strategy::default(), expected);
        check("http.server.request.duration", "s", Other, "http_server_request_duration_seconds");
        check("http.server.requests", "{request}", MonotonicSum, "http_server_requests_total");
        check("system.io.total", "By", MonotonicSum, "system_io_bytes_total");
        check("total_things", "", MonotonicSum, "things_total");
        check("memory.usage_bytes", "By", Gauge, "memory_usage_bytes");
        check("cpu.utilization", "1", Gauge, "cpu_utilization_ratio");
        check("cpu.utilization", "1", MonotonicSum, "cpu_utilization_total");
        check("cpu.utilization", "%", Gauge, "cpu_utilization_percent");
        check("network.io", "By/s", Gauge, "network_io_bytes_per_second");
        check("speed", "m/s", Other, "speed_meters_per_second");
        check("rate", "{packets}/s", Gauge, "rate_per_second");
        check("odd", "foo/bar-baz", Other, "odd_foo_per_bar_baz");
        check("hello__world!!", "", Other, "hello_world");
        check(":recorded:rule", "", Other, ":recorded:rule");
        check("2xx.responses", "", MonotonicSum, "_2xx_responses_total");
        check("größe", "mm", Other, "gr_e_mm");
        check("!!!", "s", Other, "");
    }

    #[test]
    fn names_of_the_other_strategies() {
        use Strategy::{
            NoTranslation, NoUTF8EscapingWithSuffixes as Utf8, UnderscoreEscapingWithoutSuffixes as Bare,
        };
        check("http.server_duration", "s", Other, Bare, "http_server_duration");
        check("3.requests", "1", MonotonicSum, Bare, "_3_requests");
        check("http.server.duration", "s", MonotonicSum, Utf8, "http.server.duration_seconds_total");
        check("http.server.seconds.total", "s", MonotonicSum, Utf8, "http.server.seconds_total");
        check("network.io", "By/s", Gauge, Utf8, "network.io_bytes_per_second");
        check("load", "1", Gauge, Utf8, "load_ratio");
        check("größe.x", "s", MonotonicSum, NoTranslation, "größe.x");
    }

    #[test]
    fn label_names() {
        let check = |name, expected: &str| assert_eq!(label_name(name, Strategy::default()), expected);
        check("http.method", "http_method");
        check("a-b c", "a_b_c");
        check("a..b", "a__b");
        check("0day", "key_0day");
        check("_private", "key_private");
        check("__reserved__", "__reserved__");
        check("größe", "gr__e");
        assert_eq!(label_name("http.method", Strategy::NoTranslation), "http.method");
        assert!(matches!(label_name("plain_1", Strategy::default()), Cow::Borrowed("plain_1")));
    }
}
