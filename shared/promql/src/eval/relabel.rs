//! Functions over labels: `label_replace`, `label_join`, sorting by labels, and the labels of what is absent.

use std::cmp::Ordering;

use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;
use tricord_model::{Labels, METRIC_NAME, MatchOp, compile_anchored};

use super::{EvalError, Evaluator, Result, merge_same_labels, string_arg, unwrap_parens};
use crate::ast::{Call, Expr, ExprKind};
use crate::functions::Function;
use crate::kernels::natural;
use crate::value::{Column, Grid, QueryValue};

fn compile(pattern: &str) -> Result<Regex> {
    let invalid =
        |_| EvalError::Execution(format!("invalid regular expression in label_replace(): {pattern}"));
    compile_anchored(pattern).map_err(invalid)
}

/// Puts captured groups into a template: `$1`, `$name`, `${name}`, and `$$` for a dollar sign.
fn expand(template: &str, regex: &Regex, captures: &Captures, text: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let Some((name, tail)) = reference(rest) else {
            out.push('$');
            continue;
        };
        rest = tail;
        let index = match name.parse::<usize>() {
            Ok(index) => Some(index),
            Err(_) => regex.group_info().to_index(regex_automata::PatternID::ZERO, name),
        };
        let found = index.and_then(|index| captures.get_group(index)).and_then(|span| text.get(span.range()));
        out.push_str(found.unwrap_or(""));
    }
    out.push_str(rest);
    out
}

/// The group that the text behind a dollar sign names, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(inner) = text.strip_prefix('{') {
        let (name, tail) = inner.split_once('}')?;
        return (!name.is_empty() && name.chars().all(is_word)).then_some((name, tail));
    }
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn check_label_name(name: &str, role: &str, function: &str) -> Result<()> {
    if !name.is_empty() {
        return Ok(());
    }
    Err(EvalError::Execution(format!("invalid {role} label name in {function}(): {name}")))
}

impl Evaluator<'_> {
    pub(super) fn label_replace(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let (target, template) = (string_arg(call.args.get(1))?, string_arg(call.args.get(2))?);
        let (source, pattern) = (string_arg(call.args.get(3))?, string_arg(call.args.get(4))?);
        let regex = compile(pattern)?;
        check_label_name(target, "destination", "label_replace")?;
        let mut columns = self.eval_columns(&call.args[0], grid)?;
        let mut captures = regex.create_captures();
        for column in &mut columns {
            let text = column.labels.get(source).unwrap_or("");
            regex.captures(text, &mut captures);
            if captures.is_match() {
                let value = expand(template, &regex, &captures, text);
                set_label(column, target, &value);
            }
        }
        merge_same_labels(columns).map(QueryValue::Vector)
    }

    pub(super) fn label_join(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let (target, separator) = (string_arg(call.args.get(1))?, string_arg(call.args.get(2))?);
        let sources = call.args[3..].iter().map(|arg| string_arg(Some(arg))).collect::<Result<Vec<_>>>()?;
        for source in &sources {
            check_label_name(source, "source", "label_join")?;
        }
        check_label_name(target, "destination", "label_join")?;
        let mut columns = self.eval_columns(&call.args[0], grid)?;
        for column in &mut columns {
            let values: Vec<&str> =
                sources.iter().map(|source| column.labels.get(source).unwrap_or("")).collect();
            let value = values.join(separator);
            set_label(column, target, &value);
        }
        merge_same_labels(columns).map(QueryValue::Vector)
    }

    pub(super) fn sort_by_label(&mut self, call: &Call, grid: Grid) -> Result<QueryValue> {
        let names = call.args[1..].iter().map(|arg| string_arg(Some(arg))).collect::<Result<Vec<_>>>()?;
        let mut columns = self.eval_columns(&call.args[0], grid)?;
        let compare = |a: &Labels, b: &Labels| {
            let by_name = |name: &&str| {
                let order = natural::compare(a.get(name).unwrap_or(""), b.get(name).unwrap_or(""));
                (order != Ordering::Equal).then_some(order)
            };
            names.iter().find_map(by_name).unwrap_or_else(|| a.cmp(b))
        };
        columns.sort_by(|a, b| match call.func {
            Function::SortByLabelDesc => compare(&b.labels, &a.labels),
            _ => compare(&a.labels, &b.labels),
        });
        Ok(QueryValue::Vector(columns))
    }
}

fn set_label(column: &mut Column, name: &str, value: &str) {
    let mut builder = column.labels.to_builder();
    builder.set(name, value);
    column.labels = builder.finish();
    if name == METRIC_NAME {
        column.drop_name = false;
    }
}

/// The labels that `absent` can tell from a selector: those that one equality matcher fixes.
pub(super) fn labels_of_absence(expr: &Expr) -> Labels {
    let matchers = match &unwrap_parens(expr).kind {
        ExprKind::VectorSelector(selector) => &selector.matchers,
        ExprKind::MatrixSelector(matrix) => &matrix.selector.matchers,
        _ => return Labels::empty(),
    };
    let mut builder = Labels::empty().to_builder();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !seen.contains(&matcher.name.as_str()) {
            builder.set(&matcher.name, &matcher.value);
            seen.push(&matcher.name);
        } else {
            builder.remove(&matcher.name);
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_groups_in_all_forms() {
        let regex = compile("(?P<first>[a-z]+)-(\\d+)").unwrap();
        let mut captures = regex.create_captures();
        regex.captures("ab-12", &mut captures);
        let expand = |template: &str| expand(template, &regex, &captures, "ab-12");
        assert_eq!(expand("$2:${first}$first"), "12:abab");
        assert_eq!(expand("$$1 $9 $1x ${2}x $"), "$1   12x $");
    }
}
