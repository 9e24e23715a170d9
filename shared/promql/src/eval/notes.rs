//! Notes on an answer: the warnings and infos of Prometheus, collected while evaluating and rendered at its end.
//!
//! As in Prometheus, notes with one text are one note, and the position of the latest one counts. The latest is told by
//! the nodes that notes come from, children before their parents, so that notes of parts that were evaluated elsewhere
//! can be joined in any order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ast::Pos;
use crate::kernels::calendar;
use crate::text::{float_g, float_g2, quoted};
use crate::value::Annotations;

/// How much a note weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Level {
    Warning,
    Info,
}

/// Details that are gathered over all notes of one text and shown beside a position only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Detail {
    None,
    Monotonicity(Monotonicity),
    Overlap { count: u64 },
}

/// Where buckets had to be lifted for a quantile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Monotonicity {
    pub(crate) min_t_ms: i64,
    pub(crate) max_t_ms: i64,
    pub(crate) min_bucket: f64,
    pub(crate) max_bucket: f64,
    pub(crate) max_diff: f64,
    pub(crate) count: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    /// The node that it comes from.
    node: Pos,
    /// What it points at: that node or a part of it.
    pos: Pos,
    detail: Detail,
}

/// The order of evaluation: what ends first, and of what ends together the innermost.
fn order(pos: Pos) -> (u32, Reverse<u32>) {
    (pos.end, Reverse(pos.start))
}

impl Note {
    /// Takes in another note of the same text.
    fn join(&mut self, other: Self) {
        if (order(other.node), order(other.pos)) > (order(self.node), order(self.pos)) {
            (self.node, self.pos) = (other.node, other.pos);
        }
        match (&mut self.detail, other.detail) {
            (Detail::Monotonicity(all), Detail::Monotonicity(new)) => all.join(&new),
            (Detail::Overlap { count }, Detail::Overlap { count: new }) => *count += new,
            _ => {}
        }
    }
}

impl Monotonicity {
    fn join(&mut self, other: &Self) {
        self.min_t_ms = self.min_t_ms.min(other.min_t_ms);
        self.max_t_ms = self.max_t_ms.max(other.max_t_ms);
        self.min_bucket = self.min_bucket.min(other.min_bucket);
        self.max_bucket = self.max_bucket.max(other.max_bucket);
        self.max_diff = self.max_diff.max(other.max_diff);
        self.count += other.count;
    }
}

/// Notes with the positions of what they are about.
///
/// Where an expression is a part of a query and evaluated elsewhere, its nodes stand under numbers
/// ([`Expr::number_nodes`](crate::ast::Expr::number_nodes)), which the query's own evaluation turns into positions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Notes {
    entries: BTreeMap<(Level, String), Note>,
    /// The node that is being evaluated.
    #[serde(skip)]
    node: Pos,
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
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the notes of the same expression over other series.
    pub fn merge(&mut self, other: Self) {
        other.entries.into_iter().for_each(|(key, note)| self.put(key, note));
    }

    /// Adds the notes of a part whose nodes stand under numbers; `places` are the nodes' positions here.
    pub(crate) fn absorb(&mut self, part: &Self, places: &[Pos]) {
        let place = |pos: Pos| places.get(pos.start as usize).copied().unwrap_or_default();
        for (key, note) in &part.entries {
            let (node, pos) = (place(note.node), place(note.pos));
            self.put(key.clone(), Note { node, pos, detail: note.detail.clone() });
        }
    }

    /// Says which node the next notes come from; answers the one before.
    pub(crate) fn enter(&mut self, node: Pos) -> Pos {
        std::mem::replace(&mut self.node, node)
    }

    fn put(&mut self, key: (Level, String), note: Note) {
        match self.entries.get_mut(&key) {
            Some(known) => known.join(note),
            None => drop(self.entries.insert(key, note)),
        }
    }

    fn add(&mut self, level: Level, pos: Pos, text: String, detail: Detail) {
        let text = match level {
            Level::Warning => format!("PromQL warning: {text}"),
            Level::Info => format!("PromQL info: {text}"),
        };
        self.put((level, text), Note { node: self.node, pos, detail });
    }

    fn warn(&mut self, pos: Pos, text: String) {
        self.add(Level::Warning, pos, text, Detail::None);
    }

    fn info(&mut self, pos: Pos, text: String) {
        self.add(Level::Info, pos, text, Detail::None);
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
        let text = "sample has start time that overlaps with previous sample timestamp";
        let text = format!("{text} for metric {}", quoted(name));
        self.add(Level::Warning, pos, text, Detail::Overlap { count: 1 });
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
        let text = "input to histogram_quantile needed to be fixed for monotonicity (see \
                    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        self.add(Level::Info, pos, with_name(text.to_owned(), name), Detail::Monotonicity(new));
    }

    /// The texts; with the query's text at hand each ends in its position, as the HTTP API shows it.
    #[must_use]
    pub fn render(&self, query: Option<&str>) -> Annotations {
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
        notes.enter(Pos { start: 9, end: 16 });
        notes.possible_non_counter(Pos { start: 9, end: 12 }, "up");
        notes.enter(Pos { start: 1, end: 8 });
        notes.possible_non_counter(Pos { start: 5, end: 6 }, "up");
        let infos: Vec<_> = notes.render(Some("rate(\nup[5m])")).infos.into_iter().collect();
        let text =
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (2:4)";
        assert_eq!(infos, [format!("PromQL info: {text}")]);
    }

    #[test]
    fn notes_of_parts_are_joined_in_any_order() {
        let at = |start: u32, end: u32| Pos { start, end };
        // Of `rate(up[5m]) + rate(up[9m])`, evaluated elsewhere: nodes 0 to 4.
        let of = |node: u32| {
            let mut notes = Notes::default();
            notes.enter(at(node, node));
            notes.possible_non_counter(at(node - 1, node - 1), "up");
            notes.start_overlap(at(node, node), "up");
            notes
        };
        let places = [at(5, 11), at(0, 12), at(20, 26), at(15, 27), at(0, 27)];
        let render = |first: &Notes, second: &Notes| {
            let mut merged = first.clone();
            merged.merge(second.clone());
            let mut notes = Notes::default();
            notes.absorb(&merged, &places);
            notes.render(Some("rate(up[5m]) + rate(up[9m])"))
        };
        let (one, other) = (of(1), of(3));
        let rendered = render(&one, &other);
        assert_eq!(rendered, render(&other, &one));
        assert!(rendered.infos.iter().all(|text| text.ends_with(" (1:21)")), "{rendered:?}");
        assert!(
            rendered.warnings.iter().all(|text| text.ends_with(" (2 occurrences) (1:16)")),
            "{rendered:?}"
        );
    }
}
