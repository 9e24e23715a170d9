//! Remote write 1.0: `prometheus.WriteRequest`, walked in place.

use std::sync::Arc;

use tricord_model::{Exemplar, Labels, MetricKind, MetricMetadata, Sample, SeriesBatch, Value};

use super::labels::{plain_labels, series_labels};
use super::wire::{Field, Message, WireError};
use super::{Allowance, Decoded, histogram};
use crate::Error;

/// Decodes a request. Series that are broken by themselves are counted in `rejected`; the others are kept.
///
/// # Errors
/// [`Error::Invalid`] when the bytes are not such a request, [`Error::TooLarge`] when the allowance is spent.
pub fn decode(bytes: &[u8], allowance: &mut Allowance) -> Result<Decoded, Error> {
    let mut decoded = Decoded::default();
    let mut message = Message::new(bytes);
    let mut pairs = Vec::new();
    while let Some((number, field)) = message.next()? {
        match number {
            1 => {
                let parts = series(field.bytes(number)?, &mut pairs, allowance)?;
                let labels = series_labels_of(&mut pairs, parts.broken_label);
                parts.finish(labels, &mut decoded);
            }
            3 => {
                let (family, metadata) = metadata(field.bytes(number)?)?;
                allowance.charge(128 + family.len() + metadata.help.len() + metadata.unit.len())?;
                if !family.is_empty() {
                    decoded.batch.metadata.push((family, metadata));
                }
            }
            _ => {}
        }
    }
    Ok(decoded)
}

/// What a `TimeSeries` message holds beside its labels.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) samples: Vec<Sample>,
    pub(super) exemplars: Vec<Exemplar>,
    pub(super) rejected_samples: u64,
    pub(super) rejected_exemplars: u64,
    pub(super) reasons: Vec<String>,
    /// Labels that are not text; they take the series with them.
    pub(super) broken_label: bool,
}

impl Parts {
    pub(super) fn histogram(&mut self, bytes: &[u8], allowance: &mut Allowance) -> Result<(), Error> {
        allowance.charge(size_of::<Sample>())?;
        let timed = histogram::decode(bytes, allowance)?;
        match timed.check() {
            Ok(()) => {
                let value = Value::Histogram(Arc::new(timed.histogram));
                self.samples.push(Sample { t_ms: timed.t_ms, start_ms: timed.start_ms, value });
            }
            Err(reason) => {
                self.rejected_samples += 1;
                self.reasons.push(reason);
            }
        }
        Ok(())
    }

    /// Adds the series to the decoded request, or what it held to the rejected.
    pub(super) fn finish(mut self, labels: Result<Labels, String>, decoded: &mut Decoded) {
        let rejected = &mut decoded.rejected;
        rejected.exemplars += self.rejected_exemplars;
        rejected.samples += self.rejected_samples;
        match labels {
            Ok(labels) if self.samples.is_empty() && self.exemplars.is_empty() => {
                if self.reasons.is_empty() {
                    self.reasons.push(format!("series {labels} has no samples"));
                } else {
                    self.reasons =
                        self.reasons.iter().map(|reason| format!("series {labels}: {reason}")).collect();
                }
            }
            Ok(labels) => {
                let Self { samples, exemplars, .. } = self;
                decoded.batch.series.push(SeriesBatch { labels, samples, exemplars, delta: false });
            }
            Err(reason) => {
                rejected.samples += self.samples.len() as u64;
                rejected.exemplars += self.exemplars.len() as u64;
                self.reasons.insert(0, reason);
            }
        }
        self.reasons.into_iter().for_each(|reason| rejected.reason(reason));
    }
}

fn series_labels_of<'a>(pairs: &mut Vec<(&'a str, &'a str)>, broken: bool) -> Result<Labels, String> {
    if broken {
        let metric = pairs.iter().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
        return Err(format!("a label of a series of {metric:?} is not valid UTF-8"));
    }
    series_labels(pairs)
}

fn series<'a>(
    bytes: &'a [u8],
    pairs: &mut Vec<(&'a str, &'a str)>,
    allowance: &mut Allowance,
) -> Result<Parts, Error> {
    allowance.charge(size_of::<SeriesBatch>() + 64 + bytes.len())?;
    pairs.clear();
    let mut parts = Parts::default();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => match label(field.bytes(number)?) {
                Ok(pair) => {
                    allowance.charge(size_of::<(&str, &str)>())?;
                    pairs.push(pair);
                }
                Err(WireError::NotUtf8(_)) => parts.broken_label = true,
                Err(error) => return Err(error.into()),
            },
            2 => {
                allowance.charge(size_of::<Sample>())?;
                parts.samples.push(sample(field.bytes(number)?)?);
            }
            3 => match exemplar(field.bytes(number)?, allowance)? {
                Ok(exemplar) => parts.exemplars.push(exemplar),
                Err(reason) => {
                    parts.rejected_exemplars += 1;
                    parts.reasons.push(reason);
                }
            },
            4 => parts.histogram(field.bytes(number)?, allowance)?,
            _ => {}
        }
    }
    Ok(parts)
}

fn label(bytes: &[u8]) -> Result<(&str, &str), WireError> {
    let (mut name, mut value) = ("", "");
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => name = field.str(number)?,
            2 => value = field.str(number)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// A float sample of either version; only 2.0 sends field 3.
pub(super) fn sample(bytes: &[u8]) -> Result<Sample, WireError> {
    let (mut value, mut t_ms, mut start_ms) = (0.0, 0, 0);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => value = field.double(number)?,
            2 => t_ms = field.varint(number)? as i64,
            3 => start_ms = field.varint(number)? as i64,
            _ => {}
        }
    }
    Ok(Sample { t_ms, start_ms, value: Value::Float(value) })
}

/// An exemplar, or why its labels are refused.
fn exemplar(bytes: &[u8], allowance: &mut Allowance) -> Result<Result<Exemplar, String>, Error> {
    let (mut pairs, mut value, mut t_ms, mut broken) = (Vec::new(), 0.0, 0, false);
    allowance.charge(size_of::<Exemplar>() + 64 + bytes.len())?;
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, field) => match label(field.bytes(number)?) {
                Ok(pair) => {
                    allowance.charge(size_of::<(&str, &str)>())?;
                    pairs.push(pair);
                }
                Err(WireError::NotUtf8(_)) => broken = true,
                Err(error) => return Err(error.into()),
            },
            (2, field) => value = field.double(number)?,
            (3, field) => t_ms = field.varint(number)? as i64,
            _ => {}
        }
    }
    if broken {
        return Ok(Err("a label of an exemplar is not valid UTF-8".to_owned()));
    }
    Ok(plain_labels(&mut pairs)
        .map(|labels| Exemplar { labels, t_ms, value })
        .map_err(|e| format!("exemplar: {e}")))
}

fn metadata(bytes: &[u8]) -> Result<(String, MetricMetadata), WireError> {
    let (mut family, mut metadata) = (String::new(), MetricMetadata::default());
    // Help texts are for people: a broken one is mended, not refused.
    let text = |number, field: Field<'_>| Ok(String::from_utf8_lossy(field.bytes(number)?).into_owned());
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => metadata.kind = MetricKind::from_number(field.varint(number)? as u8),
            2 => family = text(number, field)?,
            4 => metadata.help = text(number, field)?,
            5 => metadata.unit = text(number, field)?,
            _ => {}
        }
    }
    Ok((family, metadata))
}
