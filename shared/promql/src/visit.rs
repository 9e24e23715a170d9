//! Walks over syntax trees, and what can be told from a tree alone.

use crate::ast::{Call, Expr, ExprKind, Pos, ValueType, VectorSelector};
use crate::functions::Function;

impl Expr {
    /// The type of the expression's value.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => inner.value_type(),
            ExprKind::Binary(binary) => {
                let scalar = |side: &Expr| side.value_type() == ValueType::Scalar;
                if scalar(&binary.lhs) && scalar(&binary.rhs) { ValueType::Scalar } else { ValueType::Vector }
            }
            ExprKind::Aggregate(_) | ExprKind::VectorSelector(_) => ValueType::Vector,
            ExprKind::Call(call) => call.func.signature().returns,
            ExprKind::MatrixSelector(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Remote(remote) => remote.value_type,
        }
    }

    /// The expressions directly below, in the order of the text; a range selector's own selector is none.
    #[must_use]
    pub fn children(&self) -> Vec<&Self> {
        match &self.kind {
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Remote(_)
            | ExprKind::VectorSelector(_)
            | ExprKind::MatrixSelector(_) => Vec::new(),
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => vec![inner],
            ExprKind::Binary(binary) => vec![&binary.lhs, &binary.rhs],
            ExprKind::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.expr]).collect(),
            ExprKind::Call(call) => call.args.iter().collect(),
            ExprKind::Subquery(subquery) => vec![&subquery.expr],
        }
    }

    /// The expressions directly below, to be changed in place.
    #[must_use]
    pub fn children_mut(&mut self) -> Vec<&mut Self> {
        match &mut self.kind {
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Remote(_)
            | ExprKind::VectorSelector(_)
            | ExprKind::MatrixSelector(_) => Vec::new(),
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => vec![inner],
            ExprKind::Binary(binary) => vec![&mut binary.lhs, &mut binary.rhs],
            ExprKind::Aggregate(aggregate) => {
                aggregate.param.iter_mut().chain([&mut aggregate.expr]).collect()
            }
            ExprKind::Call(call) => call.args.iter_mut().collect(),
            ExprKind::Subquery(subquery) => vec![&mut subquery.expr],
        }
    }

    /// Calls `visit` on the expression and all below it, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    /// Puts numbers in the place of the positions, children before their parents, from 0; answers how many there are.
    /// What parses from the expression's text has the same numbers.
    pub fn number_nodes(&mut self) -> u32 {
        fn number(expr: &mut Expr, next: u32) -> u32 {
            let mine = expr.children_mut().into_iter().fold(next, |next, child| number(child, next));
            expr.pos = Pos { start: mine, end: mine };
            mine + 1
        }
        number(self, 0)
    }

    /// The positions of all nodes in the order of their numbers.
    #[must_use]
    pub fn places(&self) -> Vec<Pos> {
        fn collect(expr: &Expr, places: &mut Vec<Pos>) {
            expr.children().into_iter().for_each(|child| collect(child, places));
            places.push(expr.pos);
        }
        let mut places = Vec::new();
        collect(self, &mut places);
        places
    }

    /// All selectors, those inside range selectors included, in the order of the text.
    #[must_use]
    pub fn selectors(&self) -> Vec<&VectorSelector> {
        let mut found = Vec::new();
        self.walk(&mut |expr| match &expr.kind {
            ExprKind::VectorSelector(selector) => found.push(selector),
            ExprKind::MatrixSelector(matrix) => found.push(&matrix.selector),
            _ => {}
        });
        found
    }

    /// The expression without the parentheses around it.
    #[must_use]
    pub fn without_parens(&self) -> &Self {
        let mut expr = self;
        while let ExprKind::Paren(inner) = &expr.kind {
            expr = inner;
        }
        expr
    }

    /// Whether the value is the same at every step of a query, as every selector in it is fixed by `@` and no function
    /// looks at the step's time.
    #[must_use]
    pub fn is_step_invariant(&self) -> bool {
        match &self.kind {
            ExprKind::Number(_) | ExprKind::String(_) => true,
            ExprKind::VectorSelector(selector) => selector.at.is_some(),
            ExprKind::MatrixSelector(matrix) => matrix.selector.at.is_some(),
            ExprKind::Subquery(subquery) => subquery.at.is_some(),
            ExprKind::Remote(remote) => remote.fixed,
            ExprKind::Call(call) if uses_step_time(call) => false,
            _ => self.children().iter().all(|child| child.is_step_invariant()),
        }
    }
}

fn uses_step_time(call: &Call) -> bool {
    use Function as F;
    matches!(
        call.func,
        F::DaysInMonth
            | F::DayOfMonth
            | F::DayOfWeek
            | F::DayOfYear
            | F::Hour
            | F::Minute
            | F::Month
            | F::Year
            | F::PredictLinear
            | F::Time
            | F::Timestamp
            | F::StartTimestamp
            | F::Info
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{ParserOptions, parse};

    #[track_caller]
    fn check_invariant(query: &str, expected: bool) {
        assert_eq!(parse(query, &ParserOptions::default()).unwrap().is_step_invariant(), expected, "{query}");
    }

    #[test]
    fn fixed_selectors_do_not_change_between_steps() {
        check_invariant("sum(rate(m[5m] @ 10)) + 2", true);
        check_invariant("m @ start() + m", false);
        check_invariant("sum_over_time(m[1h:1m] @ end())", true);
        check_invariant("timestamp(m @ 10)", false);
        check_invariant("time()", false);
        check_invariant("pi()", true);
    }

    #[test]
    fn numbers_lead_back_to_positions() {
        let query = "sum by (a) ( rate(m [5m]) ) / -topk(3,n)";
        let expr = parse(query, &Default::default()).unwrap();
        let mut printed = parse(&expr.to_string(), &Default::default()).unwrap();
        let places = expr.places();
        assert_eq!(printed.number_nodes() as usize, places.len());
        let mut compared = Vec::new();
        printed.walk(&mut |node| compared.push(places[node.pos.start as usize]));
        let mut expected = Vec::new();
        expr.walk(&mut |node| expected.push(node.pos));
        assert_eq!(compared, expected);
    }

    #[test]
    fn selectors_are_found_in_order() {
        let expr =
            parse("topk(scalar(a), b) / rate(c[5m]) > max_over_time(d[1h:1m])", &Default::default()).unwrap();
        let names: Vec<_> = expr.selectors().iter().map(|selector| selector.name.clone()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(expr.value_type(), ValueType::Vector);
    }
}
