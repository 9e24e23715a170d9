//! Notes on an answer: the warnings and infos of Prometheus, collected while evaluating and rendered at its end.
//!
//! As in Prometheus, notes with one text are one note, and the position of the latest one counts.

use std::collections::BTreeMap;

use crate::ast::Pos;
use crate::kernels::calendar;
use crate::text::{float_g, float_g2, quoted};
use crate::value::Annotations;

/// How much a note weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Warning,
    Info,
}

/// Details that are gathered over all notes of one text and shown beside a position only.
#[derive(Clone, Debug)]
enum Detail {
    None,
    Monotonicity(Monotonicity),
    Overlap { count: u64 },
}

/// Where buckets had to be lifted for a quantile.
#[derive(Clone, Debug)]
pub(crate) struct Monotonicity {
    pub(crate) min_t_ms: i64,
    pub(crate) max_t_ms: i64,
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    pub(crate) max_diff: f64,
    pub(crate) count: u64,
}

#[derive(Clone, Debug)]
struct Note {
    pos: Pos,
    detail: Detail,
}

/// The notes so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    entries: BTreeMap<(Level, String), Note>,
}

/// What was done to histograms when a note arose.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HistogramOp {
    Add,
    Sub,
    Aggregate,
}

impl HistogramOp {
    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "addition",
            Self::Sub => "subtraction",
            Self::Aggregate => "aggregation",
        }
    }
}

fn with_name(text: String, name: &str) -> String {
    if name.is_empty() { text } else { format!("{text} for metric name {}", quoted(name)) }
}

impl Notes {
    fn warn(&mut self, pos: Pos, text: String) {
        let text = format!("PromQL warning: {text}");
        self.entries.insert((Level::Warning, text), Note { pos, detail: Detail::None });
    }

    fn info(&mut self, pos: Pos, text: String) {
        let text = format!("PromQL info: {text}");
        self.entries.insert((Level::Info, text), Note { pos, detail: Detail::None });
    }

    pub(crate) fn invalid_quantile(&mut self, pos: Pos, quantile: f64) {
        self.warn(pos, format!("quantile value should be between 0 and 1, got {}", float_g(quantile)));
    }

    pub(crate) fn invalid_ratio(&mut self, pos: Pos, ratio: f64, capped: f64) {
        let (ratio, capped) = (float_g(ratio), float_g(capped));
        self.warn(pos, format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}"));
    }

    pub(crate) fn bad_bucket_label(&mut self, pos: Pos, name: &str, label: &str) {
        let text = format!("bucket label \"le\" is missing or has a malformed value of {}", quoted(label));
        self.warn(pos, with_name(text, name));
    }

    pub(crate) fn mixed_floats_histograms(&mut self, pos: Pos, name: &str) {
        self.warn(
            pos,
            format!("encountered a mix of histograms and floats for metric name {}", quoted(name)),
        );
    }

    pub(crate) fn mixed_floats_histograms_aggregation(&mut self, pos: Pos) {
        self.warn(pos, "encountered a mix of histograms and floats for aggregation".to_owned());
    }

    pub(crate) fn mixed_classic_native(&mut self, pos: Pos, name: &str) {
        self.warn(pos, with_name("vector contains a mix of classic and native histograms".to_owned(), name));
    }

    pub(crate) fn not_a_counter(&mut self, pos: Pos, name: &str) {
        self.warn(pos, format!("this native histogram metric is not a counter: {}", quoted(name)));
    }

    pub(crate) fn not_a_gauge(&mut self, pos: Pos, name: &str) {
        self.warn(pos, format!("this native histogram metric is not a gauge: {}", quoted(name)));
    }

    pub(crate) fn mixed_schemas(&mut self, pos: Pos, name: &str) {
        let text =
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
        self.warn(pos, format!("{text} {}", quoted(name)));
    }

    pub(crate) fn incompatible_buckets(&mut self, pos: Pos, operator: &str) {
        self.warn(pos, format!("incompatible bucket layout encountered for binary operator {operator}"));
    }

    pub(crate) fn sort_in_range(&mut self, pos: Pos) {
        let text = "sort is ineffective for range queries since results are always ordered by labels";
        self.warn(pos, text.to_owned());
    }

    pub(crate) fn reset_collision(&mut self, pos: Pos, op: HistogramOp) {
        self.warn(pos, format!("conflicting counter resets during histogram {}", op.as_str()));
    }

    pub(crate) fn start_overlap(&mut self, pos: Pos, name: &str) {
        let text = "PromQL warning: sample has start time that overlaps with previous sample timestamp";
        let key = (Level::Warning, format!("{text} for metric {}", quoted(name)));
        let before = match self.entries.get(&key) {
            Some(Note { detail: Detail::Overlap { count }, .. }) => *count,
            _ => 0,
        };
        self.entries.insert(key, Note { pos, detail: Detail::Overlap { count: before + 1 } });
    }

    pub(crate) fn possible_non_counter(&mut self, pos: Pos, name: &str) {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        self.info(pos, format!("{text} {}", quoted(name)));
    }

    pub(crate) fn incompatible_types(&mut self, pos: Pos, lhs: &str, operator: &str, rhs: &str) {
        let text = "incompatible sample types encountered for binary operator";
        self.info(pos, format!("{text} {}: {lhs} {operator} {rhs}", quoted(operator)));
    }

    pub(crate) fn histogram_ignored(&mut self, pos: Pos, aggregation: &str) {
        self.info(pos, format!("ignored histogram in {aggregation} aggregation"));
    }

    pub(crate) fn histograms_ignored_in_range(&mut self, pos: Pos, name: &str) {
        let text = "ignored histograms in a range containing both floats and histograms for metric name";
        self.info(pos, format!("{text} {}", quoted(name)));
    }

    pub(crate) fn quantile_nan_result(&mut self, pos: Pos, name: &str) {
        let text = "input to histogram_quantile has NaN observations, result is NaN";
        self.info(pos, with_name(text.to_owned(), name));
    }

    pub(crate) fn quantile_nan_skew(&mut self, pos: Pos, name: &str) {
        let text = "input to histogram_quantile has NaN observations, result is skewed higher";
        self.info(pos, with_name(text.to_owned(), name));
    }

    pub(crate) fn fraction_nans(&mut self, pos: Pos, name: &str) {
        let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        self.info(pos, with_name(text.to_owned(), name));
    }

    pub(crate) fn mismatched_custom_buckets(&mut self, pos: Pos, op: HistogramOp) {
        self.info(pos, format!("mismatched custom buckets were reconciled during {}", op.as_str()));
    }

    pub(crate) fn forced_monotonicity(&mut self, pos: Pos, name: &str, new: Monotonicity) {
        let text = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
                    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        let key = (Level::Info, with_name(text.to_owned(), name));
        let merged = match self.entries.get(&key) {
            Some(Note { detail: Detail::Monotonicity(old), .. }) => Monotonicity {
                min_t_ms: old.min_t_ms.min(new.min_t_ms),
                max_t_ms: old.max_t_ms.max(new.max_t_ms),
                min_bucket: old.min_bucket.min(new.min_bucket),
                max_bucket: old.max_bucket.max(new.max_bucket),
                max_diff: old.max_diff.max(new.max_diff),
                count: old.count + new.count,
            },
            _ => new,
        };
        self.entries.insert(key, Note { pos, detail: Detail::Monotonicity(merged) });
    }

    /// The texts; with the query's text at hand each ends in its position, as the HTTP API shows it.
    pub(crate) fn render(&self, query: Option<&str>) -> Annotations {
        let mut out = Annotations::default();
        for ((level, text), note) in &self.entries {
            let text = match query {
                Some(query) => with_position(text, note, query),
                None => text.clone(),
            };
            match level {
                Level::Warning => out.warnings.insert(text),
                Level::Info => out.infos.insert(text),
            };
        }
        out
    }
}

fn with_position(text: &str, note: &Note, query: &str) -> String {
    let at = line_and_column(query, note.pos.start as usize);
    match &note.detail {
        Detail::None => format!("{text} ({at})"),
        Detail::Overlap { count } if *count > 1 => format!("{text} ({count} occurrences) ({at})"),
        Detail::Overlap { .. } => format!("{text} ({at})"),
        Detail::Monotonicity(m) => format!(
            "{text}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {} ({at})",
            float_g(m.min_bucket),
            float_g(m.max_bucket),
            float_g2(m.max_diff),
            m.count,
            calendar::rfc3339(m.min_t_ms.div_euclid(1000)),
            calendar::rfc3339(m.max_t_ms.div_euclid(1000)),
        ),
    }
}

fn line_and_column(query: &str, at: usize) -> String {
    let Some(before) = query.as_bytes().get(..at) else { return "invalid position".to_owned() };
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = match before.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => at - newline,
        None => at + 1,
    };
    format!("{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_note_at_the_latest_position() {
        let mut notes = Notes::default();
        notes.possible_non_counter(Pos { start: 5, end: 6 }, "up");
        notes.possible_non_counter(Pos { start: 9, end: 12 }, "up");
        let infos: Vec<_> = notes.render(Some("rate(\nup[5m])")).infos.into_iter().collect();
        let text =
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (2:4)";
        assert_eq!(infos, [format!("PromQL info: {text}")]);
    }
}
