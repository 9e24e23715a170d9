//! Remote write 1.0: `prometheus.WriteRequest`, walked in place.

use std::sync::Arc;

use tricord_model::codec::split_varint;
use tricord_model::{
    Exemplar, MetricKind, MetricMetadata, Sample, SeriesBatch, SeriesData, Value, leading_labels,
    read_sent_labels,
};

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
                let bytes = field.bytes(number)?;
                let leading = leading_labels(bytes);
                pairs.clear();
                series(bytes, leading.len(), &mut pairs, &mut parts, allowance)?;
                // Whoever has all labels at the start may have been here before.
                let whole = pairs.is_empty() && !parts.broken_label;
                if whole && parts.is_clean() && sink.recall(leading, &parts.data()) {
                    continue;
                }
                labels(leading, &mut pairs, &mut parts, allowance)?;
                let sorted = sorted(&mut pairs, parts.broken_label);
                parts.finish(sorted.map(|()| &*pairs), whole.then_some(leading), sink);
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

    /// Whether there is something to take, and nothing to refuse.
    pub(super) fn is_clean(&self) -> bool {
        let is_empty = self.samples.is_empty() && self.exemplars.is_empty();
        !is_empty && self.rejected_samples == 0 && self.rejected_exemplars == 0 && self.reasons.is_empty()
    }

    pub(super) fn data(&self) -> SeriesData<'_> {
        SeriesData { samples: &self.samples, exemplars: &self.exemplars, delta: false }
    }

    /// Hands the series to the sink, or counts what it held as rejected. `sent` is what the sender wrote of its labels, if
    /// that is the whole of them and nothing else.
    pub(super) fn finish(
        &mut self,
        labels: Result<&[(&str, &str)], String>,
        sent: Option<&[u8]>,
        sink: &mut impl Sink,
    ) {
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
            Ok(labels) => sink.series(labels, sent, &SeriesData { samples, exemplars, delta: false }),
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

/// Reads a series from behind its leading labels on.
fn series<'a>(
    bytes: &'a [u8],
    from: usize,
    pairs: &mut Vec<(&'a str, &'a str)>,
    parts: &mut Parts,
    allowance: &mut Allowance,
) -> Result<(), Error> {
    allowance.charge(size_of::<SeriesBatch>() + 64 + bytes.len())?;
    parts.clear();
    let rest = &bytes[from..];
    if let Some(sample) = only_sample(rest) {
        allowance.charge(size_of::<Sample>())?;
        parts.samples.push(sample);
        return Ok(());
    }
    let mut message = Message::new(rest);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => any_label(field.bytes(number)?, pairs, parts, allowance)?,
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

/// The sample of a series that has nothing else behind its labels, as most senders write it: a value, then a time.
#[inline]
fn only_sample(bytes: &[u8]) -> Option<Sample> {
    let [0x12, len @ 0..0x80, 0x09, rest @ ..] = bytes else { return None };
    if usize::from(*len) != bytes.len() - 2 {
        return None;
    }
    let (value, rest) = rest.split_first_chunk::<8>()?;
    let [0x10, time @ ..] = rest else { return None };
    let (t_ms, rest) = split_varint(time).ok()?;
    rest.is_empty().then(|| Sample::float(t_ms as i64, f64::from_le_bytes(*value)))
}

/// Reads the leading labels of a series, in front of those that are read already.
fn labels<'a>(
    leading: &'a [u8],
    pairs: &mut Vec<(&'a str, &'a str)>,
    parts: &mut Parts,
    allowance: &mut Allowance,
) -> Result<(), Error> {
    let later = std::mem::take(pairs);
    let read = read_sent_labels(leading, pairs);
    allowance.charge(pairs.len() * size_of::<(&str, &str)>())?;
    let mut message = Message::new(&leading[read..]);
    while let Some((number, field)) = message.next()? {
        any_label(field.bytes(number)?, pairs, parts, allowance)?;
    }
    pairs.extend(later);
    Ok(())
}

fn any_label<'a>(
    bytes: &'a [u8],
    pairs: &mut Vec<(&'a str, &'a str)>,
    parts: &mut Parts,
    allowance: &mut Allowance,
) -> Result<(), Error> {
    match label(bytes) {
        Ok(pair) => {
            allowance.charge(size_of::<(&str, &str)>())?;
            pairs.push(pair);
        }
        Err(WireError::NotUtf8(_)) => parts.broken_label = true,
        Err(error) => return Err(error.into()),
    }
    Ok(())
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
