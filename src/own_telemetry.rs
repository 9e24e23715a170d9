//! Tricord's own metrics and traces on their way into Tricord: through an ingester like everybody's, under a tenant of
//! their own. A process without that role has an ingester just for this: it keeps no state.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tricord_ingester::Ingester;
use tricord_metadata_client::Cluster;
use tricord_model::Tenant;
use tricord_runtime::telemetry::{self, Source};
use tricord_runtime::{Metrics, OwnTelemetrySink};

use crate::process::Process;

struct Sink {
    ingester: Arc<Ingester>,
    tenant: Tenant,
}

#[async_trait::async_trait]
impl OwnTelemetrySink for Sink {
    async fn write_metrics(&self, exposition: String) {
        if let Err(error) = self.ingester.import_text(&self.tenant, &exposition).await {
            // The next snapshot has the same counters: nothing is lost but a point of the line.
            tracing::debug!(%error, "own metrics were not written");
        }
    }

    async fn write_spans(&self, request: ExportTraceServiceRequest) {
        if let Err(error) = self.ingester.export_traces(&self.tenant, request.encode_to_vec().into()).await {
            tracing::debug!(%error, "own spans were not written");
        }
    }
}

/// An ingester for a process that has none to offer. Its counts are not shown: they would look like users' data.
pub(crate) fn own_ingester(process: &Process, cluster: Cluster) -> Arc<Ingester> {
    let deps = tricord_ingester::Deps { cluster, metrics: Metrics::new(), memory: process.memory.clone() };
    Ingester::new(process.settings.ingester.clone(), deps)
}

/// Starts writing own telemetry until shutdown, unless settings say otherwise.
pub(crate) fn start(process: &mut Process, role: &str, instance: String, ingester: Arc<Ingester>) {
    if !process.settings.own_telemetry {
        return;
    }
    let service = if role == "all" { "tricord".to_owned() } else { format!("tricord-{role}") };
    let interval = Duration::from_secs(process.settings.own_telemetry_interval_s.max(1));
    let sink = Arc::new(Sink { ingester, tenant: Tenant::own() });
    let (metrics, spans, front) = (process.metrics.clone(), process.spans.clone(), process.front.clone());
    process.on_front(async move {
        telemetry::run(metrics, spans, Source { service, instance }, sink, interval, front).await;
        Ok(())
    });
}
