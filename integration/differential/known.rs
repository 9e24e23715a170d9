//! Differences that the versions explain: Debian's Prometheus is 2.42, and Tricord answers as 3.14 does.

use tricord_promql::ast::{Aggregate, AggregateOp, BinaryOp, Call, Expr, ExprKind, UnaryOp};
use tricord_promql::functions::Function;

use super::asked::{Asked, Mismatch, may_be_native};
use super::compare::Point;
use super::sides::When;

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
        // The names are gone from the answer, or something around the operator looks at them.
        explains: |asked| {
            asked.has_operator(BinaryOp::Atan2)
                && (asked.is_same_but_for_names() || asked.query.contains("__name__"))
        },
    },
    Known {
        name: "an empty query has no position",
        since: "2.48.0",
        note: "#12152: positions in annotations and errors; that of an empty query is unknown",
        explains: |asked| {
            asked.both_refuse(
                &["unknown position: parse error: no expression found"],
                &["1:1: parse error: no expression found"],
            )
        },
    },
    Known {
        name: "numbers with underscores",
        since: "2.54.0",
        note: "#12821: accept underscores in literal numbers; what is no number is found by the lexer",
        explains: |asked| {
            asked.both_refuse(
                &["bad number or duration syntax", "error parsing number"],
                &["bad number or duration syntax", "error parsing number", "unexpected number"],
            )
        },
    },
    Known {
        name: "numbers and durations are interchangeable",
        since: "2.54.0",
        note: "#9138: float literal numbers and durations are now interchangeable",
        explains: |asked| {
            asked.is_read_further()
                && asked.they_refuse(&[
                    "unexpected duration",
                    "unexpected number",
                    "missing unit character in duration",
                    // As a duration could not begin an argument.
                    "trailing commas",
                ])
        },
    },
    Known {
        name: "durations are expressions",
        since: "3.4.0",
        note: "#16249: allow arithmetic operations in durations; on by default since 3.14.0 (#19033)",
        explains: |asked| {
            asked.is_read_further()
                && asked.they_refuse(&[
                    "expected duration",
                    "bad duration syntax",
                    "not a valid duration string",
                ])
        },
    },
    Known {
        name: "what follows a duration in brackets",
        since: "3.6.0",
        note: "#16777: with step(), min() and max() of durations, only a colon is taken for a colon",
        explains: |asked| asked.both_refuse(&["expected ':'"], &["unexpected colon"]),
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
            let filters = |kind: &ExprKind| match kind {
                ExprKind::Binary(b) => b.op.is_comparison() && !b.return_bool && b.matching.is_some(),
                _ => false,
            };
            asked.we_refuse(&texts) && asked.any(filters)
        },
    },
    Known {
        name: "the last digit of powers and trigonometry, made a label",
        since: "no release",
        note: "Go has powers, sines and their kin of its own, which may differ from others in the last digit; answers \
               are compared with some room, but a label shows all digits",
        explains: |asked| {
            asked.any(|kind| {
                matches!(kind, ExprKind::Aggregate(a) if a.op == AggregateOp::CountValues
                    && is_of_another_library(&a.expr))
            })
        },
    },
    Known {
        name: "strings in parentheses",
        since: "3.7.0",
        note: "#16896: constant expressions are not wrapped as invariant, which a string in parentheses did not survive",
        explains: |asked| {
            asked.they_refuse(&["unexpected result in StepInvariantExpr evaluation"])
                && asked.ends_with(|kind| matches!(kind, ExprKind::String(_)))
        },
    },
    Known {
        name: "averages over time are sums first",
        since: "3.5.0",
        note: "#14413 (2.55.0), #16773: avg_over_time adds up before it divides, so an average of zero has no rest, which \
               2.42 may carry into roots, logarithms and comparisons",
        explains: |asked| {
            let averages = |kind: &ExprKind| is_call(kind, &[Function::AvgOverTime], |_| true);
            let is_zero =
                |m: &Mismatch<'_>| m.floats().is_some_and(|(ours, _)| ours == 0.0 || !ours.is_finite());
            asked.any(averages) && !asked.ends_with(averages) && asked.differs_only(is_zero)
        },
    },
    Known {
        name: "resets of native histograms",
        since: "3.1.0",
        note: "#15527: resets() compares native histograms, which 2.42 takes for floats of 0",
        explains: |asked| {
            let resets = |kind: &ExprKind| is_call(kind, &[Function::Resets], may_be_native);
            let is_more = |m: &Mismatch<'_>| {
                m.floats().is_some_and(|(ours, theirs)| ours.fract() == 0.0 && ours > theirs)
            };
            asked.any(resets) && (!asked.ends_with(resets) || asked.differs_only(is_more))
        },
    },
    Known {
        name: "@ is printed by its sign",
        since: "3.8.0",
        note: "commit 8d4876f944: add string representation for AT token",
        explains: |asked| asked.both_refuse(&["<op:@>"], &["<Item 57385>"]),
    },
    Known {
        name: "names in quotes",
        since: "3.0.0",
        note: "UTF-8 support: metric and label names may be quoted",
        explains: |asked| {
            // Without quotes a colon is refused no longer either.
            asked.they_refuse(&["unexpected string", "unexpected metric identifier"])
                && asked.they_refuse(&["in label matching", "in grouping opts"])
        },
    },
    Known {
        name: "start(), end(), step() and range() are functions",
        since: "3.12.0",
        note: "#17877: add start(), end(), range(), and step() experimental functions",
        explains: |asked| {
            let lower: String =
                asked.query.to_ascii_lowercase().chars().filter(|c| !c.is_ascii_whitespace()).collect();
            asked.is_read_further()
                && asked.they_refuse(&["unexpected \"(\"", "unknown function with name"])
                && ["start(", "end(", "step(", "range("].iter().any(|call| lower.contains(call))
        },
    },
    Known {
        name: "infinity in stddev and stdvar",
        since: "3.0.0",
        note: "#14941: fix stddev+stdvar aggregations to treat Infinity consistently",
        explains: |asked| {
            let is_deviation = |kind: &ExprKind| match kind {
                ExprKind::Aggregate(a) => matches!(a.op, AggregateOp::Stddev | AggregateOp::Stdvar),
                _ => false,
            };
            // Around them a NaN may be anything.
            let is_nan =
                |m: &Mismatch<'_>| m.floats().is_some_and(|(ours, theirs)| ours.is_nan() || theirs.is_nan());
            asked.any(is_deviation) && (!asked.ends_with(is_deviation) || asked.differs_only(is_nan))
        },
    },
    Known {
        name: "range vectors with @ in functions of time",
        since: "2.51.0",
        note: "#13559: fix wrongly scoped range vectors with @ modifier",
        explains: |asked| {
            let fixed = |expr: &Expr| match &expr.without_parens().kind {
                ExprKind::MatrixSelector(matrix) => matrix.selector.at.is_some(),
                ExprKind::Subquery(subquery) => {
                    subquery.at.is_some() || !subquery.expr.selectors().is_empty()
                }
                _ => false,
            };
            matches!(asked.when, When::Over { .. })
                && asked.query.contains('@')
                && asked.any(|kind| is_call(kind, &[Function::PredictLinear], fixed))
        },
    },
    Known {
        name: "native histograms are negated",
        since: "3.0.0",
        note: "#14821: correctly handle unary negation of native histograms, which was left out until then",
        explains: |asked| {
            let negates = |kind: &ExprKind| matches!(kind, ExprKind::Unary(UnaryOp::Minus, inner) if may_be_native(inner));
            asked.any(negates) && (!asked.ends_with(negates) || asked.differs_only(is_of_histograms))
        },
    },
    Known {
        name: "functions leave native histograms out",
        since: "3.3.0",
        note: "3.0.0 to 3.3.0 (#14941, #15169, #15245, #15479, #15711, #15964): functions, operators and aggregations of \
               floats ignore native histograms, which 2.42 takes for floats of 0",
        // Around them a missing point may be anything, and `scalar()` makes a NaN of it.
        explains: |asked| {
            let is_last = asked.ends_with(is_for_floats) && asked.count(is_for_floats) == 1;
            let is_scalar = |kind: &ExprKind| is_call(kind, &[Function::Scalar], |_| true);
            // What 2.42 makes of histograms may also be of the same name as a float.
            let is_doubled = asked.they_refuse(&["vector cannot contain metrics with the same labelset"]);
            asked.any(is_for_floats)
                && (!is_last
                    || is_doubled
                    || asked.any(is_scalar)
                    || asked.differs_only(|m| m.is_about_native()))
        },
    },
    Known {
        name: "label_replace and label_join keep native histograms",
        since: "2.44.0",
        note: "until then both made floats of 0 of them",
        explains: |asked| {
            let relabels = |kind: &ExprKind| {
                is_call(kind, &[Function::LabelReplace, Function::LabelJoin], may_be_native)
            };
            asked.any(relabels) && (!asked.ends_with(relabels) || asked.differs_only(|m| m.is_their_float()))
        },
    },
    Known {
        name: "extrapolation of rates",
        since: "2.51.0",
        note: "#13725: constrain extrapolation in rate() to half of sample interval",
        // A counter is not extrapolated below zero, and where that was what bounded it, it now goes less far.
        explains: |asked| {
            let rates = |kind: &ExprKind| is_call(kind, &[Function::Rate, Function::Increase], |_| true);
            let smaller =
                |m: &Mismatch<'_>| m.floats().is_some_and(|(ours, theirs)| ours.abs() <= theirs.abs());
            let is_value = |m: &Mismatch<'_>| m.floats().is_some();
            match asked.ends_with(rates) {
                true => asked.differs_only(smaller),
                false => asked.any(rates) && asked.differs_only(is_value),
            }
        },
    },
    Known {
        name: "patterns in errors",
        since: "2.52.0",
        note: "#13461: patterns are parsed before they are anchored, so errors show them without the anchors",
        explains: |asked| asked.both_refuse(&["error parsing regexp"], &["error parsing regexp"]),
    },
    Known {
        name: "ties in topk and bottomk",
        since: "2.44.0",
        note: "#12190: faster heap method for topk() and bottomk(); which of equal values stay is left open",
        explains: |asked| {
            let chooses = |kind: &ExprKind| match kind {
                ExprKind::Aggregate(a) => matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk),
                _ => false,
            };
            asked.any(chooses) && (!asked.ends_with(chooses) || asked.is_same_but_for_labels())
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
        explains: |asked| {
            let fraction = |kind: &ExprKind| is_call(kind, &[Function::HistogramFraction], |_| true);
            let is_ours = |m: &Mismatch<'_>| m.theirs.is_none();
            asked.any(fraction) && (!asked.ends_with(fraction) || asked.differs_only(is_ours))
        },
    },
    Known {
        name: "extrapolation of native histograms",
        since: "3.6.0",
        note: "#16828: fix extrapolation for native counter histograms; 2.51.0 (#13725): at most half an interval",
        explains: |asked| {
            let rates = [Function::Rate, Function::Increase, Function::Delta];
            let is_rate = |kind: &ExprKind| is_call(kind, &rates, may_be_native);
            asked.any(is_rate) && (!asked.ends_with(is_rate) || asked.differs_only(is_of_histograms))
        },
    },
    Known {
        name: "interpolation in native histograms",
        since: "3.0.0",
        note: "#14677: introduce exponential interpolation for native histograms",
        explains: |asked| {
            let inner = [Function::HistogramQuantile, Function::HistogramFraction];
            let reads = |kind: &ExprKind| is_call(kind, &inner, may_be_native);
            let is_value = |m: &Mismatch<'_>| m.floats().is_some();
            asked.any(reads) && (!asked.ends_with(reads) || asked.differs_only(is_value))
        },
    },
    Known {
        name: "aggregations of floats and native histograms",
        since: "3.1.0",
        note: "#15432, #15422: fix behaviour of some aggregations with histograms",
        explains: |asked| {
            asked.any(
                |kind| matches!(kind, ExprKind::Aggregate(a) if is_of_values(a) && may_be_native(&a.expr)),
            )
        },
    },
];

/// What Go computes by itself.
const IN_ANOTHER_LIBRARY: [Function; 16] = [
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

/// Whether an expression computes something that Go does by itself.
fn is_of_another_library(expr: &Expr) -> bool {
    let mut found = false;
    expr.walk(&mut |part| {
        found |= is_call(&part.kind, &IN_ANOTHER_LIBRARY, |_| true)
            || matches!(&part.kind, ExprKind::Binary(binary) if binary.op == BinaryOp::Pow);
    });
    found
}

/// Whether a node calls one of these functions with an argument of that kind.
fn is_call(kind: &ExprKind, functions: &[Function], of: impl Fn(&Expr) -> bool) -> bool {
    matches!(kind, ExprKind::Call(Call { func, args }) if functions.contains(func) && args.iter().any(of))
}

/// Whether an aggregation computes with values.
fn is_of_values(aggregate: &Aggregate) -> bool {
    !matches!(aggregate.op, AggregateOp::Sum | AggregateOp::Count | AggregateOp::Group)
}

/// Whether a node computes with floats alone, and may be given native histograms.
fn is_for_floats(kind: &ExprKind) -> bool {
    use Function as F;
    match kind {
        ExprKind::Call(call) => {
            let reads_all = matches!(
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
                    | F::Timestamp
            );
            !reads_all && call.args.iter().any(may_be_native)
        }
        ExprKind::Binary(binary) => {
            !binary.op.is_set() && (may_be_native(&binary.lhs) || may_be_native(&binary.rhs))
        }
        _ => false,
    }
}

/// Whether both have a histogram.
fn is_of_histograms(mismatch: &Mismatch<'_>) -> bool {
    matches!((mismatch.ours, mismatch.theirs), (Some(Point::Histogram(_)), Some(Point::Histogram(_))))
}

/// The change that explains a difference, if there is one.
pub(super) fn explanation(asked: &Asked<'_>) -> Option<&'static Known> {
    KNOWN.iter().find(|known| (known.explains)(asked))
}
