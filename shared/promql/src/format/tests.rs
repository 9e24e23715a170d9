//! Tests of the printers: long queries over lines, and trees made by chance that must survive printing.

use proptest::prelude::*;

use super::*;
use crate::ast::{AggregateOp, Call, Matching};
use crate::functions::Function;
use crate::parser::parse;
use tricord_model::{MatchOp, Matcher};

fn node(kind: ExprKind) -> Expr {
    Expr { pos: Default::default(), kind }
}

#[track_caller]
fn check_pretty(query: &str, expected: &str) {
    let printed = pretty(&parse(query, &Default::default()).unwrap());
    assert_eq!(printed, expected);
}

#[test]
fn short_queries_stay_on_one_line() {
    check_pretty("sum(rate(m[5m]))by(a)", "sum by (a) (rate(m[5m]))");
}

#[test]
fn long_queries_are_split() {
    let long = "a_metric_with_quite_a_long_name{label=\"and a value\"}";
    check_pretty(
        &format!("sum without (x) (rate({long}[5m])) / on (y) group_left () (sum(rate({long}[1h])) + 1)"),
        &format!(
            "  sum without (x) (rate({long}[5m]))\n/ on (y) group_left ()\n  (sum(rate({long}[1h])) + 1)"
        ),
    );
    check_pretty(
        &format!("histogram_quantile(0.9, sum by (le) (rate({long}[5m]) + rate({long}[10m])))"),
        &format!(
            "histogram_quantile(\n  0.9,\n  sum by (le) (\n      rate({long}[5m])\n    +\n      rate({long}[10m])\n  )\n)"
        ),
    );
}

#[test]
fn trees_put_together_by_hand_keep_their_meaning() {
    let number = |value| node(ExprKind::Number(NumberLiteral { value, duration: false }));
    let binary = |op, lhs, rhs| {
        node(ExprKind::Binary(Box::new(Binary { op, lhs, rhs, return_bool: false, matching: None })))
    };
    let sum = binary(BinaryOp::Add, number(1.0), number(2.0));
    assert_eq!(binary(BinaryOp::Mul, sum.clone(), number(3.0)).to_string(), "(1 + 2) * 3");
    assert_eq!(binary(BinaryOp::Sub, number(3.0), sum.clone()).to_string(), "3 - (1 + 2)");
    assert_eq!(binary(BinaryOp::Pow, number(-3.0), number(-2.0)).to_string(), "(-3) ^ -2");
    assert_eq!(node(ExprKind::Unary(UnaryOp::Minus, Box::new(sum))).to_string(), "-(1 + 2)");
}

#[track_caller]
fn check_same(query: &str, printed: &str) {
    let expr = parse(query, &Default::default()).unwrap();
    assert_eq!(expr.to_string(), printed);
    assert_eq!(parse(printed, &Default::default()), Ok(expr.clone()));
    assert_eq!(parse(&pretty(&expr), &Default::default()), Ok(expr));
}

#[test]
fn words_for_numbers_stay_what_they_are() {
    check_same("Inf ^- NaN", "Inf ^ NaN");
    check_same("-Inf ^ 2", "-Inf ^ 2");
    check_same("(+Inf) ^ (-NaN)", "(+Inf) ^ (NaN)");
    check_same("2 ^ Inf ^ 2 + Inf", "2 ^ Inf ^ 2 + +Inf");
    check_same("sum by (\"Inf\", infinity) (x{nan=\"\"})", "sum by (\"Inf\", infinity) (x{nan=\"\"})");
    check_same("a + on (\"nan\") group_left (\"inf\") b", "a + on (\"nan\") group_left (\"inf\") b");
    check_same("sum by (\"without\", by) (without)", "sum by (\"without\", by) (without)");
    let long = "a_metric_with_quite_a_long_name{label=\"and a value\",other_label=\"and another value\"}";
    check_same(&format!("Inf ^ sum({long})"), &format!("Inf ^ sum({long})"));
}

fn label_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_][a-z0-9_]{0,6}", "\\PC{1,6}", Just("on".to_owned()), Just("__name__".to_owned())]
}

fn number() -> impl Strategy<Value = NumberLiteral> {
    prop_oneof![
        any::<f64>().prop_map(|value| NumberLiteral { value, duration: false }),
        (-(1i64 << 40)..(1i64 << 40))
            .prop_map(|ms| NumberLiteral { value: ms as f64 / 1000.0, duration: true }),
        Just(NumberLiteral { value: -0.0, duration: true }),
    ]
}

fn duration_expr() -> impl Strategy<Value = DurationExpr> {
    let number = (1i64..1 << 40, any::<bool>()).prop_map(|(ms, duration)| {
        DurationExpr::Number(NumberLiteral { value: ms as f64 / 1000.0, duration })
    });
    let leaf = prop_oneof![number, Just(DurationExpr::Step), Just(DurationExpr::Range)];
    let ops = vec![BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Mod, BinaryOp::Pow];
    leaf.prop_recursive(3, 12, 2, move |inner| {
        let parens = inner.clone().prop_map(|e| DurationExpr::Paren(Box::new(e)));
        // Each side in parentheses, as a text of that shape would have them.
        let pair = (parens.clone(), parens.clone());
        prop_oneof![
            parens.clone(),
            parens.prop_map(|e| DurationExpr::Unary(UnaryOp::Minus, Box::new(e))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| DurationExpr::MinOf(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| DurationExpr::MaxOf(Box::new(a), Box::new(b))),
            (proptest::sample::select(ops.clone()), pair).prop_map(|(op, (a, b))| DurationExpr::Binary(
                op,
                Box::new(a),
                Box::new(b)
            )),
        ]
    })
}

fn range() -> impl Strategy<Value = Duration> {
    let whole = |expr: DurationExpr| match expr {
        DurationExpr::Number(number) => Duration::Constant((number.value * 1000.0).round() as i64),
        other => Duration::Expr(Box::new(other)),
    };
    prop_oneof![(1i64..1 << 42).prop_map(Duration::Constant), duration_expr().prop_map(whole)]
}

fn offset_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::Constant(0)),
        (-(1i64 << 42)..1 << 42).prop_map(Duration::Constant),
        duration_expr().prop_map(|e| Duration::Expr(Box::new(DurationExpr::Paren(Box::new(e))))),
    ]
}

fn at_modifier() -> impl Strategy<Value = Option<AtModifier>> {
    prop_oneof![
        Just(None),
        any::<i64>().prop_map(|ms| Some(AtModifier::Time(ms))),
        Just(Some(AtModifier::Start)),
        Just(Some(AtModifier::End)),
    ]
}

prop_compose! {
    fn selector()(
        name in prop_oneof!["[a-z_:][a-z0-9_:]{0,8}", Just(String::new()), Just("sum".to_owned()), Just("offset".to_owned())],
        mut matchers in proptest::collection::vec((label_name(), any::<bool>(), "\\PC{0,8}"), 0..4),
        offset in offset_duration(),
        at in at_modifier(),
        mode in proptest::sample::select(vec![RangeMode::Default, RangeMode::Anchored, RangeMode::Smoothed]),
    ) -> VectorSelector {
        // Words that are no metric names, and a second name, do not parse.
        let reserved = ["on", "ignoring", "bool", "inf", "nan", "fill", "atan2"];
        let name = if reserved.contains(&name.as_str()) { String::new() } else { name };
        if !name.is_empty() {
            matchers.retain(|(label, _, _)| label != NAME_LABEL);
        }
        let mut matchers: Vec<_> = matchers
            .into_iter()
            .map(|(label, equal, value)| {
                Matcher::new(&label, if equal { MatchOp::Equal } else { MatchOp::NotEqual }, &value).unwrap()
            })
            .collect();
        if name.is_empty() {
            matchers.push(Matcher::new("r", MatchOp::Regex, "a.+").unwrap());
        } else {
            matchers.push(Matcher::equal(NAME_LABEL, &name));
        }
        VectorSelector { name, matchers, offset, at, mode }
    }
}

prop_compose! {
    fn matching()(
        card in proptest::sample::select(vec![Cardinality::OneToOne, Cardinality::ManyToOne, Cardinality::OneToMany]),
        on in any::<bool>(),
        labels in proptest::collection::btree_set(label_name(), 0..3),
        include in proptest::collection::vec(label_name(), 0..3),
        fill_left in proptest::option::of(any::<f64>()),
        fill_right in proptest::option::of(any::<f64>()),
    ) -> Matching {
        let include = if card == Cardinality::OneToOne { Vec::new() } else { include };
        let include = include.into_iter().filter(|label| !on || !labels.contains(label)).collect();
        Matching { card, on, labels: labels.into_iter().collect(), include, fill_left, fill_right }
    }
}

/// Instant vectors of any shape that a text can have.
fn vector() -> impl Strategy<Value = Expr> {
    let leaf = selector().prop_map(|s| node(ExprKind::VectorSelector(s)));
    leaf.prop_recursive(4, 24, 2, |inner| {
        let parens = inner.clone().prop_map(|e| node(ExprKind::Paren(Box::new(e))));
        let scalar = number().prop_map(|n| node(ExprKind::Paren(Box::new(node(ExprKind::Number(n))))));
        let call = |func, args| node(ExprKind::Call(Call { func, args }));
        let ops = vec![BinaryOp::Add, BinaryOp::Pow, BinaryOp::Lss, BinaryOp::TrimUpper, BinaryOp::Atan2];
        let grouping = (any::<bool>(), proptest::collection::vec(label_name(), 0..3))
            .prop_map(|(without, labels)| Grouping { without, labels });
        prop_oneof![
            parens.clone(),
            parens.clone().prop_map(|e| node(ExprKind::Unary(UnaryOp::Minus, Box::new(e)))),
            (proptest::sample::select(ops.clone()), parens.clone(), matching(), parens.clone()).prop_map(
                |(op, lhs, matching, rhs)| {
                    let matching = Some(matching);
                    node(ExprKind::Binary(Box::new(Binary {
                        op,
                        lhs,
                        rhs,
                        return_bool: op.is_comparison(),
                        matching,
                    })))
                }
            ),
            (proptest::sample::select(ops), parens, scalar).prop_map(|(op, lhs, rhs)| {
                let binary = Binary { op, lhs, rhs, return_bool: false, matching: None };
                node(ExprKind::Binary(Box::new(binary)))
            }),
            (grouping, number(), inner.clone()).prop_map(|(grouping, n, expr)| {
                let param = Some(node(ExprKind::Number(n)));
                node(ExprKind::Aggregate(Box::new(Aggregate {
                    op: AggregateOp::Topk,
                    param,
                    expr,
                    grouping,
                })))
            }),
            (inner.clone(), "\\PC{0,8}").prop_map(move |(e, text)| {
                let text = node(ExprKind::String(text));
                call(Function::LabelJoin, vec![e, text.clone(), text.clone(), text])
            }),
            (inner, range(), proptest::option::of(range()), offset_duration(), at_modifier()).prop_map(
                move |(e, range, step, offset, at)| {
                    let expr = node(ExprKind::Paren(Box::new(e)));
                    let subquery = Subquery { expr, range, step, offset, at };
                    call(Function::MaxOverTime, vec![node(ExprKind::Subquery(Box::new(subquery)))])
                }
            ),
            (selector(), range()).prop_map(move |(selector, range)| {
                let matrix = ExprKind::MatrixSelector(MatrixSelector { selector, range });
                call(Function::Rate, vec![node(matrix)])
            }),
        ]
    })
}

proptest! {
    #[test]
    fn printed_trees_read_back_as_themselves(expr in vector()) {
        let printed = expr.to_string();
        prop_assert_eq!(parse(&printed, &Default::default()), Ok(expr.clone()), "{}", printed);
        let lines = pretty(&expr);
        prop_assert_eq!(parse(&lines, &Default::default()), Ok(expr.clone()), "{}", lines);
    }

    #[test]
    fn printed_numbers_read_back_as_themselves(n in number()) {
        let expr = node(ExprKind::Number(n));
        prop_assert_eq!(parse(&expr.to_string(), &Default::default()), Ok(expr));
    }

    #[test]
    fn printed_strings_read_back_as_themselves(text in any::<String>()) {
        let expr = node(ExprKind::String(text));
        prop_assert_eq!(parse(&expr.to_string(), &Default::default()), Ok(expr));
    }
}
