//! What a question needs beyond plain PromQL, so that results can be counted by kind.

use super::Target;
use super::memory::parser_options;
use super::script::Eval;
use crate::ast::{AggregateOp, BinaryOp, Duration, Expr, ExprKind, RangeMode};
use crate::functions::Function;
use crate::parser::parse;

/// The kinds of a question; one that has none is plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// It reads or yields native histograms.
    pub native_histograms: bool,
    /// It uses experimental functions, aggregations or modifiers.
    pub experimental: bool,
}

impl Classes {
    /// The kinds of a question, given the data that the target holds when it is asked.
    pub fn of(eval: &Eval, target: &dyn Target) -> Self {
        let mut classes = Self::default();
        let of_values = |values: &[super::SequenceValue]| {
            values.iter().any(|value| matches!(value.value, Some(tricord_model::Value::Histogram(_))))
        };
        classes.native_histograms =
            eval.series.iter().any(|(_, values)| of_values(values)) || target.has_histograms(&eval.query);
        if let Ok(expr) = parse(&eval.query, &parser_options()) {
            expr.walk(&mut |node| classes.see(node));
        }
        classes
    }

    /// Whether it is neither.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }

    fn see(&mut self, node: &Expr) {
        let computed = |duration: &Duration| matches!(duration, Duration::Expr(_));
        match &node.kind {
            ExprKind::Call(call) => {
                self.experimental |= call.func.signature().experimental;
                self.native_histograms |= matches!(
                    call.func,
                    Function::HistogramCount
                        | Function::HistogramSum
                        | Function::HistogramAvg
                        | Function::HistogramStddev
                        | Function::HistogramStdvar
                );
            }
            ExprKind::Aggregate(aggregate) => {
                self.experimental |= matches!(aggregate.op, AggregateOp::Limitk | AggregateOp::LimitRatio);
            }
            ExprKind::Binary(binary) => {
                self.native_histograms |= matches!(binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
                let fills = |m: &crate::ast::Matching| m.fill_left.is_some() || m.fill_right.is_some();
                self.experimental |= binary.matching.as_ref().is_some_and(fills);
            }
            ExprKind::VectorSelector(s) => {
                self.experimental |= s.mode != RangeMode::Default || computed(&s.offset)
            }
            ExprKind::MatrixSelector(m) => {
                let selector = &m.selector;
                let moved = selector.mode != RangeMode::Default || computed(&selector.offset);
                self.experimental |= moved || computed(&m.range);
            }
            ExprKind::Subquery(s) => {
                let stepped = s.step.as_ref().is_some_and(computed);
                self.experimental |= computed(&s.range) || computed(&s.offset) || stepped;
            }
            _ => {}
        }
    }
}
