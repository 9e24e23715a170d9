//! A sender of Prometheus remote write 2.0: floats, native histograms and start timestamps.

use std::collections::HashMap;

use anyhow::Result;
use prost::Message;
use tricord_model::{BucketSpan, FloatHistogram, Labels, Points, Value};

use crate::prompb::{Histogram, Sample, Span, compressed};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
}

/// Texts, each once; the first is empty.
struct Symbols {
    texts: Vec<String>,
    known: HashMap<String, u32>,
}

impl Symbols {
    fn new() -> Self {
        Self { texts: vec![String::new()], known: HashMap::from([(String::new(), 0)]) }
    }

    fn reference(&mut self, text: &str) -> u32 {
        *self.known.entry(text.to_owned()).or_insert_with(|| {
            self.texts.push(text.to_owned());
            self.texts.len() as u32 - 1
        })
    }
}

/// The body of a remote-write 2.0 request: protobuf in a snappy block. Histograms whose populations are whole numbers
/// are sent as integers, as most clients do, others as floats. Floats and histograms of one series are sent apart.
///
/// # Errors
/// When it is too large for snappy.
pub fn remote_write_v2_body(series: &[(Labels, Points)]) -> Result<Vec<u8>> {
    let mut symbols = Symbols::new();
    let mut timeseries = Vec::new();
    for (labels, points) in series {
        let labels_refs: Vec<u32> = labels
            .iter()
            .flat_map(|(name, value)| [name, value])
            .map(|text| symbols.reference(text))
            .collect();
        let (mut samples, mut histograms) = (Vec::new(), Vec::new());
        for sample in points.iter() {
            let (timestamp, start_timestamp) = (sample.t_ms, sample.start_ms);
            match sample.value {
                Value::Float(value) => {
                    samples.push(Sample { value: Some(value), timestamp, start_timestamp });
                }
                Value::Histogram(histogram) => {
                    histograms.push(Histogram { timestamp, start_timestamp, ..message(&histogram) });
                }
            }
        }
        for (samples, histograms) in [(samples, vec![]), (vec![], histograms)] {
            if samples.len() + histograms.len() > 0 {
                timeseries.push(TimeSeries { labels_refs: labels_refs.clone(), samples, histograms });
            }
        }
    }
    let request = Request { symbols: symbols.texts, timeseries };
    compressed(&request.encode_to_vec())
}

fn message(histogram: &FloatHistogram) -> Histogram {
    let spans = |spans: &[BucketSpan]| {
        spans.iter().map(|span| Span { offset: span.offset, length: span.length }).collect()
    };
    let start = Histogram {
        sum: Some(histogram.sum),
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        negative_spans: spans(&histogram.negative_spans),
        positive_spans: spans(&histogram.positive_spans),
        reset_hint: histogram.counter_reset_hint as i32,
        custom_values: histogram.custom_values.clone(),
        ..Histogram::default()
    };
    if is_whole(histogram) {
        return Histogram {
            count_int: Some(histogram.count as u64),
            zero_count_int: Some(histogram.zero_count as u64),
            negative_deltas: deltas(&histogram.negative_buckets),
            positive_deltas: deltas(&histogram.positive_buckets),
            ..start
        };
    }
    Histogram {
        count_float: Some(histogram.count),
        zero_count_float: Some(histogram.zero_count),
        negative_counts: histogram.negative_buckets.clone(),
        positive_counts: histogram.positive_buckets.clone(),
        ..start
    }
}

/// Whether the populations are whole numbers that add up to the count, as those of an integer histogram must.
fn is_whole(histogram: &FloatHistogram) -> bool {
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    let mut all = buckets.chain([&histogram.zero_count]);
    let fits = |population: &f64| population.fract() == 0.0 && (0.0..1e15).contains(population);
    fits(&histogram.count) && all.clone().all(fits) && all.by_ref().sum::<f64>() == histogram.count
}

/// Differences between neighbouring populations.
fn deltas(populations: &[f64]) -> Vec<i64> {
    let mut before = 0;
    let difference = |population: &f64| {
        let now = *population as i64;
        let delta = now - before;
        before = now;
        delta
    };
    populations.iter().map(difference).collect()
}
