//! An explained query as a tree of text, for people.

use std::fmt::Write as _;

use crate::plan::tree::{At, Step};
use crate::query::{Answer, PartReport, Timings};
use crate::scatter::CallReport;

/// What is told of a query.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'a> {
    /// The query.
    pub query: &'a str,
    /// How many steps it is evaluated at.
    pub steps: usize,
    /// The plan.
    pub tree: &'a Step,
    /// What running it took; nothing where it was only planned.
    pub answer: Option<&'a Answer>,
    /// The whole time, in microseconds.
    pub micros: u64,
}

/// The tree as lines.
#[must_use]
pub fn explain_text(explained: &Explained<'_>) -> String {
    let mut out = format!("{}\n", explained.query);
    let steps =
        if explained.steps == 1 { "one instant".to_owned() } else { format!("{} steps", explained.steps) };
    match explained.answer {
        None => {
            let _ = writeln!(out, "{steps}; planned, not run\n");
        }
        Some(answer) => {
            let Timings { scattered, merged, evaluated, .. } = answer.timings;
            let micros = |time: std::time::Duration| time.as_micros() as u64;
            let _ = writeln!(
                out,
                "{steps}; {} in all: data nodes {}, merging {}, evaluating the rest {}\n{} of {}, {}\n",
                time(explained.micros),
                time(micros(scattered)),
                time(micros(merged)),
                time(micros(evaluated)),
                count(answer.stats.samples, "sample"),
                count(answer.stats.series, "series"),
                bytes(answer.stats.bytes, "inflated"),
            );
        }
    }
    write_step(&mut out, explained.tree, explained.answer, "", "");
    let raw = explained.answer.map_or(&[][..], |answer| &answer.raw);
    for call in raw {
        let _ = writeln!(out, "raw samples for the proxy: {}", call_text(call));
    }
    out
}

fn write_step(out: &mut String, step: &Step, answer: Option<&Answer>, first: &str, rest: &str) {
    let at = if step.at == At::Proxy { "proxy" } else { "data nodes" };
    let _ = write!(out, "{first}{at}: {}", step.does);
    let report: Option<&PartReport> = step.part.and_then(|id| answer?.parts.get(id));
    if let Some(report) = report {
        let _ = write!(out, "  [{}]", count(report.columns as u64, "series"));
    }
    if let Some(read) = &step.read {
        let _ = write!(out, "  {}s to {}s", seconds(read.from_ms), seconds(read.until_ms));
        if let Some(estimated) = read.estimated {
            let (samples, series) = (count(estimated.samples, "sample"), count(estimated.series, "series"));
            let _ = write!(out, "  [estimated {samples} of {series}]");
        }
    }
    out.push('\n');
    let calls: Vec<String> = report.map_or(vec![], |report| report.calls.iter().map(call_text).collect());
    let last = (step.steps.len() + calls.len()).saturating_sub(1);
    for (at, inner) in step.steps.iter().enumerate() {
        let (branch, below) = branches(at == last);
        write_step(out, inner, answer, &format!("{rest}{branch}"), &format!("{rest}{below}"));
    }
    for (at, call) in calls.iter().enumerate() {
        let (branch, _) = branches(step.steps.len() + at == last);
        let _ = writeln!(out, "{rest}{branch}{call}");
    }
}

fn branches(is_last: bool) -> (&'static str, &'static str) {
    if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

fn call_text(call: &CallReport) -> String {
    format!(
        "node {}, {}: {} of {}, {}, {} there, {} with the way, {}",
        call.node.0,
        count(call.shards.len() as u64, "shard"),
        count(call.stats.samples, "sample"),
        count(call.stats.series, "series"),
        bytes(call.stats.bytes, "inflated"),
        time(call.stats.micros),
        time(call.micros),
        bytes(call.bytes, "answered"),
    )
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

fn bytes(bytes: u64, what: &str) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes {what}"),
        1_024..1_048_576 => format!("{:.1} KiB {what}", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB {what}", bytes as f64 / 1_048_576.0),
    }
}

/// A number with its thousands apart, and the word in its form for that number.
fn count(number: u64, word: &str) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let plural = if number == 1 || word.ends_with('s') { "" } else { "s" };
    format!("{text} {word}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(1, "sample"), "1 sample");
        assert_eq!(count(1_234_567, "sample"), "1,234,567 samples");
        assert_eq!(count(123, "series"), "123 series");
        assert_eq!(
            (time(999), time(1_500), time(2_500_000)),
            ("999 µs".into(), "1.5 ms".into(), "2.50 s".into())
        );
        assert_eq!(bytes(3 << 20, "answered"), "3.0 MiB answered");
    }

    #[test]
    fn a_tree_has_branches() {
        let step =
            |does: &str, steps| Step { at: At::Proxy, does: does.into(), part: None, read: None, steps };
        let tree = step("a", vec![step("b", vec![step("c", vec![])]), step("d", vec![])]);
        let text = explain_text(&Explained { query: "q", steps: 1, tree: &tree, answer: None, micros: 0 });
        let expected =
            "q\none instant; planned, not run\n\nproxy: a\n├─ proxy: b\n│  └─ proxy: c\n└─ proxy: d\n";
        assert_eq!(text, expected);
    }
}
