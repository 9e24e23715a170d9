//! How roles talk: the protobuf messages, one trait per service, the gRPC client and server for each trait, and the
//! one place where error kinds become gRPC codes.
//!
//! A role calls another through the trait. In one process the trait object is the other role's service itself; across
//! processes it is the client of this crate. There is no second code path.

mod data_node;
mod error;
mod metadata;

pub use data_node::{DataNode, DataNodeServer, RemoteDataNode, ResponseStream};
pub use error::{Error, ErrorKind};
pub use metadata::{Metadata, MetadataServer, RemoteMetadata};

/// The messages, as prost generates them from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod proto {
    /// Messages of data nodes.
    pub mod datanode {
        tonic::include_proto!("tricord.datanode.v1");
    }
    /// Messages of the metadata service.
    pub mod metadata {
        tonic::include_proto!("tricord.metadata.v1");
    }
}

/// The largest message between roles, in bytes; larger answers are streamed in pieces.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
