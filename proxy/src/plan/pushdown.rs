//! The rules of pushing down: what may run where the data lies. A new function or operator gets its row here.
//!
//! They rest on three facts. One complete replica answers for each shard. Fragments carry the query's own times, so a
//! step is the same step everywhere. And series that differ only in `__name__` or `le` are on one shard (see
//! `tricord_routing`): whatever drops names or folds `le` therefore meets all its input on one node, and a data node
//! finds the same duplicates that one process would find.

use tricord_model::{METRIC_NAME, MatchOp, Matcher};
use tricord_promql::ast::{
    Aggregate, AggregateOp, Binary, Call, Cardinality, Expr, ExprKind, Matching, RangeMode, ValueType,
    VectorSelector,
};
use tricord_promql::functions::Function;

/// Where the value of an expression can be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere: it depends on time alone. Scalars and texts.
    Anywhere,
    /// Where its series lie: one process' answer is the union of the shards' answers, and labels other than the name
    /// and `le` are as stored, so that equal labels still mean an equal shard.
    Shard,
    /// As [`Place::Shard`], but with labels rewritten: two shards may yield one label set. It must be the last step of
    /// a fragment, so that the proxy sees and judges such duplicates.
    ShardRelabelled,
    /// At the proxy, from the results of its parts.
    Proxy,
}

/// What a function does with the series of its vector or range argument.
enum Shape {
    /// One series in, at most one out; labels as they were but for the name.
    PerSeries,
    /// Folds the buckets of a histogram, which differ in `le` alone.
    Buckets,
    /// As `PerSeries` or `Buckets`, but writes labels.
    Relabels,
    /// Needs all series at once.
    Whole,
    /// Takes no series.
    Timeless,
}

/// The table of functions.
fn shape(function: Function) -> Shape {
    use Function as F;
    match function {
        F::Rate
        | F::Irate
        | F::Increase
        | F::Delta
        | F::Idelta
        | F::Deriv
        | F::PredictLinear
        | F::Changes => Shape::PerSeries,
        F::Resets | F::DoubleExponentialSmoothing => Shape::PerSeries,
        F::AvgOverTime | F::SumOverTime | F::CountOverTime | F::MinOverTime | F::MaxOverTime => {
            Shape::PerSeries
        }
        F::StddevOverTime | F::StdvarOverTime | F::QuantileOverTime | F::MadOverTime => Shape::PerSeries,
        F::FirstOverTime | F::LastOverTime | F::PresentOverTime => Shape::PerSeries,
        F::TsOfFirstOverTime | F::TsOfLastOverTime | F::TsOfMaxOverTime | F::TsOfMinOverTime => {
            Shape::PerSeries
        }
        F::Abs | F::Ceil | F::Floor | F::Round | F::Sgn | F::Sqrt | F::Exp | F::Ln | F::Log2 | F::Log10 => {
            Shape::PerSeries
        }
        F::Clamp | F::ClampMin | F::ClampMax | F::Deg | F::Rad => Shape::PerSeries,
        F::Sin | F::Cos | F::Tan | F::Asin | F::Acos | F::Atan => Shape::PerSeries,
        F::Sinh | F::Cosh | F::Tanh | F::Asinh | F::Acosh | F::Atanh => Shape::PerSeries,
        F::Minute
        | F::Hour
        | F::DayOfMonth
        | F::DayOfWeek
        | F::DayOfYear
        | F::DaysInMonth
        | F::Month
        | F::Year => Shape::PerSeries,
        F::Timestamp | F::StartTimestamp => Shape::PerSeries,
        F::HistogramAvg | F::HistogramCount | F::HistogramSum | F::HistogramStddev | F::HistogramStdvar => {
            Shape::PerSeries
        }
        F::HistogramQuantile | F::HistogramFraction => Shape::Buckets,
        F::HistogramQuantiles | F::LabelReplace | F::LabelJoin => Shape::Relabels,
        F::Absent | F::AbsentOverTime | F::Scalar | F::Info => Shape::Whole,
        F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc => Shape::Whole,
        F::Time | F::Pi | F::Start | F::End | F::Step | F::Range | F::MinOf | F::MaxOf | F::Vector => {
            Shape::Timeless
        }
    }
}

/// Whether an aggregation may run in two phases, states at the data nodes and their end at the proxy: its states must
/// merge exactly in any order. The others gather the series.
#[must_use]
pub fn has_states(op: AggregateOp) -> bool {
    use AggregateOp as A;
    match op {
        A::Sum | A::Avg | A::Count | A::Min | A::Max | A::Group | A::Stddev | A::Stdvar => true,
        // Selections are repeated over what the nodes have selected; a quantile's state is its values without labels.
        A::Topk | A::Bottomk | A::Limitk | A::Quantile => true,
        // The groups of count_values depend on values; limit_ratio must be applied once only.
        A::CountValues | A::LimitRatio => false,
    }
}

/// Whether the match of two sides implies that matching series share a shard: all stored labels but the name must be
/// compared. A label left out (`on`, `ignoring`) may be one that decided the shard.
fn match_implies_shard(matching: &Matching) -> bool {
    let plain = matches!(matching.card, Cardinality::OneToOne | Cardinality::ManyToMany);
    let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
    plain && !filled && !matching.on && matching.labels.is_empty() && matching.include.is_empty()
}

/// Where an expression can be computed.
#[must_use]
pub fn place(expr: &Expr) -> Place {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Place::Anywhere,
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => place(inner),
        ExprKind::VectorSelector(_) | ExprKind::MatrixSelector(_) => Place::Shard,
        ExprKind::Subquery(subquery) => match place(&subquery.expr) {
            Place::Shard => Place::Shard,
            // A range over rewritten labels would join what the proxy has not judged yet.
            _ => Place::Proxy,
        },
        ExprKind::Call(call) => of_call(call),
        ExprKind::Binary(binary) => of_binary(binary),
        ExprKind::Aggregate(_) | ExprKind::Remote(_) => Place::Proxy,
    }
}

fn of_call(call: &Call) -> Place {
    let places: Vec<Place> = call.args.iter().map(place).collect();
    let has_series = places.contains(&Place::Shard);
    let all_near = places.iter().all(|place| matches!(place, Place::Anywhere | Place::Shard));
    match shape(call.func) {
        // `hour()` and its kin without an argument yield a vector of no series: one, not one per shard.
        Shape::Timeless if call.func.signature().returns == ValueType::Scalar && all_near => Place::Anywhere,
        Shape::PerSeries | Shape::Buckets if all_near && has_series => Place::Shard,
        Shape::Relabels if all_near && has_series => Place::ShardRelabelled,
        _ => Place::Proxy,
    }
}

fn of_binary(binary: &Binary) -> Place {
    match (place(&binary.lhs), place(&binary.rhs)) {
        (Place::Anywhere, Place::Anywhere) => Place::Anywhere,
        (Place::Shard, Place::Anywhere) | (Place::Anywhere, Place::Shard) => Place::Shard,
        (Place::Shard, Place::Shard)
            if binary.matching.as_ref().is_some_and(match_implies_shard)
                && (binary.op.is_set() || is_unique_without_names(&binary.rhs)) =>
        {
            Place::Shard
        }
        _ => Place::Proxy,
    }
}

/// Whether no two series of an expression that runs on the shards can differ in the name alone.
///
/// Two such series on the right of an arithmetic or comparison operator are an error, unless there is nothing at all on
/// the left at that step. Where the left has nothing, a shard cannot know what there is on others.
fn is_unique_without_names(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::VectorSelector(selector) => has_one_name(selector),
        ExprKind::MatrixSelector(matrix) => has_one_name(&matrix.selector),
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => is_unique_without_names(inner),
        ExprKind::Subquery(subquery) => is_unique_without_names(&subquery.expr),
        ExprKind::Call(call) => call.args.iter().all(is_unique_without_names),
        ExprKind::Binary(binary) => {
            is_unique_without_names(&binary.lhs) && is_unique_without_names(&binary.rhs)
        }
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Aggregate(_) | ExprKind::Remote(_) => false,
    }
}

fn has_one_name(selector: &VectorSelector) -> bool {
    let names = |matcher: &Matcher| matcher.name == METRIC_NAME && matcher.op == MatchOp::Equal;
    selector.matchers.iter().any(names)
}

/// Whether an aggregation is pushed as its first phase. Over rewritten labels it is not: one process would refuse
/// duplicates that lie on two shards.
#[must_use]
pub fn pushes_states(aggregate: &Aggregate) -> bool {
    let param = aggregate.param.as_ref().is_none_or(|param| place(param) == Place::Anywhere);
    has_states(aggregate.op) && param && place(&aggregate.expr) == Place::Shard
}

/// For `absent` and `absent_over_time` over series that lie on shards: what each shard is asked for instead, and the
/// selector that gives the answer its labels. Only the proxy can tell absence, and only when every shard answered.
#[must_use]
pub fn presence(call: &Call) -> Option<(Expr, Option<&VectorSelector>)> {
    let arg = call.args.first()?.without_parens();
    if place(arg) != Place::Shard {
        return None;
    }
    let selector = match &arg.kind {
        ExprKind::VectorSelector(selector) => Some(selector),
        ExprKind::MatrixSelector(matrix) => Some(&matrix.selector),
        _ => None,
    };
    match call.func {
        Function::Absent => Some((arg.clone(), selector)),
        // What refuses a mode of ranges should name the function that was asked for.
        Function::AbsentOverTime if matches!(&arg.kind, ExprKind::MatrixSelector(matrix) if matrix.selector.mode != RangeMode::Default) => {
            None
        }
        Function::AbsentOverTime => {
            // This one keeps names, so that series which differ in nothing else are no error.
            let present = Call { func: Function::LastOverTime, args: vec![arg.clone()] };
            Some((Expr { pos: arg.pos, kind: ExprKind::Call(present) }, selector))
        }
        _ => None,
    }
}

/// Whether the answer says that something is not there, which cannot be told while shards are missing.
#[must_use]
pub fn tells_absence(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => tells_absence(inner),
        ExprKind::Binary(binary) => tells_absence(&binary.lhs) || tells_absence(&binary.rhs),
        ExprKind::Aggregate(aggregate) => {
            tells_absence(&aggregate.expr) || aggregate.param.as_ref().is_some_and(tells_absence)
        }
        ExprKind::Call(call) => {
            matches!(call.func, Function::Absent | Function::AbsentOverTime)
                || call.args.iter().any(tells_absence)
        }
        ExprKind::Subquery(subquery) => tells_absence(&subquery.expr),
        _ => false,
    }
}
