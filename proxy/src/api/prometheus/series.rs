//! `series`, `labels` and `label/…/values`.

use axum::extract::{Path, State};
use tricord_fragment::{FragmentBody, LabelQuery};

use super::{match_sets, time_range};
use crate::Proxy;
use crate::api::{Asked, Reply};
use crate::error::Error;
use crate::merge::lists;
use crate::render::{labels_json, texts_json};

/// What is asked; a `match[]` that cannot be used is refused with `refuse`.
fn label_query(asked: &Asked, refuse: impl Fn(String) -> Error) -> Result<LabelQuery, Error> {
    let limit = asked.params.count("limit")?;
    let (start_ms, end_ms) = time_range(asked)?;
    Ok(LabelQuery { matchers: match_sets(asked).map_err(refuse)?, start_ms, end_ms, limit })
}

/// `GET|POST /series`
pub(super) async fn series(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        if asked.params.all("match[]").next().is_none() {
            return Err(Error::BadData("no match[] parameter provided".to_owned()));
        }
        let query = label_query(&asked, |why| Error::parameter("match[]", why))?;
        let limit = query.limit;
        let scattered = proxy.look_up(&asked, FragmentBody::Series(query)).await?;
        let merged = lists::series(scattered.partials, limit)?;
        Reply::new(labels_json(&merged.items))
            .truncated(merged.truncated)
            .missing(scattered.missing, asked.denies_partial())
    };
    proxy.observe("series", answer).await
}

/// `GET|POST /labels`
pub(super) async fn names(State(proxy): State<Proxy>, asked: Asked) -> Result<Reply, Error> {
    let answer = async {
        let query = label_query(&asked, Error::BadData)?;
        let limit = query.limit;
        let scattered = proxy.look_up(&asked, FragmentBody::LabelNames(query)).await?;
        let merged = lists::names(scattered.partials, limit)?;
        Reply::new(texts_json(&merged.items))
            .truncated(merged.truncated)
            .missing(scattered.missing, asked.denies_partial())
    };
    proxy.observe("labels", answer).await
}

/// `GET /label/{name}/values`
pub(super) async fn values(
    State(proxy): State<Proxy>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Reply, Error> {
    let answer = async {
        let name = unescape(&name);
        if name.is_empty() {
            return Err(Error::BadData(format!("invalid label name: {name:?}")));
        }
        let query = label_query(&asked, Error::BadData)?;
        let limit = query.limit;
        let scattered = proxy.look_up(&asked, FragmentBody::LabelValues { name, query }).await?;
        let merged = lists::names(scattered.partials, limit)?;
        Reply::new(texts_json(&merged.items))
            .truncated(merged.truncated)
            .missing(scattered.missing, asked.denies_partial())
    };
    proxy.observe("labels", answer).await
}

/// The name behind Prometheus' `U__` escaping; a name that does not follow its rules stays as it is.
fn unescape(name: &str) -> String {
    name.strip_prefix("U__").and_then(unescape_rest).unwrap_or_else(|| name.to_owned())
}

fn unescape_rest(mut rest: &str) -> Option<String> {
    let mut out = String::new();
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (code, behind) = rest.split_once('_')?;
        if code.is_empty() {
            out.push('_');
        } else {
            let is_hex = code.len() <= 6 && code.bytes().all(|digit| digit.is_ascii_hexdigit());
            let code = is_hex.then(|| u32::from_str_radix(code, 16).ok()).flatten()?;
            out.push(char::from_u32(code)?);
        }
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_come_back() {
        for (escaped, name) in [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U__a_1F600_", "a😀"),
            ("U__broken_", "U__broken_"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__", ""),
        ] {
            assert_eq!(unescape(escaped), name);
        }
    }
}
