//! The load of a scenario, as requests that are ready to be sent.

use anyhow::Result;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tricord_model::{Labels, Points, Sample};
use tricord_testkit::{prompb, remote_write_v2_body};

use crate::fleet::{Host, SERIES_PER_HOST};

/// Samples in a request, as Prometheus sends them by default.
pub(crate) const SAMPLES_PER_REQUEST: usize = 2_000;

/// How samples are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
    /// OTLP over HTTP, protobuf, not compressed.
    Otlp,
}

impl Wire {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Otlp => "otlp",
        }
    }
}

/// How much there is to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) series: usize,
    pub(crate) ticks: i64,
    pub(crate) interval_ms: i64,
}

impl Scenario {
    /// Ten thousand series over six hours: queries are asked of it too.
    pub(crate) const A: Self = Self { name: "A", series: 10_000, ticks: 1_440, interval_ms: 15_000 };
    /// A hundred thousand series over half an hour.
    pub(crate) const B: Self = Self { name: "B", series: 100_000, ticks: 120, interval_ms: 15_000 };
    /// A million series, some scrapes each.
    pub(crate) const MILLION: Self = Self { name: "1M", series: 1_000_000, ticks: 4, interval_ms: 15_000 };
    /// A million series over half an hour: a whole window, all of it in memory and in the log.
    pub(crate) const WINDOW: Self =
        Self { name: "1M window", series: 1_000_000, ticks: 120, interval_ms: 15_000 };
    /// Six hundred series over thirty days, once a minute.
    pub(crate) const MONTH: Self = Self { name: "30d", series: 600, ticks: 43_200, interval_ms: 60_000 };

    pub(crate) fn samples(self) -> u64 {
        self.series as u64 * self.ticks as u64
    }

    /// How long the scenario lasts, in milliseconds.
    pub(crate) fn span_ms(self) -> i64 {
        self.ticks * self.interval_ms
    }
}

/// A request and what it holds.
pub(crate) struct Request {
    pub(crate) body: Vec<u8>,
    pub(crate) samples: u64,
}

/// One connection's part of a scenario: some of the hosts, in order of time.
pub(crate) struct Part {
    hosts: Vec<(usize, Host)>,
    scenario: Scenario,
    wire: Wire,
    start_ms: i64,
    tick: i64,
}

impl Part {
    /// The part of connection `number` of `of`.
    pub(crate) fn new(scenario: Scenario, wire: Wire, start_ms: i64, (number, of): (usize, usize)) -> Self {
        let hosts = scenario.series.div_ceil(SERIES_PER_HOST);
        let hosts = (number..hosts).step_by(of).map(|host| (host, Host::new(host))).collect();
        Self { hosts, scenario, wire, start_ms, tick: 0 }
    }

    /// The requests of the next so many scrapes; none at the end.
    ///
    /// # Errors
    /// When a body cannot be made.
    pub(crate) fn next(&mut self, ticks: i64) -> Result<Vec<Request>> {
        let mut requests = Vec::new();
        let until = (self.tick + ticks).min(self.scenario.ticks);
        let mut batch = Batch::new(self.wire);
        while self.tick < until {
            for (number, host) in &mut self.hosts {
                host.scrape();
                let t_ms = host.time(self.start_ms, self.scenario.interval_ms, self.tick);
                // The last host may have fewer, so that the number of series is exact.
                let series =
                    self.scenario.series.saturating_sub(*number * SERIES_PER_HOST).min(SERIES_PER_HOST);
                batch.add(host, series, t_ms);
                if batch.samples >= SAMPLES_PER_REQUEST {
                    requests.push(batch.take()?);
                }
            }
            self.tick += 1;
            // What a series costs when it is new is told by the first scrape alone.
            if batch.samples > 0 && (self.tick == 1 || self.tick == until) {
                requests.push(batch.take()?);
            }
        }
        Ok(requests)
    }
}

/// A request in the making.
struct Batch {
    wire: Wire,
    /// A write request in the making, before compression.
    v1: Vec<u8>,
    v2: Vec<(Labels, Points)>,
    otlp: Vec<ResourceMetrics>,
    samples: usize,
}

impl Batch {
    fn new(wire: Wire) -> Self {
        Self { wire, v1: vec![], v2: vec![], otlp: vec![], samples: 0 }
    }

    fn add(&mut self, host: &Host, series: usize, t_ms: i64) {
        self.samples += series;
        match self.wire {
            Wire::V1 => {
                host.encoded(0..series).for_each(|(labels, value)| push(&mut self.v1, labels, t_ms, value))
            }
            Wire::V2 => self.v2.extend(host.lines(0..series).map(|(labels, value)| {
                let labels =
                    Labels::from_pairs(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
                (labels, [Sample::float(t_ms, value)].into_iter().collect())
            })),
            Wire::Otlp => self.otlp.push(resource_metrics(host, series, t_ms)),
        }
    }

    fn take(&mut self) -> Result<Request> {
        let samples = std::mem::take(&mut self.samples) as u64;
        let body = match self.wire {
            Wire::V1 => prompb::compressed(&std::mem::take(&mut self.v1))?,
            Wire::V2 => remote_write_v2_body(&std::mem::take(&mut self.v2))?,
            Wire::Otlp => {
                let resource_metrics = std::mem::take(&mut self.otlp);
                ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
            }
        };
        Ok(Request { body, samples })
    }
}

/// Appends a series with one sample to a write request. Its labels are encoded already: fields of a message may simply
/// follow each other.
pub(crate) fn push(request: &mut Vec<u8>, labels: &[u8], t_ms: i64, value: f64) {
    let samples = vec![prompb::Sample::new(t_ms, value)];
    let rest = prompb::TimeSeries { samples, ..prompb::TimeSeries::default() }.encode_to_vec();
    encode_key(1, WireType::LengthDelimited, request);
    encode_varint((labels.len() + rest.len()) as u64, request);
    request.extend_from_slice(labels);
    request.extend_from_slice(&rest);
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(AnyKind::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// A host's scrape as an SDK would send it: the target as the resource, neighbours of one name as one metric.
fn resource_metrics(host: &Host, series: usize, t_ms: i64) -> ResourceMetrics {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut resource = Resource::default();
    for (labels, value) in host.lines(0..series) {
        let (mut name, mut attributes) = ("", Vec::new());
        for (key, value) in labels {
            match key.as_str() {
                "__name__" => name = value,
                "job" | "instance" => {}
                _ => attributes.push(text(key, value)),
            }
        }
        if resource.attributes.is_empty() {
            let of = |key: &str| labels.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value);
            resource.attributes =
                vec![text("service.name", of("job")), text("service.instance.id", of("instance"))];
        }
        let point = NumberDataPoint {
            attributes,
            time_unix_nano: t_ms as u64 * 1_000_000,
            value: Some(Number::AsDouble(value)),
            ..NumberDataPoint::default()
        };
        match metrics.last_mut().filter(|metric| metric.name == name).and_then(|metric| metric.data.as_mut())
        {
            Some(Data::Sum(sum)) => sum.data_points.push(point),
            Some(Data::Gauge(gauge)) => gauge.data_points.push(point),
            _ => metrics.push(metric(name, point)),
        }
    }
    ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    }
}

fn metric(name: &str, point: NumberDataPoint) -> Metric {
    let data = if name.ends_with("_total") {
        Data::Sum(Sum {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Cumulative as i32,
            is_monotonic: true,
        })
    } else {
        Data::Gauge(Gauge { data_points: vec![point] })
    };
    Metric { name: name.to_owned(), data: Some(data), ..Metric::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_are_the_scenario() {
        let scenario = Scenario { name: "test", series: 1_150, ticks: 7, interval_ms: 15_000 };
        for wire in [Wire::V1, Wire::V2, Wire::Otlp] {
            let mut samples = 0;
            for number in 0..3 {
                let mut part = Part::new(scenario, wire, 0, (number, 3));
                loop {
                    let requests = part.next(2).unwrap();
                    if requests.is_empty() {
                        break;
                    }
                    samples += requests.iter().map(|request| request.samples).sum::<u64>();
                }
            }
            assert_eq!(samples, scenario.samples(), "{wire:?}");
        }
    }
}
