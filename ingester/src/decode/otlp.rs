//! OTLP requests: JSON becomes protobuf first, protobuf is checked without building it, then each signal is read.

pub(crate) mod build;
mod check;
mod json;
mod schema;
mod traces;

pub use check::check;
pub use json::to_protobuf;
pub use traces::decode as decode_traces;

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

#[cfg(test)]
mod tests;
