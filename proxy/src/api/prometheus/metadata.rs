//! `metadata` and `query_exemplars`.

use axum::extract::State;
use tricord_fragment::{FragmentBody, LabelQuery};
use tricord_promql::parser::parse;

use crate::Proxy;
use crate::api::params::{MAX_TIME_MS, MIN_TIME_MS};
use crate::api::{Asked, Reply};
use crate::error::Error;
use crate::merge::lists;
use crate::render::{exemplars_json, metadata_json};

/// `GET /metadata`
pub(super) async fn metadata(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        let (limit, per_family) = (number(&asked, "limit")?, number(&asked, "limit_per_metric")?);
        let family = asked.params.get("metric").to_owned();
        let scattered = proxy.look_up(&asked, FragmentBody::Metadata { family, limit }).await?;
        let families = lists::metadata(scattered.partials, limit, per_family)?;
        Reply::new(metadata_json(&families)).missing(scattered.missing, asked.denies_partial())
    };
    proxy.observe("metadata", answer).await
}

/// A bound that may be left out or negative, which both mean none.
fn number(asked: &Asked, name: &str) -> Result<u64, Error> {
    match asked.params.get(name) {
        "" => Ok(0),
        text => match text.parse::<i64>() {
            Ok(count) => Ok(u64::try_from(count).unwrap_or(0)),
            Err(_) => Err(Error::BadData(format!("{name} must be a number"))),
        },
    }
}

/// `GET|POST /query_exemplars`
pub(super) async fn exemplars(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        let (start_ms, end_ms) = (exemplar_time(&asked, "start")?, exemplar_time(&asked, "end")?);
        let (start_ms, end_ms) = (start_ms.unwrap_or(MIN_TIME_MS), end_ms.unwrap_or(MAX_TIME_MS));
        if end_ms < start_ms {
            return Err(Error::BadData("end timestamp must not be before start timestamp".to_owned()));
        }
        let expr = parse(asked.params.get("query"), &proxy.parser_options());
        let expr = expr.map_err(|error| Error::BadData(error.to_string()))?;
        let matchers: Vec<_> =
            expr.selectors().into_iter().map(|selector| selector.matchers.clone()).collect();
        if matchers.is_empty() {
            return Ok(Reply::new(b"[]".to_vec()));
        }
        let query = LabelQuery { matchers, start_ms, end_ms, limit: 0 };
        let scattered = proxy.look_up(&asked, FragmentBody::Exemplars(query)).await?;
        let series = lists::exemplars(scattered.partials)?;
        Reply::new(exemplars_json(&series)).missing(scattered.missing, asked.denies_partial())
    };
    proxy.observe("exemplars", answer).await
}

/// Grafana's probe sends milliseconds where the API has seconds: what would lie beyond the year 5000 is taken so.
fn exemplar_time(asked: &Asked, name: &str) -> Result<Option<i64>, Error> {
    const YEAR_5000_MS: i64 = 95_617_584_000_000;
    Ok(asked.params.time(name)?.map(|t_ms| if t_ms > YEAR_5000_MS { t_ms / 1000 } else { t_ms }))
}
