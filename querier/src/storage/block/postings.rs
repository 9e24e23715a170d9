//! Sets of series of one window: short ones as differences, long ones as roaring bitmaps.

use roaring::RoaringBitmap;
use smallvec::SmallVec;
use tricord_model::codec::{Reader, Writer};

use crate::storage::Error;

const LIST: u8 = 1;
const ROARING: u8 = 2;
/// Up to so many series a list of differences is smaller than a bitmap with its header.
const LIST_UP_TO: u64 = 64;

/// A set as bytes.
pub(crate) fn encode(ids: &RoaringBitmap) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    if ids.len() <= LIST_UP_TO {
        bytes.push(LIST);
        let mut previous = 0;
        for id in ids {
            Writer::new(&mut bytes).u64(u64::from(id - previous));
            previous = id;
        }
        return Ok(bytes);
    }
    bytes.push(ROARING);
    ids.serialize_into(&mut bytes).map_err(|error| Error::Io(format!("cannot write a bitmap: {error}")))?;
    Ok(bytes)
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<RoaringBitmap, Error> {
    match bytes.split_first() {
        Some((&LIST, list)) => {
            let mut input = Reader::new(list);
            let mut list = SmallVec::<[u32; LIST_UP_TO as usize]>::new();
            let mut previous = 0u32;
            while !input.is_empty() {
                previous = previous.saturating_add(input.u32()?);
                list.push(previous);
            }
            RoaringBitmap::from_sorted_iter(list)
                .map_err(|_| Error::corrupt("a set of series does not ascend"))
        }
        Some((&ROARING, bitmap)) => RoaringBitmap::deserialize_from(bitmap)
            .map_err(|error| Error::corrupt(format!("a bitmap of series cannot be read: {error}"))),
        _ => Err(Error::corrupt("a set of series has an unknown codec: it may be of a newer build")),
    }
}

/// Whether what [`encode`] wrote has any of some series; a short list is not read further than to the first.
pub(crate) fn intersects(bytes: &[u8], ids: &RoaringBitmap) -> Result<bool, Error> {
    let Some((&LIST, list)) = bytes.split_first() else { return Ok(!decode(bytes)?.is_disjoint(ids)) };
    let mut input = Reader::new(list);
    let mut previous = 0u32;
    while !input.is_empty() {
        previous = previous.saturating_add(input.u32()?);
        if ids.contains(previous) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_any_size_come_back() {
        for set in [vec![], vec![0], vec![5, 9, 70_000], (0..5000).map(|n| n * 3).collect::<Vec<u32>>()] {
            let ids = RoaringBitmap::from_iter(set);
            let encoded = encode(&ids).unwrap();
            assert_eq!(decode(&encoded).unwrap(), ids);
            for other in [vec![], vec![9], vec![8, 70_000], (1..4_000).map(|n| n * 3 + 1).collect()] {
                let other = RoaringBitmap::from_iter(other);
                assert_eq!(intersects(&encoded, &other).unwrap(), !ids.is_disjoint(&other));
            }
        }
        assert!(decode(&[ROARING, 1, 2]).is_err());
        assert!(decode(&[]).is_err());
        assert!(intersects(&[], &RoaringBitmap::new()).is_err());
    }
}
