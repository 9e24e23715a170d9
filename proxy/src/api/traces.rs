//! What Tempo's and Jaeger's APIs have in common: asking data nodes for spans, trace ids, and answers on their way out.

use std::future::Future;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tricord_fragment::trace::{Field, Operation, SearchQuery, TraceById, TraceSummary};
use tricord_fragment::{Fragment, FragmentBody};
use tricord_model::{SpanRecord, TraceId};
use tricord_routing::trace_shard;

use super::Asked;
use super::reply::{MISSING_HEADER, missing_header, missing_text};
use crate::Proxy;
use crate::error::Error;
use crate::merge;
use crate::metrics::QueryLabels;
use crate::query::Turn;
use crate::scatter::{Job, MissingShard, Scattered, Shards, Spread};

/// The most traces that one search may ask for.
pub(super) const MAX_TRACES: u64 = 10_000;
/// `service.name`, which decides what a span belongs to.
pub(super) const SERVICE_NAME: &str = "service.name";

/// A successful answer of a trace API.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// Shards that had no live replica, or are damaged.
    pub(super) missing: Vec<MissingShard>,
}

impl Answer {
    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self { content_type: "application/json", body: value.to_string().into_bytes(), missing: vec![] }
    }

    pub(super) fn lacking(mut self, missing: Vec<MissingShard>) -> Self {
        self.missing = missing;
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(value) = missing_header(&self.missing) {
            headers.insert(MISSING_HEADER, value);
        }
        response
    }
}

/// A list, and the shards it lacks.
pub(super) struct Listed<T> {
    pub(super) items: Vec<T>,
    pub(super) missing: Vec<MissingShard>,
}

/// A request's turn to ask data nodes for spans.
pub(super) struct SpanQueries<'a> {
    proxy: &'a Proxy,
    asked: &'a Asked,
    deadline: Instant,
    _turn: Turn,
}

impl Proxy {
    /// Waits for a turn to ask for spans.
    pub(super) async fn span_queries<'a>(&'a self, asked: &'a Asked) -> Result<SpanQueries<'a>, Error> {
        let deadline = Instant::now() + self.settings().query_timeout;
        let turn = self.engine().gate.enter(deadline).await?;
        Ok(SpanQueries { proxy: self, asked, deadline, _turn: turn })
    }

    /// Counts a request and its time by what came of it.
    pub(super) async fn observe_traces(
        &self,
        answer: impl Future<Output = Result<Answer, Error>>,
    ) -> Result<Answer, Error> {
        let started = Instant::now();
        let result = answer.await;
        let outcome = match &result {
            Ok(answer) if answer.missing.is_empty() => "ok",
            Ok(_) => "partial",
            Err(error) => error.kind().as_str(),
        };
        self.metrics().queries.get_or_create(&QueryLabels { kind: "trace", outcome }).inc();
        self.metrics().query_seconds.observe(started.elapsed().as_secs_f64());
        result
    }
}

impl SpanQueries<'_> {
    async fn run(&self, shards: Shards, spread: Spread, body: FragmentBody) -> Result<Scattered, Error> {
        let settings = self.proxy.settings();
        let fragment = Fragment {
            now_ms: self.asked.now_ms,
            horizon_ms: settings.horizon_ms(&self.asked.tenant, self.asked.now_ms),
            limits: settings.limits(),
            body,
        };
        let tenant = self.asked.tenant.clone();
        self.proxy.scatter().run(&Job { tenant, shards, fragment, spread, deadline: self.deadline }).await
    }

    /// Where an incomplete answer is allowed, which shards it lacks; else an error.
    fn allow(&self, missing: Vec<MissingShard>) -> Result<Vec<MissingShard>, Error> {
        match missing.is_empty() || !self.asked.denies_partial() {
            true => Ok(missing),
            false => Err(Error::Unavailable(missing_text(&missing))),
        }
    }

    /// The spans of one trace; none where there is no such trace.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the trace's shard cannot be reached: then nobody knows whether it exists.
    pub(super) async fn trace(
        &self,
        id: TraceId,
        start_ns: u64,
        end_ns: u64,
    ) -> Result<Vec<SpanRecord>, Error> {
        let shards = self.proxy.scatter().cluster().map().shards.len() as u32;
        // Before the map is there, scattering waits for it, and every shard may be the one.
        let shards = match shards {
            0 => Shards::All,
            count => Shards::Only(vec![trace_shard(&self.asked.tenant, &id, count)]),
        };
        let body = FragmentBody::TraceById(TraceById { trace_id: id.0, start_ns, end_ns });
        let scattered = self.run(shards, Spread::Few, body).await?;
        if let Some(MissingShard { shard, is_damaged }) = scattered.missing.first() {
            let why = if *is_damaged { "is damaged on its live replicas" } else { "has no live replica" };
            return Err(Error::Unavailable(format!(
                "shard {shard}, where trace {id} would be, {why}: try again later"
            )));
        }
        merge::trace::spans(scattered.partials)
    }

    /// Traces by conditions, newest first.
    pub(super) async fn search(&self, query: SearchQuery) -> Result<Listed<TraceSummary>, Error> {
        let limit = query.limit as usize;
        let scattered = self.run(Shards::All, Spread::Even, FragmentBody::TraceSearch(query)).await?;
        let items = merge::trace::traces(scattered.partials, limit)?;
        Ok(Listed { items, missing: self.allow(scattered.missing)? })
    }

    /// Operations of one service or (empty) of all.
    pub(super) async fn operations(&self, service: &str) -> Result<Listed<Operation>, Error> {
        let body = FragmentBody::Operations { service: service.to_owned(), start_ns: 0, end_ns: u64::MAX };
        let scattered = self.run(Shards::All, Spread::Even, body).await?;
        let items = merge::trace::operations(scattered.partials)?;
        Ok(Listed { items, missing: self.allow(scattered.missing)? })
    }

    /// Pairs of two texts: scope and tag, or type and value.
    pub(super) async fn pairs(
        &self,
        body: FragmentBody,
        limit: u64,
    ) -> Result<Listed<(String, String)>, Error> {
        let scattered = self.run(Shards::All, Spread::Even, body).await?;
        let names = merge::lists::names(scattered.partials, limit)?;
        let pairs = names.items.iter().filter_map(|name| name.split_once('\0'));
        let items = pairs.map(|(first, second)| (first.to_owned(), second.to_owned())).collect();
        Ok(Listed { items, missing: self.allow(scattered.missing)? })
    }
}

/// A trace id of up to 32 hex digits; shorter ones are padded with zeros on the left.
///
/// # Errors
/// [`Error::BadData`] for anything else, and for the id of zeros, which is none.
pub(super) fn trace_id(text: &str) -> Result<TraceId, Error> {
    let wrong = || Error::BadData(format!("{text:?} is no trace id: give 16 or 32 hex digits"));
    if text.is_empty() || text.len() > 32 {
        return Err(wrong());
    }
    let mut id = TraceId::default();
    hex::decode_to_slice(format!("{text:0>32}"), &mut id.0).map_err(|_| wrong())?;
    if id == TraceId::default() { Err(wrong()) } else { Ok(id) }
}

/// The field that a service's name is in.
pub(super) fn service_field() -> Field {
    Field::Resource(SERVICE_NAME.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_padded_and_others_refused() {
        let shown = |text: &str| trace_id(text).map(|id| id.to_string()).ok();
        let full = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(shown(full).as_deref(), Some(full));
        assert_eq!(shown("A3CE929D0E0E4736").as_deref(), Some("0000000000000000a3ce929d0e0e4736"));
        assert_eq!(shown("f").as_deref(), Some("0000000000000000000000000000000f"));
        for wrong in ["", "0", "xyz", "4bf92f3577b34da6a3ce929d0e0e47361", "ä"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
