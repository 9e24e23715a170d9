//! Remote write 2.0: `io.prometheus.write.v2.Request`, whose strings lie in one table, walked in place.

use foldhash::HashSet;
use tricord_model::{Exemplar, METRIC_NAME, MetricKind, MetricMetadata, SeriesBatch, Value};

use super::labels::{plain_labels, shown, sort_series};
use super::remote_write::{Parts, sample};
use super::sent::{means, push_label};
use super::wire::{Field, Message, WireError};
use super::{Allowance, Sink};
use crate::Error;

/// Labels of more bytes are not remembered: a few bytes of references may name any number of long texts.
const MAX_REMEMBERED: usize = 16 << 10;

/// The request's strings; `None` where one is not UTF-8, which only matters to those who refer to it.
struct Symbols<'a>(Vec<Option<&'a str>>);

impl<'a> Symbols<'a> {
    fn get(&self, reference: u32) -> Result<&'a str, String> {
        match self.0.get(reference as usize) {
            Some(Some(text)) => Ok(text),
            Some(None) => Err(format!("symbol {reference} is not valid UTF-8")),
            None => Err(format!("symbol {reference} does not exist: the table has {}", self.0.len())),
        }
    }

    /// Appends the labels that packed references name in the form in which they are remembered; answers the metric's name.
    /// Nothing where they are not labels in that form.
    #[inline]
    fn push_labels(&self, packed: &[u8], sent: &mut Vec<u8>) -> Option<&'a str> {
        let mut references = Message::new(packed);
        let mut metric = "";
        while !references.is_empty() {
            let (name, value) = (references.varint().ok()?, references.varint().ok()?);
            let text = |reference: u64| *self.0.get(usize::try_from(reference).ok()?)?;
            let (name, value) = (text(name)?, text(value)?);
            if !push_label(name, value, sent) || sent.len() > MAX_REMEMBERED {
                return None;
            }
            if name == METRIC_NAME {
                metric = value;
            }
        }
        Some(metric)
    }

    /// Reads the pairs that a list of references names, in the sender's order.
    fn pairs(&self, references: &[u32], pairs: &mut Vec<(&'a str, &'a str)>) -> Result<(), String> {
        pairs.clear();
        if !references.len().is_multiple_of(2) {
            return Err(format!(
                "{} label references: names and values must come in pairs",
                references.len()
            ));
        }
        for pair in references.chunks_exact(2) {
            pairs.push((self.get(pair[0])?, self.get(pair[1])?));
        }
        Ok(())
    }
}

/// Decodes a request into a sink. Series that are broken by themselves are counted as rejected; the others are kept.
///
/// # Errors
/// [`Error::Invalid`] when the bytes are not such a request, [`Error::TooLarge`] when the allowance is spent. The sink
/// has a part of the request then.
pub fn decode(bytes: &[u8], allowance: &mut Allowance, sink: &mut impl Sink) -> Result<(), Error> {
    let symbols = symbols(bytes, allowance)?;
    let mut series = Series {
        symbols: &symbols,
        references: Vec::new(),
        pairs: Vec::new(),
        sent: Vec::new(),
        parts: Parts::default(),
    };
    let mut families = HashSet::default();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        if number == 5 {
            series.read(field.bytes(number)?, allowance, &mut families, sink)?;
        }
    }
    Ok(())
}

fn symbols<'a>(bytes: &'a [u8], allowance: &mut Allowance) -> Result<Symbols<'a>, Error> {
    let mut symbols = Vec::new();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        if number == 4 {
            allowance.charge(size_of::<Option<&str>>())?;
            symbols.push(std::str::from_utf8(field.bytes(number)?).ok());
        }
    }
    Ok(Symbols(symbols))
}

/// A series being read; its lists are used again for the next one.
struct Series<'a> {
    symbols: &'a Symbols<'a>,
    references: Vec<u32>,
    pairs: Vec<(&'a str, &'a str)>,
    /// The labels in the form in which they are remembered.
    sent: Vec<u8>,
    parts: Parts,
}

impl Series<'_> {
    fn read(
        &mut self,
        bytes: &[u8],
        allowance: &mut Allowance,
        families: &mut HashSet<String>,
        sink: &mut impl Sink,
    ) -> Result<(), Error> {
        allowance.charge(size_of::<SeriesBatch>() + 64)?;
        let Self { symbols, references, pairs, sent, parts } = self;
        parts.clear();
        references.clear();
        let (mut metadata, mut created_ms, mut packed) = (None, 0, None);
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                // All of them at once, as senders write them; they are read when it is known who needs them.
                (1, Field::Bytes(all)) if packed.is_none() && references.is_empty() => packed = Some(all),
                (1, field) => {
                    if let Some(first) = packed.take() {
                        numbers(number, Field::Bytes(first), references, allowance)?;
                    }
                    numbers(number, field, references, allowance)?;
                }
                (2, field) => {
                    allowance.charge(size_of::<tricord_model::Sample>())?;
                    parts.samples.push(sample(field.bytes(number)?)?);
                }
                (3, field) => parts.histogram(field.bytes(number)?, allowance)?,
                (4, field) => match exemplar(field.bytes(number)?, symbols, allowance)? {
                    Ok(exemplar) => parts.exemplars.push(exemplar),
                    Err(reason) => {
                        parts.rejected_exemplars += 1;
                        parts.reasons.push(reason);
                    }
                },
                (5, field) => metadata = Some(Metadata::read(field.bytes(number)?)?),
                (6, field) => created_ms = field.varint(number)? as i64,
                _ => {}
            }
        }
        // Older senders give one start for the whole series.
        for sample in parts.samples.iter_mut().filter(|sample| sample.start_ms == 0) {
            sample.start_ms = created_ms;
        }
        let floats = parts.samples.iter().filter(|sample| matches!(sample.value, Value::Float(_))).count();
        let is_mixed = floats > 0 && floats < parts.samples.len();
        sent.clear();
        let metric = packed.and_then(|packed| symbols.push_labels(packed, sent));
        if let Some(metric) = metric
            && !is_mixed
            && parts.is_clean()
            && sink.recall(sent, &parts.data())
        {
            allowance.charge(sent.len())?;
            return metadata.map_or(Ok(()), |told| told.keep(metric, symbols, families, allowance, sink));
        }
        if let Some(packed) = packed {
            numbers(1, Field::Bytes(packed), references, allowance)?;
        }
        let mut sorted = symbols.pairs(references, pairs).and_then(|()| {
            let text: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
            allowance.charge(text + references.len() * 12).map_err(|error| error.to_string())?;
            sort_series(pairs)
        });
        if is_mixed && sorted.is_ok() {
            sorted = Err(format!("series {} has both float and histogram samples", shown(pairs)));
        }
        if let (Ok(()), Some(metadata)) = (&sorted, metadata) {
            let name = pairs.iter().find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| value);
            metadata.keep(name, symbols, families, allowance, sink)?;
        }
        let sent = (metric.is_some() && means(sent, pairs)).then_some(sent.as_slice());
        parts.finish(sorted.map(|()| &**pairs), sent, sink);
        Ok(())
    }
}

fn numbers(
    number: u32,
    field: Field<'_>,
    out: &mut Vec<u32>,
    allowance: &mut Allowance,
) -> Result<(), Error> {
    let reference = |value: u64| u32::try_from(value).map_err(|_| WireError::Malformed);
    match field {
        Field::Varint(value) => out.push(reference(value)?),
        Field::Bytes(packed) => {
            allowance.charge(packed.len() * size_of::<u32>())?;
            let mut packed = Message::new(packed);
            while !packed.is_empty() {
                out.push(reference(packed.varint()?)?);
            }
        }
        _ => return Err(WireError::WrongType(number).into()),
    }
    Ok(())
}

fn exemplar(
    bytes: &[u8],
    symbols: &Symbols<'_>,
    allowance: &mut Allowance,
) -> Result<Result<Exemplar, String>, Error> {
    allowance.charge(size_of::<Exemplar>() + 64 + bytes.len())?;
    let (mut references, mut value, mut t_ms) = (Vec::new(), 0.0, 0);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => numbers(number, field, &mut references, allowance)?,
            2 => value = field.double(number)?,
            3 => t_ms = field.varint(number)? as i64,
            _ => {}
        }
    }
    let mut pairs = Vec::new();
    let labels = symbols.pairs(&references, &mut pairs).and_then(|()| {
        let text: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        allowance.charge(text).map_err(|error| error.to_string())?;
        plain_labels(&mut pairs)
    });
    Ok(labels.map(|labels| Exemplar { labels, t_ms, value }).map_err(|error| format!("exemplar: {error}")))
}

/// The metadata that every series carries.
#[derive(Default, Clone, Copy)]
struct Metadata {
    kind: MetricKind,
    help: u32,
    unit: u32,
}

impl Metadata {
    fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut metadata = Self::default();
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next()? {
            match number {
                1 => metadata.kind = MetricKind::from_number(field.varint(number)? as u8),
                3 => metadata.help = field.varint(number)? as u32,
                4 => metadata.unit = field.varint(number)? as u32,
                _ => {}
            }
        }
        Ok(metadata)
    }

    /// Keeps it once for each family of the request.
    fn keep(
        self,
        name: &str,
        symbols: &Symbols<'_>,
        families: &mut HashSet<String>,
        allowance: &mut Allowance,
        sink: &mut impl Sink,
    ) -> Result<(), Error> {
        let unit = symbols.get(self.unit).unwrap_or("");
        let help = symbols.get(self.help).unwrap_or("");
        if self.kind == MetricKind::Unknown && unit.is_empty() && help.is_empty() {
            return Ok(());
        }
        let family = family(name, self.kind);
        if !families.contains(family) {
            // Any number of families may refer to one long text.
            allowance.charge(2 * family.len() + unit.len() + help.len() + 256)?;
            families.insert(family.to_owned());
            let metadata = MetricMetadata { kind: self.kind, unit: unit.to_owned(), help: help.to_owned() };
            sink.metadata(family.to_owned(), metadata);
        }
        Ok(())
    }
}

/// The family of a series: classic histograms and summaries put a suffix behind its name.
fn family(name: &str, kind: MetricKind) -> &str {
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram | MetricKind::GaugeHistogram => &["_bucket", "_sum", "_count"],
        MetricKind::Summary => &["_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|n| !n.is_empty()).unwrap_or(name)
}
