//! What the roles of one process share: settings, metrics, health, the memory bound, and the order in which everything
//! ends.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tricord_runtime::telemetry::SpanBuffer;
use tricord_runtime::{Health, MemoryBudget, Metrics, Shutdown};

use crate::settings::Settings;

/// Own spans that may wait to be written; at the default interval that is some 270 a second.
const OWN_SPANS: usize = 4_096;

/// One process, while its roles are started and until they have ended.
pub(crate) struct Process {
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) memory: MemoryBudget,
    pub(crate) spans: SpanBuffer,
    /// Ends what takes from users: listeners, rules, own telemetry.
    pub(crate) front: Shutdown,
    /// Ends what stores, once nothing can reach it any more.
    pub(crate) back: Shutdown,
    /// What must have happened between both, in order: flushes and goodbyes.
    closing: VecDeque<(String, Closing)>,
    front_tasks: JoinSet<Result<()>>,
    back_tasks: JoinSet<Result<()>>,
    routes: LateRoutes,
}

type Closing = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Routes that are known only once a role is up. Until then its port answers "starting".
#[derive(Clone, Default)]
struct LateRoutes(Arc<OnceLock<Router>>);

impl LateRoutes {
    async fn answer(self, request: Request) -> Response {
        let Some(router) = self.0.get() else {
            let body = r#"{"status":"error","errorType":"unavailable","error":"tricord is starting: see /health/ready"}"#;
            let headers = [("content-type", "application/json"), ("retry-after", "1")];
            return (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response();
        };
        match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Process {
    /// The shared parts, before anything runs.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let metrics = Metrics::new();
        tricord_runtime::observe_process(&metrics);
        Ok(Self {
            memory: MemoryBudget::observed(settings.memory_limit_bytes()?, &metrics),
            spans: SpanBuffer::new(OWN_SPANS, &metrics),
            health: Health::new(),
            front: Shutdown::new(),
            back: Shutdown::new(),
            closing: VecDeque::new(),
            front_tasks: JoinSet::new(),
            back_tasks: JoinSet::new(),
            routes: LateRoutes::default(),
            settings,
            metrics,
        })
    }

    /// Serves health and metrics at once, and the roles' routes as soon as [`Process::open`] has named them.
    pub(crate) fn serve_http(&mut self, listener: TcpListener) {
        let routes = self.routes.clone();
        let fallback = move |request: Request| routes.clone().answer(request);
        let router = self.health.router(&self.metrics).fallback(fallback);
        let shutdown = self.front.clone();
        self.on_front(async move { Ok(tricord_runtime::serve_http(listener, router, shutdown).await?) });
        let opened = self.routes.clone();
        self.health.check("started", move || match opened.0.get() {
            Some(_) => Ok(()),
            None => Err("the roles are starting".to_owned()),
        });
    }

    /// Names the roles' routes. Only the first call counts.
    pub(crate) fn open(&self, router: Router) {
        let router = tricord_runtime::telemetry::traced(router, &self.metrics);
        let _ = self.routes.0.set(router.fallback(tricord_proxy::not_found));
    }

    /// Runs work that ends on `front`.
    pub(crate) fn on_front(&mut self, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.front_tasks.spawn(work);
    }

    /// Runs work that ends on `back`.
    pub(crate) fn on_back(&mut self, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.back_tasks.spawn(work);
    }

    /// Adds a step between both ends: it runs when users are gone, before those that were added earlier.
    pub(crate) fn on_close(&mut self, name: &str, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.closing.push_front((name.to_owned(), Box::pin(work)));
    }

    /// Runs until the shutdown or until a part fails, then ends everything in order.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(failed) = first_failure(&mut self.front_tasks) => Err(failed),
            Some(failed) = first_failure(&mut self.back_tasks) => Err(failed),
        };
        tracing::info!("stopping: requests in flight are finished, data in memory is written out");
        self.front.trigger();
        drain(&mut self.front_tasks, "front").await;
        for (name, step) in self.closing {
            if let Err(error) = step.await {
                tracing::error!(step = name, error = format!("{error:#}"), "a step of stopping failed");
            }
        }
        self.back.trigger();
        drain(&mut self.back_tasks, "back").await;
        tracing::info!("stopped");
        result
    }
}

/// The first task that ends with an error. Never `None`: tasks that end well, or their lack, are waited over.
async fn first_failure(tasks: &mut JoinSet<Result<()>>) -> Option<anyhow::Error> {
    loop {
        match tasks.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return Some(error),
            Some(Err(panicked)) => return Some(panicked.into()),
            None => std::future::pending().await,
        }
    }
}

async fn drain(tasks: &mut JoinSet<Result<()>>, part: &str) {
    /// Servers cut their connections before this.
    const LIMIT: Duration = Duration::from_secs(60);
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended.map_err(anyhow::Error::from).and_then(|ended| ended) {
                tracing::error!(error = format!("{error:#}"), "ended badly");
            }
        }
    };
    if tokio::time::timeout(LIMIT, all).await.is_err() {
        tracing::warn!(part, "did not end in time");
    }
}
