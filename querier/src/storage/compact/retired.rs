//! Generations that others have taken the place of: they are removed once nobody reads them any more.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tricord_model::ShardId;

use crate::storage::Error;
use crate::storage::keys::{self, Generation};
use crate::storage::marks::generations_of;
use crate::storage::store::{Cell, Inner};

/// What was replaced and waits for its readers.
#[derive(Default)]
pub(crate) struct Retired {
    /// What readers hold that begin now.
    current: Mutex<Arc<()>>,
    waiting: Mutex<VecDeque<Batch>>,
}

/// What was replaced together.
struct Batch {
    /// Held by those that began before.
    guard: Arc<()>,
    parts: Vec<(Generation, Arc<Cell>)>,
}

impl Retired {
    /// To be held by whoever reads, from before it looks which generations there are.
    pub(crate) fn guard(&self) -> Arc<()> {
        Arc::clone(&self.current.lock())
    }

    /// Takes generations that no reader finds from now on.
    pub(crate) fn push(&self, parts: Vec<(Generation, Arc<Cell>)>) {
        let guard = std::mem::take(&mut *self.current.lock());
        self.waiting.lock().push_back(Batch { guard, parts });
    }

    /// What nobody can be reading and was replaced first: a reader may read all that was replaced after it began.
    fn pop(&self) -> Option<Vec<(Generation, Arc<Cell>)>> {
        let mut waiting = self.waiting.lock();
        let is_free = waiting.front().is_some_and(|batch| Arc::strong_count(&batch.guard) == 1);
        if is_free { waiting.pop_front().map(|batch| batch.parts) } else { None }
    }
}

impl Inner {
    /// Removes replaced generations that nobody reads.
    pub(crate) fn remove_retired(&self) -> Result<(), Error> {
        // A shard that is being installed has data before it is seen.
        let _no_install = self.flushing.lock();
        if self.pins.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        while let Some(replaced) = self.retired.pop() {
            let mut parts: BTreeMap<Generation, Vec<ShardId>> = BTreeMap::new();
            for (of, cell) in replaced {
                // A shard that was dropped since is erased, and may have come back with data of its own.
                if self.find(cell.id).is_some_and(|found| Arc::ptr_eq(&found, &cell)) {
                    parts.entry(of).or_default().push(cell.id);
                }
            }
            self.remove_parts(&parts, &self.used_generations())?;
        }
        Ok(())
    }

    fn used_generations(&self) -> HashSet<Generation> {
        let mut used = HashSet::new();
        for cell in self.cells() {
            used.extend(generations_of(&cell.state.read().marks));
        }
        used
    }

    /// Removes what shards have in generations: whole files where no shard has anything else in them. The marks go first,
    /// as an index without marks is removed when the store is opened.
    pub(crate) fn remove_parts(
        &self,
        parts: &BTreeMap<Generation, Vec<ShardId>>,
        used: &HashSet<Generation>,
    ) -> Result<(), Error> {
        let mut batch = self.rocks.batch();
        for (of, shards) in parts {
            if !used.contains(of) {
                let prefix = keys::generation(*of);
                self.rocks.delete_range(keys::DATA, &prefix, &keys::after(&prefix))?;
                self.rocks.delete_range(keys::INDEX, &prefix, &keys::after(&prefix))?;
                continue;
            }
            for shard in shards {
                let prefix = keys::shard(*of, *shard);
                batch.delete(keys::DATA, &keys::mark(*of, *shard));
                batch.delete_range(keys::DATA, &prefix, &keys::after(&prefix));
                batch.delete_range(keys::INDEX, &prefix, &keys::after(&prefix));
            }
        }
        if batch.is_empty() { Ok(()) } else { Ok(self.rocks.write(batch, true)?) }
    }
}
