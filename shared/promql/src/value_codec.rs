//! Columns as bytes, as partial results travel between nodes.

use std::sync::Arc;

use tricord_model::codec::{CodecError, Reader, Writer};
use tricord_model::{FloatHistogram, Labels};

use crate::value::Column;

impl Column {
    /// Appends the column to a buffer, to the bit.
    pub fn encode(&self, out: &mut Writer<'_>) {
        self.labels.encode(out);
        out.u8(u8::from(self.drop_name));
        out.u64(self.floats.len() as u64);
        out.f64s(&self.floats);
        out.u64(self.histograms.len() as u64);
        for (step, histogram) in &self.histograms {
            out.u64(u64::from(*step));
            histogram.encode(out);
        }
    }

    /// Reads what [`Column::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes end early, or name steps that the column does not have.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let labels = Labels::decode(input)?;
        let drop_name = input.u8()? != 0;
        let steps = input.count(8)?;
        let floats = input.f64s(steps)?;
        let mut histograms: Vec<(u32, Arc<FloatHistogram>)> = Vec::new();
        for _ in 0..input.count(2)? {
            let step = input.u32()?;
            if step as usize >= steps || histograms.last().is_some_and(|(last, _)| *last >= step) {
                return Err(CodecError::Invalid("steps are not ascending"));
            }
            let histogram = FloatHistogram::decode(input)?;
            if !crate::histogram::is_well_formed(&histogram) {
                return Err(CodecError::Invalid("histogram spans do not match its buckets"));
            }
            histograms.push((step, Arc::new(histogram)));
        }
        Ok(Self { labels, drop_name, floats, histograms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::ABSENT;

    #[test]
    fn a_column_round_trips() {
        let column = Column {
            labels: Labels::from_pairs([("a", "b")]),
            drop_name: true,
            floats: vec![1.5, ABSENT, -0.0],
            histograms: vec![(1, Arc::new(FloatHistogram { count: 2.0, ..FloatHistogram::default() }))],
        };
        let mut bytes = Vec::new();
        column.encode(&mut Writer::new(&mut bytes));
        let back = Column::decode(&mut Reader::new(&bytes)).unwrap();
        let bits = |column: &Column| column.floats.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            (bits(&back), &back.labels, &back.histograms),
            (bits(&column), &column.labels, &column.histograms)
        );
    }
}
