//! Native histograms, which 2.42 knew as an experiment.

use tricord_promql::ast::{ExprKind, UnaryOp};
use tricord_promql::functions::Function;

use super::{Known, is_call, is_for_floats, is_of_histograms, is_of_values};
use crate::differential::asked::{Mismatch, may_be_native};

pub(super) const NATIVE: &[Known] = &[
    Known {
        name: "resets and changes of native histograms",
        since: "3.1.0",
        note: "#15527, #15469: resets() and changes() compare native histograms, which 2.42 takes for floats of 0",
        explains: |asked| {
            let counts = [Function::Resets, Function::Changes];
            let counts = |kind: &ExprKind| is_call(kind, &counts, may_be_native);
            let is_more = |m: &Mismatch<'_>| {
                m.floats().is_some_and(|(ours, theirs)| ours.fract() == 0.0 && ours > theirs)
            };
            asked.any(counts) && (!asked.ends_with(counts) || asked.differs_only(is_more))
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
            // What 2.42 makes of histograms may also have the labels of a float, or meet the same series as one.
            let is_doubled = asked.they_refuse(&[
                "vector cannot contain metrics with the same labelset",
                "multiple matches for labels",
            ]);
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
