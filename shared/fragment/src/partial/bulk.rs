//! The binary encoding of columns, raw samples and exemplars.

use std::sync::Arc;

use tricord_model::codec::{CodecError, Reader, Writer};
use tricord_model::{Exemplar, FloatHistogram, Labels, Points, Sample, decode_samples, encode_samples};
use tricord_promql::value::Column;

/// Writes a kind, a count and the items.
pub(super) fn list<T>(
    kind: u8,
    items: &[T],
    out: &mut Writer<'_>,
    mut write: impl FnMut(&T, &mut Writer<'_>),
) {
    out.u8(kind);
    out.u64(items.len() as u64);
    items.iter().for_each(|item| write(item, out));
}

/// Reads what [`list`] wrote behind the kind.
pub(super) fn read<T>(
    input: &mut Reader<'_>,
    mut one: impl FnMut(&mut Reader<'_>) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let count = input.count(1)?;
    (0..count).map(|_| one(input)).collect()
}

pub(super) fn encode_column(column: &Column, out: &mut Writer<'_>) {
    column.labels.encode(out);
    out.u8(u8::from(column.drop_name));
    out.u64(column.floats.len() as u64);
    out.f64s(&column.floats);
    out.u64(column.histograms.len() as u64);
    for (step, histogram) in &column.histograms {
        out.u64(u64::from(*step));
        histogram.encode(out);
    }
}

pub(super) fn decode_column(input: &mut Reader<'_>) -> Result<Column, CodecError> {
    let labels = Labels::decode(input)?;
    let drop_name = input.u8()? != 0;
    let steps = input.count(8)?;
    let floats = input.f64s(steps)?;
    let count = input.count(8)?;
    let histograms = (0..count)
        .map(|_| Ok((input.u32()?, Arc::new(FloatHistogram::decode(input)?))))
        .collect::<Result<_, CodecError>>()?;
    Ok(Column { labels, drop_name, floats, histograms })
}

pub(super) fn encode_raw((labels, points): &(Labels, Points), out: &mut Writer<'_>) {
    labels.encode(out);
    let samples: Vec<Sample> = points.iter().collect();
    encode_samples(&samples, out);
}

pub(super) fn decode_raw(input: &mut Reader<'_>) -> Result<(Labels, Points), CodecError> {
    Ok((Labels::decode(input)?, decode_samples(input)?.into_iter().collect()))
}

pub(super) fn encode_exemplars((labels, exemplars): &(Labels, Vec<Exemplar>), out: &mut Writer<'_>) {
    labels.encode(out);
    out.u64(exemplars.len() as u64);
    for exemplar in exemplars {
        exemplar.labels.encode(out);
        out.i64(exemplar.t_ms);
        out.f64(exemplar.value);
    }
}

pub(super) fn decode_exemplars(input: &mut Reader<'_>) -> Result<(Labels, Vec<Exemplar>), CodecError> {
    let labels = Labels::decode(input)?;
    let count = input.count(10)?;
    let exemplar = |input: &mut Reader<'_>| {
        Ok(Exemplar { labels: Labels::decode(input)?, t_ms: input.i64()?, value: input.f64()? })
    };
    Ok((labels, (0..count).map(|_| exemplar(input)).collect::<Result<_, CodecError>>()?))
}
