//! `query`, `query_range`, `format_query`, `parse_query`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use axum::extract::State;
use tricord_promql::ast::{Expr, ValueType};
use tricord_promql::format::pretty;
use tricord_promql::json::to_json;
use tricord_promql::parser::parse;
use tricord_promql::value::{Grid, QueryValue};

use super::stats;
use crate::Proxy;
use crate::api::{Asked, Reply};
use crate::error::Error;
use crate::query::{Answer, LIGHT_CELLS, Question};
use crate::render::{ResultShape, write_result};

/// The most points per series that one range query may have.
const MAX_POINTS: i64 = 11_000;
/// The most warnings, and the most infos, that an answer spells out, as in Prometheus.
const MAX_NOTES: usize = 10;

/// `GET|POST /query`
pub(super) async fn instant(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer =
        async { answer(&proxy, &asked, instant_question(&proxy, &asked)?, ResultShape::Instant).await };
    proxy.observe("instant", answer).await
}

/// `GET|POST /query_range`
pub(super) async fn range(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async { answer(&proxy, &asked, range_question(&proxy, &asked)?, ResultShape::Range).await };
    proxy.observe("range", answer).await
}

/// `GET|POST /format_query`
pub(super) async fn format(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    Ok(Reply::json(&serde_json::json!(pretty(&expression(&proxy, &asked)?))))
}

/// `GET|POST /parse_query`
pub(super) async fn parsed(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    Ok(Reply::json(&to_json(&expression(&proxy, &asked)?)))
}

fn expression(proxy: &Proxy, asked: &Asked) -> Result<Expr, Error> {
    parse(asked.params.get("query"), &proxy.parser_options())
        .map_err(|error| Error::parameter("query", error))
}

/// The question of an instant query.
pub(super) fn instant_question(proxy: &Proxy, asked: &Asked) -> Result<Question, Error> {
    asked.params.count("limit")?;
    let t_ms = asked.params.time("time")?.unwrap_or(asked.now_ms);
    let (deadline, lookback_ms) = (deadline(proxy, asked)?, lookback(asked)?);
    let expr = expression(proxy, asked)?;
    let (tenant, text, now_ms) = (asked.tenant.clone(), asked.params.get("query").into(), asked.now_ms);
    let (grid, count_steps) = (Grid::instant(t_ms), stats::are_wanted(asked));
    Ok(Question { tenant, expr, text, grid, lookback_ms, now_ms, deadline, count_steps })
}

/// The question of a range query.
pub(super) fn range_question(proxy: &Proxy, asked: &Asked) -> Result<Question, Error> {
    asked.params.count("limit")?;
    let (start_ms, end_ms) = (asked.params.required_time("start")?, asked.params.required_time("end")?);
    if end_ms < start_ms {
        return Err(Error::parameter("end", "end timestamp must not be before start time"));
    }
    let step = super::super::params::parse_duration(asked.params.get("step"));
    let step_ms = step.map_err(|why| Error::parameter("step", why))?;
    if step_ms <= 0 {
        let why = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(Error::parameter("step", why));
    }
    if (end_ms - start_ms) / step_ms > MAX_POINTS {
        let text = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query \
                    resolution (?step=XX)";
        return Err(Error::BadData(text.to_owned()));
    }
    let (deadline, lookback_ms) = (deadline(proxy, asked)?, lookback(asked)?);
    let expr = expression(proxy, asked)?;
    let kind = expr.value_type();
    if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
        let why = format!(
            "invalid expression type {:?} for range query, must be Scalar or instant Vector",
            kind.describe()
        );
        return Err(Error::parameter("query", why));
    }
    let (tenant, text, now_ms) = (asked.tenant.clone(), asked.params.get("query").into(), asked.now_ms);
    let (grid, count_steps) = (Grid { start_ms, end_ms, step_ms }, stats::are_wanted(asked));
    Ok(Question { tenant, expr, text, grid, lookback_ms, now_ms, deadline, count_steps })
}

/// When the asker gives up.
pub(super) fn deadline(proxy: &Proxy, asked: &Asked) -> Result<Instant, Error> {
    let longest = proxy.settings().query_timeout;
    let asked =
        asked.params.duration("timeout")?.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    Ok(Instant::now() + asked.map_or(longest, |asked| asked.min(longest)))
}

/// How far instant selectors look back, in milliseconds, where that is said.
pub(super) fn lookback(asked: &Asked) -> Result<Option<i64>, Error> {
    match asked.params.get("lookback_delta") {
        "" => Ok(None),
        text => match super::super::params::parse_duration(text) {
            Ok(ms) if ms > 0 => Ok(Some(ms)),
            Ok(_) => Ok(None),
            Err(why) => Err(Error::BadData(format!("error parsing lookback delta duration: {why}"))),
        },
    }
}

async fn answer(
    proxy: &Proxy,
    asked: &Asked,
    question: Question,
    shape: ResultShape,
) -> Result<Reply, Error> {
    let started = Instant::now();
    let result = proxy.engine().answer(&question).await;
    let took = started.elapsed();
    note_if_slow(proxy, asked, &question, result.as_ref(), took);
    let mut answer = result?;
    let limit = asked.params.count("limit")?;
    let truncated = truncate(&mut answer.value, limit);
    let stats = stats::json(asked, &answer, question.grid);
    let mut annotations = std::mem::take(&mut answer.annotations).limited(MAX_NOTES);
    annotations.warnings.extend(stats::warning(asked));
    let missing = std::mem::take(&mut answer.missing);
    let is_heavy = cells(&answer.value) > LIGHT_CELLS;
    let render = move || render(&answer.value, question.grid, shape, stats.as_ref());
    let data = tricord_runtime::blocking_when(is_heavy, render).await;
    let reply = Reply { annotations, ..Reply::new(data) };
    reply.truncated(truncated).missing(missing, asked.denies_partial())
}

fn render(value: &QueryValue, grid: Grid, shape: ResultShape, stats: Option<&serde_json::Value>) -> Vec<u8> {
    let mut out = vec![b'{'];
    write_result(&mut out, value, grid, shape);
    if let Some(stats) = stats {
        let _ = write!(out, ",\"stats\":{stats}");
    }
    out.push(b'}');
    out
}

/// How many values there are to write; a histogram or a series' labels count for as many as they are long.
fn cells(value: &QueryValue) -> usize {
    match value {
        QueryValue::Scalar(values) => values.len(),
        QueryValue::String(_) => 1,
        QueryValue::Vector(columns) => {
            columns.iter().map(|column| 8 + column.floats.len() + column.histograms.len() * 64).sum()
        }
        QueryValue::Matrix(series) => {
            series.iter().map(|(_, points)| 8 + points.len() + points.histograms.len() * 64).sum()
        }
    }
}

/// Keeps the first series; returns whether any was left out.
fn truncate(value: &mut QueryValue, limit: u64) -> bool {
    let keep = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    match value {
        QueryValue::Vector(columns) if columns.len() > keep => columns.truncate(keep),
        QueryValue::Matrix(series) if series.len() > keep => series.truncate(keep),
        _ => return false,
    }
    true
}

/// A line in the log for whoever wonders which panel is slow.
fn note_if_slow(
    proxy: &Proxy,
    asked: &Asked,
    question: &Question,
    result: Result<&Answer, &Error>,
    took: Duration,
) {
    if proxy.settings().slow_query.is_none_or(|limit| took < limit) {
        return;
    }
    let text: String = asked.params.get("query").chars().take(2000).collect();
    let (origin, grid) = (&asked.origin, question.grid);
    tracing::warn!(
        query = text,
        tenant = asked.tenant.as_str(),
        seconds = took.as_secs_f64(),
        start_ms = grid.start_ms,
        end_ms = grid.end_ms,
        step_ms = grid.step_ms,
        samples = result.map_or(0, |answer| answer.stats.samples),
        series = result.map_or(0, |answer| answer.stats.series),
        outcome = result.err().map_or("ok", |error| error.kind().as_str()),
        dashboard = origin.dashboard,
        panel = origin.panel,
        org = origin.org,
        "slow query"
    );
}
