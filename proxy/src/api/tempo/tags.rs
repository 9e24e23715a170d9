//! Which tags spans have and which values, of the newest spans: enough for an editor's completion.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use serde_json::json;
use tricord_fragment::FragmentBody;
use tricord_fragment::trace::Field;

use super::super::traces::{Answer, Listed};
use super::{Asked, Failure, time_range};
use crate::Proxy;
use crate::error::Error;
use crate::plan::trace as plan;

/// Values of one tag where a request does not say how many.
const DEFAULT_VALUES: u64 = 1000;
/// What a span has beside attributes.
const INTRINSICS: [&str; 16] = [
    "duration",
    "event:name",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "name",
    "rootName",
    "rootServiceName",
    "span:id",
    "span:parentID",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
];

async fn scopes(proxy: &Proxy, asked: &Asked) -> Result<(BTreeMap<String, Vec<String>>, Answer), Error> {
    let (start_ns, end_ns) = time_range(asked)?;
    let wanted = asked.params.get("scope");
    let mut scopes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut missing = vec![];
    if wanted != "intrinsic" {
        let body = FragmentBody::SpanTags { start_ns, end_ns };
        let found = proxy.span_queries(asked).await?.pairs(body, 0).await?;
        missing = found.missing;
        for (scope, tag) in found.items {
            scopes.entry(scope).or_default().push(tag);
        }
    }
    scopes.insert("intrinsic".to_owned(), INTRINSICS.map(str::to_owned).to_vec());
    if !wanted.is_empty() && wanted != "none" {
        scopes.retain(|scope, _| scope == wanted);
    }
    Ok((scopes, Answer::default().lacking(missing)))
}

/// `GET /api/v2/search/tags`
pub(super) async fn tags_v2(State(proxy): State<Proxy>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let (scopes, lacking) = scopes(&proxy, &asked).await?;
        let scopes: Vec<_> =
            scopes.iter().map(|(name, tags)| json!({ "name": name, "tags": tags })).collect();
        Ok(Answer::json(&json!({ "scopes": scopes })).lacking(lacking.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

/// `GET /api/search/tags`
pub(super) async fn tags_v1(State(proxy): State<Proxy>, asked: Asked) -> Result<Answer, Failure> {
    let answer = async {
        let (scopes, lacking) = scopes(&proxy, &asked).await?;
        let names: BTreeSet<&String> = scopes.values().flatten().collect();
        Ok(Answer::json(&json!({ "tagNames": names })).lacking(lacking.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

async fn values(proxy: &Proxy, asked: &Asked, field: Field) -> Result<Listed<(String, String)>, Error> {
    let (start_ns, end_ns) = time_range(asked)?;
    // An editor sends what is typed so far: what cannot be read narrows nothing.
    let conditions = plan::parse(asked.params.get("q")).map(|search| search.conditions).unwrap_or_default();
    let limit = match asked.params.count("limit")? {
        0 => DEFAULT_VALUES,
        limit => limit,
    };
    let body = FragmentBody::SpanTagValues { field, conditions, start_ns, end_ns, limit };
    proxy.span_queries(asked).await?.pairs(body, limit).await
}

/// `GET /api/v2/search/tag/{tag}/values`
pub(super) async fn values_v2(
    State(proxy): State<Proxy>,
    Path(tag): Path<String>,
    asked: Asked,
) -> Result<Answer, Failure> {
    let answer = async {
        let found = values(&proxy, &asked, plan::field(&tag)?).await?;
        let values: Vec<_> =
            found.items.iter().map(|(kind, value)| json!({ "type": kind, "value": value })).collect();
        Ok(Answer::json(&json!({ "tagValues": values })).lacking(found.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}

/// `GET /api/search/tag/{tag}/values`, where a tag has no scope.
pub(super) async fn values_v1(
    State(proxy): State<Proxy>,
    Path(tag): Path<String>,
    asked: Asked,
) -> Result<Answer, Failure> {
    let answer = async {
        let is_intrinsic = INTRINSICS.contains(&tag.as_str());
        let field = if is_intrinsic { plan::field(&tag)? } else { Field::Any(tag) };
        let found = values(&proxy, &asked, field).await?;
        let values: BTreeSet<&String> = found.items.iter().map(|(_, value)| value).collect();
        Ok(Answer::json(&json!({ "tagValues": values })).lacking(found.missing))
    };
    Ok(proxy.observe_traces(answer).await?)
}
