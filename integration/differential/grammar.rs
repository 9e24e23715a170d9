//! Random expressions: trees of the types that PromQL allows, and now and then of one that it does not.
//!
//! Only what Prometheus 2.42 knows is made. Ranges of subqueries get odd milliseconds: then no step of one lies on its
//! left border, which belongs to the range before Prometheus 3.0 only.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tricord_model::{MatchOp, Matcher};
use tricord_promql::ast::{
    Aggregate, AggregateOp, AtModifier, Binary, BinaryOp, Call, Cardinality, Duration, Expr, ExprKind,
    Grouping, Matching, MatrixSelector, NumberLiteral, Subquery, UnaryOp, ValueType, VectorSelector,
};
use tricord_promql::functions::Function;

use super::data::{SPAN_S, START_S};

/// What lets subqueries miss their left border.
const ODD_MS: i64 = 137;

/// Metrics that data sets have, and one that they do not.
const METRICS: [&str; 8] = ["g0", "g1", "c0_total", "c1_total", "h_bucket", "n0", "one", "none"];

/// Functions of one vector.
const MAPS: [Function; 34] = {
    use Function as F;
    [
        F::Abs,
        F::Absent,
        F::Acos,
        F::Acosh,
        F::Asin,
        F::Asinh,
        F::Atan,
        F::Atanh,
        F::Ceil,
        F::Cos,
        F::Cosh,
        F::DayOfMonth,
        F::DayOfWeek,
        F::DayOfYear,
        F::DaysInMonth,
        F::Deg,
        F::Exp,
        F::Floor,
        F::HistogramCount,
        F::HistogramSum,
        F::Hour,
        F::Ln,
        F::Log10,
        F::Log2,
        F::Minute,
        F::Month,
        F::Rad,
        F::Sgn,
        F::Sin,
        F::Sqrt,
        F::Tan,
        F::Tanh,
        F::Timestamp,
        F::Year,
    ]
};

/// Functions of one range vector.
const WINDOWS: [Function; 20] = {
    use Function as F;
    [
        F::AbsentOverTime,
        F::AvgOverTime,
        F::Changes,
        F::CountOverTime,
        F::Delta,
        F::Deriv,
        F::Idelta,
        F::Increase,
        F::Irate,
        F::LastOverTime,
        F::MaxOverTime,
        F::MinOverTime,
        F::PresentOverTime,
        F::Rate,
        F::Resets,
        F::StddevOverTime,
        F::StdvarOverTime,
        F::SumOverTime,
        F::Rate,
        F::Increase,
    ]
};

/// A node without a place.
pub(super) fn node(kind: ExprKind) -> Expr {
    Expr { pos: Default::default(), kind }
}

pub(super) fn number(value: f64) -> Expr {
    node(ExprKind::Number(NumberLiteral { value, duration: false }))
}

/// Makes expressions.
pub(super) struct Grammar<'a> {
    pub(super) rng: &'a mut StdRng,
    /// How likely an operand of a wrong type is.
    pub(super) ill_typed: f64,
    /// Whether a range selector or a subquery is above: what is inside is evaluated often.
    windows: usize,
}

impl<'a> Grammar<'a> {
    pub(super) fn new(rng: &'a mut StdRng, ill_typed: f64) -> Self {
        Self { rng, ill_typed, windows: 0 }
    }

    /// A whole query: mostly a vector.
    pub(super) fn query(&mut self) -> Expr {
        let depth = self.rng.random_range(1..=4);
        match self.rng.random_range(0..40) {
            0 => self.scalar(depth),
            1 => self.matrix(depth),
            2 => node(ExprKind::String("text".to_owned())),
            3 | 4 => {
                let func = if self.chance(0.5) { Function::Sort } else { Function::SortDesc };
                self.call(func, |g| vec![g.vector(depth)])
            }
            _ => self.vector(depth),
        }
    }

    fn chance(&mut self, likelihood: f64) -> bool {
        self.rng.random_bool(likelihood)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(self.rng).expect("a list that is not empty")
    }

    fn call(&mut self, func: Function, args: impl FnOnce(&mut Self) -> Vec<Expr>) -> Expr {
        let args = args(self);
        node(ExprKind::Call(Call { func, args }))
    }

    /// An expression of that type, or now and then of another one.
    pub(super) fn of_type(&mut self, wanted: ValueType, depth: usize) -> Expr {
        match wanted {
            ValueType::Scalar => self.scalar(depth),
            ValueType::Vector => self.vector(depth),
            ValueType::Matrix => self.matrix(depth),
            ValueType::String => node(ExprKind::String(self.pick(&["a", "b", "new"]).to_owned())),
        }
    }

    fn wrong(&mut self, depth: usize) -> Option<Expr> {
        let types = [ValueType::Scalar, ValueType::Vector, ValueType::Matrix, ValueType::String];
        (self.ill_typed > 0.0 && self.rng.random_bool(self.ill_typed)).then(|| {
            let wanted = self.pick(&types);
            self.of_type(wanted, depth.saturating_sub(1))
        })
    }

    fn vector(&mut self, depth: usize) -> Expr {
        if let Some(wrong) = self.wrong(depth) {
            return wrong;
        }
        if depth == 0 {
            return self.instant_selector();
        }
        let depth = depth - 1;
        match self.rng.random_range(0..100) {
            0..12 => self.instant_selector(),
            12..16 => node(ExprKind::Paren(Box::new(self.vector(depth)))),
            16..20 => {
                let op = self.pick(&[UnaryOp::Minus, UnaryOp::Minus, UnaryOp::Plus]);
                node(ExprKind::Unary(op, Box::new(self.vector(depth))))
            }
            20..32 => self.with_scalar(depth),
            32..46 => self.with_vector(depth),
            46..62 => self.aggregate(depth),
            62..82 => self.window(depth),
            82..92 => {
                let func = self.pick(&MAPS);
                self.call(func, |g| vec![g.vector(depth)])
            }
            _ => self.other_call(depth),
        }
    }

    fn scalar(&mut self, depth: usize) -> Expr {
        if let Some(wrong) = self.wrong(depth) {
            return wrong;
        }
        if depth == 0 || self.chance(0.5) {
            return self.literal();
        }
        let depth = depth - 1;
        match self.rng.random_range(0..8) {
            0 => self.call(Function::Time, |_| Vec::new()),
            1 => self.call(Function::Pi, |_| Vec::new()),
            2 => node(ExprKind::Unary(UnaryOp::Minus, Box::new(self.scalar(depth)))),
            3 => node(ExprKind::Paren(Box::new(self.scalar(depth)))),
            4 | 5 => self.call(Function::Scalar, |g| vec![g.vector(depth)]),
            _ => {
                let op = self.operator(false);
                let (lhs, rhs) = (self.operand(depth, Self::scalar), self.operand(depth, Self::scalar));
                binary(op, lhs, rhs, op.is_comparison(), None)
            }
        }
    }

    fn literal(&mut self) -> Expr {
        let value = match self.rng.random_range(0..10) {
            0 => self.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]),
            1..=4 => self.rng.random_range(-3..10) as f64,
            5..=6 => self.pick(&[0.1, 0.25, 0.5, 0.9, 0.99]),
            _ => self.rng.random_range(-800..800) as f64 / 8.0,
        };
        number(value)
    }

    /// What stands beside an operator: in parentheses where the text would bind it otherwise.
    fn operand(&mut self, depth: usize, make: impl FnOnce(&mut Self, usize) -> Expr) -> Expr {
        let made = make(self, depth);
        match made.kind {
            ExprKind::Binary(_) | ExprKind::Unary(..) => node(ExprKind::Paren(Box::new(made))),
            _ => made,
        }
    }

    fn operator(&mut self, sets: bool) -> BinaryOp {
        use BinaryOp as B;
        let arithmetic = [B::Add, B::Sub, B::Mul, B::Div, B::Mod, B::Pow, B::Atan2];
        match self.rng.random_range(0..10) {
            0..=4 => self.pick(&arithmetic),
            5 | 6 if sets => self.pick(&[B::And, B::Or, B::Unless]),
            5..=7 => self.pick(&[B::Lss, B::Lte, B::Gtr, B::Gte, B::Eql, B::Neq]),
            _ => self.pick(&[B::Add, B::Sub, B::Mul]),
        }
    }

    fn with_scalar(&mut self, depth: usize) -> Expr {
        let op = self.operator(false);
        let return_bool = op.is_comparison() && self.chance(0.4);
        let vector = self.operand(depth, Self::vector);
        let scalar = self.operand(depth.min(1), Self::scalar);
        let (lhs, rhs) = if self.chance(0.7) { (vector, scalar) } else { (scalar, vector) };
        binary(op, lhs, rhs, return_bool, None)
    }

    fn with_vector(&mut self, depth: usize) -> Expr {
        let op = self.operator(true);
        let return_bool = op.is_comparison() && self.chance(0.4);
        let (lhs, rhs) = (self.operand(depth, Self::vector), self.operand(depth, Self::vector));
        let matching = self.matching(op);
        binary(op, lhs, rhs, return_bool, Some(matching))
    }

    fn matching(&mut self, op: BinaryOp) -> Matching {
        let mut matching = Matching {
            card: if op.is_set() { Cardinality::ManyToMany } else { Cardinality::OneToOne },
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        if self.chance(0.5) {
            matching.on = self.chance(0.6);
            matching.labels = self.label_names();
            if !op.is_set() && self.chance(0.5) {
                matching.card = self.pick(&[Cardinality::ManyToOne, Cardinality::OneToMany]);
                if self.chance(0.4) {
                    matching.include = self.label_names();
                    let taken = matching.labels.clone();
                    matching.include.retain(|label| !matching.on || !taken.contains(label));
                }
            }
        }
        matching
    }

    fn label_names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, likelihood) in
            [("a", 0.5), ("b", 0.4), ("c", 0.1), ("le", 0.15), ("__name__", 0.08), ("no", 0.05)]
        {
            if self.chance(likelihood) {
                names.push(name.to_owned());
            }
        }
        names
    }

    fn aggregate(&mut self, depth: usize) -> Expr {
        use AggregateOp as A;
        let op = self.pick(&[
            A::Sum,
            A::Sum,
            A::Avg,
            A::Count,
            A::Min,
            A::Max,
            A::Group,
            A::Stddev,
            A::Stdvar,
            A::Topk,
            A::Bottomk,
            A::CountValues,
            A::Quantile,
        ]);
        let param = match op {
            A::Topk | A::Bottomk => Some(number(self.rng.random_range(-1..5) as f64)),
            A::Quantile if self.chance(0.8) => {
                Some(number(self.pick(&[0.0, 0.1, 0.5, 0.9, 1.0, -1.0, 2.0, f64::NAN])))
            }
            A::Quantile => Some(self.scalar(depth.min(1))),
            A::CountValues => Some(node(ExprKind::String(self.pick(&["v", "a", "c"]).to_owned()))),
            _ => None,
        };
        let grouping = Grouping { without: self.chance(0.3), labels: self.label_names() };
        let param = match self.wrong(depth) {
            Some(wrong) if param.is_some() => Some(wrong),
            _ => param,
        };
        let expr = self.vector(depth);
        node(ExprKind::Aggregate(Box::new(Aggregate { op, param, expr, grouping })))
    }

    fn window(&mut self, depth: usize) -> Expr {
        match self.rng.random_range(0..10) {
            0 => self.call(Function::QuantileOverTime, |g| vec![g.scalar(depth.min(1)), g.matrix(depth)]),
            1 => self.call(Function::PredictLinear, |g| vec![g.matrix(depth), number(600.0)]),
            _ => {
                let func = self.pick(&WINDOWS);
                self.call(func, |g| vec![g.matrix(depth)])
            }
        }
    }

    fn other_call(&mut self, depth: usize) -> Expr {
        use Function as F;
        let text = |text: &str| node(ExprKind::String(text.to_owned()));
        match self.rng.random_range(0..10) {
            0 => self.call(F::Clamp, |g| vec![g.vector(depth), g.scalar(0), g.scalar(0)]),
            1 => {
                let func = self.pick(&[F::ClampMin, F::ClampMax]);
                self.call(func, |g| vec![g.vector(depth), g.scalar(1)])
            }
            2 => self.call(F::Round, |g| match g.chance(0.5) {
                true => vec![g.vector(depth)],
                false => vec![g.vector(depth), g.literal()],
            }),
            3 => self.call(F::Vector, |g| vec![g.scalar(depth)]),
            4 | 5 => {
                let (from, regex) = (
                    self.pick(&["a", "b", "le", "__name__", "no"]),
                    self.pick(&["(.*)", "x|y", "([a-z])(.*)", "", "(?P<n>.+)"]),
                );
                let (to, template) = (
                    self.pick(&["a", "c", "new", "__name__"]),
                    self.pick(&["$1", "${1}_", "$n-$2", "", "$$x"]),
                );
                self.call(F::LabelReplace, |g| {
                    vec![g.vector(depth), text(to), text(template), text(from), text(regex)]
                })
            }
            6 => {
                let to = self.pick(&["a", "new", "__name__"]);
                self.call(F::LabelJoin, |g| vec![g.vector(depth), text(to), text("-"), text("a"), text("b")])
            }
            7 if self.chance(0.4) => {
                self.call(F::HistogramFraction, |g| vec![g.scalar(0), g.scalar(0), g.vector(depth)])
            }
            7..=8 => {
                let inner = self.buckets();
                self.call(F::HistogramQuantile, |g| vec![g.scalar(0), inner])
            }
            _ => self.call(F::HistogramQuantile, |g| vec![g.scalar(0), g.vector(depth)]),
        }
    }

    /// Buckets as `histogram_quantile` is mostly given them.
    fn buckets(&mut self) -> Expr {
        let selector = VectorSelector {
            name: "h_bucket".to_owned(),
            matchers: vec![Matcher::equal("__name__", "h_bucket")],
            ..VectorSelector::default()
        };
        let range = self.range();
        let rate = self.call(Function::Rate, |_| {
            vec![node(ExprKind::MatrixSelector(MatrixSelector { selector: selector.clone(), range }))]
        });
        match self.rng.random_range(0..3) {
            0 => node(ExprKind::VectorSelector(selector)),
            1 => rate,
            _ => {
                let grouping = Grouping { without: false, labels: vec!["le".to_owned()] };
                let sum = Aggregate { op: AggregateOp::Sum, param: None, expr: rate, grouping };
                node(ExprKind::Aggregate(Box::new(sum)))
            }
        }
    }

    fn matrix(&mut self, depth: usize) -> Expr {
        if let Some(wrong) = self.wrong(depth) {
            return wrong;
        }
        if depth == 0 || self.windows > 0 || self.chance(0.7) {
            let selector = self.selector();
            let range = self.range();
            return node(ExprKind::MatrixSelector(MatrixSelector { selector, range }));
        }
        self.windows += 1;
        let inner = self.vector(depth - 1);
        self.windows -= 1;
        let expr = match inner.kind {
            ExprKind::Binary(_) | ExprKind::Unary(..) => node(ExprKind::Paren(Box::new(inner))),
            _ => inner,
        };
        let seconds = self.pick(&[20, 60, 150, 300, 600]);
        let step = match self.chance(0.3) {
            true => None,
            false => Some(Duration::Constant(self.pick(&[5, 15, 30, 60, 77]) * 1000)),
        };
        let (offset, at) = self.time_modifiers();
        let range = Duration::Constant(seconds * 1000 + ODD_MS);
        node(ExprKind::Subquery(Box::new(Subquery { expr, range, step, offset, at })))
    }

    fn range(&mut self) -> Duration {
        Duration::Constant(self.pick(&[10, 45, 60, 120, 300, 600, 1800]) * 1000)
    }

    fn time_modifiers(&mut self) -> (Duration, Option<AtModifier>) {
        let offset = match self.chance(0.15) {
            true => self.pick(&[-120, -15, 7, 60, 300, 900]) * 1000,
            false => 0,
        };
        let at = match self.rng.random_range(0..40) {
            0 => Some(AtModifier::Start),
            1 => Some(AtModifier::End),
            2 => Some(AtModifier::Time((START_S + self.rng.random_range(0..SPAN_S)) * 1000)),
            _ => None,
        };
        (Duration::Constant(offset), at)
    }

    fn instant_selector(&mut self) -> Expr {
        let selector = self.selector();
        node(ExprKind::VectorSelector(selector))
    }

    fn selector(&mut self) -> VectorSelector {
        let name = match self.rng.random_range(0..20) {
            0 => "",
            1..=5 => "g0",
            6..=8 => "c0_total",
            _ => self.pick(&METRICS),
        };
        let mut matchers = Vec::new();
        if name.is_empty() {
            let pattern = self.pick(&["g.*", "g0|c0_total", "[a-z]0.*", "g1"]);
            matchers.extend(Matcher::new("__name__", MatchOp::Regex, pattern).ok());
        }
        for (label, likelihood) in [("a", 0.25), ("b", 0.2), ("c", 0.08), ("le", 0.05), ("no", 0.03)] {
            if self.chance(likelihood) {
                let op = self.pick(&[MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
                let value = match op {
                    MatchOp::Equal | MatchOp::NotEqual => self.pick(&["x", "y", "1", "", "ü", "+Inf"]),
                    _ => self.pick(&["x|y", ".*", ".+", "[x-z]", "", "1", "x.*", "(?i)X", ".*x.*|1"]),
                };
                matchers.extend(Matcher::new(label, op, value).ok());
            }
        }
        if !name.is_empty() {
            matchers.push(Matcher::equal("__name__", name));
        }
        let (offset, at) = self.time_modifiers();
        VectorSelector { name: name.to_owned(), matchers, offset, at, ..VectorSelector::default() }
    }
}

fn binary(op: BinaryOp, lhs: Expr, rhs: Expr, return_bool: bool, matching: Option<Matching>) -> Expr {
    node(ExprKind::Binary(Box::new(Binary { op, lhs, rhs, return_bool, matching })))
}
