//! `info`: enriches series with the labels of info metrics that share their `job` and `instance`.

use std::collections::{BTreeMap, HashMap};

use tricord_model::{Labels, METRIC_NAME, MatchOp, Matcher};

use super::binary::Cell;
use super::matching::Output;
use super::selector::{Facet, Reference};
use super::{EvalError, Evaluator, Result, unwrap_parens};
use crate::ast::{Call, Expr, ExprKind, VectorSelector};
use crate::value::{Column, Grid, QueryValue, is_absent};

const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The matchers that choose info metrics by name, and those on their labels.
struct InfoMatchers {
    names: Vec<Matcher>,
    labels: Vec<Matcher>,
}

impl InfoMatchers {
    fn of(call: &Call) -> Result<Self> {
        let by_default = || Matcher::equal(METRIC_NAME, "target_info");
        let Some(arg) = call.args.get(1) else {
            return Ok(Self { names: vec![by_default()], labels: vec![] });
        };
        let ExprKind::VectorSelector(selector) = &unwrap_parens(arg).kind else {
            return Err(EvalError::BadData(
                "expected label selectors only in info's second argument".to_owned(),
            ));
        };
        let (mut names, labels): (Vec<_>, Vec<_>) =
            selector.matchers.iter().cloned().partition(|matcher| matcher.name == METRIC_NAME);
        if names.is_empty() {
            names.push(by_default());
        } else if !names.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regex)) {
            let any_info = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info");
            names.insert(0, any_info.map_err(|error| EvalError::BadData(error.to_string()))?);
        }
        Ok(Self { names, labels })
    }

    fn is_info(&self, labels: &Labels) -> bool {
        self.names.iter().all(|matcher| matcher.matches(labels.name()))
    }

    fn wants(&self, label: &str) -> bool {
        label != METRIC_NAME
            && (self.labels.is_empty() || self.labels.iter().any(|matcher| matcher.name == label))
    }

    fn match_empty(&self) -> bool {
        self.labels.iter().all(Matcher::matches_empty)
    }
}

/// The info series of one name that share their identifying labels.
type InfoGroup = Vec<usize>;

fn identity(labels: &Labels) -> Labels {
    labels.filtered(|name| IDENTIFYING.contains(&name))
}

impl Evaluator<'_> {
    pub(super) fn info(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let matchers = InfoMatchers::of(call)?;
        let base = self.eval_columns(&call.args[0], grid)?;
        let info = self.info_series(call, &matchers, &base, grid)?;
        let mut groups: HashMap<Labels, BTreeMap<String, InfoGroup>> = HashMap::new();
        for (at, column) in info.iter().enumerate() {
            let by_name = groups.entry(identity(&column.labels)).or_default();
            by_name.entry(column.labels.name().to_owned()).or_default().push(at);
        }
        let mut output = Output::new(grid.steps());
        let none = BTreeMap::new();
        for column in &base {
            self.check_cancelled()?;
            let is_info = matchers.is_info(&column.labels);
            let by_name = groups.get(&identity(&column.labels)).filter(|_| !is_info).unwrap_or(&none);
            let mut histogram = 0;
            // Labels change rarely from step to step: the place of the result is looked up when the sources change.
            let mut last: Option<(Vec<usize>, Option<usize>)> = None;
            for step in 0..grid.steps() {
                let Some(cell) = Cell::at(column, step, &mut histogram) else { continue };
                let mut sources = Vec::with_capacity(by_name.len());
                for group in by_name.values() {
                    sources.extend(newest(&info, group, step)?);
                }
                if last.as_ref().is_none_or(|(known, _)| *known != sources) {
                    let labels = enriched(&column.labels, &sources, &info, &matchers, is_info)?;
                    let place = labels.map(|labels| output.place(&labels, false));
                    last = Some((sources, place));
                }
                if let Some((_, Some(place))) = last {
                    output.put(place, step, cell)?;
                }
            }
        }
        Ok(QueryValue::Vector(output.finish()))
    }

    /// The info series that can match any of the base series, as columns of their samples' times.
    fn info_series(
        &mut self,
        call: &Call,
        matchers: &InfoMatchers,
        base: &[Column],
        grid: Grid,
    ) -> Result<Vec<Column>> {
        let mut selection: Vec<Matcher> = Vec::new();
        for name in IDENTIFYING {
            let mut values: Vec<&str> = base
                .iter()
                .filter(|column| !matchers.is_info(&column.labels))
                .filter_map(|column| column.labels.get(name))
                .collect();
            values.sort_unstable();
            values.dedup();
            if values.is_empty() {
                continue;
            }
            let pattern = values.iter().map(|value| escape(value)).collect::<Vec<_>>().join("|");
            let matcher = Matcher::new(name, MatchOp::Regex, &pattern);
            selection.push(matcher.map_err(|error| EvalError::Execution(error.to_string()))?);
        }
        if selection.is_empty() {
            return Ok(vec![]);
        }
        selection.extend(matchers.labels.iter().cloned());
        selection.extend(matchers.names.iter().cloned());
        let reference = match first_selector(&call.args[0]) {
            Some(selector) => self.reference(selector)?,
            None => Reference { at_ms: None, offset_ms: 0 },
        };
        let (first, last) = reference.span(grid);
        let series = self.select(&selection, first.saturating_sub(self.options.lookback_ms), last)?;
        self.check_cells(series.len(), grid.steps())?;
        let mut columns = Vec::with_capacity(series.len());
        for (labels, points) in series {
            if !points.histograms.is_empty()
                && !self.latest(labels.clone(), &points, reference, grid, Facet::Value).histograms.is_empty()
            {
                let text = format!("this should be an info metric, with float samples: {labels}");
                return Err(EvalError::Execution(text));
            }
            let column = self.latest(labels, &points, reference, grid, Facet::Timestamp);
            if !column.is_empty() {
                columns.push(column);
            }
        }
        self.tally.columns(&columns, reference.at_ms.is_some());
        Ok(columns)
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The series of a group with the newest sample at a step.
fn newest(info: &[Column], group: &[usize], step: usize) -> Result<Option<usize>> {
    let mut found: Option<usize> = None;
    for at in group.iter().filter(|at| !is_absent(info[**at].floats[step])) {
        let Some(known) = found else {
            found = Some(*at);
            continue;
        };
        let (old, new) = (&info[known], &info[*at]);
        if old.floats[step] == new.floats[step] {
            let t_ms = (new.floats[step] * 1000.0) as i64;
            let text = "found duplicate series for info metric";
            return Err(EvalError::Execution(format!(
                "{text}: existing {} @ {t_ms}, new {} @ {t_ms}",
                old.labels, new.labels
            )));
        }
        if new.floats[step] > old.floats[step] {
            found = Some(*at);
        }
    }
    Ok(found)
}

/// The labels of a base series with those of its info series; `None` where the label matchers leave it out.
fn enriched(
    base: &Labels,
    sources: &[usize],
    info: &[Column],
    matchers: &InfoMatchers,
    is_info: bool,
) -> Result<Option<Labels>> {
    if is_info {
        return Ok(Some(base.clone()));
    }
    let mut added = Labels::empty().to_builder();
    for source in sources {
        for (name, value) in info[*source].labels.iter().filter(|(name, _)| matchers.wants(name)) {
            if added.get(name).is_some_and(|known| known != value) {
                return Err(EvalError::Execution(format!("conflicting label: {name}")));
            }
            if base.get(name).is_none() {
                added.set(name, value);
            }
        }
    }
    if sources.is_empty() && !matchers.match_empty() {
        return Ok(None);
    }
    let mut builder = base.to_builder();
    for (name, value) in added.finish().iter() {
        builder.set(name, value);
    }
    Ok(Some(builder.finish()))
}

/// The first selector in an expression: its `@` and offset move the series of `info` too.
#[must_use]
pub fn first_selector(expr: &Expr) -> Option<&VectorSelector> {
    match &expr.kind {
        ExprKind::VectorSelector(selector) => Some(selector),
        ExprKind::MatrixSelector(matrix) => Some(&matrix.selector),
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => first_selector(inner),
        ExprKind::Binary(binary) => first_selector(&binary.lhs).or_else(|| first_selector(&binary.rhs)),
        ExprKind::Aggregate(aggregate) => first_selector(&aggregate.expr),
        ExprKind::Call(call) => call.args.iter().find_map(first_selector),
        ExprKind::Subquery(subquery) => first_selector(&subquery.expr),
        ExprKind::Remote(remote) => remote.selector.as_deref(),
        ExprKind::Number(_) | ExprKind::String(_) => None,
    }
}
