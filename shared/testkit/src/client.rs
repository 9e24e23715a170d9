//! A small client for one HTTP listener: writing and asking as curl and Grafana do.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use tricord_model::{Labels, Points};

use crate::remote_write::{RemoteSeries, remote_write_body};
use crate::remote_write_v2::remote_write_v2_body;

/// A client for `host:port`, for one tenant.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    tenant: Option<String>,
    http: reqwest::Client,
}

/// An HTTP answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The answer itself if it is a success.
    ///
    /// # Errors
    /// Status and body otherwise.
    pub fn success(self) -> Result<Self> {
        if !(200..300).contains(&self.status) {
            bail!("status {}: {}", self.status, self.text());
        }
        Ok(self)
    }
}

impl Client {
    /// A client without a tenant header.
    #[must_use]
    pub fn new(address: &str) -> Self {
        let builder = reqwest::Client::builder().timeout(Duration::from_secs(60));
        let http = builder.build().unwrap_or_default();
        Self { base: format!("http://{address}"), tenant: None, http }
    }

    /// The same for a tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    /// The same for requests that may take so long.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.http = reqwest::Client::builder().timeout(limit).build().unwrap_or_default();
        self
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Answer> {
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let response = request.send().await.context("no answer")?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.context("the answer broke off")?.to_vec();
        Ok(Answer { status, headers, body })
    }

    /// A GET, with query parameters.
    ///
    /// # Errors
    /// When nobody answers; any status is an answer.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer> {
        self.send(self.http.get(self.url(path)).query(parameters)).await
    }

    /// A form POST, as Grafana sends queries.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn post_form(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer> {
        self.send(self.http.post(self.url(path)).form(parameters)).await
    }

    /// A POST of a body with headers.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer> {
        let request = self.http.post(self.url(path)).body(body.into());
        self.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// Whether `/health/ready` says so.
    ///
    /// # Errors
    /// What it waits for.
    pub async fn ready(&self) -> Result<()> {
        self.get("/health/ready", &[]).await?.success().map(|_| ())
    }

    /// Writes Prometheus text, and waits for the acknowledgement.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub async fn import(&self, text: &str) -> Result<()> {
        let headers = [(CONTENT_TYPE.as_str(), "text/plain")];
        self.post("/api/v1/import/prometheus", &headers, text).await?.success().map(|_| ())
    }

    /// Writes series by remote write 1.0, and waits for the acknowledgement.
    ///
    /// # Errors
    /// When it is not acknowledged.
    pub async fn remote_write(&self, series: &[RemoteSeries]) -> Result<()> {
        let headers = [
            (CONTENT_TYPE.as_str(), "application/x-protobuf"),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ];
        self.post("/api/v1/write", &headers, remote_write_body(series)?).await?.success().map(|_| ())
    }

    /// Writes series by remote write 2.0, with native histograms and start timestamps, and waits for the
    /// acknowledgement.
    ///
    /// # Errors
    /// When it is not acknowledged, or the answer's headers do not count every sample as written.
    pub async fn remote_write_v2(&self, series: &[(Labels, Points)]) -> Result<()> {
        let headers = [
            (CONTENT_TYPE.as_str(), "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "2.0.0"),
        ];
        let answer = self.post("/api/v1/write", &headers, remote_write_v2_body(series)?).await?.success()?;
        let all: usize = series.iter().map(|(_, points)| points.len()).sum();
        let histograms: usize = series.iter().map(|(_, points)| points.histograms.len()).sum();
        for (kind, sent) in [("Samples", all - histograms), ("Histograms", histograms)] {
            let name = format!("X-Prometheus-Remote-Write-{kind}-Written");
            let written = answer.headers.get(&name).and_then(|value| value.to_str().ok());
            if written != Some(&sent.to_string()) {
                bail!("{sent} were sent, {name} says {written:?}");
            }
        }
        Ok(())
    }

    /// The `data` of an API answer.
    ///
    /// # Errors
    /// When the status is not a success, or the envelope says `error`.
    pub async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let answer = self.post_form(path, parameters).await?.success()?.json()?;
        if answer["status"] != "success" {
            bail!("{answer}");
        }
        Ok(answer["data"].clone())
    }

    /// An instant query at a time in seconds (`None`: now). Each result's labels as `{a="b"}` text in the order of
    /// names, with its value as text.
    ///
    /// # Errors
    /// As [`Client::api`], and when the answer is neither a vector nor a scalar.
    pub async fn query(&self, expression: &str, time_s: Option<f64>) -> Result<Vec<(String, String)>> {
        let time = time_s.map(|time| time.to_string());
        let mut parameters = vec![("query", expression)];
        parameters.extend(time.as_deref().map(|time| ("time", time)));
        let data = self.api("/api/v1/query", &parameters).await?;
        let text = |value: &Value| value[1].as_str().unwrap_or_default().to_owned();
        match data["resultType"].as_str() {
            Some("scalar" | "string") => Ok(vec![(String::new(), text(&data["result"]))]),
            Some("vector") => {
                let samples = data["result"].as_array().into_iter().flatten();
                Ok(samples.map(|sample| (labels(&sample["metric"]), text(&sample["value"]))).collect())
            }
            _ => bail!("neither vector nor scalar: {data}"),
        }
    }

    /// The one value of an instant query, as a number.
    ///
    /// # Errors
    /// As [`Client::query`], and when there is not exactly one result.
    pub async fn value(&self, expression: &str, time_s: Option<f64>) -> Result<f64> {
        let results = self.query(expression, time_s).await?;
        let [(_, value)] = results.as_slice() else {
            bail!("{expression}: {} results, not one", results.len())
        };
        value.parse().with_context(|| format!("{expression}: {value}"))
    }
}

/// Labels as `name{a="b"}`.
fn labels(metric: &Value) -> String {
    let mut pairs = metric.as_object().into_iter().flatten().collect::<Vec<_>>();
    pairs.sort_by_key(|(name, _)| *name);
    let name = metric["__name__"].as_str().unwrap_or_default();
    let others =
        pairs.iter().filter(|(name, _)| *name != "__name__").map(|(name, value)| format!("{name}={value}"));
    format!("{name}{{{}}}", others.collect::<Vec<_>>().join(","))
}
