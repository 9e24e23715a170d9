//! Function calls: dispatch, and the functions that need no file of their own.

use super::duration::{go_max, go_min, step_seconds};
use super::naming::drop_name;
use super::relabel::labels_of_absence;
use super::selector::Facet;
use super::{EvalError, Evaluator, Result, merge_same_labels, unwrap_parens};
use crate::ast::{Call, Expr, ExprKind, Pos};
use crate::functions::Function;
use crate::histogram;
use crate::kernels::math::elementwise;
use crate::value::{ABSENT, Column, Grid, QueryValue, is_absent};
use tricord_model::{FloatHistogram, Labels, METRIC_NAME};

impl Evaluator<'_> {
    pub(super) fn call(&mut self, call: &Call, pos: Pos, grid: Grid) -> Result<QueryValue> {
        use Function as F;
        let is_range = |arg: &Expr| {
            matches!(unwrap_parens(arg).kind, ExprKind::MatrixSelector(_) | ExprKind::Subquery(_))
        };
        if let Some(at) = call.args.iter().position(is_range) {
            return self.range_call(call, at, pos, grid);
        }
        let sorts = matches!(call.func, F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc);
        if sorts && self.options.query.start_ms != self.options.query.end_ms {
            self.notes.sort_in_range(pos);
        }
        match call.func {
            F::LabelReplace => self.label_replace(call, grid),
            F::LabelJoin => self.label_join(call, grid),
            F::Info => self.info(call, grid),
            F::SortByLabel | F::SortByLabelDesc => self.sort_by_label(call, grid),
            F::Sort | F::SortDesc => self.sort(call, grid),
            F::HistogramQuantile | F::HistogramQuantiles | F::HistogramFraction => {
                self.histogram_call(call, grid)
            }
            F::HistogramCount
            | F::HistogramSum
            | F::HistogramAvg
            | F::HistogramStddev
            | F::HistogramStdvar => self.histogram_facts(call, grid),
            F::Timestamp | F::StartTimestamp => self.timestamps(call, grid),
            F::Absent => self.absent(call, grid),
            F::Clamp | F::ClampMin | F::ClampMax => self.clamp(call, grid),
            F::Round => self.round(call, grid),
            F::Vector => {
                let floats = self.eval_scalar(&call.args[0], grid)?;
                let column = Column { labels: Labels::empty(), drop_name: false, floats, histograms: vec![] };
                Ok(QueryValue::Vector(if column.is_empty() { vec![] } else { vec![column] }))
            }
            _ => match elementwise(call.func) {
                Some(function) => self.elementwise(call, grid, function),
                None => self.scalar_call(call, grid),
            },
        }
    }

    fn scalar_call(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        use Function as F;
        let query = self.options.query;
        let constant = |value: f64| Ok(QueryValue::Scalar(vec![value; grid.steps()]));
        match call.func {
            F::Time => {
                let seconds = (0..grid.steps()).map(|step| grid.time(step) as f64 / 1000.0);
                Ok(QueryValue::Scalar(seconds.collect()))
            }
            F::Pi => constant(std::f64::consts::PI),
            F::Start => constant(query.start_ms as f64 / 1000.0),
            F::End => constant(query.end_ms as f64 / 1000.0),
            F::Range => constant((query.end_ms - query.start_ms) as f64 / 1000.0),
            F::Step => constant(step_seconds(query)),
            F::MaxOf | F::MinOf => {
                let (mut a, b) =
                    (self.eval_scalar(&call.args[0], grid)?, self.eval_scalar(&call.args[1], grid)?);
                let pick = if call.func == F::MaxOf { go_max } else { go_min };
                a.iter_mut().zip(b).for_each(|(a, b)| *a = pick(*a, b));
                Ok(QueryValue::Scalar(a))
            }
            F::Scalar => {
                let columns = self.eval_columns(&call.args[0], grid)?;
                let only = |step: usize| {
                    let mut values =
                        columns.iter().map(|column| column.floats[step]).filter(|value| !is_absent(*value));
                    values.next().filter(|_| values.next().is_none()).unwrap_or(f64::NAN)
                };
                Ok(QueryValue::Scalar((0..grid.steps()).map(only).collect()))
            }
            other => Err(EvalError::BadData(format!("unknown function with name {:?}", other.as_str()))),
        }
    }

    /// Applies a function to every float; histograms go.
    fn map_floats(
        &mut self,
        arg: &Expr,
        grid: Grid,
        function: impl Fn(usize, f64) -> f64,
    ) -> Result<QueryValue> {
        let mut columns = self.eval_columns(arg, grid)?;
        for column in &mut columns {
            for (step, value) in column.floats.iter_mut().enumerate().filter(|(_, value)| !is_absent(**value))
            {
                *value = function(step, *value);
            }
            column.histograms.clear();
            drop_name(column, self.options.delayed_name_removal);
        }
        columns.retain(|column| !column.is_empty());
        self.unique(columns)
    }

    /// Names that are dropped at once may leave label sets twice.
    fn unique(&self, columns: Vec<Column>) -> Result<QueryValue> {
        let columns = if self.options.delayed_name_removal { columns } else { merge_same_labels(columns)? };
        Ok(QueryValue::Vector(columns))
    }

    fn elementwise(&mut self, call: &Call, grid: Grid, function: fn(f64) -> f64) -> Result<QueryValue> {
        match call.args.first() {
            Some(arg) => self.map_floats(arg, grid, |_, value| function(value)),
            // Date functions without an argument take the evaluation time.
            None => {
                let floats =
                    (0..grid.steps()).map(|step| function((grid.time(step) / 1000) as f64)).collect();
                let column = Column { labels: Labels::empty(), drop_name: false, floats, histograms: vec![] };
                Ok(QueryValue::Vector(vec![column]))
            }
        }
    }

    fn clamp(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let mut bounds = Vec::new();
        for arg in &call.args[1..] {
            bounds.push(self.eval_scalar(arg, grid)?);
        }
        let bound = |at: usize, step: usize| bounds[at][step];
        let limits = |step: usize| match call.func {
            Function::Clamp => (bound(0, step), bound(1, step)),
            Function::ClampMin => (bound(0, step), f64::INFINITY),
            _ => (f64::NEG_INFINITY, bound(0, step)),
        };
        let value = self.map_floats(&call.args[0], grid, |step, value| {
            let (min, max) = limits(step);
            if max < min { ABSENT } else { go_max(min, go_min(max, value)) }
        })?;
        Ok(match value {
            QueryValue::Vector(mut columns) => {
                columns.retain(|column| !column.is_empty());
                QueryValue::Vector(columns)
            }
            other => other,
        })
    }

    fn round(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let nearest = match call.args.get(1) {
            Some(arg) => self.eval_scalar(arg, grid)?,
            None => vec![1.0; grid.steps()],
        };
        self.map_floats(&call.args[0], grid, |step, value| {
            // The inverse is exact for 0.1 and its like where the number itself is not.
            let inverse = 1.0 / nearest[step];
            (value * inverse + 0.5).floor() / inverse
        })
    }

    fn sort(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let mut columns = self.eval_columns(&call.args[0], grid)?;
        columns.iter_mut().for_each(|column| column.histograms.clear());
        columns.retain(|column| !column.is_empty());
        if grid.steps() == 1 {
            let descending = call.func == Function::SortDesc;
            columns.sort_by(|a, b| {
                let (x, y) = (a.floats[0], b.floats[0]);
                let by_value = match (x.is_nan(), y.is_nan()) {
                    (false, false) if descending => y.total_cmp(&x),
                    (false, false) => x.total_cmp(&y),
                    (x, y) => x.cmp(&y),
                };
                by_value.then_with(|| a.labels.cmp(&b.labels))
            });
        }
        Ok(QueryValue::Vector(columns))
    }

    fn absent(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let columns = self.eval_columns(&call.args[0], grid)?;
        let mut floats = vec![1.0; grid.steps()];
        for column in &columns {
            for (step, value) in floats.iter_mut().enumerate() {
                if !is_absent(column.floats[step]) {
                    *value = ABSENT;
                }
            }
            column.histograms.iter().for_each(|(step, _)| floats[*step as usize] = ABSENT);
        }
        let labels = labels_of_absence(&call.args[0]);
        let column = Column { labels, drop_name: false, floats, histograms: vec![] };
        Ok(QueryValue::Vector(if column.is_empty() { vec![] } else { vec![column] }))
    }

    fn timestamps(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let starts = call.func == Function::StartTimestamp;
        let arg = unwrap_parens(&call.args[0]);
        let mut columns = match &arg.kind {
            // The samples' own times are known for selectors alone.
            ExprKind::VectorSelector(selector) => {
                let facet = if starts { Facet::StartTimestamp } else { Facet::Timestamp };
                self.instant(selector, grid, facet)?
            }
            _ => self.eval_columns(arg, grid)?,
        };
        let of_samples = matches!(arg.kind, ExprKind::VectorSelector(_));
        if starts && !(of_samples && self.options.start_timestamps) {
            return Ok(QueryValue::Vector(vec![]));
        }
        for column in &mut columns {
            if !of_samples {
                let present: Vec<usize> = column.histograms.iter().map(|(step, _)| *step as usize).collect();
                column.histograms.clear();
                for (step, value) in column.floats.iter_mut().enumerate() {
                    if !is_absent(*value) || present.binary_search(&step).is_ok() {
                        *value = grid.time(step) as f64 / 1000.0;
                    }
                }
            }
            drop_name(column, self.options.delayed_name_removal);
        }
        self.unique(columns)
    }

    fn histogram_facts(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let fact: fn(&FloatHistogram) -> f64 = match call.func {
            Function::HistogramCount => |h| h.count,
            Function::HistogramSum => |h| h.sum,
            Function::HistogramAvg => |h| h.sum / h.count,
            Function::HistogramStddev => |h| histogram::variance(h).sqrt(),
            _ => histogram::variance,
        };
        let mut columns = self.eval_columns(&call.args[0], grid)?;
        columns.retain(|column| !column.histograms.is_empty());
        for column in &mut columns {
            column.floats.fill(ABSENT);
            for (step, histogram) in std::mem::take(&mut column.histograms) {
                column.floats[step as usize] = fact(&histogram);
            }
            // Type and unit stay here in Prometheus where the name goes at once.
            match self.options.delayed_name_removal {
                true => drop_name(column, true),
                false => {
                    column.labels = column.labels.filtered(|name| name != METRIC_NAME);
                    column.drop_name = true;
                }
            }
        }
        self.unique(columns)
    }
}
