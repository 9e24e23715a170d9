//! Classic histograms turned into native ones with custom bounds, as `load_with_nhcb` does.

use std::collections::BTreeMap;

use tricord_model::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Labels, METRIC_NAME, Points, Sample, Value,
};

use super::script::LoadedSeries;
use crate::histogram;

/// The parts of a classic histogram at one time.
#[derive(Default)]
struct Parts {
    /// Cumulative counts by upper bound.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

enum Part {
    Bucket(f64),
    Count,
    Sum,
}

pub(super) fn convert(series: &[LoadedSeries]) -> Result<Vec<LoadedSeries>, String> {
    let mut found: BTreeMap<Labels, BTreeMap<i64, Parts>> = BTreeMap::new();
    for loaded in series {
        let name = loaded.labels.name();
        let (base, part) = if let Some(base) = name.strip_suffix("_bucket") {
            match loaded.labels.get("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| !le.is_nan()) {
                Some(upper) => (base, Part::Bucket(upper)),
                None => continue,
            }
        } else if let Some(base) = name.strip_suffix("_count") {
            (base, Part::Count)
        } else if let Some(base) = name.strip_suffix("_sum") {
            (base, Part::Sum)
        } else {
            continue;
        };
        let mut builder = loaded.labels.to_builder();
        builder.set(METRIC_NAME, base).remove("le");
        let times = found.entry(builder.finish()).or_default();
        for sample in loaded.points.iter() {
            let Value::Float(value) = sample.value else { continue };
            let parts = times.entry(sample.t_ms).or_default();
            match part {
                Part::Bucket(upper) => parts.buckets.push((upper, value)),
                Part::Count => parts.count = Some(value),
                Part::Sum => parts.sum = value,
            }
        }
    }
    let mut out = Vec::with_capacity(found.len());
    for (labels, times) in found {
        let mut points = Points::default();
        for (t_ms, parts) in times {
            let histogram = native(parts).map_err(|error| format!("{labels} at {t_ms} ms: {error}"))?;
            points.push(Sample {
                t_ms,
                start_ms: 0,
                value: Value::Histogram(std::sync::Arc::new(histogram)),
            });
        }
        out.push(LoadedSeries { labels, points });
    }
    Ok(out)
}

fn native(mut parts: Parts) -> Result<FloatHistogram, String> {
    parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    parts.buckets.dedup_by(|later, kept| later.0 == kept.0);
    if parts.buckets.windows(2).any(|pair| pair[1].1 < pair[0].1) {
        return Err("count is not cumulative".to_owned());
    }
    let count = parts.count.or(parts.buckets.last().map(|(_, count)| *count)).unwrap_or(0.0);
    if parts.buckets.last().is_none_or(|(upper, _)| *upper != f64::INFINITY) {
        parts.buckets.push((f64::INFINITY, count));
    }
    let mut previous = 0.0;
    let mut buckets = Vec::with_capacity(parts.buckets.len());
    for (_, cumulative) in &parts.buckets {
        buckets.push(cumulative - previous);
        previous = *cumulative;
    }
    if previous != count {
        return Err("count mismatch".to_owned());
    }
    let mut histogram = FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum: parts.sum,
        positive_spans: vec![BucketSpan { offset: 0, length: buckets.len() as u32 }],
        positive_buckets: buckets,
        custom_values: parts
            .buckets
            .iter()
            .map(|(upper, _)| *upper)
            .filter(|upper| upper.is_finite())
            .collect(),
        ..FloatHistogram::default()
    };
    histogram::compact(&mut histogram);
    Ok(histogram)
}
