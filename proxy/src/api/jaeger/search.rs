//! `GET /api/traces` and `GET /api/dependencies`.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tricord_fragment::trace::{Comparison, Condition, Field, Operand, SearchQuery};
use tricord_model::{SpanRecord, TraceId};

use super::super::traces::{Answer, SpanQueries, service_field, trace_id};
use super::{Asked, Failure, asked_service, enveloped, load, shown_service};
use crate::Proxy;
use crate::error::Error;
use crate::merge::trace::resource_spans;
use crate::plan::trace::duration_ns;

/// What Jaeger answers where a request does not say.
const DEFAULT_LIMIT: u64 = 100;
/// The most whole traces in one answer.
const MAX_TRACES: u64 = 1500;
/// Traces that the dependencies are counted over, the newest ones.
const DEPENDENCY_TRACES: u32 = 500;
/// How many traces are loaded at once.
const AT_ONCE: usize = 16;

/// `GET /api/traces?service=…` or `?traceID=…`
pub(super) async fn traces(State(proxy): State<Proxy>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let mut ids = asked.params.all("traceID").map(trace_id).collect::<Result<Vec<_>, Error>>()?;
        if ids.len() as u64 > MAX_TRACES {
            return Err(Error::parameter("traceID", format!("at most {MAX_TRACES} are allowed")));
        }
        let (mut limit, mut missing) = (0, vec![]);
        let mut range = (0, 0);
        let query = if ids.is_empty() { Some(query(&asked)?) } else { None };
        let queries = proxy.span_queries(&asked).await?;
        match query {
            Some(query) => {
                limit = u64::from(query.limit);
                let found = queries.search(query).await?;
                ids = found.items.iter().map(|trace| TraceId(trace.trace_id)).collect();
                missing = found.missing;
            }
            None => range = time_range(&asked)?,
        }
        let queries = &queries;
        let loads = ids.into_iter().map(|id| load(queries, id, range.0, range.1));
        let loaded: Vec<Option<Value>> = futures::stream::iter(loads).buffered(AT_ONCE).try_collect().await?;
        let traces: Vec<Value> = loaded.into_iter().flatten().collect();
        Ok(enveloped(&traces, limit, missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

fn query(asked: &Asked) -> Result<SearchQuery, Error> {
    let params = &asked.params;
    let service = match params.get("service") {
        "" => return Err(Error::parameter("service", "name a service")),
        name => asked_service(name),
    };
    let mut conditions = vec![match service {
        "" => Condition { field: service_field(), op: Comparison::NotExists, value: Operand::Nil },
        name => equal(service_field(), name),
    }];
    match params.get("operation") {
        "" | "all" => {}
        operation => conditions.push(equal(Field::Name, operation)),
    }
    for (key, value) in tags(asked)? {
        conditions.push(equal(Field::Anywhere(key), &value));
    }
    for (name, op) in [("minDuration", Comparison::GreaterOrEqual), ("maxDuration", Comparison::LessOrEqual)]
    {
        let text = params.get(name);
        if !text.is_empty() {
            let wrong = || Error::parameter(name, "give a duration such as 1.2s, 100ms or 500us");
            let bound = duration_ns(text).ok_or_else(wrong)?;
            let value = Operand::Int(i64::try_from(bound).unwrap_or(i64::MAX));
            conditions.push(Condition { field: Field::Duration, op, value });
        }
    }
    let limit = match params.count("limit")? {
        0 => DEFAULT_LIMIT,
        limit if limit > MAX_TRACES => {
            return Err(Error::parameter("limit", format!("at most {MAX_TRACES} are allowed")));
        }
        limit => limit,
    };
    let (start_ns, end_ns) = time_range(asked)?;
    Ok(all_of(conditions, (start_ns, end_ns), limit as u32))
}

fn all_of(conditions: Vec<Condition>, (start_ns, end_ns): (u64, u64), limit: u32) -> SearchQuery {
    SearchQuery {
        conditions,
        start_ns,
        end_ns,
        min_trace_ns: 0,
        max_trace_ns: 0,
        limit,
        spans_per_trace: 0,
        select: vec![],
    }
}

fn equal(field: Field, text: &str) -> Condition {
    Condition { field, op: Comparison::Equal, value: Operand::Text(text.to_owned()) }
}

/// `tags={"key":"value"}` and `tag=key:value`.
fn tags(asked: &Asked) -> Result<BTreeMap<String, String>, Error> {
    let mut tags = BTreeMap::new();
    for text in asked.params.all("tags").filter(|text| !text.is_empty()) {
        let map: BTreeMap<String, Value> = serde_json::from_str(text)
            .map_err(|error| Error::parameter("tags", format!("give a JSON object of texts: {error}")))?;
        for (key, value) in map {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            tags.insert(key, value);
        }
    }
    for text in asked.params.all("tag") {
        let pair = text.split_once(':').ok_or_else(|| Error::parameter("tag", "write it as key:value"))?;
        tags.insert(pair.0.to_owned(), pair.1.to_owned());
    }
    if tags.len() > 64 {
        return Err(Error::parameter("tags", "at most 64 are allowed"));
    }
    Ok(tags)
}

/// `start` and `end` in microseconds, as nanoseconds; 0 is no bound.
pub(super) fn time_range(asked: &Asked) -> Result<(u64, u64), Error> {
    let start_ns = asked.params.count("start")?.saturating_mul(1000);
    let end_ns = match asked.params.count("end")? {
        0 => 0,
        end => end.saturating_mul(1000).saturating_add(999),
    };
    if end_ns > 0 && start_ns > end_ns {
        return Err(Error::parameter("end", "end must not be before start"));
    }
    Ok((start_ns, end_ns))
}

/// `GET /api/dependencies?endTs=…&lookback=…` (milliseconds): who calls whom, counted over the newest traces.
pub(super) async fn dependencies(State(proxy): State<Proxy>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let end_ms = match asked.params.count("endTs")? {
            0 => u64::try_from(asked.now_ms).unwrap_or(0),
            end_ms => end_ms,
        };
        let lookback_ms = match asked.params.count("lookback")? {
            0 => 86_400_000,
            lookback_ms => lookback_ms,
        };
        let nanos = |ms: u64| ms.saturating_mul(1_000_000);
        let range = (nanos(end_ms.saturating_sub(lookback_ms)), nanos(end_ms));
        let queries = proxy.span_queries(&asked).await?;
        let found = queries.search(all_of(vec![], range, DEPENDENCY_TRACES)).await?;
        let ids = found.items.iter().map(|trace| TraceId(trace.trace_id)).collect();
        let calls = count_calls(&queries, ids).await?;
        let links: Vec<Value> = calls
            .into_iter()
            .map(|((parent, child), calls)| json!({ "parent": parent, "child": child, "callCount": calls }))
            .collect();
        Ok(enveloped(&links, 0, found.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

async fn count_calls(
    queries: &SpanQueries<'_>,
    ids: Vec<TraceId>,
) -> Result<BTreeMap<(String, String), u64>, Error> {
    let loads =
        futures::stream::iter(ids.into_iter().map(|id| queries.trace(id, 0, 0))).buffer_unordered(AT_ONCE);
    let mut calls = BTreeMap::new();
    let mut loads = std::pin::pin!(loads);
    while let Some(spans) = loads.next().await {
        add_calls(&spans?, &mut calls)?;
    }
    Ok(calls)
}

/// Adds a trace's edges between services.
fn add_calls(spans: &[SpanRecord], calls: &mut BTreeMap<(String, String), u64>) -> Result<(), Error> {
    let grouped = resource_spans(spans)?;
    let mut services: HashMap<&[u8], &str> = HashMap::new();
    let mut edges: Vec<(&[u8], &str)> = Vec::new();
    for group in &grouped {
        let service = shown_service(super::convert::service(group));
        for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
            services.insert(&span.span_id, service);
            edges.push((&span.parent_span_id, service));
        }
    }
    for (parent, child) in edges {
        if let Some(parent) = services.get(parent).filter(|parent| **parent != child) {
            *calls.entry(((*parent).to_owned(), child.to_owned())).or_default() += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Origin;
    use crate::api::params::Params;

    fn ask(text: &str) -> Result<SearchQuery, Error> {
        let params = Params::parse(&[text.as_bytes()]);
        query(&Asked { tenant: Default::default(), params, origin: Origin::default(), now_ms: 0 })
    }

    #[test]
    fn parameters_become_conditions() {
        let found = ask("service=shop&operation=GET+%2F&tags=%7B%22error%22%3A%22true%22%2C%22n%22%3A5%7D\
                         &minDuration=1.2ms&maxDuration=2s&limit=7&start=1000&end=2000")
        .unwrap();
        let shown: Vec<String> =
            found.conditions.iter().map(|c| format!("{:?} {:?} {:?}", c.field, c.op, c.value)).collect();
        assert_eq!(
            shown,
            [
                r#"Resource("service.name") Equal Text("shop")"#,
                r#"Name Equal Text("GET /")"#,
                r#"Anywhere("error") Equal Text("true")"#,
                r#"Anywhere("n") Equal Text("5")"#,
                "Duration GreaterOrEqual Int(1200000)",
                "Duration LessOrEqual Int(2000000000)",
            ]
        );
        assert_eq!((found.limit, found.start_ns, found.end_ns), (7, 1_000_000, 2_000_999));
        assert_eq!(ask("service=a&tag=k:v:w").unwrap().conditions[1].value, Operand::Text("v:w".into()));
        assert_eq!(ask("service=OTLPResourceNoServiceName").unwrap().conditions[0].op, Comparison::NotExists);
    }

    #[test]
    fn mistakes_are_named() {
        for wrong in
            ["", "service=a&limit=9999", "service=a&tags=x", "service=a&tag=x", "service=a&minDuration=5"]
        {
            assert_eq!(ask(wrong).unwrap_err().kind().status(), 400, "{wrong}");
        }
    }
}
