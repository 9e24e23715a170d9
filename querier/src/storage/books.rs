//! Keeping the ledger: when it is written, and what it then says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tricord_model::{Seq, ShardId};

use super::Error;
use super::ledger::{Account, Ledger, LogEnd};
use super::store::{Cell, Inner};

/// What is known of the ledger on disk.
#[derive(Default)]
pub(crate) struct Books {
    /// Held while it is written.
    written: Mutex<Written>,
    /// Changes that it could say. What is removed only after it says so does not wait for these.
    changes: AtomicU64,
}

/// What it said when it was written last.
#[derive(Default)]
struct Written {
    /// How far the log reached.
    log_end: LogEnd,
    /// So many of the changes.
    changes: u64,
}

impl Books {
    /// Says that the ledger could say more; it is written with the next round of maintenance.
    pub(crate) fn fall_behind(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl Inner {
    /// Writes the ledger as things stand, durably. Not while a shard's state is locked.
    pub(crate) fn write_ledger(&self) -> Result<(), Error> {
        self.write_locked(&mut self.books.written.lock())
    }

    /// Has the ledger say what has just been changed, durably. Several changes at a time cost one writing or two.
    pub(crate) fn tell_ledger(&self) -> Result<(), Error> {
        let change = self.books.changes.fetch_add(1, Ordering::AcqRel) + 1;
        let mut written = self.books.written.lock();
        if written.changes >= change { Ok(()) } else { self.write_locked(&mut written) }
    }

    fn write_locked(&self, written: &mut Written) -> Result<(), Error> {
        // Before there is a log, nothing is known of it.
        let Some(log) = self.log.get() else { return Ok(()) };
        let changes = self.books.changes.load(Ordering::Acquire);
        let mut ledger = Ledger { log_end: log.end(), ..Ledger::default() };
        let cells = self.cells();
        for cell in &cells {
            ledger.shards.insert(cell.id, self.account(cell, log.position(cell.id).seq));
        }
        // It says only what is durable.
        log.sync().and_then(|()| ledger.write(&self.config.dir))?;
        *written = Written { log_end: ledger.log_end, changes };
        for (cell, account) in cells.iter().zip(ledger.shards.values()) {
            cell.note_ledger(account.base.seq);
        }
        Ok(())
    }

    fn account(&self, cell: &Arc<Cell>, last: Seq) -> Account {
        let mut marks = self.damages.lost_of(cell.id);
        let shard = cell.state.read();
        for (window_ms, of_window) in &shard.marks {
            marks.extend(of_window.iter().map(|mark| (*window_ms, *mark)));
        }
        // What is not committed may be cut.
        Account { epoch: shard.epoch, base: shard.base, last: shard.committed.min(last), marks }
    }

    /// Writes the ledger where it says less than it could, or a segment of the log was begun since.
    pub(crate) fn refresh_ledger(&self) -> Result<(), Error> {
        let segment = self.log.get().map_or(0, |log| log.end().segment);
        let is_old = self.books.written.lock().log_end.segment != segment;
        if is_old { self.write_ledger() } else { self.settle_ledger() }
    }

    /// Writes the ledger where it says less than it could.
    pub(crate) fn settle_ledger(&self) -> Result<(), Error> {
        let changes = self.books.changes.load(Ordering::Acquire);
        if self.books.written.lock().changes < changes { self.write_ledger() } else { Ok(()) }
    }

    /// The entry up to which the ledger says that a shard needs nothing of the log; `None` for one that is not there.
    pub(crate) fn ledgered(&self, shard: ShardId) -> Option<Seq> {
        self.find(shard).map(|cell| cell.ledgered())
    }
}
