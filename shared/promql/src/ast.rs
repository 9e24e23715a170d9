//! The syntax tree of PromQL as of Prometheus 3.14, and the positions of its parts in the query's text.

use std::sync::Arc;

use tricord_model::Matcher;

/// A byte range of the query's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Pos {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// The type of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A number at each step.
    Scalar,
    /// A text.
    String,
    /// A value per series at each step.
    Vector,
    /// A range of samples per series at each step.
    Matrix,
}

impl ValueType {
    /// The word that error texts use.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }

    /// The word that the HTTP API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }
}

/// A node with its place in the text.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Where the node stands.
    pub pos: Pos,
    /// What it is.
    pub kind: ExprKind,
}

/// Positions do not count for equality, so that `parse(format(e)) == e` can be tested.
impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// The kinds of nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `1.5`, `0x1f`, `Inf`; a duration literal such as `5m` as its seconds.
    Number(NumberLiteral),
    /// `"text"`
    String(String),
    /// `(…)`
    Paren(Box<Expr>),
    /// `-x`, `+x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `sum by (l) (x)`
    Aggregate(Box<Aggregate>),
    /// `f(x, …)`
    Call(Call),
    /// `m{l="v"}` with offset, `@` and the extended-range modifiers
    VectorSelector(VectorSelector),
    /// `m{l="v"}[5m]`
    MatrixSelector(MatrixSelector),
    /// `x[1h:5m]`
    Subquery(Box<Subquery>),
    /// A part that was computed elsewhere; a planner puts it in the place of a subtree, and no text parses to it.
    Remote(Remote),
}

/// Where the result of a part that was computed elsewhere is found.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    /// The number under which the evaluation's sources hold the result.
    pub id: usize,
    /// The type of the subtree it stands for: a vector or a scalar.
    pub value_type: ValueType,
    /// Whether the subtree has one value at all steps.
    pub fixed: bool,
    /// The first selector of the subtree, whose times `info` takes over.
    pub selector: Option<Box<VectorSelector>>,
    /// Where the subtree's nodes stand in the query, by their numbers ([`Expr::number_nodes`]), for its notes.
    pub places: Arc<[Pos]>,
}

/// A number and whether it was written as a duration.
#[derive(Clone, Copy, Debug)]
pub struct NumberLiteral {
    /// The value; seconds for a duration.
    pub value: f64,
    /// Written with units, as in `5m`.
    pub duration: bool,
}

impl PartialEq for NumberLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.duration == other.duration && same_float(self.value) == same_float(other.value)
    }
}

/// The sign in front of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// Operators between two expressions, weakest binding first in [`BinaryOp::precedence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eql,
    /// `!=`
    Neq,
    /// `<`
    Lss,
    /// `<=`
    Lte,
    /// `>`
    Gtr,
    /// `>=`
    Gte,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
    /// `</`, keeps the part of a histogram below a bound
    TrimUpper,
    /// `>/`, keeps the part of a histogram above a bound
    TrimLower,
}

impl BinaryOp {
    /// The operator's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eql => "==",
            Self::Neq => "!=",
            Self::Lss => "<",
            Self::Lte => "<=",
            Self::Gtr => ">",
            Self::Gte => ">=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// How strongly the operator binds: 1 (`or`) to 6 (`^`).
    #[must_use]
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eql | Self::Neq | Self::Lss | Self::Lte | Self::Gtr | Self::Gte => 3,
            Self::TrimUpper | Self::TrimLower => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }

    /// Whether it is one of `== != < <= > >=`.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eql | Self::Neq | Self::Lss | Self::Lte | Self::Gtr | Self::Gte)
    }

    /// Whether durations may be joined by it.
    #[must_use]
    pub fn is_duration_operator(self) -> bool {
        matches!(self, Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Mod | Self::Pow)
    }

    /// Whether it is `and`, `or` or `unless`.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// `lhs op rhs`
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Expr,
    /// Right side.
    pub rhs: Expr,
    /// `bool` behind a comparison.
    pub return_bool: bool,
    /// How vectors match; `None` where one side is a scalar.
    pub matching: Option<Matching>,
}

/// How many series of one side match one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One to one.
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// The modifiers of a binary operator between vectors.
#[derive(Clone, Debug)]
pub struct Matching {
    /// Group modifiers.
    pub card: Cardinality,
    /// `on` rather than `ignoring`.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// `fill` or `fill_left`: the value for a left side that is missing.
    pub fill_left: Option<f64>,
    /// `fill` or `fill_right`: the value for a right side that is missing.
    pub fill_right: Option<f64>,
}

impl PartialEq for Matching {
    fn eq(&self, other: &Self) -> bool {
        let fills = |m: &Self| (m.fill_left.map(same_float), m.fill_right.map(same_float));
        (self.card, self.on, &self.labels, &self.include)
            == (other.card, other.on, &other.labels, &other.include)
            && fills(self) == fills(other)
    }
}

/// The bits of a float by which two of them are compared: all NaN are one.
fn same_float(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Topk,
    /// `bottomk`
    Bottomk,
    /// `count_values`
    CountValues,
    /// `quantile`
    Quantile,
    /// `limitk`
    Limitk,
    /// `limit_ratio`
    LimitRatio,
}

impl AggregateOp {
    /// The operator's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// Whether it takes a parameter in front of the expression.
    #[must_use]
    pub fn takes_param(self) -> bool {
        use AggregateOp as A;
        matches!(self, A::Topk | A::Bottomk | A::CountValues | A::Quantile | A::Limitk | A::LimitRatio)
    }
}

/// `op by (labels) (param, expr)`
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// The parameter of topk, quantile, count_values and their kin.
    pub param: Option<Expr>,
    /// What is aggregated.
    pub expr: Expr,
    /// Which labels make a group.
    pub grouping: Grouping,
}

/// `by (…)`, or `without (…)`; no modifier is `by ()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grouping {
    /// `without` rather than `by`.
    pub without: bool,
    /// The labels, as written.
    pub labels: Vec<String>,
}

/// `function(args)`
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub func: crate::functions::Function,
    /// Its arguments.
    pub args: Vec<Expr>,
}

/// `@ …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtModifier {
    /// A fixed time in milliseconds since the Unix epoch.
    Time(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// A duration as written: a constant, or an expression over durations.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// Milliseconds.
    Constant(i64),
    /// A duration expression such as `5m + 1m` or `max_of(step(), 1m)`; its value is in seconds.
    Expr(Box<DurationExpr>),
}

impl Default for Duration {
    fn default() -> Self {
        Self::Constant(0)
    }
}

/// The nodes of a duration expression.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationExpr {
    /// A number of seconds or a duration.
    Number(NumberLiteral),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `-a`, `+a`
    Unary(UnaryOp, Box<DurationExpr>),
    /// `a + b`, and `- * / % ^`
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `(a)`
    Paren(Box<DurationExpr>),
}

/// `anchored` and `smoothed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeMode {
    /// Neither.
    #[default]
    Default,
    /// `anchored`: the sample at or before the range's start counts as lying on it.
    Anchored,
    /// `smoothed`: values on the range's borders are interpolated.
    Smoothed,
}

/// `name{matchers} offset d @ t`; two are equal whatever the order of their matchers.
#[derive(Clone, Debug, Default)]
pub struct VectorSelector {
    /// The name in front of the braces, or empty. It is among the matchers too.
    pub name: String,
    /// All matchers, that of the name included.
    pub matchers: Vec<Matcher>,
    /// `offset`, positive into the past.
    pub offset: Duration,
    /// `@`
    pub at: Option<AtModifier>,
    /// `anchored` or `smoothed`, on an instant selector or on the range selector around it.
    pub mode: RangeMode,
}

impl PartialEq for VectorSelector {
    fn eq(&self, other: &Self) -> bool {
        fn sorted(matchers: &[Matcher]) -> Vec<(&str, &str, &str)> {
            let mut keys: Vec<_> =
                matchers.iter().map(|m| (m.name.as_str(), m.op.as_str(), m.value.as_str())).collect();
            keys.sort_unstable();
            keys
        }
        (&self.name, &self.offset, self.at, self.mode) == (&other.name, &other.offset, other.at, other.mode)
            && sorted(&self.matchers) == sorted(&other.matchers)
    }
}

/// `selector[range]`
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// The selector, with the offset and `@` that stand behind the brackets.
    pub selector: VectorSelector,
    /// The range.
    pub range: Duration,
}

/// `expr[range:step] offset d @ t`
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated at each step.
    pub expr: Expr,
    /// The range.
    pub range: Duration,
    /// The step; `None` takes the default.
    pub step: Option<Duration>,
    /// `offset`, positive into the past.
    pub offset: Duration,
    /// `@`
    pub at: Option<AtModifier>,
}
