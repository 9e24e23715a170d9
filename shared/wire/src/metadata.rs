//! The metadata service's interface, its gRPC client and its gRPC server.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::proto::metadata::metadata_client::MetadataClient;
use crate::proto::metadata::{self as pb, metadata_server};
use crate::{Error, MAX_MESSAGE_BYTES, ResponseStream};

/// Writes the trait, the gRPC client and the gRPC server for calls with one request and one answer.
macro_rules! metadata_service {
    ($($(#[$doc:meta])* $method:ident($request:ident) -> $response:ident;)*) => {
        /// What the metadata service offers. Implemented by the service itself and by [`RemoteMetadata`].
        ///
        /// Calls that need the leader are answered with `NotServing` by the other members, with the leader's address
        /// in the message's last word where it is known.
        #[async_trait::async_trait]
        pub trait Metadata: Send + Sync + 'static {
            $($(#[$doc])* async fn $method(&self, request: pb::$request) -> Result<pb::$response, Error>;)*
            /// The shard map, now and at every change.
            async fn watch(&self, request: pb::WatchRequest) -> Result<ResponseStream<pb::ShardMap>, Error>;
        }

        #[async_trait::async_trait]
        impl Metadata for RemoteMetadata {
            $(async fn $method(&self, request: pb::$request) -> Result<pb::$response, Error> {
                Ok(self.client.clone().$method(request).await?.into_inner())
            })*

            async fn watch(&self, request: pb::WatchRequest) -> Result<ResponseStream<pb::ShardMap>, Error> {
                let stream = self.client.clone().watch(request).await?.into_inner();
                Ok(stream.map(|map| map.map_err(Error::from)).boxed())
            }
        }

        #[async_trait::async_trait]
        impl metadata_server::Metadata for MetadataServer {
            type WatchStream = BoxStream<'static, Result<pb::ShardMap, Status>>;

            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                Ok(Response::new(self.0.$method(request.into_inner()).await?))
            })*

            async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                let maps = self.0.watch(request.into_inner()).await?;
                Ok(Response::new(maps.map(|map| map.map_err(Status::from)).boxed()))
            }
        }
    };
}

metadata_service! {
    /// Gives a new process its node id, or greets a known one.
    register(RegisterRequest) -> RegisterResponse;
    /// Says that a node lives.
    heartbeat(HeartbeatRequest) -> HeartbeatResponse;
    /// Changes one shard's place, compare-and-set on its epoch.
    propose(ProposeRequest) -> ProposeResponse;
    /// Tells what the service knows.
    status(MetadataStatusRequest) -> MetadataStatusResponse;
    /// Births the cluster.
    init(InitRequest) -> InitResponse;
    /// Adds or removes a member of the Raft group.
    change_member(ChangeMemberRequest) -> ChangeMemberResponse;
    /// Marks a node as leaving.
    drain(DrainRequest) -> DrainResponse;
    /// Changes what one tenant may send.
    set_limits(SetLimitsRequest) -> SetLimitsResponse;
    /// Raft between members.
    raft(RaftRequest) -> RaftResponse;
}

/// A metadata member in another process.
#[derive(Clone)]
pub struct RemoteMetadata {
    client: MetadataClient<Channel>,
}

impl RemoteMetadata {
    /// A client over a channel (which may connect lazily).
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let client = MetadataClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { client }
    }
}

/// Serves a [`Metadata`] over gRPC.
pub struct MetadataServer(Arc<dyn Metadata>);

impl MetadataServer {
    /// The tonic service for a metadata member.
    #[must_use]
    pub fn service(member: Arc<dyn Metadata>) -> metadata_server::MetadataServer<Self> {
        metadata_server::MetadataServer::new(Self(member))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}
