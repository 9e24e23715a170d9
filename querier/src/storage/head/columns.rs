//! The columns of a part, in the order in which their series first came.

use hashbrown::HashTable;

use super::column::Column;
use super::registry::hash_id;

/// Columns by series id.
#[derive(Clone, Default)]
pub(crate) struct Columns {
    entries: Vec<(u32, Column)>,
    /// Places in `entries`.
    by_id: HashTable<u32>,
}

impl Columns {
    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no series.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, id: u32) -> Option<usize> {
        let place = self.by_id.find(hash_id(id), |place| self.is_at(*place as usize, id));
        place.map(|place| *place as usize)
    }

    #[inline]
    fn is_at(&self, place: usize, id: u32) -> bool {
        self.entries.get(place).is_some_and(|(known, _)| *known == id)
    }

    /// The column of a series.
    pub(crate) fn get(&self, id: &u32) -> Option<&Column> {
        self.entries.get(self.find(*id)?).map(|(_, column)| column)
    }

    /// Whether a series has a column.
    pub(crate) fn contains_key(&self, id: &u32) -> bool {
        self.find(*id).is_some()
    }

    /// Where a series is; `guess` is where it is looked for first.
    #[inline]
    fn place(&self, id: u32, guess: usize) -> Option<usize> {
        if self.is_at(guess, id) { Some(guess) } else { self.find(id) }
    }

    /// The column of a series, where there is one; `guess` is as in [`Columns::entry`].
    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32, guess: &mut usize) -> Option<&mut Column> {
        let place = self.place(id, *guess)?;
        *guess = place + 1;
        self.entries.get_mut(place).map(|(_, column)| column)
    }

    /// The column of a series, made where there is none, and whether that was so. `guess` is where it is looked for
    /// first; it is left behind the column, since senders mostly keep an order.
    #[inline]
    pub(crate) fn entry(&mut self, id: u32, guess: &mut usize) -> (&mut Column, bool) {
        let found = self.place(id, *guess);
        let place = found.unwrap_or_else(|| {
            let place = self.entries.len();
            self.entries.push((id, Column::default()));
            let entries = &self.entries;
            let hash = |place: &u32| entries.get(*place as usize).map_or(0, |(id, _)| hash_id(*id));
            self.by_id.insert_unique(hash_id(id), place as u32, hash);
            place
        });
        *guess = place + 1;
        (&mut self.entries[place].1, found.is_none())
    }

    /// Visits all columns, and removes those for which the answer is `false`.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u32, &mut Column) -> bool) {
        self.entries.retain_mut(|(id, column)| keep(*id, column));
        let entries = &self.entries;
        let hash = |place: &u32| entries.get(*place as usize).map_or(0, |(id, _)| hash_id(*id));
        self.by_id.clear();
        for (place, (id, _)) in entries.iter().enumerate() {
            self.by_id.insert_unique(hash_id(*id), place as u32, hash);
        }
    }

    /// The ids of the series.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &u32> {
        self.entries.iter().map(|(id, _)| id)
    }
}

impl<'a> IntoIterator for &'a Columns {
    type Item = (&'a u32, &'a Column);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (u32, Column)>, fn(&'a (u32, Column)) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter().map(|(id, column)| (id, column))
    }
}

#[cfg(test)]
mod tests {
    use tricord_model::Sample;

    use super::*;

    #[test]
    fn a_wrong_guess_costs_time_only() {
        let mut columns = Columns::default();
        let ids = [7, 1_000_000, 3, u32::MAX, 0];
        for (round, guesses) in [[0, 1, 2, 3, 4], [4, 0, 9, 1, 2], [9; 5]].into_iter().enumerate() {
            for (id, guess) in ids.into_iter().zip(guesses) {
                let mut place = guess;
                let (column, is_new) = columns.entry(id, &mut place);
                assert_eq!(is_new, round == 0);
                column.push(0, &Sample::float(round as i64, f64::from(id)));
            }
        }
        assert_eq!(columns.keys().copied().collect::<Vec<_>>(), ids);
        for id in ids {
            assert_eq!(columns.get(&id).unwrap().points(0, 0, 9).floats, [f64::from(id); 3]);
        }
        assert!(!columns.contains_key(&8) && columns.len() == ids.len() && !columns.is_empty());
        assert_eq!((&columns).into_iter().count(), ids.len());
        columns.retain(|id, _| id != 3);
        assert!(ids.into_iter().all(|id| columns.contains_key(&id) == (id != 3)));
        let mut guess = 9;
        assert!(columns.entry(3, &mut guess).1 && !columns.entry(7, &mut guess).1);
    }
}
