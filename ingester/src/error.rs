//! Why a write is refused, in one type that knows both its faces: HTTP status and gRPC code.

use std::time::Duration;

use http::StatusCode;
use tonic::Code;
use tricord_wire::ErrorKind;

use crate::decode::Rejected;
use crate::forward::Written;

/// A refused or failed write.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request is wrong and will stay wrong.
    #[error("{0}")]
    Invalid(String),
    /// The body is larger than this server takes, as sent or decompressed.
    #[error("{0}")]
    TooLarge(String),
    /// A content type or encoding that nobody here speaks.
    #[error("{0}")]
    Unsupported(String),
    /// The signal is not stored yet.
    #[error("{0}")]
    NotImplemented(String),
    /// The body did not arrive in time.
    #[error("{0}")]
    SlowBody(String),
    /// The tenant sends more than its limit allows.
    #[error("{message}")]
    RateLimited {
        /// Which limit, and how to raise it.
        message: String,
        /// When the tenant's bucket holds enough again.
        retry_after: Duration,
    },
    /// This process or a data node has no memory or queue left.
    #[error("{message}")]
    Overloaded {
        /// What is full.
        message: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// Not every shard acknowledged within the request's time. The whole request may be sent again.
    #[error("{message}")]
    Unavailable {
        /// How many shards failed, and the first reason.
        message: String,
        /// When to come back.
        retry_after: Duration,
        /// What the other shards acknowledged.
        written: Box<Written>,
        /// What was refused for good before or by a shard.
        rejected: Box<Rejected>,
    },
    /// A bug or a broken machine.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The kind, as other roles name it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::Unsupported(_) | Self::NotImplemented(_) => ErrorKind::Invalid,
            Self::TooLarge(_) | Self::RateLimited { .. } => ErrorKind::Limit,
            Self::SlowBody(_) => ErrorKind::Timeout,
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. } | Self::Overloaded { .. } | Self::Unavailable { .. } | Self::SlowBody(_)
        )
    }

    /// When to come back, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::Overloaded { retry_after, .. }
            | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http_status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded { .. } | Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC code. Those that may be retried come with RetryInfo.
    #[must_use]
    pub fn grpc_code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::Unsupported(_) => Code::InvalidArgument,
            // Without RetryInfo this is final for OTLP clients, which is meant for bodies that are too large.
            Self::TooLarge(_) | Self::RateLimited { .. } | Self::Overloaded { .. } => Code::ResourceExhausted,
            Self::NotImplemented(_) => Code::Unimplemented,
            Self::SlowBody(_) => Code::DeadlineExceeded,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// A word for the label `reason` of metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::TooLarge(_) => "too_large",
            Self::Unsupported(_) => "unsupported",
            Self::NotImplemented(_) => "not_implemented",
            Self::SlowBody(_) => "slow_body",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<crate::decode::WireError> for Error {
    fn from(error: crate::decode::WireError) -> Self {
        Self::Invalid(format!("body is not a valid protobuf message: {error}"))
    }
}
