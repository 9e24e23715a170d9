//! Differences that the versions explain: Debian's Prometheus is 2.42, and Tricord answers as 3.14 does.

use std::collections::BTreeSet;

use tricord_promql::ast::{AggregateOp, BinaryOp, Expr, ExprKind};
use tricord_promql::functions::Function;

use super::compare::Answer;
use super::sides::When;

/// A question and what both sides say to it.
pub(super) struct Asked<'a> {
    pub(super) query: &'a str,
    /// The query as a tree, where Tricord's parser reads it.
    pub(super) expr: Option<&'a Expr>,
    pub(super) when: When,
    pub(super) ours: &'a Answer,
    pub(super) theirs: &'a Answer,
}

impl Asked<'_> {
    fn any(&self, wanted: impl Fn(&ExprKind) -> bool) -> bool {
        let mut found = false;
        if let Some(expr) = self.expr {
            expr.walk(&mut |part| found |= wanted(&part.kind));
        }
        found
    }

    fn has_operator(&self, op: BinaryOp) -> bool {
        self.any(|kind| matches!(kind, ExprKind::Binary(binary) if binary.op == op))
    }

    fn has_function(&self, func: Function) -> bool {
        self.any(|kind| matches!(kind, ExprKind::Call(call) if call.func == func))
    }

    /// Whether a selector may choose native histograms.
    fn reads_native_histograms(&self) -> bool {
        let selectors = self.expr.map(Expr::selectors).unwrap_or_default();
        selectors.iter().any(|s| s.matchers.iter().filter(|m| m.name == "__name__").all(|m| m.matches("n0")))
    }

    /// Whether the answers hold the same series, whatever their values.
    fn same_series(&self) -> bool {
        let labels = |answer: &Answer| match answer {
            Answer::Series(_, series) => {
                Some(series.iter().map(|(labels, _)| labels.clone()).collect::<BTreeSet<_>>())
            }
            _ => None,
        };
        labels(self.ours).is_some() && labels(self.ours) == labels(self.theirs)
    }

    /// Whether both refuse, with texts that hold these.
    fn both_refuse(&self, ours: &str, theirs: &str) -> bool {
        let refused = |answer: &Answer, wanted: &str| matches!(answer, Answer::Refused(_, text) if text.contains(wanted));
        refused(self.ours, ours) && refused(self.theirs, theirs)
    }

    /// Whether Prometheus does not parse the query, with a text that holds one of these.
    fn they_refuse(&self, texts: &[&str]) -> bool {
        matches!(self.theirs, Answer::Refused(_, found) if texts.iter().any(|text| found.contains(text)))
    }
}

/// A change between the versions.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// The release of Prometheus that brought it.
    pub(super) since: &'static str,
    /// What its release notes, or the change itself, say.
    pub(super) note: &'static str,
    /// Whether the difference may come from it.
    explains: fn(&Asked<'_>) -> bool,
}

/// All changes that random queries meet.
pub(super) const KNOWN: &[Known] = &[
    Known {
        name: "atan2 drops the metric name",
        since: "2.47.0",
        note: "commit 531567d46e: drop metric name for \"atan2\" binary operator",
        explains: |asked| asked.has_operator(BinaryOp::Atan2),
    },
    Known {
        name: "an empty query has no position",
        since: "2.48.0",
        note: "#12152: positions in annotations and errors; that of an empty query is unknown",
        explains: |asked| asked.both_refuse("unknown position: parse error", "1:1: parse error"),
    },
    Known {
        name: "numbers with underscores",
        since: "2.54.0",
        note: "#12821: accept underscores in literal numbers; what is no number is found by the lexer",
        explains: |asked| asked.both_refuse("bad number or duration syntax", "number"),
    },
    Known {
        name: "numbers and durations are interchangeable",
        since: "2.54.0",
        note: "#9138: float literal numbers and durations are now interchangeable",
        explains: |asked| {
            asked.they_refuse(&[
                "unexpected duration",
                "unexpected number",
                "missing unit character",
                "trailing commas",
            ])
        },
    },
    Known {
        name: "durations are expressions",
        since: "3.4.0",
        note: "#16249: allow arithmetic operations in durations; on by default since 3.14.0 (#19033)",
        explains: |asked| {
            asked.they_refuse(&[
                "expected duration",
                "bad duration syntax",
                "missing unit character in duration",
                "not a valid duration string",
            ])
        },
    },
    Known {
        name: "what follows a duration in brackets",
        since: "3.6.0",
        note: "#16777: with step(), min() and max() of durations, only a colon is taken for a colon",
        explains: |asked| asked.both_refuse("expected ':'", "parse error"),
    },
    Known {
        name: "filters are checked for many matches",
        since: "3.9.0",
        note: "#17668: check more consistently for many-to-one matching in filter binary operators",
        explains: |asked| {
            let texts = [
                "multiple matches for labels: many-to-one matching must be explicit",
                "grouping labels must ensure unique matches",
            ];
            let refused = matches!(asked.ours, Answer::Refused(_, found) if texts.iter().any(|text| found.contains(text)));
            refused && asked.any(|kind| matches!(kind, ExprKind::Binary(binary) if binary.op.is_comparison()))
        },
    },
    Known {
        name: "the last digit of trigonometry, made a label",
        since: "no release",
        note: "Go has sines and their kin of its own, which may differ from others in the last digit; answers are \
               compared with some room, but a label shows all digits",
        explains: |asked| {
            let counts_values =
                |kind: &ExprKind| matches!(kind, ExprKind::Aggregate(a) if a.op == AggregateOp::CountValues);
            let functions = [
                Function::Acos,
                Function::Acosh,
                Function::Asin,
                Function::Asinh,
                Function::Atan,
                Function::Atanh,
                Function::Cos,
                Function::Cosh,
                Function::Sin,
                Function::Sinh,
                Function::Tan,
                Function::Tanh,
                Function::Exp,
                Function::Ln,
                Function::Log10,
                Function::Log2,
            ];
            asked.any(counts_values) && functions.iter().any(|func| asked.has_function(*func))
        },
    },
    Known {
        name: "@ is printed by its sign",
        since: "3.8.0",
        note: "commit 8d4876f944: add string representation for AT token",
        explains: |asked| asked.they_refuse(&["<Item 57"]),
    },
    Known {
        name: "names in quotes",
        since: "3.0.0",
        note: "UTF-8 support: metric and label names may be quoted",
        explains: |asked| asked.they_refuse(&["unexpected string"]),
    },
    Known {
        name: "start(), end(), step() and range() are functions",
        since: "3.12.0",
        note: "#17877: add start(), end(), range(), and step() experimental functions",
        explains: |asked| {
            let words = ["start", "end", "step", "range"];
            let lower = asked.query.to_ascii_lowercase();
            asked.they_refuse(&["unexpected", "unknown function"])
                && words.iter().any(|word| lower.contains(word))
        },
    },
    Known {
        name: "infinity in stddev and stdvar",
        since: "3.0.0",
        note: "#14941: fix stddev+stdvar aggregations to treat Infinity consistently",
        explains: |asked| {
            asked.any(|kind| {
                matches!(kind, ExprKind::Aggregate(a) if matches!(a.op, AggregateOp::Stddev | AggregateOp::Stdvar))
            })
        },
    },
    Known {
        name: "range vectors with @ in functions of time",
        since: "2.51.0",
        note: "#13559: fix wrongly scoped range vectors with @ modifier",
        explains: |asked| {
            matches!(asked.when, When::Over { .. })
                && asked.has_function(Function::PredictLinear)
                && asked.query.contains('@')
        },
    },
    Known {
        name: "functions leave native histograms out",
        since: "3.3.0",
        note: "3.0.0 to 3.3.0 (#14941, #15169, #15245, #15479, #15711, #15964): functions, operators and aggregations of \
               floats ignore native histograms, which 2.42 takes for floats of 0",
        explains: |asked| asked.reads_native_histograms() && asked.any(is_for_floats),
    },
    Known {
        name: "label_replace and label_join keep native histograms",
        since: "2.44.0",
        note: "until then both made floats of 0 of them",
        explains: |asked| {
            let functions = [Function::LabelReplace, Function::LabelJoin];
            asked.reads_native_histograms() && functions.iter().any(|func| asked.has_function(*func))
        },
    },
    Known {
        name: "extrapolation of rates",
        since: "2.51.0",
        note: "#13725: constrain extrapolation in rate() to half of sample interval",
        explains: |asked| {
            let rates = [Function::Rate, Function::Increase, Function::Delta];
            asked.same_series() && rates.iter().any(|rate| asked.has_function(*rate))
        },
    },
    Known {
        name: "patterns in errors",
        since: "2.52.0",
        note: "#13461: patterns are parsed before they are anchored, so errors show them without the anchors",
        explains: |asked| asked.both_refuse("error parsing regexp", "error parsing regexp"),
    },
    Known {
        name: "ties in topk and bottomk",
        since: "2.44.0",
        note: "#12190: faster heap method for topk() and bottomk(); which of equal values stay is left open",
        explains: |asked| {
            asked.any(|kind| {
                matches!(kind, ExprKind::Aggregate(a) if matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk))
            })
        },
    },
    Known {
        name: "any label name in label_replace",
        since: "3.3.0",
        note: "#15974: allow UTF-8 labels in label_replace()",
        explains: |asked| asked.they_refuse(&["invalid destination label name", "invalid source label name"]),
    },
    Known {
        name: "histogram_fraction of buckets",
        since: "3.4.0",
        note: "#16095: histogram_fraction for bucket histograms",
        explains: |asked| asked.has_function(Function::HistogramFraction),
    },
    Known {
        name: "extrapolation of native histograms",
        since: "3.6.0",
        note: "#16828: fix extrapolation for native counter histograms; 2.51.0 (#13725): at most half an interval",
        explains: |asked| {
            let rates = [Function::Rate, Function::Increase, Function::Delta];
            asked.reads_native_histograms() && rates.iter().any(|rate| asked.has_function(*rate))
        },
    },
    Known {
        name: "interpolation in native histograms",
        since: "3.0.0",
        note: "#14677: introduce exponential interpolation for native histograms",
        explains: |asked| {
            let inner = [Function::HistogramQuantile, Function::HistogramFraction];
            asked.reads_native_histograms() && inner.iter().any(|func| asked.has_function(*func))
        },
    },
    Known {
        name: "aggregations of floats and native histograms",
        since: "3.1.0",
        note: "#15432, #15422: fix behaviour of some aggregations with histograms",
        explains: |asked| {
            asked.reads_native_histograms()
                && asked.any(|kind| matches!(kind, ExprKind::Aggregate(a) if a.op != AggregateOp::Sum))
        },
    },
];

/// Whether a node computes with floats alone.
fn is_for_floats(kind: &ExprKind) -> bool {
    use Function as F;
    match kind {
        ExprKind::Call(call) => !matches!(
            call.func,
            F::Rate
                | F::Increase
                | F::Delta
                | F::HistogramCount
                | F::HistogramSum
                | F::HistogramQuantile
                | F::HistogramFraction
                | F::LabelReplace
                | F::LabelJoin
                | F::Absent
                | F::AbsentOverTime
                | F::CountOverTime
                | F::PresentOverTime
        ),
        ExprKind::Binary(_) | ExprKind::Unary(..) => true,
        _ => false,
    }
}

/// The change that explains a difference, if there is one.
pub(super) fn explanation(asked: &Asked<'_>) -> Option<&'static Known> {
    KNOWN.iter().find(|known| (known.explains)(asked))
}
