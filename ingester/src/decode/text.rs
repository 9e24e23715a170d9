//! The Prometheus text format 0.0.4 and OpenMetrics 1.0, line by line: a broken line is counted, the others are kept.

use tricord_model::{Exemplar, METRIC_NAME, MetricKind, MetricMetadata, Sample, SeriesBatch};

use super::labels::{plain_labels, series_labels, short};
use super::{Allowance, Decoded};
use crate::Error;

/// How to read a text.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The time of samples that bring none, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Whether the text is OpenMetrics, whose timestamps are seconds. A text that ends in `# EOF` always is.
    pub openmetrics: bool,
    /// Labels set on every series, over those of the text.
    pub extra: Vec<(String, String)>,
}

/// Decodes an exposition.
///
/// # Errors
/// [`Error::TooLarge`] when the allowance is spent. Broken lines are counted in `rejected`.
pub fn decode(bytes: &[u8], options: &Options, allowance: &mut Allowance) -> Result<Decoded, Error> {
    let openmetrics = options.openmetrics || bytes.trim_ascii_end().ends_with(b"# EOF");
    let mut reader = Reader { options, openmetrics, families: Vec::new(), decoded: Decoded::default() };
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        allowance.charge(line.len())?;
        let read = match std::str::from_utf8(line) {
            Ok(text) => reader.line(text.trim(), allowance)?,
            Err(_) => Err("it is not valid UTF-8".to_owned()),
        };
        if let Err(reason) = read {
            reader.decoded.rejected.samples += 1;
            reader.decoded.rejected.reason(format!("line {}: {reason}", at + 1));
        }
    }
    let Reader { families, mut decoded, .. } = reader;
    decoded.batch.metadata =
        families.into_iter().map(|(name, data)| (family_name(name, &data, openmetrics), data)).collect();
    Ok(decoded)
}

/// OpenMetrics names a counter's family without the suffix that its series have; users look it up by the series.
fn family_name(mut family: String, metadata: &MetricMetadata, openmetrics: bool) -> String {
    if openmetrics && metadata.kind == MetricKind::Counter && !family.ends_with("_total") {
        family.push_str("_total");
    }
    family
}

struct Reader<'a> {
    options: &'a Options,
    openmetrics: bool,
    /// In the order of their first mention; a family's lines stand together.
    families: Vec<(String, MetricMetadata)>,
    decoded: Decoded,
}

impl Reader<'_> {
    /// Reads a line; the inner error is a reason to refuse it.
    fn line(&mut self, line: &str, allowance: &mut Allowance) -> Result<Result<(), String>, Error> {
        if let Some(comment) = line.strip_prefix('#') {
            self.comment(comment.trim_start(), allowance)?;
            return Ok(Ok(()));
        }
        if line.is_empty() {
            return Ok(Ok(()));
        }
        allowance.charge(size_of::<SeriesBatch>() + size_of::<Sample>() + 64)?;
        let series = self.sample(line);
        Ok(series.map(|series| self.decoded.batch.series.push(series)))
    }

    fn comment(&mut self, comment: &str, allowance: &mut Allowance) -> Result<(), Error> {
        let Some((word, rest)) = comment.split_once(char::is_whitespace) else { return Ok(()) };
        if !matches!(word, "HELP" | "TYPE" | "UNIT") {
            return Ok(());
        }
        let mut cursor = Cursor { rest: rest.trim_start() };
        let Ok(family) = cursor.family() else { return Ok(()) };
        let text = cursor.rest.trim();
        if self.families.last().is_none_or(|(last, _)| *last != family) {
            allowance.charge(size_of::<(String, MetricMetadata)>() + family.len())?;
            self.families.push((family, MetricMetadata::default()));
        }
        let Some((_, metadata)) = self.families.last_mut() else { return Ok(()) };
        match word {
            "HELP" => metadata.help = unescape(text),
            "UNIT" => metadata.unit = text.to_owned(),
            _ => metadata.kind = kind(text),
        }
        Ok(())
    }

    fn sample(&self, line: &str) -> Result<SeriesBatch, String> {
        let mut cursor = Cursor { rest: line };
        let mut owned: Vec<(String, String)> = Vec::new();
        if !cursor.rest.starts_with('{') {
            owned.push((METRIC_NAME.to_owned(), cursor.word("a metric name")?.to_owned()));
        }
        if cursor.rest.starts_with('{') {
            cursor.labels(&mut owned)?;
        }
        let value = number(cursor.word("a value")?)?;
        let mut t_ms = self.options.now_ms;
        if !cursor.rest.is_empty() && !cursor.rest.starts_with('#') {
            t_ms = self.time(cursor.word("a timestamp")?)?;
        }
        let mut exemplars = Vec::new();
        if let Some(exemplar) = cursor.rest.strip_prefix('#') {
            exemplars.push(self.exemplar(exemplar.trim_start(), t_ms)?);
        } else if !cursor.rest.is_empty() {
            return Err(format!("{:?} stands behind the timestamp", short(cursor.rest)));
        }
        for (name, value) in &self.options.extra {
            owned.retain(|(n, _)| n != name);
            owned.push((name.clone(), value.clone()));
        }
        let mut pairs: Vec<_> = owned.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let labels = series_labels(&mut pairs)?;
        Ok(SeriesBatch { labels, samples: vec![Sample::float(t_ms, value)], exemplars, delta: false })
    }

    fn exemplar(&self, text: &str, t_ms: i64) -> Result<Exemplar, String> {
        let mut cursor = Cursor { rest: text };
        let mut owned = Vec::new();
        cursor.labels(&mut owned)?;
        let value = number(cursor.word("an exemplar's value")?)?;
        // An exemplar's time is in seconds, in OpenMetrics and wherever else it appears.
        let t_ms = if cursor.rest.is_empty() { t_ms } else { seconds(cursor.word("an exemplar's time")?)? };
        let mut pairs: Vec<_> = owned.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Ok(Exemplar { labels: plain_labels(&mut pairs)?, t_ms, value })
    }

    fn time(&self, text: &str) -> Result<i64, String> {
        if self.openmetrics {
            return seconds(text);
        }
        text.parse().map_err(|_| format!("timestamp {:?} is not a whole number of milliseconds", short(text)))
    }
}

/// What is left of a line.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// Text up to white space or a brace.
    fn word(&mut self, what: &str) -> Result<&'a str, String> {
        let end = self.rest.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        if word.is_empty() { Err(format!("{what} is missing")) } else { Ok(word) }
    }

    /// A family's name in a comment, plain or quoted.
    fn family(&mut self) -> Result<String, String> {
        if self.rest.starts_with('"') { self.quoted() } else { self.word("a family").map(str::to_owned) }
    }

    /// `{name="value", …}`; a lone quoted text is the metric's name.
    fn labels(&mut self, out: &mut Vec<(String, String)>) -> Result<(), String> {
        self.expect('{')?;
        loop {
            if self.accept('}') {
                return Ok(());
            }
            let quoted = self.rest.starts_with('"');
            let name = if quoted {
                self.quoted()?
            } else {
                let end = self.rest.find(|c: char| c == '=' || c == '}' || c == ',' || c.is_whitespace());
                let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest.trim_start();
                name.to_owned()
            };
            if quoted && (self.rest.starts_with(',') || self.rest.starts_with('}')) {
                out.push((METRIC_NAME.to_owned(), name));
            } else {
                self.expect('=')?;
                out.push((name, self.quoted()?));
            }
            if !self.accept(',') && !self.rest.starts_with('}') {
                return Err("labels end without a closing brace".to_owned());
            }
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let inside = self.rest.strip_prefix('"').ok_or("a label's value is not in double quotes")?;
        let mut escaped = false;
        for (at, c) in inside.char_indices() {
            match c {
                '"' if !escaped => {
                    self.rest = inside[at + 1..].trim_start();
                    return Ok(unescape(&inside[..at]));
                }
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        Err("a quote is not closed".to_owned())
    }

    fn accept(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.accept(wanted) {
            Ok(())
        } else {
            Err(format!("expected {wanted:?} before {:?}", short(self.rest)))
        }
    }
}

fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(c @ ('"' | '\\')) => out.push(c),
                // An unknown escape stays as it is.
                Some(c) => out.extend(['\\', c]),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("value {:?} is not a number", short(text)))
}

fn seconds(text: &str) -> Result<i64, String> {
    let seconds: f64 =
        text.parse().map_err(|_| format!("time {:?} is not a number of seconds", short(text)))?;
    let ms = (seconds * 1000.0).round();
    if ms.abs() < 9e15 { Ok(ms as i64) } else { Err(format!("time {:?} is out of range", short(text))) }
}

fn kind(word: &str) -> MetricKind {
    match word {
        "counter" => MetricKind::Counter,
        "gauge" => MetricKind::Gauge,
        "histogram" => MetricKind::Histogram,
        "gaugehistogram" => MetricKind::GaugeHistogram,
        "summary" => MetricKind::Summary,
        "info" => MetricKind::Info,
        "stateset" => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use tricord_model::{Labels, Value};

    use super::*;

    fn read(text: &str) -> Decoded {
        let options = Options { now_ms: 7, ..Options::default() };
        decode(text.as_bytes(), &options, &mut Allowance::new(1 << 20)).unwrap()
    }

    #[track_caller]
    fn check(line: &str, pairs: &[(&str, &str)], t_ms: i64, value: f64) {
        let decoded = read(line);
        assert_eq!(decoded.rejected, super::super::Rejected::default());
        let series = &decoded.batch.series[0];
        assert_eq!(series.labels, Labels::from_pairs(pairs.iter().copied()));
        let Value::Float(read) = series.samples[0].value else { panic!("a float was expected") };
        assert_eq!((series.samples[0].t_ms, read.to_bits()), (t_ms, value.to_bits()));
    }

    #[test]
    fn samples_in_all_their_forms() {
        check("up 1", &[("__name__", "up")], 7, 1.0);
        check("up{} 1 1700000000000", &[("__name__", "up")], 1_700_000_000_000, 1.0);
        check("up { a = \"b\" , } -0 -5\r\n", &[("__name__", "up"), ("a", "b")], -5, -0.0);
        check(
            r#"up{a="x\\y\"z\n{}, \d"} +Inf"#,
            &[("__name__", "up"), ("a", "x\\y\"z\n{}, \\d")],
            7,
            f64::INFINITY,
        );
        check(r#"{"my.metric", "a.b"="c"} 1e3"#, &[("__name__", "my.metric"), ("a.b", "c")], 7, 1000.0);
        check("up 1 1.5\n# EOF\n", &[("__name__", "up")], 1500, 1.0);
        check("  spaced\t2\t3 ", &[("__name__", "spaced")], 3, 2.0);
    }

    #[test]
    fn broken_lines_are_named_and_the_rest_is_kept() {
        let decoded =
            read("good 1\nup\nup{a=\"b} 1\nup{a=b} 1\nup x\nup 1 2 3\nup{a=\"1\",a=\"2\"} 1\ngood 2");
        assert_eq!((decoded.batch.series.len(), decoded.rejected.samples), (2, 6));
        assert!(
            decoded.rejected.reasons[0].starts_with("line 2: a value is missing"),
            "{:?}",
            decoded.rejected.reasons
        );
    }

    #[test]
    fn comments_become_metadata_and_exemplars_stay() {
        let text = "# HELP a counts \\\\ things\n# TYPE a counter\n# UNIT a seconds\n# just words\n\
                    a_total{x=\"y\"} 3 # {trace_id=\"ab\"} 0.5 12.5\n# TYPE b histogram\n# EOF";
        let decoded = read(text);
        let expected = MetricMetadata {
            kind: MetricKind::Counter,
            unit: "seconds".into(),
            help: "counts \\ things".into(),
        };
        assert_eq!(decoded.batch.metadata[0], ("a_total".to_owned(), expected));
        assert_eq!(decoded.batch.metadata[1].1.kind, MetricKind::Histogram);
        let exemplar =
            Exemplar { labels: Labels::from_pairs([("trace_id", "ab")]), t_ms: 12_500, value: 0.5 };
        assert_eq!(decoded.batch.series[0].exemplars, [exemplar]);
    }

    #[test]
    fn extra_labels_win() {
        let options = Options { extra: vec![("job".into(), "mine".into())], ..Options::default() };
        let decoded = decode(b"up{job=\"theirs\"} 1", &options, &mut Allowance::new(1000)).unwrap();
        assert_eq!(decoded.batch.series[0].labels.get("job"), Some("mine"));
    }
}
