//! Pieces of a metrics request, built by prost once they are found sound and paid for.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::super::Allowance;
use super::check::check_piece;
use super::schema;
use crate::Error;

fn piece<M: Message + Default>(
    schema: &'static schema::Message,
    level: u32,
    bytes: &[u8],
    allowance: &mut Allowance,
) -> Result<M, Error> {
    check_piece(schema, level, bytes, allowance)?;
    M::decode(bytes).map_err(|error| Error::Invalid(format!("body is not an OTLP metrics request: {error}")))
}

macro_rules! pieces {
    ($($(#[$doc:meta])* $name:ident: $message:ty, $schema:ident at $level:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Invalid`] naming the message that is broken, [`Error::TooLarge`] when the allowance is spent.
        pub(crate) fn $name(bytes: &[u8], allowance: &mut Allowance) -> Result<$message, Error> {
            piece(&schema::$schema, $level, bytes, allowance)
        }
    )*};
}

pieces! {
    /// A whole request.
    request: ExportMetricsServiceRequest, METRICS_REQUEST at 0;
    /// What one resource sent.
    resource_metrics: ResourceMetrics, RESOURCE_METRICS at 1;
    /// The resource itself.
    resource: Resource, RESOURCE at 2;
    /// What one scope of it sent.
    scope_metrics: ScopeMetrics, SCOPE_METRICS at 2;
    /// The scope itself.
    scope: InstrumentationScope, SCOPE at 3;
    /// A metric with all its points.
    metric: Metric, METRIC at 3;
    /// A point of a gauge or a sum.
    number_point: NumberDataPoint, NUMBER_POINT at 5;
}

/// Checks a metric's own attribute, which nobody reads.
///
/// # Errors
/// As [`metric`].
pub(crate) fn check_pair(bytes: &[u8], allowance: &mut Allowance) -> Result<(), Error> {
    check_piece(&schema::KEY_VALUE, 4, bytes, allowance)
}
