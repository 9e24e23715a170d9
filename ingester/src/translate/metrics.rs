//! The five kinds of OTLP metrics as series, from messages that prost has built.

use std::sync::Arc;

use foldhash::HashSet;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, SummaryDataPoint, exemplar, metric::Data, number_data_point,
};
use tricord_model::{
    Exemplar, MetricKind, MetricMetadata, STALE_NAN, Sample, SeriesBatch, SeriesData, Value,
};

use super::labels::{Pairs, scope};
use super::target::Target;
use super::{MetricShape, Translation, histogram, metric_name};
use crate::Error;
use crate::decode::labels::short;
use crate::decode::sent::means;
use crate::decode::{Allowance, Sink};

/// The flag of a point that only says that nothing was recorded.
pub(super) const NO_RECORDED_VALUE: u32 = 1;

/// What is known while a request is translated.
pub(super) struct Output<'a, S> {
    pub(super) translation: &'a Translation,
    pub(super) allowance: &'a mut Allowance,
    pub(super) sink: &'a mut S,
    families: HashSet<String>,
    /// The labels of a part in the form in which they are remembered.
    sent: Vec<u8>,
}

/// What a metric says of itself.
pub(super) struct Told<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) unit: &'a str,
    pub(super) shape: MetricShape,
    pub(super) kind: MetricKind,
    /// Where its kind has one.
    pub(super) temporality: Option<i32>,
    /// How many points it has.
    pub(super) points: usize,
}

/// What every point of a metric shares.
pub(super) struct Family<'a> {
    pub(super) name: String,
    scope: &'a Pairs<'a>,
    pub(super) delta: bool,
    /// Whether start times mean anything.
    pub(super) started: bool,
}

/// What every kind of point has.
struct Point<'a> {
    attributes: &'a [KeyValue],
    start_ns: u64,
    time_ns: u64,
    flags: u32,
    /// Its labels as a sender of remote write has them, where it has but one series and they may be remembered.
    sent: Option<&'a [u8]>,
}

/// Every kind of data point has these fields, without a type that they share.
macro_rules! points {
    ($($kind:ty),*) => {$(
        impl<'a> From<&'a $kind> for Point<'a> {
            fn from(point: &'a $kind) -> Self {
                Self {
                    attributes: &point.attributes,
                    start_ns: point.start_time_unix_nano,
                    time_ns: point.time_unix_nano,
                    flags: point.flags,
                    sent: None,
                }
            }
        }
    )*};
}
points!(NumberDataPoint, ExponentialHistogramDataPoint, HistogramDataPoint, SummaryDataPoint);

/// One series' part of a point.
struct Part<'a> {
    suffix: &'a str,
    label: Option<(&'a str, &'a str)>,
    value: Value,
    exemplars: Vec<Exemplar>,
}

impl<'a> Part<'a> {
    fn float(suffix: &'a str, value: f64) -> Self {
        Self { suffix, label: None, value: Value::Float(value), exemplars: Vec::new() }
    }
}

impl<'a, S: Sink> Output<'a, S> {
    pub(super) fn new(translation: &'a Translation, allowance: &'a mut Allowance, sink: &'a mut S) -> Self {
        Self { translation, allowance, sink, families: HashSet::default(), sent: Vec::new() }
    }
}

impl<S: Sink> Output<'_, S> {
    fn reject(&mut self, points: usize, reason: impl Into<String>) {
        let rejected = self.sink.rejected();
        rejected.samples += points as u64;
        rejected.reason(reason);
    }

    pub(super) fn resource(&mut self, resource: &ResourceMetrics) -> Result<(), Error> {
        let metrics = || resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
        let mut target = match Target::new(resource.resource.as_ref(), self.translation) {
            Ok(target) => target,
            Err(reason) => {
                self.reject(metrics().map(points).sum(), reason);
                return Ok(());
            }
        };
        resource.scope_metrics.iter().try_for_each(|scoped| self.scope(scoped, &mut target))?;
        self.finish(target)
    }

    pub(super) fn scope(&mut self, scoped: &ScopeMetrics, target: &mut Target<'_>) -> Result<(), Error> {
        let lent = match self.translation.promote_scope_metadata {
            true => scope(scoped.scope.as_ref(), &scoped.schema_url, self.translation.strategy),
            false => Ok(Pairs::default()),
        };
        match lent {
            Ok(lent) => scoped.metrics.iter().try_for_each(|metric| self.metric(metric, &lent, target)),
            Err(reason) => {
                self.reject(scoped.metrics.iter().map(points).sum(), reason);
                Ok(())
            }
        }
    }

    /// Writes what describes a target whose points are all read.
    pub(super) fn finish(&mut self, target: Target<'_>) -> Result<(), Error> {
        self.allowance.charge(256 + target.info_samples() * size_of::<Sample>())?;
        target.write_info(self.sink);
        Ok(())
    }

    pub(super) fn metric(
        &mut self,
        metric: &Metric,
        scope: &Pairs<'_>,
        target: &mut Target<'_>,
    ) -> Result<(), Error> {
        let Some(data) = &metric.data else { return Ok(()) };
        let (shape, kind, temporality) = match data {
            Data::Gauge(_) => (MetricShape::Gauge, MetricKind::Gauge, None),
            Data::Sum(sum) if sum.is_monotonic => {
                (MetricShape::MonotonicSum, MetricKind::Counter, Some(sum.aggregation_temporality))
            }
            Data::Sum(sum) => (MetricShape::Other, MetricKind::Gauge, Some(sum.aggregation_temporality)),
            Data::Histogram(h) => {
                (MetricShape::Other, MetricKind::Histogram, Some(h.aggregation_temporality))
            }
            Data::ExponentialHistogram(h) => {
                (MetricShape::Other, MetricKind::Histogram, Some(h.aggregation_temporality))
            }
            Data::Summary(_) => (MetricShape::Other, MetricKind::Summary, None),
        };
        let told = Told {
            name: &metric.name,
            description: &metric.description,
            unit: &metric.unit,
            shape,
            kind,
            temporality,
            points: points(metric),
        };
        let Some(family) = self.family(&told, scope)? else { return Ok(()) };
        match data {
            Data::Gauge(gauge) => {
                gauge.data_points.iter().try_for_each(|p| self.number(p, &family, target, None))
            }
            Data::Sum(sum) => sum.data_points.iter().try_for_each(|p| self.number(p, &family, target, None)),
            Data::Histogram(h) => h.data_points.iter().try_for_each(|p| self.classic(p, &family, target)),
            Data::ExponentialHistogram(h) => {
                h.data_points.iter().try_for_each(|p| self.native(p, &family, target))
            }
            Data::Summary(summary) => {
                summary.data_points.iter().try_for_each(|p| self.summary(p, &family, target))
            }
        }
    }

    /// What a metric's points share, or nothing where all of them are refused. The family's metadata goes to the sink.
    pub(super) fn family<'f>(
        &mut self,
        told: &Told<'_>,
        scope: &'f Pairs<'_>,
    ) -> Result<Option<Family<'f>>, Error> {
        let Told { kind, unit, description, .. } = *told;
        let name = metric_name(told.name, unit, told.shape, self.translation.strategy);
        if name.is_empty() {
            self.reject(told.points, format!("metric {:?} has no usable name", short(told.name)));
            return Ok(None);
        }
        let temporality = told.temporality.map(AggregationTemporality::try_from);
        let delta = matches!(temporality, Some(Ok(AggregationTemporality::Delta)));
        if !delta && !matches!(temporality, None | Some(Ok(AggregationTemporality::Cumulative))) {
            let reason = format!("metric {:?} says neither delta nor cumulative", short(told.name));
            self.reject(told.points, reason);
            return Ok(None);
        }
        if !self.families.contains(&name) {
            self.allowance.charge(2 * name.len() + description.len() + unit.len() + 128)?;
            self.families.insert(name.clone());
            let metadata = MetricMetadata { kind, unit: unit.to_owned(), help: description.to_owned() };
            self.sink.metadata(name.clone(), metadata);
        }
        Ok(Some(Family { name, scope, delta, started: kind != MetricKind::Gauge || delta }))
    }

    /// Writes a number; `sent` are its labels as a sender of remote write has them, if they were seen for the first time.
    pub(super) fn number(
        &mut self,
        point: &NumberDataPoint,
        family: &Family<'_>,
        target: &mut Target<'_>,
        sent: Option<&[u8]>,
    ) -> Result<(), Error> {
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None => 0.0,
        };
        let exemplars = point.exemplars.iter().map(|e| self.exemplar(e)).collect();
        let part = Part { suffix: "", label: None, value: Value::Float(value), exemplars };
        let common = Point { sent, ..Point::from(point) };
        self.write(&common, family, target, std::iter::once(part))
    }

    fn native(
        &mut self,
        point: &ExponentialHistogramDataPoint,
        family: &Family<'_>,
        target: &mut Target<'_>,
    ) -> Result<(), Error> {
        let native = match histogram::native(point) {
            Ok(native) => native,
            Err(reason) => {
                self.reject(1, format!("metric {:?}: {reason}", short(&family.name)));
                return Ok(());
            }
        };
        let exemplars = point.exemplars.iter().map(|e| self.exemplar(e)).collect();
        let part = Part { suffix: "", label: None, value: Value::Histogram(Arc::new(native)), exemplars };
        let common = Point::from(point);
        self.write(&common, family, target, std::iter::once(part))
    }

    fn classic(
        &mut self,
        point: &HistogramDataPoint,
        family: &Family<'_>,
        target: &mut Target<'_>,
    ) -> Result<(), Error> {
        let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
        if !counts.is_empty() && counts.len() != bounds.len() + 1 {
            let reason = format!(
                "metric {:?}: {} buckets for {} bounds",
                short(&family.name),
                counts.len(),
                bounds.len()
            );
            self.reject(1, reason);
            return Ok(());
        }
        let mut exemplars: Vec<Exemplar> = point.exemplars.iter().map(|e| self.exemplar(e)).collect();
        // Each exemplar goes to the first bucket that holds its value.
        let mut up_to = |bound: f64| -> Vec<Exemplar> {
            let (inside, rest) = std::mem::take(&mut exemplars).into_iter().partition(|e| e.value <= bound);
            exemplars = rest;
            inside
        };
        let common = Point::from(point);
        let mut parts = Vec::with_capacity(3);
        if let Some(sum) = point.sum {
            parts.push(Part::float("_sum", sum));
        }
        parts.push(Part::float("_count", point.count as f64));
        self.write(&common, family, target, parts.into_iter())?;
        let mut below = 0u64;
        let finite = bounds.iter().zip(counts).filter(|(bound, _)| **bound != f64::INFINITY);
        let texts: Vec<(String, f64, Vec<Exemplar>)> = finite
            .map(|(bound, count)| {
                below = below.saturating_add(*count);
                (bound.to_string(), below as f64, up_to(*bound))
            })
            .collect();
        let last =
            Part { label: Some(("le", "+Inf")), exemplars, ..Part::float("_bucket", point.count as f64) };
        let buckets = texts.iter().map(|(le, below, exemplars)| Part {
            label: Some(("le", le)),
            exemplars: exemplars.clone(),
            ..Part::float("_bucket", *below)
        });
        self.write(&common, family, target, buckets.chain([last]))
    }

    fn summary(
        &mut self,
        point: &SummaryDataPoint,
        family: &Family<'_>,
        target: &mut Target<'_>,
    ) -> Result<(), Error> {
        let common = Point::from(point);
        let totals = [Part::float("_sum", point.sum), Part::float("_count", point.count as f64)];
        let texts: Vec<_> = point.quantile_values.iter().map(|q| (q.quantile.to_string(), q.value)).collect();
        let quantiles = texts
            .iter()
            .map(|(quantile, value)| Part { label: Some(("quantile", quantile)), ..Part::float("", *value) });
        self.write(&common, family, target, totals.into_iter().chain(quantiles))
    }

    /// Writes the parts of a point, each to its series.
    fn write<'p>(
        &mut self,
        point: &Point<'_>,
        family: &Family<'_>,
        target: &mut Target<'_>,
        parts: impl Iterator<Item = Part<'p>>,
    ) -> Result<(), Error> {
        let mut pairs = match Pairs::from_attributes(point.attributes, self.translation.strategy) {
            Ok(pairs) => pairs,
            Err(reason) => {
                self.reject(1, format!("metric {:?}: {reason}", short(&family.name)));
                return Ok(());
            }
        };
        let t_ms = millis(point.time_ns);
        target.seen(t_ms);
        let target = &*target;
        target.lend(&mut pairs, family.scope);
        let start_ms = if family.started { millis(point.start_ns) } else { 0 };
        let stale = point.flags & NO_RECORDED_VALUE != 0;
        for part in parts {
            self.allowance
                .charge(size_of::<SeriesBatch>() + size_of::<Sample>() + pairs.size() + family.name.len())?;
            let suffixed;
            let name = if part.suffix.is_empty() {
                &family.name
            } else {
                suffixed = format!("{}{}", family.name, part.suffix);
                &suffixed
            };
            let value = if stale { Value::Float(STALE_NAN) } else { part.value };
            let sample = Sample { t_ms, start_ms: if stale { 0 } else { start_ms }, value };
            let data = SeriesData { samples: &[sample], exemplars: &part.exemplars, delta: family.delta };
            self.sent.clear();
            let is_short = point.sent.is_none() && pairs.push_series(name, part.label, &mut self.sent);
            if is_short && self.sink.recall(&self.sent, &data) {
                continue;
            }
            let labels = match pairs.series(name, part.label) {
                Ok(labels) => labels,
                Err(reason) => {
                    self.reject(1, reason);
                    return Ok(());
                }
            };
            let sent = point.sent.or(is_short.then_some(self.sent.as_slice()));
            self.sink.series(&labels, sent.filter(|sent| means(sent, &labels)), &data);
        }
        Ok(())
    }

    fn exemplar(&self, given: &opentelemetry_proto::tonic::metrics::v1::Exemplar) -> Exemplar {
        // An attribute with an empty key is no reason to lose the exemplar's trace.
        let named = given.filtered_attributes.iter().filter(|attribute| !attribute.key.is_empty());
        let mut pairs = Pairs::from_attributes(named, self.translation.strategy).unwrap_or_default();
        for (name, id) in [("trace_id", &given.trace_id), ("span_id", &given.span_id)] {
            if !id.is_empty() {
                pairs.set(name, hex::encode(id));
            }
        }
        let value = match given.value {
            Some(exemplar::Value::AsDouble(value)) => value,
            Some(exemplar::Value::AsInt(value)) => value as f64,
            None => 0.0,
        };
        Exemplar { labels: pairs.plain(), t_ms: millis(given.time_unix_nano), value }
    }
}

/// Nanoseconds since the Unix epoch as milliseconds.
pub(super) fn millis(ns: u64) -> i64 {
    (ns / 1_000_000) as i64
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests;
