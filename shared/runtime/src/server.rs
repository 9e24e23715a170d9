//! Listening and serving: HTTP/1 and HTTP/2 on every port, with bounds on connections and on slow clients, panics
//! turned into answers, and a drain on shutdown. gRPC is served the same way, since a tonic service is an HTTP service.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::Error;
use crate::shutdown::Shutdown;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections open at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a client may take to send its request's head.
    pub header_timeout: Duration,
    /// How long requests in flight may take after a shutdown before they are cut.
    pub drain_timeout: Duration,
    /// Streams at once on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(20),
            streams: 1024,
        }
    }
}

/// Listens on `HOST:PORT`; `flag` is the setting that named it, for the error text. Port 0 takes any free port.
///
/// # Errors
/// When the address cannot be parsed or resolved, or when the system refuses it.
pub async fn bind(address: &str, flag: &'static str) -> Result<TcpListener, Error> {
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken { flag, address: address.to_owned() },
        io::ErrorKind::InvalidInput => {
            Error::Address { flag, address: address.to_owned(), reason: source.to_string() }
        }
        _ => Error::Listen { flag, address: address.to_owned(), source },
    };
    let resolved = tokio::net::lookup_host(address).await.map_err(|error| Error::Address {
        flag,
        address: address.to_owned(),
        reason: error.to_string(),
    })?;
    let resolved = resolved.collect::<Vec<_>>();
    TcpListener::bind(resolved.as_slice()).await.map_err(refused)
}

/// Serves a router with the default limits until shutdown, then drains.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_http(listener: TcpListener, router: Router, shutdown: Shutdown) -> Result<(), Error> {
    let router = router.layer(CatchPanicLayer::custom(http_panic));
    serve_with(listener, router, shutdown, ServerLimits::default()).await
}

/// Serves tonic services with the default limits until shutdown, then drains.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_grpc(
    listener: TcpListener,
    routes: tonic::service::Routes,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let router = routes.into_axum_router().layer(CatchPanicLayer::custom(grpc_panic));
    // Streams that follow the shard map never end by themselves: a peer that goes away must not wait for them.
    let limits = ServerLimits { drain_timeout: Duration::from_secs(5), ..ServerLimits::default() };
    serve_with(listener, router, shutdown, limits).await
}

/// Serves a router under the given limits until shutdown, then drains.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    shutdown: Shutdown,
    limits: ServerLimits,
) -> Result<(), Error> {
    let builder = connection_builder(limits);
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_passing(&error) => {
                // Out of file descriptors, mostly: wait for connections to close instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let connection = builder
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()))
            .into_owned();
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            let _permit = permit;
            tokio::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                tracing::debug!(error, "connection ended");
            }
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_timeout, drained).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections still busy after the drain time are cut"
        );
    }
    Ok(())
}

fn connection_builder(limits: ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Small answers must not wait for an acknowledgement; a socket that refuses the option is served anyway.
    let _ = stream.set_nodelay(true);
    Ok((stream, permit))
}

/// Whether accepting may work again soon: a client that went away, or no file descriptors left.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::Interrupted | K::WouldBlock)
        || matches!(error.raw_os_error(), Some(23 | 24 | 105 | 12))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("?")
}

fn http_panic(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!(panic = panic_text(&*panic), "a request handler panicked");
    let body = r#"{"status":"error","errorType":"internal","error":"internal error: this is a bug, see the server's log"}"#;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn grpc_panic(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!(panic = panic_text(&*panic), "a gRPC handler panicked");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("13"));
    headers.insert("grpc-message", HeaderValue::from_static("internal error: this is a bug"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    async fn serve(
        router: Router,
        limits: ServerLimits,
    ) -> (std::net::SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
        let listener = bind("127.0.0.1:0", "--http-listen").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        let ended = shutdown.clone();
        let router = router.layer(CatchPanicLayer::custom(http_panic));
        let task = tokio::spawn(async move { serve_with(listener, router, ended, limits).await.unwrap() });
        (address, shutdown, task)
    }

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn finishes_what_is_in_flight_and_takes_nothing_new() {
        let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (seen, waited) = (reached.clone(), go_on.clone());
        let slow = get(move || {
            let (seen, waited) = (seen.clone(), waited.clone());
            async move {
                seen.notify_one();
                waited.notified().await;
                "done"
            }
        });
        let (address, shutdown, task) =
            serve(Router::new().route("/slow", slow), ServerLimits::default()).await;
        let in_flight = tokio::spawn(ask(address, "/slow"));
        reached.notified().await;
        shutdown.trigger();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go_on.notify_one();
        assert!(in_flight.await.unwrap().ends_with("done"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn answers_a_panic_and_goes_on() {
        let boom = get(async || -> &'static str { panic!("boom") });
        let router = Router::new().route("/boom", boom).route("/fine", get(async || "fine"));
        let (address, ..) = serve(router, ServerLimits::default()).await;
        let answer = ask(address, "/boom").await;
        assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("this is a bug"), "{answer}");
        assert!(ask(address, "/fine").await.ends_with("fine"));
    }

    #[tokio::test]
    async fn cuts_clients_that_send_no_head() {
        let limits = ServerLimits { header_timeout: Duration::from_millis(50), ..ServerLimits::default() };
        let (address, ..) = serve(Router::new(), limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
        let mut answer = Vec::new();
        // Ends, with an answer or without: the server has closed the connection.
        stream.read_to_end(&mut answer).await.unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_flag() {
        let first = bind("127.0.0.1:0", "--rpc-listen").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = bind(&address, "--rpc-listen").await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("--rpc-listen"), "{error}");
    }
}
