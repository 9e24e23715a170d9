//! Columns of timestamps, stored once for all series that share them: those of one scrape do.

use std::collections::HashMap;

use tricord_model::codec::{Reader, Writer};

use super::{pack, unpack};
use crate::storage::Error;

const VERSION: u8 = 1;
/// Columns in a block: about as many as a block of values has series.
pub(crate) const COLUMNS_PER_BLOCK: usize = 64;
/// The same in merged windows, where columns are long.
pub(crate) const LONG_COLUMNS_PER_BLOCK: usize = 8;

/// The distinct columns of a window, numbered in the order of first use.
#[derive(Default)]
pub(crate) struct TimesBuilder {
    numbers: HashMap<Vec<i64>, u32>,
    columns: Vec<Vec<i64>>,
}

impl TimesBuilder {
    /// The number of a column.
    pub(crate) fn number(&mut self, times: &[i64]) -> u32 {
        if let Some(number) = self.numbers.get(times) {
            return *number;
        }
        let number = self.columns.len() as u32;
        self.numbers.insert(times.to_vec(), number);
        self.columns.push(times.to_vec());
        number
    }

    /// The blocks in order.
    pub(crate) fn finish(&self) -> Result<Vec<Vec<u8>>, Error> {
        self.columns.chunks(COLUMNS_PER_BLOCK).map(encode).collect()
    }
}

/// A block of columns.
pub(crate) fn encode(columns: &[Vec<i64>]) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let out = &mut Writer::new(&mut body);
    out.u64(columns.len() as u64);
    for column in columns {
        out.u64(column.len() as u64);
        let (mut previous, mut delta) = (0i64, 0i64);
        for time in column {
            let next = time.wrapping_sub(previous);
            out.i64(next.wrapping_sub(delta));
            (previous, delta) = (*time, next);
        }
    }
    pack(VERSION, &body)
}

/// The columns of a block.
pub(crate) fn decode(block: &[u8]) -> Result<Vec<Vec<i64>>, Error> {
    let body = unpack(VERSION, block, "timestamp")?;
    let input = &mut Reader::new(&body);
    let count = input.count(1)?;
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        let len = input.count(1)?;
        let (mut previous, mut delta) = (0i64, 0i64);
        let mut column = Vec::with_capacity(len);
        for _ in 0..len {
            delta = delta.wrapping_add(input.i64()?);
            previous = previous.wrapping_add(delta);
            column.push(previous);
        }
        columns.push(column);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_columns_are_stored_once() {
        let mut builder = TimesBuilder::default();
        let scrape =
            |shift: i64| (0..120).map(|n| 1_700_000_000_000 + shift + n * 15_000).collect::<Vec<_>>();
        let numbers: Vec<u32> = (0..1000).map(|n| builder.number(&scrape(n % 100))).collect();
        assert_eq!((numbers[5], numbers[105], numbers[99]), (5, 5, 99));
        let blocks = builder.finish().unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!(decode(&blocks[1]).unwrap()[99 - COLUMNS_PER_BLOCK], scrape(99));
        assert!(decode(&blocks[0][..20]).is_err());
    }
}
