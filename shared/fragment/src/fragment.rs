//! What the proxy asks of a data node.

use serde::{Deserialize, Serialize};
use tricord_model::Matcher;
use tricord_promql::ast::{AggregateOp, Grouping};
use tricord_promql::value::Grid;

use crate::trace::{Condition, Field, SearchQuery, TraceById};
use crate::{Error, QueryLimits};

/// The version that this build writes. Fields may be added with a default under the same version; anything else
/// raises it.
pub const FRAGMENT_VERSION: u8 = 1;

/// A piece of a query. Which shards it runs over stands beside it in the request, with their epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fragment {
    /// The query's "now", in milliseconds: replicas read no clock.
    pub now_ms: i64,
    /// Samples and spans before this are past retention, in milliseconds; `i64::MIN` keeps everything.
    pub horizon_ms: i64,
    /// What it may use.
    pub limits: QueryLimits,
    /// What to do.
    pub body: FragmentBody,
}

/// The kinds of fragments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FragmentBody {
    /// An expression that is local to a series, perhaps folded into groups. Answered by `Columns` or `Groups`.
    Promql(PromqlFragment),
    /// Raw samples of a selector, for range selectors at the top of an instant query, exports and remote read.
    /// Answered by `Raw`.
    Raw(LabelQuery),
    /// Label names of matching series. Answered by `Names`.
    LabelNames(LabelQuery),
    /// Values of one label. Answered by `Names`.
    LabelValues {
        /// The label.
        name: String,
        /// Of which series.
        query: LabelQuery,
    },
    /// Label sets of matching series. Answered by `Series`.
    Series(LabelQuery),
    /// Exemplars of matching series. Answered by `Exemplars`.
    Exemplars(LabelQuery),
    /// Metadata of metric families. Answered by `Metadata`.
    Metadata {
        /// Only this family, or all where empty.
        family: String,
        /// At most this many families; 0 for no bound.
        limit: u64,
    },
    /// Cardinality counts of the newest day. Answered by `Cardinality`.
    Cardinality {
        /// How many entries each list has.
        top: u32,
    },
    /// What reading samples would cost, from the index alone. Answered by `Estimate`.
    Estimate(LabelQuery),
    /// One trace. Answered by `Spans`.
    TraceById(TraceById),
    /// Traces by attributes. Answered by `Traces`.
    TraceSearch(SearchQuery),
    /// Service and operation names. Answered by `Operations`.
    Operations {
        /// Only of this service, or of all where empty.
        service: String,
        /// Spans that start no earlier, in nanoseconds.
        start_ns: u64,
        /// Spans that start no later, in nanoseconds.
        end_ns: u64,
    },
    /// Attribute names of spans. Answered by `Names`, each a scope (`resource`, `span`, …), a zero byte and the name.
    SpanTags {
        /// Spans that start no earlier, in nanoseconds.
        start_ns: u64,
        /// Spans that start no later, in nanoseconds; 0 for no bound.
        end_ns: u64,
    },
    /// Values of one field of spans. Answered by `Names`, each a type (`string`, `int`, …), a zero byte and the value.
    SpanTagValues {
        /// The field.
        field: Field,
        /// Only of spans for which all of these hold.
        conditions: Vec<Condition>,
        /// Spans that start no earlier, in nanoseconds.
        start_ns: u64,
        /// Spans that start no later, in nanoseconds; 0 for no bound.
        end_ns: u64,
        /// At most this many values.
        limit: u64,
    },
}

/// Series by matchers and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelQuery {
    /// Alternatives; within one, all matchers must hold. Empty matches every series.
    pub matchers: Vec<Vec<Matcher>>,
    /// From, in milliseconds (inclusive).
    pub start_ms: i64,
    /// To, in milliseconds (inclusive).
    pub end_ms: i64,
    /// At most this many results; 0 for no bound but the limits'.
    pub limit: u64,
}

/// An expression to evaluate where the data lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromqlFragment {
    /// The expression as PromQL: the printer's text parses back to the same tree. Where it is folded into groups, no
    /// parentheses enclose it.
    pub expr: String,
    /// Evaluation times of the fragment (those of a subquery's body differ from the query's).
    pub grid: Grid,
    /// The query's own times, for `@ start()`, `@ end()`, `step()` and `range()`.
    pub query: Grid,
    /// How far an instant selector looks back, in milliseconds.
    pub lookback_ms: i64,
    /// The step of subqueries that name none, in milliseconds.
    pub default_subquery_step_ms: i64,
    /// Whether metric names are dropped only at the end.
    pub delayed_name_removal: bool,
    /// Whether start timestamps are used.
    pub start_timestamps: bool,
    /// Whether samples are counted step by step.
    #[serde(default)]
    pub count_steps: bool,
    /// Whether the query reads counts and sums of histograms alone here, so that buckets may stay away.
    #[serde(default)]
    pub histogram_stats: bool,
    /// Folds the columns into groups.
    pub aggregate: Option<AggregateSpec>,
}

/// An aggregation to run as its first phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AggregateSpec {
    /// The operator.
    pub op: AggregateOp,
    /// The groups.
    pub grouping: Grouping,
    /// The parameter at each step (k of topk); empty where the operator has none, one value where it is constant.
    pub param: Vec<f64>,
}

impl Fragment {
    /// The fragment as bytes: a version, then MessagePack with named fields.
    ///
    /// # Errors
    /// [`Error::Encoding`] when a value cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![FRAGMENT_VERSION];
        rmp_serde::encode::write_named(&mut bytes, self).map_err(|error| encoding(&error))?;
        Ok(bytes)
    }

    /// Reads what [`Fragment::encode`] wrote.
    ///
    /// # Errors
    /// [`Error`] when the bytes are malformed or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        match bytes.split_first() {
            Some((&FRAGMENT_VERSION, body)) => rmp_serde::from_slice(body).map_err(|error| encoding(&error)),
            Some((&found, _)) => Err(Error::Version { what: "fragment", found, known: FRAGMENT_VERSION }),
            None => Err(Error::Encoding { what: "fragment", why: "it is empty".to_owned() }),
        }
    }
}

fn encoding(error: &dyn std::fmt::Display) -> Error {
    Error::Encoding { what: "fragment", why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use tricord_model::MatchOp;

    use super::*;

    fn example() -> Fragment {
        let matcher = Matcher::new("job", MatchOp::Regex, "a|b").unwrap();
        let query = LabelQuery { matchers: vec![vec![matcher]], start_ms: 1, end_ms: 2, limit: 3 };
        let body = FragmentBody::LabelValues { name: "x".into(), query };
        Fragment { now_ms: 5, horizon_ms: i64::MIN, limits: QueryLimits::default(), body }
    }

    #[test]
    fn a_fragment_comes_back_as_it_was() {
        assert_eq!(Fragment::decode(&example().encode().unwrap()), Ok(example()));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = example().encode().unwrap();
        bytes[0] = 9;
        let error = Fragment::decode(&bytes).unwrap_err();
        assert_eq!(error, Error::Version { what: "fragment", found: 9, known: 1 });
    }
}
