//! The ingester: takes OTLP, Prometheus remote write and the text format, and hands what is valid to the primaries of
//! its shards. It keeps nothing: an answer is given when every shard has acknowledged.
//!
//! `receive` speaks the protocols, `decode` reads bodies, `translate` makes series of OTLP metrics, `limits` judges
//! what a tenant may send, `route` splits by shard, `forward` sends. Whether a sample is too old, too new or a
//! duplicate is judged by the shard's primary, not here.

mod config;
pub mod decode;
mod error;
mod forward;
mod in_flight;
pub mod limits;
mod metrics;
mod recall;
pub mod receive;
pub mod route;
#[cfg(test)]
mod testing;
pub mod translate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::time::Instant;
use tricord_metadata_client::Cluster;
use tricord_model::{ShardId, Tenant};
use tricord_runtime::{MemoryBudget, Seldom, Shutdown};
use tricord_wire::{Error as WireError, ErrorKind};

use forward::Forwarded;
use route::{Rounds, Routed, Router};

pub use config::{Config, Limits, TenantLimits};
pub use decode::{Decoded, Rejected};
pub use error::Error;
pub use forward::Written;
pub use receive::{grpc_routes, router};

/// Below this size work is done where it arrives: handing it to another thread would cost more than it takes.
///
/// It is about half a millisecond of decoding.
const INLINE_BYTES: usize = 512 << 10;
/// How often the log says that writes fail.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What an ingester needs from its process.
#[derive(Clone)]
pub struct Deps {
    /// The cluster to write to.
    pub cluster: Cluster,
    /// Where its metrics show.
    pub metrics: tricord_runtime::Metrics,
    /// The process' memory bound.
    pub memory: MemoryBudget,
}

/// How an acknowledged write ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What is durable now.
    pub written: Written,
    /// What was refused for good, here or by a shard.
    pub rejected: Rejected,
}

/// The ingester. Shared by its listeners.
pub struct Ingester {
    config: Config,
    limiter: limits::Limiter,
    forwarder: forward::Forwarder,
    in_flight: in_flight::InFlight,
    memory: Arc<recall::Memory>,
    metrics: metrics::Metrics,
    /// Rates are measured on this clock.
    started: Instant,
    told_failed: Seldom,
}

impl Ingester {
    /// An ingester that writes to a cluster.
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Arc<Self> {
        let metrics = metrics::Metrics::new(&deps.metrics);
        let in_flight = in_flight::InFlight::new(
            config.max_in_flight_bytes,
            deps.memory,
            metrics.in_flight_bytes.clone(),
        );
        let forwarder =
            forward::Forwarder::new(deps.cluster, config.max_in_flight_bytes_per_node, metrics.clone());
        Arc::new(Self {
            limiter: limits::Limiter::new(config.limits.clone()),
            forwarder,
            in_flight,
            memory: Arc::default(),
            metrics,
            started: Instant::now(),
            told_failed: Seldom::every(TELL_EVERY),
            config,
        })
    }

    /// Writes decoded data under the tenant's limits. `protocol` names the sender in metrics.
    ///
    /// An `Ok` means that every shard of the request has acknowledged; what was refused for good is in the outcome.
    ///
    /// # Errors
    /// [`Error::RateLimited`] and [`Error::Overloaded`] before anything is written, [`Error::Unavailable`] with what was
    /// written when some shard did not acknowledge in time, [`Error::Invalid`] when a shard refuses the request itself.
    pub async fn write(
        &self,
        tenant: &Tenant,
        decoded: Decoded,
        protocol: &'static str,
    ) -> Result<Outcome, Error> {
        let deadline = self.deadline();
        if decoded.batch.is_empty() {
            self.metrics.rejected("invalid", &decoded.rejected);
            return Ok(Outcome { written: Written::default(), rejected: decoded.rejected });
        }
        let items = decoded.batch.samples() + decoded.batch.spans.len();
        let mut router = self.router(tenant, items * 256, deadline).await?;
        let routing = move || {
            router.take(decoded);
            router.finish()
        };
        let routed = compute(items * 64, routing).await;
        let sent = self.send(tenant, routed, deadline).await?;
        self.finish(sent, protocol)
    }

    /// Until when a request that arrives now is tried.
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.config.request_timeout_ms)
    }

    /// Where a decoder may put a tenant's request of about so many bytes.
    async fn router(&self, tenant: &Tenant, bytes: usize, deadline: Instant) -> Result<Router, Error> {
        let map = self.forwarder.map(deadline).await.map_err(|error| Error::Unavailable {
            message: error.message,
            retry_after: Duration::from_secs(1),
            written: Box::default(),
            rejected: Box::default(),
        })?;
        self.limiter.adopt(&map);
        Ok(Router::new(tenant.clone(), map.shard_count(), self.limiter.of(tenant), bytes))
    }

    /// Sends a request to its shards, under the tenant's rate; see [`Ingester::write`].
    async fn send(&self, tenant: &Tenant, routed: Routed, deadline: Instant) -> Result<Sent, Error> {
        let Routed { rounds, items, invalid: mut rejected, misshapen } = routed;
        self.metrics.rejected("invalid", &rejected);
        self.metrics.rejected("limit", &misshapen);
        rejected.add(misshapen);
        if rounds.is_empty() {
            return Ok(Sent { rejected, ..Sent::default() });
        }
        self.limiter.take(tenant, items, self.started.elapsed())?;
        let span = sending_span(tenant, &rounds, items);
        let writing = self.forwarder.write(tenant, rounds, deadline);
        let forwarded = tracing::Instrument::instrument(writing, span.clone()).await;
        if !forwarded.failed.is_empty() {
            span.record("otel.status", "error");
        }
        Ok(Sent { rejected, forwarded })
    }

    /// Sends the same request, routed with all labels, to the shards that lack some.
    async fn send_named(&self, tenant: &Tenant, routed: Routed, deadline: Instant, sent: &mut Sent) {
        let span = sending_span(tenant, &routed.rounds, routed.items);
        let writing = self.forwarder.write_named(tenant, routed.rounds, deadline, &mut sent.forwarded);
        tracing::Instrument::instrument(writing, span).await;
    }

    /// The outcome of a request that was sent.
    fn finish(&self, sent: Sent, protocol: &'static str) -> Result<Outcome, Error> {
        let Sent { mut rejected, mut forwarded } = sent;
        let failed = std::mem::take(&mut forwarded.failed);
        let (written, refused) = forwarded.sum();
        self.metrics.written(protocol, &written);
        self.metrics.rejected("refused", &refused);
        rejected.add(refused);
        let worst = failed.iter().find(|(_, error)| error.retryable()).or(failed.iter().next());
        let Some((shard, first)) = worst else { return Ok(Outcome { written, rejected }) };
        let error = failure(&failed, *shard, first, written, rejected);
        if let Some(others) = self.told_failed.happened() {
            tracing::warn!(%error, others, "writes are not acknowledged");
        }
        Err(error)
    }

    /// Decodes and writes a text exposition under a tenant, as `POST /api/v1/import/prometheus` does: the way of
    /// Tricord's own metrics.
    ///
    /// # Errors
    /// As [`Ingester::write`], and [`Error::TooLarge`].
    pub async fn import_text(&self, tenant: &Tenant, text: &str) -> Result<Outcome, Error> {
        let options = decode::text::Options { now_ms: now_ms(), ..Default::default() };
        let mut allowance = decode::Allowance::new(self.config.max_decoded_bytes);
        let decoded = decode::text::decode(text.as_bytes(), &options, &mut allowance)?;
        self.write(tenant, decoded, "internal").await
    }

    /// Decodes and writes an OTLP traces request (protobuf) under a tenant: the way of Tricord's own spans.
    ///
    /// # Errors
    /// As [`Ingester::write`], and [`Error::TooLarge`].
    pub async fn export_traces(&self, tenant: &Tenant, request: bytes::Bytes) -> Result<Outcome, Error> {
        let mut allowance = decode::Allowance::new(self.config.max_decoded_bytes);
        let decoded = decode::otlp::decode_traces(&request, &mut allowance)?;
        self.write(tenant, decoded, "internal").await
    }

    /// The settings in use.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// A request that was sent.
#[derive(Debug, Default)]
struct Sent {
    /// What was refused before.
    rejected: Rejected,
    forwarded: Forwarded,
}

impl Sent {
    /// Whether some shards need the request once more with labels.
    fn lacks_labels(&self) -> bool {
        !self.forwarded.unknowing.is_empty()
    }

    /// Notes that the shards which need labels do not get them.
    fn cannot_name(&mut self, why: &Error) {
        let kind = if why.retryable() { ErrorKind::Overloaded } else { ErrorKind::Invalid };
        let error = WireError { kind, message: why.to_string(), retry_after: why.retry_after() };
        for shard in std::mem::take(&mut self.forwarded.unknowing) {
            self.forwarded.failed.insert(shard, error.clone());
        }
    }
}

fn sending_span(tenant: &Tenant, rounds: &Rounds, items: u64) -> tracing::Span {
    tracing::info_span!(
        target: "tricord::request",
        "write",
        otel.name = "write to shards",
        otel.kind = "client",
        tenant = tenant.as_str(),
        items,
        shards = rounds.first().map_or(0, Vec::len),
        otel.status = tracing::field::Empty,
    )
}

/// Why a request fails of which some shards have failed, `shard` for one.
fn failure(
    failed: &BTreeMap<ShardId, WireError>,
    shard: ShardId,
    first: &WireError,
    written: Written,
    rejected: Rejected,
) -> Error {
    let message = match failed.len() {
        1 => format!("shard {shard} did not acknowledge: {}", first.message),
        many => format!("{many} shards did not acknowledge, shard {shard} for one: {}", first.message),
    };
    let retry_after = failed.values().filter_map(|error| error.retry_after).max();
    let retry_after = retry_after.unwrap_or(Duration::from_secs(1));
    match first.kind {
        ErrorKind::Invalid => Error::Invalid(message),
        // A limit of the message itself: the same request will not pass later.
        ErrorKind::Limit => Error::TooLarge(message),
        ErrorKind::Overloaded if written == Written::default() => Error::Overloaded { message, retry_after },
        // Whatever else went wrong on a data node may be over when the client comes back, and coming back is safe.
        _ => Error::Unavailable {
            message,
            retry_after,
            written: Box::new(written),
            rejected: Box::new(rejected),
        },
    }
}

/// Runs work on this thread when it is small, else on the pool for blocking work.
pub(crate) async fn compute<R: Send + 'static>(bytes: usize, work: impl FnOnce() -> R + Send + 'static) -> R {
    if bytes <= INLINE_BYTES { work() } else { tricord_runtime::blocking(work).await }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as i64)
}

/// The sockets of an ingester.
pub struct Listeners {
    /// OTLP over gRPC (4317).
    pub otlp_grpc: TcpListener,
    /// OTLP over HTTP (4318).
    pub otlp_http: TcpListener,
}

/// Serves OTLP until shutdown. Remote write and the text format share the process' HTTP port through [`router`].
///
/// # Errors
/// When a listener fails.
pub async fn run(
    ingester: Arc<Ingester>,
    listeners: Listeners,
    metrics: &tricord_runtime::Metrics,
    shutdown: Shutdown,
) -> Result<(), tricord_runtime::Error> {
    let routes = tricord_runtime::telemetry::traced(router(Arc::clone(&ingester)), metrics);
    let http = tricord_runtime::serve_http(listeners.otlp_http, routes, shutdown.clone());
    let grpc = tricord_runtime::serve_grpc(listeners.otlp_grpc, grpc_routes(ingester), shutdown);
    tokio::try_join!(http, grpc)?;
    Ok(())
}
