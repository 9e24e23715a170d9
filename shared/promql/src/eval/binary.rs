//! Binary operators between scalars, and between a vector and a scalar; those between vectors are in `matching`.

use std::sync::Arc;

use tricord_model::{CounterResetHint, FloatHistogram};

use super::naming::drop_name;
use super::notes::{HistogramOp, Notes};
use super::{EvalError, Evaluator, Result, merge_same_labels};
use crate::ast::{Binary, BinaryOp, Pos};
use crate::histogram::{self, Combined, Incompatible};
use crate::kernels::math::{compare, scalar_operator};
use crate::value::{ABSENT, Column, Grid, QueryValue, is_absent};

/// A value of a vector at one step.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl Cell {
    /// The value of a column at a step; `histogram` walks the column's histograms as steps ascend.
    pub(super) fn at(column: &Column, step: usize, histogram: &mut usize) -> Option<Self> {
        let value = column.floats[step];
        if !is_absent(value) {
            return Some(Self::Float(value));
        }
        while column.histograms.get(*histogram).is_some_and(|(at, _)| (*at as usize) < step) {
            *histogram += 1;
        }
        let (at, found) = column.histograms.get(*histogram)?;
        (*at as usize == step).then(|| Self::Histogram(Arc::clone(found)))
    }

    /// Puts the value into a column.
    pub(super) fn put(self, column: &mut Column, step: usize) {
        match self {
            Self::Float(value) => column.floats[step] = value,
            Self::Histogram(histogram) => column.histograms.push((step as u32, histogram)),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Whether an operator makes another metric of its operands.
pub(super) fn changes_schema(op: BinaryOp) -> bool {
    use BinaryOp as B;
    matches!(op, B::Add | B::Sub | B::Div | B::Mul | B::Pow | B::Mod | B::Atan2)
}

/// The value of an operator for two values, and whether a comparison holds; `None` where it is not defined for them,
/// with a note.
pub(super) fn operate(
    op: BinaryOp,
    lhs: &Cell,
    rhs: &Cell,
    pos: Pos,
    notes: &mut Notes,
) -> Option<(Cell, bool)> {
    use BinaryOp as B;
    let histogram = |histogram: FloatHistogram| Some((Cell::Histogram(Arc::new(histogram)), true));
    let compacted = |mut value: FloatHistogram| {
        histogram::compact(&mut value);
        histogram(value)
    };
    match (lhs, rhs) {
        (Cell::Float(a), Cell::Float(b)) if !matches!(op, B::TrimUpper | B::TrimLower) => {
            return Some(match op.is_comparison() {
                true => (Cell::Float(*a), compare(op, *a, *b)),
                false => (Cell::Float(scalar_operator(op, *a, *b)), true),
            });
        }
        (Cell::Float(factor), Cell::Histogram(h)) | (Cell::Histogram(h), Cell::Float(factor))
            if op == B::Mul =>
        {
            let mut product = (**h).clone();
            histogram::scale(&mut product, *factor);
            return compacted(product);
        }
        (Cell::Histogram(h), Cell::Float(divisor)) if op == B::Div => {
            let mut quotient = (**h).clone();
            histogram::divide(&mut quotient, *divisor);
            return compacted(quotient);
        }
        (Cell::Histogram(h), Cell::Float(bound)) if matches!(op, B::TrimUpper | B::TrimLower) => {
            let mut trimmed = (**h).clone();
            histogram::trim(&mut trimmed, *bound, op == B::TrimUpper);
            return histogram(trimmed);
        }
        (Cell::Histogram(a), Cell::Histogram(b)) if matches!(op, B::Add | B::Sub) => {
            let mut value = (**a).clone();
            let combined = match op {
                B::Add => histogram::add(&mut value, b),
                _ => histogram::subtract(&mut value, b),
            };
            if op == B::Sub {
                value.counter_reset_hint = CounterResetHint::Gauge;
            }
            return note_combination(combined, op, pos, notes).and_then(|()| compacted(value));
        }
        (Cell::Histogram(a), Cell::Histogram(b)) if matches!(op, B::Eql | B::Neq) => {
            let keep = histogram::equals(a, b) == (op == B::Eql);
            return Some((Cell::Histogram(Arc::clone(a)), keep));
        }
        _ => {}
    }
    notes.incompatible_types(pos, lhs.kind(), op.as_str(), rhs.kind());
    None
}

fn note_combination(
    combined: std::result::Result<Combined, Incompatible>,
    op: BinaryOp,
    pos: Pos,
    notes: &mut Notes,
) -> Option<()> {
    let as_histogram_op = if op == BinaryOp::Add { HistogramOp::Add } else { HistogramOp::Sub };
    match combined {
        Ok(combined) => {
            if combined.reset_collision {
                notes.reset_collision(pos, as_histogram_op);
            }
            if combined.bounds_reconciled {
                notes.mismatched_custom_buckets(pos, as_histogram_op);
            }
            Some(())
        }
        Err(Incompatible) => {
            notes.incompatible_buckets(pos, op.as_str());
            None
        }
    }
}

impl Evaluator<'_> {
    pub(super) fn binary(&mut self, binary: &Binary, pos: Pos, grid: Grid) -> Result<QueryValue> {
        let lhs = self.eval(&binary.lhs, grid)?;
        let rhs = self.eval(&binary.rhs, grid)?;
        match (lhs, rhs) {
            (QueryValue::Scalar(mut a), QueryValue::Scalar(b)) => {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = scalar_operator(binary.op, *a, b));
                Ok(QueryValue::Scalar(a))
            }
            (QueryValue::Vector(columns), QueryValue::Scalar(scalar)) => {
                self.vector_scalar(binary, columns, &scalar, false, pos)
            }
            (QueryValue::Scalar(scalar), QueryValue::Vector(columns)) => {
                self.vector_scalar(binary, columns, &scalar, true, pos)
            }
            (QueryValue::Vector(lhs), QueryValue::Vector(rhs)) => {
                self.vector_vector(binary, lhs, rhs, grid.steps(), pos).map(QueryValue::Vector)
            }
            _ => Err(EvalError::BadData("binary operators need scalars or instant vectors".to_owned())),
        }
    }

    /// Applies an operator to each series and a scalar; `swapped` where the scalar is on the left.
    fn vector_scalar(
        &mut self,
        binary: &Binary,
        mut columns: Vec<Column>,
        scalar: &[f64],
        swapped: bool,
        pos: Pos,
    ) -> Result<QueryValue> {
        for column in &mut columns {
            self.check_cancelled()?;
            self.column_scalar(binary, column, scalar, swapped, pos);
        }
        columns.retain(|column| !column.is_empty());
        let columns = if self.options.delayed_name_removal { columns } else { merge_same_labels(columns)? };
        Ok(QueryValue::Vector(columns))
    }

    fn column_scalar(
        &mut self,
        binary: &Binary,
        column: &mut Column,
        scalar: &[f64],
        swapped: bool,
        pos: Pos,
    ) {
        let op = binary.op;
        let trims = matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        for (step, value) in column.floats.iter_mut().enumerate() {
            if is_absent(*value) || trims {
                continue;
            }
            let (a, b) = if swapped { (scalar[step], *value) } else { (*value, scalar[step]) };
            if !op.is_comparison() {
                *value = scalar_operator(op, a, b);
            } else if binary.return_bool {
                *value = f64::from(u8::from(compare(op, a, b)));
            } else if !compare(op, a, b) {
                // The series' own value stays, whichever side it stands on.
                *value = ABSENT;
            }
        }
        if trims {
            if column.floats.iter().any(|value| !is_absent(*value)) {
                self.notes.incompatible_types(pos, "float", op.as_str(), "float");
            }
            column.floats.fill(ABSENT);
        }
        let histograms = std::mem::take(&mut column.histograms);
        for (step, histogram) in histograms {
            let at = step as usize;
            let (own, other) = (Cell::Histogram(histogram), Cell::Float(scalar[at]));
            let result = match swapped {
                true => operate(op, &other, &own, pos, &mut self.notes),
                false => operate(op, &own, &other, pos, &mut self.notes),
            };
            match result {
                Some((_, keep)) if binary.return_bool => column.floats[at] = f64::from(u8::from(keep)),
                Some((cell, true)) => cell.put(column, at),
                _ => {}
            }
        }
        if changes_schema(op) || binary.return_bool {
            drop_name(column, self.options.delayed_name_removal);
        }
    }

    /// Unary minus.
    pub(super) fn negate(&mut self, value: QueryValue) -> Result<QueryValue> {
        Ok(match value {
            QueryValue::Scalar(values) => {
                QueryValue::Scalar(values.into_iter().map(|value| -value).collect())
            }
            QueryValue::Vector(mut columns) => {
                for column in &mut columns {
                    column
                        .floats
                        .iter_mut()
                        .filter(|value| !is_absent(**value))
                        .for_each(|value| *value = -*value);
                    for (_, histogram) in &mut column.histograms {
                        histogram::scale(Arc::make_mut(histogram), -1.0);
                    }
                    drop_name(column, self.options.delayed_name_removal);
                }
                match self.options.delayed_name_removal {
                    true => QueryValue::Vector(columns),
                    false => QueryValue::Vector(merge_same_labels(columns)?),
                }
            }
            other => other,
        })
    }
}
