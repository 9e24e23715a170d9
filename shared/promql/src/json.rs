//! A syntax tree as JSON, in the shape of Prometheus' `/api/v1/parse_query`.

use serde_json::{Value, json};

use crate::ast::{
    AtModifier, Binary, Cardinality, Duration, DurationExpr, Expr, ExprKind, NumberLiteral, RangeMode,
    UnaryOp, VectorSelector,
};
use crate::format::text;

/// The tree as the API shows it; durations in milliseconds, 0 where they are expressions, which stand beside them.
#[must_use]
pub fn to_json(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number(number) => json!({"type": "numberLiteral", "val": text::float(number.value)}),
        ExprKind::String(value) => json!({"type": "stringLiteral", "val": value}),
        ExprKind::Paren(inner) => json!({"type": "parenExpr", "expr": to_json(inner)}),
        ExprKind::Unary(op, inner) => json!({"type": "unaryExpr", "op": op.as_str(), "expr": to_json(inner)}),
        ExprKind::Binary(binary) => binary_json(binary),
        ExprKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.as_str(),
            "expr": to_json(&aggregate.expr),
            "param": aggregate.param.as_ref().map(to_json),
            "grouping": aggregate.grouping.labels,
            "without": aggregate.grouping.without,
        }),
        ExprKind::Call(call) => {
            let signature = call.func.signature();
            json!({
                "type": "call",
                "func": {
                    "name": signature.name,
                    "argTypes": signature.args.iter().map(|t| t.as_str()).collect::<Vec<_>>(),
                    "variadic": signature.variadic,
                    "returnType": signature.returns.as_str(),
                },
                "args": call.args.iter().map(to_json).collect::<Vec<_>>(),
            })
        }
        ExprKind::VectorSelector(selector) => selector_json(selector, "vectorSelector"),
        ExprKind::MatrixSelector(matrix) => {
            let mut value = selector_json(&matrix.selector, "matrixSelector");
            value["range"] = milliseconds(&matrix.range).into();
            value["rangeExpr"] = duration_expr(&matrix.range);
            value
        }
        ExprKind::Remote(remote) => json!({"type": "remote", "id": remote.id}),
        ExprKind::Subquery(subquery) => {
            let (timestamp, start_or_end) = at_json(subquery.at);
            json!({
                "type": "subquery",
                "expr": to_json(&subquery.expr),
                "range": milliseconds(&subquery.range),
                "rangeExpr": duration_expr(&subquery.range),
                "offset": milliseconds(&subquery.offset),
                "offsetExpr": duration_expr(&subquery.offset),
                "step": subquery.step.as_ref().map_or(0, milliseconds),
                "stepExpr": subquery.step.as_ref().map(duration_expr),
                "timestamp": timestamp,
                "startOrEnd": start_or_end,
            })
        }
    }
}

fn binary_json(binary: &Binary) -> Value {
    let matching = binary.matching.as_ref().map(|matching| {
        let card = match matching.card {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        };
        json!({
            "card": card,
            "labels": matching.labels,
            "on": matching.on,
            "include": matching.include,
            "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
        })
    });
    json!({
        "type": "binaryExpr",
        "op": binary.op.as_str(),
        "lhs": to_json(&binary.lhs),
        "rhs": to_json(&binary.rhs),
        "matching": matching,
        "bool": binary.return_bool,
    })
}

fn selector_json(selector: &VectorSelector, kind: &str) -> Value {
    let (timestamp, start_or_end) = at_json(selector.at);
    let matchers: Vec<_> = selector
        .matchers
        .iter()
        .map(|m| json!({"name": m.name, "value": m.value, "type": m.op.as_str()}))
        .collect();
    json!({
        "type": kind,
        "name": selector.name,
        "offset": milliseconds(&selector.offset),
        "offsetExpr": duration_expr(&selector.offset),
        "matchers": matchers,
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
        "anchored": selector.mode == RangeMode::Anchored,
        "smoothed": selector.mode == RangeMode::Smoothed,
    })
}

fn milliseconds(duration: &Duration) -> i64 {
    match duration {
        Duration::Constant(ms) => *ms,
        Duration::Expr(_) => 0,
    }
}

/// What the duration was calculated from; nothing for a plain one.
fn duration_expr(duration: &Duration) -> Value {
    match duration {
        Duration::Constant(_) => Value::Null,
        Duration::Expr(expr) => duration_json(expr),
    }
}

fn duration_json(expr: &DurationExpr) -> Value {
    let node = |op: &str, lhs: Value, rhs: Value| json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": false});
    match expr {
        DurationExpr::Number(NumberLiteral { value, duration }) => {
            json!({"type": "numberLiteral", "val": text::float(*value), "duration": duration})
        }
        DurationExpr::Step => node("step", Value::Null, Value::Null),
        DurationExpr::Range => node("range", Value::Null, Value::Null),
        DurationExpr::MinOf(a, b) => node("min_of", duration_json(a), duration_json(b)),
        DurationExpr::MaxOf(a, b) => node("max_of", duration_json(a), duration_json(b)),
        DurationExpr::Binary(op, a, b) => node(op.as_str(), duration_json(a), duration_json(b)),
        // A plus changes nothing, and the API's tree does not have it.
        DurationExpr::Unary(UnaryOp::Plus, inner) => duration_json(inner),
        DurationExpr::Unary(UnaryOp::Minus, inner) => node("-", Value::Null, duration_json(inner)),
        // Parentheses are a mark on the node within; a number has no place for it and gets a plus.
        DurationExpr::Paren(inner) => {
            let mut value = match **inner {
                DurationExpr::Number(_) => node("+", Value::Null, duration_json(inner)),
                _ => duration_json(inner),
            };
            value["wrapped"] = true.into();
            value
        }
    }
}

fn at_json(at: Option<AtModifier>) -> (Option<i64>, Option<&'static str>) {
    match at {
        None => (None, None),
        Some(AtModifier::Time(ms)) => (Some(ms), None),
        Some(AtModifier::Start) => (None, Some("start")),
        Some(AtModifier::End) => (None, Some("end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse;

    #[track_caller]
    fn check(query: &str, expected: Value) {
        assert_eq!(to_json(&parse(query, &Default::default()).unwrap()), expected);
    }

    #[test]
    fn trees_have_the_shape_of_the_api() {
        let selector = json!({
            "type": "matrixSelector", "name": "m", "range": 300_000, "rangeExpr": null, "offset": 60_000,
            "offsetExpr": null, "timestamp": 1500, "startOrEnd": null, "anchored": false, "smoothed": false,
            "matchers": [
                {"name": "a", "type": "=~", "value": "b|c"},
                {"name": "__name__", "type": "=", "value": "m"},
            ],
        });
        check(
            "sum by (x) (rate(m{a=~'b|c'}[5m] offset 1m @ 1.5))",
            json!({
                "type": "aggregation", "op": "sum", "param": null, "grouping": ["x"], "without": false,
                "expr": {
                    "type": "call", "args": [selector],
                    "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                },
            }),
        );
    }

    #[test]
    fn a_scalar_side_has_no_matching() {
        let two = json!({"type": "numberLiteral", "val": "2"});
        check(
            "2 > bool 2",
            json!({"type": "binaryExpr", "op": ">", "lhs": two, "rhs": two, "matching": null, "bool": true}),
        );
    }
    #[test]
    fn calculated_durations_are_trees() {
        let number =
            |val: &str, duration: bool| json!({"type": "numberLiteral", "val": val, "duration": duration});
        let node = |op: &str, lhs: Value, rhs: Value, wrapped: bool| json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": wrapped});
        let null = Value::Null;
        let of = |query: &str, key: &str| to_json(&parse(query, &Default::default()).unwrap())[key].clone();
        assert_eq!(of("m[5m]", "rangeExpr"), null);
        assert_eq!(of("m[5m+60]", "rangeExpr"), node("+", number("300", true), number("60", false), false));
        assert_eq!(of("m[5m+60]", "range"), json!(0));
        assert_eq!(
            of("m[5m] offset (10m/2)", "offsetExpr"),
            node("/", number("600", true), number("2", false), true)
        );
        assert_eq!(
            of("m[max_of(step(), -(range()))]", "rangeExpr"),
            node(
                "max_of",
                node("step", null.clone(), null.clone(), false),
                node("-", null.clone(), node("range", null.clone(), null.clone(), true), false),
                false
            )
        );
        assert_eq!(of("m[(5m)]", "rangeExpr"), node("+", null.clone(), number("300", true), true));
        assert_eq!(
            of("m offset +(5m+1s)", "offsetExpr"),
            node("+", number("300", true), number("1", true), true)
        );
        let subquery = "m[5m*2:min_of(1m, 2m)] offset -step()";
        assert_eq!(of(subquery, "rangeExpr"), node("*", number("300", true), number("2", false), false));
        assert_eq!(of(subquery, "stepExpr"), node("min_of", number("60", true), number("120", true), false));
        let step = node("step", null.clone(), null.clone(), false);
        assert_eq!(of(subquery, "offsetExpr"), node("-", null.clone(), step, false));
        assert_eq!(of("m[5m:]", "stepExpr"), null);
    }
}
