//! `GET /api/search`: TraceQL, or the older parameters `tags`, `minDuration` and `maxDuration`.

use axum::extract::State;
use tricord_fragment::trace::SearchQuery;

use super::super::traces::{Answer, MAX_TRACES};
use super::{Asked, Failure, render, time_range};
use crate::Proxy;
use crate::error::Error;
use crate::plan::trace as plan;

/// What Tempo answers where a request does not say.
const DEFAULT_LIMIT: u64 = 20;
const DEFAULT_SPANS_PER_TRACE: u64 = 3;

pub(super) async fn search(State(proxy): State<Proxy>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let query = query(&asked)?;
        let found = proxy.span_queries(&asked).await?.search(query).await?;
        Ok(Answer::json(&render::search(&found.items)).lacking(found.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

fn query(asked: &Asked) -> Result<SearchQuery, Error> {
    let params = &asked.params;
    let plan::Search { mut conditions, select } = plan::parse(params.get("q"))?;
    conditions.extend(plan::legacy_tags(params.get("tags"))?);
    let (start_ns, end_ns) = time_range(asked)?;
    let count = |name: &str, default: u64, most: u64| match params.count(name)? {
        0 => Ok(default),
        count if count > most => Err(Error::parameter(name, format!("at most {most} are allowed"))),
        count => Ok(count),
    };
    let duration = |name: &str| match params.get(name) {
        "" => Ok(0),
        text => {
            plan::duration_ns(text).ok_or_else(|| Error::parameter(name, "give a duration such as 100ms"))
        }
    };
    Ok(SearchQuery {
        conditions,
        start_ns,
        end_ns,
        min_trace_ns: duration("minDuration")?,
        max_trace_ns: duration("maxDuration")?,
        limit: count("limit", DEFAULT_LIMIT, MAX_TRACES)? as u32,
        spans_per_trace: count("spss", DEFAULT_SPANS_PER_TRACE, 1000)? as u32,
        select,
    })
}

#[cfg(test)]
mod tests {
    use tricord_fragment::trace::Field;

    use super::*;
    use crate::api::Origin;
    use crate::api::params::Params;

    fn ask(text: &str) -> Result<SearchQuery, Error> {
        let params = Params::parse(&[text.as_bytes()]);
        query(&Asked { tenant: Default::default(), params, origin: Origin::default(), now_ms: 0 })
    }

    #[test]
    fn parameters_become_a_query() {
        let found = ask("q=%7Bname%3D%22a%22%7D&limit=7&spss=2&start=10&end=20").unwrap();
        assert_eq!((found.limit, found.spans_per_trace), (7, 2));
        assert_eq!((found.start_ns, found.end_ns), (10_000_000_000, 20_999_999_999));
        assert_eq!(found.conditions[0].field, Field::Name);
        let legacy = ask("tags=service.name%3Dshop%20name%3Da&minDuration=100ms&maxDuration=1s").unwrap();
        assert_eq!((legacy.conditions.len(), legacy.limit, legacy.spans_per_trace), (2, 20, 3));
        assert_eq!((legacy.min_trace_ns, legacy.max_trace_ns), (100_000_000, 1_000_000_000));
        for wrong in ["limit=x", "limit=10001", "minDuration=long", "start=20&end=10", "q=%7B", "tags=a"] {
            assert_eq!(ask(wrong).unwrap_err().kind().status(), 400, "{wrong}");
        }
    }
}
