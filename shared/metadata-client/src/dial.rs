//! How an address becomes a client. Production dials TCP; tests may hand out services of their own process.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tricord_wire::{DataNode, Error, ErrorKind, Metadata, RemoteDataNode, RemoteMetadata};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// An idle connection is checked this often, and given up when no answer comes within [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a check of an idle connection may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Gives clients for `host:port` addresses. Neither call connects; the first request does.
pub trait Dial: Send + Sync + 'static {
    /// A client for the metadata member at an address.
    ///
    /// # Errors
    /// `Invalid` when the address is not `host:port`.
    fn metadata(&self, address: &str) -> Result<Arc<dyn Metadata>, Error>;

    /// A client for the data node at an address.
    ///
    /// # Errors
    /// `Invalid` when the address is not `host:port`.
    fn data_node(&self, address: &str) -> Result<Arc<dyn DataNode>, Error>;
}

/// gRPC over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn metadata(&self, address: &str) -> Result<Arc<dyn Metadata>, Error> {
        Ok(Arc::new(RemoteMetadata::new(channel(address)?)))
    }

    fn data_node(&self, address: &str) -> Result<Arc<dyn DataNode>, Error> {
        Ok(Arc::new(RemoteDataNode::new(channel(address)?)))
    }
}

/// A lazily connected gRPC channel with timeouts and keepalive. Must be called within a tokio runtime, which then
/// drives the connection.
///
/// # Errors
/// `Invalid` when the address is not `host:port`, `Internal` outside of a runtime.
pub fn channel(address: &str) -> Result<Channel, Error> {
    let invalid =
        |why: String| Error::new(ErrorKind::Invalid, format!("address {address:?} is not host:port: {why}"));
    let (host, port) = address.rsplit_once(':').ok_or_else(|| invalid("no port".into()))?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(invalid("no host or no port number".into()));
    }
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(Error::internal("a channel needs a tokio runtime to live in"));
    }
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| invalid(error.to_string()))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// Metadata in this process, everything else over TCP.
pub(crate) struct LocalMetadata(pub(crate) Arc<dyn Metadata>);

impl Dial for LocalMetadata {
    fn metadata(&self, _address: &str) -> Result<Arc<dyn Metadata>, Error> {
        Ok(self.0.clone())
    }

    fn data_node(&self, address: &str) -> Result<Arc<dyn DataNode>, Error> {
        Tcp.data_node(address)
    }
}
