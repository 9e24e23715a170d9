//! OTLP requests: JSON becomes protobuf first, protobuf is checked without building it, then each signal is read.

mod check;
mod json;
mod schema;
mod traces;

pub use check::check;
pub use json::to_protobuf;
pub use traces::decode as decode_traces;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use super::Allowance;
use crate::Error;

/// What an OTLP request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// `ExportMetricsServiceRequest`.
    Metrics,
    /// `ExportTraceServiceRequest`.
    Traces,
    /// `ExportLogsServiceRequest`.
    Logs,
}

impl Signal {
    /// The word for it in paths and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }

    fn request(self) -> &'static schema::Message {
        match self {
            Self::Metrics => &schema::METRICS_REQUEST,
            Self::Traces => &schema::TRACES_REQUEST,
            Self::Logs => &schema::LOGS_REQUEST,
        }
    }
}

/// Reads a metrics request, once [`check`] has found it sound and paid for.
///
/// # Errors
/// [`Error::Invalid`] for what is not such a request.
pub fn decode_metrics(bytes: &[u8], allowance: &mut Allowance) -> Result<ExportMetricsServiceRequest, Error> {
    check(Signal::Metrics, bytes, allowance)?;
    build_metrics(bytes)
}

/// Builds a metrics request that [`check`] has found sound and paid for.
///
/// # Errors
/// [`Error::Invalid`] for what is not such a request.
pub fn build_metrics(bytes: &[u8]) -> Result<ExportMetricsServiceRequest, Error> {
    ExportMetricsServiceRequest::decode(bytes)
        .map_err(|error| Error::Invalid(format!("body is not an OTLP metrics request: {error}")))
}

#[cfg(test)]
mod tests;
