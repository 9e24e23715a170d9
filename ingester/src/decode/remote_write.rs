//! Remote write 1.0: `prometheus.WriteRequest`, walked in place.

use std::sync::Arc;

use tricord_model::{Exemplar, MetricKind, MetricMetadata, Sample, SeriesBatch, SeriesData, Value};

use super::labels::{plain_labels, shown, sort_series};
use super::wire::{Field, Message, WireError};
use super::{Allowance, Sink, histogram};
use crate::Error;

/// Decodes a request into a sink. Series that are broken by themselves are counted as rejected; the others are kept.
///
/// # Errors
/// [`Error::Invalid`] when the bytes are not such a request, [`Error::TooLarge`] when the allowance is spent. The sink
/// has a part of the request then.
pub fn decode(bytes: &[u8], allowance: &mut Allowance, sink: &mut impl Sink) -> Result<(), Error> {
    let mut message = Message::new(bytes);
    let (mut pairs, mut parts) = (Vec::new(), Parts::default());
    while let Some((number, field)) = message.next()? {
        match number {
            1 => {
                series(field.bytes(number)?, &mut pairs, &mut parts, allowance)?;
                let sorted = sorted(&mut pairs, parts.broken_label);
                parts.finish(sorted.map(|()| &*pairs), sink);
            }
            3 => {
                let (family, metadata) = metadata(field.bytes(number)?)?;
                allowance.charge(128 + family.len() + metadata.help.len() + metadata.unit.len())?;
                if !family.is_empty() {
                    sink.metadata(family, metadata);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a `TimeSeries` message holds beside its labels. One is used for all series of a request.
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
    pub(super) fn clear(&mut self) {
        let Self { samples, exemplars, rejected_samples, rejected_exemplars, reasons, broken_label } = self;
        samples.clear();
        exemplars.clear();
        reasons.clear();
        (*rejected_samples, *rejected_exemplars, *broken_label) = (0, 0, false);
    }

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

    /// Hands the series to the sink, or counts what it held as rejected.
    pub(super) fn finish(&mut self, labels: Result<&[(&str, &str)], String>, sink: &mut impl Sink) {
        let Self { samples, exemplars, reasons, .. } = self;
        match labels {
            Ok(labels) if samples.is_empty() && exemplars.is_empty() => {
                let labels = shown(labels);
                if reasons.is_empty() {
                    reasons.push(format!("series {labels} has no samples"));
                } else {
                    reasons.iter_mut().for_each(|reason| *reason = format!("series {labels}: {reason}"));
                }
            }
            Ok(labels) => sink.series(labels, &SeriesData { samples, exemplars, delta: false }),
            Err(reason) => {
                self.rejected_samples += samples.len() as u64;
                self.rejected_exemplars += exemplars.len() as u64;
                reasons.insert(0, reason);
            }
        }
        if self.rejected_samples > 0 || self.rejected_exemplars > 0 || !reasons.is_empty() {
            let rejected = sink.rejected();
            rejected.samples += self.rejected_samples;
            rejected.exemplars += self.rejected_exemplars;
            reasons.drain(..).for_each(|reason| rejected.reason(reason));
        }
    }
}

fn sorted(pairs: &mut Vec<(&str, &str)>, broken: bool) -> Result<(), String> {
    if broken {
        let metric = pairs.iter().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value);
        return Err(format!("a label of a series of {metric:?} is not valid UTF-8"));
    }
    sort_series(pairs)
}

fn series<'a>(
    bytes: &'a [u8],
    pairs: &mut Vec<(&'a str, &'a str)>,
    parts: &mut Parts,
    allowance: &mut Allowance,
) -> Result<(), Error> {
    allowance.charge(size_of::<SeriesBatch>() + 64 + bytes.len())?;
    pairs.clear();
    parts.clear();
    let read = usual_labels(bytes, pairs);
    allowance.charge(pairs.len() * size_of::<(&str, &str)>())?;
    let mut message = Message::new(&bytes[read..]);
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
    Ok(())
}

/// Reads the labels at the start of a series as long as they are written as encoders write them: a name, then a value,
/// each shorter than 128 bytes. Answers how many bytes that were; what is left is read field by field.
///
/// Then tags and lengths are ASCII, and all labels can be checked to be text at once.
fn usual_labels<'a>(bytes: &'a [u8], pairs: &mut Vec<(&'a str, &'a str)>) -> usize {
    let mut end = 0;
    while let Some([0x0a, len @ 0..0x80]) = bytes.get(end..end + 2) {
        end += 2 + usize::from(*len);
    }
    let Some(Ok(text)) = bytes.get(..end).map(std::str::from_utf8) else { return 0 };
    let mut read = 0;
    while let Some(pair) = usual_label(text, read) {
        pairs.push(pair);
        read += 6 + pair.0.len() + pair.1.len();
    }
    read
}

fn usual_label(text: &str, at: usize) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let [_, label_len, 0x0a, name_len] = *bytes.get(at..)?.first_chunk::<4>()? else { return None };
    let name_end = at + 4 + usize::from(name_len);
    let [0x12, value_len] = *bytes.get(name_end..)?.first_chunk::<2>()? else { return None };
    let value_end = name_end + 2 + usize::from(value_len);
    let is_whole = usize::from(label_len) == value_end - at - 2;
    if is_whole { Some((text.get(at + 4..name_end)?, text.get(name_end + 2..value_end)?)) } else { None }
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
