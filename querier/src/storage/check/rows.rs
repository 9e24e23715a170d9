//! Looking at the shards' rows.

use std::collections::BTreeMap;

use tricord_model::{Labels, Seq, ShardId, Tenant};
use tricord_rocks::Rocks;

use super::{Check, Finding, REPLACE, RESTORE};
use crate::storage::head::payload::decode_metadata;
use crate::storage::keys::{self, Row};
use crate::storage::mend::RowsHealth;
use crate::storage::state::{StoredShard, checked, id_of, read_delta, stored_shards};
use crate::storage::{Error, deletes};

/// Reads a row's key and value.
type ReadRow<'r> = &'r dyn Fn(&[u8], &[u8]) -> Result<(), Error>;

/// The entry up to which each shard needs nothing of the log.
pub(super) type Bases = BTreeMap<ShardId, Seq>;

impl Check<'_> {
    /// Looks at all rows; answers the bases of those that count.
    pub(super) fn rows(&mut self, rocks: &Rocks) -> Result<Bases, Error> {
        let mut bases = Bases::new();
        let health = RowsHealth::default();
        let shards = match stored_shards(rocks, self.ledger.shards.keys().copied(), &health) {
            // Without a ledger nothing says which shards there were.
            Err(error) if error.is_damage() => {
                let place = rocks.path().display().to_string();
                let lost = "which shards there are: the node does not start";
                self.find(&place, format!("rows of shards: {error}"), lost, RESTORE);
                return Ok(bases);
            }
            shards => shards?,
        };
        let total = shards.len() as u64;
        for (at, StoredShard { id, meta, is_void }) in shards.into_iter().enumerate() {
            self.tell("rows of shards", at as u64, total);
            if is_void {
                continue;
            }
            self.report.looked.shards += 1;
            let known = self.ledger.shards.get(&id).cloned().unwrap_or_default();
            match meta {
                Ok(meta) => {
                    bases.insert(id, meta.base.seq);
                    if meta.base.seq < known.base.seq || meta.epoch < known.epoch {
                        let (found, base) = (meta.base.seq, known.base.seq);
                        let what = format!("they are those of entry {found}, and had been of entry {base}");
                        self.damaged_rows(rocks, id, what);
                    }
                }
                Err(error) => {
                    self.damaged_rows(rocks, id, error.to_string());
                    continue;
                }
            }
            if let Err(error) = self.content(rocks, id) {
                if !error.is_damage() {
                    return Err(error);
                }
                self.damaged_rows(rocks, id, error.to_string());
            }
        }
        Ok(bases)
    }

    fn damaged_rows(&mut self, rocks: &Rocks, id: ShardId, what: String) {
        self.add(Finding {
            place: rocks.path().display().to_string(),
            what: format!("rows of shard {id}: {what}"),
            shard: Some(id.0),
            lost: "the shard takes no writes and answers no queries".to_owned(),
            advice: REPLACE.to_owned(),
            ..Finding::default()
        });
    }

    fn content(&mut self, rocks: &Rocks, id: ShardId) -> Result<(), Error> {
        let mut each = |kind: Row, read: ReadRow<'_>| {
            let from = keys::row(id, kind);
            rocks.scan::<Error>(keys::STATE, &from, &keys::after(&from), &mut |key, row| {
                self.report.looked.rows += 1;
                read(key, row)?;
                Ok(true)
            })
        };
        each(Row::Series, &|key, row| {
            let input = &mut checked(row)?;
            Tenant::new(input.str()?).map_err(|error| Error::corrupt(error.to_string()))?;
            Labels::decode(input)?;
            id_of(key).map(drop)
        })?;
        each(Row::Delta, &|key, row| read_delta(row).and_then(|_| id_of(key)).map(drop))?;
        each(Row::Tombstone, &|_, row| deletes::decode(checked(row)?.rest(), Seq(0)).map(drop))?;
        each(Row::Metadata, &|_, row| decode_metadata(&mut checked(row)?).map(drop))
    }
}
