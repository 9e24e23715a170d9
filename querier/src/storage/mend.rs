//! Rows that cannot be read: their family is written anew without the files that are in the way. RocksDB keeps a damaged
//! file, so that a copy could never be put in place beside it.
//!
//! Rows of shards that are fenced may be left out, as the ledger names those shards and has their epochs: without rows
//! they stay fenced. Nothing is guessed of any other shard: as long as rows of one cannot be read, all stays as it is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tricord_model::ShardId;
use tricord_rocks::Fresh;

use super::guard::LOST;
use super::keys::{self, Row};
use super::store::Inner;
use super::{Error, Store};

/// What is known of the family of rows.
#[derive(Default)]
pub(crate) struct RowsHealth {
    /// Something in it could not be read.
    is_damaged: AtomicBool,
    /// It was said that it cannot be written anew.
    is_told: AtomicBool,
}

/// What becomes of a shard's rows.
enum Fate {
    Copied,
    LeftOut,
}

impl RowsHealth {
    /// Notes what came of reading rows.
    pub(crate) fn note<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Rocks(error)) = &read
            && error.is_corruption()
        {
            self.is_damaged.store(true, Ordering::Release);
        }
        read
    }

    /// Whether something in it could not be read.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }
}

impl Store {
    /// Writes the family of rows anew where something in it could not be read and no shard has lost any by that.
    pub(super) fn mend_unneeded(&self) {
        let inner = &self.inner;
        if !inner.rows_health.is_damaged() {
            return;
        }
        let _no_flush = inner.flushing.lock();
        let _no_rows = inner.writing_rows.lock();
        // What a fenced shard had stays until the shard is replaced.
        if inner.cells().iter().any(|cell| cell.state.read().damage.is_some()) {
            return;
        }
        if let Err(error) = inner.mend_rows()
            && !inner.rows_health.is_told.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "rows of shards are damaged on disk, and are whole in memory");
            inner.damages.count();
        }
    }
}

impl Inner {
    /// Writes the family of rows anew where something in it could not be read. While nothing is flushed or installed, and
    /// no rows are written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where rows of a shard that is not fenced cannot be read; the disk's failure. Nothing has changed
    /// then.
    pub(crate) fn mend_rows(&self) -> Result<(), Error> {
        if !self.rows_health.is_damaged() {
            return Ok(());
        }
        // It fences shards without rows, knows their epochs, and does not name those that are void.
        self.write_ledger()?;
        let mut copied = Vec::new();
        let mut left_out = 0_usize;
        for cell in self.cells() {
            let is_fenced = cell.state.read().damage.is_some();
            match self.fate(cell.id, is_fenced)? {
                Fate::Copied => copied.push(cell.id),
                Fate::LeftOut => left_out += 1,
            }
        }
        let void = self.void_shards()?;
        if left_out > 0 {
            self.keep_files(&self.config.dir.join(LOST));
        }
        self.rocks.renew::<Error>(keys::STATE, &mut |fresh| {
            copied.iter().try_for_each(|shard| self.copy_rows(*shard, fresh))?;
            void.iter().try_for_each(|shard| Ok(fresh.put(&keys::row(*shard, Row::Installing), &[1])?))
        })?;
        self.rows_health.is_damaged.store(false, Ordering::Release);
        self.rows_health.is_told.store(false, Ordering::Relaxed);
        tracing::warn!(
            shards = copied.len(),
            left_out,
            "rows of shards were damaged: they are written anew, without what is lost of shards that are fenced"
        );
        Ok(())
    }

    /// Whether a shard's rows can be had.
    fn fate(&self, shard: ShardId, is_fenced: bool) -> Result<Fate, Error> {
        let prefix = keys::state(shard);
        let mut has_own = false;
        let read = self.rocks.scan::<Error>(keys::STATE, &prefix, &keys::after(&prefix), &mut |key, _| {
            has_own |= *key == keys::row(shard, Row::Meta);
            Ok(true)
        });
        match read {
            Ok(()) if has_own => Ok(Fate::Copied),
            Ok(()) if is_fenced => Ok(Fate::LeftOut),
            Ok(()) => Err(Error::corrupt(format!("the row of shard {shard} is gone, {RESTART}"))),
            Err(error) if error.is_damage() && is_fenced => Ok(Fate::LeftOut),
            Err(error) if error.is_damage() => {
                Err(Error::corrupt(format!("the rows of shard {shard} cannot be read ({error}), {RESTART}")))
            }
            Err(error) => Err(error),
        }
    }

    fn copy_rows(&self, shard: ShardId, fresh: &mut Fresh<'_>) -> Result<(), Error> {
        let prefix = keys::state(shard);
        self.rocks.scan::<Error>(keys::STATE, &prefix, &keys::after(&prefix), &mut |key, row| {
            fresh.put(key, row)?;
            Ok(true)
        })
    }

    /// Shards that are not here and have something on disk, which must not be taken for that of a shard that is made anew.
    fn void_shards(&self) -> Result<BTreeSet<ShardId>, Error> {
        let mut known: BTreeSet<Vec<u8>> = BTreeSet::new();
        for cell in self.cells() {
            let mut marks = self.damages.lost_of(cell.id);
            for (window_ms, of_window) in &cell.state.read().marks {
                marks.extend(of_window.iter().map(|mark| (*window_ms, *mark)));
            }
            known.extend(marks.iter().map(|(window_ms, mark)| keys::generation(mark.generation(*window_ms))));
        }
        let mut found: BTreeSet<ShardId> = match self.read_marks(&known) {
            Ok(marks) => marks.live.into_keys().collect(),
            // Nothing is known of any window: then there is none that counts.
            Err(error) if error.is_damage() && known.is_empty() => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let mut cursor = self.rocks.cursor(keys::STATE, &[], &[0xff; 8])?;
        // It ends where it cannot go on; marks say the rest.
        while let Some(id) = cursor.item().and_then(|(key, _)| key.first_chunk::<4>()).copied() {
            let shard = ShardId(u32::from_be_bytes(id));
            found.insert(shard);
            cursor.seek(&keys::after(&keys::state(shard)));
        }
        found.retain(|shard| self.find(*shard).is_none());
        Ok(found)
    }

    /// Keeps the files of the family aside, as far as they are there: what is left out may be wanted yet.
    fn keep_files(&self, lost: &Path) {
        for (path, _) in self.rocks.paths(keys::STATE).unwrap_or_default() {
            let Some(name) = path.file_name().filter(|_| path.exists()) else { continue };
            let kept =
                std::fs::create_dir_all(lost).and_then(|()| std::fs::hard_link(&path, lost.join(name)));
            if let Err(error) = kept.or_else(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            }) {
                tracing::warn!(path = %path.display(), %error, "a damaged file cannot be kept aside");
            }
        }
    }
}

/// What to do where memory has what the disk has not.
const RESTART: &str = "though memory has them: restart this data node, which fences the shard and has it copied again from another replica";
