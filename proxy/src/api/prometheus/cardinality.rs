//! `cardinality/…`: how many series the names and values of labels have, and how that has grown. Paths, parameters and
//! fields are those of Mimir, without an envelope; counted are the series in force at one time.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use serde_json::{Value, json};
use tricord_fragment::{FragmentBody, LabelQuery};
use tricord_model::{METRIC_NAME, Matcher};
use tricord_promql::format::quote;
use tricord_promql::parser::{parse, parse_selector};
use tricord_promql::value::{Column, Grid, QueryValue};

use super::query::{deadline, lookback};
use crate::Proxy;
use crate::api::{Asked, Reply};
use crate::error::Error;
use crate::merge::lists;
use crate::query::Question;
use crate::scatter::MissingShard;

/// Items in an answer where no limit is given, and at most.
const DEFAULT_LIMIT: u64 = 20;
const MAX_LIMIT: u64 = 500;
/// Labels that one request may ask for.
const MAX_LABELS: usize = 20;
/// Names that are looked through for the ones with most values.
const MAX_NAMES: u64 = 500;

/// What all three have in common.
struct Counted {
    /// The selector as it was given; all series where none was.
    selector: String,
    matchers: Vec<Matcher>,
    limit: usize,
    t_ms: i64,
    lookback_ms: i64,
    /// How long before, in milliseconds, the counts are compared with.
    since_ms: Option<i64>,
}

impl Counted {
    fn read(proxy: &Proxy, asked: &Asked) -> Result<Self, Error> {
        let selector = match asked.params.get("selector") {
            "" => format!("{{{METRIC_NAME}!=\"\"}}"),
            text => text.to_owned(),
        };
        let matchers = parse_selector(&selector).map_err(|error| Error::parameter("selector", error))?;
        let limit = match asked.params.count("limit")? {
            0 => DEFAULT_LIMIT,
            limit if limit <= MAX_LIMIT => limit,
            _ => return Err(Error::parameter("limit", format!("limit must be at most {MAX_LIMIT}"))),
        };
        let since_ms = asked.params.duration("since")?;
        if since_ms.is_some_and(|ms| ms <= 0) {
            return Err(Error::parameter("since", "since must be a positive duration"));
        }
        Ok(Self {
            selector,
            matchers,
            limit: limit as usize,
            t_ms: asked.params.time("time")?.unwrap_or(asked.now_ms),
            lookback_ms: lookback(asked)?.unwrap_or(proxy.settings().lookback_ms),
            since_ms,
        })
    }

    fn labels(&self, limit: u64) -> LabelQuery {
        let start_ms = self.t_ms.saturating_sub(self.lookback_ms);
        LabelQuery { matchers: vec![self.matchers.clone()], start_ms, end_ms: self.t_ms, limit }
    }

    /// What a query answers at a time, as a vector.
    async fn ask(
        &self,
        proxy: &Proxy,
        asked: &Asked,
        (text, t_ms): (&str, i64),
        missing: &mut Vec<MissingShard>,
    ) -> Result<Vec<Column>, Error> {
        let expr = parse(text, &proxy.parser_options())
            .map_err(|error| Error::Internal(format!("a query of cardinality does not read: {error}")))?;
        let question = Question {
            tenant: asked.tenant.clone(),
            expr,
            text: text.into(),
            grid: Grid::instant(t_ms),
            lookback_ms: Some(self.lookback_ms),
            now_ms: asked.now_ms,
            deadline: deadline(proxy, asked)?,
            count_steps: false,
        };
        let answer = proxy.engine().answer(&question).await?;
        missing.extend(answer.missing);
        match answer.value {
            QueryValue::Vector(columns) => Ok(columns),
            _ => Err(Error::Internal("a query of cardinality does not answer a vector".to_owned())),
        }
    }
}

/// `GET|POST /cardinality/label_names`: the labels with most values.
pub(super) async fn label_names(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        let counted = Counted::read(&proxy, &asked)?;
        let scattered = proxy.look_up(&asked, FragmentBody::LabelNames(counted.labels(MAX_NAMES))).await?;
        let mut missing = scattered.missing;
        let names = lists::names(scattered.partials, MAX_NAMES)?;
        let mut counts = Vec::with_capacity(names.items.len());
        for name in names.items {
            let body = FragmentBody::LabelValues { name: name.clone(), query: counted.labels(0) };
            let scattered = proxy.look_up(&asked, body).await?;
            missing.extend(scattered.missing);
            counts.push((name, lists::names(scattered.partials, 0)?.items.len()));
        }
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let total: usize = counts.iter().map(|(_, values)| values).sum();
        let list = counts.iter().take(counted.limit);
        let list: Vec<Value> =
            list.map(|(name, values)| json!({ "label_name": name, "label_values_count": values })).collect();
        let fields = json!({
            "label_values_count_total": total,
            "label_names_count": counts.len(),
            "cardinality": list,
        });
        let reply = Reply::fields(&fields).truncated(names.truncated);
        reply.missing(missing, asked.denies_partial())
    };
    proxy.observe("cardinality", answer).await
}

/// `GET|POST /cardinality/label_values`: the values of some labels with most series.
pub(super) async fn label_values(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        let counted = Counted::read(&proxy, &asked)?;
        let names: Vec<&str> = asked.params.all("label_names[]").collect();
        if names.is_empty() || names.len() > MAX_LABELS || names.contains(&"") {
            let why = format!("give label_names[] once for each label, for 1 to {MAX_LABELS} labels");
            return Err(Error::BadData(why));
        }
        let mut missing = Vec::new();
        let total = counted.total(&proxy, &asked, &mut missing).await?;
        let mut labels = Vec::with_capacity(names.len());
        for name in names {
            labels.push(counted.label(&proxy, &asked, name, &mut missing).await?);
        }
        let fields = json!({ "series_count_total": total, "labels": labels });
        Reply::fields(&fields).missing(missing, asked.denies_partial())
    };
    proxy.observe("cardinality", answer).await
}

/// `GET|POST /cardinality/active_series`: the label sets of the series in force.
pub(super) async fn active_series(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        if asked.params.get("selector").is_empty() {
            return Err(Error::BadData("no selector parameter provided".to_owned()));
        }
        let counted = Counted::read(&proxy, &asked)?;
        let mut missing = Vec::new();
        let columns = counted.ask(&proxy, &asked, (&counted.selector, counted.t_ms), &mut missing).await?;
        let cut = columns.len() > counted.limit && !asked.params.get("limit").is_empty();
        let keep = if cut { counted.limit } else { columns.len() };
        let sets = columns.iter().take(keep).map(|column| column.labels.iter().collect::<BTreeMap<_, _>>());
        let fields = json!({ "data": sets.collect::<Vec<_>>() });
        Reply::fields(&fields).truncated(cut).missing(missing, asked.denies_partial())
    };
    proxy.observe("cardinality", answer).await
}

impl Counted {
    /// How many series there are.
    async fn total(
        &self,
        proxy: &Proxy,
        asked: &Asked,
        missing: &mut Vec<MissingShard>,
    ) -> Result<u64, Error> {
        let text = format!("count({})", self.selector);
        let columns = self.ask(proxy, asked, (&text, self.t_ms), missing).await?;
        Ok(columns.first().map_or(0, count))
    }

    /// How many series each value of a label has, the greatest first.
    async fn label(
        &self,
        proxy: &Proxy,
        asked: &Asked,
        name: &str,
        missing: &mut Vec<MissingShard>,
    ) -> Result<Value, Error> {
        let text = format!("count by ({}) ({})", quote(name), self.selector);
        let of = |columns: Vec<Column>| {
            let value = |column: &Column| column.labels.get(name).map(str::to_owned);
            columns.iter().filter_map(|column| Some((value(column)?, count(column)))).collect::<Vec<_>>()
        };
        let mut counts = of(self.ask(proxy, asked, (&text, self.t_ms), missing).await?);
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let before: Option<HashMap<String, u64>> = match self.since_ms {
            None => None,
            Some(ms) => {
                let then = (text.as_str(), self.t_ms.saturating_sub(ms));
                Some(of(self.ask(proxy, asked, then, missing).await?).into_iter().collect())
            }
        };
        let list = counts.iter().take(self.limit).map(|(value, series)| {
            let mut entry = json!({ "label_value": value, "series_count": series });
            if let Some(before) = &before {
                entry["series_count_before"] = json!(before.get(value).copied().unwrap_or(0));
            }
            entry
        });
        Ok(json!({
            "label_name": name,
            "label_values_count": counts.len(),
            "series_count": counts.iter().map(|(_, series)| series).sum::<u64>(),
            "cardinality": list.collect::<Vec<_>>(),
        }))
    }
}

/// The value of a count.
fn count(column: &Column) -> u64 {
    column.floats.first().map_or(0, |count| *count as u64)
}

#[cfg(test)]
mod tests {
    use tricord_promql::parser::ParserOptions;

    use super::*;

    #[test]
    fn any_name_can_be_grouped_by() {
        for name in ["job", "http.status", "with \"quotes\"", "back\\slash", "new\nline"] {
            let text = format!("count by ({}) (up)", quote(name));
            let expr = parse(&text, &ParserOptions::default()).unwrap();
            let tricord_promql::ast::ExprKind::Aggregate(aggregate) = &expr.kind else { panic!("{expr}") };
            assert_eq!(aggregate.grouping.labels, [name]);
        }
    }
}
