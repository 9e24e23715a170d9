//! The data node's interface, its gRPC client and its gRPC server.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::proto::datanode::data_node_client::DataNodeClient;
use crate::proto::datanode::{self as pb, data_node_server};
use crate::{Error, MAX_MESSAGE_BYTES};

/// A stream of messages that may end in an error.
pub type ResponseStream<T> = BoxStream<'static, Result<T, Error>>;

/// What a data node offers. Implemented by the data node itself and by [`RemoteDataNode`].
#[async_trait::async_trait]
pub trait DataNode: Send + Sync + 'static {
    /// Writes batches to shards whose primary this node is; see `WriteRequest`.
    async fn write(&self, request: pb::WriteRequest) -> Result<pb::WriteResponse, Error>;
    /// Deletes samples from shards whose primary this node is; see `DeleteRequest`.
    async fn delete(&self, request: pb::DeleteRequest) -> Result<pb::WriteResponse, Error>;
    /// Takes log entries from a primary.
    async fn replicate(&self, request: pb::ReplicateRequest) -> Result<pb::ReplicateResponse, Error>;
    /// Answers a lease beacon.
    async fn beacon(&self, request: pb::BeaconRequest) -> Result<pb::BeaconResponse, Error>;
    /// Takes a copy of a shard.
    async fn install_snapshot(
        &self,
        chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error>;
    /// Gives a copy of a shard for a backup.
    async fn backup(&self, request: pb::BackupRequest) -> Result<ResponseStream<pb::SnapshotChunk>, Error>;
    /// Fills an empty shard from a backup.
    async fn restore(&self, chunks: ResponseStream<pb::SnapshotChunk>)
    -> Result<pb::SnapshotResponse, Error>;
    /// Runs a query fragment; the chunks' bytes put together are one encoded partial.
    async fn execute(&self, request: pb::ExecuteRequest) -> Result<ResponseStream<pb::ExecuteChunk>, Error>;
    /// Seals and writes out everything in memory.
    async fn flush(&self, request: pb::FlushRequest) -> Result<pb::FlushResponse, Error>;
    /// Tells what the node holds.
    async fn status(&self, request: pb::NodeStatusRequest) -> Result<pb::NodeStatusResponse, Error>;
}

/// A data node in another process.
#[derive(Clone)]
pub struct RemoteDataNode {
    client: DataNodeClient<Channel>,
}

impl RemoteDataNode {
    /// A client over a channel (which may connect lazily).
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let client = DataNodeClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { client }
    }
}

/// The chunks up to the first failure: a source that fails ends the stream early, and the receiver refuses a snapshot
/// without its last chunk.
struct UntilError(ResponseStream<pb::SnapshotChunk>);

impl Stream for UntilError {
    type Item = pb::SnapshotChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx).map(|chunk| chunk.and_then(Result::ok))
    }
}

/// A request with a gRPC deadline, where one is given.
fn with_timeout<T>(message: T, timeout_ms: u64) -> Request<T> {
    let mut request = Request::new(message);
    if timeout_ms > 0 {
        request.set_timeout(Duration::from_millis(timeout_ms));
    }
    request
}

#[async_trait::async_trait]
impl DataNode for RemoteDataNode {
    async fn write(&self, request: pb::WriteRequest) -> Result<pb::WriteResponse, Error> {
        let timeout_ms = request.timeout_ms;
        Ok(self.client.clone().write(with_timeout(request, timeout_ms)).await?.into_inner())
    }

    async fn delete(&self, request: pb::DeleteRequest) -> Result<pb::WriteResponse, Error> {
        let timeout_ms = request.timeout_ms;
        Ok(self.client.clone().delete(with_timeout(request, timeout_ms)).await?.into_inner())
    }

    async fn replicate(&self, request: pb::ReplicateRequest) -> Result<pb::ReplicateResponse, Error> {
        Ok(self.client.clone().replicate(request).await?.into_inner())
    }

    async fn beacon(&self, request: pb::BeaconRequest) -> Result<pb::BeaconResponse, Error> {
        Ok(self.client.clone().beacon(request).await?.into_inner())
    }

    async fn install_snapshot(
        &self,
        chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        Ok(self.client.clone().install_snapshot(UntilError(chunks)).await?.into_inner())
    }

    async fn backup(&self, request: pb::BackupRequest) -> Result<ResponseStream<pb::SnapshotChunk>, Error> {
        let stream = self.client.clone().backup(request).await?.into_inner();
        Ok(stream.map(|chunk| chunk.map_err(Error::from)).boxed())
    }

    async fn restore(
        &self,
        chunks: ResponseStream<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotResponse, Error> {
        Ok(self.client.clone().restore(UntilError(chunks)).await?.into_inner())
    }

    async fn execute(&self, request: pb::ExecuteRequest) -> Result<ResponseStream<pb::ExecuteChunk>, Error> {
        let timeout_ms = request.timeout_ms;
        let stream = self.client.clone().execute(with_timeout(request, timeout_ms)).await?.into_inner();
        Ok(stream.map(|chunk| chunk.map_err(Error::from)).boxed())
    }

    async fn flush(&self, request: pb::FlushRequest) -> Result<pb::FlushResponse, Error> {
        Ok(self.client.clone().flush(request).await?.into_inner())
    }

    async fn status(&self, request: pb::NodeStatusRequest) -> Result<pb::NodeStatusResponse, Error> {
        Ok(self.client.clone().status(request).await?.into_inner())
    }
}

/// Serves a [`DataNode`] over gRPC.
pub struct DataNodeServer(Arc<dyn DataNode>);

impl DataNodeServer {
    /// The tonic service for a data node.
    #[must_use]
    pub fn service(node: Arc<dyn DataNode>) -> data_node_server::DataNodeServer<Self> {
        data_node_server::DataNodeServer::new(Self(node))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[async_trait::async_trait]
impl data_node_server::DataNode for DataNodeServer {
    type ExecuteStream = BoxStream<'static, Result<pb::ExecuteChunk, Status>>;
    type BackupStream = BoxStream<'static, Result<pb::SnapshotChunk, Status>>;

    async fn write(&self, request: Request<pb::WriteRequest>) -> Result<Response<pb::WriteResponse>, Status> {
        Ok(Response::new(self.0.write(request.into_inner()).await?))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        Ok(Response::new(self.0.delete(request.into_inner()).await?))
    }

    async fn replicate(
        &self,
        request: Request<pb::ReplicateRequest>,
    ) -> Result<Response<pb::ReplicateResponse>, Status> {
        Ok(Response::new(self.0.replicate(request.into_inner()).await?))
    }

    async fn beacon(
        &self,
        request: Request<pb::BeaconRequest>,
    ) -> Result<Response<pb::BeaconResponse>, Status> {
        Ok(Response::new(self.0.beacon(request.into_inner()).await?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let chunks = request.into_inner().map(|chunk| chunk.map_err(Error::from)).boxed();
        Ok(Response::new(self.0.install_snapshot(chunks).await?))
    }

    async fn backup(
        &self,
        request: Request<pb::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let chunks = self.0.backup(request.into_inner()).await?;
        Ok(Response::new(chunks.map(|chunk| chunk.map_err(Status::from)).boxed()))
    }

    async fn restore(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let chunks = request.into_inner().map(|chunk| chunk.map_err(Error::from)).boxed();
        Ok(Response::new(self.0.restore(chunks).await?))
    }

    async fn execute(
        &self,
        request: Request<pb::ExecuteRequest>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let chunks = self.0.execute(request.into_inner()).await?;
        Ok(Response::new(chunks.map(|chunk| chunk.map_err(Status::from)).boxed()))
    }

    async fn flush(&self, request: Request<pb::FlushRequest>) -> Result<Response<pb::FlushResponse>, Status> {
        Ok(Response::new(self.0.flush(request.into_inner()).await?))
    }

    async fn status(
        &self,
        request: Request<pb::NodeStatusRequest>,
    ) -> Result<Response<pb::NodeStatusResponse>, Status> {
        Ok(Response::new(self.0.status(request.into_inner()).await?))
    }
}
