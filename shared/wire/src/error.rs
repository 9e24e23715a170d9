//! One error for every call between roles, and its two faces: gRPC status and the failure of a part of a request.

use std::str::FromStr;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Status};

use crate::proto::datanode::Failure;

/// What kind of failure it is, which decides who retries and what users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong.
    Invalid,
    /// What was asked for does not exist.
    NotFound,
    /// The shard map moved on: fetch it, plan again.
    StaleEpoch,
    /// This node is not the shard's primary, or holds no live replica of it.
    NotServing,
    /// A series is named by its fingerprint alone and is not known: send its labels.
    UnknownSeries,
    /// A compare-and-set lost, or the thing exists already.
    Conflict,
    /// Nobody answers, or the node is shutting down.
    Unavailable,
    /// Too much at once: come back later.
    Overloaded,
    /// A limit of the query or tenant is passed; the text says which and how to raise it.
    Limit,
    /// Time ran out.
    Timeout,
    /// The caller went away.
    Cancelled,
    /// Stored data is damaged.
    Corrupt,
    /// A bug or a broken machine.
    Internal,
}

impl ErrorKind {
    const ALL: [(Self, &'static str, Code); 13] = [
        (Self::Invalid, "invalid", Code::InvalidArgument),
        (Self::NotFound, "not_found", Code::NotFound),
        (Self::StaleEpoch, "stale_epoch", Code::FailedPrecondition),
        (Self::NotServing, "not_serving", Code::FailedPrecondition),
        (Self::UnknownSeries, "unknown_series", Code::FailedPrecondition),
        (Self::Conflict, "conflict", Code::Aborted),
        (Self::Unavailable, "unavailable", Code::Unavailable),
        (Self::Overloaded, "overloaded", Code::ResourceExhausted),
        (Self::Limit, "limit", Code::OutOfRange),
        (Self::Timeout, "timeout", Code::DeadlineExceeded),
        (Self::Cancelled, "cancelled", Code::Cancelled),
        (Self::Corrupt, "corrupt", Code::DataLoss),
        (Self::Internal, "internal", Code::Internal),
    ];

    /// The kind's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("internal", |(_, name, _)| name)
    }

    fn code(self) -> Code {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or(Code::Internal, |(.., code)| *code)
    }

    fn from_code(code: Code) -> Self {
        Self::ALL.iter().find(|(.., c)| *c == code).map_or(Self::Internal, |(kind, ..)| *kind)
    }
}

impl FromStr for ErrorKind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, n, _)| *n == name).map(|(kind, ..)| *kind).ok_or(())
    }
}

/// A failed call between roles.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// For people: lowercase, with what to do where that is known.
    pub message: String,
    /// When to come back, where the failing side knows.
    pub retry_after: Option<Duration>,
}

/// The gRPC metadata key that carries the exact kind; codes alone are too coarse.
const KIND_KEY: &str = "tricord-error-kind";
/// The gRPC metadata key that carries the wait in milliseconds.
const RETRY_KEY: &str = "tricord-retry-after-ms";

impl Error {
    /// An error of a kind with a text for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// An [`ErrorKind::Overloaded`] that says when to come back.
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { kind: ErrorKind::Overloaded, message: message.into(), retry_after: Some(retry_after) }
    }

    /// An [`ErrorKind::Internal`] from whatever went wrong.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, error.to_string())
    }

    /// Whether the same request may succeed later, perhaps elsewhere.
    #[must_use]
    pub fn retryable(&self) -> bool {
        use ErrorKind as K;
        matches!(
            self.kind,
            K::StaleEpoch | K::NotServing | K::Unavailable | K::Overloaded | K::Timeout | K::Conflict
        )
    }

    /// The error as the failure of one part of a request.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        Failure {
            kind: self.kind.as_str().to_owned(),
            message: self.message.clone(),
            retry_after_ms: self.retry_after.map_or(0, |wait| wait.as_millis() as u64),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = failure.kind.parse().unwrap_or(ErrorKind::Internal);
        let retry_after = (failure.retry_after_ms > 0).then(|| Duration::from_millis(failure.retry_after_ms));
        Self { kind, message: failure.message, retry_after }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::new(error.kind.code(), error.message);
        status.metadata_mut().insert(KIND_KEY, MetadataValue::from_static(error.kind.as_str()));
        if let Some(wait) = error.retry_after {
            let wait: MetadataValue<Ascii> = (wait.as_millis() as u64).into();
            status.metadata_mut().insert(RETRY_KEY, wait);
        }
        status
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let text = |key: &str| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let named = text(KIND_KEY).and_then(|name| name.parse().ok());
        // Without the key the status was made by the transport: a refused or broken connection is `Unavailable` or
        // `Unknown`, and both may be tried elsewhere.
        let transport = match status.code() {
            Code::Unknown => ErrorKind::Unavailable,
            Code::ResourceExhausted | Code::OutOfRange => ErrorKind::Limit,
            // So the transport ends a call at its deadline. Who gives a call up does not read how it ended.
            Code::Cancelled => ErrorKind::Timeout,
            code => ErrorKind::from_code(code),
        };
        let retry_after = text(RETRY_KEY).and_then(|wait| wait.parse().ok()).map(Duration::from_millis);
        Self { kind: named.unwrap_or(transport), message: status.message().to_owned(), retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_transport_ends_has_run_out_of_time() {
        assert_eq!(Error::from(Status::cancelled("Timeout expired")).kind, ErrorKind::Timeout);
        let cancelled = Error::new(ErrorKind::Cancelled, "by whoever asked");
        assert_eq!(Error::from(Status::from(cancelled)).kind, ErrorKind::Cancelled);
    }

    #[test]
    fn every_kind_survives_both_faces() {
        for (kind, ..) in ErrorKind::ALL {
            let error = Error { kind, message: "why".into(), retry_after: Some(Duration::from_millis(250)) };
            let through_status = Error::from(Status::from(error.clone()));
            assert_eq!((through_status.kind, through_status.retry_after), (kind, error.retry_after));
            assert_eq!(Error::from(error.to_failure()).kind, kind);
        }
    }
}
