//! What a start says to people: where things listen, and the first three things to try.

use std::io::Write;

use crate::settings::Settings;

/// The text for the start of a single process.
pub(crate) fn single_process(settings: &Settings, http: &str, otlp_grpc: &str, otlp_http: &str) -> String {
    let own = if settings.own_telemetry {
        format!(
            "\n  Tricord watches itself under tenant tricord:\n    tricord query --url http://{http} --tenant tricord \
             'rate(tricord_ingester_samples_total[1m])'"
        )
    } else {
        String::new()
    };
    format!(
        "
  tricord {version} is ready; data is in {data}, kept for {retention}

  Send   curl --data-binary 'hello{{from=\"me\"}} 42' http://{http}/api/v1/import/prometheus
         Prometheus remote_write url: http://{http}/api/v1/write
         OpenTelemetry: gRPC {otlp_grpc}, HTTP http://{otlp_http}
  Ask    curl 'http://{http}/api/v1/query?query=hello'
  Show   Grafana data source Prometheus: http://{http}
                             Tempo:      http://{http}/tempo
                             Jaeger:     http://{http}/jaeger
  Look   http://{http}/ui/cluster
{own}
  Ctrl-C stops it; nothing acknowledged is lost. More: tricord --help

",
        version = env!("CARGO_PKG_VERSION"),
        data = settings.data_dir.display(),
        retention = if settings.retention == "0" { "ever" } else { &settings.retention },
    )
}

/// Writes a text to stderr, beside the log. A closed stderr is nobody's problem.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
