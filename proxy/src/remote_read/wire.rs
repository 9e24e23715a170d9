//! The messages of remote read, and what they are in Tricord's own terms.

use tricord_fragment::LabelQuery;
use tricord_model::{BucketSpan, FloatHistogram, Labels, MatchOp, Matcher};

use crate::error::Error;

/// The messages, as prost generates them from `proto/`.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic)]
pub(super) mod pb {
    tonic::include_proto!("tricord.remote_read");
}

/// One query of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    /// Which samples of which series.
    pub(super) query: LabelQuery,
    /// Whether the reader wants to know which series there are, and no samples.
    pub(super) series_only: bool,
}

impl Selection {
    /// What a query asks for.
    pub(super) fn of(query: pb::Query) -> Result<Self, Error> {
        let matchers = query.matchers.iter().map(matcher).collect::<Result<_, _>>()?;
        let (mut start_ms, mut end_ms) = (query.start_timestamp_ms, query.end_timestamp_ms);
        let mut series_only = false;
        if let Some(hints) = &query.hints {
            // The name of no function: Prometheus marks so what it looks up for its list of series.
            series_only = hints.func == "series";
            if hints.start_ms <= hints.end_ms && (hints.start_ms, hints.end_ms) != (0, 0) {
                (start_ms, end_ms) = (start_ms.max(hints.start_ms), end_ms.min(hints.end_ms));
            }
        }
        let query = LabelQuery { matchers: vec![matchers], start_ms, end_ms, limit: 0 };
        Ok(Self { query, series_only })
    }

    /// Whether no sample can lie in the range.
    pub(super) fn is_empty(&self) -> bool {
        self.query.start_ms > self.query.end_ms
    }
}

fn matcher(matcher: &pb::LabelMatcher) -> Result<Matcher, Error> {
    let op = match pb::label_matcher::Type::try_from(matcher.r#type) {
        Ok(pb::label_matcher::Type::Eq) => MatchOp::Equal,
        Ok(pb::label_matcher::Type::Neq) => MatchOp::NotEqual,
        Ok(pb::label_matcher::Type::Re) => MatchOp::Regex,
        Ok(pb::label_matcher::Type::Nre) => MatchOp::NotRegex,
        Err(_) => return Err(Error::BadData(format!("matcher type {} is unknown", matcher.r#type))),
    };
    Matcher::new(&matcher.name, op, &matcher.value).map_err(|error| Error::BadData(error.to_string()))
}

/// Labels as pairs, which are sorted by name already.
pub(super) fn labels(labels: &Labels) -> Vec<pb::Label> {
    labels.iter().map(|(name, value)| pb::Label { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// A float that is left out where it is what readers take for granted; -0 is not.
pub(super) fn nonzero(value: f64) -> Option<f64> {
    (value.to_bits() != 0).then_some(value)
}

/// A native histogram as a float histogram.
pub(super) fn histogram(t_ms: i64, histogram: &FloatHistogram) -> pb::Histogram {
    pb::Histogram {
        count: Some(pb::histogram::Count::CountFloat(histogram.count)),
        sum: nonzero(histogram.sum),
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: Some(pb::histogram::ZeroCount::ZeroCountFloat(histogram.zero_count)),
        negative_spans: spans(&histogram.negative_spans),
        negative_deltas: vec![],
        negative_counts: histogram.negative_buckets.clone(),
        positive_spans: spans(&histogram.positive_spans),
        positive_deltas: vec![],
        positive_counts: histogram.positive_buckets.clone(),
        // The numbers are the same.
        reset_hint: histogram.counter_reset_hint as i32,
        timestamp: t_ms,
        custom_values: histogram.custom_values.clone(),
    }
}

fn spans(spans: &[BucketSpan]) -> Vec<pb::BucketSpan> {
    spans.iter().map(|span| pb::BucketSpan { offset: span.offset, length: span.length }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(hints: Option<pb::ReadHints>) -> pb::Query {
        let matchers = vec![pb::LabelMatcher { r#type: 2, name: "job".into(), value: "a|b".into() }];
        pb::Query { start_timestamp_ms: 10, end_timestamp_ms: 90, matchers, hints }
    }

    #[test]
    fn hints_narrow_and_never_widen() {
        let range = |hints| {
            let selection = Selection::of(query(hints)).unwrap();
            (selection.query.start_ms, selection.query.end_ms, selection.is_empty())
        };
        let hints = |start_ms, end_ms| Some(pb::ReadHints { start_ms, end_ms, ..Default::default() });
        assert_eq!(range(None), (10, 90, false));
        assert_eq!(range(hints(0, 0)), (10, 90, false));
        assert_eq!(range(hints(20, 200)), (20, 90, false));
        assert_eq!(range(hints(50, 20)), (10, 90, false));
        assert!(range(hints(91, 99)).2);
    }

    #[test]
    fn matchers_are_checked() {
        let selection = Selection::of(query(None)).unwrap();
        assert_eq!(selection.query.matchers[0][0].to_string(), "job=~\"a|b\"");
        let mut unknown = query(None);
        unknown.matchers[0].r#type = 7;
        assert!(Selection::of(unknown).unwrap_err().to_string().contains("matcher type 7"));
        let mut broken = query(None);
        broken.matchers[0].value = "(".into();
        assert_eq!(Selection::of(broken).unwrap_err().kind().status(), 400);
    }
}
