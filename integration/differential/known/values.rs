//! Values and matches of floats.

use tricord_promql::ast::{AggregateOp, BinaryOp, Expr, ExprKind};
use tricord_promql::functions::Function;

use super::{Known, PERIODIC, is_call, is_count_values, is_of_another_library};
use crate::differential::asked::Mismatch;
use crate::differential::sides::When;

pub(super) const VALUES: &[Known] = &[
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
        name: "the last digit of powers and trigonometry",
        since: "no release",
        note: "Go has powers, sines and their kin of its own, which may differ from others in the last digit; answers \
               are compared with some room, but a label shows all digits, and of large numbers it is a part of a turn \
               or, as seconds since 1970, of an hour",
        explains: |asked| {
            asked.any(|kind| match kind {
                ExprKind::Aggregate(a) => a.op == AggregateOp::CountValues && is_of_another_library(&a.expr),
                ExprKind::Binary(b) => b.op == BinaryOp::Mod && is_of_another_library(&b.lhs),
                kind => is_call(kind, &PERIODIC, is_of_another_library),
            })
        },
    },
    Known {
        name: "count_values by several labels over time",
        since: "2.52.0",
        note: "commit 29244fb841: extract count_values implementation; before, each step added the label to a list that \
               steps share, which pushed others out",
        explains: |asked| {
            let of_several = |kind: &ExprKind| match kind {
                ExprKind::Aggregate(a) => {
                    a.op == AggregateOp::CountValues && !a.grouping.without && a.grouping.labels.len() > 2
                }
                _ => false,
            };
            matches!(asked.when, When::Over { .. }) && asked.any(of_several)
        },
    },
    Known {
        name: "the spread of large numbers that lie close together",
        since: "no release",
        note: "Tricord adds up squares without loss; Prometheus follows a mean, which of numbers like timestamps keeps \
               half of the digits of their spread",
        explains: |asked| {
            let is_spread = |kind: &ExprKind| match kind {
                ExprKind::Aggregate(a) => matches!(a.op, AggregateOp::Stddev | AggregateOp::Stdvar),
                kind => is_call(kind, &[Function::StddevOverTime, Function::StdvarOverTime], |_| true),
            };
            let is_near = |m: &Mismatch<'_>| {
                m.floats().is_some_and(|(ours, theirs)| (ours - theirs).abs() <= 1e-6 * ours.abs())
            };
            asked.any(is_spread) && asked.differs_only(is_near)
        },
    },
    Known {
        name: "parameters of aggregations",
        since: "no release",
        note: "Prometheus evaluates an aggregation over what does not change with time once, and with it its parameter, \
               though that may change; and it does not see start() and end() in parameters. Tricord evaluates them as \
               any other expression",
        explains: |asked| {
            let differs = |kind: &ExprKind| match kind {
                ExprKind::Aggregate(a) => a.param.as_ref().is_some_and(|param| {
                    let is_fixed =
                        |expr: &Expr| expr.selectors().iter().all(|selector| selector.at.is_some());
                    !param.selectors().is_empty() && (is_fixed(&a.expr) || is_fixed(param))
                }),
                _ => false,
            };
            matches!(asked.when, When::Over { .. }) && asked.any(differs)
        },
    },
    Known {
        name: "timestamp() of @ with an offset",
        since: "no release",
        note: "Prometheus leaves the offset out where timestamp() is given a selector with @",
        explains: |asked| {
            let moved = |expr: &Expr| match &expr.without_parens().kind {
                ExprKind::VectorSelector(selector) => selector.at.is_some(),
                _ => false,
            };
            asked.query.contains("offset") && asked.any(|kind| is_call(kind, &[Function::Timestamp], moved))
        },
    },
    Known {
        name: "which of two errors is told",
        since: "no release",
        note: "Prometheus evaluates from left to right; Tricord's data nodes evaluate the parts of a query at once, and the \
               first error ends it",
        explains: |asked| {
            let texts = ["same labelset", "found duplicate series", "multiple matches for labels"];
            let sides = |kind: &ExprKind| matches!(kind, ExprKind::Binary(b) if b.matching.is_some());
            asked.both_refuse(&texts, &texts) && asked.count(sides) > 1
        },
    },
    Known {
        name: "a subquery of no step",
        since: "no release",
        note: "what does not change with time is evaluated once even where the range of a subquery holds no step, and Prometheus answers \
               with a point behind the range; Tricord with none",
        explains: |asked| {
            let is_subquery = |kind: &ExprKind| matches!(kind, ExprKind::Subquery(_));
            asked.ends_with(is_subquery) && asked.differs_only(|m| m.ours.is_none()) && asked.has_no_series()
        },
    },
    Known {
        name: "averages are sums first",
        since: "3.5.0",
        note: "#14413 (2.55.0), #16773: averages are added up before they are divided, so an average of zero has no rest, which \
               2.42 may carry into roots, logarithms and comparisons; a label shows all digits",
        explains: |asked| {
            let averages = |kind: &ExprKind| match kind {
                ExprKind::Aggregate(a) => a.op == AggregateOp::Avg,
                kind => is_call(kind, &[Function::AvgOverTime], |_| true),
            };
            let is_zero =
                |m: &Mismatch<'_>| m.floats().is_some_and(|(ours, _)| ours == 0.0 || !ours.is_finite());
            asked.any(averages)
                && !asked.ends_with(averages)
                && (asked.any(is_count_values)
                    || asked.has_operator(BinaryOp::Mod)
                    || asked.differs_only(is_zero))
        },
    },
    Known {
        name: "infinity in lines through samples",
        since: "2.54.0",
        note: "#14362: a sum with an infinity is one, and no NaN",
        explains: |asked| {
            let lines =
                |kind: &ExprKind| is_call(kind, &[Function::Deriv, Function::PredictLinear], |_| true);
            let is_nan = |m: &Mismatch<'_>| m.floats().is_some_and(|(_, theirs)| theirs.is_nan());
            asked.any(lines) && (!asked.ends_with(lines) || asked.differs_only(is_nan))
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
        note: "#13559: fix wrongly scoped range vectors with @ modifier, where another argument changes with time",
        explains: |asked| {
            let fixed = |expr: &Expr| match &expr.without_parens().kind {
                ExprKind::MatrixSelector(matrix) => matrix.selector.at.is_some(),
                ExprKind::Subquery(subquery) => {
                    subquery.at.is_some() || !subquery.expr.selectors().is_empty()
                }
                _ => false,
            };
            let over_time = |kind: &ExprKind| matches!(kind, ExprKind::Subquery(_));
            (matches!(asked.when, When::Over { .. }) || asked.any(over_time))
                && asked.query.contains('@')
                && asked
                    .any(|kind| is_call(kind, &[Function::PredictLinear, Function::QuantileOverTime], fixed))
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
                true if asked.count(rates) == 1 => asked.differs_only(smaller),
                _ => asked.any(rates) && (asked.any(is_count_values) || asked.differs_only(is_value)),
            }
        },
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
];
