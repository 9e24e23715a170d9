"""Sends every kind of OpenTelemetry instrument and a small trace with the Python SDK, then prints what it sent.

usage: otel_sdk.py grpc|http ENDPOINT SERVICE

The answer is one line of JSON: {"trace_id": "...", "spans": ["...", ...]}. The program fails when an export fails.
"""

import json
import sys

from opentelemetry import trace
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult


def exporters(protocol, endpoint):
    """The metric exporters (cumulative and delta) and the span exporter for a protocol."""
    delta = {kind: AggregationTemporality.DELTA for kind in (Counter, Histogram, ObservableCounter)}
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return (
            OTLPMetricExporter(endpoint=endpoint, insecure=True),
            OTLPMetricExporter(endpoint=endpoint, insecure=True, preferred_temporality=delta),
            OTLPSpanExporter(endpoint=endpoint, insecure=True),
        )
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return (
        OTLPMetricExporter(endpoint=endpoint + "/v1/metrics"),
        OTLPMetricExporter(endpoint=endpoint + "/v1/metrics", preferred_temporality=delta),
        OTLPSpanExporter(endpoint=endpoint + "/v1/traces"),
    )


class Checked:
    """A span exporter that remembers failures, which the SDK only logs."""

    def __init__(self, inner):
        self.inner, self.failed = inner, False

    def export(self, spans):
        result = self.inner.export(spans)
        self.failed |= result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self):
        self.inner.shutdown()

    def force_flush(self, timeout_millis=30000):
        return True


def send_metrics(exporter, resource, prefix):
    """Records one value with each kind of instrument and exports once."""
    views = [View(instrument_name=prefix + ".exponential", aggregation=ExponentialBucketHistogramAggregation())]
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader], resource=resource, views=views)
    meter = provider.get_meter("tricord.integration", "1.0")
    meter.create_counter(prefix + ".requests", unit="{request}").add(5, {"code": "200"})
    meter.create_up_down_counter(prefix + ".connections").add(3)
    meter.create_gauge(prefix + ".temperature", unit="Cel").set(21.5, {"room": "kitchen"})
    durations = meter.create_histogram(prefix + ".duration", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1, 10])
    exponential = meter.create_histogram(prefix + ".exponential", unit="By")
    for value in (0.05, 0.5, 5, 50):
        durations.record(value)
        exponential.record(value)
    meter.create_observable_counter(prefix + ".ticks", callbacks=[lambda _: [Observation(7)]])
    meter.create_observable_up_down_counter(prefix + ".queue", callbacks=[lambda _: [Observation(-2)]])
    meter.create_observable_gauge(prefix + ".load", unit="1", callbacks=[lambda _: [Observation(0.25)]])
    if not provider.force_flush():
        sys.exit("the metrics were not exported")
    provider.shutdown()


def send_spans(exporter, resource):
    """Exports a root span with a child that failed."""
    checked = Checked(exporter)
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(checked))
    tracer = provider.get_tracer("tricord.integration", "1.0")
    with tracer.start_as_current_span("GET /cart", kind=trace.SpanKind.SERVER) as root:
        root.set_attribute("http.response.status_code", 500)
        with tracer.start_as_current_span("SELECT cart", kind=trace.SpanKind.CLIENT) as child:
            child.add_event("retry", {"attempt": 1})
            child.set_status(trace.StatusCode.ERROR, "no such table")
    provider.shutdown()
    if checked.failed:
        sys.exit("the spans were not exported")
    spans = [format(span.get_span_context().span_id, "016x") for span in (root, child)]
    return {"trace_id": format(root.get_span_context().trace_id, "032x"), "spans": spans}


def main():
    protocol, endpoint, service = sys.argv[1:]
    resource = Resource.create({"service.name": service, "service.instance.id": "sdk-1", "deployment.environment.name": "test"})
    cumulative, delta, spans = exporters(protocol, endpoint)
    send_metrics(cumulative, resource, "sdk")
    send_metrics(delta, resource, "sdk.delta")
    print(json.dumps(send_spans(spans, resource)))


main()
