//! Subqueries: an expression evaluated over a grid of its own, whose columns then serve as samples.

use std::sync::Arc;

use tricord_model::{CounterResetHint, FloatHistogram};

use super::duration::subquery_grid;
use super::range::{RangeSeries, Track};
use super::tally::Around;
use super::{EvalError, Evaluator, Result};
use crate::ast::Subquery;
use crate::value::{Column, Grid, QueryValue, is_absent};

impl Evaluator<'_> {
    /// The columns of a subquery's body, over the grid that [`subquery_grid`] gives, and how many samples its steps
    /// take where they are counted.
    fn subquery_columns(&mut self, subquery: &Subquery, around: Around) -> Result<(Grid, Vec<Column>, u64)> {
        let inner = subquery_grid(subquery, around.grid, self.options)?;
        self.check_cells(1, inner.steps())?;
        let reading = self.reading;
        // Resets between the steps of a subquery are found by comparing buckets.
        self.reading.buckets = true;
        let (value, samples) =
            self.tally_subquery(inner, around, |evaluator| evaluator.eval(&subquery.expr, inner));
        self.reading = reading;
        let columns = match value? {
            QueryValue::Vector(columns) => columns,
            QueryValue::Scalar(floats) => {
                let labels = tricord_model::Labels::empty();
                vec![Column { labels, drop_name: false, floats, histograms: vec![] }]
            }
            _ => return Err(EvalError::BadData("subquery is only allowed on instant vector".to_owned())),
        };
        Ok((inner, columns, samples))
    }

    /// The samples of a subquery, as input of a range function.
    pub(super) fn subquery_series(
        &mut self,
        subquery: &Subquery,
        around: Around,
    ) -> Result<Vec<RangeSeries>> {
        let (inner, columns, _) = self.subquery_columns(subquery, around)?;
        Ok(columns.into_iter().map(|column| to_series(column, inner)).collect())
    }

    /// A subquery at the top of an instant query.
    pub(super) fn subquery_matrix(&mut self, subquery: &Subquery, grid: Grid) -> Result<QueryValue> {
        let around = Around { grid, offset_ms: 0, range_ms: 0, fixed: false };
        let (inner, mut columns, samples) = self.subquery_columns(subquery, around)?;
        self.tally.note(0, samples, 0);
        if self.options.delayed_name_removal {
            columns = super::finish_names(columns)?;
        }
        let series = columns.into_iter().map(|column| {
            let labels = column.labels.clone();
            (labels, to_series(column, inner).into_points())
        });
        Ok(QueryValue::Matrix(series.filter(|(_, points)| !points.is_empty()).collect()))
    }
}

fn to_series(column: Column, grid: Grid) -> RangeSeries {
    let mut floats = Track::default();
    for (step, value) in column.floats.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
        floats.t_ms.push(grid.time(step));
        floats.values.push(*value);
    }
    let mut histograms = Track::default();
    for (step, histogram) in column.histograms {
        histograms.t_ms.push(grid.time(step as usize));
        histograms.values.push(without_reset_hint(histogram));
    }
    RangeSeries { labels: column.labels, drop_name: column.drop_name, floats, histograms }
}

/// Between the steps of a subquery lie samples that it does not see, so that a hint says nothing about its steps.
fn without_reset_hint(histogram: Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match histogram.counter_reset_hint {
        CounterResetHint::Reset | CounterResetHint::NotReset => {
            let unknown =
                FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..(*histogram).clone() };
            Arc::new(unknown)
        }
        _ => histogram,
    }
}
