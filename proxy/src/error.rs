//! Why a query has no answer, in the classes of Prometheus' HTTP API.

use std::time::Duration;

use tricord_promql::eval::{ErrorKind as EvalKind, EvalError};
use tricord_wire::ErrorKind as WireKind;

/// The words of Prometheus for a query that passes the bound on samples.
pub(crate) const TOO_MANY_SAMPLES: &str =
    "query processing would load too many samples into memory in query execution";
/// What helps then.
pub(crate) const HOLD_FEWER_SAMPLES: &str =
    "ask for fewer series, a shorter range or a longer step, or raise the proxy's max_samples";

/// A query or request that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong and stays wrong.
    #[error("{0}")]
    BadData(String),
    /// These series or limits do not allow the query.
    #[error("{0}")]
    Execution(String),
    /// Time ran out.
    #[error("{0}")]
    Timeout(String),
    /// Nobody wants the answer any more.
    #[error("{0}")]
    Canceled(String),
    /// A part of the data cannot be reached now.
    #[error("{0}")]
    Unavailable(String),
    /// Too many queries at once.
    #[error("{message}")]
    Overloaded {
        /// Which bound, and how to raise it.
        message: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// A bug or damaged data.
    #[error("{0}")]
    Internal(String),
}

/// The classes of errors, as `errorType` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// `bad_data`, 400.
    BadData,
    /// `execution`, 422.
    Execution,
    /// `timeout`, 503.
    Timeout,
    /// `canceled`, 499.
    Canceled,
    /// `unavailable`, 503.
    Unavailable,
    /// `not_found`, 404.
    NotFound,
    /// `internal`, 500.
    Internal,
}

impl ErrorKind {
    /// The word in the answer's `errorType`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadData => 400,
            Self::Execution => 422,
            Self::Timeout | Self::Unavailable => 503,
            Self::Canceled => 499,
            Self::NotFound => 404,
            Self::Internal => 500,
        }
    }
}

impl Error {
    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadData(_) => ErrorKind::BadData,
            Self::Execution(_) => ErrorKind::Execution,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::Canceled(_) => ErrorKind::Canceled,
            Self::Unavailable(_) | Self::Overloaded { .. } => ErrorKind::Unavailable,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Unavailable(_) | Self::Overloaded { .. })
    }

    /// A parameter that cannot be used, in Prometheus' words.
    #[must_use]
    pub fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::BadData(format!("invalid parameter \"{name}\": {why}"))
    }
}

impl From<EvalError> for Error {
    fn from(error: EvalError) -> Self {
        let text = match error {
            EvalError::TooManySamples(_) => format!("{error}: {HOLD_FEWER_SAMPLES}"),
            _ => error.to_string(),
        };
        match error.kind() {
            EvalKind::BadData => Self::BadData(text),
            EvalKind::Execution => Self::Execution(text),
            EvalKind::Canceled => Self::Canceled(text),
            EvalKind::Internal => Self::Internal(text),
        }
    }
}

impl From<tricord_wire::Error> for Error {
    fn from(error: tricord_wire::Error) -> Self {
        let text = error.message;
        match error.kind {
            WireKind::Invalid | WireKind::Conflict => Self::BadData(text),
            WireKind::NotFound => Self::NotFound(text),
            WireKind::StaleEpoch | WireKind::NotServing | WireKind::Unavailable => Self::Unavailable(text),
            WireKind::Overloaded => Self::Overloaded {
                message: text,
                retry_after: error.retry_after.unwrap_or(Duration::from_secs(1)),
            },
            WireKind::Limit => Self::Execution(text),
            WireKind::Timeout => Self::Timeout(text),
            WireKind::Cancelled => Self::Canceled(text),
            // Only writes meet an unknown series, and the ingester answers it with labels.
            WireKind::Corrupt | WireKind::Internal | WireKind::UnknownSeries => Self::Internal(text),
        }
    }
}

impl From<tricord_fragment::Error> for Error {
    fn from(error: tricord_fragment::Error) -> Self {
        Self::Internal(error.to_string())
    }
}
